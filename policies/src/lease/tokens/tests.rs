use super::*;
use proptest::prelude::*;

fn at(milliseconds: u64) -> Moment {
    Moment::ZERO + Duration::from_millis(milliseconds)
}

/// Returns this many tokens until 1 s.
fn leased(tokens: u64) -> LeasedTokens {
    let leased = LeasedTokens::new();
    assert_eq!(leased.grant(at(0), tokens, at(1_000)), 0);
    leased
}

const ASK: Result<Spent, Short> = Err(Short::Ask { first: true });
const WAIT: Result<Spent, Short> = Err(Short::Ask { first: false });

const fn spent(left: u64) -> Result<Spent, Short> {
    Ok(Spent { left, renew: false })
}

#[test]
fn without_a_lease_one_caller_asks() {
    let tokens = LeasedTokens::new();
    assert_eq!(tokens.take(at(0), 1), ASK);
    assert_eq!(tokens.take(at(0), 1), WAIT);
    tokens.ask_again();
    assert_eq!(tokens.take(at(0), 1), ASK);
}

#[test]
fn a_lease_is_spent_to_its_end() {
    let tokens = leased(3);
    assert_eq!(tokens.take(at(1), 2), spent(1));
    assert_eq!(tokens.take(at(1), 2), ASK);
    assert_eq!(
        tokens.take(at(1), 1),
        spent(0),
        "what is left serves a caller that needs less"
    );
    assert_eq!(tokens.take(at(1), 1), WAIT);
}

#[test]
fn nothing_is_spent_after_the_expiry() {
    let tokens = leased(3);
    assert_eq!(tokens.take(at(990), 1), spent(2));
    assert_eq!(tokens.take(at(1_000), 1), ASK);
    assert_eq!(tokens.balance(at(1_000)), 0);
    // A clock that runs backwards makes the lease usable again, but what was collected stays collected.
    assert_eq!(tokens.collect(at(1_000), u64::MAX), 2);
    assert_eq!(tokens.take(at(0), 1), WAIT);
}

#[test]
fn a_low_lease_is_renewed_by_one_caller() {
    let tokens = leased(5);
    tokens.renew_at(2);
    assert_eq!(tokens.take(at(0), 2), spent(3));
    assert_eq!(tokens.take(at(0), 1), Ok(Spent { left: 2, renew: true }));
    assert_eq!(tokens.take(at(0), 1), spent(1));
    tokens.grant(at(0), 1, at(2_000));
    assert_eq!(tokens.take(at(0), 1), Ok(Spent { left: 1, renew: true }));
    assert_eq!(tokens.take(at(1_500), 1), spent(0), "all tokens expire later");
}

#[test]
fn a_refusal_covers_what_the_lease_does_not() {
    let tokens = leased(3);
    tokens.renew_at(9);
    tokens.refuse(at(500), 5);
    let refused = |taken| match taken {
        Err(Short::Refused(wait)) => wait.retry_in.unwrap(),
        other => panic!("{other:?}"),
    };
    let wait = refused(tokens.take(at(100), 5));
    // Rounded up to 66 microseconds.
    assert!((400..=401).contains(&wait.as_millis()), "{wait:?}");
    assert_eq!(tokens.take(at(100) + wait, 5), ASK);
    tokens.ask_again();
    assert_eq!(tokens.take(at(100), 1), spent(2), "a renewal would be refused as well");
    assert_eq!(
        tokens.take(at(100), 4),
        ASK,
        "the store may have what a cheaper request costs"
    );
}

#[test]
fn refunds_stay_within_the_lease() {
    let tokens = leased(3);
    tokens.take(at(0), 2).unwrap();
    assert_eq!(tokens.refund(at(1), 1, 3), 2);
    assert_eq!(tokens.refund(at(1), 5, 3), 3);
    assert_eq!(tokens.refund(at(1), 1, 2), 3, "a smaller size takes nothing away");
    assert_eq!(tokens.refund(at(1_000), 1, 9), 0);
    assert_eq!(tokens.collect(at(1_000), u64::MAX), 3);
}

