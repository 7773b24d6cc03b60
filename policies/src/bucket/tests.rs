use super::*;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn at(milliseconds: u64) -> Moment {
    Moment::ZERO + ms(milliseconds)
}

fn quota(per_second: u64, burst: u64) -> Quota {
    Quota::new(per_second, SECOND, burst).unwrap()
}

/// Takes `cost` at each instant (in ms) from one bucket. Checks the whole tokens left, or the wait in ms.
fn check(quota: Quota, rows: &[(u64, u64, Result<u64, u64>)]) {
    let bucket = Bucket::full();
    for &(now, cost, expected) in rows {
        let expected = match expected {
            Ok(tokens) => Ok(Balance { tokens }),
            Err(wait) => Err(Wait {
                retry_in: Some(ms(wait)),
            }),
        };
        assert_eq!(bucket.take(&quota, at(now), cost), expected, "{cost} at {now} ms");
    }
}

#[test]
fn starts_full_and_refills() {
    check(
        quota(10, 1),
        &[(0, 1, Ok(0)), (0, 1, Err(100)), (100, 1, Ok(0)), (200, 1, Ok(0))],
    );
    check(
        quota(2, 2),
        &[(0, 1, Ok(1)), (1, 1, Ok(0)), (2, 1, Err(498)), (1_001, 1, Ok(1))],
    );
    check(
        quota(5, 5),
        &[(0, 5, Ok(0)), (20_000, 5, Ok(0)), (20_000, 5, Err(1_000))],
    );
    check(
        quota(4, 4),
        &[(0, 2, Ok(2)), (0, 3, Err(250)), (0, 2, Ok(0)), (0, 0, Ok(0))],
    );
}

#[test]
fn time_running_backwards_never_adds() {
    check(
        quota(10, 3),
        &[
            (100, 1, Ok(2)),
            (0, 1, Ok(0)),
            (0, 1, Err(100)),
            (100, 1, Ok(0)),
            (0, 1, Err(200)),
            (200, 1, Ok(0)),
        ],
    );
}

#[test]
fn what_costs_more_than_the_burst_is_refused_for_ever() {
    let (bucket, quota) = (Bucket::full(), quota(5, 5));
    assert_eq!(bucket.take(&quota, at(3_000), 6), Err(Wait { retry_in: None }));
    assert_eq!(bucket.wait_for(&quota, at(3_000), 6), None);
    assert_eq!(bucket.take(&quota, at(3_000), u64::MAX), Err(Wait { retry_in: None }));
    assert_eq!(bucket.balance(&quota, at(3_000)), 5);
}

#[test]
fn a_quota_has_bounds() {
    let check = |count, per, burst, expected| {
        assert_eq!(
            Quota::new(count, per, burst).err(),
            expected,
            "{count} per {per:?}, {burst}"
        );
    };
    check(10, SECOND, 20, None);
    check(0, SECOND, 20, Some(QuotaError::Zero));
    check(10, Duration::ZERO, 20, Some(QuotaError::Zero));
    check(10, SECOND, 0, Some(QuotaError::Zero));
    check(1_000_000_000, SECOND, 1, None);
    check(1_000_000_001, SECOND, 1, Some(QuotaError::TooFast));
    check(1, Duration::from_secs(5 * 365 * 86_400), 1, None);
    check(1, Duration::from_secs(5 * 365 * 86_400), 2, Some(QuotaError::TooSlow));
    check(1, Duration::MAX, 1, Some(QuotaError::TooSlow));
    check(1, SECOND, u64::MAX, Some(QuotaError::TooSlow));
    assert_eq!(quota(10, 20).burst(), 20);
}

#[test]
fn a_mistaken_quota_is_told_its_bound() {
    let check = |error: QuotaError, bound| assert!(error.to_string().contains(bound), "{error}");
    check(QuotaError::Zero, "more than zero");
    check(QuotaError::TooFast, "one a nanosecond");
    check(QuotaError::TooSlow, "five years");
}

#[test]
fn shows_when_it_will_be_full() {
    let bucket = Bucket::full();
    bucket.take(&quota(10, 3), at(1_000), 2).unwrap();
    assert_eq!(format!("{bucket:?}"), "Bucket { full_at: @1.2s }");
}

#[test]
fn the_time_to_earn_is_rounded_up() {
    let check = |count, tokens, expected| assert_eq!(quota(count, 100).time_to_earn(tokens), expected);
    check(10, 7, ms(700));
    check(3, 1, Duration::from_nanos(333_333_334));
    check(3, 3, Duration::from_nanos(1_000_000_001));
    check(1_000, u64::MAX, ticks_to_duration(u64::MAX));
}

