//! Counts the memory of all copied request bodies in the process.
//!
//! Invariant: what is counted is never less than what is held, and never more than the total.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Memory of copied bodies.
#[derive(Debug, Default)]
pub struct CopiedBytes {
    held: AtomicU64,
    total: AtomicU64,
}

impl CopiedBytes {
    /// Sets the maximum in bytes. What is held stays.
    pub fn resize(&self, total: u64) {
        self.total.store(total, Relaxed);
    }

    /// Returns the number of bytes held.
    pub fn held(&self) -> u64 {
        self.held.load(Relaxed)
    }

    fn take(&self, more: u64) -> bool {
        let total = self.total.load(Relaxed);
        let taken = |held: u64| held.checked_add(more).filter(|held| *held <= total);
        self.held.fetch_update(Relaxed, Relaxed, taken).is_ok()
    }
}

/// Memory of one copied body, until it is dropped.
pub(super) struct Reservation {
    of: Arc<CopiedBytes>,
    bytes: u64,
}

impl Reservation {
    pub(super) const fn new(of: Arc<CopiedBytes>) -> Self {
        Self { of, bytes: 0 }
    }

    /// Grows to `bytes`. Returns `false`, and changes nothing, if there is no room.
    pub(super) fn grow_to(&mut self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        let has_room = self.of.take(bytes.saturating_sub(self.bytes));
        if has_room {
            self.bytes = self.bytes.max(bytes);
        }
        has_room
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.of.held.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_together_hold_the_total_at_most() {
        let all = Arc::new(CopiedBytes::default());
        all.resize(100);
        let [mut one, mut other] = [0, 1].map(|_| Reservation::new(Arc::clone(&all)));
        assert!(one.grow_to(60) && other.grow_to(40));
        assert!(!one.grow_to(61) && all.held() == 100, "a refusal takes nothing");
        assert!(one.grow_to(10), "it holds more already");
        all.resize(50);
        assert!(!other.grow_to(41));
        drop(one);
        assert_eq!(all.held(), 40);
        assert!(other.grow_to(50));
        drop(other);
        assert_eq!(all.held(), 0);
    }
}
