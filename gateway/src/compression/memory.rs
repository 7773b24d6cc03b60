//! Counts the memory of all answers that are being compressed, so that it has a limit.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Memory of the process, in bytes. Reloads of the config do not reset it.
static HELD: AtomicU64 = AtomicU64::new(0);

/// A share of the memory, which is given back when dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct MemoryShare {
    bytes: u64,
}

impl MemoryShare {
    /// Takes `bytes`, unless more than `limit` would then be taken by all.
    pub(super) fn take(bytes: u64, limit: u64) -> Option<Self> {
        let share = Self { bytes };
        let before = HELD.fetch_add(bytes, Relaxed);
        // Otherwise the share is dropped, which gives it back.
        (before.saturating_add(bytes) <= limit).then_some(share)
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        HELD.fetch_sub(self.bytes, Relaxed);
    }
}

/// Returns the memory in use, in bytes.
pub fn held() -> u64 {
    HELD.load(Relaxed)
}