#[test]
fn a_refund_stops_at_the_burst() {
    let (bucket, quota) = (Bucket::full(), quota(10, 3));
    assert_eq!(bucket.refund(&quota, at(500), at(0), 2), Balance { tokens: 3 });
    assert_eq!(bucket.take(&quota, at(500), 3), Ok(Balance { tokens: 0 }));
    assert_eq!(bucket.refund(&quota, at(500), at(0), 1), Balance { tokens: 1 });
    assert_eq!(bucket.refund(&quota, at(500), at(0), u64::MAX), Balance { tokens: 3 });
    assert!(bucket.is_full(at(500)));
    assert!(
        !Bucket {
            full_at: AtomicU64::new(1)
        }
        .is_full(Moment::ZERO)
    );
}

#[test]
fn a_refund_to_a_full_bucket_does_not_outlast_a_clock_that_runs_backwards() {
    let (bucket, quota) = (Bucket::full(), quota(10, 3));
    bucket.take(&quota, at(1_000), 1).unwrap();
    bucket.refund(&quota, at(2_000), at(0), 3);
    assert_eq!(bucket.balance(&quota, at(1_000)), 2);
}

#[test]
fn a_charge_may_go_one_burst_into_debt() {
    let (bucket, quota) = (Bucket::full(), quota(10, 3));
    assert_eq!(bucket.charge(&quota, at(0), 2), Balance { tokens: 1 });
    assert_eq!(bucket.charge(&quota, at(0), 2), Balance { tokens: 0 });
    assert_eq!(bucket.wait_for(&quota, at(0), 1), Some(ms(200)));
    bucket.charge(&quota, at(0), 1_000_000);
    assert_eq!(bucket.wait_for(&quota, at(0), 1), Some(ms(400)));
    bucket.charge(&quota, at(0), u64::MAX);
    assert_eq!(bucket.wait_for(&quota, at(0), 1), Some(ms(400)));
    assert_eq!(bucket.take(&quota, at(399), 1), Err(Wait { retry_in: Some(ms(1)) }));
    assert_eq!(bucket.take(&quota, at(400), 1), Ok(Balance { tokens: 0 }));
}

#[test]
fn a_reservation_starts_when_it_is_earned() {
    let (bucket, quota) = (Bucket::full(), quota(10, 3));
    let reserve = |now, cost, max_wait| {
        bucket
            .reserve(&quota, at(now), cost, ms(max_wait))
            .map(|wait| wait.as_millis())
            .map_err(|wait| wait.retry_in.map(|wait| wait.as_millis()))
    };
    assert_eq!(reserve(0, 3, 0), Ok(0));
    assert_eq!(reserve(0, 1, 99), Err(Some(100)));
    assert_eq!(reserve(0, 1, 100), Ok(100));
    assert_eq!(reserve(50, 2, 1_000), Ok(250));
    assert_eq!(bucket.wait_for(&quota, at(50), 1), Some(ms(350)));
    // Nothing is given back while the other caller waits, but the waiting caller can leave.
    bucket.refund(&quota, at(60), at(100), 1);
    assert_eq!(bucket.wait_for(&quota, at(60), 1), Some(ms(340)));
    bucket.refund(&quota, at(60), at(300), 2);
    assert_eq!(reserve(60, 1, 1_000), Ok(140));
    assert_eq!(reserve(60, 4, 1_000), Err(None));
    assert_eq!(reserve(0, 1, 299), Err(Some(300)));
}

#[test]
fn a_rescaled_bucket_is_as_full_as_before() {
    let check = |old: Quota, taken, new: Quota, expected| {
        let bucket = Bucket::full();
        bucket.take(&old, at(1_000), taken).unwrap();
        bucket.rescale(&old, &new, at(1_000));
        assert_eq!(
            bucket.balance(&new, at(1_000)),
            expected,
            "{old:?} less {taken} to {new:?}"
        );
    };
    check(quota(10, 20), 20, quota(1_000, 2_000), 0);
    check(quota(10, 20), 10, quota(1_000, 2_000), 1_000);
    check(quota(1_000, 2_000), 500, quota(10, 20), 15);
    check(quota(10, 20), 5, quota(20, 20), 15);
    check(quota(10, 20), 0, quota(1, 1), 1);
    check(quota(10, 3), 1, quota(10, 1), 0);
}

