use std::net::SocketAddr;

use policies::balance::{LoadSettings, Policy};
use policies::health::{State, WhenNoneIsUp};
use policies::{EjectionSettings, Ejector, Moment};

use super::*;
use crate::call::endpoints::tests::{member, origin, set, settings};
use crate::call::endpoints::{BalanceSettings, MOST_ADDRESSES, Written, WrittenEndpoints};

fn ports(set: &EndpointSet) -> Vec<u16> {
    set.load()
        .endpoints()
        .map(|endpoint| endpoint.address().port())
        .collect()
}

fn at(set: &EndpointSet, port: u16) -> Arc<Endpoint> {
    let all = set.load_full();
    let found = all.endpoints().find(|endpoint| endpoint.address().port() == port);
    Arc::clone(found.expect("it is in the set"))
}

fn choose(set: &EndpointSet) -> Option<EndpointGuard> {
    let settings = BalanceSettings {
        policy: Policy::Turn,
        ..BalanceSettings::default()
    };
    let pick = Pick {
        settings: &settings,
        tried: &[],
        key: None,
        none_up: WhenNoneIsUp::TryAll,
    };
    set.load().choose(&pick, Moment::ZERO)
}

const fn replaced(added: usize, removed: usize, left_out: usize) -> Replaced {
    Replaced {
        added,
        removed,
        left_out,
    }
}

#[test]
fn an_endpoint_that_stays_keeps_its_state() {
    let set = set([member(1), member(2)]);
    let (first, second) = (at(&set, 1), at(&set, 2));
    let told = set.replace(vec![member(3), member(2).weight(7)]);
    assert_eq!((told, ports(&set)), (replaced(1, 1, 0), vec![3, 2]));
    assert!(
        Arc::ptr_eq(&at(&set, 2), &second),
        "another weight makes no other endpoint"
    );
    assert_eq!(set.load().all()[1].weight, 7);
    assert!(second.is_member() && !first.is_member());
    // Listed twice is listed once; the first entry counts.
    assert_eq!(set.replace(vec![member(2), member(2).weight(9)]), replaced(0, 1, 0));
    assert_eq!((ports(&set), set.load().all()[0].weight), (vec![2], 1));
    assert_eq!(set.replace(vec![]), replaced(0, 1, 0));
    assert!(choose(&set).is_none());
}

#[test]
fn the_same_members_swap_nothing() {
    let set = set([member(1), member(2)]);
    let before = set.load_full();
    assert_eq!(set.replace(vec![member(1), member(2)]), Replaced::default());
    assert!(Arc::ptr_eq(&before, &set.load_full()));
    set.replace(vec![member(1), member(2).only_serving()]);
    assert!(!Arc::ptr_eq(&before, &set.load_full()));
}

#[test]
fn one_that_vanishes_ends_what_it_has_and_is_forgotten_after_the_last_exchange() {
    let set = set([member(1)]);
    let exchange = choose(&set).expect("it is there");
    let other = choose(&set).expect("it is there");
    assert_eq!(exchange.load.in_flight(), 2);
    drop(other);
    set.replace(vec![member(2)]);
    assert_eq!((exchange.load.in_flight(), exchange.is_member()), (1, false));
    let vanished = exchange.id();
    // It returns while it still has an exchange.
    set.replace(vec![member(1)]);
    assert_eq!((at(&set, 1).id(), at(&set, 1).load.in_flight()), (vanished, 1));
    assert!(exchange.is_member());
    set.replace(vec![member(2)]);
    drop(exchange);
    set.replace(vec![member(1)]);
    assert!(at(&set, 1).id() != vanished && at(&set, 1).load.in_flight() == 0);
}

