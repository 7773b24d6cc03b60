//! Checks that one bad endpoint of several is ejected automatically: callers see no more failures, and the backend
//! stays available.

use fixtures::fleet::{Behaviour, Fault, Fleet, Handle};
use serde_json::Value;
use tests::configs::Config;
use tests::{Gateway, eventually};

use crate::{SOON, backends};

/// Three failures in a row, and out for longer than a test lasts. Nothing is tried twice.
const EJECTION: &str = "balance: { by: turn, warm_up: 0s }, retry: off, breaker: off, attempt_limit: 400ms, ejection: { consecutive: 3, eject_for: 1h }";

async fn start<const N: usize>(names: [&str; N], guards: &str) -> (Fleet, [Handle; N], Gateway) {
    let (fleet, endpoints) = backends(names).await;
    let addresses = endpoints.each_ref().map(Handle::address);
    let config = Config::default()
        .backend_of("api", addresses, guards)
        .open_route("api", "api", "");
    (fleet, endpoints, Gateway::start(config.to_string()).await)
}

/// Sends this number of requests, one after another. Returns how many answers had this status.
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
    // An endpoint that refuses connections costs no caller anything: another endpoint is tried at once.
    for (failure, failed) in [
        (Behaviour::status(503), 3),
        (Behaviour::always(Fault::Reset), 3),
        (Behaviour::refusing(), 0),
    ] {
        let (_fleet, [sick, one, other], gateway) = start(["sick", "one", "other"], EJECTION).await;
        sick.behave(failure.clone()).await;
        assert_eq!(with_status(&gateway, 60, 200).await, 60 - failed, "{failure:?}");
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
    let guards = "balance: { by: turn, warm_up: 0s }, retry: off, breaker: off, ejection: { consecutive: 1, eject_for: 200ms, growth: 1 }";
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
            "balance: { by: turn, warm_up: 0s }, retry: off, breaker: off, ejection: off",
        )
        .open_route("api", "api", "");
    gateway.reload(off.to_string()).await;
    assert_eq!(ejected(&gateway).await, 0.0);
    assert_eq!(with_status(&gateway, 20, 500).await, 10);
}

#[tokio::test]
async fn a_refused_connection_costs_neither_a_retry_nor_a_failure() {
    // Without retries, without a retry budget, and for a method that is never sent twice.
    let guards =
        "balance: { by: turn, warm_up: 0s }, retry: off, breaker: { min_calls: 1, failure_ratio: 0.05 }, ejection: off";
    let (_fleet, [gone, well], gateway) = start(["gone", "well"], guards).await;
    gone.behave(Behaviour::refusing()).await;
    for _ in 0..10 {
        let answer = gateway.post("/api/echo").body("order").send().await;
        answer.expect(200);
    }
    assert_eq!((gone.counts().requests, well.counts().requests), (0, 10));
    let told = gateway.admin_json("/api/v1/backends").await;
    assert_eq!(told["backends"][0]["breaker"]["state"], "closed");
    // With nobody left to go to it is what it is, and tells the breaker so.
    well.behave(Behaviour::refusing()).await;
    gateway.get("/api/echo").send().await.expect(502);
    gateway.get("/api/echo").send().await.refusal(503, "breaker_open");
}

#[tokio::test]
async fn when_all_that_are_in_fail_those_that_are_out_are_tried() {
    // With retries: a connection that is closed at the very moment of its use has broken, and is no refusal.
    let guards = EJECTION.replace("retry: off, ", "");
    let (_fleet, [one, other], gateway) = start(["one", "other"], &guards).await;
    one.behave(Behaviour::status(500)).await;
    assert_eq!(with_status(&gateway, 20, 500).await, 3);
    assert_eq!(ejected(&gateway).await, 1.0);
    one.heal().await;
    other.behave(Behaviour::refusing()).await;
    assert_eq!(with_status(&gateway, 5, 200).await, 5);
    assert_eq!(
        ejected(&gateway).await,
        1.0,
        "an answer out of turn is not told from luck"
    );
}

#[tokio::test]
async fn one_that_refused_connections_is_back_as_soon_as_it_takes_them() {
    let (_fleet, [gone, _well], gateway) = start(["gone", "well"], EJECTION).await;
    gone.behave(Behaviour::refusing()).await;
    assert_eq!(with_status(&gateway, 20, 200).await, 20);
    assert_eq!(ejected(&gateway).await, 1.0);
    gone.heal().await;
    let back = || async { (ejected(&gateway).await == 0.0).then_some(()) };
    eventually(SOON, "it is in again, an hour before its time", back).await;
    assert!(gateway.log().contains("endpoint is back"), "{}", gateway.log());
    gone.take_requests();
    let before = gone.counts().requests;
    assert_eq!(with_status(&gateway, 10, 200).await, 10);
    assert_eq!(gone.counts().requests - before, 5);
}

#[tokio::test]
async fn the_share_that_may_be_out_is_a_setting() {
    let guards = "balance: { by: turn, warm_up: 0s }, retry: off, breaker: off, ejection: { consecutive: 1, eject_for: 1h, share: 1 }";
    let (_fleet, endpoints, gateway) = start(["one", "other", "third"], guards).await;
    for endpoint in &endpoints {
        endpoint.behave(Behaviour::status(500)).await;
    }
    assert_eq!(with_status(&gateway, 20, 500).await, 20);
    assert_eq!(ejected(&gateway).await, 2.0);
    assert!(gateway.log().contains("ejections=1"), "{}", gateway.log());
}