#[test]
fn a_refund_after_a_rescale_is_the_share_that_was_taken() {
    // Half of a bucket is taken for a request, and half by others; then the request is given back.
    let check = |old: Quota, taken, new: Quota, expected| {
        let bucket = Bucket::full();
        bucket.take(&old, at(1_000), old.burst()).unwrap();
        bucket.rescale(&old, &new, at(1_000));
        let left = bucket.refund_rescaled(&old, &new, at(1_000), at(1_000), taken);
        assert_eq!(left.tokens, expected, "{taken} of {old:?} to {new:?}");
    };
    // The first two would be full if only the tokens were given back, or at the old price.
    check(quota(100, 1_000), 500, quota(100, 10), 5);
    check(quota(1, 10), 5, quota(1_000, 10), 5);
    check(quota(100, 10), 5, quota(100, 1_000), 500);
    check(quota(1_000, 10), 5, quota(1, 10), 5);
    check(quota(100, 1_000), 50, quota(100, 10), 0);
    check(quota(100, 1_000), u64::MAX, quota(100, 10), 10);
    check(quota(10, 3), 1, quota(10, 3), 1);
}

#[test]
fn beyond_the_last_moment_everything_is_refused() {
    let (bucket, quota) = (Bucket::full(), quota(10, 3));
    assert_eq!(bucket.take(&quota, Moment::MAX, 1), Err(Wait { retry_in: None }));
}

/// Textbook token bucket: a level that is topped up before each step.
struct Naive {
    quota: Quota,
    level: u64,
    last: u64,
}

impl Naive {
    fn take(&mut self, now: Moment, cost: u64) -> bool {
        let earned = ticks(now) - self.last;
        self.last = ticks(now);
        self.level = self.level.saturating_add(earned).min(self.quota.capacity);
        let enough = self.quota.price(cost).is_some_and(|price| price <= self.level);
        if enough {
            self.level -= cost * self.quota.interval;
        }
        enough
    }
}

/// Without a common store, replicas that each have a part admit together no more than one that has all.
#[test]
fn parts_are_no_more_than_the_whole() {
    let check = |per_second, burst, replicas, expected_rate: f64, expected_burst| {
        let whole = quota(per_second, burst);
        let part = whole.divided(NonZeroU32::new(replicas).unwrap());
        let rate = 1.0 / part.time_to_earn(1).as_secs_f64();
        assert!((rate - expected_rate).abs() < 1e-6, "{rate}");
        assert_eq!(part.burst(), expected_burst);
        assert!(part.capacity <= LONGEST_FILL);
    };
    check(200, 400, 1, 200.0, 400);
    check(200, 400, 3, 200.0 / 3.0, 133);
    check(10, 20, 8, 1.25, 2);
    // At least one token.
    check(10, 2, 5, 2.0, 1);
    let slowest = Quota::new(1, Duration::from_secs(4 * 365 * 86_400), 1).unwrap();
    let part = slowest.divided(NonZeroU32::MAX);
    assert_eq!(part.capacity, LONGEST_FILL);
}

fn quotas() -> impl Strategy<Value = Quota> {
    (1..2_000u64, 1..5_000_000_000u64, 1..200u64)
        .prop_map(|(count, per, burst)| Quota::new(count, Duration::from_nanos(per), burst))
        .prop_filter_map("too fast", Result::ok)
}

/// Pauses in twentieths of the time that a token takes, and costs.
fn schedules() -> impl Strategy<Value = Vec<(u64, u64)>> {
    prop::collection::vec((0..60u64, 0..4u64), 1..200)
}

