use super::*;
use proptest::prelude::*;

const NANO: Duration = Duration::from_nanos(1);

fn at(nanos: u64) -> Moment {
    Moment::from_nanos(nanos)
}

fn quota(limit: u64, window: u64) -> WindowQuota {
    WindowQuota::new(limit, Duration::from_nanos(window)).unwrap()
}

fn wait(nanos: u64) -> Wait {
    Wait::of(Duration::from_nanos(nanos))
}

/// Takes `cost` at each instant of one window. Checks the tokens left, or the wait.
fn check(quota: WindowQuota, rows: &[(u64, u64, Result<u64, u64>)]) {
    let window = SlidingWindow::new();
    for &(now, cost, expected) in rows {
        let expected = expected.map(|tokens| Balance { tokens }).map_err(wait);
        assert_eq!(window.take(&quota, at(now), cost), expected, "{cost} at {now}");
    }
}

#[test]
fn admits_the_limit_in_any_window() {
    check(
        quota(2, 10),
        &[
            (0, 1, Ok(1)),
            (7, 1, Ok(0)),
            (9, 1, Err(1)),
            (9, 2, Err(8)),
            (10, 1, Ok(0)),
            (16, 1, Err(1)),
            (17, 1, Ok(0)),
            (17, 0, Ok(0)),
            (40, 2, Ok(0)),
            (40, 1, Err(10)),
        ],
    );
    check(quota(1, 1), &[(0, 1, Ok(0)), (0, 1, Err(1)), (1, 1, Ok(0))]);
}

#[test]
fn time_running_backwards_never_adds() {
    check(
        quota(3, 10),
        &[
            (100, 1, Ok(2)),
            (95, 1, Ok(1)),
            (0, 1, Ok(0)),
            (0, 1, Err(110)),
            (109, 1, Err(1)),
            (110, 3, Ok(0)),
        ],
    );
    // Tokens that pass out of the window at 100 do so also for a take that is late.
    check(
        quota(2, 10),
        &[(0, 2, Ok(0)), (100, 0, Ok(2)), (5, 1, Ok(1)), (5, 2, Err(105))],
    );
}

#[test]
fn what_costs_more_than_the_limit_never_passes() {
    let (window, quota) = (SlidingWindow::new(), quota(3, 10));
    assert_eq!(window.take(&quota, at(0), 4), Err(Wait::FOR_EVER));
    assert_eq!(window.take(&quota, at(0), u64::MAX), Err(Wait::FOR_EVER));
    assert_eq!(window.wait_for(&quota, at(0), 4), None);
}

#[test]
fn at_the_last_moment_nothing_passes_out() {
    let (window, quota) = (SlidingWindow::new(), quota(1, 10));
    window.take(&quota, Moment::MAX, 1).unwrap();
    assert!(window.take(&quota, Moment::MAX, 1).is_err());
}

#[test]
fn quotas_are_bounded() {
    let check = |limit, window, expected| {
        assert_eq!(WindowQuota::new(limit, window).err(), expected, "{limit} in {window:?}");
    };
    check(1, NANO, None);
    check(100_000, Duration::from_secs(31 * 86_400), None);
    check(0, NANO, Some(WindowQuotaError::Limit));
    check(100_001, NANO, Some(WindowQuotaError::Limit));
    check(1, Duration::ZERO, Some(WindowQuotaError::Window));
    check(1, WindowQuota::LONGEST + NANO, Some(WindowQuotaError::Window));
}

#[test]
fn a_mistaken_quota_is_told_its_bound() {
    assert!(WindowQuotaError::Limit.to_string().contains("1 to 100000"));
    assert!(WindowQuotaError::Window.to_string().contains("31 days"));
}

#[test]
fn shows_how_much_it_remembers() {
    let (window, quota) = (SlidingWindow::new(), quota(9, 10));
    for now in [3, 3, 5] {
        window.take(&quota, at(now), 2).unwrap();
    }
    assert_eq!(format!("{window:?}"), "SlidingWindow { tokens: 6, moments: 2 }");
}

#[test]
fn what_is_charged_before_a_reserved_start_counts_from_its_own_moment() {
    let (window, quota) = (SlidingWindow::new(), quota(4, 10));
    window.take(&quota, at(0), 4).unwrap();
    assert_eq!(
        window.reserve(&quota, at(5), 2, Duration::from_nanos(9)),
        Ok(Duration::from_nanos(5))
    );
    window.charge(&quota, at(6), 1);
    assert_eq!([10, 15, 16].map(|now| window.balance(&quota, at(now))), [1, 1, 2]);
}

