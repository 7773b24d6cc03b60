//! Durations of the steps of an attempt.

use std::time::Duration;

use policies::Moment;

/// Times of the steps of an attempt.
#[derive(Debug, Default)]
pub(crate) struct Timing {
    /// Total time spent connecting.
    pub(crate) connecting: Duration,
    /// Time at which a connection was last given the request.
    pub(crate) sent: Option<Moment>,
}
