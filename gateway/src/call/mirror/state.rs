//! What a route's mirror keeps over reloads: the number of its copies under way, and its own breaker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use policies::{Breaker, BreakerSettings};

/// State of the mirror of one route to one backend.
pub struct MirrorState {
    under_way: AtomicU32,
    pub(super) breaker: Arc<Breaker>,
}

impl MirrorState {
    pub fn new(breaker: Option<BreakerSettings>) -> Self {
        Self {
            under_way: AtomicU32::new(0),
            breaker: Arc::new(Breaker::seeded(breaker.unwrap_or_default(), fastrand::u64(..))),
        }
    }

    /// Returns the number of copies under way.
    pub fn under_way(&self) -> u32 {
        self.under_way.load(Relaxed)
    }

    /// Takes one of `limit` slots; `None` if all are taken.
    pub(super) fn enter(self: &Arc<Self>, limit: u32) -> Option<MirrorSlot> {
        let one_more = |under_way: u32| (under_way < limit).then(|| under_way + 1);
        self.under_way.fetch_update(Relaxed, Relaxed, one_more).ok()?;
        Some(MirrorSlot(Arc::clone(self)))
    }
}

/// Slot of a copy, until it is dropped.
#[must_use]
pub(super) struct MirrorSlot(Arc<MirrorState>);

impl Drop for MirrorSlot {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_under_way_and_no_more() {
        let state = Arc::new(MirrorState::new(None));
        let first = state.enter(2);
        let second = state.enter(2);
        assert!(first.is_some() && second.is_some() && state.enter(2).is_none());
        drop(first);
        assert_eq!(state.under_way(), 1);
        assert!(state.enter(1).is_none(), "a smaller limit of a new plan holds at once");
        assert!(state.enter(2).is_some());
        drop(second);
        assert_eq!(state.under_way(), 0);
    }
}
