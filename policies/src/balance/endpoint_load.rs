//! Knows what an endpoint has to do and how it copes: its calls in flight, its latency, its failures.
//!
//! Workers write here for each call, and read it for each choice; nothing takes a lock. One value belongs to one
//! endpoint and counts for all workers.
//!
//! Three things count as latency that are none. A failure, because an endpoint that fails at once would look idle and
//! get all calls. A `Retry-After`, because the endpoint asked for less. And silence: while nothing is answered although
//! something was asked, the wait so far is a lower bound of the latency, so an endpoint that accepts calls and says
//! nothing does not pile them up.
//!
//! Invariant: each call that [began](EndpointLoad::begin) [ends](EndpointLoad::end) once. Of all workers, one at a time
//! gets the floor of an endpoint that was not asked for a while.

use super::latency::Latency;
use super::{Availability, Candidate, Tried};
use crate::moment::Moment;
use crate::sync::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// An endpoint that was not asked for this long gets a call, so that its recovery is seen.
const FLOOR_EVERY: Duration = Duration::from_secs(1);
/// The same for an endpoint that failed last: its call is likely to fail.
const FLOOR_EVERY_IF_FAILING: Duration = Duration::from_secs(4);
/// Longest `Retry-After` that is followed.
const HOLD_AT_MOST: Duration = Duration::from_secs(60);
/// Share of its weight with which an endpoint begins to warm up.
const COLD: f32 = 0.1;
/// Silence of less than this is not noticed.
const SILENCE: u64 = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadSettings {
    /// Latency as which a failure counts, and which a `Retry-After` holds up.
    pub failure_costs: Duration,
    /// Time in which a new or returning endpoint comes to its full weight.
    pub warm_up: Duration,
}

impl Default for LoadSettings {
    fn default() -> LoadSettings {
        LoadSettings {
            failure_costs: Duration::from_secs(1),
            warm_up: Duration::from_secs(10),
        }
    }
}

/// Result of an attempt, as far as it concerns the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Time from the start of the attempt, the wait for a connection included, to the head of the answer.
    pub took: Duration,
    pub failed: bool,
    /// Time that the endpoint asked to be left alone.
    pub retry_after: Option<Duration>,
}

/// Load of one endpoint, over all workers. In a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct EndpointLoad {
    /// Calls without an answer (32 bits) | calls in flight (32 bits)
    calls: AtomicU64,
    latency: Latency,
    /// Last time at which the endpoint answered, or was asked while no call was without an answer; in nanoseconds.
    heard: AtomicU64,
    /// Last time at which the endpoint was asked, in nanoseconds; zero if never. Lags by up to a sixteenth of the floor.
    asked: AtomicU64,
    /// End of the pause that the endpoint asked for, in nanoseconds.
    held_until: AtomicU64,
    failed_last: AtomicBool,
    /// Start of the warm-up, in nanoseconds plus one; zero means that the endpoint is warm.
    warm_from: AtomicU64,
}

impl EndpointLoad {
    const ONE: u64 = 1 | 1 << 32;
    const ONE_UNANSWERED: u64 = 1 << 32;

    /// Counts an attempt that was given to the endpoint, before it waits for a connection.
    pub fn begin(&self, now: Moment) {
        let before = self.calls.fetch_add(EndpointLoad::ONE, Relaxed);
        if unanswered(before) == 0 {
            self.heard.store(now.nanos(), Relaxed);
        }
        let asked = self.asked.load(Relaxed);
        if now.nanos().abs_diff(asked) > FLOOR_EVERY.as_nanos() as u64 / 16 {
            self.asked.store(now.nanos().max(1), Relaxed);
        }
    }

    /// Records the answer or the failure of an attempt, once; the attempt stays in flight until its [`end`](Self::end).
    pub fn answer(&self, answer: Answer, settings: &LoadSettings, now: Moment) {
        self.excuse();
        self.answer_excused(answer, settings, now);
    }

    /// Excuses an attempt that began: its answer depends on others than the endpoint, such as a caller that uploads. It
    /// stays in flight, but silence does not count against the endpoint.
    pub fn excuse(&self) {
        let before = self.calls.fetch_sub(EndpointLoad::ONE_UNANSWERED, Relaxed);
        debug_assert!(unanswered(before) > 0, "an attempt that is excused has begun");
    }

    /// Records the answer or the failure of an attempt that was [excused](Self::excuse), once.
    pub fn answer_excused(&self, answer: Answer, settings: &LoadSettings, now: Moment) {
        self.heard.store(now.nanos(), Relaxed);
        let costs = if answer.failed {
            settings.failure_costs
        } else {
            Duration::ZERO
        };
        self.latency.record(answer.took.max(costs), now);
        if self.failed_last.load(Relaxed) != answer.failed {
            self.failed_last.store(answer.failed, Relaxed);
        }
        if let Some(hold) = answer.retry_after.filter(|hold| !hold.is_zero()) {
            self.held_until.store((now + hold.min(HOLD_AT_MOST)).nanos(), Relaxed);
        }
    }

