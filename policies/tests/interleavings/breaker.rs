//! Checks results, admissions, dropped probes and forcing of one breaker at once: each change of state happens once,
//! late results change nothing, and no place for a probe is lost or handed out twice.

use super::{at, explore, race};
use policies::Ratio;
use policies::breaker::{Asker, Breaker, BreakerSettings, Cause, ForcedState, Outcome, Permit, State, Transition};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SUCCESS: Outcome = Outcome::Success { took: Duration::ZERO };
const FAILURE: Outcome = Outcome::Failure { took: Duration::ZERO };

/// Breaker that opens for a second when all of at least two calls failed, then admits two probes. Every model fits in
/// one slice of the window, because each further slice multiplies the interleavings.
struct Subject {
    breaker: Arc<Breaker>,
    /// One permit for each thread.
    permits: Mutex<Vec<Permit>>,
}

fn closed() -> Subject {
    let breaker = Arc::new(Breaker::new(BreakerSettings {
        window: Duration::from_secs(1_600),
        min_calls: 2,
        failure_ratio: Some(Ratio::ONE),
        open_for: Duration::from_secs(1),
        probes: NonZeroU32::new(2).unwrap(),
        ..BreakerSettings::default()
    }));
    Subject {
        breaker,
        permits: Mutex::default(),
    }
}

/// Returns a breaker that opened at second zero.
fn open() -> Subject {
    let subject = closed();
    subject.admit(0, 2);
    subject.record(FAILURE, 0);
    assert!(subject.record(FAILURE, 0).is_some());
    subject
}

/// Returns a breaker that is half-open since second one, with this many probes under way.
fn half_open(probes: usize) -> Subject {
    let subject = open();
    subject.admit(1_000, probes);
    subject
}

impl Subject {
    fn admit(&self, now: u64, calls: usize) {
        for _ in 0..calls {
            self.permits.lock().unwrap().push(self.breaker.admit(at(now)).unwrap());
        }
    }

    fn permit(&self) -> Permit {
        self.permits.lock().unwrap().pop().unwrap()
    }

    fn record(&self, outcome: Outcome, now: u64) -> Option<Transition> {
        self.breaker.record(self.permit(), outcome, at(now))
    }

    /// Returns how many of `tried` admissions succeed now.
    fn places(&self, now: u64, tried: usize) -> usize {
        let admitted: Vec<_> = (0..tried).filter_map(|_| self.breaker.admit(at(now)).ok()).collect();
        admitted.len()
    }
}

/// Returns the reported changes as new state and cause, in the order of the threads.
fn told(results: Vec<Option<Transition>>) -> Vec<(State, Cause)> {
    results
        .into_iter()
        .flatten()
        .map(|change| (change.to, change.cause))
        .collect()
}

#[test]
fn two_failures_at_once_open_it_once() {
    explore("breaker: two failures race to open", || {
        let subject = Arc::new(closed());
        subject.admit(0, 2);
        let told = told(race(&subject, &[|s| s.record(FAILURE, 0), |s| s.record(FAILURE, 0)]));
        assert_eq!(told, [(State::Open, Cause::FailureRatio)]);
        assert_eq!(subject.breaker.state(at(999)), State::Open);
    });
}

#[test]
fn a_failure_that_lost_the_race_to_open_shows_in_nothing_later() {
    explore("breaker: either of two failures opens", || {
        let subject = closed();
        subject.admit(0, 3);
        subject.record(FAILURE, 0);
        let subject = Arc::new(subject);
        let told = told(race(&subject, &[|s| s.record(FAILURE, 0), |s| s.record(FAILURE, 0)]));
        assert_eq!(told, [(State::Open, Cause::FailureRatio)]);
        assert_eq!(subject.breaker.counts(at(0)).failures, 0);
        assert_eq!(subject.places(1_000, 3), 2);
    });
}

#[test]
fn a_late_result_does_not_touch_a_breaker_that_reopens() {
    explore("breaker: a stale success beside a reopening and an admission", || {
        let subject = closed();
        subject.admit(0, 3);
        subject.record(FAILURE, 0);
        subject.record(FAILURE, 0);
        let stale = subject.permits.lock().unwrap().pop();
        subject.admit(1_000, 1);
        subject.permits.lock().unwrap().insert(0, stale.unwrap());
        let subject = Arc::new(subject);
        let stale = subject.permits.lock().unwrap().remove(0);
        let late = {
            let breaker = Arc::clone(&subject.breaker);
            loom::thread::spawn(move || breaker.record(stale, SUCCESS, at(1_000)))
        };
        let results = race(
            &subject,
            &[
                |s| s.record(FAILURE, 1_000),
                |s| s.breaker.admit(at(1_000)).ok().and_then(|permit| permit.began()),
            ],
        );
        assert_eq!(late.join().unwrap(), None);
        assert_eq!(told(results), [(State::Open, Cause::ProbeFailed)]);
        let counts = subject.breaker.counts(at(1_000));
        assert_eq!((counts.calls, counts.probes_under_way), (0, 0));
        assert_eq!(subject.breaker.state(at(1_999)), State::Open);
        assert_eq!(subject.places(2_000, 3), 2);
    });
}

