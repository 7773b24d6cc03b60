//! Checks limits other than the tiers' buckets: exact windows, calendar quotas, requests in flight, waiting, and
//! charging afterwards.

use std::fs;
use std::path::Path;

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Behaviour, Fault};
use serde_json::Value;
use tests::configs::Config;
use tests::crowd::at_once;
use tests::{Answer, Gateway, Setup, Signal, cli, eventually};

use crate::{SOON, one_backend};

const TOP: &str = r#"
listeners: { public: { address: "127.0.0.1:0" } }
admin: { address: "127.0.0.1:0" }
callers: { api_keys: { file: keys.yaml } }
default_tier: enterprise
"#;

fn setup(config: impl std::fmt::Display) -> Setup {
    let lines = ["acme", "globex"].map(|tenant| KeyLine::new(tenant, tenant, tenant));
    Setup::new(config.to_string()).file("keys.yaml", key_file(&lines))
}

fn fixed(limits: &str) -> Config {
    Config::with(TOP).route(
        "fixed",
        &format!("{{ match: {{ path: /fixed }}, limits: {limits}, respond: {{ status: 204 }} }}"),
    )
}

async fn ask(gateway: &Gateway, key: &str) -> Answer {
    gateway.get("/fixed").key(key).send().await
}

fn left(answer: &Answer, limit: &str) -> Option<u64> {
    let items = answer.header("ratelimit")?.split(", ");
    let item = items
        .into_iter()
        .find_map(|item| item.strip_prefix(&format!("\"{limit}\";r=")))?;
    item.split(';').next()?.parse().ok()
}

#[tokio::test]
async fn a_sliding_window_admits_its_number_and_no_more() {
    let gateway = setup(fixed("{ exact: { kind: sliding_window, rate: 3/h } }"))
        .start()
        .await;
    for remaining in [2, 1, 0] {
        assert_eq!(left(&ask(&gateway, "acme").await.expect(204), "exact"), Some(remaining));
    }
    let refused = ask(&gateway, "acme").await;
    let problem = refused.refusal(429, "rate_limited");
    assert_eq!(problem["violated-policies"], serde_json::json!(["exact"]));
    assert_eq!(refused.header("ratelimit-policy"), Some("\"exact\";q=3;w=3600"));
    assert!((3590..=3600).contains(&refused.retry_after()), "{refused:#?}");
    ask(&gateway, "globex").await.expect(204);
}

#[tokio::test]
async fn eight_callers_at_once_get_exactly_what_there_is() {
    for limits in [
        "{ one: { kind: sliding_window, rate: 40/h } }",
        "{ one: { limit: 40, every: month } }",
    ] {
        let gateway = setup(fixed(limits)).start().await;
        let tally = at_once(100, |_| gateway.get("/fixed").key("acme")).await;
        assert_eq!((tally.with_status(204), tally.with_status(429)), (40, 60), "{limits}");
    }
}

const QUOTA: &str = r#"
tiers: { enterprise: { quotas: { monthly: { limit: 3, every: month } } } }
tenants: { globex: { quotas: { monthly: { limit: 5, every: month } } } }
"#;

#[tokio::test]
async fn a_quota_is_used_up_and_says_when_it_is_renewed() {
    let config = fixed("{}").top(QUOTA);
    let gateway = setup(config).start().await;
    for remaining in [2, 1, 0] {
        assert_eq!(
            left(&ask(&gateway, "acme").await.expect(204), "monthly"),
            Some(remaining)
        );
    }
    let refused = ask(&gateway, "acme").await;
    refused.refusal(429, "quota_exhausted");
    assert_eq!(refused.header("ratelimit-policy"), Some("\"monthly\";q=3;w=2678400"));
    assert!(refused.retry_after() <= 31 * 86_400);
    for _ in 0..5 {
        ask(&gateway, "globex").await.expect(204);
    }
    ask(&gateway, "globex").await.refusal(429, "quota_exhausted");

    let tenants = gateway.admin_json("/api/v1/tenants").await;
    let quota = |tenant: &str| {
        let entry = tenants["tenants"]
            .as_array()
            .unwrap()
            .iter()
            .find(|entry| entry["name"] == tenant);
        let limits = entry.unwrap()["limits"].as_array().unwrap();
        limits.iter().find(|limit| limit["name"] == "monthly").unwrap().clone()
    };
    let (acme, globex) = (quota("acme"), quota("globex"));
    assert_eq!(
        (&acme["kind"], &acme["most"], &acme["balance"]),
        (&"quota".into(), &3.into(), &0.into())
    );
    assert_eq!((&globex["most"], &globex["balance"]), (&5.into(), &0.into()));
    let rejections = gateway.admin_json("/api/v1/rejections").await;
    let settings: Vec<_> = rejections["rejections"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["decided_by"]["setting"])
        .collect();
    assert_eq!(
        settings,
        ["tenants.globex.quotas.monthly", "tiers.enterprise.quotas.monthly"]
    );
}

