//! Compares the balancing policies on simulated fleets with fixed seeds.
//!
//! Four scenarios have 12 endpoints with 4 servers each, and 3 gateways that see only their own calls in flight: even
//! load, one slow endpoint, four at half speed, and one that fails at once. The others have three endpoints and one
//! gateway with 40 callers, as in a load test.

mod fleet;

use fleet::{Behaviour, Calls, Done, Fleet, Policy};
use std::time::Duration;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const WELL: Behaviour = Behaviour {
    servers: 4,
    mean: 20.0,
    exponential: true,
    fails: 0.0,
    fails_after: 1.0,
    is_silent: false,
};

/// Calls a second that twelve such endpoints can answer.
const CAPACITY: f64 = 12.0 * 4.0 * 1_000.0 / 20.0;

struct Seen {
    /// In milliseconds.
    p99: f64,
    /// In percent.
    errors: f64,
}

/// Returns the median of three seeds.
fn twelve(change: impl Fn(usize, &mut Behaviour), load: f64, policy: Policy) -> Seen {
    let runs: Vec<_> = (1..=3)
        .map(|seed| {
            let mut behaviours = vec![WELL; 12];
            behaviours
                .iter_mut()
                .enumerate()
                .for_each(|(index, behaviour)| change(index, behaviour));
            let mut fleet = Fleet::new(behaviours, 3, policy, Calls::PerSecond(CAPACITY * load), seed);
            fleet.run(seconds(15));
            let done: Vec<_> = fleet.last(seconds(13)).copied().collect();
            Seen {
                p99: percentile(&done, 0.99),
                errors: errors(&done),
            }
        })
        .collect();
    let median = |of: fn(&Seen) -> f64| {
        let mut values: Vec<_> = runs.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[1]
    };
    Seen {
        p99: median(|seen| seen.p99),
        errors: median(|seen| seen.errors),
    }
}

fn percentile(done: &[Done], share: f64) -> f64 {
    let mut times: Vec<_> = done.iter().map(|done| done.took).collect();
    times.sort();
    times[(times.len() as f64 * share) as usize].as_secs_f64() * 1e3
}

fn errors(done: &[Done]) -> f64 {
    100.0 * done.iter().filter(|done| done.failed).count() as f64 / done.len() as f64
}

#[test]
fn load_is_no_worse_than_turn_on_an_even_fleet() {
    let even = |policy| twelve(|_, _| {}, 0.7, policy);
    let (load, turn) = (even(Policy::Load), even(Policy::Turn));
    assert!(load.p99 <= turn.p99, "{} {}", load.p99, turn.p99);
}

#[test]
fn load_beats_turn_and_fewest_calls_with_a_slow_endpoint() {
    let one_slow = |policy| {
        twelve(
            |index, endpoint| {
                if index == 0 {
                    endpoint.mean = 100.0
                }
            },
            0.6,
            policy,
        )
    };
    let (load, fewest, turn) = (
        one_slow(Policy::Load),
        one_slow(Policy::FewestInFlight),
        one_slow(Policy::Turn),
    );
    assert!(
        load.p99 < 120.0 && load.p99 <= fewest.p99 * 1.02,
        "{} {}",
        load.p99,
        fewest.p99
    );
    assert!(turn.p99 > 20.0 * load.p99, "{}", turn.p99);
}

#[test]
fn load_beats_turn_when_a_third_is_at_half_speed() {
    let four_slow = |policy| {
        twelve(
            |index, endpoint| {
                if index < 4 {
                    endpoint.mean = 40.0
                }
            },
            0.65,
            policy,
        )
    };
    let (load, fewest, turn) = (
        four_slow(Policy::Load),
        four_slow(Policy::FewestInFlight),
        four_slow(Policy::Turn),
    );
    assert!(load.p99 <= fewest.p99 * 1.1, "{} {}", load.p99, fewest.p99);
    assert!(turn.p99 > 5.0 * load.p99, "{}", turn.p99);
}

#[test]
fn an_endpoint_that_fails_at_once_is_not_mistaken_for_an_idle_one() {
    let failing = |policy| {
        twelve(
            |index, endpoint| {
                if index == 0 {
                    endpoint.fails = 0.9
                }
            },
            0.7,
            policy,
        )
    };
    let (load, fewest, turn) = (
        failing(Policy::Load),
        failing(Policy::FewestInFlight),
        failing(Policy::Turn),
    );
    assert!(load.errors <= 0.1, "{}", load.errors);
    assert!(
        turn.errors > 5.0 && fewest.errors > 10.0,
        "{} {}",
        turn.errors,
        fewest.errors
    );
}

/// Three endpoints that answer in 20 ms, the third of them changed; 40 callers.
fn three(policy: Policy, change: impl Fn(&mut Behaviour)) -> Fleet {
    let mut behaviours = vec![
        Behaviour {
            servers: 1_000,
            exponential: false,
            ..WELL
        };
        3
    ];
    change(&mut behaviours[2]);
    Fleet::new(behaviours, 1, policy, Calls::Callers(40), 11)
}

/// Share of the calls of the last `time` that went to the third endpoint, in percent.
fn share_of_third(fleet: &Fleet, time: Duration) -> f64 {
    let of_third = fleet.last(time).filter(|done| done.endpoint == 2).count();
    100.0 * of_third as f64 / fleet.last(time).count() as f64
}

#[test]
fn a_slow_endpoint_gets_a_few_percent_until_it_is_well() {
    let run = |policy| {
        let mut fleet = three(policy, |third| third.mean = 200.0);
        fleet.run(seconds(12));
        fleet
    };
    let (mut load, fewest) = (run(Policy::Load), run(Policy::FewestInFlight));
    let (mine, its) = (load.last(seconds(10)).count(), fewest.last(seconds(10)).count());
    let share = share_of_third(&load, seconds(10));
    assert!((1.0..=6.0).contains(&share), "{share}");
    assert!(mine as f64 >= 0.97 * its as f64, "{mine} {its}");
    load.behaviours[2].mean = 20.0;
    let mut shares = vec![];
    for _ in 0..18 {
        load.run(seconds(1));
        shares.push(share_of_third(&load, seconds(1)));
    }
    assert!(
        shares[14..].iter().all(|share| (28.0..=38.0).contains(share)),
        "{shares:.1?}"
    );
}

#[test]
fn of_three_one_that_fails_at_once_gets_under_one_percent() {
    let mut fleet = three(Policy::Load, |third| third.fails = 1.0);
    fleet.run(seconds(6));
    let done: Vec<_> = fleet.last(seconds(6)).copied().collect();
    assert!(errors(&done) <= 0.5, "{}", errors(&done));
    // Well again, it is back to an even share.
    fleet.behaviours[2].fails = 0.0;
    fleet.run(seconds(16));
    let share = share_of_third(&fleet, seconds(1));
    assert!((28.0..=38.0).contains(&share), "{share}");
}

#[test]
fn calls_do_not_pile_up_where_nothing_is_answered() {
    let mut fleet = three(Policy::Load, |_| {});
    fleet.run(seconds(2));
    fleet.behaviours[2].is_silent = true;
    fleet.peaks.fill(0);
    fleet.run(seconds(8));
    assert!(fleet.peaks[2] <= 2 * 40 / 3, "{:?}", fleet.peaks);
    let share = share_of_third(&fleet, seconds(4));
    assert!(share < 1.0, "{share}");
}