#[test]
fn two_sets_share_the_endpoints_that_both_hold() {
    let registry = Arc::new(Registry::default());
    let old = EndpointSet::new(Arc::clone(&registry), settings(), vec![member(1), member(2)]);
    let new = EndpointSet::new(Arc::clone(&registry), settings(), vec![member(2), member(3)]);
    assert!(Arc::ptr_eq(&at(&old, 2), &at(&new, 2)));
    let gone = at(&old, 1);
    old.close();
    assert!(!gone.is_member() && at(&new, 2).is_member());
    // Calls that began with the old set still find its endpoints, and a late resolution changes nothing.
    assert_eq!(old.replace(vec![]), Replaced::default());
    assert_eq!(ports(&old), [1, 2]);
    assert!(old.is_closed() && at(&new, 2).is_member());
    // In other protocols connections cannot be shared.
    let http2 = EndpointSettings {
        in_http2: true,
        ..settings()
    };
    let other = EndpointSet::new(registry, http2, vec![member(2)]);
    assert!(!Arc::ptr_eq(&at(&new, 2), &at(&other, 2)));
}

#[test]
fn a_set_is_bounded() {
    let too_many = (1..=1030).map(member).collect();
    assert_eq!(set([]).replace(too_many), replaced(MOST_ENDPOINTS, 0, 6));
}

/// Name with these addresses: the last parts of 10.0.0.0/24.
fn found(last: impl IntoIterator<Item = u8>) -> std::io::Result<Vec<SocketAddr>> {
    Ok(last
        .into_iter()
        .map(|last| SocketAddr::from(([10, 0, 0, last], 80)))
        .collect())
}

fn written(hosts: &[&str]) -> WrittenEndpoints {
    let all = hosts.iter().map(|host| Written {
        origin: origin(&format!("http://{host}")),
        host: (*host).to_owned(),
        port: 80,
        weight: 3,
    });
    WrittenEndpoints::new(all.collect())
}

/// Resolves with an injected resolver, and returns the names that it failed for.
fn resolve(
    set: &EndpointSet,
    written: &WrittenEndpoints,
    lookup: impl Fn(&str) -> std::io::Result<Vec<SocketAddr>>,
) -> Vec<String> {
    let resolving = written.resolve(set.registry(), |host, _| std::future::ready(lookup(host)));
    let (members, failed) = futures_util::FutureExt::now_or_never(resolving).expect("it never waits");
    set.replace(members);
    failed.into_iter().map(|(origin, _)| origin.url.to_string()).collect()
}