#[test]
fn a_charge_may_go_one_limit_into_debt() {
    let (window, quota) = (SlidingWindow::new(), quota(3, 10));
    assert_eq!(window.charge(&quota, at(0), 2), Balance { tokens: 1 });
    assert_eq!(window.charge(&quota, at(4), 2), Balance { tokens: 0 });
    assert_eq!(window.wait_for(&quota, at(4), 0), Some(Duration::from_nanos(6)));
    window.charge(&quota, at(5), u64::MAX);
    assert_eq!(window.wait_for(&quota, at(5), 1), Some(Duration::from_nanos(9)));
    assert_eq!(window.take(&quota, at(13), 1), Err(wait(1)));
    assert_eq!(window.take(&quota, at(14), 1), Ok(Balance { tokens: 0 }));
    assert_eq!(window.take(&quota, at(15), 2), Ok(Balance { tokens: 0 }));
}

#[test]
fn a_refund_is_for_the_moment_of_its_taking() {
    let (window, quota) = (SlidingWindow::new(), quota(3, 10));
    window.take(&quota, at(0), 2).unwrap();
    window.take(&quota, at(5), 1).unwrap();
    assert_eq!(window.refund(&quota, at(6), at(1), 1), Balance { tokens: 0 });
    assert_eq!(window.refund(&quota, at(6), at(0), 1), Balance { tokens: 1 });
    assert_eq!(window.refund(&quota, at(6), at(5), 9), Balance { tokens: 2 });
    assert_eq!(window.take(&quota, at(6), 2), Ok(Balance { tokens: 0 }));
    // The tokens have passed out of the window.
    assert_eq!(window.refund(&quota, at(10), at(0), 1), Balance { tokens: 1 });
    assert!(!window.is_idle(&quota, at(15)));
    assert!(window.is_idle(&quota, at(16)));
}

#[test]
fn a_reservation_starts_when_there_is_room() {
    let (window, quota) = (SlidingWindow::new(), quota(2, 10));
    let reserve = |now, cost, max_wait| {
        let wait = window.reserve(&quota, at(now), cost, Duration::from_nanos(max_wait));
        wait.map(|wait| wait.as_nanos())
            .map_err(|wait| wait.retry_in.unwrap().as_nanos())
    };
    assert_eq!(reserve(0, 1, 0), Ok(0));
    assert_eq!(reserve(3, 1, 0), Ok(0));
    assert_eq!(reserve(4, 1, 5), Err(6));
    assert_eq!(reserve(4, 1, 6), Ok(6));
    assert_eq!(reserve(4, 1, 9), Ok(9));
    // A whole limit is reserved.
    assert_eq!(reserve(4, 1, 100), Err(16));
    assert_eq!(reserve(10, 1, 9), Err(10));
    assert_eq!(reserve(10, 1, 10), Ok(10));
    // A refund names the moment of the start.
    window.refund(&quota, at(10), at(20), 1);
    assert_eq!(window.wait_for(&quota, at(10), 1), Some(Duration::from_nanos(10)));
    assert_eq!(window.balance(&quota, at(23)), 2);
}

#[test]
fn another_quota_applies_to_what_is_remembered() {
    let window = SlidingWindow::new();
    window.take(&quota(5, 10), at(0), 4).unwrap();
    assert_eq!(window.take(&quota(3, 10), at(1), 1), Err(wait(9)));
    assert_eq!(window.balance(&quota(9, 10), at(1)), 5);
    assert_eq!(window.wait_for(&quota(4, 3), at(1), 1), Some(Duration::from_nanos(2)));
    assert_eq!(window.wait_for(&quota(4, 30), at(1), 1), Some(Duration::from_nanos(29)));
}

/// All takes: moment and tokens.
#[derive(Default)]
struct Naive(Vec<(u64, u64)>);

impl Naive {
    fn count(&self, quota: &WindowQuota, now: u64) -> u64 {
        let still_counts = |&&(then, _): &&(u64, u64)| at(now).since(at(then)) < quota.window();
        self.0.iter().filter(still_counts).map(|(_, cost)| cost).sum()
    }

