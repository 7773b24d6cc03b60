//! Enforces a minimum rate: the total time of waiting must be covered by the bytes received. A single byte does not
//! reset it.
//!
//! Waiting is sampled once a tick. Beyond a grace period, `rate` bytes pay for one second of waiting. Only the thread
//! that serves the connection updates it, so an update is a plain store.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// Interval at which waiting is sampled.
pub const TICK: Duration = Duration::from_millis(250);

#[derive(Debug, Default)]
pub struct MinRate {
    /// Number of ticks at which nothing had arrived.
    waited: AtomicU32,
    /// Number of bytes. It saturates at 4 GiB, which is enough for any wait.
    bytes: AtomicU32,
}

impl MinRate {
    pub fn begin(&self) {
        self.waited.store(0, Relaxed);
        self.bytes.store(0, Relaxed);
    }

    pub fn progress(&self, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.bytes
            .store(self.bytes.load(Relaxed).saturating_add(count), Relaxed);
    }

    /// Counts one more tick of waiting. Returns whether the total is too long. `rate` is in bytes per second, above 0.
    pub fn falls_behind(&self, grace: Duration, rate: u64) -> bool {
        let waited = self.waited.load(Relaxed).saturating_add(1);
        self.waited.store(waited, Relaxed);
        let bought = Duration::from_millis(u64::from(self.bytes.load(Relaxed)) * 1000 / rate);
        TICK * waited > grace + bought
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(2);

    /// Returns the ticks until the rate falls behind, with `bytes` at each tick; at most 1000.
    fn lasts(bytes: usize, rate: u64) -> u32 {
        let pace = MinRate::default();
        (1..1000)
            .find(|_| {
                pace.progress(bytes);
                pace.falls_behind(GRACE, rate)
            })
            .unwrap_or(1000)
    }

    #[test]
    fn only_bytes_buy_time_beyond_the_grace() {
        let check = |bytes, rate, ticks| assert_eq!(lasts(bytes, rate), ticks, "{bytes} at {rate}");
        // A tick is a quarter of a second: at 100 bytes per second, 25 bytes pay for one tick.
        check(0, 100, 9);
        check(1, 100, 9);
        check(12, 100, 16);
        check(24, 100, 201);
        check(25, 100, 1000);
        check(1_000_000_000, 1, 1000);
    }

    #[test]
    fn the_next_one_begins_anew() {
        let pace = MinRate::default();
        while !pace.falls_behind(GRACE, 100) {}
        pace.begin();
        assert!(!pace.falls_behind(GRACE, 100));
    }
}