    /// Counts an attempt that is over, whose answer was recorded.
    pub fn end(&self) {
        let before = self.calls.fetch_sub(1, Relaxed);
        debug_assert!(in_flight(before) > 0, "an attempt that ends has begun");
    }

    /// Counts an attempt that was given up after `waited`, before there was an answer. Its latency is not known, but is
    /// not less than that.
    pub fn abandon(&self, waited: Duration, now: Moment) {
        let before = self.calls.fetch_sub(EndpointLoad::ONE, Relaxed);
        debug_assert!(unanswered(before) > 0, "an attempt that is given up has begun");
        self.latency.record_at_least(waited, now);
    }

    /// Starts the warm-up at a moment: when the endpoint is usable for the first time, or again. The endpoint is cold
    /// until then, so a moment that lies ahead keeps it cold, and [`Moment::MAX`] for as long as nothing is known of it.
    pub fn warm_up(&self, from: Moment) {
        self.warm_from.store(from.nanos().saturating_add(1), Relaxed);
    }

    /// Returns the share of the weight that is in force.
    pub fn warm(&self, settings: &LoadSettings, now: Moment) -> f32 {
        let Some(from) = self.warm_from.load(Relaxed).checked_sub(1) else {
            return 1.0;
        };
        let elapsed = now.since(Moment::from_nanos(from));
        if elapsed >= settings.warm_up {
            return 1.0;
        }
        COLD.max(elapsed.as_secs_f32() / settings.warm_up.as_secs_f32())
    }

    /// Takes the floor of an endpoint that is [due](Candidate::due), so that no other worker does.
    pub fn take_floor(&self, now: Moment) -> bool {
        let asked = self.asked.load(Relaxed);
        self.is_due(asked, now)
            && self
                .asked
                .compare_exchange(asked, now.nanos().max(1), Relaxed, Relaxed)
                .is_ok()
    }

    /// Returns the endpoint as a candidate of this weight.
    pub fn candidate(&self, weight: u32, name: u64, settings: &LoadSettings, now: Moment) -> Candidate {
        let calls = self.calls.load(Relaxed);
        let latency = self.latency.nanos();
        let silence = self.silence(calls, now);
        let is_silent = silence > SILENCE.max(latency.saturating_mul(2));
        let is_held = self.is_held(now);
        let held = if is_held {
            settings.failure_costs
        } else {
            Duration::ZERO
        };
        let known = latency > 0 || is_silent || is_held;
        Candidate {
            availability: Availability::Up,
            tried: Tried::No,
            weight,
            warm: self.warm(settings, now),
            in_flight: in_flight(calls),
            latency: if known {
                latency.max(silence).max(crate::moment::nanos(held))
            } else {
                0
            },
            due: self.is_due(self.asked.load(Relaxed), now),
            in_doubt: is_held || is_silent || self.failed_last.load(Relaxed),
            name,
        }
    }

    pub fn in_flight(&self) -> u32 {
        in_flight(self.calls.load(Relaxed))
    }

    /// Returns the estimated latency in nanoseconds, for humans; 0 if nothing is known.
    pub fn latency(&self) -> Duration {
        Duration::from_nanos(self.latency.nanos())
    }

    /// Returns how long the endpoint has not answered although it was asked, in nanoseconds.
    fn silence(&self, calls: u64, now: Moment) -> u64 {
        if unanswered(calls) == 0 {
            return 0;
        }
        now.nanos().saturating_sub(self.heard.load(Relaxed))
    }

    /// Returns whether the endpoint asked for a pause that is not over. A clock that ran backwards ends it.
    fn is_held(&self, now: Moment) -> bool {
        let left = Moment::from_nanos(self.held_until.load(Relaxed)).since(now);
        !left.is_zero() && left <= HOLD_AT_MOST
    }

    /// Returns whether the endpoint has not been asked for too long. While it owes an answer, no further call would tell
    /// more.
    fn is_due(&self, asked: u64, now: Moment) -> bool {
        let every = if self.failed_last.load(Relaxed) {
            FLOOR_EVERY_IF_FAILING
        } else {
            FLOOR_EVERY
        };
        let is_late = asked == 0 || u128::from(now.nanos().abs_diff(asked)) >= every.as_nanos();
        is_late && unanswered(self.calls.load(Relaxed)) == 0 && !self.is_held(now)
    }
}

const fn in_flight(calls: u64) -> u32 {
    calls as u32
}

