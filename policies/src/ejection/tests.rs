use super::*;
use proptest::prelude::*;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn at(milliseconds: u64) -> Moment {
    Moment::ZERO + ms(milliseconds)
}

/// Three failures in a row; 1 s, then twice as long each time, up to 5 s.
fn settings() -> EjectionSettings {
    EjectionSettings {
        consecutive: NonZeroU32::new(3).unwrap(),
        eject_for: ms(1_000),
        growth: 2.0,
        eject_for_max: ms(5_000),
        share: Ratio::new(0.5).unwrap(),
    }
}

struct Group {
    ejector: Ejector,
    standings: Vec<Standing>,
}

impl Group {
    fn of(count: usize) -> Group {
        Group {
            ejector: Ejector::new(Some(settings())),
            standings: (0..count).map(|_| Standing::default()).collect(),
        }
    }

    /// Attempts that begin and end at once, one for each letter: `S` succeeds, `F` fails.
    fn attempts(&self, of: usize, outcomes: &str, now: u64) -> Vec<Change> {
        let record = |outcome| self.record(of, now, outcome == 'F', now);
        outcomes.chars().filter_map(record).collect()
    }

    fn record(&self, of: usize, began: u64, failed: bool, now: u64) -> Option<Change> {
        self.ejector
            .record(&self.standings[of], &self.standings, at(began), failed, at(now))
    }

    fn out(&self, now: u64) -> Vec<usize> {
        let is_out = |index: &usize| self.standings[*index].is_ejected(at(now));
        (0..self.standings.len()).filter(is_out).collect()
    }
}

fn ejected(milliseconds: u64, ejections: u32) -> Change {
    Change::Ejected {
        eject_for: ms(milliseconds),
        ejections,
    }
}

#[test]
fn failures_ejections_put_an_endpoint_out_for_a_while() {
    let check = |outcomes: &str, expected: &[Change]| {
        assert_eq!(Group::of(2).attempts(0, outcomes, 100), expected, "{outcomes}");
    };
    check("FF", &[]);
    check("FFSFFS", &[]);
    check("FFF", &[ejected(1_000, 1)]);
    check("SFFSFFF", &[ejected(1_000, 1)]);
    // Further failures of an ejected endpoint change nothing.
    check("FFFFFFFF", &[ejected(1_000, 1)]);

    let group = Group::of(2);
    group.attempts(0, "FFF", 100);
    for (now, out) in [(99, vec![]), (100, vec![0]), (1_099, vec![0]), (1_100, vec![])] {
        assert_eq!(group.out(now), out, "at {now}");
    }
    assert_eq!(group.standings[0].left(at(600)), Some(ms(500)));
}

#[test]
fn the_share_is_a_setting_and_one_is_always_in() {
    let check = |share: f64, count: usize, most: usize| {
        let settings = EjectionSettings {
            share: Ratio::new(share).unwrap(),
            ..settings()
        };
        let group = Group {
            ejector: Ejector::new(Some(settings)),
            ..Group::of(count)
        };
        (0..count).for_each(|index| drop(group.attempts(index, "FFF", 0)));
        assert_eq!(group.out(0).len(), most, "{share} of {count}");
    };
    for (count, most) in [(1, 0), (2, 1), (3, 2), (10, 9)] {
        check(1.0, count, most);
    }
    for (count, most) in [(2, 0), (4, 1), (9, 2)] {
        check(0.25, count, most);
    }
    check(0.1, 10, 1);
    check(0.0, 10, 0);
}

#[test]
fn what_is_shown_to_be_reachable_returns_at_once() {
    let group = Group::of(2);
    group.attempts(0, "FFF", 100);
    let bring_back = |of: usize, now| group.ejector.bring_back(&group.standings[of], at(now));
    assert_eq!(bring_back(1, 200), None, "it is in");
    assert_eq!(bring_back(0, 200), Some(Change::Returned));
    assert_eq!((group.out(200), bring_back(0, 200)), (vec![], None));
    // The return is reported once, and an attempt that began earlier does not count.
    assert_eq!(group.attempts(0, "S", 200), []);
    assert_eq!(group.record(0, 199, true, 300), None);
    assert_eq!(group.attempts(0, "FFF", 300), [ejected(2_000, 2)]);
    // A clock that ran back to before the ejection leaves no endpoint ejected.
    group.ejector.bring_back(&group.standings[0], at(400));
    assert_eq!(group.out(350), [0; 0]);
}

