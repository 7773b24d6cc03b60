//! Provokes each trouble that `gateway doctor` looks for, and lets it find it. Without trouble it finds none.

use std::time::Duration;

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Behaviour, Fault, Fleet, Handle};
use serde_json::Value;
use tests::configs::Config;
use tests::{Gateway, Setup, eventually};

use crate::live_commands::run;
use crate::{SOON, one_backend};

const TOP: &str = r#"
listeners: { public: { address: "127.0.0.1:0" } }
admin: { address: "127.0.0.1:0" }
overload: off
tiers: { open: { rate: 1000000/s, burst: 1000000 } }
callers: { api_keys: { file: keys.yaml }, anonymous: { by: client_address, tier: open } }
"#;

/// A gateway before one backend that behaves like this.
async fn start(behaviour: Behaviour, guards: &str) -> (Fleet, Handle, Gateway) {
    let (fleet, api) = one_backend("api").await;
    api.behave(behaviour).await;
    let gateway = serve(Config::with(TOP).open("api", api.address(), guards)).await;
    (fleet, api, gateway)
}

async fn serve(config: Config) -> Gateway {
    let keys = [KeyLine::new("poor-1", "poor", "key-poor").tier("free")];
    Setup::new(config.to_string())
        .file("keys.yaml", key_file(&keys))
        .start()
        .await
}

/// Asks so often, one request after the other.
async fn ask(gateway: &Gateway, times: usize) {
    for _ in 0..times {
        gateway.get("/api/x").send().await;
    }
}

async fn findings(gateway: &Gateway) -> Vec<Value> {
    let (_, out, err) = run(gateway, &["doctor", "--json"], None).await;
    let told: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}"));
    told["findings"].as_array().cloned().expect("a list")
}

/// Waits until this is found, with this setting; returns the advice.
async fn finds(gateway: &Gateway, symptom: &str, setting: &str) -> String {
    eventually(SOON, symptom, || async {
        let all = findings(gateway).await;
        let found = all.iter().find(|found| found["symptom"] == symptom)?;
        assert_eq!(found["setting"], setting, "{found:#}");
        found["advice"].as_str().map(str::to_owned)
    })
    .await
}

fn failing() -> Behaviour {
    Behaviour::status(503)
}

#[tokio::test]
async fn without_trouble_nothing_is_found() {
    let (_fleet, _api, gateway) = start(Behaviour::default(), "").await;
    ask(&gateway, 40).await;
    assert_eq!(findings(&gateway).await, [] as [Value; 0]);
    let (code, out, _) = run(&gateway, &["doctor"], None).await;
    assert_eq!(code, Some(0));
    assert!(out.starts_with("nothing found"), "{out}");
}

#[tokio::test]
async fn a_breaker_that_opens_again_and_again() {
    let guards = "retry: off, breaker: { min_calls: 1, failure_ratio: 0.5, open_for: 10ms, probes: 1 }";
    let (_fleet, api, gateway) = start(failing(), guards).await;
    for opened in 1..=3 {
        api.behave(failing()).await;
        eventually(SOON, "the breaker opens", || async {
            gateway.get("/api/x").send().await;
            let labels = [("backend", "api"), ("to", "open")];
            (gateway.metric("gateway_breaker_transitions_total", &labels).await >= f64::from(opened)).then_some(())
        })
        .await;
        api.behave(Behaviour::default()).await;
        eventually(SOON, "the breaker closes", || async {
            gateway.get("/api/x").send().await;
            (gateway.metric("gateway_breaker_state", &[("backend", "api")]).await == 0.0).then_some(())
        })
        .await;
    }
    finds(&gateway, "breaker_flaps", "backends.api.breaker").await;
}

#[tokio::test]
async fn a_breaker_that_never_closes() {
    let guards = "retry: off, breaker: { min_calls: 1, failure_ratio: 0.5, open_for: 10ms, probes: 3 }";
    let (_fleet, _api, gateway) = start(failing(), guards).await;
    let advice = eventually(SOON, "the probes fail", || async {
        gateway.get("/api/x").send().await;
        let all = findings(&gateway).await;
        let found = all.iter().find(|found| found["symptom"] == "breaker_never_recovers")?;
        found["advice"].as_str().map(str::to_owned)
    })
    .await;
    assert!(advice.contains("`probes: 1`"), "{advice}");
}

