use http::HeaderValue;
use policies::{CalendarQuota, Every, Moment, Quota, WallTime, WindowQuota};

use crate::limits::kinds::Terms;
use crate::limits::owner::Owner;
use crate::limits::ratelimit_headers::{RATELIMIT, RATELIMIT_POLICY};
use crate::limits::store::TermsByOwner;
use crate::limits::store::local::Accounts;
use crate::limits::*;
use crate::message::FieldMap;
use crate::observe::Registry;

/// Noon of 2026-11-24, when a quota of the minute is renewed in 60 s.
const WALL: Duration = Duration::from_secs(1_795_521_600);

fn at(seconds: u64) -> Now {
    Now {
        moment: Moment::from_nanos((1_000 + seconds) * 1_000_000_000),
        wall: WallTime::since_epoch(WALL + Duration::from_secs(seconds)),
    }
}

fn limit(name: &str, terms: Terms, per: Per, mode: Mode, wait: Duration) -> Arc<LimitHandle> {
    let by_owner = TermsByOwner::for_all(terms);
    let table = Accounts::new(10).table(&name.into(), &by_owner);
    let limit = Limit {
        name: name.into(),
        per,
        mode,
        cost: None,
        wait,
        table: Arc::clone(&table),
        metrics: Registry::default().limit(name),
        setting: crate::setting::SettingId::HEAD_BYTES,
        counts_units: false,
        log: Arc::default(),
    };
    Arc::new(LimitHandle::new(
        Arc::new(limit),
        Owner::Everyone,
        terms,
        Origin::Written,
    ))
}

/// Terms of one token a second.
fn bucket(burst: u64) -> Terms {
    Terms::Bucket(Quota::new(1, Duration::from_secs(1), burst).unwrap())
}

fn window(limit: u64) -> Terms {
    Terms::Window(WindowQuota::new(limit, Duration::from_secs(10)).unwrap())
}

fn per_minute(limit: u64) -> Terms {
    Terms::Calendar(CalendarQuota::new(limit, Every::Minute).unwrap())
}

fn enforced(name: &str, terms: Terms) -> Arc<LimitHandle> {
    limit(name, terms, Per::Tenant, Mode::Enforce, Duration::ZERO)
}

fn take_all(holds: &[&Arc<LimitHandle>], now: Now) -> Result<Receipt, Rejection> {
    take(holds.iter().map(|hold| hold.charge(1)).collect(), now, Duration::MAX)
}

fn left(holds: &[&Arc<LimitHandle>], now: Now) -> Vec<u64> {
    holds.iter().map(|hold| hold.account.balance(now)).collect()
}

