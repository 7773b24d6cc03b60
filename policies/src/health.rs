//! Says what state an endpoint is in: one state with one reason, from probes, from ejections and from the operator.
//!
//! Probes are the active part: some in a row must fail before an endpoint counts as down, and some must succeed before
//! it is up again. Ejections are the passive part, decided by the [`Ejector`](crate::Ejector) from real calls. An endpoint
//! that nothing is known of yet is usable, so that a start is no outage, but cold, so that little is lost.
//!
//! Probes that succeed may end an ejection early. The first of a row takes `rise` of them, each further one twice as many
//! as the one before: an endpoint whose probes succeed while its calls fail would come back too soon again and again, and
//! one that was restarted twice is well.
//!
//! Invariant: the state is the first of these that applies: drained, down, ejected, warming, up. One result changes at
//! most one step of a row, and each change is reported once. A drained endpoint stays drained whatever the probes say.
//!
//! Knows nothing of addresses, protocols and errors. One prober records results; any thread reads the state.

use crate::balance::Availability;
use crate::ejection::Ejection;
use crate::moment::Moment;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::num::NonZeroU32;
use std::time::Duration;

/// Longest time between two probes of an endpoint that is in doubt.
const EVERY_IN_DOUBT: Duration = Duration::from_secs(1);
/// Share by which the time between two probes varies to either side.
const JITTER: f64 = 0.1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthSettings {
    /// Time between two probes of an endpoint that is not in doubt.
    pub every: Duration,
    /// Number of failed probes in a row that takes an endpoint down.
    pub fall: NonZeroU32,
    /// Number of successful probes in a row that brings it up again.
    pub rise: NonZeroU32,
}

impl Default for HealthSettings {
    fn default() -> HealthSettings {
        HealthSettings {
            every: Duration::from_secs(5),
            fall: const { NonZeroU32::new(3).unwrap() },
            rise: const { NonZeroU32::new(2).unwrap() },
        }
    }
}

/// What is to happen if no endpoint of a backend is up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenNoneIsUp {
    /// Calls go to endpoints that are down or ejected.
    #[default]
    TryAll,
    Refuse,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Up,
    /// Usable, with less than its full weight: it is new or has come back.
    Warming,
    Ejected {
        until: Moment,
    },
    Down {
        since: Moment,
    },
    Drained,
}

/// Change to be logged and counted once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The first probe ever succeeded: the warm-up begins.
    FirstSeen,
    WentDown,
    /// The endpoint is up again: the warm-up begins.
    CameUp {
        down_for: Duration,
    },
}

/// Consequences of the result of a probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub change: Option<Change>,
    /// Whether the ejection in force is to end now.
    pub ends_ejection: bool,
}

/// Result of one probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    pub began: Moment,
    pub succeeded: bool,
}

/// Health of one endpoint. It belongs to the endpoint, and survives changes of the settings.
#[derive(Debug, Default)]
pub struct Health {
    /// Results in a row that are like the last one (31 bits), above them whether it failed; 0 if there was none.
    row: AtomicU32,
    /// Time at which the endpoint went down, in nanoseconds plus one; 0 if it is not down.
    down_since: AtomicU64,
    drained: AtomicBool,
    /// Whether a probe ever succeeded.
    seen: AtomicBool,
    /// Start of the ejection that `successes` counts for, in nanoseconds.
    ejected_from: AtomicU64,
    /// Successful probes in a row that began after that.
    successes: AtomicU32,
}

const FAILED: u32 = 1 << 31;

impl Health {
    /// Records the result of a probe. `ejection` is the one in force. Called by one thread at a time.
    pub fn record(&self, probe: Probe, ejection: Option<Ejection>, settings: &HealthSettings, now: Moment) -> Verdict {
        let kind = if probe.succeeded { 0 } else { FAILED };
        let before = self.row.load(Relaxed);
        let is_like_before = before != 0 && before & FAILED == kind;
        let row = if is_like_before { before & !FAILED } else { 0 };
        let row = row.saturating_add(1).min(FAILED - 1);
        self.row.store(kind | row, Relaxed);
        Verdict {
            change: self.change(probe.succeeded, row, settings, now),
            ends_ejection: self.ends(ejection, probe, settings),
        }
    }

