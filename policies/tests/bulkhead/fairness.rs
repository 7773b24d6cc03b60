//! Checks that a saturated backend is shared fairly.

use crate::simulation::{Backend, Fates, Tenant, run};
use proptest::prelude::*;
use std::time::Duration;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Backend of 20 slots with calls of 100 ms: 200 calls a second.
const BACKEND: Backend = Backend {
    limit: 20,
    queue: 40,
    tenant_share: 1.0,
    service: ms(100),
    wakes_after: Duration::ZERO,
};

/// Returns a tenant of a tier of weight 1 that sends this many calls a second, and waits long.
fn tenant(id: u64, per_second: f64) -> Tenant {
    Tenant {
        id,
        tier: 0,
        weight: 1,
        every: Duration::from_secs_f64(1.0 / per_second),
        patience: Duration::from_secs(5),
        watches_the_clock: true,
    }
}

/// Returns Jain's fairness index: 1 if all are served the same, 1 / n if one gets everything (Jain, Chiu and Hawe,
/// 1984).
fn jain(fates: &[Fates]) -> f64 {
    let sum: f64 = fates.iter().map(|fates| fates.served as f64).sum();
    let squares: f64 = fates.iter().map(|fates| (fates.served as f64).powi(2)).sum();
    sum * sum / (fates.len() as f64 * squares)
}

#[test]
fn a_quiet_tenant_is_served_as_if_it_were_alone() {
    let check = |backend: Backend, seed| {
        let long = Duration::from_secs(100);
        let (quiet, loud) = (tenant(1, 10.0), tenant(2, 1_000.0));
        let alone = &run(backend, &[quiet], long, seed)[0];
        let both = run(backend, &[quiet, loud], long, seed);
        let beside = &both[0];
        assert_eq!((beside.full, beside.timed_out), (0, 0), "none of its calls is refused");
        assert_eq!(beside.served, alone.served);
        let (mean, p99) = (beside.mean() / alone.mean(), beside.p99() / alone.p99());
        assert!(
            mean <= 1.2,
            "it takes {mean} times as long on average, with seed {seed}"
        );
        assert!(p99 <= 1.2, "its p99 is {p99} times as long, with seed {seed}");
        assert!(both[1].full > both[1].served, "the other one saturates the backend");
        beside.mean()
    };
    for seed in 0..3 {
        let fair = check(BACKEND, seed);
        let capped = Backend {
            tenant_share: 0.9,
            ..BACKEND
        };
        assert!(check(capped, seed) < fair, "room that is kept is there at once");
    }
}

/// Shows the sensitivity of these tests: with first come, first served, the quiet caller waits as long as the loud one.
#[test]
fn within_one_tenant_there_is_no_fairness() {
    let long = Duration::from_secs(50);
    let (quiet, loud) = (tenant(1, 10.0), tenant(1, 1_000.0));
    let alone = &run(BACKEND, &[quiet], long, 1)[0];
    let beside = &run(BACKEND, &[quiet, loud], long, 1)[0];
    assert!(beside.full > beside.served && beside.mean() > 1.5 * alone.mean());
}

#[test]
fn tiers_are_served_by_weight() {
    let check = |weights: &[u32], tenants_each: u64| {
        let tiers = (0..).zip(weights);
        let tenants: Vec<_> = tiers
            .flat_map(|(tier, &weight)| {
                (0..tenants_each).map(move |number| Tenant {
                    tier,
                    weight,
                    ..tenant(u64::from(tier) * 100 + number, 400.0)
                })
            })
            .collect();
        let backend = Backend { queue: 200, ..BACKEND };
        let fates = run(backend, &tenants, Duration::from_secs(100), 7);
        let all: u64 = fates.iter().map(|fates| fates.served).sum();
        for (tier, weight) in weights.iter().enumerate() {
            let of_tier = tenants
                .iter()
                .zip(&fates)
                .filter(|(tenant, _)| tenant.tier == tier as u32);
            let share = of_tier.map(|(_, fates)| fates.served).sum::<u64>() as f64 / all as f64;
            let due = f64::from(*weight) / f64::from(weights.iter().sum::<u32>());
            assert!(
                (share / due - 1.0).abs() <= 0.05,
                "{weight} of {weights:?}: {share}, due {due}"
            );
        }
    };
    check(&[1, 2, 4, 8], 1);
    check(&[1, 8], 3);
    check(&[3, 7], 2);
    check(&[1, 1, 1], 1);
}