fn last_parts(set: &EndpointSet) -> Vec<String> {
    let all = set.load();
    let ips = all.endpoints().map(|endpoint| endpoint.address().ip().to_string());
    ips.map(|ip| ip.rsplit('.').next().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn every_address_of_a_name_is_an_endpoint() {
    let written = written(&["users", "10.0.0.99", "orders"]);
    let set = set(written.members(&Registry::default()));
    assert_eq!(last_parts(&set), ["99"], "names are not resolved yet");
    let named = |host: &str| {
        if host == "users" {
            found([3, 1, 2, 1])
        } else {
            found([7])
        }
    };
    assert!(resolve(&set, &written, named).is_empty());
    assert_eq!(last_parts(&set), ["1", "2", "3", "99", "7"]);
    let all = set.load_full();
    let names: Vec<_> = all.endpoints().map(|endpoint| &*endpoint.name).collect();
    assert_eq!(names[0], "http://users (10.0.0.1:80)");
    assert_eq!(names[3], "http://10.0.0.99");
    assert!(
        all.all().iter().all(|listed| listed.weight == 3),
        "each has the weight of its name"
    );
    // The resolver changes the order with each answer.
    resolve(&set, &written, |host| {
        if host == "users" { found([2, 1, 3]) } else { found([7]) }
    });
    assert!(Arc::ptr_eq(&all, &set.load_full()));
}

#[test]
fn a_failed_or_empty_resolution_keeps_the_last_addresses() {
    let written = written(&["users", "orders"]);
    let set = set([]);
    resolve(
        &set,
        &written,
        |host| if host == "users" { found([1, 2]) } else { found([7]) },
    );
    let failing = |host: &str| match host {
        "users" => Err(std::io::Error::other("no answer")),
        _ => found([8]),
    };
    assert_eq!(resolve(&set, &written, failing), ["http://users"]);
    assert_eq!(last_parts(&set), ["1", "2", "8"]);
    assert_eq!(
        resolve(&set, &written, |_| found([])),
        ["http://users", "http://orders"]
    );
    assert_eq!(last_parts(&set), ["1", "2", "8"]);
    // A set whose URLs changed begins with the addresses that are in use.
    assert_eq!(written.members(set.registry()).len(), 3);
}

#[test]
fn a_name_has_so_many_addresses_at_most() {
    let written = written(&["users"]);
    let set = set([]);
    resolve(&set, &written, |_| found(0..=255));
    assert_eq!(set.load().all().len(), MOST_ADDRESSES);
}

#[test]
fn one_bad_address_of_ten_is_ejected_alone() {
    let written = written(&["users"]);
    let set = set([]);
    resolve(&set, &written, |_| found(1..=10));
    let ejector = Ejector::new(Some(EjectionSettings::default()));
    let mut failures = 0;
    for _ in 0..1000 {
        let endpoint = choose(&set).expect("ten");
        let is_bad = endpoint.address().ip().to_string() == "10.0.0.4";
        failures += usize::from(is_bad);
        let all = set.load();
        ejector.record(&endpoint.standing, all.standings(), Moment::ZERO, is_bad, Moment::ZERO);
        // Its name is resolved again, which does not bring it back.
        resolve(&set, &written, |_| found(1..=10));
    }
    assert_eq!(failures, 5);
    let all = set.load();
    let out: Vec<_> = all
        .standings()
        .map(|standing| standing.is_ejected(Moment::ZERO))
        .collect();
    assert_eq!(out, (1..=10).map(|last| last == 4).collect::<Vec<_>>());
}

#[test]
fn a_drain_holds_for_an_address_that_goes_and_returns() {
    let set = set([member(1), member(2)]);
    let address = at(&set, 1).address();
    let is_drained = |set: &EndpointSet| at(set, 1).state(Moment::ZERO) == State::Drained;
    let changed = |is_drained| {
        let found = set.registry().drain(address, is_drained)?;
        Some(found.iter().map(|(_, has_changed)| *has_changed).collect::<Vec<_>>())
    };
    assert_eq!((changed(true), changed(true)), (Some(vec![true]), Some(vec![false])));
    assert!(is_drained(&set) && at(&set, 2).state(Moment::ZERO).is_up());
    // It returns as another endpoint, since nothing held the first.
    set.replace(vec![member(2)]);
    set.replace(vec![member(1), member(2)]);
    assert!(is_drained(&set));
    // The drain can be taken back while the address is away.
    set.replace(vec![member(2)]);
    assert_eq!(changed(false), Some(vec![]));
    assert_eq!((changed(false), changed(true)), (None, None), "nothing has the address");
    set.replace(vec![member(1), member(2)]);
    assert!(!is_drained(&set));
}

#[test]
fn an_endpoint_that_joins_others_warms_up() {
    let set = set([member(1), member(2)]);
    let warm = |port| at(&set, port).load.warm(&LoadSettings::default(), clock::now());
    assert_eq!((warm(1), warm(2)), (1.0, 1.0), "all are new");
    set.replace(vec![member(1), member(2), member(3)]);
    assert!(warm(3) < 0.2 && warm(1) == 1.0);
    let registry = Arc::clone(&set.registry);
    let next = EndpointSet::new(registry, settings(), vec![member(1), member(4)]);
    let all = next.load_full();
    let joined = &all.all()[1].endpoint;
    assert!(
        joined.load.warm(&LoadSettings::default(), clock::now()) < 0.2,
        "also by a reload"
    );
}
