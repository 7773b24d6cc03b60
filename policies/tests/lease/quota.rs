//! Uses a calendar quota up over three replicas, to its last token and no further.

use policies::lease::{Central, CentralQuota, Owed, Short, Waiting};
use policies::{CalendarQuota, Every, Lease, LeaseTerms, LeasedTokens, Moment, Ratio, WallTime};
use std::time::Duration;

const LEASE_TIME: Duration = Duration::from_secs(2);

struct Replica {
    lease: Lease,
    tokens: LeasedTokens,
    owed: Owed,
}

/// Sends requests to the replicas in turn, one each 2 ms, for 10 s. A replica that must ask the store does so at once,
/// and returns what has expired every 100 ms. `is_mine` says whether the request of this number goes to a replica.
/// Returns the number that was admitted, and the calls of the store.
fn use_up(limit: u64, replicas: u64, is_mine: impl Fn(u64, u64) -> bool) -> (u64, u64) {
    let quota = CalendarQuota::new(limit, Every::Day).unwrap();
    let terms = LeaseTerms::new(limit, Ratio::new(0.1).unwrap(), LEASE_TIME).unwrap();
    let mut store = Central::new(CentralQuota::new(quota), LEASE_TIME, 1);
    let mut fleet: Vec<Replica> = (0..replicas)
        .map(|name| Replica {
            lease: Lease::new(name),
            tokens: LeasedTokens::new(),
            owed: Owed::new(),
        })
        .collect();
    let (mut admitted, mut calls) = (0, 0);
    for number in 0..5_000 {
        let time = Duration::from_millis(2 * number);
        let (now, wall) = (
            Moment::ZERO + time,
            WallTime::since_epoch(Duration::from_secs(1_795_521_600) + time),
        );
        for (name, Replica { lease, tokens, owed }) in (0..).zip(&mut fleet) {
            let mut ask = |cost| {
                let request = match cost {
                    0 => lease.give_back(&terms, tokens, owed, now, false),
                    cost => lease.renew(&terms, tokens, owed, now, Waiting::NONE.and(cost)),
                };
                if let Some(request) = request {
                    calls += 1;
                    let reply = store.execute(wall, &request).unwrap();
                    assert!(lease.apply(&terms, tokens, now, &reply));
                }
            };
            if number % 50 == 0 {
                ask(0);
            }
            if !is_mine(number, name) {
                continue;
            }
            let taken = tokens.take(now, 1).or_else(|short| {
                if let Short::Ask { .. } = short {
                    ask(1);
                }
                tokens.take(now, 1)
            });
            admitted += u64::from(taken.is_ok());
        }
    }
    (admitted, calls)
}

#[test]
fn a_quota_is_used_to_its_last_token() {
    let check = |limit, replicas, is_mine: fn(u64, u64) -> bool| {
        let (admitted, calls) = use_up(limit, replicas, is_mine);
        assert_eq!(admitted, limit, "{limit} over {replicas}");
        assert!(calls < limit, "{calls} calls for {limit}");
    };
    // 500 a second over three replicas.
    check(1_000, 3, |number, name| number % 3 == name);
    check(1_000, 1, |_, _| true);
    // One replica stops early, and what it holds comes back to the others.
    check(1_000, 3, |number, name| {
        number % 3 == name && (name != 0 || number < 100)
    });
    check(997, 2, |number, name| number / 700 % 2 == name);
}
