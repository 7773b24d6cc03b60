use super::*;
use crate::bucket::Bucket;
use crate::calendar::{Every, Usage};
use crate::moment::Moment;
use proptest::prelude::*;

/// 2026-11-24, noon.
const NOON: u64 = 1_795_521_600_000;

fn wall(milliseconds: u64) -> WallTime {
    WallTime::since_epoch(Duration::from_millis(NOON + milliseconds))
}

fn bucket(per_second: u64, burst: u64) -> CentralBucket {
    CentralBucket::full(&Quota::new(per_second, Duration::from_secs(1), burst).unwrap())
}

fn window(limit: u64, milliseconds: u64) -> CentralWindow {
    CentralWindow::new(&WindowQuota::new(limit, Duration::from_millis(milliseconds)).unwrap())
}

fn quota(limit: u64, every: Every) -> CentralQuota {
    CentralQuota::new(CalendarQuota::new(limit, every).unwrap())
}

#[test]
fn a_bucket_in_debt_earns_it_back_first() {
    let mut bucket = bucket(10, 20);
    bucket.advance(wall(0));
    bucket.take(15);
    bucket.charge(1_000);
    assert_eq!(bucket.left(), 0);
    assert_eq!(
        bucket.next(1, None),
        Some(Duration::from_millis(2_100)),
        "one burst deep"
    );
    bucket.advance(wall(2_100));
    assert_eq!(bucket.left(), 1);
    assert_eq!(bucket.next(21, None), None);
}

#[test]
fn a_changed_quota_refills_nothing() {
    let change = |central: &mut CentralBucket, per_second, burst| {
        central.change(&Quota::new(per_second, Duration::from_secs(1), burst).unwrap());
    };
    let mut bucket = bucket(10, 20);
    bucket.advance(wall(0));
    bucket.take(20);
    change(&mut bucket, 5, 20);
    assert_eq!(
        (bucket.left(), bucket.next(1, None)),
        (0, Some(Duration::from_millis(200)))
    );
    change(&mut bucket, 10, 20);
    bucket.advance(wall(1_000));
    assert_eq!(bucket.left(), 10);
    change(&mut bucket, 10, 10);
    assert_eq!(bucket.left(), 5, "half full, as before");
    change(&mut bucket, 3, 7);
    let left = bucket.left();
    for _ in 0..1_000 {
        change(&mut bucket, 7, 3);
        change(&mut bucket, 3, 7);
    }
    assert_eq!((left, bucket.left()), (3, 3));
}

#[test]
fn a_store_whose_clock_was_set_back_goes_on() {
    let mut bucket = bucket(10, 20);
    bucket.advance(wall(60_000));
    bucket.take(20);
    bucket.advance(wall(0));
    assert_eq!(bucket.left(), 0);
    bucket.advance(wall(500));
    assert_eq!(bucket.left(), 5);

    let mut window = window(10, 1_000);
    window.advance(wall(60_000));
    window.take(10);
    window.advance(wall(0));
    assert_eq!(window.left(), 0);

    let mut quota = quota(10, Every::Hour);
    quota.advance(wall(0));
    quota.take(10);
    quota.advance(WallTime::since_epoch(Duration::from_millis(NOON - 1)));
    assert_eq!(quota.left(), 0);
    assert_eq!(quota.next(1, None), Some(Duration::from_millis(3_600_001)));
}

#[test]
fn a_window_counts_a_cell_until_its_end_has_left() {
    let mut window = window(10, 6_400);
    // Cells of 100 ms; noon is the start of one.
    window.advance(wall(30));
    window.take(6);
    window.advance(wall(130));
    window.take(4);
    assert_eq!(
        (window.left(), window.next(1, None)),
        (0, Some(Duration::from_millis(6_370)))
    );
    assert_eq!(window.next(7, None), Some(Duration::from_millis(6_470)));
    window.advance(wall(6_499));
    assert_eq!(window.left(), 0);
    window.advance(wall(6_500));
    assert_eq!(window.left(), 6);
    window.give_back(5, wall(130));
    assert_eq!(window.left(), 10);
    assert!(window.is_idle());
}

#[test]
fn a_quota_shrinks_its_leases_to_one() {
    let mut quota = quota(100, Every::Day);
    quota.advance(wall(0));
    assert_eq!(quota.portion(10, 3), 10);
    quota.take(71);
    assert_eq!(quota.portion(10, 3), 9);
    quota.take(27);
    assert_eq!(quota.portion(10, 3), 1);
    quota.take(2);
    assert_eq!(quota.portion(10, 3), 0);
}

#[test]
fn a_quota_that_is_on_lease_may_come_back() {
    let mut quota = quota(3, Every::Hour);
    let usable_for = quota.advance(wall(3_599_000));
    assert_eq!(usable_for, Some(Duration::from_secs(1)));
    quota.take(3);
    let next = |milliseconds| quota.next(1, Some(Duration::from_millis(milliseconds)));
    assert_eq!(next(300), Some(Duration::from_millis(300)));
    assert_eq!(next(2_000), Some(Duration::from_secs(1)));
    assert_eq!(quota.next(4, None), None);
}