#[tokio::test]
async fn nobody_is_told_to_come_back_after_more_than_a_day_but_for_a_quota() {
    for (limits, longest) in [
        ("{ slow: { rate: 1/h, burst: 1000, cost: 1000 } }", 86_400),
        ("{ slow: { kind: sliding_window, rate: 1000/d, cost: 1000 } }", 86_400),
        ("{ slow: { limit: 1000, every: month, cost: 1000 } }", 31 * 86_400),
    ] {
        let gateway = setup(fixed(limits)).start().await;
        let served = ask(&gateway, "acme").await.expect(204);
        let refused = ask(&gateway, "acme").await.expect(429);
        let reset = |answer: &Answer| -> u64 {
            let line = answer.header("ratelimit").expect("it is charged");
            let item = line.split(", ").find(|item| item.starts_with("\"slow\""));
            let reset = item.and_then(|item| item.split(";t=").nth(1));
            reset.and_then(|reset| reset.parse().ok()).expect("a number")
        };
        assert!(reset(&served) <= longest, "{limits}: {served:#?}");
        assert_eq!(reset(&refused), refused.retry_after(), "{limits}");
        assert!((1..=longest).contains(&refused.retry_after()), "{limits}: {refused:#?}");
    }
}

#[tokio::test]
async fn what_costs_more_than_a_tenant_can_ever_have_is_a_mistake() {
    let config = Config::with(TOP)
        .top("tenants: { acme: { burst: 5 } }")
        .route("dear", "{ match: { path: /dear }, cost: 6, respond: { status: 204 } }");
    let checked = cli(&["check", "-c", "gateway.yaml"], &setup(config));
    assert_eq!(checked.code, Some(78), "{checked:?}");
    for said in [
        "`tenants.acme (routes.dear)`",
        "gateway.yaml:",
        "lower the cost to 5, or raise the limit to 6",
    ] {
        assert!(checked.stderr.contains(said), "{said}: {}", checked.stderr);
    }
}

fn kept(folder: &Path, limits: &str) -> Config {
    fixed(limits).top(format!("state_file: {}", folder.join("counts").display()))
}

#[tokio::test]
async fn a_quota_outlives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let config = kept(folder.path(), "{ daily: { limit: 5, every: month, per: caller } }");
    let mut gateway = setup(&config).start().await;
    ask(&gateway, "acme").await.expect(204);
    ask(&gateway, "acme").await.expect(204);
    gateway.signal(Signal::Term);
    assert_eq!(gateway.wait_exit().await, Some(0));

    // A process that is killed keeps the counts of the last write.
    let gateway = setup(&config).start().await;
    assert_eq!(left(&ask(&gateway, "acme").await.expect(204), "daily"), Some(2));
    eventually(SOON, "the third is written", || async {
        let text = fs::read_to_string(folder.path().join("counts")).ok()?;
        let counts: Value = serde_json::from_str(&text).expect("whole at any moment");
        (counts["counts"]["fixed/daily"]["caller acme acme"]["used"] == 3).then_some(())
    })
    .await;
    drop(gateway);

    let gateway = setup(&config).start().await;
    assert_eq!(left(&ask(&gateway, "acme").await.expect(204), "daily"), Some(1));
    assert_eq!(left(&ask(&gateway, "globex").await.expect(204), "daily"), Some(4));
}

#[tokio::test]
async fn no_two_processes_count_in_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let config = kept(folder.path(), "{ daily: { limit: 5, every: day } }");
    let gateway = setup(&config).start().await;
    let second = cli(&["run", "-c", "gateway.yaml"], &setup(&config));
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(
        second.stderr.contains("another process counts in it"),
        "{}",
        second.stderr
    );
    ask(&gateway, "acme").await.expect(204);
}

