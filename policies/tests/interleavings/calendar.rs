//! Checks that takes, refunds and a reload of one usage around the turn of its period have the effect of some sequence:
//! a period begins once, and nothing is used, given back or carried over twice.

use super::explore_orders;
use policies::{CalendarQuota, Every, Usage, WallTime};
use std::time::Duration;

fn quota(every: Every) -> CalendarQuota {
    CalendarQuota::new(3, every).unwrap()
}

/// Seconds of a time just before the first hour ends.
const BEFORE: u64 = 3_599;
const AFTER: u64 = 3_601;

fn at(seconds: u64) -> WallTime {
    WallTime::since_epoch(Duration::from_secs(seconds))
}

/// Returns a usage of this many tokens in the first hour.
fn used(count: u64) -> Usage {
    let usage = Usage::new();
    usage.take(&quota(Every::Hour), at(BEFORE), count).unwrap();
    usage
}

fn take(usage: &Usage, now: u64, cost: u64) -> Option<u64> {
    let taken = usage.take(&quota(Every::Hour), at(now), cost);
    taken.ok().map(|balance| balance.tokens)
}

#[test]
fn the_last_of_a_period_is_taken_once() {
    explore_orders::<Usage, _>(
        "calendar: three takings of too little",
        || used(1),
        &[|u| take(u, BEFORE, 2), |u| take(u, BEFORE, 1), |u| take(u, BEFORE, 1)],
        |u| Some(u.used(&quota(Every::Hour), at(BEFORE))),
    );
}

#[test]
fn a_period_begins_once() {
    explore_orders::<Usage, _>(
        "calendar: takings on both sides of the turn",
        || used(3),
        &[|u| take(u, AFTER, 2), |u| take(u, AFTER, 2), |u| take(u, BEFORE, 1)],
        |u| Some(u.used(&quota(Every::Hour), at(AFTER))),
    );
}

#[test]
fn a_refund_of_the_period_before_gives_nothing_to_the_next() {
    explore_orders::<Usage, _>(
        "calendar: a late refund beside a taking after the turn",
        || used(2),
        &[
            |u| Some(u.refund(&quota(Every::Hour), at(AFTER), at(BEFORE), 2).tokens),
            |u| take(u, AFTER, 2),
            |u| Some(u.refund(&quota(Every::Hour), at(BEFORE), at(BEFORE), 1).tokens),
        ],
        |u| Some(u.used(&quota(Every::Hour), at(AFTER))),
    );
}

#[test]
fn a_restore_beside_takings_adds_up() {
    explore_orders::<Usage, _>(
        "calendar: a restored state beside two takings",
        Usage::new,
        &[
            |u| {
                let saved = policies::calendar::Saved { since: at(0), used: 2 };
                u.restore(&quota(Every::Hour), at(BEFORE), saved);
                None
            },
            |u| take(u, BEFORE, 1),
            |u| take(u, BEFORE, 1),
        ],
        |u| Some(u.used(&quota(Every::Hour), at(BEFORE))),
    );
}

#[test]
fn a_reload_beside_takings_carries_them_over() {
    explore_orders::<Usage, _>(
        "calendar: a carrying over beside a taking and a refund",
        || used(1),
        &[
            |u| {
                u.carry_over(&quota(Every::Hour), &quota(Every::Day), at(BEFORE));
                None
            },
            |u| take(u, BEFORE, 1),
            |u| Some(u.refund(&quota(Every::Hour), at(BEFORE), at(BEFORE), 1).tokens),
        ],
        |u| Some(u.used(&quota(Every::Day), at(BEFORE))),
    );
}