#[test]
fn a_probe_of_an_earlier_half_open_changes_nothing_in_a_later_one() {
    explore("breaker: a stale probe beside the probes of the next half-open", || {
        let subject = half_open(2);
        let stale = subject.permit();
        assert!(subject.record(FAILURE, 1_000).is_some());
        subject.admit(2_000, 1);
        subject.permits.lock().unwrap().insert(0, stale);
        let subject = Arc::new(subject);
        let results = race(
            &subject,
            &[
                |s| {
                    let stale = s.permits.lock().unwrap().remove(0);
                    s.breaker.record(stale, FAILURE, at(2_000))
                },
                |s| {
                    let probe = s.permits.lock().unwrap().pop().unwrap();
                    s.breaker.record(probe, SUCCESS, at(2_000))
                },
            ],
        );
        assert_eq!(told(results), []);
        let counts = subject.breaker.counts(at(2_000));
        assert_eq!((counts.probe_successes, counts.probes_under_way), (1, 0));
    });
}

#[test]
fn a_probe_of_an_earlier_half_open_gives_back_no_place_of_a_later_one() {
    explore("breaker: a stale probe dropped beside the next half-open", || {
        let subject = half_open(2);
        let stale = subject.permit();
        assert!(subject.record(FAILURE, 1_000).is_some());
        let subject = Arc::new(subject);
        let dropped = loom::thread::spawn(move || drop(stale));
        let admit = |s: &Subject| s.breaker.admit(at(2_000)).ok();
        let probes: Vec<_> = race(&subject, &[admit, admit]).into_iter().flatten().collect();
        dropped.join().unwrap();
        assert_eq!(probes.len(), 2);
        assert_eq!(subject.breaker.counts(at(2_000)).probes_under_way, 2);
        assert!(subject.breaker.admit(at(2_000)).is_err());
    });
}

#[test]
fn the_last_place_for_a_probe_is_given_once() {
    explore("breaker: three callers at the end of the open time", || {
        let subject = Arc::new(open());
        let admit = |s: &Subject| s.breaker.admit(at(1_000)).ok();
        let permits: Vec<_> = race(&subject, &[admit, admit, admit]).into_iter().flatten().collect();
        assert_eq!(permits.len(), 2);
        assert_eq!(permits.iter().filter(|permit| permit.began().is_some()).count(), 1);
        drop(permits);
        assert_eq!(subject.breaker.counts(at(1_000)).probes_under_way, 0);
    });
}

#[test]
fn a_dropped_probe_makes_room_beside_one_that_succeeds() {
    explore("breaker: a dropped probe beside a success and an admission", || {
        let subject = Arc::new(half_open(2));
        let results: Vec<Option<Permit>> = race(
            &subject,
            &[
                |s| {
                    drop(s.permit());
                    None
                },
                |s| {
                    assert_eq!(s.record(SUCCESS, 1_000), None);
                    None
                },
                |s| s.breaker.admit(at(1_000)).ok(),
            ],
        );
        let admitted: Vec<_> = results.into_iter().flatten().collect();
        let counts = subject.breaker.counts(at(1_000));
        assert_eq!(
            (counts.probes_under_way as usize, counts.probe_successes),
            (admitted.len(), 1)
        );
        drop(admitted);
        subject.admit(1_000, 1);
        let closed = subject.record(SUCCESS, 1_000);
        assert_eq!(told(vec![closed]), [(State::Closed, Cause::ProbesSucceeded)]);
    });
}

#[test]
fn the_last_two_successes_close_it_once() {
    explore("breaker: two probes succeed beside an admission", || {
        let subject = Arc::new(half_open(2));
        let results = race(
            &subject,
            &[
                |s| s.record(SUCCESS, 1_000),
                |s| s.record(SUCCESS, 1_000),
                |s| s.breaker.admit(at(1_000)).ok().and_then(|permit| permit.began()),
            ],
        );
        assert_eq!(told(results), [(State::Closed, Cause::ProbesSucceeded)]);
        assert_eq!(subject.breaker.counts(at(1_000)), Default::default());
    });
}

