//! Estimates when a call is slow: later than all but a twentieth of the calls before it.
//!
//! A second attempt after that time shortens the wait of the slowest calls, and costs at most about a twentieth more
//! (Dean and Barroso, "The Tail at Scale", 2013). The estimate is the 95th percentile of the last one to two minutes.
//!
//! Invariant: memory is fixed, and a record is one atomic addition. The estimate is never below the percentile, and above
//! it by a quarter at most. Calls that were given up count with the time until then, so that giving up slow ones does not
//! make the next estimate shorter and shorter.

use std::time::Duration;

use crate::moment::Moment;
use crate::sync::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

/// Calls that an estimate needs.
pub const LEAST_CALLS: u32 = 100;

/// Length of a window. An estimate is made of the current window and the one before.
const WINDOW: Duration = Duration::from_secs(60);

/// Buckets of a window: four to each doubling, from 64 µs to 67 s, and one below.
const BUCKETS: usize = 81;

/// Logarithm of the lower bound of the second bucket in microseconds.
const FIRST: u32 = 6;

/// Times of calls, in two windows.
pub struct LatencyWindow {
    windows: [Window; 2],
    /// Index of the current window.
    current: AtomicU8,
    /// Start of the current window in milliseconds.
    began: AtomicU64,
}

struct Window([AtomicU32; BUCKETS]);

impl Window {
    fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU32::new(0)))
    }

    fn clear(&self) {
        for bucket in &self.0 {
            bucket.store(0, Relaxed);
        }
    }
}

impl Default for LatencyWindow {
    fn default() -> Self {
        Self {
            windows: [Window::new(), Window::new()],
            current: AtomicU8::new(0),
            began: AtomicU64::new(0),
        }
    }
}

impl LatencyWindow {
    /// Adds the time of a call, or the time after which it was given up.
    pub fn record(&self, took: Duration, now: Moment) {
        let current = self.turn(now);
        self.windows[current].0[bucket(took)].fetch_add(1, Relaxed);
    }

    /// Returns the 95th percentile, rounded up to the bound of its bucket; `None` after too few calls.
    pub fn p95(&self, now: Moment) -> Option<Duration> {
        self.turn(now);
        let count = |index: usize| -> u64 {
            let windows = self.windows.iter();
            windows.map(|window| u64::from(window.0[index].load(Relaxed))).sum()
        };
        let total: u64 = (0..BUCKETS).map(count).sum();
        if total < u64::from(LEAST_CALLS) {
            return None;
        }
        // The number of calls that are no slower, rounded up.
        let wanted = (total * 95).div_ceil(100);
        let mut seen = 0;
        let slowest = (0..BUCKETS).find(|index| {
            seen += count(*index);
            seen >= wanted
        });
        Some(bound(slowest.unwrap_or(BUCKETS - 1)))
    }

    /// Begins a new window if the current one is over. Returns the index of the current one.
    fn turn(&self, now: Moment) -> usize {
        let millis = now.nanos() / 1_000_000;
        let length = WINDOW.as_millis() as u64;
        let began = self.began.load(Relaxed);
        let elapsed = millis.saturating_sub(began);
        // One of the callers that see the end turns the window. Records of the others may fall into either.
        if elapsed >= length && self.began.compare_exchange(began, millis, Relaxed, Relaxed).is_ok() {
            let before = usize::from(self.current.load(Relaxed));
            let next = 1 - before;
            self.windows[next].clear();
            // After a long silence, the window before says nothing either.
            if elapsed >= 2 * length {
                self.windows[before].clear();
            }
            self.current.store(next as u8, Relaxed);
        }
        usize::from(self.current.load(Relaxed))
    }
}

fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let Some(log) = micros.checked_ilog2().filter(|log| *log >= FIRST) else {
        return 0;
    };
    let quarter = (micros >> (log - 2)) & 3;
    let index = 1 + (log - FIRST) as usize * 4 + quarter as usize;
    index.min(BUCKETS - 1)
}

/// Returns the upper bound of a bucket.
fn bound(bucket: usize) -> Duration {
    let Some(index) = bucket.checked_sub(1) else {
        return Duration::from_micros(1 << FIRST);
    };
    let (octave, quarter) = (index / 4, index % 4);
    Duration::from_micros((5 + quarter as u64) << (octave + FIRST as usize - 2))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn at(seconds: u64) -> Moment {
        Moment::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn the_slowest_twentieth_is_left_out() {
        let check = |fast: u32, slow: u32, expected: Option<Duration>| {
            let window = LatencyWindow::default();
            for _ in 0..fast {
                window.record(ms(10), at(1));
            }
            for _ in 0..slow {
                window.record(ms(2_000), at(1));
            }
            assert_eq!(window.p95(at(1)), expected, "{fast} fast, {slow} slow");
        };
        let (fast, slow) = (
            Some(Duration::from_micros(10_240)),
            Some(Duration::from_micros(2_097_152)),
        );
        check(99, 0, None);
        check(100, 0, fast);
        check(95, 5, fast);
        check(94, 6, slow);
        check(0, 100, slow);
    }

    #[test]
    fn an_estimate_ages_and_is_given_up() {
        let window = LatencyWindow::default();
        for _ in 0..100 {
            window.record(ms(500), at(100));
        }
        let learned = window.p95(at(100));
        assert!(learned.is_some());
        for _ in 0..10_000 {
            window.record(ms(10), at(161));
        }
        assert!(window.p95(at(161)) < learned, "it follows");
        // The first window has gone, and time that goes backwards changes nothing.
        assert_eq!(window.p95(at(222)), Some(Duration::from_micros(10_240)));
        assert_eq!(window.p95(at(50)), Some(Duration::from_micros(10_240)));
        assert_eq!(window.p95(at(400)), None, "what is old says nothing");
    }

    #[test]
    fn calls_that_were_given_up_do_not_shorten_the_estimate() {
        let window = LatencyWindow::default();
        let fast = (0..95).map(|_| ms(10));
        for took in fast.chain((0..5).map(|_| ms(2_000))) {
            window.record(took, at(1));
        }
        let first = window.p95(at(1)).expect("an estimate");
        // From now on each slow call is given up a little after the estimate.
        for round in 0..50 {
            let now = at(1 + round);
            let given_up = window.p95(now).expect("an estimate") + ms(10);
            for took in (0..95).map(|_| ms(10)).chain((0..5).map(|_| given_up)) {
                window.record(took, now);
            }
            assert!(window.p95(now) >= Some(first), "round {round}");
        }
    }

    #[test]
    fn times_beyond_the_buckets_are_in_the_last_one() {
        for took in [Duration::from_secs(67), Duration::from_secs(3_600), Duration::MAX] {
            assert_eq!(bucket(took), BUCKETS - 1, "{took:?}");
        }
        assert_eq!(bucket(Duration::ZERO), 0);
    }

    proptest! {
        #![proptest_config(cases::counted())]

        /// The estimate is the percentile, rounded up by a quarter at most.
        #[test]
        fn the_estimate_is_close(micros in prop::collection::vec(64..60_000_000_u64, 100..300)) {
            let window = LatencyWindow::default();
            for micros in &micros {
                window.record(Duration::from_micros(*micros), at(1));
            }
            let mut sorted = micros;
            sorted.sort_unstable();
            let exact = sorted[(sorted.len() * 95).div_ceil(100) - 1];
            let found = window.p95(at(1)).expect("there are enough").as_micros() as u64;
            prop_assert!(exact <= found && found <= exact + exact / 4 + 1, "{exact} {found}");
        }
    }
}