#[test]
fn a_new_period_takes_no_return_of_the_last() {
    let mut quota = quota(10, Every::Hour);
    quota.advance(wall(3_599_000));
    quota.take(10);
    quota.advance(wall(3_600_000));
    quota.take(5);
    quota.give_back(5, wall(3_599_000));
    assert_eq!(quota.left(), 5);
    quota.give_back(2, wall(3_600_000));
    assert_eq!(quota.left(), 7);
}

proptest! {
    #![proptest_config(cases::counted())]

    /// Rates whose interval is a whole number of nanoseconds; the store rounds others up.
    #[test]
    fn the_central_bucket_agrees_with_a_local_one(
        per_second in prop_oneof![Just(1_u64), Just(8), Just(200), Just(1_000)], burst in 1..50u64,
        steps in prop::collection::vec((0..4u8, 1..40u64, 0..3_000u64), 1..100),
    ) {
        let quota = Quota::new(per_second, Duration::from_secs(1), burst).unwrap();
        let (local, mut central) = (Bucket::full(), CentralBucket::full(&quota));
        let mut time = 0;
        for (step, tokens, pause) in steps {
            time += pause;
            let now = Moment::ZERO + Duration::from_millis(time);
            central.advance(wall(time));
            match step {
                0 | 1 => {
                    let taken = local.take(&quota, now, tokens);
                    prop_assert_eq!(taken.is_ok(), central.left() >= tokens);
                    match taken {
                        Ok(balance) => {
                            central.take(tokens);
                            prop_assert_eq!(balance.tokens, central.left());
                        }
                        Err(wait) => prop_assert_eq!(wait.retry_in, central.next(tokens, None)),
                    }
                }
                2 => {
                    local.charge(&quota, now, tokens);
                    central.charge(tokens);
                }
                _ if local.wait_for(&quota, now, burst).is_some_and(|wait| wait <= quota.time_to_earn(burst)) => {
                    local.refund(&quota, now, now, tokens);
                    central.give_back(tokens, wall(time));
                }
                _ => {}
            }
            prop_assert_eq!(local.balance(&quota, now), central.left());
            prop_assert_eq!(local.is_full(now), central.is_idle());
        }
    }

    /// Compares with a list of all grants: no window holds more than its limit, and none is refused for longer than a
    /// 64th of the window.
    #[test]
    fn a_window_is_never_exceeded(
        limit in 1..20u64, length in 64..5_000u64,
        steps in prop::collection::vec((1..5u64, 0..800u64), 1..100),
    ) {
        let mut window = window(limit, length);
        let mut grants: Vec<(u64, u64)> = vec![];
        let mut time = 0;
        for (tokens, pause) in steps {
            time += pause;
            window.advance(wall(time));
            let within = |length: u64| -> u64 {
                grants.iter().filter(|(at, _)| at + length > time).map(|(_, tokens)| tokens).sum()
            };
            let (exact, longest) = (within(length), within(length + length / 64 + 2));
            prop_assert!((limit - longest.min(limit)..=limit - exact).contains(&window.left()));
            let next = window.next(tokens, None);
            prop_assert_eq!(next.is_none(), tokens > limit);
            if let Some(next) = next {
                let mut later = window.clone();
                later.advance(WallTime::since_epoch(wall(time).elapsed() + next));
                prop_assert!(later.left() >= tokens);
                prop_assert_eq!(next.is_zero(), window.left() >= tokens);
            }
            if window.left() >= tokens {
                window.take(tokens);
                grants.push((time, tokens));
            }
        }
    }

    #[test]
    fn a_central_quota_agrees_with_a_local_one(
        limit in 1..30u64, steps in prop::collection::vec((0..4u8, 1..6u64, 0..30_000u64), 1..60),
    ) {
        let quota = CalendarQuota::new(limit, Every::Minute).unwrap();
        let (local, mut central) = (Usage::new(), CentralQuota::new(quota));
        let mut time = 0;
        for (step, tokens, pause) in steps {
            time += pause;
            central.advance(wall(time));
            match step {
                0 | 1 if local.take(&quota, wall(time), tokens).is_ok() => central.take(tokens),
                2 => {
                    local.charge(&quota, wall(time), tokens);
                    central.charge(tokens);
                }
                3 => {
                    local.refund(&quota, wall(time), wall(time), tokens);
                    central.give_back(tokens, wall(time));
                }
                _ => {}
            }
            prop_assert_eq!(local.balance(&quota, wall(time)), central.left());
            prop_assert_eq!(local.wait_for(&quota, wall(time), tokens), central.next(tokens, None));
        }
    }
}
