use super::*;
use proptest::prelude::*;

const DAY: u64 = 86_400;
/// 2024-01-31T00:00Z, a Wednesday.
const END_OF_JANUARY: u64 = 1_706_659_200;

fn at(seconds: u64) -> WallTime {
    WallTime::since_epoch(Duration::from_secs(seconds))
}

fn quota(limit: u64, every: Every) -> CalendarQuota {
    CalendarQuota::new(limit, every).unwrap()
}

/// Takes `cost` at each instant (seconds into 2024-01-31) of one usage. Checks the tokens left, or the wait in seconds.
fn check(quota: CalendarQuota, rows: &[(u64, u64, Result<u64, u64>)]) {
    let usage = Usage::new();
    for &(now, cost, expected) in rows {
        let expected = expected
            .map(|tokens| Balance { tokens })
            .map_err(|wait| Wait::of(Duration::from_secs(wait)));
        let now = at(END_OF_JANUARY + now);
        assert_eq!(usage.take(&quota, now, cost), expected, "{quota:?}: {cost} at {now:?}");
    }
}

#[test]
fn everything_is_there_again_when_the_next_period_begins() {
    check(
        quota(3, Every::Minute),
        &[
            (0, 2, Ok(1)),
            (30, 2, Err(30)),
            (59, 1, Ok(0)),
            (59, 1, Err(1)),
            (60, 3, Ok(0)),
            (60, 0, Ok(0)),
        ],
    );
    check(
        quota(1, Every::Hour),
        &[
            (3_599, 1, Ok(0)),
            (3_599, 1, Err(1)),
            (3_600, 1, Ok(0)),
            (3_601, 1, Err(3_599)),
        ],
    );
    check(
        quota(1, Every::Day),
        &[
            (60, 1, Ok(0)),
            (DAY - 1, 1, Err(1)),
            (DAY, 1, Ok(0)),
            (DAY + 7, 1, Err(DAY - 7)),
        ],
    );
    // Until Monday, 5 February.
    check(
        quota(1, Every::Week),
        &[(0, 1, Ok(0)), (DAY, 1, Err(4 * DAY)), (5 * DAY, 1, Ok(0))],
    );
    // February of 2024 has 29 days.
    check(
        quota(1, Every::Month),
        &[
            (0, 1, Ok(0)),
            (1, 1, Err(DAY - 1)),
            (DAY, 1, Ok(0)),
            (DAY, 1, Err(29 * DAY)),
            (30 * DAY, 1, Ok(0)),
        ],
    );
}

#[test]
fn what_costs_more_than_the_limit_never_passes() {
    let (usage, quota, now) = (Usage::new(), quota(3, Every::Day), at(0));
    assert_eq!(usage.take(&quota, now, 4), Err(Wait::FOR_EVER));
    assert_eq!(usage.take(&quota, now, u64::MAX), Err(Wait::FOR_EVER));
    assert_eq!(usage.wait_for(&quota, now, 4), None);
}

#[test]
fn a_clock_that_is_set_back_a_little_begins_no_other_period() {
    check(
        quota(2, Every::Minute),
        &[
            (120, 1, Ok(1)),
            (61, 1, Ok(0)),
            (60, 1, Err(120)),
            (179, 1, Err(1)),
            (180, 1, Ok(1)),
        ],
    );
    check(
        quota(1, Every::Hour),
        &[(3_600, 1, Ok(0)), (3_540, 1, Err(3_660)), (7_200, 1, Ok(0))],
    );
}

