//! Finds how many calls of a backend may run at once, from the latency and the throughput of the calls that succeed.
//!
//! A backend that has as many calls as it can work on answers no more of them if it gets more: they wait there, where no
//! queue is fair and no deadline is known. So the limit is to be a little above that number. How it is found is decided
//! in `controller`; this file collects what the controller is told.
//!
//! Invariant: the limit stays between `from` and `to`. It grows only while it is used. Failed calls count for nothing,
//! because a backend that fails at once is not fast.
//!
//! A result is a few atomic additions. About ten times a second one of them closes a window and asks the controller;
//! the lock is taken only for that, and nobody waits for it.

mod controller;

use crate::moment::{Moment, nanos};
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Mutex, Ordering::Relaxed, lock};
use controller::{Controller, Window};
use std::num::NonZeroU32;
use std::time::Duration;

/// Shortest window.
const WINDOW: Duration = Duration::from_millis(100);
/// Fewest results in a window.
const RESULTS: u64 = 10;
/// First limit, within the settings.
const FIRST: NonZeroU32 = NonZeroU32::new(20).expect("not zero");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdaptiveSettings {
    /// Lowest limit.
    pub from: NonZeroU32,
    /// Highest limit, not below the lowest.
    pub to: NonZeroU32,
}

/// Limit of one backend, with what it was found from.
#[derive(Debug)]
pub struct AdaptiveLimit {
    limit: AtomicU32,
    results: AtomicU64,
    /// Sum of the latencies in this window, in nanoseconds.
    latencies: AtomicU64,
    /// Sum of the calls in flight that the results of this window saw.
    in_flight: AtomicU64,
    /// Whether the limit was in use at some result of this window.
    used: AtomicBool,
    /// End of this window, in nanoseconds, if it has enough results by then.
    closes_at: AtomicU64,
    control: Mutex<Control>,
}

#[derive(Debug)]
struct Control {
    controller: Controller,
    opened_at: Moment,
}

impl AdaptiveLimit {
    pub fn new(settings: AdaptiveSettings, now: Moment) -> AdaptiveLimit {
        let controller = Controller::new(settings, FIRST);
        AdaptiveLimit {
            limit: AtomicU32::new(controller.limit().get()),
            results: AtomicU64::new(0),
            latencies: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            used: AtomicBool::new(false),
            closes_at: AtomicU64::new((now + WINDOW).nanos()),
            control: Mutex::new(Control {
                controller,
                opened_at: now,
            }),
        }
    }

    pub fn limit(&self) -> NonZeroU32 {
        NonZeroU32::new(self.limit.load(Relaxed)).expect("it was stored as one")
    }

    /// Records a call that succeeded, where `in_flight` calls were running just before it ended, itself included, and
    /// whether a higher limit might let more run. Returns the new limit if it changed.
    pub fn record(&self, took: Duration, in_flight: u32, is_used: bool, now: Moment) -> Option<NonZeroU32> {
        self.latencies.fetch_add(nanos(took), Relaxed);
        self.in_flight.fetch_add(u64::from(in_flight), Relaxed);
        if is_used && !self.used.load(Relaxed) {
            self.used.store(true, Relaxed);
        }
        let results = self.results.fetch_add(1, Relaxed) + 1;
        if results < RESULTS || now.nanos() < self.closes_at.load(Relaxed) {
            return None;
        }
        self.close_window(now)
    }

    /// Applies other settings. The limit moves only if it lies outside of them.
    pub fn reconfigure(&self, settings: AdaptiveSettings) -> NonZeroU32 {
        let mut control = lock(&self.control);
        control.controller.reconfigure(settings);
        let limit = control.controller.limit();
        self.limit.store(limit.get(), Relaxed);
        limit
    }

    /// Forgets all that was learned, and begins at `first`, or as near to it as the settings allow.
    pub fn restart(&self, settings: AdaptiveSettings, first: NonZeroU32, now: Moment) {
        let mut control = lock(&self.control);
        control.controller = Controller::new(settings, first);
        control.opened_at = now;
        self.limit.store(control.controller.limit().get(), Relaxed);
        self.closes_at.store((now + WINDOW).nanos(), Relaxed);
        self.results.store(0, Relaxed);
        self.latencies.store(0, Relaxed);
        self.in_flight.store(0, Relaxed);
        self.used.store(false, Relaxed);
    }

