//! Explores the protocol by which replicas lease tokens: every order of every step of a few replicas, with messages that
//! are delayed, doubled, overtaken and lost, processes that are killed, and a store that forgets.
//!
//! Each invariant is checked in every state. That the checks can fail is shown by mistakes planted into the protocol,
//! each of which must be found.

mod explorer;
mod monitors;
mod quota;
mod slots;
mod world;

use explorer::{Found, Visited, explore};
use monitors::{BucketMonitor, QuotaMonitor, WindowMonitor};
use policies::lease::{CentralBucket, CentralQuota, CentralWindow, LeaseTerms};
use policies::{CalendarQuota, Every, Quota, Ratio, WindowQuota};
use std::time::Duration;
use world::{Bug, Chances, Setting};

const SECOND: Duration = Duration::from_secs(1);
const NONE: Chances = Chances {
    requests: 0,
    copies: 0,
    crashes: 0,
    flushes: 0,
    failovers: 0,
    refunds: 0,
};

/// Returns terms by which the whole of a small limit may be on lease, for two ticks.
fn terms(burst: u64, tick: Duration) -> LeaseTerms {
    LeaseTerms::new(burst, Ratio::ONE, 2 * tick).unwrap()
}

/// Returns a bucket of two tokens that earns one each tick.
fn bucket(replicas: u64, horizon: u64, chances: Chances) -> Setting<CentralBucket> {
    Setting {
        terms: terms(2, SECOND),
        new_count: || CentralBucket::full(&Quota::new(1, SECOND, 2).unwrap()),
        replicas,
        tick: SECOND,
        start: 0,
        horizon,
        chances,
        bug: None,
    }
}

/// Asserts that no invariant was broken, and reports the number of states.
fn report(name: &str, result: Result<Visited, Found>) {
    let Visited { states, steps, depth } = result.unwrap_or_else(|found| {
        let Found {
            invariant,
            steps,
            state,
        } = found;
        panic!("not so: {invariant}\nafter {steps:#?}\nin {state}")
    });
    let name = format!("lease: {name} ({steps} steps, at most {depth} in one run)");
    cases::report("states", &name, states);
}

fn holds(name: &str, setting: &Setting<CentralBucket>) {
    report(name, explore(setting, BucketMonitor::default()));
}

#[test]
fn tune() {
    let Ok(numbers) = std::env::var("TUNE") else { return };
    let n: Vec<u64> = numbers.split(',').map(|n| n.parse().unwrap()).collect();
    let chances = Chances {
        requests: n[2],
        copies: n[3] as u8,
        crashes: n[4] as u8,
        flushes: n[5] as u8,
        failovers: n[6] as u8,
        refunds: n[7] as u8,
    };
    holds(&format!("TUNE {numbers}"), &bucket(n[0], n[1], chances));
}

#[test]
fn two_replicas_and_messages_that_are_doubled() {
    let chances = Chances {
        requests: 3,
        copies: 1,
        ..NONE
    };
    holds("two replicas, a doubled message", &bucket(2, 3, chances));
}

#[test]
fn three_replicas() {
    let chances = Chances {
        requests: 1,
        copies: 1,
        ..NONE
    };
    holds("three replicas", &bucket(3, 2, chances));
}

#[test]
fn a_replica_that_is_killed_and_started_again() {
    let chances = Chances {
        requests: 2,
        copies: 1,
        crashes: 1,
        ..NONE
    };
    holds("two replicas, one killed", &bucket(2, 3, chances));
}

#[test]
fn a_store_that_forgets() {
    let chances = Chances {
        requests: 2,
        copies: 1,
        flushes: 1,
        ..NONE
    };
    holds("two replicas, the store forgets", &bucket(2, 3, chances));
}

#[test]
fn a_store_that_loses_its_last_writes() {
    let chances = Chances {
        requests: 3,
        failovers: 1,
        ..NONE
    };
    holds("two replicas, the store goes back", &bucket(2, 3, chances));
}

#[test]
fn refunds() {
    let chances = Chances {
        requests: 2,
        refunds: 2,
        copies: 1,
        ..NONE
    };
    holds("two replicas, refunds", &bucket(2, 3, chances));
}

#[test]
fn a_sliding_window() {
    let setting = Setting {
        terms: terms(3, SECOND),
        new_count: || CentralWindow::new(&WindowQuota::new(3, 2 * SECOND).unwrap()),
        replicas: 2,
        tick: SECOND,
        start: 0,
        horizon: 4,
        chances: Chances {
            requests: 3,
            copies: 0,
            crashes: 1,
            ..NONE
        },
        bug: None,
    };
    report("a sliding window", explore(&setting, WindowMonitor::new(2)));
}

/// The minute ends in the middle of a run.
#[test]
fn a_calendar_quota() {
    let setting = Setting {
        terms: terms(3, Duration::from_secs(15)),
        new_count: || CentralQuota::new(CalendarQuota::new(3, Every::Minute).unwrap()),
        replicas: 2,
        tick: Duration::from_secs(15),
        start: 2,
        horizon: 4,
        chances: Chances {
            requests: 3,
            copies: 0,
            crashes: 1,
            ..NONE
        },
        bug: None,
    };
    report("a calendar quota", explore(&setting, QuotaMonitor::default()));
}

/// Plants a mistake; returns the invariant that was broken.
fn find(bug: Bug) -> &'static str {
    let chances = Chances {
        requests: 3,
        copies: 1,
        refunds: 1,
        ..NONE
    };
    let setting = Setting {
        bug: Some(bug),
        ..bucket(2, 4, chances)
    };
    match explore(&setting, BucketMonitor::default()) {
        Err(found) => found.invariant,
        Ok(visited) => panic!("{bug:?} was not found: {visited:?}"),
    }
}

#[test]
fn finds_a_return_that_is_credited_twice() {
    find(Bug::CreditTwice);
}

#[test]
fn finds_a_lease_that_is_spent_after_its_expiry() {
    assert_eq!(
        find(Bug::SpendAfterExpiry),
        "tokens are spent before the store takes the lease for ended"
    );
}

#[test]
fn finds_a_lease_that_counts_from_the_answer() {
    assert_eq!(
        find(Bug::ExpiryFromAnswer),
        "tokens are spent before the store takes the lease for ended"
    );
}

#[test]
fn finds_a_refund_to_a_lease_that_was_returned() {
    find(Bug::RefundAfterReturn);
}

#[test]
fn finds_an_answer_that_is_applied_twice() {
    find(Bug::ApplyTwice);
}

#[test]
fn finds_a_return_of_what_is_still_held() {
    find(Bug::ReturnAndKeep);
}