    fn change(&self, succeeded: bool, row: u32, settings: &HealthSettings, now: Moment) -> Option<Change> {
        let first_seen = succeeded && !self.seen.swap(true, Relaxed);
        match self.down_since() {
            None if !succeeded && row >= settings.fall.get() => {
                self.down_since.store(now.nanos().saturating_add(1), Relaxed);
                Some(Change::WentDown)
            }
            Some(since) if succeeded && row >= settings.rise.get() => {
                self.down_since.store(0, Relaxed);
                let down_for = now.since(since);
                Some(Change::CameUp { down_for })
            }
            None if first_seen => Some(Change::FirstSeen),
            _ => None,
        }
    }

    /// Returns whether this result ends the ejection.
    fn ends(&self, ejection: Option<Ejection>, probe: Probe, settings: &HealthSettings) -> bool {
        let Some(Ejection { from, number, .. }) = ejection else {
            return false;
        };
        if self.ejected_from.swap(from.nanos(), Relaxed) != from.nanos() || !probe.succeeded {
            self.successes.store(0, Relaxed);
        }
        // What a probe saw before the ejection says nothing about the time after it.
        if !probe.succeeded || probe.began < from {
            return false;
        }
        let successes = self.successes.load(Relaxed).saturating_add(1);
        self.successes.store(successes, Relaxed);
        let doublings = number.saturating_sub(1).min(16);
        u64::from(successes) >= u64::from(settings.rise.get()) << doublings
    }

    /// Drains the endpoint, or takes the drain back. Returns whether that changed anything.
    pub fn drain(&self, drained: bool) -> bool {
        self.drained.swap(drained, Relaxed) != drained
    }

    /// Forgets all probes, because the endpoint is not probed any more: it is not down.
    pub fn forget_probes(&self) {
        self.row.store(0, Relaxed);
        self.down_since.store(0, Relaxed);
    }

    /// Returns the state. `warm` is the share of the weight that is in force.
    pub fn state(&self, ejection: Option<Ejection>, warm: f32) -> State {
        if self.drained.load(Relaxed) {
            State::Drained
        } else if let Some(since) = self.down_since() {
            State::Down { since }
        } else if let Some(Ejection { until, .. }) = ejection {
            State::Ejected { until }
        } else if warm < 1.0 {
            State::Warming
        } else {
            State::Up
        }
    }

    /// Returns the time until the next probe; `random` is in `0.0..1.0`. An endpoint is probed more often while its next
    /// result may change its state: it is unknown, it is ejected, or a row has begun.
    pub fn next_probe(&self, is_ejected: bool, settings: &HealthSettings, random: f64) -> Duration {
        let every = if is_ejected || self.is_in_doubt() {
            settings.every.min(EVERY_IN_DOUBT)
        } else {
            settings.every
        };
        every.mul_f64(1.0 - JITTER + 2.0 * JITTER * random.clamp(0.0, 1.0))
    }

    /// Returns the time until the first probe, so that the probes of many endpoints do not begin at once.
    pub fn first_probe(settings: &HealthSettings, random: f64) -> Duration {
        settings.every.min(EVERY_IN_DOUBT).mul_f64(random.clamp(0.0, 1.0))
    }

    /// Returns whether the last probe speaks against the state, or there was none.
    fn is_in_doubt(&self) -> bool {
        let row = self.row.load(Relaxed);
        row == 0 || (row & FAILED != 0) != self.down_since().is_some()
    }

    fn down_since(&self) -> Option<Moment> {
        self.down_since.load(Relaxed).checked_sub(1).map(Moment::from_nanos)
    }
}

impl State {
    /// Returns whether the endpoint is one of those that are up.
    pub const fn is_up(self) -> bool {
        matches!(self, State::Up | State::Warming)
    }

    pub const fn availability(self, when_none_is_up: WhenNoneIsUp) -> Availability {
        match (self, when_none_is_up) {
            (State::Up | State::Warming, _) => Availability::Up,
            (State::Ejected { .. } | State::Down { .. }, WhenNoneIsUp::TryAll) => Availability::LastResort,
            (State::Ejected { .. } | State::Down { .. }, WhenNoneIsUp::Refuse) | (State::Drained, _) => {
                Availability::Out
            }
        }
    }

