//! Checks on a simulated worker that an overload costs the cheapest tiers, and neither the others nor the throughput.

mod worker;

use worker::{Counts, Worker};

/// Most callers are of the cheapest tier.
const MIX: [f64; 4] = [0.75, 0.09, 0.08, 0.08];

/// Runs a worker at this multiple of what it can do. Counts begin after ten seconds: before, the worker has to work off
/// what came while nobody was refused.
fn overloaded(load: f64, mix: [f64; 4], service: f64, seed: u64) -> Counts {
    let mut worker = Worker::new(mix, service, seed);
    worker.load = load;
    worker.run(10.0);
    worker.counts = Counts::default();
    worker.run(50.0);
    worker.counts
}

#[test]
fn at_three_times_the_load_the_dearest_are_served_and_the_cheapest_refused() {
    for (service, seed) in [(0.0002, 1), (0.0002, 2), (0.001, 3), (0.001, 4), (0.001, 5)] {
        let counts = overloaded(3.0, MIX, service, seed);
        let [cheapest, .., dearest] = counts.served_shares();
        assert!(dearest >= 0.99, "{service} {seed}: {counts:?}");
        assert!(cheapest < 0.2, "{service} {seed}: {counts:?}");
        assert!(counts.share_of_refusals(0) >= 0.9, "{service} {seed}: {counts:?}");
        assert!(counts.busy_with_answers() >= 0.9, "{service} {seed}: {counts:?}");
    }
}

#[test]
fn a_single_tier_is_refused_as_far_as_it_must_be() {
    for (mix, load) in [([1.0, 0.0, 0.0, 0.0], 3.0), ([0.0, 0.0, 0.0, 1.0], 1.5), (MIX, 1.3)] {
        let counts = overloaded(load, mix, 0.001, 6);
        assert!(counts.busy_with_answers() >= 0.9, "{load} {counts:?}");
    }
}

#[test]
fn a_worker_that_keeps_up_refuses_next_to_nobody() {
    for (load, service) in [(0.5, 0.001), (0.8, 0.001), (0.8, 0.0002)] {
        let counts = overloaded(load, MIX, service, 7);
        let [cheapest, .., dearest] = counts.served_shares();
        assert!(cheapest > 0.999 && dearest == 1.0, "{load} {service}: {counts:?}");
    }
}

#[test]
fn all_are_served_again_soon_after_the_load_has_gone() {
    let mut worker = Worker::new(MIX, 0.001, 8);
    worker.load = 3.0;
    worker.run(30.0);
    worker.load = 0.7;
    worker.run(5.0);
    worker.counts = Counts::default();
    worker.run(30.0);
    assert_eq!(worker.counts.refused, [0; 4]);
}
