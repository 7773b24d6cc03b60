use super::*;
use proptest::prelude::*;

const SETTINGS: OverloadSettings = OverloadSettings {
    delay: Duration::from_millis(20),
    period: Duration::from_millis(100),
};

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn at(milliseconds: u64) -> Moment {
    Moment::ZERO + ms(milliseconds)
}

/// A guard with its admission, and the time.
struct Scene {
    guard: OverloadGuard,
    admission: Admission,
    now: u64,
}

impl Scene {
    fn new() -> Scene {
        Scene {
            guard: OverloadGuard::new(SETTINGS, at(0)),
            admission: Admission::default(),
            now: 0,
        }
    }

    /// Lets one tick after the other come so late, 20 ms apart, for this time.
    fn late(&mut self, delay: u64, time: u64) -> Option<Period> {
        let end = self.now + time;
        let mut last = None;
        while self.now < end {
            self.now += 20 + delay;
            last = self.guard.tick(ms(delay), at(self.now), &self.admission).or(last);
        }
        last
    }

    /// Returns the share of this rank that is admitted, asked at even chances.
    fn admitted(&self, rank: usize) -> f64 {
        let chances = (0..1000).map(|chance| f64::from(chance) / 1000.0);
        chances.filter(|chance| self.admission.admits(rank, *chance)).count() as f64 / 1000.0
    }

    /// Lets newcomers come, so many of each rank.
    fn come(&self, ranks: &[usize]) {
        for (rank, count) in ranks.iter().enumerate() {
            for _ in 0..*count {
                self.admission.admits(rank, 0.5);
            }
        }
    }
}

#[test]
fn a_worker_that_keeps_up_refuses_nobody() {
    let mut scene = Scene::new();
    for delay in [0, 1, 19, 20, 5] {
        let period = scene.late(delay, 10_000).unwrap();
        assert_eq!((period.delay, period.share), (ms(delay), 0.0), "{delay}");
        assert!(scene.admission.is_open(), "{delay}");
    }
}

#[test]
fn one_late_tick_is_no_overload() {
    let mut scene = Scene::new();
    for late in [21, 100, 1_000, 60_000] {
        scene.late(late, 1);
        assert_eq!(scene.admitted(0), 1.0);
        scene.late(0, 200);
        assert!(scene.admission.is_open(), "{late}");
    }
}

#[test]
fn all_of_a_period_must_be_late() {
    let mut scene = Scene::new();
    for _ in 0..100 {
        scene.late(90, 90);
        scene.late(19, 1);
        scene.come(&[10]);
        assert_eq!(scene.admitted(0), 1.0);
    }
}

#[test]
fn the_cheapest_are_refused_first_and_the_next_if_that_is_not_enough() {
    let mut scene = Scene::new();
    let mut before = 1.0;
    let mut steps = Vec::new();
    for _ in 0..200 {
        scene.come(&[10, 10, 0, 10]);
        scene.late(60, 100);
        let shares = [0, 1, 2, 3].map(|rank| scene.admitted(rank));
        assert!(shares.is_sorted(), "{shares:?}");
        assert!(shares[0] <= before, "{shares:?}");
        before = shares[0];
        steps.push(shares);
    }
    assert!(
        steps.iter().any(|shares| shares[0] < 1.0 && shares[1] == 1.0),
        "{steps:?}"
    );
    assert!(
        steps.iter().any(|shares| shares[0] == 0.0 && shares[1] > 0.0),
        "{steps:?}"
    );
    let last = steps.last().unwrap();
    assert_eq!(&last[..3], [0.0; 3]);
    assert!(last[3] > 0.0, "some of the dearest are always admitted: {last:?}");
}

#[test]
fn a_rank_is_added_only_after_the_one_before_was_refused_for_a_period() {
    let mut scene = Scene::new();
    let mut whole = 0;
    for step in 1..12 {
        scene.come(&[10, 10, 10, 10]);
        scene.late(500 * step, 1);
        let refused = [0, 1, 2, 3].map(|rank| 1.0 - scene.admitted(rank));
        let begun = refused.iter().filter(|share| **share > 0.0).count();
        assert!(begun <= whole + 1, "{step}: {refused:?} after {whole}");
        whole = refused.iter().filter(|share| **share == 1.0).count();
    }
    assert_eq!(whole, 3);
}

/// A share of all newcomers, whatever their ranks.
#[test]
fn a_rank_without_newcomers_costs_no_time() {
    let refused = |ranks: &[usize]| {
        let mut scene = Scene::new();
        for _ in 0..3 {
            scene.come(ranks);
            scene.late(60, 100);
        }
        1.0 - scene.admitted(ranks.len() - 1)
    };
    let (alone, last) = (refused(&[100]), refused(&[0, 0, 0, 100]));
    assert!(alone > 0.01 && (alone - last).abs() < 0.002, "{alone} {last}");
}

#[test]
fn all_are_admitted_again_once_the_worker_keeps_up() {
    let mut scene = Scene::new();
    for _ in 0..50 {
        scene.come(&[10, 10]);
        scene.late(200, 200);
    }
    assert!(scene.admitted(0) == 0.0 && scene.admitted(1) < 0.2);
    let mut before = 0.0;
    for _ in 0..50 {
        scene.come(&[10, 10]);
        scene.late(0, 100);
        let admitted = scene.admitted(0);
        assert!(admitted >= before);
        before = admitted;
    }
    assert!(scene.admission.is_open());
}

#[test]
fn without_newcomers_nobody_is_refused() {
    let mut scene = Scene::new();
    scene.late(500, 60_000);
    assert_eq!(scene.admission.refused_ranks(), 0.0);
}

#[test]
fn ranks_beyond_the_last_are_one() {
    let scene = Scene::new();
    scene.admission.refuse(15.5);
    for rank in [15, 16, usize::MAX] {
        assert_eq!(scene.admitted(rank), 0.5, "{rank}");
    }
    assert_eq!(scene.admitted(14), 0.0);
    let parts = [0, 14, 15, 16, usize::MAX].map(|rank| scene.admission.refused_part(rank));
    assert_eq!(parts, [1.0, 1.0, 0.5, 0.5, 0.5]);
    assert_eq!(Admission::default().refused_part(0), 0.0);
}

#[test]
fn a_clock_that_runs_backwards_changes_nothing() {
    let mut scene = Scene::new();
    scene.guard = OverloadGuard::new(SETTINGS, at(50_000));
    scene.come(&[10]);
    assert_eq!(scene.late(100, 20_000), None);
    assert_eq!(scene.admitted(0), 1.0);
}

proptest! {
    #![proptest_config(cases::counted())]

    /// Whatever the delays: the share is one, a dearer rank never has it worse, and the guard is open if the share is 0.
    #[test]
    fn any_delays_keep_the_order_of_the_ranks(
        steps in prop::collection::vec((0..400_u64, 0..300_u64, prop::collection::vec(0..20_usize, 1..20)), 1..100),
    ) {
        let mut scene = Scene::new();
        for (delay, time, ranks) in steps {
            scene.come(&ranks);
            if let Some(period) = scene.late(delay, time) {
                prop_assert!((0.0..=0.95).contains(&period.share), "{}", period.share);
                prop_assert_eq!(scene.admission.is_open() && period.share > 0.0, false);
            }
            let shares: Vec<_> = (0..RANKS).map(|rank| scene.admitted(rank)).collect();
            prop_assert!(shares.is_sorted(), "{:?}", shares);
            prop_assert!(shares[RANKS - 1] > 0.0);
        }
    }
}
