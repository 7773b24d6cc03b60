use super::*;
use crate::ratio::Ratio;
use proptest::prelude::*;
use std::collections::HashMap;
use std::num::NonZeroU32;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn at(milliseconds: u64) -> Moment {
    Moment::ZERO + ms(milliseconds)
}

/// Half of at least 4 calls in 16 s, open for 5 s, 2 probes.
fn settings() -> BreakerSettings {
    BreakerSettings {
        window: ms(16_000),
        min_calls: 4,
        failure_ratio: Ratio::new(0.5),
        slow: None,
        open_for: ms(5_000),
        probes: NonZeroU32::new(2).unwrap(),
        ..BreakerSettings::default()
    }
}

enum Do {
    Admit(&'static str),
    /// Refused, with this time to come back, in ms.
    Refused(u64),
    Succeed(&'static str),
    /// Success that took this many ms.
    Take(&'static str, u64),
    Fail(&'static str),
    Ignore(&'static str),
    Drop(&'static str),
    /// Late failure of a call that was judged already.
    BreakOff(&'static str),
    Is(State),
}
use Do::*;

fn check(settings: BreakerSettings, rows: &[(u64, Do)]) {
    let breaker = Arc::new(Breaker::new(settings));
    let mut permits = HashMap::new();
    let mut generations = HashMap::new();
    for (row, (milliseconds, what)) in rows.iter().enumerate() {
        let now = at(*milliseconds);
        let mut record = |name: &'static str, outcome| breaker.record(permits.remove(&name).unwrap(), outcome, now);
        match what {
            Admit(name) => {
                let permit = breaker.admit(now).unwrap_or_else(|open| panic!("row {row}: {open:?}"));
                generations.insert(*name, permit.generation());
                permits.insert(*name, permit);
            }
            Refused(wait) => assert_eq!(
                breaker.admit(now).err().map(|open| open.retry_in),
                Some(ms(*wait)),
                "row {row}"
            ),
            Succeed(name) => drop(record(name, Outcome::Success { took: ms(1) })),
            Take(name, took) => drop(record(name, Outcome::Success { took: ms(*took) })),
            Fail(name) => drop(record(name, Outcome::Failure { took: ms(1) })),
            Ignore(name) => assert_eq!(record(name, Outcome::Ignored), None, "row {row}"),
            Drop(name) => drop(permits.remove(*name)),
            BreakOff(name) => drop(breaker.late_failure(generations[*name], now)),
            Is(state) => assert_eq!(breaker.state(now), *state, "row {row}: {:?}", breaker.counts(now)),
        }
    }
}

/// Rows in which every call starts and ends at once, at 0 ms.
fn calls(outcomes: &str) -> Vec<(u64, Do)> {
    let call = |outcome| {
        [
            (0, Admit("c")),
            (0, if outcome == 'F' { Fail("c") } else { Succeed("c") }),
        ]
    };
    outcomes.chars().flat_map(call).collect()
}

fn after(outcomes: &str, rows: Vec<(u64, Do)>) -> Vec<(u64, Do)> {
    let mut all = calls(outcomes);
    all.extend(rows);
    all
}

#[test]
fn opens_at_the_ratio_of_enough_calls() {
    let check = |outcomes, state| check(settings(), &after(outcomes, vec![(0, Is(state))]));
    check("", State::Closed);
    check("FFF", State::Closed);
    check("FFFF", State::Open);
    check("FFSS", State::Open);
    check("FSSS", State::Closed);
    check("FSSSF", State::Closed);
    check("SSSSFFF", State::Closed);
    check("SSSSFFFF", State::Open);
}

#[test]
fn forgets_what_left_the_window() {
    check(
        settings(),
        &after(
            "FFF",
            vec![(16_000, Admit("a")), (16_000, Fail("a")), (16_000, Is(State::Closed))],
        ),
    );
    check(
        settings(),
        &after(
            "FFF",
            vec![(15_999, Admit("a")), (15_999, Fail("a")), (15_999, Is(State::Open))],
        ),
    );
}

#[test]
fn is_open_for_its_time_then_probes() {
    check(
        settings(),
        &after(
            "FFFF",
            vec![
                (0, Refused(5_000)),
                (4_999, Refused(1)),
                (5_000, Is(State::HalfOpen)),
                (5_000, Admit("a")),
                (5_000, Admit("b")),
                (5_000, Refused(0)),
                (5_100, Succeed("a")),
                // One success is lacking and one probe is under way.
                (5_100, Refused(0)),
                (5_100, Is(State::HalfOpen)),
                (5_200, Succeed("b")),
                (5_200, Is(State::Closed)),
                (5_200, Admit("c")),
                (5_200, Fail("c")),
                (5_200, Is(State::Closed)),
            ],
        ),
    );
}

#[test]
fn one_failed_probe_reopens() {
    check(
        settings(),
        &after(
            "FFFF",
            vec![
                (5_000, Admit("a")),
                (5_000, Admit("b")),
                (6_000, Succeed("a")),
                (7_000, Fail("b")),
                (7_000, Refused(5_000)),
                (12_000, Admit("c")),
                (12_000, Is(State::HalfOpen)),
            ],
        ),
    );
}

#[test]
fn a_probe_that_says_nothing_gives_its_place_back() {
    for gone in [Ignore("a"), Drop("a")] {
        check(
            settings(),
            &after(
                "FFFF",
                vec![
                    (5_000, Admit("a")),
                    (5_000, Admit("b")),
                    (5_000, Refused(0)),
                    (6_000, gone),
                    (6_000, Is(State::HalfOpen)),
                    (6_000, Admit("c")),
                    (6_000, Refused(0)),
                ],
            ),
        );
    }
}

#[test]
fn results_of_an_earlier_generation_change_nothing() {
    check(
        settings(),
        &after(
            "FFF",
            vec![
                (0, Admit("old")),
                (0, Admit("older")),
                (0, Admit("last")),
                (0, Fail("last")),
                (5_000, Admit("a")),
                (5_000, Fail("old")),
                (5_000, BreakOff("c")),
                (5_000, Succeed("older")),
                (5_000, Is(State::HalfOpen)),
                (5_000, Succeed("a")),
                (5_000, Is(State::HalfOpen)),
                (5_000, Admit("b")),
                (5_000, Refused(0)),
                (5_000, Succeed("b")),
                (5_000, Is(State::Closed)),
            ],
        ),
    );
    // A probe that outlives its generation does not free a place in a later one when it is dropped.
    check(
        settings(),
        &after(
            "FFFF",
            vec![
                (5_000, Admit("late")),
                (5_000, Admit("a")),
                (5_000, Fail("a")),
                (10_000, Admit("b")),
                (10_000, Admit("c")),
                (10_000, Drop("late")),
                (10_000, Refused(0)),
            ],
        ),
    );
}

#[test]
fn a_late_failure_is_one_more_failure_of_the_same_call() {
    check(
        settings(),
        &after(
            "SSSS",
            vec![
                (0, BreakOff("c")),
                (0, Is(State::Closed)),
                (0, BreakOff("c")),
                (0, Is(State::Open)),
            ],
        ),
    );
    check(
        settings(),
        &after(
            "FFFF",
            vec![
                (5_000, Admit("a")),
                (5_000, Succeed("a")),
                (5_000, BreakOff("a")),
                (5_000, Is(State::Open)),
            ],
        ),
    );
}

#[test]
fn slow_calls_open_it_and_a_slow_probe_fails() {
    let slow = Some(SlowCalls {
        over: ms(100),
        ratio: Ratio::new(0.75).unwrap(),
    });
    let settings = BreakerSettings {
        failure_ratio: None,
        slow,
        ..settings()
    };
    let call = |took| [(0, Admit("c")), (0, Take("c", took))];
    let rows = |tooks: [u64; 4], state| {
        let mut rows: Vec<_> = tooks.into_iter().flat_map(call).collect();
        rows.push((0, Is(state)));
        rows
    };
    check(settings, &rows([100, 100, 101, 101], State::Closed));
    check(settings, &rows([100, 101, 101, 101], State::Open));
    let mut rows = rows([100, 101, 101, 101], State::Open);
    rows.extend([(5_000, Admit("a")), (5_000, Take("a", 101)), (5_000, Is(State::Open))]);
    check(settings, &rows);
}

#[test]
fn failures_in_a_row_open_it_however_few() {
    let settings = BreakerSettings {
        consecutive: NonZeroU32::new(3),
        min_calls: 1_000,
        ..settings()
    };
    let check = |outcomes, state| check(settings, &after(outcomes, vec![(0, Is(state))]));
    check("FF", State::Closed);
    check("FFSFF", State::Closed);
    check("SFFF", State::Open);
}

/// Returns an open breaker whose probes have failed this many times.
fn reopened(settings: BreakerSettings, times: u32) -> (Arc<Breaker>, u64) {
    let breaker = Arc::new(Breaker::seeded(settings, 42));
    let mut now = 0;
    for _ in 0..times + settings.min_calls {
        now += breaker
            .retry_in(at(now))
            .map_or(0, |wait| wait.as_nanos().div_ceil(1_000_000) as u64);
        let permit = breaker.admit(at(now)).unwrap();
        breaker.record(permit, Outcome::Failure { took: ms(1) }, at(now));
    }
    assert_eq!(
        (breaker.state(at(now)), breaker.counts(at(now)).reopenings),
        (State::Open, times)
    );
    (breaker, now)
}

#[test]
fn each_failed_probe_keeps_it_open_for_longer() {
    let growing = BreakerSettings {
        growth: 2.0,
        open_for_max: ms(30_000),
        ..settings()
    };
    for (times, open_for) in [(0, 5_000), (1, 10_000), (2, 20_000), (3, 30_000), (40, 30_000)] {
        let (breaker, now) = reopened(growing, times);
        let refusal = |left| {
            Some(Open {
                retry_in: ms(left),
                why: Why::Open,
            })
        };
        assert_eq!(breaker.admit(at(now)).err(), refusal(open_for), "{times}");
        assert_eq!(breaker.admit(at(now + open_for - 1)).err(), refusal(1), "{times}");
        assert!(breaker.admit(at(now + open_for)).is_ok(), "{times}");
    }
    // Closing resets the growth, and so does forcing a state.
    let (breaker, now) = reopened(growing, 2);
    for _ in 0..2 {
        let probe = breaker.admit(at(now + 20_000)).unwrap();
        breaker.record(probe, Outcome::Success { took: ms(1) }, at(now + 20_000));
    }
    assert_eq!(breaker.counts(at(now + 20_000)), Counts::default());
    let fail = |now| {
        let permit = breaker.admit(at(now)).unwrap();
        breaker.record(permit, Outcome::Failure { took: ms(1) }, at(now));
    };
    (0..4).for_each(|_| fail(now + 20_000));
    assert_eq!(breaker.retry_in(at(now + 20_000)), Some(ms(5_000)));
    fail(now + 25_000);
    assert_eq!(breaker.retry_in(at(now + 25_000)), Some(ms(10_000)));
    breaker.force(ForcedState::Closed, at(now + 26_000));
    breaker.unforce(at(now + 26_000));
    (0..4).for_each(|_| fail(now + 26_000));
    assert_eq!(breaker.retry_in(at(now + 26_000)), Some(ms(5_000)));
}

#[test]
fn neither_a_clock_that_runs_back_nor_a_reload_makes_a_grown_time_longer() {
    let growing = BreakerSettings {
        growth: 2.0,
        open_for_max: ms(30_000),
        ..settings()
    };
    let (breaker, now) = reopened(growing, 2);
    assert_eq!(breaker.retry_in(at(now - 10_000)), Some(ms(20_000)));
    assert_eq!(breaker.retry_in(at(now)), Some(ms(10_000)));
    let longer = BreakerSettings {
        open_for: ms(9_000),
        ..growing
    };
    breaker.reconfigure(longer, at(now));
    assert_eq!(breaker.retry_in(at(now)), Some(ms(10_000)));
    let shorter = BreakerSettings {
        open_for_max: ms(7_000),
        ..growing
    };
    breaker.reconfigure(shorter, at(now));
    assert_eq!(breaker.retry_in(at(now)), Some(ms(7_000)));
}

#[test]
fn replicas_do_not_probe_in_step() {
    let jittered = BreakerSettings {
        jitter: Ratio::new(0.1).unwrap(),
        min_calls: 1,
        ..settings()
    };
    let time = |seed| {
        let breaker = Arc::new(Breaker::seeded(jittered, seed));
        let permit = breaker.admit(at(0)).unwrap();
        breaker.record(permit, Outcome::Failure { took: ms(1) }, at(0));
        breaker.retry_in(at(0)).unwrap()
    };
    let mut times: Vec<_> = (0..100).map(time).collect();
    times.sort();
    assert!(times[0] >= ms(4_500) && times[0] < ms(4_600), "{times:?}");
    assert!(times[99] <= ms(5_500) && times[99] > ms(5_400), "{times:?}");
    times.dedup();
    assert_eq!(times.len(), 100);
}

/// Row of calls: how many, whether they fail, and how many ms each takes.
type Calls = (u32, bool, u64);

#[test]
fn the_adaptive_rule_goes_by_latency_and_ratio() {
    let adaptive = BreakerSettings {
        min_calls: 10,
        failure_ratio: None,
        adaptive: Some(AdaptiveRule {
            latency_window: NonZeroU32::new(20).unwrap(),
            threshold: ms(100),
        }),
        ..settings()
    };
    let check = |rows: &[Calls], expected: Option<Cause>| {
        let breaker = Arc::new(Breaker::new(adaptive));
        let mut last = None;
        for (count, failed, took) in rows {
            for _ in 0..*count {
                assert_eq!(last, None, "it opens too early: {rows:?}");
                let took = ms(*took);
                let outcome = if *failed {
                    Outcome::Failure { took }
                } else {
                    Outcome::Success { took }
                };
                let permit = breaker.admit(at(0)).unwrap();
                last = breaker.record(permit, outcome, at(0)).map(|change| change.cause);
            }
        }
        assert_eq!(last, expected, "{rows:?}");
    };
    let (failed, ok) = (true, false);
    // Fewer than ten calls never open it.
    check(&[(9, failed, 9_000)], None);
    check(&[(9, failed, 9_000), (1, ok, 1)], Some(Cause::AdaptiveFilling));
    // Until twenty calls were seen, half of them must fail.
    check(&[(6, ok, 9_000), (5, failed, 9_000)], None);
    check(&[(6, ok, 9_000), (6, failed, 9_000)], Some(Cause::AdaptiveFilling));
    // After that, 30 % open it if the mean latency is above 100 ms.
    check(&[(14, ok, 101), (6, failed, 101)], Some(Cause::AdaptiveLatency));
    check(&[(14, ok, 100), (6, failed, 100)], None);
    check(&[(15, ok, 101), (5, failed, 101)], None);
    check(&[(14, ok, 1), (6, failed, 332)], Some(Cause::AdaptiveLatency));
    // Otherwise 60 % open it. The mean is of the last twenty calls only, the ratio of all in the window.
    check(&[(20, ok, 1), (29, failed, 1)], None);
    check(&[(20, ok, 1), (30, failed, 1)], Some(Cause::AdaptiveRatio));
    check(&[(5, ok, 9_000), (20, ok, 1), (25, failed, 1)], None);
    check(&[(30, ok, 1), (12, failed, 1), (8, ok, 1)], None);
}

#[test]
fn the_mean_is_of_the_present_state() {
    let adaptive = BreakerSettings {
        probes: NonZeroU32::MIN,
        adaptive: Some(AdaptiveRule {
            latency_window: NonZeroU32::new(4).unwrap(),
            threshold: ms(100),
        }),
        ..settings()
    };
    let breaker = Arc::new(Breaker::new(adaptive));
    let call = |now, outcome| {
        let permit = breaker.admit(at(now)).unwrap();
        breaker.record(permit, outcome, at(now));
    };
    assert_eq!(breaker.mean_latency(), None);
    (0..3).for_each(|_| call(0, Outcome::Success { took: ms(80) }));
    call(0, Outcome::Success { took: ms(120) });
    assert_eq!(breaker.mean_latency(), Some(ms(90)));
    (0..4).for_each(|_| call(0, Outcome::Failure { took: ms(80) }));
    assert_eq!((breaker.state(at(0)), breaker.mean_latency()), (State::Open, None));
    call(5_000, Outcome::Success { took: ms(1) });
    assert_eq!(
        (breaker.state(at(5_000)), breaker.mean_latency()),
        (State::Closed, None)
    );
}

#[test]
fn time_running_backwards_cannot_shut_it_for_longer() {
    check(
        settings(),
        &[
            (100_000, Admit("a")),
            (90_000, Fail("a")),
            (100_000, Admit("b")),
            (95_000, Fail("b")),
            (95_000, Admit("c")),
            (100_000, Fail("c")),
            (100_000, Admit("d")),
            (100_000, Fail("d")),
            (100_000, Is(State::Open)),
            (60_000, Refused(5_000)),
            (64_999, Refused(1)),
            (65_000, Admit("e")),
            (60_000, Succeed("e")),
            (60_000, Is(State::HalfOpen)),
        ],
    );
}

#[test]
fn a_state_can_be_forced() {
    let breaker = Arc::new(Breaker::new(settings()));
    let fail = || {
        let permit = breaker.admit(at(0)).unwrap();
        breaker.record(permit, Outcome::Failure { took: ms(1) }, at(0))
    };
    let change = |from, to, cause| {
        Some(Transition {
            from,
            to,
            at: at(0),
            cause,
        })
    };

    let forced = breaker.force(ForcedState::Closed, at(0));
    assert_eq!(forced, change(State::Closed, State::ForcedClosed, Cause::Forced));
    assert!((0..20).all(|_| fail().is_none()));
    assert_eq!(breaker.counts(at(0)).failures, 20);

    let forced = breaker.force(ForcedState::Open, at(0));
    assert_eq!(forced, change(State::ForcedClosed, State::ForcedOpen, Cause::Forced));
    assert_eq!(breaker.force(ForcedState::Open, at(0)), None);
    assert!(breaker.admit(at(3_600_000)).is_err());

    assert_eq!(
        breaker.unforce(at(0)),
        change(State::ForcedOpen, State::Closed, Cause::Unforced)
    );
    assert_eq!(breaker.unforce(at(0)), None);
    assert_eq!(breaker.counts(at(0)), Counts::default());
    assert_eq!([fail(), fail(), fail()], [None; 3]);
    assert_eq!(fail(), change(State::Closed, State::Open, Cause::FailureRatio));
}

#[test]
fn transitions_are_told_once_with_their_cause() {
    let breaker = Arc::new(Breaker::new(settings()));
    let mut told = vec![];
    let mut call = |milliseconds, outcome| {
        let permit = breaker.admit(at(milliseconds)).unwrap();
        told.extend(permit.began());
        told.extend(breaker.record(permit, outcome, at(milliseconds)));
    };
    let (success, failure) = (Outcome::Success { took: ms(1) }, Outcome::Failure { took: ms(1) });
    (0..4).for_each(|_| call(0, failure));
    call(5_000, failure);
    (0..2).for_each(|_| call(10_000, success));
    let told: Vec<_> = told.into_iter().map(|change| (change.to, change.cause)).collect();
    assert_eq!(
        told,
        [
            (State::Open, Cause::FailureRatio),
            (State::HalfOpen, Cause::OpenTimeOver),
            (State::Open, Cause::ProbeFailed),
            (State::HalfOpen, Cause::OpenTimeOver),
            (State::Closed, Cause::ProbesSucceeded),
        ]
    );
}

#[test]
fn a_reload_keeps_state_and_counts() {
    let breaker = Arc::new(Breaker::new(settings()));
    let fail = |milliseconds| {
        let permit = breaker.admit(at(milliseconds)).unwrap();
        breaker.record(permit, Outcome::Failure { took: ms(1) }, at(milliseconds));
    };
    (0..3).for_each(|_| fail(20_000));
    breaker.reconfigure(
        BreakerSettings {
            window: ms(3_000),
            ..settings()
        },
        at(21_000),
    );
    assert_eq!(breaker.counts(at(21_000)).failures, 3);
    fail(21_000);
    assert_eq!(breaker.state(at(21_000)), State::Open);
    // A shorter open time applies at once.
    breaker.reconfigure(
        BreakerSettings {
            open_for: ms(100),
            ..settings()
        },
        at(21_000),
    );
    assert_eq!(breaker.admit(at(21_000)).err().map(|open| open.retry_in), Some(ms(100)));
    // The new number of probes is smaller than the successes so far: one more success closes it.
    let probe = breaker.admit(at(21_100)).unwrap();
    breaker.record(probe, Outcome::Success { took: ms(1) }, at(21_100));
    breaker.reconfigure(
        BreakerSettings {
            probes: NonZeroU32::MIN,
            ..settings()
        },
        at(21_100),
    );
    let probe = breaker.admit(at(21_100)).unwrap();
    breaker.record(probe, Outcome::Success { took: ms(1) }, at(21_100));
    assert_eq!(breaker.state(at(21_100)), State::Closed);
}

/// Implements the same rules with lists and plain fields.
struct Naive {
    settings: BreakerSettings,
    state: State,
    generation: u64,
    open_until: u64,
    reopenings: u32,
    /// Entries: (slice, failed, slow, took)
    results: Vec<(u64, bool, bool, u64)>,
    probes: u32,
    successes: u32,
}

impl Naive {
    fn become_(&mut self, state: State) {
        self.state = state;
        self.generation += 1;
        self.results.clear();
        (self.probes, self.successes) = (0, 0);
    }

    /// Returns the generation, and whether the call is a probe.
    fn admit(&mut self, now: u64) -> Option<(u64, bool)> {
        if self.state == State::Open && now >= self.open_until {
            self.become_(State::HalfOpen);
        }
        let probes = self.settings.probes.get();
        let free = self.probes + self.successes < probes;
        let admitted = self.state == State::Closed || self.state == State::HalfOpen && free;
        let probe = self.state == State::HalfOpen;
        self.probes += u32::from(admitted && probe);
        admitted.then_some((self.generation, probe))
    }

    /// Judges a call; `None` is an outcome that is ignored.
    fn end(&mut self, (generation, probe): (u64, bool), failed_took: Option<(bool, u64)>, now: u64) {
        if generation != self.generation {
            return;
        }
        self.probes -= u32::from(probe);
        let Some((failed, took)) = failed_took else { return };
        let slow = self.settings.slow.is_some_and(|slow| ms(took) > slow.over);
        self.results.push((now / 1_000, failed, slow, took));
        if probe && (failed || slow) {
            self.open(now);
        } else if probe {
            self.successes += 1;
            if self.successes >= self.settings.probes.get() {
                self.become_(State::Closed);
            }
        } else if self.should_open(now) {
            self.open(now);
        }
    }

    fn open(&mut self, now: u64) {
        self.reopenings = if self.state == State::HalfOpen {
            self.reopenings + 1
        } else {
            0
        };
        self.become_(State::Open);
        let open_for = self.settings.open_for.as_millis() as u64;
        let most = open_for.max(self.settings.open_for_max.as_millis() as u64);
        let grown = open_for as f64 * self.settings.growth.powi(self.reopenings as i32);
        self.open_until = now + (grown as u64).min(most);
    }

    fn should_open(&self, now: u64) -> bool {
        let streak = self.results.iter().rev().take_while(|result| result.1).count() as u32;
        let live: Vec<_> = self
            .results
            .iter()
            .filter(|result| result.0 + 16 > now / 1_000)
            .collect();
        let share = |of: usize| of as f64 / live.len() as f64 + 1e-9;
        let (failures, slow) = (live.iter().filter(|r| r.1).count(), live.iter().filter(|r| r.2).count());
        let reaches = |part: usize, ratio: Ratio| part > 0 && share(part) >= f64::from(ratio.millionths()) / 1e6;
        self.settings.consecutive.is_some_and(|most| streak >= most.get())
            || live.len() >= self.settings.min_calls as usize
                && (self
                    .settings
                    .failure_ratio
                    .is_some_and(|ratio| reaches(failures, ratio))
                    || self.settings.adaptive.is_some_and(|rule| {
                        let last = self.results.iter().rev().take(rule.latency_window.get() as usize);
                        let (seen, sum) = last.fold((0, 0), |(seen, sum), result| (seen + 1, sum + result.3));
                        let is_slow = sum > seen * rule.threshold.as_millis() as u64;
                        if seen < u64::from(rule.latency_window.get()) {
                            reaches(failures, AdaptiveRule::WHILE_FILLING)
                        } else {
                            let enough = if is_slow {
                                AdaptiveRule::WHEN_SLOW
                            } else {
                                AdaptiveRule::ALWAYS
                            };
                            reaches(failures, enough)
                        }
                    })
                    || self.settings.slow.is_some_and(|settings| reaches(slow, settings.ratio)))
    }
}

fn any_settings() -> impl Strategy<Value = BreakerSettings> {
    let ratio = || (0..=100u32).prop_map(|percent| Ratio::from_millionths(percent * 10_000).unwrap());
    let slow = prop::option::of(ratio().prop_map(|ratio| SlowCalls { over: ms(50), ratio }));
    let adaptive = (1..30u32, 0..100u64).prop_map(|(latency_window, threshold)| AdaptiveRule {
        latency_window: NonZeroU32::new(latency_window).unwrap(),
        threshold: ms(threshold),
    });
    let opening = (prop::option::of(ratio()), slow, 0..12u32, prop::option::of(adaptive));
    // Whole factors, so that the plain rules compute exactly.
    let staying_open = (0..20_000u64, 1..4u32, 0..60_000u64);
    (0..12u32, opening, staying_open, 1..5u32).prop_map(
        |(min_calls, (failure_ratio, slow, consecutive, adaptive), (open_for, growth, open_for_max), probes)| {
            BreakerSettings {
                window: ms(16_000),
                min_calls,
                failure_ratio,
                slow,
                consecutive: NonZeroU32::new(consecutive),
                adaptive,
                open_for: ms(open_for),
                growth: f64::from(growth),
                open_for_max: ms(open_for_max),
                jitter: Ratio::ZERO,
                probes: NonZeroU32::new(probes).unwrap(),
            }
        },
    )
}

proptest! {
    #![proptest_config(cases::counted())]

    #[test]
    fn does_as_the_plain_rules_say(
        settings in any_settings(),
        schedule in prop::collection::vec((0..2_000u64, 0..10u8, any::<prop::sample::Index>(), 0..100u64), 1..300),
    ) {
        let breaker = Arc::new(Breaker::new(settings));
        let mut naive = Naive {
            settings, state: State::Closed, generation: 0, open_until: 0, reopenings: 0, results: vec![],
            probes: 0, successes: 0,
        };
        let (mut now, mut under_way) = (0, vec![]);
        for (pause, choice, which, took) in schedule {
            now += pause;
            if choice < 5 || under_way.is_empty() {
                let admitted = naive.admit(now);
                let foreseen = breaker.foresee(Asker::default(), at(now));
                let permit = breaker.admit(at(now));
                prop_assert_eq!(permit.is_ok(), admitted.is_some());
                prop_assert_eq!(permit.as_ref().map(Permit::is_probe).map_err(|open| *open), foreseen);
                if let (Ok(permit), Some(admitted)) = (permit, admitted) {
                    prop_assert_eq!(permit.is_probe(), admitted.1);
                    under_way.push((permit, admitted));
                }
            } else {
                let (permit, admitted) = under_way.swap_remove(which.index(under_way.len()));
                match choice {
                    5 => { drop(permit); naive.end(admitted, None, now) }
                    6 | 7 => {
                        breaker.record(permit, Outcome::Failure { took: ms(took) }, at(now));
                        naive.end(admitted, Some((true, took)), now);
                    }
                    _ => {
                        breaker.record(permit, Outcome::Success { took: ms(took) }, at(now));
                        naive.end(admitted, Some((false, took)), now);
                    }
                }
            }
            let counts = breaker.counts(at(now));
            prop_assert_eq!((counts.probes_under_way, counts.probe_successes), (naive.probes, naive.successes));
            let half_open = naive.state == State::Open && now >= naive.open_until;
            prop_assert_eq!(breaker.state(at(now)), if half_open { State::HalfOpen } else { naive.state });
        }
    }

    #[test]
    fn a_healthy_backend_always_recovers(
        settings in any_settings(), jitter in 0..=100u32, seed in any::<u64>(),
        schedule in prop::collection::vec((0..30_000u64, any::<bool>()), 0..100),
    ) {
        let settings = BreakerSettings { jitter: Ratio::from_millionths(jitter * 10_000).unwrap(), ..settings };
        let breaker = Arc::new(Breaker::seeded(settings, seed));
        // Random times, forwards and backwards; every call fails or is dropped.
        for (instant, vanishes) in schedule {
            if let Ok(permit) = breaker.admit(at(instant)) {
                let outcome = if vanishes { Outcome::Ignored } else { Outcome::Failure { took: ms(1) } };
                breaker.record(permit, outcome, at(instant));
            }
        }
        // Later than any open time, grown and jittered, and than any window.
        let now = at(30_000 + 2 * 60_000);
        for _ in 0..settings.probes.get() {
            let permit = breaker.admit(now).unwrap();
            breaker.record(permit, Outcome::Success { took: ms(1) }, now);
        }
        prop_assert_eq!(breaker.state(now), State::Closed);
    }

    /// Over any schedule: every call that is admitted while the breaker is not closed is a probe. No more probes are
    /// under way than successes are needed, and a refusal tells the exact time until the next probe.
    #[test]
    fn open_means_no_call_but_probes(
        settings in any_settings(), jitter in 0..=100u32, seed in any::<u64>(),
        schedule in prop::collection::vec((0..3_000u64, 0..10u8, any::<prop::sample::Index>()), 1..300),
    ) {
        let settings = BreakerSettings { jitter: Ratio::from_millionths(jitter * 10_000).unwrap(), ..settings };
        let breaker = Arc::new(Breaker::seeded(settings, seed));
        let (mut now, mut under_way) = (Moment::ZERO, vec![]);
        for (pause, choice, which) in schedule {
            now = now + ms(pause);
            let before = breaker.state(now);
            if choice < 6 || under_way.is_empty() {
                match breaker.admit(now) {
                    Ok(permit) => {
                        prop_assert_ne!(before, State::Open);
                        prop_assert_eq!(permit.is_probe(), before == State::HalfOpen);
                        under_way.push(permit);
                    }
                    Err(Open { retry_in, .. }) if before == State::Open => {
                        let nanosecond = Duration::from_nanos(1);
                        prop_assert_eq!(breaker.state(now + (retry_in - nanosecond)), State::Open);
                        prop_assert_eq!(breaker.state(now + retry_in), State::HalfOpen);
                        prop_assert!(retry_in <= settings.open_for.max(settings.open_for_max) * 2);
                    }
                    Err(open) => {
                        prop_assert_eq!(before, State::HalfOpen);
                        prop_assert_eq!(open.retry_in, Duration::ZERO);
                    }
                }
            } else {
                let permit = under_way.swap_remove(which.index(under_way.len()));
                let took = ms(1);
                let outcome = if choice < 9 { Outcome::Failure { took } } else { Outcome::Success { took } };
                breaker.record(permit, outcome, now);
            }
            let counts = breaker.counts(now);
            prop_assert!(counts.probes_under_way + counts.probe_successes <= settings.probes.get());
        }
    }

    /// Deadlines that callers made short and calls that callers broke off are ignored, also among successes.
    #[test]
    fn what_callers_do_cannot_open_it(
        settings in any_settings(),
        schedule in prop::collection::vec((0..3_000u64, 0..3u8), 1..300),
    ) {
        let settings = BreakerSettings { slow: None, ..settings };
        let breaker = Arc::new(Breaker::new(settings));
        let mut now = Moment::ZERO;
        for (pause, choice) in schedule {
            now = now + ms(pause);
            let permit = breaker.admit(now);
            prop_assert!(permit.is_ok(), "{:?}", breaker.counts(now));
            let changed = match (permit.unwrap(), choice) {
                (permit, 0) => breaker.record(permit, Outcome::Ignored, now),
                (permit, 1) => { drop(permit); None }
                (permit, _) => breaker.record(permit, Outcome::Success { took: ms(pause) }, now),
            };
            prop_assert_eq!(changed, None);
            prop_assert_eq!(breaker.state(now), State::Closed);
        }
    }
}

#[test]
fn the_state_of_another_process_goes_on() {
    let old = Arc::new(Breaker::new(settings()));
    assert_eq!(old.saved(), None);
    for _ in 0..4 {
        let permit = old.admit(at(0)).unwrap();
        old.record(permit, Outcome::Failure { took: ms(1) }, at(0));
    }
    let restored = |saved: Option<SavedBreaker>, now| {
        let new = Arc::new(Breaker::new(settings()));
        let changed = new.restore(saved.unwrap(), at(now)).unwrap();
        assert_eq!(changed.from, State::Closed);
        new
    };
    let new = restored(old.saved(), 1_000);
    assert_eq!(new.admit(at(1_000)).err().map(|open| open.retry_in), Some(ms(4_000)));
    assert_eq!(
        (new.state(at(4_999)), new.state(at(5_000))),
        (State::Open, State::HalfOpen)
    );
    assert_eq!((new.cause(), new.saved()), (old.cause(), old.saved()));
    // A probe is under way in the old process, and fails there too late for the new one.
    let probe = old.admit(at(5_000)).unwrap();
    let new = restored(old.saved(), 5_000);
    old.record(probe, Outcome::Failure { took: ms(1) }, at(5_001));
    assert!(new.admit(at(5_000)).is_ok_and(|permit| permit.is_probe()));
    for (forced, state) in [
        (ForcedState::Open, State::ForcedOpen),
        (ForcedState::Closed, State::ForcedClosed),
    ] {
        old.force(forced, at(6_000));
        assert_eq!(restored(old.saved(), 6_000).state(at(6_000)), state);
    }
}
