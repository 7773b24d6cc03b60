//! Tests what of a backend's endpoints outlives a plan.

use std::net::SocketAddr;

use policies::Moment;

use super::*;
use crate::call::endpoints::{Endpoint, Found, Member};
use crate::control::reload;
use crate::plan::compile::test_plan::{self, state};

const TOP: &str = "listeners: { public: { address: \"127.0.0.1:0\" } }\n\
                   callers: { anonymous: { by: client_address } }\n\
                   routes: { r: { match: { path: / }, access: { any_of: [anonymous] }, backend: b } }\n";

fn compiled(state: &State, backend: &str) -> Plan {
    let text = format!("{TOP}backends: {{ b: {{ {backend} }} }}");
    test_plan::plan(&text, state)
}

/// Puts a config in force.
fn reloaded(state: &State, backend: &str) -> Plan {
    let plan = compiled(state, backend);
    reload::take_effect(&plan, state);
    plan
}

/// Gives a name of a backend these addresses, as a resolution would.
fn resolve(plan: &Plan, last: &[u8]) {
    let backend = &plan.backends[0];
    let found = backend.written.all().iter().flat_map(|written| {
        let of = |last: &u8| {
            let address = SocketAddr::from(([10, 0, 0, *last], written.port));
            Member::new(Arc::clone(&written.origin), address, written.weight)
        };
        last.iter().map(of)
    });
    backend.endpoints.replace(found.collect());
}

fn endpoints(plan: &Plan) -> Vec<Arc<Endpoint>> {
    plan.backends[0].endpoints.load().endpoints().cloned().collect()
}

fn are_same(one: &[Arc<Endpoint>], other: &[Arc<Endpoint>]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| Arc::ptr_eq(one, other))
}

const NAME: &str = r#"endpoints: [{ url: "http://users:8080" }]"#;

#[test]
fn a_reload_keeps_endpoints_and_the_addresses_of_names() {
    let state = state();
    let first = reloaded(&state, NAME);
    resolve(&first, &[1, 2]);
    let before = endpoints(&first);
    // The same endpoints are the same set, so that a resolution that is under way counts for the new plan.
    let second = reloaded(&state, &format!("{NAME}, time_limit: 1s"));
    assert!(Arc::ptr_eq(&first.backends[0].endpoints, &second.backends[0].endpoints));
    // Another weight and one more URL make another set with the same endpoints.
    let third = reloaded(
        &state,
        r#"endpoints: [{ url: "http://users:8080", weight: 5 }, { url: "http://10.0.0.9" }]"#,
    );
    assert!(are_same(&before, &endpoints(&third)[..2]));
    assert_eq!(endpoints(&third).len(), 3);
    // A late resolution for the old plan changes nothing.
    resolve(&second, &[7]);
    assert!(are_same(&before, &endpoints(&second)));
    assert!(are_same(&before, &endpoints(&third)[..2]));
}

#[test]
fn a_plan_that_is_not_put_in_force_changes_nothing() {
    let state = state();
    let first = reloaded(&state, NAME);
    resolve(&first, &[1]);
    drop(compiled(
        &state,
        r#"endpoints: [{ url: "http://users:8080" }, { url: "http://10.0.0.9" }]"#,
    ));
    assert!(!first.backends[0].endpoints.is_closed());
    let second = reloaded(&state, NAME);
    assert!(are_same(&endpoints(&first), &endpoints(&second)));
}

