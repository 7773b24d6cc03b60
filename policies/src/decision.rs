//! Defines what every limit answers to a take, whatever the limit counts.
//!
//! Invariant: a reported wait is enough, and a wait that is one nanosecond shorter is not.

use std::time::Duration;

/// Tokens left after a take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    /// Whole tokens that could be taken now.
    pub tokens: u64,
}

/// Refusal of a take. Nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Exact time after which the same take succeeds, if nobody else takes tokens. `None` if it never succeeds, because
    /// it costs more than the limit ever holds.
    pub retry_in: Option<Duration>,
}

impl Wait {
    pub(crate) const FOR_EVER: Wait = Wait { retry_in: None };

    pub(crate) const fn of(wait: Duration) -> Wait {
        Wait { retry_in: Some(wait) }
    }
}