#[test]
fn what_a_later_period_has_counted_is_carried_into_that_of_now() {
    const YEAR: u64 = 366 * DAY;
    // An hour that was used up 68 years ahead ends with the current hour.
    check(
        quota(2, Every::Hour),
        &[
            (68 * YEAR, 1, Ok(1)),
            (60, 1, Ok(0)),
            (61, 1, Err(3_539)),
            (3_599, 1, Err(1)),
            (3_600, 2, Ok(0)),
        ],
    );
    for every in [Every::Minute, Every::Hour, Every::Day, Every::Week, Every::Month] {
        let (usage, quota, now) = (Usage::new(), quota(3, every), at(END_OF_JANUARY));
        for ahead in [2 * 31 * DAY, YEAR, 68 * YEAR, 10_000 * YEAR] {
            usage.set(&quota, at(END_OF_JANUARY + ahead), 2);
            let saved = usage.saved();
            assert!(saved.is_ahead(now), "{every:?} {ahead}");
            assert_eq!((usage.used(&quota, now), usage.balance(&quota, now)), (2, 1));
            assert_eq!(usage.wait_for(&quota, now, 2), Some(usage.ends_in(&quota, now)));
            assert!(usage.ends_in(&quota, now) <= Duration::from_secs(29 * DAY + DAY));
            assert!(!usage.is_idle(&quota, now));
            assert_eq!(usage.saved(), saved, "asking changes nothing");
            assert_eq!(usage.take(&quota, now, 1), Ok(Balance { tokens: 0 }));
            assert_eq!(
                usage.saved(),
                Saved {
                    since: every.start(now),
                    used: 3
                }
            );
        }
    }
}

#[test]
fn a_count_can_be_set() {
    let (usage, quota, now) = (Usage::new(), quota(3, Every::Hour), at(END_OF_JANUARY));
    usage.take(&quota, now, 2).unwrap();
    assert_eq!(usage.set(&quota, now, 0), 2);
    assert_eq!(usage.take(&quota, now, 3), Ok(Balance { tokens: 0 }));
    assert_eq!(usage.set(&quota, now, u64::MAX), 3);
    assert_eq!(usage.used(&quota, now), CalendarQuota::MOST);
    // Tokens used in an earlier period do not count in this one.
    assert_eq!(usage.set(&quota, at(END_OF_JANUARY + 3_600), 1), 0);
    assert_eq!(usage.balance(&quota, at(END_OF_JANUARY + 3_600)), 2);
}

#[test]
fn quotas_are_bounded() {
    let check = |limit, fits| assert_eq!(CalendarQuota::new(limit, Every::Day).is_ok(), fits, "{limit}");
    check(0, false);
    check(1, true);
    check((1 << 37) - 1, true);
    check(1 << 37, false);
    check(u64::MAX, false);
    assert!(CalendarQuotaError.to_string().contains("1 to 137438953471"));
}

#[test]
fn shows_what_was_used_since_when() {
    let (usage, quota) = (Usage::new(), quota(7, Every::Hour));
    usage.take(&quota, at(3_700), 5).unwrap();
    let shown = format!("{usage:?}");
    assert!(shown.contains(&format!("since: {:?}", at(3_600))), "{shown}");
    assert!(shown.contains("used: 5"), "{shown}");
    assert_eq!((quota.limit(), quota.every()), (7, Every::Hour));
}

#[test]
fn the_word_holds_the_largest_quota() {
    let (usage, quota, now) = (
        Usage::new(),
        quota(CalendarQuota::MOST, Every::Minute),
        at(4_102_444_800),
    );
    assert_eq!(usage.take(&quota, now, CalendarQuota::MOST), Ok(Balance { tokens: 0 }));
    usage.charge(&quota, now, u64::MAX);
    assert_eq!(
        (usage.saved().since, usage.used(&quota, now)),
        (now, CalendarQuota::MOST)
    );
}

#[test]
fn after_the_last_period_nothing_begins_anew() {
    let (usage, quota) = (Usage::new(), quota(1, Every::Minute));
    usage.take(&quota, at(60 << 27), 1).unwrap();
    assert!(usage.take(&quota, at(60 << 28), 1).is_err());
}

#[test]
fn a_charge_may_pass_the_limit_and_is_forgiven_at_the_end() {
    let (usage, quota) = (Usage::new(), quota(3, Every::Minute));
    assert_eq!(usage.charge(&quota, at(0), 2), Balance { tokens: 1 });
    assert_eq!(usage.charge(&quota, at(1), 9), Balance { tokens: 0 });
    assert_eq!(usage.used(&quota, at(59)), 11);
    assert_eq!(usage.take(&quota, at(59), 0), Err(Wait::of(Duration::from_secs(1))));
    assert_eq!(usage.take(&quota, at(60), 1), Ok(Balance { tokens: 2 }));
}