#[test]
fn what_a_plan_no_longer_names_is_forgotten() {
    let state = state();
    let first = reloaded(&state, NAME);
    resolve(&first, &[1]);
    let second = reloaded(&state, r#"endpoints: [{ url: "http://10.0.0.9" }]"#);
    assert!(first.backends[0].endpoints.is_closed());
    let third = reloaded(&state, NAME);
    assert!(endpoints(&third).is_empty(), "it was not in use any more");
    assert!(second.backends[0].endpoints.is_closed());
    assert_eq!(state.kept().endpoint_sets.len(), 1);
}

#[test]
fn other_protocols_share_no_endpoint() {
    let state = state();
    let first = reloaded(&state, NAME);
    resolve(&first, &[1]);
    let second = reloaded(&state, &format!("{NAME}, protocol: h2c"));
    let (before, now) = (endpoints(&first), endpoints(&second));
    assert_eq!(before[0].address(), now[0].address(), "the address of a name is known");
    assert!(!are_same(&before, &now));
}

/// Gives a backend whose name is looked up these addresses.
fn find(plan: &Plan, last: &[u8]) {
    let set = &plan.backends[0].endpoints;
    let discovery = set.discovery().expect("it has a source");
    let naming = discovery.source.naming().expect("it is a name");
    let members = last.iter().map(|last| {
        let address = SocketAddr::from(([10, 0, 0, *last], 8080));
        Member::new(naming.origin(8080).expect("a URL"), address, 1)
    });
    set.take(discovery, Found::Members(members.collect()), Moment::ZERO);
}

const SOURCE: &str = "endpoints: { dns: users, port: 8080 }";

#[test]
fn a_reload_that_does_not_change_a_source_keeps_its_set_and_what_is_known_of_it() {
    let state = state();
    let first = reloaded(&state, SOURCE);
    find(&first, &[1, 2]);
    let second = reloaded(&state, &format!("{SOURCE}, time_limit: 1s"));
    let set = &second.backends[0].endpoints;
    assert!(Arc::ptr_eq(&first.backends[0].endpoints, set) && !set.is_closed());
    let discovery = set.discovery().expect("it has a source");
    assert_eq!(discovery.status().answered, Some(Moment::ZERO));
}

#[test]
fn another_source_begins_with_the_endpoints_in_use() {
    let state = state();
    let first = reloaded(&state, r#"endpoints: [{ url: "http://10.0.0.1:80", weight: 3 }]"#);
    let before = endpoints(&first);
    // From a list to a name.
    let second = reloaded(&state, SOURCE);
    assert!(are_same(&before, &endpoints(&second)) && first.backends[0].endpoints.is_closed());
    assert_eq!(second.backends[0].endpoints.load().all()[0].weight, 3);
    let known = second.backends[0]
        .endpoints
        .discovery()
        .expect("it has a source")
        .status();
    assert_eq!(known.answered, None, "the source itself has not answered yet");
    // From a name to another one.
    find(&second, &[1, 2]);
    let before = endpoints(&second);
    let third = reloaded(&state, "endpoints: { dns: orders, port: 8080, refresh: 1m }");
    assert!(before.len() == 2 && are_same(&before, &endpoints(&third)));
    find(&third, &[2]);
    assert_eq!(endpoints(&third).len(), 1);
}

#[test]
fn the_same_source_in_another_protocol_begins_with_its_addresses() {
    let state = state();
    let first = reloaded(&state, SOURCE);
    find(&first, &[1, 2]);
    let second = reloaded(&state, &format!("{SOURCE}, protocol: h2c"));
    let (before, now) = (endpoints(&first), endpoints(&second));
    let addresses = |all: &[Arc<Endpoint>]| all.iter().map(|endpoint| endpoint.address()).collect::<Vec<_>>();
    assert_eq!(addresses(&before), addresses(&now));
    assert!(!are_same(&before, &now));
    // What is spoken with the endpoints of another source is not known.
    let third = reloaded(&state, "endpoints: { dns: orders, port: 8080 }");
    assert!(endpoints(&third).is_empty());
}

#[test]
fn endpoints_are_taken_over_only_with_the_tls_that_is_asked_for() {
    const TLS: &str = "tls: { ca_file: ../fixtures/configs/callers-ca.pem }";
    let both = format!(r#"endpoints: [{{ url: "http://10.0.0.1" }}, {{ url: "https://10.0.0.2" }}], {TLS}"#);
    for (next, expected) in [
        ("endpoints: { dns: users }".to_owned(), "10.0.0.1:80"),
        (
            format!("endpoints: {{ dns: users, scheme: https }}, {TLS}"),
            "10.0.0.2:443",
        ),
    ] {
        let state = state();
        let first = reloaded(&state, &both);
        let second = reloaded(&state, &next);
        let taken = endpoints(&second);
        assert_eq!((endpoints(&first).len(), taken.len()), (2, 1), "{next}");
        assert_eq!(taken[0].address().to_string(), expected, "{next}");
    }
}
