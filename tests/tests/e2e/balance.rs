//! Checks that calls go where they wait least, in turn, or to the endpoint of their key.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use fixtures::fleet::{Behaviour, Fault, Fleet, Handle, Latency};
use futures_util::future::{join_all, select_all};
use serde_json::Value;
use tests::configs::Config;
use tests::{Gateway, eventually};

use crate::{SOON, backends, one_backend};

const ALONE: &str = "retry: off, breaker: off, ejection: off";

async fn start<const N: usize>(names: [&str; N], more: &str) -> (Fleet, [Handle; N], Gateway) {
    let (fleet, endpoints) = backends(names).await;
    let addresses = endpoints.each_ref().map(Handle::address);
    let config = Config::default()
        .backend_of("api", addresses, more)
        .open_route("api", "api", "");
    (fleet, endpoints, Gateway::start(config.to_string()).await)
}

/// Sends so many requests, ten at once. Returns how many were answered with something else than 200.
async fn failures(gateway: &Gateway, requests: usize) -> usize {
    let (sent, failed) = (Cell::new(0), Cell::new(0));
    let caller = async || {
        while sent.replace(sent.get() + 1) < requests {
            let answer = gateway.get("/api/echo").send().await;
            failed.set(failed.get() + usize::from(answer.status != 200));
        }
    };
    join_all((0..10).map(|_| caller())).await;
    failed.get()
}

/// Sends 300 requests, ten at once, and returns how many an endpoint got.
async fn share_of(endpoint: &Handle, gateway: &Gateway) -> u64 {
    let before = endpoint.counts().requests;
    assert_eq!(failures(gateway, 300).await, 0);
    endpoint.counts().requests - before
}

fn slow(ms: u64) -> Behaviour {
    Behaviour::late(Latency::fixed(ms))
}

#[tokio::test]
async fn a_slow_endpoint_gets_few_calls_and_an_even_share_once_it_is_well() {
    let (_fleet, endpoints, gateway) = start(["slow", "one", "other"], ALONE).await;
    for (endpoint, ms) in endpoints.iter().zip([100, 10, 10]) {
        endpoint.behave(slow(ms)).await;
    }
    let few = share_of(&endpoints[0], &gateway).await;
    assert!((1..=45).contains(&few), "{few} of 300");
    endpoints[0].behave(slow(10)).await;
    let is_back = || async { (share_of(&endpoints[0], &gateway).await >= 60).then_some(()) };
    eventually(Duration::from_secs(60), "it has a fifth of the calls", is_back).await;
}

#[tokio::test]
async fn an_endpoint_that_fails_at_once_does_not_look_idle() {
    let (_fleet, [sick, one, other], gateway) = start(["sick", "one", "other"], ALONE).await;
    sick.behave(Behaviour::status(500)).await;
    for endpoint in [&one, &other] {
        endpoint.behave(slow(5)).await;
    }
    let failed = failures(&gateway, 1000).await;
    // An even share would be 333.
    assert!(failed <= 100, "{failed} of 1000");
}

/// A backend that limits one caller has as much room for all others as before.
#[tokio::test]
async fn a_429_for_one_caller_keeps_no_other_away() {
    let (_fleet, [one, other], gateway) = start(["one", "other"], ALONE).await;
    let limited = Fault::Status {
        status: 429,
        retry_after_s: Some(60),
    };
    one.behave(Behaviour::always(limited)).await;
    other.behave(slow(10)).await;
    assert!(failures(&gateway, 50).await > 0);
    one.behave(slow(10)).await;
    let share = share_of(&one, &gateway).await;
    assert!(share >= 75, "{share} of 300");
}

#[tokio::test]
async fn calls_do_not_pile_up_at_an_endpoint_that_says_nothing() {
    let (_fleet, [silent, one, other], gateway) = start(["silent", "one", "other"], ALONE).await;
    silent.behave(Behaviour::always(Fault::Hang)).await;
    for endpoint in [&one, &other] {
        endpoint.behave(slow(5)).await;
    }
    // Twenty callers, each of whom waits for its answer.
    let answered = Cell::new(0);
    let caller = async || {
        while answered.get() < 500 {
            gateway.get("/api/echo").send().await.expect(200);
            answered.set(answered.get() + 1);
        }
    };
    // The first that is told that all are answered ends the test; those at the silent one would wait for long.
    let callers: Vec<_> = (0..20).map(|_| Box::pin(caller())).collect();
    select_all(callers).await;
    let held = silent.in_flight();
    assert!(held <= 10, "{held} of 20");
    let told = gateway.admin_json("/api/v1/backends").await;
    let seen = told["backends"][0]["endpoints"][0]["in_flight"].as_u64();
    assert!(seen.is_some_and(|seen| seen <= 10), "{told}");
}

#[tokio::test]
async fn in_turn_each_gets_its_share_exactly() {
    let (_fleet, endpoints, gateway) =
        start(["slow", "one", "other"], &format!("{ALONE}, balance: {{ by: turn }}")).await;
    endpoints[0].behave(slow(30)).await;
    assert_eq!(share_of(&endpoints[0], &gateway).await, 100);
}