#[test]
fn a_refund_is_for_the_period_of_its_taking() {
    let (usage, quota) = (Usage::new(), quota(3, Every::Minute));
    usage.take(&quota, at(59), 2).unwrap();
    assert_eq!(usage.refund(&quota, at(59), at(0), 1), Balance { tokens: 2 });
    usage.take(&quota, at(60), 2).unwrap();
    assert_eq!(usage.refund(&quota, at(60), at(59), 1), Balance { tokens: 1 });
    assert_eq!(usage.refund(&quota, at(61), at(60), 9), Balance { tokens: 3 });
    assert!(usage.is_idle(&quota, at(61)));
}

#[test]
fn what_is_restored_counts_in_its_period() {
    let check = |saved: (u64, u64), now, expected: (u64, u64)| {
        let (usage, quota) = (Usage::new(), quota(10, Every::Minute));
        usage.take(&quota, at(120), 2).unwrap();
        let (since, used) = saved;
        usage.restore(&quota, at(now), Saved { since: at(since), used });
        let (since, used) = expected;
        assert_eq!(usage.saved(), Saved { since: at(since), used }, "{saved:?} at {now}");
    };
    check((120, 3), 125, (120, 5));
    check((60, 3), 125, (120, 2));
    // States that a state file written elsewhere may hold.
    check((130, 3), 125, (120, 5));
    // The saved period begins in the future, because the clock was set back by a little or by much.
    check((180, 3), 125, (180, 5));
    check((600, 3), 125, (120, 5));
    check((99_999_999_999, 3), 125, (120, 5));
    check((120, u64::MAX), 125, (120, CalendarQuota::MOST));
    // Both periods are over.
    check((120, 3), 300, (300, 0));
}

#[test]
fn what_was_used_is_carried_into_the_period_of_another_quota() {
    let check = |old: Every, new: Every, converted: u64, expected: (u64, u64)| {
        let (usage, old, new) = (Usage::new(), quota(10, old), quota(10, new));
        usage.take(&old, at(END_OF_JANUARY + 90), 4).unwrap();
        usage.carry_over(&old, &new, at(END_OF_JANUARY + converted));
        let (since, used) = expected;
        let since = at(END_OF_JANUARY + since);
        assert_eq!(usage.saved(), Saved { since, used }, "{old:?} to {new:?}");
    };
    check(Every::Month, Every::Minute, 130, (120, 4));
    check(Every::Day, Every::Hour, 3_700, (3_600, 4));
    check(Every::Minute, Every::Day, 100, (60, 4));
    check(Every::Minute, Every::Day, 130, (120, 0));
    check(Every::Minute, Every::Minute, 100, (60, 4));
    // The clock was set back: the current period goes on.
    check(Every::Minute, Every::Minute, 0, (60, 4));
    check(Every::Minute, Every::Hour, 0, (60, 4));
    check(Every::Hour, Every::Minute, 3_600, (3_600, 0));
}

#[test]
fn a_late_taking_under_the_old_quota_does_not_block_the_new() {
    let (usage, minutes, days) = (Usage::new(), quota(10, Every::Minute), quota(10, Every::Day));
    usage.carry_over(&minutes, &days, at(END_OF_JANUARY + 60));
    usage.take(&minutes, at(END_OF_JANUARY + 60), 3).unwrap();
    assert_eq!(usage.balance(&days, at(END_OF_JANUARY + 60)), 7);
    assert_eq!(usage.balance(&days, at(END_OF_JANUARY + DAY)), 10);
    usage.carry_over(&days, &minutes, at(END_OF_JANUARY + 120));
    usage.take(&days, at(END_OF_JANUARY + 120), 3).unwrap();
    assert_eq!(usage.balance(&minutes, at(END_OF_JANUARY + 120)), 4);
    assert_eq!(usage.balance(&minutes, at(END_OF_JANUARY + 180)), 10);
}

