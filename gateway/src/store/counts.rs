//! Counts the calls of the store, for the metrics page.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::observe::histogram::Histogram;

use super::trouble::Trouble;

/// Counts of calls by outcome, and the time that they took.
#[derive(Debug, Default)]
pub(super) struct CallCounts {
    answered: AtomicU64,
    failed: [AtomicU64; Trouble::ALL.len()],
    pub(super) duration: Histogram,
}

impl CallCounts {
    pub(super) fn note(&self, trouble: Option<Trouble>, took: Duration) {
        match trouble {
            None => &self.answered,
            Some(trouble) => &self.failed[trouble as usize],
        }
        .fetch_add(1, Relaxed);
        self.duration.observe(took);
    }

    /// Returns the number of calls by outcome.
    pub(super) fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let failed = Trouble::ALL.iter().zip(&self.failed);
        let failed = failed.map(|(trouble, count)| (trouble.word(), count.load(Relaxed)));
        [("answered", self.answered.load(Relaxed))].into_iter().chain(failed)
    }
}
