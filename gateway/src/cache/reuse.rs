//! Facts by which a stored answer may be used again: its terms, and whether its resource has changed since.
//!
//! Every URI that has stored answers, or requests under way whose answer may be stored, has an epoch. A change of the
//! resource begins a new epoch, and then no answer that was asked for before is used, however many there are. So an
//! answer that was on its way during the change is not stored as the new state.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::freshness::Freshness;

/// Terms on which an answer may be used again.
#[derive(Debug, Clone)]
pub struct Reuse {
    pub freshness: Freshness,
    pub route: Arc<str>,
    pub uri: UriHandle,
}

impl Reuse {
    /// Approximate memory in bytes that an answer holds beside its head and body.
    pub(super) fn weight(&self) -> usize {
        size_of::<Self>() + size_of::<UriState>() + self.uri.state.host.len() + self.uri.state.target.len()
    }
}

/// URIs in use, by the hash of their text. Two URIs with one hash share their epoch, which only removes more than needed.
#[derive(Debug, Default)]
pub struct UriTable {
    hasher: RandomState,
    states: Mutex<HashMap<u64, Arc<UriState>>>,
}

#[derive(Debug)]
struct UriState {
    hash: u64,
    host: Box<str>,
    /// Path and query.
    target: Box<str>,
    epoch: AtomicU64,
}

/// A URI in use, at the epoch in which it was asked for. Its state lives as long as any handle.
#[derive(Debug)]
pub struct UriHandle {
    table: Arc<UriTable>,
    state: Arc<UriState>,
    epoch: u64,
}

impl UriTable {
    /// Returns the URI at its present epoch. `host` is in lower case.
    pub fn enter(self: &Arc<Self>, host: &str, target: &str) -> UriHandle {
        let hash = self.hasher.hash_one((host, target));
        let mut states = self.states();
        let state = states.entry(hash).or_insert_with(|| {
            Arc::new(UriState {
                hash,
                host: host.into(),
                target: target.into(),
                epoch: AtomicU64::new(0),
            })
        });
        UriHandle {
            table: Arc::clone(self),
            epoch: state.epoch.load(Relaxed),
            state: Arc::clone(state),
        }
    }

    /// Begins a new epoch of a URI, if it is in use.
    pub fn change(&self, host: &str, target: &str) {
        let hash = self.hasher.hash_one((host, target));
        if let Some(state) = self.states().get(&hash) {
            state.epoch.fetch_add(1, Relaxed);
        }
    }

    fn states(&self) -> MutexGuard<'_, HashMap<u64, Arc<UriState>>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.states().len()
    }
}

impl UriHandle {
    /// Whether the resource has not changed since the handle was taken.
    pub fn is_current(&self) -> bool {
        self.state.epoch.load(Relaxed) == self.epoch
    }

    /// Begins a new epoch.
    pub fn change(&self) {
        self.state.epoch.fetch_add(1, Relaxed);
    }

    /// Whether the URI has this path and query, and this host if one is given.
    pub fn is(&self, host: Option<&str>, target: &str) -> bool {
        *self.state.target == *target && host.is_none_or(|host| *self.state.host == *host)
    }
}

impl Clone for UriHandle {
    fn clone(&self) -> Self {
        Self {
            table: Arc::clone(&self.table),
            state: Arc::clone(&self.state),
            epoch: self.epoch,
        }
    }
}

impl Drop for UriHandle {
    fn drop(&mut self) {
        // The table holds one reference, this handle another. More handles can only be made of a handle, or by the table
        // under its lock.
        if Arc::strong_count(&self.state) <= 2 {
            let mut states = self.table.states();
            let is_own = |state: &Arc<UriState>| Arc::ptr_eq(state, &self.state);
            if Arc::strong_count(&self.state) <= 2 && states.get(&self.state.hash).is_some_and(is_own) {
                states.remove(&self.state.hash);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_ends_what_was_asked_for_before() {
        let table = Arc::new(UriTable::default());
        let (first, second) = (table.enter("h", "/a"), table.enter("h", "/a"));
        let other = table.enter("h", "/b");
        table.change("h", "/a");
        assert!(!first.is_current() && !second.is_current() && other.is_current());
        let third = table.enter("h", "/a");
        assert!(third.is_current() && !first.is_current());
        assert!(third.is(None, "/a") && third.is(Some("h"), "/a") && !third.is(Some("i"), "/a"));
        drop((first, second, third));
        assert_eq!(table.len(), 1);
        drop(other);
        table.change("h", "/b");
        assert_eq!(table.len(), 0, "nothing is kept of what nobody holds");
    }
}
