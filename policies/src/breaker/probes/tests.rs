use super::*;
use crate::breaker::{Breaker, BreakerSettings, Cause, Open, Outcome, Permit, State, Why};
use crate::moment::Moment;
use proptest::prelude::*;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

const SUCCESS: Outcome = Outcome::Success { took: Duration::ZERO };
const FAILURE: Outcome = Outcome::Failure { took: Duration::ZERO };

fn at(seconds: u64) -> Moment {
    Moment::ZERO + Duration::from_secs(seconds)
}

/// Returns a breaker that becomes half-open at second 1, with this many places.
fn breaker(places: u32) -> Arc<Breaker> {
    let breaker = Arc::new(Breaker::new(BreakerSettings {
        consecutive: Some(NonZeroU32::MIN),
        open_for: Duration::from_secs(1),
        probes: NonZeroU32::new(places).unwrap(),
        ..BreakerSettings::default()
    }));
    let permit = breaker.admit(at(0)).unwrap();
    breaker.record(permit, FAILURE, at(0));
    breaker
}

fn whole(breaker: &Arc<Breaker>, tenant: u64) -> Result<Permit, Why> {
    let is_whole = true;
    let foreseen = breaker.foresee(Asker { tenant, is_whole }, at(1));
    let admitted = breaker.admit_from(Asker { tenant, is_whole }, at(1));
    assert_eq!(admitted.as_ref().map(Permit::is_probe).map_err(|open| *open), foreseen);
    admitted.map_err(|Open { why, .. }| why)
}

fn unfinished(breaker: &Arc<Breaker>, tenant: u64) -> Result<Permit, Why> {
    let is_whole = false;
    let foreseen = breaker.foresee(Asker { tenant, is_whole }, at(1));
    let admitted = breaker.admit_from(Asker { tenant, is_whole }, at(1));
    assert_eq!(admitted.as_ref().map(Permit::is_probe).map_err(|open| *open), foreseen);
    admitted.map_err(|Open { why, .. }| why)
}

/// Returns the number of probes with a place, and of probes without one.
fn under_way(breaker: &Breaker) -> (u32, u32) {
    let counts = breaker.counts(at(1));
    (counts.probes_under_way, counts.probes_without_place)
}

#[test]
fn no_tenant_keeps_two_places_from_one_that_has_none() {
    let breaker = breaker(3);
    let mut own: Vec<_> = (0..3).map(|_| whole(&breaker, 1).unwrap()).collect();
    assert_eq!(whole(&breaker, 1).unwrap_err(), Why::ProbesUnderWay);
    let second = whole(&breaker, 2).unwrap();
    assert_eq!(under_way(&breaker), (3, 1));
    assert_eq!(whole(&breaker, 2).unwrap_err(), Why::ProbesUnderWay);
    let third = whole(&breaker, 3).unwrap();
    assert_eq!(under_way(&breaker), (3, 2));
    // Each of these tenants has one.
    for tenant in 1..=4 {
        assert_eq!(whole(&breaker, tenant).unwrap_err(), Why::ProbesUnderWay, "{tenant}");
    }
    // The oldest probe has kept its place; the probes that lost theirs have none to give back.
    own.drain(1..);
    assert_eq!(under_way(&breaker), (3, 0));
    drop(own);
    assert_eq!(under_way(&breaker), (2, 0));
    let fourth = whole(&breaker, 4).unwrap();
    drop((second, third, fourth));
    assert_eq!(under_way(&breaker), (0, 0));
}

#[test]
fn a_long_probe_does_not_stand_in_the_way_of_the_last_success() {
    let breaker = breaker(3);
    let long = whole(&breaker, 1).unwrap();
    assert_eq!(breaker.cause(), Some(Cause::OpenTimeOver));
    for state in [State::HalfOpen, State::HalfOpen, State::Closed] {
        let quick = whole(&breaker, 2).unwrap();
        breaker.record(quick, SUCCESS, at(1));
        assert_eq!(breaker.state(at(1)), state);
    }
    assert_eq!(breaker.cause(), Some(Cause::ProbesSucceeded));
    // A late result changes nothing.
    assert_eq!(breaker.record(long, FAILURE, at(1)), None);
    assert_eq!(breaker.state(at(1)), State::Closed);
}