const fn unanswered(calls: u64) -> u32 {
    (calls >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: LoadSettings = LoadSettings {
        failure_costs: Duration::from_secs(1),
        warm_up: Duration::from_secs(10),
    };

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn at(milliseconds: u64) -> Moment {
        Moment::ZERO + ms(milliseconds)
    }

    fn look(load: &EndpointLoad, now: u64) -> Candidate {
        load.candidate(1, 0, &SETTINGS, at(now))
    }

    /// Latency in whole milliseconds.
    fn latency(load: &EndpointLoad, now: u64) -> u64 {
        (look(load, now).latency + 500_000) / 1_000_000
    }

    fn call(load: &EndpointLoad, began: u64, took: u64, failed: bool, retry_after: Option<Duration>) {
        load.begin(at(began));
        let answer = Answer {
            took: ms(took),
            failed,
            retry_after,
        };
        load.answer(answer, &SETTINGS, at(began + took));
        load.end();
    }

    #[test]
    fn a_failure_costs_as_much_as_a_slow_answer() {
        let check = |took, failed, expected| {
            let load = EndpointLoad::default();
            call(&load, 1_000, took, failed, None);
            let seen = look(&load, 1_000 + took);
            assert_eq!(
                (latency(&load, 1_000 + took), seen.in_doubt),
                (expected, failed),
                "{took} {failed}"
            );
            assert_eq!(load.in_flight(), 0);
        };
        check(20, false, 20);
        check(1, true, 1_000);
        check(3_000, true, 3_000);
    }

    #[test]
    fn a_pause_that_was_asked_for_is_kept_up_to_a_minute() {
        let check = |retry_after: u64, now: u64, expected: u64| {
            let load = EndpointLoad::default();
            call(&load, 1_000, 10, false, Some(Duration::from_secs(retry_after)));
            let seen = look(&load, now);
            assert_eq!(
                (latency(&load, now), seen.in_doubt),
                (expected, expected > 10),
                "{retry_after} {now}"
            );
            // The floor does not break into the pause.
            assert!(!(seen.due && seen.in_doubt));
        };
        check(5, 1_010, 1_000);
        check(5, 6_009, 1_000);
        check(5, 6_010, 10);
        check(86_400, 61_009, 1_000);
        check(86_400, 61_010, 10);
        check(0, 1_010, 10);
        // Time that runs backwards ends the pause.
        check(60, 500, 10);
    }

    #[test]
    fn silence_counts_as_latency() {
        let load = EndpointLoad::default();
        call(&load, 0, 10, false, None);
        load.begin(at(1_000));
        load.begin(at(1_040));
        for (now, expected, in_doubt) in [(1_005, 10, false), (1_015, 15, false), (1_500, 500, true)] {
            let seen = look(&load, now);
            assert_eq!(
                (latency(&load, now), seen.in_doubt, seen.in_flight),
                (expected, in_doubt, 2),
                "{now}"
            );
        }
        // An answer to either ends the silence, and a body that is still coming does not count as silence.
        load.answer(
            Answer {
                took: ms(10),
                failed: false,
                retry_after: None,
            },
            &SETTINGS,
            at(1_500),
        );
        assert_eq!(latency(&load, 1_505), 10);
        load.abandon(ms(465), at(1_505));
        assert_eq!((latency(&load, 9_000), look(&load, 9_000).in_flight), (465, 1));
        load.end();
        assert_eq!(load.in_flight(), 0);
    }

    #[test]
    fn an_endpoint_that_was_not_asked_is_due() {
        let load = EndpointLoad::default();
        assert!(look(&load, 0).due, "it was never asked");
        assert!(
            load.take_floor(at(100)) && !load.take_floor(at(100)),
            "one takes the floor"
        );
        call(&load, 100, 10, false, None);
        for (now, due) in [(1_099, false), (1_100, true)] {
            assert_eq!(look(&load, now).due, due, "{now}");
        }
        load.begin(at(1_200));
        assert!(!look(&load, 9_000).due, "it owes an answer");
        load.abandon(ms(1), at(1_201));
        assert!(!look(&load, 2_199).due && look(&load, 2_200).due);
        call(&load, 10_000, 1, true, None);
        for (now, due) in [(13_999, false), (14_000, true)] {
            assert_eq!(look(&load, now).due, due, "{now}");
        }
        // Time that runs backwards by a lot must not keep an endpoint from being asked.
        assert!(look(&load, 1).due);
    }

    #[test]
    fn an_endpoint_warms_up_from_a_tenth() {
        let load = EndpointLoad::default();
        assert_eq!(look(&load, 0).warm, 1.0);
        load.warm_up(at(5_000));
        for (now, warm) in [
            (4_000, 0.1),
            (5_000, 0.1),
            (6_000, 0.1),
            (10_000, 0.5),
            (14_000, 0.9),
            (15_000, 1.0),
        ] {
            assert_eq!(look(&load, now).warm, warm, "{now}");
        }
        let off = LoadSettings {
            warm_up: Duration::ZERO,
            ..SETTINGS
        };
        assert_eq!(load.warm(&off, at(5_000)), 1.0);
    }
}