    fn close_window(&self, now: Moment) -> Option<NonZeroU32> {
        // Another thread closes it if the lock is taken.
        let mut control = self.control.try_lock().ok()?;
        let elapsed = now.since(control.opened_at);
        if now.nanos() < self.closes_at.load(Relaxed) {
            return None;
        }
        // Results that other threads record meanwhile may be split between two windows. They are few.
        let results = self.results.swap(0, Relaxed);
        let window = Window {
            elapsed: elapsed.as_secs_f64(),
            results: results as f64,
            latency: self.latencies.swap(0, Relaxed) as f64 / 1e9 / results.max(1) as f64,
            in_flight: self.in_flight.swap(0, Relaxed) as f64 / results.max(1) as f64,
            used: self.used.swap(false, Relaxed),
        };
        control.opened_at = now;
        // A window is to hold the effect of the last change, which takes a latency to be seen.
        let length = WINDOW.max(Duration::from_secs_f64((2.0 * window.latency).min(5.0)));
        self.closes_at.store((now + length).nanos(), Relaxed);
        if results == 0 || elapsed.is_zero() {
            return None;
        }
        let before = control.controller.limit();
        control.controller.close(window);
        let limit = control.controller.limit();
        self.limit.store(limit.get(), Relaxed);
        (limit != before).then_some(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn settings(from: u32, to: u32) -> AdaptiveSettings {
        AdaptiveSettings {
            from: NonZeroU32::new(from).unwrap(),
            to: NonZeroU32::new(to).unwrap(),
        }
    }

    fn at(milliseconds: u64) -> Moment {
        Moment::ZERO + Duration::from_millis(milliseconds)
    }

    /// Records one result a millisecond, each of a latency, where all of the limit is in use.
    fn use_all(limit: &AdaptiveLimit, from: u64, count: u64, latency: u64) -> Vec<u32> {
        let changes = (from..from + count).filter_map(|now| {
            let in_flight = limit.limit().get();
            limit.record(Duration::from_millis(latency), in_flight, true, at(now))
        });
        changes.map(NonZeroU32::get).collect()
    }

    #[test]
    fn the_first_limit_lies_within_the_settings() {
        let check = |from, to, expected| {
            let limit = AdaptiveLimit::new(settings(from, to), at(0));
            assert_eq!(limit.limit().get(), expected, "{from} {to}");
        };
        check(4, 200, 20);
        check(1, 8, 8);
        check(50, 200, 50);
        check(7, 7, 7);
        // The config refuses this; the lower bound holds.
        check(9, 3, 9);
    }

    #[test]
    fn other_settings_move_a_limit_that_lies_outside() {
        let limit = AdaptiveLimit::new(settings(4, 200), at(0));
        for (from, to, expected) in [(4, 100, 20), (30, 100, 30), (4, 10, 10), (4, 200, 10)] {
            assert_eq!(limit.reconfigure(settings(from, to)).get(), expected, "{from} {to}");
            assert_eq!(limit.limit().get(), expected);
        }
    }

    #[test]
    fn a_restart_forgets_what_was_learned() {
        let limit = AdaptiveLimit::new(settings(4, 200), at(0));
        use_all(&limit, 0, 5_000, 10);
        for (first, expected) in [(50, 50), (1, 4), (500, 200)] {
            limit.restart(settings(4, 200), NonZeroU32::new(first).unwrap(), at(5_000));
            assert_eq!(limit.limit().get(), expected, "{first}");
        }
        // The latency is five times that of before, and is nevertheless taken for that of a call that does not wait.
        limit.restart(settings(4, 200), NonZeroU32::new(30).unwrap(), at(5_000));
        for now in 5_000..6_000 {
            assert_eq!(limit.record(Duration::from_millis(50), 3, false, at(now)), None);
        }
        let grown = use_all(&limit, 6_000, 5_000, 50);
        assert!(grown.is_sorted() && grown.last() > Some(&30), "{grown:?}");
    }

    #[test]
    fn a_limit_that_is_not_reached_stays() {
        let limit = AdaptiveLimit::new(settings(4, 200), at(0));
        for now in 0..10_000 {
            assert_eq!(limit.record(Duration::from_millis(now % 50), 19, false, at(now)), None);
        }
    }

    #[test]
    fn a_limit_that_is_reached_grows_while_calls_stay_fast() {
        let limit = AdaptiveLimit::new(settings(4, 200), at(0));
        for now in 0..1_000 {
            assert_eq!(limit.record(Duration::from_millis(10), 3, false, at(now)), None);
        }
        let grown = use_all(&limit, 1_000, 5_000, 10);
        assert!(grown.is_sorted() && grown.last() == Some(&200), "{grown:?}");
        assert_eq!(use_all(&limit, 6_000, 5_000, 10), [0; 0], "it stays at the highest");
    }

    #[test]
    fn a_clock_that_runs_backwards_changes_nothing() {
        let limit = AdaptiveLimit::new(settings(4, 200), at(50_000));
        assert_eq!(use_all(&limit, 0, 5_000, 10), [0; 0]);
        assert_eq!(limit.limit().get(), 20);
    }

    proptest! {
        #![proptest_config(cases::counted())]

        /// Whatever is recorded, the limit stays within the settings, and what is returned is the limit.
        #[test]
        fn any_results_keep_it_within_the_settings(
            from in 1..50_u32,
            more in 0..500_u32,
            results in prop::collection::vec((0..2_000_u64, 0..5_000_u64, 0..600_u32, any::<bool>()), 1..600),
        ) {
            let limit = AdaptiveLimit::new(settings(from, from + more), at(0));
            for (burst, (now, latency, in_flight, is_used)) in results.into_iter().enumerate() {
                for number in 0..12 {
                    let now = at(now + burst as u64 * 150 + number);
                    let changed = limit.record(Duration::from_micros(latency * 100), in_flight, is_used, now);
                    prop_assert!(changed.is_none_or(|changed| changed == limit.limit()));
                    prop_assert!((from..=from + more).contains(&limit.limit().get()));
                }
            }
        }
    }
}