#[test]
fn an_expired_lease_is_not_revived() {
    let tokens = leased(3);
    assert_eq!(tokens.grant(at(1_000), 2, at(2_000)), 3);
    assert_eq!(tokens.balance(at(1_000)), 2);
    assert_eq!(tokens.grant(at(1_500), 1, at(1_200)), 0, "the later expiry stays");
    assert_eq!(tokens.balance(at(1_900)), 3);
}

#[test]
fn what_is_above_the_size_is_collected() {
    let tokens = leased(5);
    assert_eq!(tokens.collect(at(0), 5), 0);
    assert_eq!(tokens.collect(at(0), 3), 2);
    assert_eq!(tokens.collect(at(0), 0), 3);
    assert_eq!(tokens.balance(at(0)), 0);
}

#[test]
fn the_ends_of_time_and_of_the_word_saturate() {
    let tokens = LeasedTokens::new();
    tokens.grant(at(0), u64::MAX, Moment::MAX);
    assert_eq!(tokens.balance(at(0)), Word::MOST);
    tokens.refund(at(0), u64::MAX, u64::MAX);
    assert_eq!(tokens.balance(at(0)), Word::MOST);
    assert_eq!(tokens.take(at(0), u64::MAX), ASK);
    assert_eq!(tokens.take(Moment::MAX, 1), WAIT);
    tokens.refuse(Moment::MAX, u64::MAX);
    assert_eq!(tokens.take(at(0), Word::MOST), spent(0));
    assert!(matches!(tokens.take(at(0), u64::MAX), Err(Short::Refused(_))));
}

proptest! {
    #![proptest_config(cases::counted())]

    /// Compares with two numbers, a count and an expiry.
    #[test]
    fn agrees_with_two_numbers(steps in prop::collection::vec((0..5u8, 0..6u64, 0..40u64), 1..200)) {
        const UNIT: u64 = 1 << Word::UNIT;
        let tokens = LeasedTokens::new();
        let (mut count, mut expires, mut now) = (0_u64, 0, 0_u64);
        for (step, amount, time) in steps {
            // The clock mostly goes on, and sometimes back.
            now = (now + time / 4).saturating_sub(u64::from(time == 7) * 3);
            let moment = Moment::from_nanos(now * UNIT);
            let usable = now < expires;
            match step {
                0 | 1 => {
                    let taken = tokens.take(moment, amount);
                    let fits = usable && count >= amount;
                    prop_assert_eq!(taken.map(|spent| spent.left).ok(), fits.then(|| count - amount));
                    count -= if fits { amount } else { 0 };
                }
                2 => {
                    let size = time.min(10);
                    tokens.refund(moment, amount, size);
                    count = if usable { (count + amount).min(size).max(count) } else { count };
                }
                3 => {
                    let (kept, over) = if usable { (count, 0) } else { (0, count) };
                    let granted_until = now + time / 2;
                    let moment_until = Moment::from_nanos(granted_until * UNIT + amount);
                    prop_assert_eq!(tokens.grant(moment, amount, moment_until), over);
                    (count, expires) = (kept + amount, expires.max(granted_until));
                }
                _ => {
                    let kept = if usable { count.min(amount) } else { 0 };
                    prop_assert_eq!(tokens.collect(moment, amount), count - kept);
                    count = kept;
                }
            }
            prop_assert_eq!(tokens.held().tokens, count);
            prop_assert_eq!(tokens.balance(moment), if now < expires { count } else { 0 });
        }
    }

    /// A wait is enough, and no more than 66 microseconds longer than the store said.
    #[test]
    fn a_refusal_ends_when_the_store_said(until in 0..u64::MAX / 16, early in 0..1_000_000_000u64, cost in 1..9u64) {
        let tokens = LeasedTokens::new();
        let (until, now) = (Moment::from_nanos(until), Moment::from_nanos(until.saturating_sub(early)));
        tokens.refuse(until, cost);
        match tokens.take(now, cost) {
            Err(Short::Refused(Wait { retry_in: Some(wait) })) => {
                prop_assert!(now + wait >= until && (now + wait).since(until) < Duration::from_nanos(1 << 16));
                let asked = matches!(tokens.take(now + wait, cost), Err(Short::Ask { .. }));
                prop_assert!(asked);
            }
            _ => prop_assert!(now >= until),
        }
    }
}