fn any_every() -> impl Strategy<Value = Every> {
    prop::sample::select(vec![Every::Minute, Every::Hour, Every::Day, Every::Week, Every::Month])
}

/// Returns a third of the shortest form of each period, so that steps meet its turns.
fn step(every: Every) -> u64 {
    match every {
        Every::Minute => 20,
        Every::Hour => 1_200,
        Every::Day => 8 * 3_600,
        Every::Week => 56 * 3_600,
        Every::Month => 9 * DAY,
    }
}

/// Steps: a take, a charge, or a refund of the oldest take that was not given back yet.
fn steps() -> impl Strategy<Value = Vec<(u8, u64, u64)>> {
    prop::collection::vec((0..6u8, 0..40u64, 0..5u64), 1..200)
}

proptest! {
    #![proptest_config(cases::counted())]

    /// Compares with a list of takes, each with the start of its period.
    #[test]
    fn counts_what_the_naive_list_does(every in any_every(), limit in 1..12u64, steps in steps()) {
        let (usage, quota) = (Usage::new(), quota(limit, every));
        let mut taken: Vec<(WallTime, u64)> = vec![];
        let mut seconds = END_OF_JANUARY;
        for (kind, pause, cost) in steps {
            seconds += pause * step(every) / 20;
            let now = at(seconds);
            let used = |taken: &[(WallTime, u64)]| -> u64 {
                taken.iter().filter(|(then, _)| every.start(*then) == every.start(now)).map(|(_, cost)| cost).sum()
            };
            let before = usage.saved();
            match kind {
                0..=3 => {
                    let fits = used(&taken) + cost <= limit;
                    prop_assert_eq!(usage.wait_for(&quota, now, cost) == Some(Duration::ZERO), fits);
                    let result = usage.take(&quota, now, cost);
                    prop_assert_eq!(result.is_ok(), fits);
                    if fits {
                        taken.push((now, cost));
                    } else {
                        prop_assert_eq!(usage.saved(), before);
                    }
                }
                4 => {
                    usage.charge(&quota, now, cost);
                    taken.push((now, cost));
                }
                _ if !taken.is_empty() => {
                    let (then, cost) = taken.remove(0);
                    usage.refund(&quota, now, then, cost);
                }
                _ => {}
            }
            prop_assert_eq!(usage.used(&quota, now), used(&taken));
            prop_assert_eq!(usage.balance(&quota, now), limit.saturating_sub(used(&taken)));
            prop_assert_eq!(usage.is_idle(&quota, now), used(&taken) == 0);
        }
    }

    #[test]
    fn the_reported_wait_is_exact(
        every in any_every(), limit in 1..100u64, charged in 0..200u64, cost in 0..100u64,
        seconds in 0..5_000_000_000u64, nanos in 0..1_000_000_000u32,
    ) {
        let cost = cost % (limit + 1);
        let (usage, quota) = (Usage::new(), quota(limit, every));
        let now = Duration::new(seconds, nanos);
        usage.charge(&quota, WallTime::since_epoch(now), charged);
        let wait = usage.wait_for(&quota, WallTime::since_epoch(now), cost).unwrap();
        if !wait.is_zero() {
            let refused = Err(Wait::of(wait));
            prop_assert_eq!(usage.take(&quota, WallTime::since_epoch(now), cost), refused);
            let early = WallTime::since_epoch(now + wait - Duration::from_nanos(1));
            prop_assert!(usage.take(&quota, early, cost).is_err());
        }
        prop_assert!(usage.take(&quota, WallTime::since_epoch(now + wait), cost).is_ok());
    }

    /// A clock that is set back takes nothing off the count, and no caller waits longer than the end of the current
    /// period plus the slack.
    #[test]
    fn a_clock_that_is_set_back_adds_no_token_and_freezes_nobody(
        every in any_every(), limit in 1..12u64, taken in 0..12u64, ahead in 0..40_000_000u64, later in 0..400u64,
    ) {
        let (usage, quota) = (Usage::new(), quota(limit, every));
        let taken = taken.min(limit);
        usage.take(&quota, at(END_OF_JANUARY + ahead), taken).unwrap();
        let now = at(END_OF_JANUARY);
        prop_assert_eq!(usage.used(&quota, now), taken);
        let longest = every.end(at(END_OF_JANUARY + 60)).elapsed() - now.elapsed();
        prop_assert!(usage.ends_in(&quota, now) <= longest);
        if usage.take(&quota, now, 1).is_ok() {
            prop_assert!(taken < limit);
        }
        // While the current period goes on, it counts what was taken before and since.
        let then = at(END_OF_JANUARY + later * step(every) / 400);
        if every.start(then) == every.start(now) {
            prop_assert_eq!(usage.used(&quota, then), usage.used(&quota, now));
        }
    }

    /// However the clock is set within the slack, no more than the limit is taken before a later period begins.
    #[test]
    fn a_clock_that_is_set_to_and_fro_a_little_never_adds(
        every in any_every(), limit in 1..12u64,
        schedule in prop::collection::vec((0..400u64, 0..60u64, 0..4u64), 1..200),
    ) {
        let (usage, quota) = (Usage::new(), quota(limit, every));
        let mut seconds = END_OF_JANUARY;
        let (mut latest, mut taken) = (WallTime::default(), 0);
        for (pause, back, cost) in schedule {
            seconds += pause * step(every) / 100;
            for now in [at(seconds), at(seconds - back)] {
                if usage.take(&quota, now, cost).is_ok() {
                    if every.start(now) > every.start(latest) {
                        (latest, taken) = (now, 0);
                    }
                    taken += cost;
                }
                prop_assert!(taken <= limit);
            }
        }
    }

    /// A restart with save and restore changes nothing, also if the new process takes tokens before the restore.
    #[test]
    fn a_restart_changes_nothing(
        every in any_every(), before in 0..20u64, since in 0..20u64, pause in 0..60u64,
    ) {
        let (kept, quota) = (Usage::new(), quota(15, every));
        kept.charge(&quota, at(END_OF_JANUARY), before);
        let restarted = Usage::new();
        let now = at(END_OF_JANUARY + pause * step(every) / 20);
        kept.charge(&quota, now, since);
        restarted.charge(&quota, now, since);
        restarted.restore(&quota, now, {
            let saved = Usage::new();
            saved.charge(&quota, at(END_OF_JANUARY), before);
            saved.saved()
        });
        prop_assert_eq!(restarted.used(&quota, now), kept.used(&quota, now));
        prop_assert_eq!(restarted.saved(), kept.saved());
    }

    #[test]
    fn another_period_never_adds(
        old in any_every(), new in any_every(), used in 0..20u64, pause in 0..400u64, back in any::<bool>(),
    ) {
        let (usage, old, new) = (Usage::new(), quota(15, old), quota(15, new));
        usage.charge(&old, at(END_OF_JANUARY), used);
        let pause = pause * step(old.every()) / 100;
        let now = at(if back { END_OF_JANUARY - pause } else { END_OF_JANUARY + pause });
        let before = usage.used(&old, now);
        usage.carry_over(&old, &new, now);
        prop_assert_eq!(usage.used(&new, now), before);
    }

    /// A request that begins under the old quota and ends under the new one neither adds nor loses tokens. A reload
    /// changed the period, and the request is settled or given back afterwards.
    #[test]
    fn what_ends_under_the_old_quota_forgets_nothing(
        old in any_every(), new in any_every(), used in 0..12u64, more in 0..12u64, back in 0..12u64, pause in 0..400u64,
    ) {
        let (usage, old, new) = (Usage::new(), quota(100, old), quota(100, new));
        let now = at(END_OF_JANUARY + pause * step(old.every()) / 100);
        usage.charge(&old, now, used);
        usage.carry_over(&old, &new, now);
        usage.charge(&new, now, more);
        usage.refund(&old, now, now, back);
        usage.charge(&old, now, 1);
        prop_assert_eq!(usage.used(&new, now), (used + more).saturating_sub(back) + 1);
    }
}
