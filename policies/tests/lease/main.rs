//! Explores the protocol by which replicas lease tokens: every order of every step of a few replicas, with messages
//! that are delayed, doubled, overtaken and lost, processes that are killed, and a store that forgets.
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
    drains: 0,
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

/// Returns the second number in an optimised build, as for `make prove`, else the first.
const fn scaled<T: Copy>(test: T, proof: T) -> T {
    if cfg!(debug_assertions) { test } else { proof }
}

#[test]
fn messages_that_are_doubled() {
    let chances = Chances {
        requests: scaled(1, 2),
        copies: 1,
        ..NONE
    };
    holds("messages twice", &bucket(2, 3, chances));
}

#[test]
fn renewals() {
    let chances = Chances {
        requests: scaled(2, 3),
        ..NONE
    };
    holds("renewals", &bucket(2, 2, chances));
}

/// The store forgets a replica after four ticks.
#[test]
fn messages_that_come_when_the_replica_is_forgotten() {
    let chances = Chances {
        requests: 1,
        copies: scaled(0, 1),
        ..NONE
    };
    holds("late messages", &bucket(2, 5, chances));
}

#[test]
fn three_replicas() {
    let chances = Chances { requests: 1, ..NONE };
    holds("three replicas", &bucket(3, scaled(1, 2), chances));
}

#[test]
fn a_replica_that_is_killed_and_started_again() {
    let chances = Chances {
        requests: scaled(1, 2),
        crashes: 1,
        ..NONE
    };
    holds("a replica is killed", &bucket(2, 2, chances));
}

#[test]
fn a_store_that_forgets() {
    let chances = Chances {
        requests: scaled(1, 2),
        flushes: 1,
        ..NONE
    };
    holds("the store forgets", &bucket(2, 2, chances));
}

#[test]
fn a_store_that_loses_its_last_writes() {
    let chances = Chances {
        requests: 1,
        failovers: 1,
        drains: 1,
        ..NONE
    };
    holds("the store goes back", &bucket(2, 2, chances));
}

#[test]
fn refunds_and_drains() {
    let chances = Chances {
        requests: scaled(1, 2),
        refunds: 1,
        drains: 1,
        ..NONE
    };
    holds("refunds and drains", &bucket(2, 2, chances));
}

/// Returns a window of two ticks with three tokens.
fn window(horizon: u64, chances: Chances) -> Setting<CentralWindow> {
    Setting {
        terms: terms(3, SECOND),
        new_count: || CentralWindow::new(&WindowQuota::new(3, 2 * SECOND).unwrap()),
        replicas: 2,
        tick: SECOND,
        start: 0,
        horizon,
        chances,
        bug: None,
    }
}

#[test]
fn a_sliding_window() {
    let chances = Chances {
        requests: scaled(1, 2),
        ..NONE
    };
    let result = explore(&window(3, chances), WindowMonitor::new(2));
    report("a sliding window", result);
}

/// Returns a quota of three tokens a minute, which ends after two ticks.
fn quota(horizon: u64, chances: Chances) -> Setting<CentralQuota> {
    let tick = Duration::from_secs(15);
    Setting {
        terms: terms(3, tick),
        new_count: || CentralQuota::new(CalendarQuota::new(3, Every::Minute).unwrap()),
        replicas: 2,
        tick,
        start: 2,
        horizon,
        chances,
        bug: None,
    }
}

#[test]
fn a_calendar_quota() {
    let chances = Chances {
        requests: scaled(1, 2),
        ..NONE
    };
    let result = explore(&quota(3, chances), QuotaMonitor::default());
    report("a calendar quota", result);
}

/// Plants a mistake into a world of one replica; returns the invariant that was broken.
fn find(bug: Bug, monitor: BucketMonitor, chances: Chances) -> &'static str {
    let setting = Setting {
        bug: Some(bug),
        ..bucket(1, 3, chances)
    };
    match explore(&setting, monitor) {
        Err(found) => found.invariant,
        Ok(visited) => panic!("{bug:?} was not found: {visited:?}"),
    }
}

const SUM: &str = "in any stretch t: admitted <= burst + rate x t + on lease when it began";
const ENDED: &str = "tokens are spent before the store takes the lease for ended";

#[test]
fn finds_a_return_that_is_credited_twice() {
    let chances = Chances {
        requests: 3,
        copies: 1,
        drains: 1,
        ..NONE
    };
    find(Bug::CreditTwice, BucketMonitor::default(), chances);
}

#[test]
fn finds_a_return_of_what_is_still_held() {
    let chances = Chances {
        requests: 3,
        drains: 1,
        ..NONE
    };
    assert_eq!(find(Bug::ReturnAndKeep, BucketMonitor::of_the_sum(), chances), SUM);
    find(Bug::ReturnAndKeep, BucketMonitor::default(), chances);
}

#[test]
fn finds_an_answer_that_is_applied_twice() {
    let chances = Chances {
        requests: 1,
        copies: 1,
        ..NONE
    };
    assert_eq!(find(Bug::ApplyTwice, BucketMonitor::of_the_sum(), chances), SUM);
    find(Bug::ApplyTwice, BucketMonitor::default(), chances);
}

#[test]
fn finds_a_lease_that_is_spent_after_its_expiry() {
    find(
        Bug::SpendAfterExpiry,
        BucketMonitor::default(),
        Chances { requests: 1, ..NONE },
    );
}

#[test]
fn finds_a_lease_that_counts_from_the_answer() {
    find(
        Bug::ExpiryFromAnswer,
        BucketMonitor::default(),
        Chances { requests: 1, ..NONE },
    );
}

#[test]
fn finds_a_refund_to_a_lease_that_was_returned() {
    let chances = Chances {
        requests: 1,
        refunds: 1,
        ..NONE
    };
    let found = find(Bug::RefundAfterReturn, BucketMonitor::default(), chances);
    assert_eq!(found, ENDED);
}