#[tokio::test]
async fn a_state_file_that_is_not_ours_is_neither_used_nor_lost() {
    let folder = tempfile::tempdir().unwrap();
    let config = kept(folder.path(), "{ daily: { limit: 5, every: day } }");
    fs::write(folder.path().join("counts"), "my notes").unwrap();
    let gateway = cli(&["run", "-c", "gateway.yaml"], &setup(&config));
    assert_eq!(gateway.code, Some(1), "{gateway:?}");
    assert!(gateway.stderr.contains("the state file"), "{}", gateway.stderr);
    assert_eq!(fs::read_to_string(folder.path().join("counts")).unwrap(), "my notes");
}

#[tokio::test]
async fn a_reload_gives_no_quota_anew() {
    let gateway = setup(fixed("{ fair: { limit: 3, every: day } }")).start().await;
    for _ in 0..3 {
        ask(&gateway, "acme").await.expect(204);
    }
    gateway
        .reload(fixed("{ fair: { limit: 4, every: month } }").to_string())
        .await;
    ask(&gateway, "acme").await.expect(204);
    ask(&gateway, "acme").await.refusal(429, "quota_exhausted");
}

#[tokio::test]
async fn so_many_at_once_and_no_more_until_one_has_left() {
    let (_fleet, api) = one_backend("api").await;
    let config = Config::with(TOP)
        .top("tenants: { acme: { in_flight: 2 } }")
        .backend("api", api.address(), "")
        .route("api", "{ match: { path: \"/api/{*rest}\" }, backend: api }");
    let gateway = setup(config).start().await;
    api.behave(Behaviour::always(Fault::Hang)).await;
    let [first, second] = [0, 1].map(|_| tokio::spawn(gateway.get("/api/echo").key("acme").try_send()));
    eventually(SOON, "both hang", || async { (api.in_flight() == 2).then_some(()) }).await;
    let refused = gateway.get("/api/echo").key("acme").send().await;
    refused.refusal(429, "too_many_in_flight");
    assert_eq!(refused.retry_after(), 1);
    api.behave(Behaviour::default()).await;
    gateway.get("/api/echo").key("globex").send().await.expect(200);
    // A caller that closes its connection is no longer in flight.
    first.abort();
    eventually(SOON, "there is room again", || async {
        let answer = gateway.get("/api/echo").key("acme").send().await;
        (answer.status == 200).then_some(())
    })
    .await;
    second.abort();
}

#[tokio::test]
async fn a_wait_smooths_what_a_bucket_would_refuse() {
    let gateway = setup(fixed("{ smooth: { rate: 50/s, burst: 1, wait: 30s } }"))
        .start()
        .await;
    let tally = at_once(10, |_| gateway.get("/fixed").key("acme")).await;
    tally.all(204);
    let decided = |decision| [("limit", "fixed/smooth"), ("decision", decision)];
    let delayed = gateway
        .metric("gateway_limit_decisions_total", &decided("delayed"))
        .await;
    let admitted = gateway
        .metric("gateway_limit_decisions_total", &decided("admitted"))
        .await;
    assert_eq!(delayed + admitted, 10.0);
    assert!(delayed >= 1.0, "ten came at once, and tokens come 50 a second");
}

#[tokio::test]
async fn a_request_is_not_made_to_wait_for_longer_than_it_has() {
    let gateway = setup(fixed("{ smooth: { rate: 1/h, burst: 1, wait: 1m } }"))
        .start()
        .await;
    ask(&gateway, "acme").await.expect(204);
    ask(&gateway, "acme").await.refusal(429, "rate_limited");
}

#[tokio::test]
async fn the_backend_says_what_it_has_cost() {
    let (_fleet, api) = one_backend("api").await;
    let config = Config::with(TOP).backend("api", api.address(), "").route(
        "api",
        "{ match: { path: /tokens }, limits: { tokens: { limit: 100, every: month } }, cost: 10, cost_header: x-tokens,
           backend: api }",
    );
    let gateway = setup(config).start().await;
    let ask = || gateway.get("/tokens").key("acme").send();
    for (stated, remaining) in [("25", Some(75)), ("4", Some(71)), ("many", Some(61)), ("70", Some(0))] {
        let answer = format!("HTTP/1.1 200 OK\r\nx-tokens: {stated}\r\ncontent-length: 0\r\n\r\n");
        api.behave(Behaviour::raw(answer)).await;
        let answer = ask().await.expect(200);
        assert_eq!(
            (left(&answer, "tokens"), answer.header("x-tokens")),
            (remaining, None),
            "{stated}"
        );
    }
    ask().await.refusal(429, "quota_exhausted");
}
