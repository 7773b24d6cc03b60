//! Counts the calls of the store, for the metrics page.

use std::time::Duration;

use crate::observe::histogram::Histogram;
use crate::observe::labels::{CounterVec, StoreOutcome};

use super::trouble::Trouble;

/// Counts of calls by outcome, and the time that they took.
#[derive(Debug, Default)]
pub(super) struct CallCounts {
    pub(super) outcomes: CounterVec<StoreOutcome>,
    pub(super) duration: Histogram,
}

impl CallCounts {
    pub(super) fn note(&self, trouble: Option<Trouble>, took: Duration) {
        self.outcomes
            .add(trouble.map_or(StoreOutcome::Answered, Trouble::outcome));
        self.duration.observe(took);
    }
}