/// Returns the number behind `key` in the `RateLimit` of one limit.
fn parameter(value: &HeaderValue, key: &str) -> u64 {
    let text = value.to_str().expect("a field of ours");
    let (_, rest) = text.split_once(key).expect(key);
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

#[test]
fn an_answer_says_of_the_next_request_what_its_refusal_would_say() {
    // Terms, the cost of each request, and the number of admitted requests.
    let slow = Terms::Bucket(Quota::new(1, Duration::from_secs(60), 3).unwrap());
    for (terms, cost, admitted) in [
        (slow, 1, 3),
        (slow, 2, 1),
        (bucket(4), 4, 1),
        (window(3), 1, 3),
        (window(3), 2, 1),
        (per_minute(2), 1, 2),
        (per_minute(5), 3, 1),
    ] {
        let hold = enforced("one", terms);
        let take = || take(Charges::from_iter([hold.charge(cost)]), at(0), Duration::ZERO);
        let mut told = FieldMap::new();
        for _ in 0..admitted {
            take().expect("it is admitted").tell(&mut told, at(0));
        }
        let Err(Rejection::RateLimited(refusal) | Rejection::QuotaExhausted(refusal)) = take() else {
            panic!("{terms:?}: one more than {admitted} is admitted");
        };
        let said = parameter(&told[RATELIMIT], ";t=");
        assert_eq!(said, parameter(&refusal.state, ";t="), "{terms:?} at {cost}");
        assert_eq!(
            said,
            crate::header_fields::whole_seconds(refusal.wait),
            "{terms:?} at {cost}"
        );
    }
}

#[test]
fn all_are_charged_or_none_whatever_they_count() {
    // Each limit refuses in turn; the others keep their balance.
    let terms = [
        ("bucket", [bucket(9), bucket(2)]),
        ("window", [window(9), window(2)]),
        ("quota", [per_minute(9), per_minute(2)]),
        ("in_flight", [Terms::InFlight(9), Terms::InFlight(2)]),
    ];
    for narrow in 0..terms.len() {
        let holds: Vec<_> = (0..terms.len())
            .map(|index| enforced(terms[index].0, terms[index].1[usize::from(index == narrow)]))
            .collect();
        let holds: Vec<_> = holds.iter().collect();
        let under_way = [take_all(&holds, at(0)).unwrap(), take_all(&holds, at(0)).unwrap()];
        let before = left(&holds, at(0));
        let refused = take_all(&holds, at(0)).map(|_| ()).unwrap_err();
        let (Rejection::RateLimited(violation)
        | Rejection::QuotaExhausted(violation)
        | Rejection::TooManyInFlight(violation)) = &refused
        else {
            panic!("{refused:?}")
        };
        assert_eq!(*violation.limits, [Arc::<str>::from(terms[narrow].0)]);
        let (word, wait) = [
            ("rate_limited", 1),
            ("rate_limited", 10),
            ("quota_exhausted", 60),
            ("too_many_in_flight", 1),
        ][narrow];
        assert_eq!((refused.reason().as_str(), violation.wait.as_secs()), (word, wait));
        assert_eq!(left(&holds, at(0)), before, "{}", terms[narrow].0);
        drop(under_way);
        assert_eq!(left(&holds[3..], at(0)), [[9, 2][usize::from(narrow == 3)]]);
    }
}

#[test]
fn who_waits_as_long_as_told_is_admitted() {
    for terms in [bucket(2), window(2), per_minute(2)] {
        let hold = enforced("limit", terms);
        for _ in 0..2 {
            let _ = take_all(&[&hold], at(0)).unwrap();
        }
        let Err(Rejection::RateLimited(violation) | Rejection::QuotaExhausted(violation)) = take_all(&[&hold], at(3))
        else {
            assert!(matches!(terms, Terms::Bucket(_)), "{terms:?}");
            continue;
        };
        let then = 3 + violation.wait.as_secs();
        assert!(
            take_all(&[&hold], at(then - 1)).is_err() && take_all(&[&hold], at(then)).is_ok(),
            "{terms:?}"
        );
    }
}

#[test]
fn a_refusal_names_every_limit_that_refuses() {
    let (one, two) = (enforced("one", bucket(1)), enforced("two", per_minute(1)));
    let _ = take_all(&[&one, &two], at(0)).unwrap();
    let Err(Rejection::QuotaExhausted(violation)) = take_all(&[&one, &two], at(0)) else {
        panic!("both are empty, and the quota for longer")
    };
    assert_eq!(violation.wait, Duration::from_secs(60));
    assert_eq!(violation.state, "\"one\";r=0;t=1, \"two\";r=0;t=60");
    assert_eq!(violation.policy, "\"one\";q=1;w=1, \"two\";q=1;w=60");
    let three = enforced("three", Terms::InFlight(0));
    let Err(Rejection::TooManyInFlight(violation)) = take_all(&[&three], at(0)) else {
        panic!("nobody may come in")
    };
    assert_eq!(violation.policy, "\"three\";q=0;qu=\"concurrent-requests\"");
}

#[test]
fn a_refund_gives_back_all_but_what_guards_addresses() {
    let tenant = [bucket(5), window(5), per_minute(5)].map(|terms| enforced("tenant", terms));
    let address = limit("address", bucket(5), Per::ClientAddress, Mode::Enforce, Duration::ZERO);
    let holds: Vec<_> = tenant.iter().chain([&address]).collect();
    take_all(&holds, at(0)).unwrap().refund(at(0));
    assert_eq!(left(&holds, at(0)), [5, 5, 5, 4]);
}

/// Puts other terms in force, as a reload does while a request is under way.
fn reload(hold: &LimitHandle, terms: Terms, now: Now) {
    hold.limit.table.change_terms(&TermsByOwner::for_all(terms), now);
}

/// Returns the balance under the terms in force.
fn left_in_force(hold: &LimitHandle, now: Now) -> u64 {
    hold.account
        .under(hold.limit.table.terms(Owner::Everyone.key()))
        .balance(now)
}

#[test]
fn a_refund_after_a_reload_is_the_share_that_was_taken() {
    for (old, new, expected) in [
        (bucket(1_000), bucket(10), 5),
        (bucket(10), bucket(1_000), 500),
        (window(1_000), window(10), 0),
        (window(10), window(1_000), 995),
        (per_minute(1_000), per_minute(10), 0),
        (per_minute(10), per_minute(1_000), 995),
    ] {
        let hold = enforced("limit", old);
        let half = old.most() / 2;
        let take = || take(Charges::from_iter([hold.charge(half)]), at(0), Duration::ZERO).unwrap();
        let (ours, _theirs) = (take(), take());
        reload(&hold, new, at(0));
        assert_eq!(
            left_in_force(&hold, at(0)),
            if old == bucket(10) || old == bucket(1_000) {
                0
            } else {
                new.most().saturating_sub(old.most())
            }
        );
        ours.refund(at(0));
        assert_eq!(left_in_force(&hold, at(0)), expected, "{old:?} to {new:?}");
    }
}

#[test]
fn a_cost_that_is_known_after_a_reload_is_charged_under_its_terms() {
    // A bucket's debt is one burst at most, by the terms in force.
    let hold = enforced("limit", bucket(1_000));
    let mut receipt = take_all(&[&hold], at(0)).unwrap();
    reload(&hold, bucket(10), at(0));
    receipt.settle(at(0), u64::MAX);
    let in_force = hold.account.under(bucket(10));
    assert_eq!(in_force.wait_for(at(0), 1), Duration::from_secs(11));
    // A window keeps what counts in its new length.
    let hour = Terms::Window(WindowQuota::new(10, Duration::from_secs(3_600)).unwrap());
    let hold = enforced("limit", window(10));
    let _ = take(Charges::from_iter([hold.charge(4)]), at(0), Duration::ZERO).unwrap();
    let mut receipt = take_all(&[&hold], at(9)).unwrap();
    reload(&hold, hour, at(9));
    receipt.settle(at(60), 3);
    assert_eq!(left_in_force(&hold, at(60)), 3);
    // A monthly quota is not renewed when the minute ends in which a request began under a quota of the minute.
    let month = Terms::Calendar(CalendarQuota::new(10, Every::Month).unwrap());
    let hold = enforced("limit", per_minute(10));
    let mut receipt = take_all(&[&hold], at(59)).unwrap();
    reload(&hold, month, at(59));
    receipt.settle(at(61), 3);
    assert_eq!(left_in_force(&hold, at(61)), 7);
    receipt.refund(at(62));
    assert_eq!(left_in_force(&hold, at(62)), 10);
}

#[test]
fn a_quota_of_the_past_period_is_not_refunded_into_the_present_one() {
    let hold = enforced("monthly", per_minute(5));
    let receipt = take_all(&[&hold], at(59)).unwrap();
    let _ = take_all(&[&hold], at(60)).unwrap();
    receipt.refund(at(60));
    assert_eq!(left(&[&hold], at(60)), [4]);
}

#[test]
fn a_request_that_can_be_admitted_soon_waits() {
    let hold = limit("smooth", bucket(1), Per::Tenant, Mode::Enforce, Duration::from_secs(2));
    let delays: Vec<_> = (0..4)
        .map(|_| take_all(&[&hold], at(0)).map(|receipt| receipt.delay.as_secs()).ok())
        .collect();
    assert_eq!(delays, [Some(0), Some(1), Some(2), None]);
    let hurried = || take(Charges::from_iter([hold.charge(1)]), at(1), Duration::from_secs(1));
    assert!(hurried().is_err(), "it would have to wait for longer than it has");
}

#[test]
fn a_wait_that_another_limit_makes_vain_is_given_back() {
    let smooth = limit("smooth", bucket(1), Per::Tenant, Mode::Enforce, Duration::from_secs(9));
    let strict = enforced("strict", per_minute(1));
    let _ = take_all(&[&smooth, &strict], at(0)).unwrap();
    assert!(take_all(&[&smooth, &strict], at(0)).is_err());
    let delay = take_all(&[&smooth], at(0)).unwrap().delay;
    assert_eq!(delay, Duration::from_secs(1));
}

#[test]
fn the_cost_is_corrected_to_what_it_was() {
    for (stated, expected) in [(1, [4, 4, 4]), (3, [2, 2, 2]), (0, [5, 5, 5]), (99, [0, 0, 0])] {
        let holds = [bucket(5), window(5), per_minute(5)].map(|terms| enforced("limit", terms));
        let all: Vec<_> = holds.iter().collect();
        let mut receipt = take_all(&all, at(0)).unwrap();
        receipt.settle(at(0), stated);
        assert_eq!(left(&all, at(0)), expected, "cost {stated}");
        receipt.refund(at(0));
        assert!(left(&all, at(0)).iter().all(|left| *left <= 5));
    }
    // A debt is paid before another request is admitted.
    let hold = enforced("limit", bucket(5));
    take_all(&[&hold], at(0)).unwrap().settle(at(0), 8);
    assert!(take_all(&[&hold], at(3)).is_err() && take_all(&[&hold], at(4)).is_ok());
}

#[test]
fn a_shadow_limit_never_refuses_is_not_told_and_gives_back_only_what_it_took() {
    for terms in [bucket(1), window(1), per_minute(1), Terms::InFlight(1)] {
        let hold = limit("shadow", terms, Per::Tenant, Mode::Shadow, Duration::ZERO);
        let first = take_all(&[&hold], at(0)).unwrap();
        let mut second = take_all(&[&hold], at(0)).unwrap();
        second.settle(at(0), 7);
        second.refund(at(0));
        assert_eq!(left(&[&hold], at(0)), [0]);
        let mut headers = FieldMap::new();
        second.tell(&mut headers, at(0));
        assert!(headers.is_empty());
        drop((first, second));
        if let Terms::InFlight(_) = terms {
            assert_eq!(left(&[&hold], at(0)), [1], "both have left");
        }
    }
}

#[test]
fn a_shadow_limit_delays_nobody() {
    let hold = limit("shadow", bucket(1), Per::Tenant, Mode::Shadow, Duration::from_secs(9));
    for _ in 0..3 {
        assert_eq!(take_all(&[&hold], at(0)).unwrap().delay, Duration::ZERO);
    }
}

#[test]
fn the_answer_tells_the_tightest_first() {
    let holds = [
        enforced("monthly", per_minute(9)),
        enforced("wide", bucket(5)),
        enforced("narrow", bucket(2)),
        enforced("at_once", Terms::InFlight(1)),
    ];
    let mut headers = FieldMap::new();
    take_all(&holds.iter().collect::<Vec<_>>(), at(15))
        .unwrap()
        .tell(&mut headers, at(15));
    assert_eq!(
        headers[RATELIMIT],
        "\"narrow\";r=1;t=1, \"wide\";r=4;t=4, \"monthly\";r=8;t=45"
    );
    assert_eq!(
        headers[RATELIMIT_POLICY],
        "\"narrow\";q=2;w=2, \"wide\";q=5;w=5, \"monthly\";q=9;w=60"
    );
}
