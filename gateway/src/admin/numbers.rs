//! Converts numbers for answers of the admin API.

use std::time::Duration;

/// Returns whole milliseconds, rounded down.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the ratio as a fraction of one.
pub(super) fn share(ratio: policies::Ratio) -> f64 {
    f64::from(ratio.millionths()) / 1e6
}
