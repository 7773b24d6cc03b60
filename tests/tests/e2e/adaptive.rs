//! Checks that the number of calls to a backend at once follows the backend's latency.

use std::time::Duration;

use fixtures::fleet::{Behaviour, Fleet, Handle, Latency, Spec};
use serde_json::{Value, json};
use tests::configs::Config;
use tests::crowd::steadily;
use tests::{Gateway, eventually};

use crate::{SOON, one_backend};

const API: [(&str, &str); 1] = [("backend", "api")];
/// A debug build on a busy machine needs several windows of results, and each takes its time.
const IN_THE_END: Duration = Duration::from_secs(120);

fn config(api: &Handle, bulkhead: &str) -> String {
    let guards = format!("retry: off, breaker: off, bulkhead: {bulkhead}");
    Config::default().open("api", api.address(), &guards).to_string()
}

async fn limit(gateway: &Gateway) -> f64 {
    gateway.metric("gateway_bulkhead_limit", &API).await
}

/// Returns once the limit meets the condition.
async fn limit_becomes(gateway: &Gateway, reason: &str, condition: impl Fn(f64) -> bool) {
    eventually(IN_THE_END, reason, || async {
        condition(limit(gateway).await).then_some(())
    })
    .await;
}

async fn bulkhead(gateway: &Gateway) -> Value {
    let mut listed = gateway.admin_json("/api/v1/backends").await;
    listed["backends"][0]["bulkhead"].take()
}

#[tokio::test]
async fn the_limit_grows_while_it_is_used_and_is_kept_by_a_reload() {
    let (_fleet, api) = one_backend("api").await;
    api.behave(Behaviour::late(Latency::fixed(50))).await;
    let gateway = Gateway::start(config(&api, "{ limit: adaptive, from: 4, to: 24 }")).await;
    assert_eq!(limit(&gateway).await, 20.0);
    let shown = bulkhead(&gateway).await;
    assert_eq!((&shown["limit"], &shown["queue"]), (&json!(20), &json!(20)), "{shown}");
    assert_eq!(shown["adaptive"], json!({ "from": 4, "to": 24 }));

    // More than twenty at once can have: the limit is in use.
    let grown = limit_becomes(&gateway, "it grows", |limit| limit == 24.0);
    let (answers, ()) = steadily(600, || gateway.get("/api/echo"), grown).await;
    assert!(answers.with_status(200) > 0);
    let shown = bulkhead(&gateway).await;
    assert_eq!((&shown["limit"], &shown["queue"]), (&json!(24), &json!(24)), "{shown}");

    for (bulkhead, expected) in [
        ("{ limit: adaptive, from: 4, to: 200 }", 24.0),
        ("{ limit: adaptive, from: 4, to: 22 }", 22.0),
        ("{ limit: 7 }", 7.0),
        ("{ limit: adaptive, from: 4, to: 200 }", 7.0),
        ("{ limit: adaptive, from: 30, to: 200 }", 30.0),
    ] {
        gateway.reload(config(&api, bulkhead)).await;
        assert_eq!(limit(&gateway).await, expected, "{bulkhead}");
    }
}

#[tokio::test]
async fn the_limit_shrinks_while_calls_wait_in_the_backend() {
    let spec = Spec::new("api").places(2).behaviour(Behaviour::late(Latency::fixed(5)));
    let fleet = Fleet::start([spec]).await.expect("a port is free");
    let gateway = Gateway::start(config(&fleet.backend("api"), "{ limit: adaptive, from: 1, to: 200 }")).await;
    let shrunk = limit_becomes(&gateway, "it shrinks", |limit| limit <= 12.0);
    let (answers, ()) = steadily(600, || gateway.get("/api/echo"), shrunk).await;
    assert!(answers.with_status(200) > 0);
}

#[tokio::test]
async fn a_refusal_names_the_line_of_the_adaptive_limit() {
    let (_fleet, api) = one_backend("api").await;
    let config = Config::default()
        .backend(
            "api",
            api.address(),
            "retry: off, breaker: off,\n    bulkhead: { limit: adaptive, from: 1, to: 1, queue: 0 }",
        )
        .open_route("api", "api", "")
        .to_string();
    let gateway = Gateway::start(&config).await;
    api.close_gate();
    let held = tokio::spawn(gateway.get("/api/echo").send());
    api.wait_for(|counts| counts.at_gate == 1, SOON)
        .await
        .expect("it has the slot");
    gateway.get("/api/echo").send().await.refusal(503, "bulkhead_full");
    let refused = eventually(SOON, "the refusal is listed", || async {
        let listed = gateway.admin_json("/api/v1/rejections?q=bulkhead_full").await;
        (listed["total"] == 1).then(|| listed["rejections"][0].clone())
    })
    .await;
    assert_eq!(refused["decided_by"]["setting"], "backends.api.bulkhead", "{refused}");
    let line = config.lines().position(|line| line.contains("limit: adaptive"));
    assert_eq!(
        refused["decided_by"]["at"]["line"],
        json!(line.expect("it is written") + 1),
        "{refused}"
    );
    api.open_gate();
    held.await.expect("no panic").expect(200);
}