#[test]
fn no_more_than_half_are_out() {
    for (count, most) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (6, 3)] {
        let group = Group::of(count);
        (0..count).for_each(|index| drop(group.attempts(index, "FFF", 0)));
        assert_eq!(group.out(0), (0..most).collect::<Vec<_>>(), "of {count}");
    }
    // An endpoint that failed while no more could be ejected is ejected at its next failure, once there is room.
    let group = Group::of(2);
    group.attempts(0, "FFF", 0);
    group.attempts(1, "FFFFF", 10);
    assert_eq!(group.out(1_000), [0; 0]);
    assert_eq!(group.attempts(1, "F", 1_000), [ejected(1_000, 1)]);
}

#[test]
fn each_time_is_longer_until_it_has_stayed_in() {
    let group = Group::of(2);
    let mut now = 0;
    for (ejections, time) in [(1, 1_000), (2, 2_000), (3, 4_000), (4, 5_000), (5, 5_000)] {
        assert_eq!(group.attempts(0, "FFF", now).last(), Some(&ejected(time, ejections)));
        now += time;
    }
    assert_eq!(group.attempts(0, "S", now), [Change::Returned]);
    assert_eq!(group.attempts(0, "FFF", now + 4_999).last(), Some(&ejected(5_000, 6)));
    now += 4_999 + 5_000;
    assert_eq!(group.attempts(0, "FFF", now + 5_000).last(), Some(&ejected(1_000, 1)));
}

#[test]
fn a_return_is_told_once() {
    let group = Group::of(2);
    group.attempts(0, "FFF", 0);
    assert_eq!(group.attempts(0, "SF", 999), []);
    assert_eq!(group.attempts(0, "FSFS", 1_000), [Change::Returned]);
}

#[test]
fn what_began_before_the_return_does_not_count() {
    let group = Group::of(2);
    group.attempts(0, "FFF", 100);
    for _ in 0..10 {
        assert_eq!(group.record(0, 99, true, 5_000), None);
        assert_eq!(group.record(0, 1_099, true, 5_000), None);
    }
    assert_eq!(group.record(0, 1_100, true, 5_000), Some(Change::Returned));
    assert_eq!(group.record(0, 1_100, true, 5_000), None);
    assert_eq!(group.record(0, 1_100, true, 5_000), Some(ejected(2_000, 2)));
}

#[test]
fn time_running_backwards_leaves_nobody_out() {
    let group = Group::of(2);
    group.attempts(0, "FFF", 10_000);
    assert_eq!(group.out(9_999), [0; 0]);
    assert_eq!(group.attempts(0, "FFFFSFFF", 5_000), []);
    assert_eq!(group.out(11_000), [0; 0]);
    assert_eq!(group.attempts(0, "FFF", 11_000).last(), Some(&ejected(2_000, 2)));
}

#[test]
fn other_settings_hold_at_once() {
    let group = Group::of(4);
    (0..2).for_each(|index| drop(group.attempts(index, "FFF", 0)));
    let shorter = EjectionSettings {
        consecutive: NonZeroU32::MIN,
        eject_for_max: ms(400),
        ..settings()
    };
    group.ejector.reconfigure(Some(shorter), &group.standings, at(100));
    assert_eq!((group.out(499), group.out(500)), (vec![0, 1], vec![]));
    assert_eq!(group.attempts(2, "F", 500), [ejected(400, 1)]);

    group.ejector.reconfigure(None, &group.standings, at(600));
    assert_eq!(group.out(600), [0; 0]);
    assert_eq!(group.attempts(3, "FFFFFF", 600), []);
}

#[test]
fn with_fewer_endpoints_those_return_that_would_be_back_first() {
    let group = Group::of(6);
    for (index, now) in [(1, 0), (0, 100), (2, 200)] {
        group.attempts(index, "FFF", now);
    }
    let left = &group.standings[..3];
    group.ejector.reconfigure(Some(settings()), left, at(300));
    assert_eq!(group.out(300), [2]);
}