#[tokio::test]
async fn what_the_choice_goes_by_can_be_seen() {
    let (_fleet, _endpoints, gateway) = start(["one", "other"], ALONE).await;
    assert_eq!(failures(&gateway, 20).await, 0);
    let told = gateway.admin_json("/api/v1/backends").await;
    let backend = &told["backends"][0];
    assert_eq!(backend["balance"]["by"], "load");
    assert_eq!(backend["balance"]["failure_costs_ms"], 1000);
    assert_eq!(backend["balance"]["warm_up_ms"], 10_000);
    for endpoint in backend["endpoints"].as_array().expect("a list") {
        assert!(endpoint["latency_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{endpoint}");
        assert_eq!(endpoint["in_flight"], 0, "{endpoint}");
        assert_eq!(endpoint["weight"], 1, "{endpoint}");
        assert_eq!(endpoint["warm"], 1.0, "{endpoint}");
    }
}

/// Sends each of 40 users three times, and returns how many endpoints each of them met, by the path of its requests.
async fn met(
    gateway: &Gateway,
    endpoints: &[Handle],
    path: impl Fn(u32) -> String,
    field: Option<&'static str>,
) -> Vec<usize> {
    for endpoint in endpoints {
        endpoint.take_requests();
    }
    for user in (0..40).chain(0..40).chain(0..40) {
        let mut request = gateway.get(&path(user)).header("x-number", &user.to_string());
        if let Some(field) = field {
            let value = if field == "cookie" {
                format!("a=1; sid={user}; b={user}")
            } else {
                user.to_string()
            };
            request = request.header(field, &value);
        }
        request.send().await.expect(200);
    }
    let mut met = BTreeMap::<String, usize>::new();
    for endpoint in endpoints {
        let mut users: Vec<_> = endpoint
            .take_requests()
            .iter()
            .filter_map(|request| request.header("x-number").map(str::to_owned))
            .collect();
        assert!(users.len() < 100, "{}: not all of them", endpoint.name());
        users.sort();
        users.dedup();
        for user in users {
            *met.entry(user).or_default() += 1;
        }
    }
    met.into_values().collect()
}

#[tokio::test]
async fn calls_of_one_key_meet_the_same_endpoint() {
    for (key, field) in [
        ("header.x-room", Some("x-room")),
        ("cookie.sid", Some("cookie")),
        ("path.rest", None),
    ] {
        let balance = format!("{ALONE}, balance: {{ by: hash, key: {key} }}");
        let (_fleet, endpoints, gateway) = start(["one", "two", "three"], &balance).await;
        let path = |user| {
            if field.is_none() {
                format!("/api/{user}")
            } else {
                "/api/echo".to_owned()
            }
        };
        assert_eq!(met(&gateway, &endpoints, path, field).await, [1; 40], "{key}");
        let told = gateway.admin_json("/api/v1/backends").await;
        assert_eq!(told["backends"][0]["balance"]["key"], key);
    }
}

#[tokio::test]
async fn calls_of_one_tenant_meet_the_same_endpoint() {
    // All anonymous callers are one tenant.
    let balance = format!("{ALONE}, balance: {{ by: hash, key: tenant }}");
    let (_fleet, endpoints, gateway) = start(["one", "two", "three"], &balance).await;
    for _ in 0..30 {
        gateway.get("/api/echo").send().await.expect(200);
    }
    let mut counts = endpoints.each_ref().map(|endpoint| endpoint.counts().requests);
    counts.sort_unstable();
    assert_eq!(counts, [0, 0, 30]);
}

#[tokio::test]
async fn an_endpoint_is_an_address_of_its_name() {
    let (_fleet, backend) = one_backend("api").await;
    let port = backend.address().port();
    let config = format!(
        "{}backends:\n  api: {{ endpoints: [{{ url: \"http://localhost:{port}\" }}], retry: off }}\n  \
         none: {{ endpoints: [{{ url: \"http://nowhere.invalid:1\" }}], retry: off }}\n{}",
        "", ""
    );
    let text = Config::default()
        .open_route("api", "api", "")
        .open_route("none", "none", "")
        .to_string()
        .replace("routes:\n", &format!("{config}routes:\n"));
    let gateway = Gateway::start(text).await;
    let answers = || async { (gateway.get("/api/echo").send().await.status == 200).then_some(()) };
    eventually(SOON, "the name is resolved", answers).await;
    gateway.get("/none/echo").send().await.refusal(503, "no_endpoint");
    let told = gateway.admin_json("/api/v1/backends?q=api").await;
    let endpoints = told["backends"][0]["endpoints"].as_array().expect("a list");
    let is_own = |endpoint: &&Value| endpoint["address"] == format!("127.0.0.1:{port}");
    let own = endpoints.iter().find(is_own).unwrap_or_else(|| panic!("{told}"));
    assert_eq!(own["url"], format!("http://localhost:{port}"));
    let told = gateway.admin_json("/api/v1/backends?q=none").await;
    assert_eq!(told["backends"][0]["endpoints"][0]["address"], Value::Null);
}
