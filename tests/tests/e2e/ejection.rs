//! One bad endpoint of several is left out by itself: its callers stop seeing failures, and the backend stays open.

use fixtures::fleet::{Behaviour, Fault, Fleet, Handle};
use serde_json::Value;
use tests::configs::Config;
use tests::{Gateway, eventually};

use crate::{SOON, backends};

/// Three failures in a row, and out for longer than a test lasts. Nothing is tried twice.
const EJECTION: &str = "retry: off, breaker: off, attempt_limit: 400ms, ejection: { consecutive: 3, eject_for: 1h }";

async fn start<const N: usize>(names: [&str; N], guards: &str) -> (Fleet, [Handle; N], Gateway) {
    let (fleet, endpoints) = backends(names).await;
    let addresses = endpoints.each_ref().map(Handle::address);
    let config = Config::default()
        .backend_of("api", addresses, guards)
        .open_route("api", "api", "");
    (fleet, endpoints, Gateway::start(config.to_string()).await)
}

/// So many requests, one after another; how many of them had this status.
async fn with_status(gateway: &Gateway, requests: usize, status: u16) -> usize {
    let mut found = 0;
    for _ in 0..requests {
        found += usize::from(gateway.get("/api/echo").send().await.status == status);
    }
    found
}

async fn ejected(gateway: &Gateway) -> f64 {
    gateway.metric("gateway_endpoints_ejected", &[("backend", "api")]).await
}

async fn ejections(gateway: &Gateway) -> f64 {
    gateway
        .metric("gateway_endpoint_ejections_total", &[("backend", "api")])
        .await
}

#[tokio::test]
async fn an_endpoint_that_keeps_failing_is_left_out() {
    for failure in [
        Behaviour::status(503),
        Behaviour::always(Fault::Reset),
        Behaviour::refusing(),
    ] {
        let (_fleet, [sick, one, other], gateway) = start(["sick", "one", "other"], EJECTION).await;
        sick.behave(failure.clone()).await;
        assert_eq!(with_status(&gateway, 60, 200).await, 57, "{failure:?}");
        assert_eq!((ejected(&gateway).await, ejections(&gateway).await), (1.0, 1.0));
        // The others share its turns evenly.
        let (one, other) = (one.counts().requests, other.counts().requests);
        assert!(one.abs_diff(other) <= 2, "{failure:?}: {one} and {other}");
    }
}

#[tokio::test]
async fn who_is_left_out_and_for_how_long_can_be_seen() {
    let (_fleet, [sick, well], gateway) = start(["sick", "well"], EJECTION).await;
    sick.behave(Behaviour::status(500)).await;
    assert_eq!(with_status(&gateway, 20, 500).await, 3);
    let told = gateway.admin_json("/api/v1/backends").await;
    let endpoints = told["backends"][0]["endpoints"].as_array().expect("a list");
    for endpoint in endpoints {
        let is_sick = endpoint["url"] == format!("http://{}", sick.address());
        let left = endpoint["returns_in_ms"].as_u64();
        assert_eq!(left.is_some_and(|ms| ms > 3_000_000), is_sick, "{endpoint}");
        assert_eq!(endpoint["returns_in_ms"] == Value::Null, !is_sick, "{endpoint}");
    }
    assert!(gateway.log().contains("endpoint ejected"), "{}", gateway.log());
    assert_eq!(well.counts().requests, 17);
}

#[tokio::test]
async fn it_comes_back_by_itself() {
    let guards = "retry: off, breaker: off, ejection: { consecutive: 1, eject_for: 200ms, growth: 1 }";
    let (_fleet, [sick, _well], gateway) = start(["sick", "well"], guards).await;
    sick.next([Behaviour::status(500)]);
    assert_eq!(with_status(&gateway, 2, 500).await, 1);
    let back = || async {
        gateway.get("/api/echo").send().await.expect(200);
        (sick.counts().requests > 1).then_some(())
    };
    eventually(SOON, "it is asked again", back).await;
    assert_eq!((ejected(&gateway).await, ejections(&gateway).await), (0.0, 1.0));
}

#[tokio::test]
async fn no_more_than_half_are_left_out() {
    let (_fleet, [one, other, third], gateway) = start(["one", "other", "third"], EJECTION).await;
    for endpoint in [&one, &other, &third] {
        endpoint.behave(Behaviour::status(500)).await;
    }
    assert_eq!(with_status(&gateway, 60, 500).await, 60);
    assert_eq!((ejected(&gateway).await, ejections(&gateway).await), (1.0, 1.0));
    for endpoint in [&one, &other, &third] {
        endpoint.heal().await;
    }
    assert_eq!(with_status(&gateway, 20, 200).await, 20);
}

#[tokio::test]
async fn callers_who_want_too_little_time_cannot_put_it_out() {
    let (_fleet, [slow, _well], gateway) = start(["slow", "well"], EJECTION).await;
    slow.behave(Behaviour::always(Fault::Hang)).await;
    for _ in 0..20 {
        gateway
            .get("/api/echo")
            .header("x-request-timeout-ms", "40")
            .send()
            .await;
    }
    assert_eq!(ejections(&gateway).await, 0.0);
}

#[tokio::test]
async fn off_is_off_and_a_reload_brings_them_back() {
    let (_fleet, [sick, well], gateway) = start(["sick", "well"], EJECTION).await;
    sick.behave(Behaviour::status(500)).await;
    assert_eq!(with_status(&gateway, 20, 500).await, 3);
    let off = Config::default()
        .backend_of(
            "api",
            [sick.address(), well.address()],
            "retry: off, breaker: off, ejection: off",
        )
        .open_route("api", "api", "");
    gateway.reload(off.to_string()).await;
    assert_eq!(ejected(&gateway).await, 0.0);
    assert_eq!(with_status(&gateway, 20, 500).await, 10);
}