    /// Returns the word that the admin API, the metrics and the log use.
    pub const fn word(self) -> &'static str {
        match self {
            State::Up => "up",
            State::Warming => "warming",
            State::Ejected { .. } => "ejected",
            State::Down { .. } => "down",
            State::Drained => "drained",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn at(milliseconds: u64) -> Moment {
        Moment::ZERO + ms(milliseconds)
    }

    fn probe(health: &Health, succeeded: bool, ejection: Option<Ejection>, began: u64) -> Verdict {
        let probe = Probe {
            began: at(began),
            succeeded,
        };
        health.record(probe, ejection, &HealthSettings::default(), at(began + 10))
    }

    fn probe_often(health: &Health, succeeded: bool, count: u64) {
        for number in 0..count {
            probe(health, succeeded, None, number);
        }
    }

    fn ejection(from: u64, number: u32) -> Option<Ejection> {
        Some(Ejection {
            from: at(from),
            until: at(from + 30_000),
            number,
        })
    }

    /// Records one probe a second, `S` or `F`. Returns what is seen after each: `u`p or `d`own, in capitals if it is in
    /// doubt; and the changes.
    fn run(results: &str) -> (String, Vec<Change>) {
        let (health, mut states, mut changes) = (Health::default(), String::new(), vec![]);
        for (number, result) in (1..).zip(results.chars()) {
            changes.extend(probe(&health, result == 'S', None, number * 1_000).change);
            let letter = match health.state(None, 1.0) {
                State::Down { .. } => 'd',
                _ => 'u',
            };
            let quick = health.next_probe(false, &HealthSettings::default(), 0.5) == ms(1_000);
            states.push(if quick { letter.to_ascii_uppercase() } else { letter });
        }
        (states, changes)
    }

    #[test]
    fn some_in_a_row_take_an_endpoint_down_and_up() {
        use Change::{CameUp, FirstSeen, WentDown};
        let check = |results: &str, states: &str, changes: &[Change]| {
            assert_eq!(run(results), (states.to_owned(), changes.to_vec()), "{results}");
        };
        check("SSS", "uuu", &[FirstSeen]);
        check("SFFS", "uUUu", &[FirstSeen]);
        check("SFFSFFF", "uUUuUUd", &[FirstSeen, WentDown]);
        check("FFF", "UUd", &[WentDown]);
        check("FFFFFF", "UUdddd", &[WentDown]);
        check("FFFSS", "UUdDu", &[WentDown, CameUp { down_for: ms(2_000) }]);
        check("FFFSFSS", "UUdDdDu", &[WentDown, CameUp { down_for: ms(4_000) }]);
        check(
            "SFFFSSFFF",
            "uUUdDuUUd",
            &[FirstSeen, WentDown, CameUp { down_for: ms(2_000) }, WentDown],
        );
        check("", "", &[]);
    }

    #[test]
    fn the_state_is_the_first_that_applies() {
        let health = Health::default();
        let states = |health: &Health| {
            [(None, 1.0), (None, 0.5), (ejection(0, 1), 0.5)]
                .map(|(ejection, warm)| health.state(ejection, warm).word())
        };
        assert_eq!(
            states(&health),
            ["up", "warming", "ejected"],
            "before the first result it is usable"
        );
        probe_often(&health, false, 3);
        assert_eq!(states(&health), ["down"; 3]);
        assert_eq!(health.state(None, 1.0), State::Down { since: at(12) });
        assert!(health.drain(true) && !health.drain(true));
        assert_eq!(states(&health), ["drained"; 3]);
        // Probes go on meanwhile, and count when the drain is taken back.
        probe_often(&health, true, 2);
        assert_eq!(states(&health), ["drained"; 3]);
        assert!(health.drain(false));
        assert_eq!(states(&health), ["up", "warming", "ejected"]);
        probe_often(&health, false, 3);
        health.forget_probes();
        assert_eq!(states(&health), ["up", "warming", "ejected"]);
    }

    #[test]
    fn probes_end_an_ejection_and_the_later_ones_of_a_row_take_more() {
        // Each probe: whether it succeeds, and when it begins. The ejection begins at 5,000.
        let check = |number: u32, probes: &[(bool, u64)], ends: bool| {
            let health = Health::default();
            let verdicts: Vec<_> = probes
                .iter()
                .map(|(succeeded, began)| probe(&health, *succeeded, ejection(5_000, number), *began))
                .collect();
            assert_eq!(verdicts.last().unwrap().ends_ejection, ends, "{number} {probes:?}");
        };
        check(1, &[(true, 6_000)], false);
        check(1, &[(true, 6_000), (true, 7_000)], true);
        check(1, &[(true, 6_000), (false, 7_000), (true, 8_000)], false);
        check(1, &[(true, 6_000), (false, 7_000), (true, 8_000), (true, 9_000)], true);
        // A probe that began before the ejection says nothing.
        check(1, &[(true, 4_999), (true, 6_000)], false);
        // Its calls fail again although its probes succeed: more of them are needed.
        check(2, &[(true, 6_000), (true, 7_000), (true, 8_000)], false);
        check(2, &[(true, 6_000), (true, 7_000), (true, 8_000), (true, 9_000)], true);
        check(3, &[(true, 6_000); 7], false);
        check(3, &[(true, 6_000); 8], true);
        check(u32::MAX, &[(true, 6_000); 8], false);

        let health = Health::default();
        probe_often(&health, true, 9);
        assert!(
            !probe(&health, true, ejection(5_000, 1), 6_000).ends_ejection,
            "earlier successes do not count"
        );
        assert!(
            !probe(&health, true, ejection(7_000, 1), 8_000).ends_ejection,
            "nor those of another ejection"
        );
        assert!(probe(&health, true, ejection(7_000, 1), 9_000).ends_ejection);
    }

    #[test]
    fn an_endpoint_in_doubt_is_probed_each_second() {
        let check = |every: u64, ejected: bool, random: f64, expected: u64| {
            let settings = HealthSettings {
                every: ms(every),
                ..HealthSettings::default()
            };
            let health = Health::default();
            probe(&health, true, None, 0);
            assert_eq!(
                health.next_probe(ejected, &settings, random),
                ms(expected),
                "{every} {ejected} {random}"
            );
        };
        check(5_000, false, 0.0, 4_500);
        check(5_000, false, 0.5, 5_000);
        check(5_000, false, 1.0, 5_500);
        check(5_000, true, 0.5, 1_000);
        check(200, true, 0.5, 200);
        assert_eq!(Health::first_probe(&HealthSettings::default(), 0.25), ms(250));
    }

    #[test]
    fn what_is_not_up_is_tried_or_not() {
        use Availability::{LastResort, Out, Up};
        let check = |state: State, try_all, refuse| {
            let seen = [WhenNoneIsUp::TryAll, WhenNoneIsUp::Refuse].map(|none| state.availability(none));
            assert_eq!(seen, [try_all, refuse], "{state:?}");
        };
        check(State::Up, Up, Up);
        check(State::Warming, Up, Up);
        check(State::Ejected { until: at(1) }, LastResort, Out);
        check(State::Down { since: at(1) }, LastResort, Out);
        check(State::Drained, Out, Out);
    }

    proptest! {
        #![proptest_config(cases::counted())]

        /// Compares with the plain rule: the last `fall` failed, or the last `rise` succeeded, decides. The clock may
        /// jump.
        #[test]
        fn the_last_row_that_was_long_enough_decides(
            results in prop::collection::vec((any::<bool>(), 0..10_000_u64), 0..60),
            fall in 1..4_u32,
            rise in 1..4_u32,
        ) {
            let settings = HealthSettings {
                fall: NonZeroU32::new(fall).unwrap(),
                rise: NonZeroU32::new(rise).unwrap(),
                ..HealthSettings::default()
            };
            let (health, mut is_down, mut seen) = (Health::default(), false, vec![]);
            for (succeeded, began) in results {
                seen.push(succeeded);
                let ends_with = |count: u32, result: bool| {
                    seen.len() >= count as usize && seen.iter().rev().take(count as usize).all(|one| *one == result)
                };
                let was_down = is_down;
                is_down = if is_down { !ends_with(rise, true) } else { ends_with(fall, false) };
                let probe = Probe { began: at(began), succeeded };
                let verdict = health.record(probe, None, &settings, at(began));
                let came_or_went = verdict.change.filter(|change| *change != Change::FirstSeen);
                prop_assert_eq!(came_or_went.is_some(), is_down != was_down);
                prop_assert_eq!(matches!(health.state(None, 1.0), State::Down { .. }), is_down);
                prop_assert!(!verdict.ends_ejection);
            }
        }
    }
}