proptest! {
    #![proptest_config(cases::counted())]

    #[test]
    fn takes_as_the_textbook_does(quota in quotas(), schedule in schedules()) {
        let bucket = Bucket::full();
        let mut naive = Naive { quota, level: quota.capacity, last: 0 };
        let mut now = Moment::ZERO;
        for (pause, cost) in schedule {
            now = now + quota.time_to_earn(1) * pause as u32 / 20;
            let before = bucket.full_at.load(Relaxed);
            let taken = bucket.take(&quota, now, cost);
            prop_assert_eq!(taken.is_ok(), naive.take(now, cost));
            prop_assert_eq!(bucket.balance(&quota, now), naive.level / quota.interval);
            match taken {
                Ok(balance) => prop_assert_eq!(balance.tokens, naive.level / quota.interval),
                Err(_) => prop_assert_eq!(bucket.full_at.load(Relaxed), before),
            }
        }
    }

    #[test]
    fn never_more_than_burst_and_rate(quota in quotas(), schedule in schedules()) {
        let bucket = Bucket::full();
        let mut now = Moment::ZERO;
        let mut admitted = vec![];
        for (pause, cost) in schedule {
            now = now + quota.time_to_earn(1) * pause as u32 / 20;
            if bucket.take(&quota, now, cost).is_ok() {
                admitted.push((ticks(now), cost));
            }
        }
        for (first, &(start, _)) in admitted.iter().enumerate() {
            let mut total = 0;
            for &(end, cost) in &admitted[first..] {
                total += cost;
                prop_assert!(total * quota.interval <= quota.capacity + (end - start));
            }
        }
    }

    /// Checks the invariant for the moments at which callers start. A reservation starts when it could have been taken.
    #[test]
    fn never_more_than_burst_and_rate_are_started_with(
        quota in quotas(), schedule in schedules(), patience in 0..100u64,
    ) {
        let bucket = Bucket::full();
        let mut now = Moment::ZERO;
        let mut started: Vec<(u64, u64)> = vec![];
        for (pause, cost) in schedule {
            now = now + quota.time_to_earn(1) * pause as u32 / 20;
            let max_wait = quota.time_to_earn(1) * patience as u32 / 20;
            let (before, due) = (bucket.full_at.load(Relaxed), bucket.wait_for(&quota, now, cost));
            match bucket.reserve(&quota, now, cost, max_wait) {
                Ok(wait) => {
                    prop_assert_eq!(Some(wait), due);
                    prop_assert!(wait <= max_wait);
                    started.push((ticks(now + wait), cost));
                }
                Err(refused) => {
                    prop_assert_eq!(refused.retry_in, due);
                    prop_assert!(due.is_none_or(|due| due > max_wait));
                    prop_assert_eq!(bucket.full_at.load(Relaxed), before);
                }
            }
        }
        for (first, &(start, _)) in started.iter().enumerate() {
            let mut total = 0;
            for &(end, cost) in &started[first..] {
                prop_assert!(start <= end);
                total += cost;
                prop_assert!(total * quota.interval <= quota.capacity + (end - start));
            }
        }
    }

    /// Checks the invariant with refunds at any time, by callers that start at once and by callers that wait.
    #[test]
    fn a_refund_lets_nobody_start_too_soon(
        quota in quotas(), patience in 0..100u64,
        schedule in prop::collection::vec((0..60u64, 0..4u64, prop::option::of(any::<prop::sample::Index>())), 1..120),
    ) {
        let bucket = Bucket::full();
        let max_wait = quota.time_to_earn(1) * patience as u32 / 20;
        let mut now = Moment::ZERO;
        // Moment, tokens, and whether they were given back before the start.
        let mut taken: Vec<(Moment, u64)> = vec![];
        let mut given_back = taken.clone();
        for (pause, cost, refunded) in schedule {
            now = now + quota.time_to_earn(1) * pause as u32 / 20;
            match refunded {
                Some(index) if !taken.is_empty() => {
                    let (start, cost) = taken[index.index(taken.len())];
                    bucket.refund(&quota, now, start, cost);
                    if start > now {
                        taken.swap_remove(index.index(taken.len()));
                    } else {
                        given_back.push((now, cost));
                    }
                }
                _ => {
                    if let Ok(wait) = bucket.reserve(&quota, now, cost, max_wait) {
                        taken.push((now + wait, cost));
                    }
                }
            }
        }
        for &(from, _) in &taken {
            for &(to, _) in taken.iter().filter(|(to, _)| *to >= from) {
                let within = |all: &[(Moment, u64)]| -> u64 {
                    all.iter().filter(|(at, _)| (from..=to).contains(at)).map(|(_, cost)| cost).sum()
                };
                let net = within(&taken).saturating_sub(within(&given_back));
                prop_assert!(net * quota.interval <= quota.capacity + ticks(to) - ticks(from));
            }
        }
    }

    #[test]
    fn a_reservation_that_may_not_wait_is_a_taking(quota in quotas(), schedule in schedules()) {
        let (taken, reserved) = (Bucket::full(), Bucket::full());
        let mut now = Moment::ZERO;
        for (pause, cost) in schedule {
            now = now + quota.time_to_earn(1) * pause as u32 / 20;
            let started = reserved.reserve(&quota, now, cost, Duration::ZERO);
            prop_assert_eq!(started.map(|_| ()), taken.take(&quota, now, cost).map(|_| ()));
            prop_assert_eq!(reserved.full_at.load(Relaxed), taken.full_at.load(Relaxed));
        }
    }

    #[test]
    fn the_reported_wait_is_exact(quota in quotas(), drained in 0..400u64, cost in 1..200u64) {
        let cost = 1 + cost % quota.burst;
        let (bucket, now) = (Bucket::full(), at(1_000));
        bucket.charge(&quota, now, drained);
        let wait = bucket.wait_for(&quota, now, cost).unwrap();
        if !wait.is_zero() {
            prop_assert_eq!(bucket.take(&quota, now, cost), Err(Wait { retry_in: Some(wait) }));
            prop_assert!(bucket.take(&quota, (now + wait).saturating_sub(Duration::from_nanos(1)), cost).is_err());
        }
        prop_assert!(bucket.take(&quota, now + wait, cost).is_ok());
    }

    #[test]
    fn a_refund_undoes_a_taking(quota in quotas(), drained in 0..200u64, cost in 1..200u64) {
        let (bucket, now) = (Bucket::full(), at(1_000));
        let _ = bucket.take(&quota, now, drained);
        let before = bucket.balance(&quota, now);
        if bucket.take(&quota, now, cost).is_ok() {
            prop_assert_eq!(bucket.refund(&quota, now, now, cost).tokens, before);
        }
    }

    /// A full bucket equals an absent one: its owner may drop it at any moment and create it again.
    #[test]
    fn forgetting_a_full_bucket_changes_nothing(
        quota in quotas(), schedule in schedules(), sweeps in prop::collection::vec(any::<bool>(), 200),
    ) {
        let (kept, mut swept) = (Bucket::full(), Bucket::full());
        let mut now = Moment::ZERO;
        for ((pause, cost), sweep) in schedule.into_iter().zip(sweeps) {
            now = now + quota.time_to_earn(1) * pause as u32 / 20;
            if sweep && swept.is_full(now) {
                swept = Bucket::full();
            }
            prop_assert_eq!(swept.take(&quota, now, cost), kept.take(&quota, now, cost));
        }
    }

    #[test]
    fn rescaling_never_adds(old in quotas(), new in quotas(), drained in 0..400u64, later in 0..5_000u64) {
        let bucket = Bucket::full();
        bucket.charge(&old, at(1_000), drained);
        let now = at(1_000 + later);
        let missing = u128::from(bucket.missing(now));
        bucket.rescale(&old, &new, now);
        let scaled = u128::from(bucket.missing(now));
        prop_assert!(scaled * u128::from(old.capacity) >= missing * u128::from(new.capacity));
        prop_assert!(scaled.saturating_sub(1) * u128::from(old.capacity) <= missing * u128::from(new.capacity));
    }

    /// A refund after a rescale gives no more than the same refund before it.
    #[test]
    fn a_rescale_makes_no_refund_greater(
        old in quotas(), new in quotas(), drained in 0..400u64, cost in 0..400u64, later in 0..5_000u64,
    ) {
        let (before, after) = (Bucket::full(), Bucket::full());
        for bucket in [&before, &after] {
            bucket.charge(&old, at(1_000), drained);
        }
        let now = at(1_000 + later);
        before.refund(&old, now, at(1_000), cost);
        before.rescale(&old, &new, now);
        after.rescale(&old, &new, now);
        after.refund_rescaled(&old, &new, now, at(1_000), cost);
        prop_assert!(after.missing(now) >= before.missing(now));
        if drained <= old.burst {
            prop_assert!(after.missing(now) <= before.missing(now) + 1, "and no less");
        }
    }

    #[test]
    fn an_earlier_now_never_shows_more(quota in quotas(), drained in 0..400u64, back in 0..2_000u64) {
        let bucket = Bucket::full();
        bucket.charge(&quota, at(1_000), drained);
        prop_assert!(bucket.balance(&quota, at(1_000u64.saturating_sub(back))) <= bucket.balance(&quota, at(1_000)));
    }
}

#[test]
fn a_bucket_and_its_quota_are_the_same_in_another_process() {
    let quota = quota(10, 20);
    let (interval, burst) = quota.parts();
    assert_eq!(Quota::of_parts(interval, burst), Some(quota));
    for (interval, burst) in [(0, 1), (1, 1), (interval, 0), (u64::MAX, 2), (u64::MAX, 1)] {
        assert_eq!(Quota::of_parts(interval, burst), None, "{interval} {burst}");
    }
    let (old, new) = (Bucket::full(), Bucket::full());
    old.take(&quota, at(100), 15).unwrap();
    new.take(&quota, at(100), 1).unwrap();
    new.restore(old.saved());
    assert_eq!(new.balance(&quota, at(100)), 5);
    new.restore(0);
    assert_eq!(new.balance(&quota, at(100)), 5, "what is taken is not given back");
}