#[test]
fn a_probe_that_has_lost_its_place_counts() {
    let lost = || {
        let breaker = breaker(2);
        let own = [whole(&breaker, 1).unwrap(), whole(&breaker, 1).unwrap()];
        let other = whole(&breaker, 2).unwrap();
        (breaker, own, other)
    };
    let (breaker, [_first, second], _other) = lost();
    breaker.record(second, FAILURE, at(1));
    assert_eq!(breaker.state(at(1)), State::Open);
    let (breaker, [_first, second], other) = lost();
    breaker.record(second, SUCCESS, at(1));
    assert_eq!(under_way(&breaker), (2, 0));
    breaker.record(other, SUCCESS, at(1));
    assert_eq!(breaker.state(at(1)), State::Closed);
}

#[test]
fn what_its_caller_has_not_finished_takes_no_place() {
    let breaker = breaker(2);
    let own = [unfinished(&breaker, 1).unwrap(), unfinished(&breaker, 1).unwrap()];
    assert_eq!(breaker.state(at(1)), State::HalfOpen);
    assert_eq!(unfinished(&breaker, 1).unwrap_err(), Why::OwnProbesUnderWay);
    let other = unfinished(&breaker, 2).unwrap();
    assert_eq!(under_way(&breaker), (0, 3));
    let probes = [whole(&breaker, 1).unwrap(), whole(&breaker, 3).unwrap()];
    assert_eq!(under_way(&breaker), (2, 3));
    assert!(other.is_probe());
    drop(other);
    assert_eq!(under_way(&breaker), (2, 2));
    // Probes without a place count like all others.
    let [first, second] = own;
    breaker.record(first, SUCCESS, at(1));
    assert_eq!(under_way(&breaker), (2, 1));
    breaker.record(second, SUCCESS, at(1));
    assert_eq!(breaker.state(at(1)), State::Closed);
    drop(probes);
    let opening = breaker.admit(at(1)).unwrap();
    breaker.record(opening, FAILURE, at(1));
    let failing = breaker
        .admit_from(
            Asker {
                tenant: 1,
                is_whole: false,
            },
            at(2),
        )
        .unwrap();
    breaker.record(failing, FAILURE, at(2));
    assert_eq!(breaker.state(at(2)), State::Open);
}

#[test]
fn why_nothing_is_let_through_is_said() {
    let why = |breaker: &Arc<Breaker>| breaker.admit(at(0)).unwrap_err().why;
    let breaker = breaker(1);
    assert_eq!(why(&breaker), Why::Open);
    assert_eq!(breaker.cause(), Some(Cause::ConsecutiveFailures));
    breaker.force(crate::breaker::ForcedState::Open, at(0));
    assert_eq!(why(&breaker), Why::ForcedOpen);
    assert_eq!(breaker.cause(), Some(Cause::Forced));
    breaker.unforce(at(0));
    assert_eq!(breaker.cause(), Some(Cause::Unforced));
    assert_eq!(Breaker::new(BreakerSettings::default()).cause(), None);
}

proptest! {
    #![proptest_config(cases::counted())]

    /// Over any schedule of tenants: no more probes have a place than the limit. A tenant without a place is refused
    /// only while every place belongs to a different tenant.
    #[test]
    fn a_tenant_without_a_place_is_refused_only_by_as_many_others(
        places in 1..5u32,
        schedule in prop::collection::vec((0..6u64, 0..6u8, any::<prop::sample::Index>()), 1..200),
    ) {
        let breaker = breaker(places);
        let mut held: Vec<(u64, Permit)> = vec![];
        for (tenant, choice, which) in schedule {
            if choice < 3 || held.is_empty() {
                let has_none = |tenant| !breaker.probes.lock().unwrap().has_place(breaker.word().generation(), tenant);
                let had_none = has_none(tenant);
                match whole(&breaker, tenant) {
                    Ok(permit) => held.push((tenant, permit)),
                    Err(why) => {
                        prop_assert_eq!(why, Why::ProbesUnderWay);
                        if had_none {
                            let others = (0..6).filter(|tenant| !has_none(*tenant)).count();
                            prop_assert_eq!(others as u32, places);
                        }
                    }
                }
            } else if choice < 4 {
                held.extend(unfinished(&breaker, tenant).ok().map(|permit| (tenant, permit)));
            } else {
                let (_, permit) = held.swap_remove(which.index(held.len()));
                if choice == 4 {
                    drop(permit);
                } else if breaker.counts(at(1)).probe_successes + 1 < places {
                    breaker.record(permit, SUCCESS, at(1));
                }
            }
            let (with, without) = under_way(&breaker);
            prop_assert!(with <= places);
            prop_assert_eq!((with + without) as usize, held.len());
        }
    }
}
