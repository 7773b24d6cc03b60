use std::sync::Arc;

use policies::health::{Probe, WhenNoneIsUp};
use policies::{EjectionSettings, Ejector, HealthSettings};

use super::*;
use crate::call::endpoints::EndpointGuard;
use crate::call::endpoints::set::EndpointSet;
use crate::call::endpoints::tests::{member, set};

fn ids(set: &EndpointSet, indexes: &[usize]) -> Vec<EndpointId> {
    indexes
        .iter()
        .map(|index| set.load().all[*index].endpoint.id())
        .collect()
}

fn pick(set: &EndpointSet, policy: Policy, tried: &[EndpointId]) -> Option<EndpointGuard> {
    let settings = BalanceSettings {
        policy,
        ..BalanceSettings::default()
    };
    let pick = Pick {
        settings: &settings,
        tried,
        key: None,
        none_up: WhenNoneIsUp::TryAll,
    };
    set.load().choose(&pick, Moment::ZERO)
}

#[test]
fn another_endpoint_is_preferred_after_a_failure() {
    let set = set([member(1).weight(3), member(2)]);
    let tried = ids(&set, &[0]);
    for policy in Policy::ALL {
        for _ in 0..8 {
            let chosen = pick(&set, policy, &tried).expect("two endpoints");
            assert_eq!(chosen.address().port(), 2);
        }
    }
}

#[test]
fn the_endpoint_of_a_copy_is_chosen_without_a_trace() {
    let set = set([member(1), member(2)]);
    let settings = BalanceSettings {
        policy: Policy::Turn,
        ..BalanceSettings::default()
    };
    let mut aside = [0; 2];
    let mut last = None;
    for number in 0..200 {
        let in_turn = pick(&set, Policy::Turn, &[]).expect("two endpoints").address().port();
        assert_ne!(last.replace(in_turn), Some(in_turn), "copies use up no turns");
        for _ in 0..number % 3 {
            let pick = Pick {
                settings: &settings,
                tried: &[],
                key: None,
                none_up: WhenNoneIsUp::TryAll,
            };
            let endpoint = set.load().choose_aside(&pick, Moment::ZERO).expect("two endpoints");
            assert_eq!(endpoint.load.in_flight(), 0);
            aside[usize::from(endpoint.address().port()) - 1] += 1;
        }
    }
    assert!(aside.iter().all(|count| *count > 50), "by chance: {aside:?}");
}

/// Counts how often each endpoint is chosen.
fn chosen<const N: usize>(set: &EndpointSet, tried: &[usize]) -> [usize; N] {
    let tried = ids(set, tried);
    let mut chosen = [0; N];
    for _ in 0..600 {
        let endpoint = pick(set, Policy::Turn, &tried).expect("one is always in");
        chosen[usize::from(endpoint.address().port()) - 1] += 1;
    }
    chosen
}

fn eject(set: &EndpointSet, index: usize) {
    let ejector = Ejector::new(Some(EjectionSettings::default()));
    let all = set.load();
    for _ in 0..5 {
        let standing = &all.all[index].endpoint.standing;
        ejector.record(standing, all.standings(), Moment::ZERO, true, Moment::ZERO);
    }
}

/// Ejects the first endpoint of a backend with these weights, and counts how often each endpoint is chosen.
fn chosen_without_the_first<const N: usize>(weights: [u32; N], tried: &[usize]) -> [usize; N] {
    let set = set((1..).zip(weights).map(|(n, weight)| member(n).weight(weight)));
    eject(&set, 0);
    chosen(&set, tried)
}

#[test]
fn the_turns_of_an_ejected_endpoint_are_shared_by_the_others() {
    assert_eq!(chosen_without_the_first([1, 1], &[]), [0, 600]);
    assert_eq!(chosen_without_the_first([1, 1, 1, 1], &[]), [0, 200, 200, 200]);
    assert_eq!(chosen_without_the_first([1, 2, 1], &[]), [0, 400, 200]);
    let heavy = chosen_without_the_first([100, 1, 1], &[]);
    assert!(heavy[0] == 0 && heavy[1].abs_diff(heavy[2]) < 20, "{heavy:?}");
}

#[test]
fn an_endpoint_that_is_out_is_tried_when_all_that_are_in_have_failed() {
    assert_eq!(chosen_without_the_first([1, 1, 1], &[1]), [0, 0, 600]);
    assert_eq!(chosen_without_the_first([1, 1, 1], &[1, 2]), [600, 0, 0]);
    assert_eq!(chosen_without_the_first([1, 1], &[1]), [600, 0]);
    // After all have been tried, the choice is not the latest and not ejected, where possible.
    assert_eq!(chosen_without_the_first([1, 1, 1], &[0, 1, 2]), [0, 600, 0]);
    assert_eq!(chosen_without_the_first([1, 1], &[0, 1]), [0, 600]);
    assert!(pick(&set([]), Policy::Turn, &[]).is_none());
}

