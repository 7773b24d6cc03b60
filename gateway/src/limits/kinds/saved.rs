//! The form of a counter for another process of this machine, with the same zero of its monotonic clock.

use serde::{Deserialize, Serialize};

/// What one owner has taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SavedCount {
    /// Ticks until the bucket is full, as [`policies::Bucket::saved`] has them.
    TokenBucket(u64),
    /// Moments of takes in nanoseconds, each with its tokens.
    SlidingWindow(Vec<(u64, u64)>),
    /// Beginning of the period in seconds since 1970, and the tokens used in it.
    Quota(u64, u64),
}