#[test]
fn what_is_idle_is_borrowed() {
    let long = Duration::from_secs(100);
    let served = |tenants: &[Tenant], share| {
        let backend = Backend {
            tenant_share: share,
            ..BACKEND
        };
        run(backend, tenants, long, 3)[0].served as f64
    };
    // A single tenant gets the whole backend: 200 calls a second.
    let lone = served(&[tenant(1, 1_000.0)], 1.0);
    assert!((lone / 20_000.0 - 1.0).abs() <= 0.05, "{lone}");
    // Next to a tier of eight times the weight it gets what that tier leaves, a tenth of it.
    let heavy = Tenant {
        tier: 1,
        weight: 8,
        ..tenant(2, 20.0)
    };
    let beside = served(&[tenant(1, 1_000.0), heavy], 1.0);
    assert!((beside / 18_000.0 - 1.0).abs() <= 0.05, "{beside}");
    // With a share of 0.5, half of the slots are kept for other tenants.
    let capped = served(&[tenant(1, 1_000.0)], 0.5);
    assert!((capped / 10_000.0 - 1.0).abs() <= 0.05, "{capped}");
}

/// The simulation asserts that no call starts after its deadline, and that no slot is held without a call.
#[test]
fn who_is_late_is_dropped_before_it_is_served() {
    for watches_the_clock in [true, false] {
        for wakes_after in [Duration::ZERO, ms(5)] {
            let hurried = Tenant {
                patience: ms(30),
                watches_the_clock,
                ..tenant(1, 300.0)
            };
            let patient = tenant(2, 20.0);
            let backend = Backend { wakes_after, ..BACKEND };
            let fates = run(backend, &[hurried, patient], Duration::from_secs(50), 11);
            assert!(
                fates[0].timed_out > 1_000,
                "{watches_the_clock}: {} are late",
                fates[0].timed_out
            );
            assert_eq!((fates[1].full, fates[1].timed_out), (0, 0));
            // The others use what the late callers do not use.
            let served = fates[0].served + fates[1].served;
            assert!(served as f64 > 0.9 * 10_000.0, "{served} of 10000 in {wakes_after:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..cases::counted() })]

    /// Tenants that saturate a backend together are served the same, however much more than its part each sends.
    #[test]
    fn saturating_tenants_are_served_alike(
        limit in 1..16u32, places in 2..8u32, share in prop::sample::select(vec![0.5, 0.8, 1.0]),
        times_its_part in prop::collection::vec(2.0..20.0f64, 2..7), wakes_after in 0..3u64,
        seed: u64,
    ) {
        let tenants = times_its_part.len();
        let capacity = f64::from(limit) / BACKEND.service.as_secs_f64();
        let backend = Backend {
            limit,
            queue: places * tenants as u32,
            tenant_share: share,
            wakes_after: ms(wakes_after),
            ..BACKEND
        };
        let part = capacity / tenants as f64;
        let tenants: Vec<_> = (1..).zip(times_its_part).map(|(id, times)| tenant(id, times * part)).collect();
        let fates = run(backend, &tenants, Duration::from_secs_f64(400.0 / part), seed);
        let index = jain(&fates);
        let served: Vec<_> = fates.iter().map(|fates| fates.served).collect();
        prop_assert!(index >= 0.95, "{index}: {served:?}");
    }

    /// Whatever the tenants of any tier send, and however long they wait: the assertions of the simulation hold, each
    /// call has one outcome, and the bulkhead counts the same outcomes.
    #[test]
    fn every_call_has_one_outcome(
        limit in 1..8u32, queue in 0..12u32, share in prop::sample::select(vec![0.01, 0.4, 0.7, 1.0]),
        crowd in prop::collection::vec((0..3u32, 1..9u32, 1.0..300.0f64, 0..400u64, any::<bool>()), 1..6),
        wakes_after in 0..20u64, seed: u64,
    ) {
        let backend = Backend {
            limit,
            queue,
            tenant_share: share,
            service: ms(20),
            wakes_after: ms(wakes_after),
        };
        let tenants: Vec<_> = (0..).zip(crowd).map(|(id, (tier, weight, per_second, patience, watches_the_clock))| Tenant {
            tier,
            weight,
            patience: ms(patience),
            watches_the_clock,
            ..tenant(id, per_second)
        }).collect();
        run(backend, &tenants, Duration::from_secs(10), seed);
    }
}