#[test]
fn an_endpoint_that_is_about_to_end_is_used_only_without_a_ready_one() {
    let both = || set([member(1), member(2).only_serving(), member(3)]);
    assert_eq!(chosen(&both(), &[]), [300, 0, 300]);
    assert_eq!(chosen(&both(), &[0, 2]), [0, 600, 0]);
    let one_is_out = set([member(1), member(2).only_serving()]);
    eject(&one_is_out, 0);
    assert_eq!(chosen(&one_is_out, &[]), [0, 600]);
    assert_eq!(
        chosen(&set([member(1).only_serving(), member(2).only_serving()]), &[]),
        [300, 300]
    );
}

/// Lets probes of an endpoint fail until it is down.
fn take_down(set: &EndpointSet, index: usize) {
    let endpoint = Arc::clone(&set.load().all[index].endpoint);
    for _ in 0..3 {
        let probe = Probe {
            began: Moment::ZERO,
            succeeded: false,
        };
        endpoint
            .health
            .record(probe, None, &HealthSettings::default(), Moment::ZERO);
    }
}

#[test]
fn an_endpoint_that_is_down_is_left_out_as_one_that_is_ejected() {
    let set = set([member(1), member(2), member(3)]);
    take_down(&set, 0);
    assert_eq!(chosen(&set, &[]), [0, 300, 300]);
    assert_eq!(chosen(&set, &[1]), [0, 0, 600]);
    // The last resort is one that is down, before one that was tried.
    assert_eq!(chosen(&set, &[1, 2]), [600, 0, 0]);
    take_down(&set, 1);
    eject(&set, 2);
    assert!(set.load().is_degraded(Moment::ZERO));
    let all: [usize; 3] = chosen(&set, &[]);
    assert!(all.iter().all(|count| *count == 200), "{all:?}");
    set.load().all[0].endpoint.health.drain(true);
    let without: [usize; 3] = chosen(&set, &[]);
    assert_eq!(without[0], 0, "one that is drained is never tried");
}

#[test]
fn an_endpoint_that_is_not_up_is_not_tried_if_calls_are_to_be_refused() {
    let refuse = |set: &EndpointSet, tried: &[usize]| {
        let pick = Pick {
            settings: &BalanceSettings::default(),
            tried: &ids(set, tried),
            key: None,
            none_up: WhenNoneIsUp::Refuse,
        };
        let chosen = set.load().choose(&pick, Moment::ZERO);
        chosen.map(|endpoint| endpoint.address().port())
    };
    let pair = set([member(1), member(2)]);
    take_down(&pair, 0);
    assert_eq!(refuse(&pair, &[]), Some(2));
    assert!(
        !pair
            .load()
            .has_another(&ids(&pair, &[1]), WhenNoneIsUp::Refuse, Moment::ZERO)
    );
    assert!(
        pair.load()
            .has_another(&ids(&pair, &[1]), WhenNoneIsUp::TryAll, Moment::ZERO)
    );
    take_down(&pair, 1);
    assert_eq!(refuse(&pair, &[]), None);
    let only = set([member(1)]);
    assert_eq!(refuse(&only, &[]), Some(1));
    take_down(&only, 0);
    assert_eq!(refuse(&only, &[]), None);
    assert_eq!(chosen(&only, &[]), [600]);
}

#[test]
fn an_exchange_counts_until_it_ends_and_sends_others_elsewhere() {
    let set = set([member(1), member(2)]);
    let busy: Vec<_> = (0..10).map(|_| pick(&set, Policy::Load, &ids(&set, &[1]))).collect();
    let all = set.load_full();
    assert_eq!(all.all()[0].endpoint.load.in_flight(), 10);
    for _ in 0..10 {
        let chosen = pick(&set, Policy::Load, &[]).expect("two endpoints");
        assert_eq!(chosen.address().port(), 2);
    }
    drop(busy);
    assert_eq!(all.all()[0].endpoint.load.in_flight(), 0);
}

#[test]
fn calls_of_one_key_meet_the_same_endpoint() {
    let settings = BalanceSettings {
        policy: Policy::Hash,
        key: Some(RequestKey::Tenant),
        load: LoadSettings::default(),
    };
    let asked = |set: &EndpointSet, key: u64| {
        let pick = Pick {
            settings: &settings,
            tried: &[],
            key: Some(policies::balance::hash::of(&key.to_be_bytes())),
            none_up: WhenNoneIsUp::TryAll,
        };
        let chosen = set.load().choose(&pick, Moment::ZERO).expect("there are endpoints");
        chosen.address().port()
    };
    let three = set((1..=3).map(member));
    // Another gateway lists them in another order.
    let replica = set([member(3), member(1), member(2)]);
    let two = set((1..=2).map(member));
    let mut shares = [0; 3];
    for key in 0..3000 {
        let port = asked(&three, key);
        shares[usize::from(port) - 1] += 1;
        assert_eq!(port, asked(&replica, key));
        if port < 3 {
            assert_eq!(port, asked(&two, key), "only the keys of an endpoint that goes move");
        }
    }
    assert!(shares.iter().all(|share| (900..1100).contains(share)), "{shares:?}");
}
