//! Counts durations in fixed buckets.
//!
//! An observation is two relaxed additions. The total count is the sum of the buckets, so a scrape never sees a count
//! that contradicts them.
//!
//! It is not a histogram of the `metrics` facade. The exporter's keep every single value until the next scrape, which
//! needs memory without bound.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds in nanoseconds, from the gateway's own latency to the default time limit of a request.
const BOUNDS: [u64; 16] = [
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    20_000_000_000,
    30_000_000_000,
];

/// Number of buckets; the last one is for values above every bound.
pub(super) const BUCKETS: usize = BOUNDS.len() + 1;

#[derive(Debug, Default)]
pub struct Histogram {
    /// Counts per bucket.
    buckets: [AtomicU64; BUCKETS],
    /// Sum in nanoseconds. Wraps after 584 years of observed time.
    sum_nanos: AtomicU64,
}

/// Returns the bucket that counts this time.
#[inline]
pub(super) fn bucket(time: Duration) -> usize {
    let nanos = nanos(time);
    BOUNDS.partition_point(|&bound| bound < nanos)
}

#[inline]
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Histogram {
    #[inline]
    pub fn observe(&self, time: Duration) {
        self.buckets[bucket(time)].fetch_add(1, Relaxed);
        self.sum_nanos.fetch_add(nanos(time), Relaxed);
    }

    /// Returns the upper bounds in seconds, each with the number of observations at or below it. The last bound is
    /// infinite, so its count is the total.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = BOUNDS.iter().map(|&bound| bound as f64 / 1e9).chain([f64::INFINITY]);
        bounds.zip(&self.buckets).scan(0, |total, (bound, bucket)| {
            *total += bucket.load(Relaxed);
            Some((bound, *total))
        })
    }

    /// Returns true if nothing has been observed.
    pub fn is_empty(&self) -> bool {
        self.buckets.iter().all(|bucket| bucket.load(Relaxed) == 0)
    }

    pub fn sum_seconds(&self) -> f64 {
        self.sum_nanos.load(Relaxed) as f64 / 1e9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_counts_in_the_first_bucket_that_holds_it() {
        fn check(nanos: u64, first_bound: f64) {
            let histogram = Histogram::default();
            histogram.observe(Duration::from_nanos(nanos));
            let first = histogram
                .cumulative()
                .find(|&(_, count)| count == 1)
                .map(|(bound, _)| bound);
            assert_eq!(first, Some(first_bound), "{nanos} ns");
        }
        check(0, 0.0005);
        check(500_000, 0.0005);
        check(500_001, 0.001);
        check(30_000_000_000, 30.0);
        check(30_000_000_001, f64::INFINITY);
    }

    #[test]
    fn bounds_rise_and_counts_never_fall() {
        let histogram = Histogram::default();
        for millis in 0..1000 {
            histogram.observe(Duration::from_millis(millis * 37));
        }
        let points: Vec<_> = histogram.cumulative().collect();
        assert!(
            points
                .windows(2)
                .all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1)
        );
        assert_eq!(points.last().unwrap().1, 1000);
        assert!((histogram.sum_seconds() - 37.0 * 499.5).abs() < 1e-6);
    }
}
