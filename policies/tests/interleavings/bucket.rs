//! Checks that concurrent takes, refunds, charges and a rescale of one bucket have the effect of some sequence. In
//! particular no token is handed out twice, and none is lost.

use super::{at, explore_orders};
use policies::{Bucket, Quota};
use std::time::Duration;

/// Returns a quota of `burst` tokens that earns one token a second.
fn quota(burst: u64) -> Quota {
    Quota::new(1, Duration::from_secs(1), burst).unwrap()
}

/// Returns a bucket of burst 4 with this many tokens left.
fn holding(tokens: u64) -> Bucket {
    let bucket = Bucket::full();
    bucket.take(&quota(4), at(0), 4 - tokens).unwrap();
    bucket
}

/// Returns the tokens left after a take; `None` if it was refused.
fn take(bucket: &Bucket, now: u64, cost: u64) -> Option<u64> {
    bucket.take(&quota(4), at(now), cost).ok().map(|balance| balance.tokens)
}

fn look(bucket: &Bucket) -> Option<u64> {
    Some(bucket.balance(&quota(4), at(0)))
}

#[test]
fn takings_never_exceed_the_burst() {
    explore_orders::<Bucket, _>(
        "bucket: three takings of too little",
        || holding(3),
        &[
            |bucket| take(bucket, 0, 2),
            |bucket| take(bucket, 0, 1),
            |bucket| take(bucket, 0, 1),
        ],
        look,
    );
}

#[test]
fn takings_on_clocks_that_disagree_never_exceed_what_was_earned() {
    explore_orders::<Bucket, _>(
        "bucket: takings at different times",
        || holding(0),
        &[
            |bucket| take(bucket, 1_000, 1),
            |bucket| take(bucket, 2_000, 1),
            |bucket| take(bucket, 0, 1),
        ],
        |bucket| Some(bucket.balance(&quota(4), at(3_000))),
    );
}

#[test]
fn a_refund_beside_takings_gives_one_token_to_one_of_them() {
    explore_orders::<Bucket, _>(
        "bucket: a refund beside two takings",
        || holding(0),
        &[
            |bucket| Some(bucket.refund(&quota(4), at(0), at(0), 1).tokens),
            |bucket| take(bucket, 0, 1),
            |bucket| take(bucket, 0, 1),
        ],
        look,
    );
}

#[test]
fn a_refund_beside_a_refund_stops_at_the_burst() {
    explore_orders::<Bucket, _>(
        "bucket: two refunds beside a taking",
        || holding(3),
        &[
            |bucket| Some(bucket.refund(&quota(4), at(0), at(0), 1).tokens),
            |bucket| Some(bucket.refund(&quota(4), at(0), at(0), 1).tokens),
            |bucket| take(bucket, 0, 2),
        ],
        look,
    );
}

#[test]
fn a_rescale_beside_takings_loses_neither() {
    explore_orders::<Bucket, _>(
        "bucket: a rescale beside a taking and a refund",
        || holding(2),
        &[
            |bucket| {
                bucket.rescale(&quota(4), &quota(8), at(0));
                None
            },
            |bucket| bucket.take(&quota(4), at(0), 1).ok().map(|_| 0),
            |bucket| {
                bucket.refund(&quota(8), at(0), at(0), 1);
                None
            },
        ],
        |bucket| Some(bucket.balance(&quota(8), at(0))),
    );
}

#[test]
fn a_charge_beside_takings_is_paid_in_full() {
    explore_orders::<Bucket, _>(
        "bucket: a charge into debt beside two takings",
        || holding(2),
        &[
            |bucket| Some(bucket.charge(&quota(4), at(0), 3).tokens),
            |bucket| take(bucket, 0, 1),
            |bucket| take(bucket, 0, 1),
        ],
        // The time until the next token shows debt too.
        |bucket| bucket.wait_for(&quota(4), at(0), 1).map(|wait| wait.as_secs()),
    );
}

#[test]
fn reservations_beside_a_taking_queue_up() {
    // Returns the wait in seconds; `None` if it would be too long.
    fn reserve(bucket: &Bucket) -> Option<u64> {
        let wait = bucket.reserve(&quota(4), at(0), 1, Duration::from_secs(2));
        wait.ok().map(|wait| wait.as_secs())
    }
    explore_orders::<Bucket, _>(
        "bucket: two reservations beside a refund",
        || holding(0),
        &[reserve, reserve, |bucket| {
            Some(bucket.refund(&quota(4), at(0), at(0), 1).tokens)
        }],
        |bucket| bucket.wait_for(&quota(4), at(0), 1).map(|wait| wait.as_secs()),
    );
}