#[test]
fn of_a_success_and_a_failure_the_failure_reopens() {
    explore("breaker: a probe fails beside one that succeeds", || {
        let subject = Arc::new(half_open(2));
        let results = race(&subject, &[|s| s.record(SUCCESS, 1_000), |s| s.record(FAILURE, 1_000)]);
        assert_eq!(told(results), [(State::Open, Cause::ProbeFailed)]);
        assert_eq!(subject.breaker.state(at(1_999)), State::Open);
    });
}

#[test]
fn a_failure_does_not_undo_what_was_forced() {
    explore("breaker: forced closed beside the failure that opens it", || {
        let subject = closed();
        subject.admit(0, 2);
        subject.record(FAILURE, 0);
        let subject = Arc::new(subject);
        let results = race(
            &subject,
            &[
                |s| s.record(FAILURE, 0),
                |s| s.breaker.force(ForcedState::Closed, at(0)),
            ],
        );
        assert_eq!(results[1].map(|change| change.to), Some(State::ForcedClosed));
        // The state before forcing, as the change reports it, depends on whether the failure came first.
        let from = results[0].map_or(State::Closed, |change| change.to);
        assert_eq!(results[1].map(|change| change.from), Some(from));
        assert_eq!(subject.breaker.state(at(0)), State::ForcedClosed);
    });
}

#[test]
fn forcing_and_unforcing_beside_a_probe_leave_no_probe_behind() {
    explore("breaker: forced open and let go beside a probe", || {
        let subject = Arc::new(half_open(1));
        race(
            &subject,
            &[
                |s| {
                    s.breaker.force(ForcedState::Open, at(1_000));
                    s.breaker.unforce(at(1_000));
                },
                |s| drop(s.permit()),
                |s| drop(s.breaker.admit(at(1_000))),
            ],
        );
        assert_eq!(subject.breaker.state(at(1_000)), State::Closed);
        assert_eq!(subject.breaker.counts(at(1_000)), Default::default());
    });
}

#[test]
fn a_body_that_breaks_beside_the_last_success_is_in_time_or_too_late() {
    explore("breaker: a late failure beside the closing", || {
        let subject = half_open(2);
        let generation = subject.permits.lock().unwrap()[0].generation();
        assert_eq!(subject.record(SUCCESS, 1_000), None);
        let subject = Arc::new(subject);
        let breaker = Arc::clone(&subject.breaker);
        let late = loom::thread::spawn(move || breaker.late_failure(generation, at(1_000)));
        let closed = subject.record(SUCCESS, 1_000);
        let results = told(vec![closed, late.join().unwrap()]);
        let after = [
            (State::Closed, Cause::ProbesSucceeded),
            (State::Open, Cause::ProbeFailed),
        ];
        assert!(results.len() == 1 && after.contains(&results[0]), "{results:?}");
        assert_eq!(subject.breaker.state(at(1_000)), results[0].0);
        assert_eq!(subject.breaker.counts(at(1_000)).failures, 0);
    });
}

#[test]
fn an_open_time_made_shorter_beside_admissions_keeps_its_probes() {
    explore("breaker: a shorter open time beside two admissions", || {
        let subject = Arc::new(open());
        let admit = |s: &Subject| s.breaker.admit(at(500)).ok();
        let permits: Vec<_> = race(
            &subject,
            &[
                |s| {
                    let settings = BreakerSettings {
                        open_for: Duration::from_millis(100),
                        probes: NonZeroU32::MIN,
                        ..BreakerSettings::default()
                    };
                    s.breaker.reconfigure(settings, at(500));
                    None
                },
                admit,
                admit,
            ],
        );
        // However the new settings arrive, no call is admitted before the shorter time is over.
        assert!(permits.iter().all(Option::is_none));
        assert!(subject.breaker.admit(at(500)).is_err());
        assert!(subject.breaker.admit(at(599)).is_err());
        assert!(subject.breaker.admit(at(600)).is_ok_and(|permit| permit.is_probe()));
    });
}

#[test]
fn a_place_that_another_tenant_takes_over_is_one_place() {
    explore("breaker: another tenant asks beside the end of a probe", || {
        // One tenant holds both places.
        let subject = Arc::new(half_open(2));
        race(
            &subject,
            &[
                |s| {
                    let other = Asker {
                        tenant: 1,
                        is_whole: true,
                    };
                    let permit = s.breaker.admit_from(other, at(1_000)).expect("the others have two");
                    s.permits.lock().unwrap().insert(0, permit);
                },
                |s| drop(s.permit()),
            ],
        );
        let counts = subject.breaker.counts(at(1_000));
        let held = subject.permits.lock().unwrap().len() as u32;
        assert_eq!(counts.probes_under_way + counts.probes_without_place, held);
        assert!(counts.probes_under_way <= 2);
        subject.permits.lock().unwrap().clear();
        assert_eq!(subject.places(1_000, 3), 2);
    });
}
