//! Records what is charged and given back from a snapshot of the accounts on, for the process that takes over.
//!
//! Invariant: a charge is either in the snapshot or in the log, never in both and never in neither. Each charge is made
//! under the lock of the log while the log is on, and the snapshot is taken under the same lock. The log is turned on
//! before, and the snapshot begins only when every worker has seen it on.
//!
//! While the log is off, a charge costs one atomic load.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::Now;
use crate::limits::kinds::{Account, Taken};
use crate::limits::owner::OwnerKey;
use crate::limits::store::Table;

/// Largest number of entries that wait to be sent.
const MOST: usize = 1 << 20;

#[derive(Default)]
pub struct ChargeLog {
    is_on: AtomicBool,
    entries: Mutex<Entries>,
}

#[derive(Default)]
pub struct Entries {
    waiting: Vec<Entry>,
    /// Number of entries for which there was no room.
    lost: u64,
}

/// A charge or a refund of one account.
pub struct Entry {
    pub table: Arc<dyn Table>,
    pub owner: OwnerKey,
    pub account: Account,
    pub taken: Taken,
    /// Time of the refund; `None` for a charge.
    pub given_back: Option<Now>,
}

impl ChargeLog {
    /// Turns the log on or off. Entries that wait are dropped.
    pub fn turn(&self, is_on: bool) {
        let mut entries = self.lock();
        *entries = Entries::default();
        self.is_on.store(is_on, Ordering::Release);
    }

    /// Returns the log for a charge that is about to be made; `None` if it is off. It stays locked until the guard is
    /// dropped.
    #[inline]
    pub(crate) fn open(&self) -> Option<MutexGuard<'_, Entries>> {
        if !self.is_on.load(Ordering::Acquire) {
            return None;
        }
        Some(self.lock())
    }

    /// Makes a charge on a thread that is no worker, and logs it if the log is on.
    pub(crate) fn make(&self, charge: impl FnOnce() -> Entry) {
        let mut entries = self.lock();
        let entry = charge();
        if self.is_on.load(Ordering::Acquire) {
            entries.push(entry);
        }
    }

    /// Calls `snapshot` while no charge is made, and forgets all charges that were made before.
    pub fn begin_with<T>(&self, snapshot: impl FnOnce() -> T) -> T {
        let mut entries = self.lock();
        *entries = Entries::default();
        snapshot()
    }

    /// Takes all entries that wait, and the number of those that were lost.
    pub fn take(&self) -> (Vec<Entry>, u64) {
        let Entries { waiting, lost } = std::mem::take(&mut *self.lock());
        (waiting, lost)
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    pub(crate) fn push(&mut self, entry: Entry) {
        if self.waiting.len() < MOST {
            self.waiting.push(entry);
        } else {
            self.lost += 1;
        }
    }
}