/// Implements the same rules with plain fields.
#[derive(Clone, Default)]
struct Naive {
    streak: u32,
    out: Option<(u64, u64)>,
    ejections: u32,
}

impl Naive {
    fn is_out(&self, now: u64) -> bool {
        self.out.is_some_and(|(from, until)| (from..until).contains(&now))
    }

    fn record(all: &mut [Naive], of: usize, began: u64, failed: bool, now: u64) {
        let out = all.iter().filter(|one| one.is_out(now)).count();
        let room = (out + 1) * 2 <= all.len();
        let one = &mut all[of];
        if one.out.is_some_and(|(_, until)| began < until) {
            return;
        }
        one.streak = if failed { one.streak + 1 } else { 0 };
        if one.streak >= 3 && room {
            let stayed_in = one.out.is_none_or(|(_, until)| now >= until + 5_000);
            one.ejections = if stayed_in { 1 } else { one.ejections + 1 };
            let time = (1_000 << (one.ejections - 1).min(10)).min(5_000);
            (one.out, one.streak) = (Some((now, now + time)), 0);
        }
    }
}

proptest! {
    #![proptest_config(cases::counted())]

    #[test]
    fn does_as_the_plain_rules_say(
        count in 1..7usize,
        schedule in prop::collection::vec((0..700u64, 0..7usize, 0..2_000u64, 0..4u8), 1..300),
    ) {
        let group = Group::of(count);
        let mut naive = vec![Naive::default(); count];
        let (mut now, mut told) = (0, vec![]);
        for (pause, which, took, success) in schedule {
            now += pause;
            let (of, began, failed) = (which % count, now.saturating_sub(took), success > 0);
            let before = naive[of].out;
            told.extend(group.record(of, began, failed, now));
            Naive::record(&mut naive, of, began, failed, now);
            if naive[of].out != before {
                let (from, until) = naive[of].out.unwrap();
                prop_assert_eq!(told.last(), Some(&ejected(until - from, naive[of].ejections)));
            }
            let out = group.out(now);
            let expected: Vec<_> = (0..count).filter(|index| naive[*index].is_out(now)).collect();
            prop_assert_eq!(&out, &expected);
            prop_assert!(out.len() * 2 <= count && out.len() < count, "{out:?} of {count}");
        }
        // In the end all endpoints are back, and healthy ones stay.
        now += 5_000;
        prop_assert_eq!(group.out(now), [0; 0]);
        for of in 0..count {
            group.attempts(of, "SSSS", now);
        }
        prop_assert_eq!(group.out(now), [0; 0]);
    }

    #[test]
    fn half_are_always_in_whatever_the_clock_and_the_reloads_do(
        schedule in prop::collection::vec((0..10_000u64, 0..6usize, 0..10u8, 1..7usize), 1..300),
    ) {
        let group = Group::of(6);
        let (mut count, mut now) = (6, 0);
        for (instant, which, choice, other_count) in schedule {
            match choice {
                0 => {
                    count = other_count;
                    group.ejector.reconfigure(Some(settings()), &group.standings[..count], at(now));
                }
                1 => now = instant,
                _ => now += instant % 300,
            }
            let (of, all) = (&group.standings[which % count], &group.standings[..count]);
            group.ejector.record(of, all, at(now), choice > 2, at(now));
            let out = all.iter().filter(|one| one.is_ejected(at(now))).count();
            prop_assert!(out * 2 <= count, "{out} of {count}");
        }
    }
}

#[test]
fn an_ejection_of_another_process_goes_on() {
    let (old, new) = (Group::of(2), Group::of(2));
    old.attempts(0, "FFF", 0);
    let ejection = old.standings[0].ejection(at(100)).unwrap();
    new.standings[0].restore(ejection);
    assert_eq!((new.out(100), new.out(999), new.out(1_000)), (vec![0], vec![0], vec![]));
    assert_eq!(new.attempts(0, "S", 1_000), [Change::Returned]);
    // The next one is longer.
    new.attempts(0, "FFF", 1_001);
    assert_eq!((new.out(2_900), new.out(3_100)), (vec![0], vec![]));
}
