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
        consecutive: None,
        open_for: ms(5_000),
        probes: NonZeroU32::new(2).unwrap(),
    }
}

enum Do {
    Admit(&'static str),
    /// Refused, and told to come back in so many ms.
    Refused(u64),
    Succeed(&'static str),
    /// A success that took so many ms.
    Take(&'static str, u64),
    Fail(&'static str),
    Ignore(&'static str),
    Drop(&'static str),
    /// A call that was judged already fails.
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
                breaker.admit(now).err(),
                Some(Open { retry_in: ms(*wait) }),
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

/// Rows in which every call is made and ends at once, at 0 ms.
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
    // A probe that outlives its generation, dropped, does not free a place in a later one.
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
    // A shorter open time holds at once.
    breaker.reconfigure(
        BreakerSettings {
            open_for: ms(100),
            ..settings()
        },
        at(21_000),
    );
    assert_eq!(breaker.admit(at(21_000)).err(), Some(Open { retry_in: ms(100) }));
    // Fewer probes than have succeeded already: one more success closes it.
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

/// The same rules on lists and plain fields.
struct Naive {
    settings: BreakerSettings,
    state: State,
    generation: u64,
    open_until: u64,
    /// (slice, failed, slow)
    results: Vec<(u64, bool, bool)>,
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

    /// The generation, and whether it is a probe.
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

    /// `None` for an outcome that says nothing.
    fn end(&mut self, (generation, probe): (u64, bool), failed_took: Option<(bool, u64)>, now: u64) {
        if generation != self.generation {
            return;
        }
        self.probes -= u32::from(probe);
        let Some((failed, took)) = failed_took else { return };
        let slow = self.settings.slow.is_some_and(|slow| ms(took) > slow.over);
        self.results.push((now / 1_000, failed, slow));
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
        self.become_(State::Open);
        self.open_until = now + self.settings.open_for.as_millis() as u64;
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
                    || self.settings.slow.is_some_and(|settings| reaches(slow, settings.ratio)))
    }
}

fn any_settings() -> impl Strategy<Value = BreakerSettings> {
    let ratio = || (0..=100u32).prop_map(|percent| Ratio::from_millionths(percent * 10_000).unwrap());
    let slow = prop::option::of(ratio().prop_map(|ratio| SlowCalls { over: ms(50), ratio }));
    (
        0..12u32,
        prop::option::of(ratio()),
        slow,
        0..12u32,
        0..20_000u64,
        1..5u32,
    )
        .prop_map(
            |(min_calls, failure_ratio, slow, consecutive, open_for, probes)| BreakerSettings {
                window: ms(16_000),
                min_calls,
                failure_ratio,
                slow,
                consecutive: NonZeroU32::new(consecutive),
                open_for: ms(open_for),
                probes: NonZeroU32::new(probes).unwrap(),
            },
        )
}

proptest! {
    #[test]
    fn does_as_the_plain_rules_say(
        settings in any_settings(),
        schedule in prop::collection::vec((0..2_000u64, 0..10u8, any::<prop::sample::Index>(), 0..100u64), 1..300),
    ) {
        let breaker = Arc::new(Breaker::new(settings));
        let mut naive = Naive {
            settings, state: State::Closed, generation: 0, open_until: 0, results: vec![], probes: 0, successes: 0,
        };
        let (mut now, mut under_way) = (0, vec![]);
        for (pause, choice, which, took) in schedule {
            now += pause;
            if choice < 5 || under_way.is_empty() {
                let admitted = naive.admit(now);
                let permit = breaker.admit(at(now));
                prop_assert_eq!(permit.is_ok(), admitted.is_some());
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
        settings in any_settings(),
        schedule in prop::collection::vec((0..30_000u64, any::<bool>()), 0..100),
    ) {
        let breaker = Arc::new(Breaker::new(settings));
        // Random times, forwards and backwards, with every call failing or vanishing.
        for (instant, vanishes) in schedule {
            if let Ok(permit) = breaker.admit(at(instant)) {
                let outcome = if vanishes { Outcome::Ignored } else { Outcome::Failure { took: ms(1) } };
                breaker.record(permit, outcome, at(instant));
            }
        }
        // Later than any open time and any window.
        let now = at(60_000);
        for _ in 0..settings.probes.get() {
            let permit = breaker.admit(now).unwrap();
            breaker.record(permit, Outcome::Success { took: ms(1) }, now);
        }
        prop_assert_eq!(breaker.state(now), State::Closed);
    }
}