    /// Returns the most tokens in any window. A window with the most tokens can be moved until it begins with a take.
    fn most(&self, quota: &WindowQuota) -> u64 {
        let begins = self.0.iter().map(|&(start, _)| {
            let inside = |&&(then, _): &&(u64, u64)| then >= start && at(then).since(at(start)) < quota.window();
            self.0.iter().filter(inside).map(|(_, cost)| cost).sum()
        });
        begins.max().unwrap_or(0)
    }
}

#[test]
fn parts_are_no_more_than_the_whole() {
    let check = |limit, replicas, expected| {
        let part = quota(limit, 10).divided(NonZeroU32::new(replicas).unwrap());
        assert_eq!((part.limit(), part.window()), (expected, quota(limit, 10).window()));
    };
    check(10, 1, 10);
    check(10, 3, 3);
    check(2, 3, 1);
}

fn quotas() -> impl Strategy<Value = WindowQuota> {
    (1..20u64, 1..60u64).prop_map(|(limit, window)| quota(limit, window))
}

/// Steps, pauses and costs.
fn schedules() -> impl Strategy<Value = Vec<(u8, u64, u64)>> {
    prop::collection::vec((0..8u8, 0..12u64, 0..5u64), 1..200)
}

proptest! {
    #![proptest_config(cases::counted())]

    #[test]
    fn counts_what_the_naive_list_does(quota in quotas(), schedule in schedules()) {
        let (window, mut naive) = (SlidingWindow::new(), Naive::default());
        let mut now = 0;
        for (_, pause, cost) in schedule {
            now += pause;
            let before = naive.count(&quota, now);
            let fits = before + cost <= quota.limit();
            prop_assert_eq!(window.wait_for(&quota, at(now), cost) == Some(Duration::ZERO), fits);
            let taken = window.take(&quota, at(now), cost);
            prop_assert_eq!(taken.is_ok(), fits);
            if let Ok(balance) = taken {
                naive.0.push((now, cost));
                prop_assert_eq!(balance.tokens, quota.limit() - before - cost);
            }
            prop_assert_eq!(window.balance(&quota, at(now)), quota.limit() - naive.count(&quota, now));
            prop_assert_eq!(window.is_idle(&quota, at(now)), naive.count(&quota, now) == 0);
            prop_assert!(lock(&window.taken).runs.len() as u64 <= quota.limit());
        }
        prop_assert!(naive.most(&quota) <= quota.limit());
    }

    /// Compares takes, charges and refunds in any order with the naive list, which also tells what each refund can
    /// find.
    #[test]
    fn charges_and_refunds_count_too(quota in quotas(), schedule in schedules()) {
        let (window, mut naive) = (SlidingWindow::new(), Naive::default());
        let mut now = 0;
        for (what, pause, cost) in schedule {
            now += pause;
            let before = naive.count(&quota, now);
            match what {
                0..=3 => {
                    let taken = window.take(&quota, at(now), cost).is_ok();
                    prop_assert_eq!(taken, before + cost <= quota.limit());
                    if taken {
                        naive.0.push((now, cost));
                    }
                }
                4 => {
                    window.charge(&quota, at(now), cost);
                    naive.0.push((now, cost.min((2 * quota.limit()).saturating_sub(before))));
                }
                _ if !naive.0.is_empty() => {
                    let (then, cost) = naive.0.swap_remove(cost as usize % naive.0.len());
                    window.refund(&quota, at(now), at(then), cost);
                }
                _ => {}
            }
            let left = quota.limit().saturating_sub(naive.count(&quota, now));
            prop_assert_eq!(window.balance(&quota, at(now)), left);
            prop_assert!(lock(&window.taken).runs.len() as u64 <= 2 * quota.limit());
        }
    }

    #[test]
    fn the_reported_wait_is_exact(
        quota in quotas(), schedule in prop::collection::vec((0..12u64, 0..9u64), 0..30), cost in 0..20u64,
    ) {
        let cost = cost % (quota.limit() + 1);
        let (window, mut now) = (SlidingWindow::new(), 0);
        for (pause, cost) in schedule {
            now += pause;
            window.charge(&quota, at(now), cost);
        }
        let wait = window.wait_for(&quota, at(now), cost).unwrap();
        let balance = window.balance(&quota, at(now));
        if !wait.is_zero() {
            prop_assert_eq!(window.take(&quota, at(now), cost), Err(Wait::of(wait)));
            prop_assert_eq!(window.balance(&quota, at(now)), balance);
            prop_assert!(window.take(&quota, (at(now) + wait).saturating_sub(NANO), cost).is_err());
        }
        prop_assert!(window.take(&quota, at(now) + wait, cost).is_ok());
    }

    /// A clock that is set back counts as one that stands still: both admit the same.
    #[test]
    fn a_clock_that_runs_backwards_never_adds(
        quota in quotas(), schedule in prop::collection::vec((-20..20i64, 0..4u64), 1..200),
    ) {
        let (window, mut naive) = (SlidingWindow::new(), Naive::default());
        let (mut now, mut latest) = (100, 0);
        for (pause, cost) in schedule {
            now = (now + pause).max(0);
            let told = at(now as u64);
            latest = latest.max(now as u64);
            let wait = window.wait_for(&quota, told, cost);
            match window.take(&quota, told, cost) {
                Ok(_) => naive.0.push((latest, cost)),
                Err(refused) => {
                    prop_assert_eq!(refused.retry_in, wait);
                    if let Some(wait) = wait {
                        prop_assert!(window.wait_for(&quota, told + wait, cost) == Some(Duration::ZERO));
                        prop_assert!(window.wait_for(&quota, (told + wait).saturating_sub(NANO), cost) > Some(Duration::ZERO));
                    }
                }
            }
        }
        prop_assert!(naive.most(&quota) <= quota.limit());
    }

    /// Checks the invariant for the moments of the starts, with reservations, takes and refunds of both.
    #[test]
    fn the_law_holds_for_starts(
        quota in quotas(), schedule in schedules(), max_wait in 0..80u64,
    ) {
        let (window, mut naive) = (SlidingWindow::new(), Naive::default());
        let mut now = 0;
        for (what, pause, cost) in schedule {
            now += pause;
            if what == 0 && !naive.0.is_empty() {
                let (start, cost) = naive.0.swap_remove(cost as usize % naive.0.len());
                window.refund(&quota, at(now), at(start), cost);
                continue;
            }
            let max_wait = Duration::from_nanos(if what < 4 { max_wait } else { 0 });
            let due = window.wait_for(&quota, at(now), cost);
            let room = lock(&window.taken).total + cost <= 2 * quota.limit();
            match window.reserve(&quota, at(now), cost, max_wait) {
                Ok(wait) => {
                    prop_assert_eq!(Some(wait), due);
                    prop_assert!(wait <= max_wait);
                    naive.0.push((now + wait.as_nanos() as u64, cost));
                }
                Err(refused) => {
                    prop_assert_eq!(refused.retry_in, due);
                    prop_assert!(due.is_none_or(|due| due > max_wait) || !room);
                    prop_assert_eq!(window.wait_for(&quota, at(now), cost), due);
                }
            }
            prop_assert!(lock(&window.taken).total <= 2 * quota.limit());
            prop_assert!(naive.most(&quota) <= quota.limit());
        }
    }

    /// An idle window holds no take: a new window in its place admits the same.
    #[test]
    fn an_idle_window_may_be_forgotten(quota in quotas(), schedule in schedules()) {
        let (kept, mut forgetful) = (SlidingWindow::new(), SlidingWindow::new());
        let mut now = 0;
        for (what, pause, cost) in schedule {
            now += pause * 3;
            if forgetful.is_idle(&quota, at(now)) {
                forgetful = SlidingWindow::new();
            }
            let max_wait = Duration::from_nanos(if what < 2 { 20 } else { 0 });
            prop_assert_eq!(
                kept.reserve(&quota, at(now), cost, max_wait),
                forgetful.reserve(&quota, at(now), cost, max_wait)
            );
        }
    }
}

#[test]
fn a_window_is_the_same_in_another_process() {
    let quota = WindowQuota::new(10, Duration::from_secs(10)).unwrap();
    let at = |seconds: u64| Moment::ZERO + Duration::from_secs(seconds);
    let (old, new) = (SlidingWindow::new(), SlidingWindow::new());
    for (second, cost) in [(1, 2), (3, 1), (9, 4)] {
        old.take(&quota, at(second), cost).unwrap();
    }
    for (moment, tokens) in old.saved() {
        new.restore(moment, tokens);
    }
    for second in 9..25 {
        assert_eq!(
            old.balance(&quota, at(second)),
            new.balance(&quota, at(second)),
            "{second}"
        );
    }
    // A refund finds the take of the other process.
    new.refund(&quota, at(9), at(9), 4);
    assert_eq!(new.balance(&quota, at(9)), 7);
}
