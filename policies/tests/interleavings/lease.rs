//! Checks that spends, renewals, returns and refunds of one lease at once have the effect of some sequence: no token is
//! spent twice, spent and returned, or revived, and one caller is told to renew.

use super::{at, explore, explore_orders, race};
use policies::LeasedTokens;
use policies::lease::{Owed, Short};
use std::sync::Arc;

/// Returns this many tokens until 1 s, to be renewed at the last one.
fn leased(tokens: u64) -> LeasedTokens {
    let leased = LeasedTokens::new();
    leased.grant(at(0), tokens, at(1_000));
    leased.renew_at(1);
    leased
}

/// Returns the tokens left after a spend, and whether this caller must ask for more.
fn take(tokens: &LeasedTokens, now: u64, cost: u64) -> (Option<u64>, bool) {
    match tokens.take(at(now), cost) {
        Ok(spent) => (Some(spent.left), spent.renew),
        Err(Short::Ask { first }) => (None, first),
        Err(Short::Refused(_)) => (None, false),
    }
}

fn look(tokens: &LeasedTokens) -> (Option<u64>, bool) {
    let held = tokens.held();
    (Some(held.tokens), held.asked)
}

#[test]
fn the_last_tokens_are_spent_once_and_renewed_by_one() {
    explore_orders::<LeasedTokens, _>(
        "lease: three spends of too little",
        || leased(3),
        &[
            |tokens| take(tokens, 0, 2),
            |tokens| take(tokens, 0, 1),
            |tokens| take(tokens, 0, 1),
        ],
        look,
    );
}

#[test]
fn a_renewal_beside_spends_loses_neither() {
    explore_orders::<LeasedTokens, _>(
        "lease: a renewal beside two spends",
        || leased(1),
        &[
            |tokens| (Some(tokens.grant(at(500), 2, at(1_500))), false),
            |tokens| take(tokens, 500, 1),
            |tokens| take(tokens, 500, 2),
        ],
        look,
    );
}

#[test]
fn an_expired_lease_is_returned_or_renewed_and_not_spent() {
    explore_orders::<LeasedTokens, _>(
        "lease: a return and a renewal of an expired lease beside a spend",
        || leased(3),
        &[
            |tokens| (Some(tokens.collect(at(1_000), u64::MAX)), false),
            |tokens| (Some(tokens.grant(at(1_001), 1, at(2_000))), false),
            |tokens| take(tokens, 999, 1),
        ],
        look,
    );
}

#[test]
fn a_refund_beside_a_return_goes_to_one_of_them() {
    explore_orders::<LeasedTokens, _>(
        "lease: a refund beside a drain and a spend",
        || leased(2),
        &[
            |tokens| (Some(tokens.collect(at(0), 0)), false),
            |tokens| (Some(tokens.refund(at(0), 1, 3)), false),
            |tokens| take(tokens, 0, 1),
        ],
        look,
    );
}

#[test]
fn what_is_owed_is_collected_once() {
    explore("lease: what is owed beside a collection", || {
        let owed = Arc::new(Owed::new());
        owed.add(1);
        let collected: u64 = race::<Owed, u64>(
            &owed,
            &[
                |owed| {
                    owed.add(2);
                    0
                },
                |owed| owed.collect(10),
                |owed| owed.collect(10),
            ],
        )
        .iter()
        .sum();
        assert_eq!(collected + owed.tokens(), 3);
    });
}
