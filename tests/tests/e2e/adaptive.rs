//! Checks that the gateway protects a backend, and itself, by what it observes: the number of calls at once follows the
//! backend's latency, and an overloaded worker refuses newcomers of the cheapest tier first.

use std::time::Duration;

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Behaviour, Fleet, Handle, Latency, Spec};
use serde_json::{Value, json};
use tests::configs::Config;
use tests::crowd::steadily;
use tests::{Gateway, Setup, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

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
    api.behave(Behaviour::late(Latency::fixed(200))).await;
    let gateway = Gateway::start(config(&api, "{ limit: adaptive, from: 4, to: 24 }")).await;
    assert_eq!(limit(&gateway).await, 20.0);
    let shown = bulkhead(&gateway).await;
    assert_eq!((&shown["limit"], &shown["queue"]), (&json!(20), &json!(20)), "{shown}");
    assert_eq!(shown["adaptive"], json!({ "from": 4, "to": 24 }));

    // More than twenty at once can have: the limit is in use.
    let grown = limit_becomes(&gateway, "it grows", |limit| limit == 24.0);
    let (answers, ()) = steadily(160, || gateway.get("/api/echo"), grown).await;
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

const GUARDED: &str = r#"
workers: 1
listeners: { public: { address: "127.0.0.1:0" } }
admin: { address: "127.0.0.1:0" }
callers: { api_keys: { file: keys.yaml }, anonymous: { by: client_address, tier: dear } }
tiers:
  cheap: { rate: 1000000/s, burst: 1000000, weight: 1 }
  dear: { rate: 1000000/s, burst: 1000000, weight: 8 }
connection_limits: { total: 1000 }
"#;

/// Keeps the only worker busy: many connections send requests one behind the other, which are answered directly. Their
/// answers are read, so that the gateway never waits for the callers.
fn keep_busy(gateway: &Gateway) -> JoinSet<()> {
    let mut callers = JoinSet::new();
    for _ in 0..8 {
        let address = gateway.address();
        callers.spawn(async move {
            let stream = TcpStream::connect(address).await.expect("it accepts");
            let (mut from, mut to) = stream.into_split();
            let requests = "GET /fixed HTTP/1.1\r\nhost: a\r\n\r\n".repeat(100);
            let send = async { while to.write_all(requests.as_bytes()).await.is_ok() {} };
            let read = async {
                let mut answers = vec![0; 64 * 1024];
                while matches!(from.read(&mut answers).await, Ok(count) if count > 0) {}
            };
            tokio::join!(send, read);
        });
    }
    callers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overloaded_worker_refuses_the_cheapest_tier_until_it_keeps_up_again() {
    let (_fleet, api) = one_backend("api").await;
    let config = |overload: &str| {
        Config::with(GUARDED)
            .top(overload)
            .backend(
                "api",
                api.address(),
                "retry: off, breaker: off, bulkhead: { limit: 1000 }",
            )
            .mapped("api", "api", "access: { any_of: [api_key, anonymous] }")
            .route(
                "fixed",
                "{ match: { path: /fixed }, access: { any_of: [anonymous] }, respond: { status: 204 } }",
            )
            .to_string()
    };
    let written = config("overload: { delay: 5ms, for: 20ms }");
    let keys = key_file(&[KeyLine::new("c", "acme", "cheap-key").tier("cheap")]);
    let gateway = Setup::new(&written).file("keys.yaml", keys).start().await;
    let cheap = || gateway.get("/api/echo").header("x-api-key", "cheap-key").send();
    cheap().await.expect(200);
    assert_eq!(
        gateway.admin_json("/api/v1/status").await["overload"][0]["refused_share"],
        0.0
    );

    let busy = keep_busy(&gateway);
    let refused = eventually(IN_THE_END, "the cheapest tier is refused", || async {
        let answer = cheap().await;
        (answer.status == 503).then_some(answer)
    })
    .await;
    refused.refusal(503, "overloaded");
    assert_eq!(refused.retry_after(), 1);
    assert!(refused.header("ratelimit").is_none(), "nothing was charged");
    // Anonymous callers count as the cheapest, whatever their tier.
    eventually(IN_THE_END, "so are anonymous callers", || async {
        (gateway.get("/api/echo").send().await.status == 503).then_some(())
    })
    .await;
    gateway.get("/fixed").send().await.expect(204);
    let listed = eventually(SOON, "the refusal is listed", || async {
        let listed = gateway.admin_json("/api/v1/rejections?q=overloaded").await;
        (listed["total"].as_u64() >= Some(2)).then(|| listed["rejections"][1].clone())
    })
    .await;
    assert_eq!(listed["decided_by"]["setting"], "overload", "{listed}");
    let line = written.lines().position(|line| line.starts_with("overload:"));
    assert_eq!(
        listed["decided_by"]["at"]["line"],
        json!(line.expect("it is written") + 1),
        "{listed}"
    );
    for tier in ["cheap", "dear"] {
        let count = gateway
            .metric("gateway_overload_refusals_total", &[("tier", tier)])
            .await;
        assert!(count >= 1.0, "{tier}: {count}");
    }

    drop(busy);
    gateway
        .metric_becomes("gateway_worker_refused_ratio", &[("worker", "0")], 0.0)
        .await;
    eventually(SOON, "the log says that it is over", || async {
        gateway.log().contains("no longer overloaded").then_some(())
    })
    .await;
    assert!(gateway.log().contains("overloaded: newcomers"), "{}", gateway.log());
    cheap().await.expect(200);

    gateway.reload(config("overload: off")).await;
    let _busy = keep_busy(&gateway);
    for _ in 0..3 {
        cheap().await.expect(200);
    }
    assert_eq!(gateway.admin_json("/api/v1/status").await["overload"], json!([]));
}
