//! What every measure of a limit answers to a taking, whatever it counts.
//!
//! Invariant: a reported wait suffices, and a nanosecond less does not.

use std::time::Duration;

/// What is left after a taking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    /// Whole tokens that could be taken now.
    pub tokens: u64,
}

/// A refusal. Nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// After exactly this long the same taking succeeds, if no one else takes; not a nanosecond
    /// sooner. `None`: never, it costs more than the limit ever has.
    pub retry_in: Option<Duration>,
}

impl Wait {
    pub(crate) const FOR_EVER: Wait = Wait { retry_in: None };

    pub(crate) const fn of(wait: Duration) -> Wait {
        Wait { retry_in: Some(wait) }
    }
}