#[tokio::test]
async fn time_limits_that_are_too_short_or_a_backend_that_is_too_slow() {
    let guards = "retry: off, breaker: off, time_limit: 20ms, attempt_limit: 20ms";
    let (_fleet, _api, gateway) = start(Behaviour::always(Fault::Hang), guards).await;
    ask(&gateway, 25).await;
    let advice = finds(&gateway, "deadlines", "backends.api.time_limit").await;
    assert!(advice.contains("`time_limit: "), "{advice}");
}

#[tokio::test]
async fn a_bulkhead_that_refuses_and_a_server_that_two_share() {
    let (_fleet, api) = one_backend("api").await;
    api.close_gate();
    let guards = "retry: off, breaker: off, bulkhead: { limit: 1, queue: 0 }";
    let config = Config::with(TOP).open("api", api.address(), guards);
    let gateway = serve(config.open("other", api.address(), guards)).await;
    let held = tokio::spawn(gateway.get("/api/x").send());
    eventually(SOON, "the slot is taken", || async {
        (gateway.metric("gateway_bulkhead_in_use", &[("backend", "api")]).await == 1.0).then_some(())
    })
    .await;
    ask(&gateway, 25).await;
    let advice = finds(&gateway, "bulkhead_rejections", "backends.api.bulkhead").await;
    assert!(advice.contains("`limit: 4`"), "{advice}");
    finds(&gateway, "shared_pool", "backends.api.endpoints").await;
    api.open_gate();
    held.await.expect("it does not panic").expect(200);
}

#[tokio::test]
async fn retries_that_multiply_and_a_budget_that_is_empty() {
    let guards = "breaker: off, retry: { attempts: 3, backoff: 1ms..1ms }";
    let (_fleet, _api, gateway) = start(failing(), guards).await;
    ask(&gateway, 40).await;
    let advice = finds(&gateway, "retries_multiply", "backends.api.retry").await;
    assert!(advice.contains("`attempts: 2`"), "{advice}");
    finds(&gateway, "retry_storm", "backends.api.retry").await;
}

#[tokio::test]
async fn a_tenant_that_is_refused() {
    let (_fleet, api) = one_backend("api").await;
    let route = "{ match: { path: /keyed }, access: { any_of: [api_key] }, backend: api }";
    let config = Config::with(TOP)
        .backend("api", api.address(), "")
        .route("keyed", route);
    let gateway = serve(config.top("tenants: { poor: { rate: 1/h, burst: 5 } }")).await;
    for _ in 0..25 {
        gateway.get("/keyed").key("key-poor").send().await;
    }
    let advice = finds(&gateway, "too_many_requests", "tenants.poor").await;
    assert!(advice.contains("`rate: 5/h`, `burst: 25`"), "{advice}");
}

#[tokio::test]
async fn callers_that_do_not_wait() {
    let (_fleet, _api, gateway) = start(Behaviour::always(Fault::Hang), "retry: off, breaker: off").await;
    for _ in 0..25 {
        let impatient = gateway.another_client();
        let _ = tokio::time::timeout(Duration::from_millis(20), impatient.get("/api/x").send()).await;
    }
    finds(&gateway, "callers_leave", "routes.api.time_limit").await;
}

#[tokio::test]
async fn limits_that_count_more_owners_than_there_is_room_for() {
    let (_fleet, api) = one_backend("api").await;
    let config = Config::with(TOP)
        .top("client_address: { trusted_proxies: [127.0.0.0/8] }")
        .top("account_limits: { addresses: 4 }")
        .open("api", api.address(), "");
    let gateway = serve(config).await;
    for number in 1..=10 {
        let request = gateway
            .get("/api/x")
            .header("x-forwarded-for", &format!("203.0.{number}.1"));
        request.send().await.expect(200);
    }
    let advice = finds(&gateway, "limiter_memory", "account_limits.addresses").await;
    assert!(advice.contains("`addresses: 8`"), "{advice}");
}
