//! Checks that a wrong time neither freezes a quota nor gives it away, and that an operator can correct a count.

use fixtures::api_keys::{KeyLine, key_file};
use http::Method;
use serde_json::{Value, json};
use tests::{Answer, Gateway, Setup, Signal};

const TOKEN: &str = "correct-horse-battery-staple";
const CONFIG: &str = r#"
listeners: { public: { address: "127.0.0.1:0" } }
admin: { address: "127.0.0.1:0", token_file: admin.token }
callers: { api_keys: { file: keys.yaml } }
state_file: counts.json
tiers: { sold: { rate: 1000/s, burst: 1000, quotas: { monthly: { limit: 10, every: month } } } }
default_tier: sold
routes:
  fixed: { match: { path: /fixed }, respond: { status: 204 } }
"#;
/// 2094-12-01, and so long ago that nobody cares.
const AHEAD: u64 = 3_942_086_400;
const LONG_AGO: u64 = 946_684_800;

/// With what a state file says that acme has used since then.
async fn start(since: u64, used: u64) -> Gateway {
    let lines = ["acme", "globex"].map(|tenant| KeyLine::new(tenant, tenant, tenant));
    let counts = json!({ "tenants.quotas.monthly": { "tenant acme": { "since": since, "used": used } } });
    Setup::new(CONFIG)
        .file("keys.yaml", key_file(&lines))
        .file("admin.token", TOKEN)
        .file("counts.json", json!({ "version": 1, "counts": counts }).to_string())
        .start()
        .await
}

async fn ask(gateway: &Gateway) -> Answer {
    gateway.get("/fixed").key("acme").send().await
}

async fn set(gateway: &Gateway, quota: &str, body: Value) -> Answer {
    let ask = tests::Client::to(gateway.admin_address())
        .ask(Method::POST, &format!("/api/v1/tenants/{quota}"))
        .bearer(TOKEN);
    ask.body(body.to_string()).send().await
}

/// Returns acme's count of the quota in the state file.
fn counted(gateway: &Gateway) -> Value {
    let text = std::fs::read_to_string(gateway.path("counts.json")).expect("a file of ours");
    let counts: Value = serde_json::from_str(&text).expect("JSON");
    counts["counts"]["tenants.quotas.monthly"]["tenant acme"].clone()
}

#[tokio::test]
async fn a_state_file_of_the_future_is_carried_into_this_month() {
    let mut gateway = start(AHEAD, 8).await;
    for _ in 0..2 {
        ask(&gateway).await.expect(204);
    }
    let refused = ask(&gateway).await;
    refused.refusal(429, "quota_exhausted");
    assert!(refused.retry_after() <= 31 * 86_400, "{refused:#?}");
    let log = gateway.log();
    assert!(log.contains("begin in the future"), "{log}");
    gateway.signal(Signal::Term);
    assert_eq!(gateway.wait_exit().await, Some(0));
    let counted = counted(&gateway);
    assert_eq!(counted["used"], 10, "{counted}");
    assert!(
        counted["since"].as_u64().is_some_and(|since| since < AHEAD),
        "{counted}"
    );
}

#[tokio::test]
async fn a_month_that_is_over_is_kept_aside_in_case_the_time_is_wrong() {
    let mut gateway = start(LONG_AGO, 8).await;
    for _ in 0..10 {
        ask(&gateway).await.expect(204);
    }
    ask(&gateway).await.refusal(429, "quota_exhausted");
    gateway.signal(Signal::Term);
    assert_eq!(gateway.wait_exit().await, Some(0));
    let text = std::fs::read_to_string(gateway.path("counts.json")).expect("a file of ours");
    let counts: Value = serde_json::from_str(&text).expect("JSON");
    let left = &counts["set_aside"]["tenants.quotas.monthly"]["tenant acme"]["periods"];
    assert_eq!(
        *left,
        json!([{ "since": LONG_AGO - LONG_AGO % 86_400, "used": 8 }]),
        "{counts:#}"
    );
}

#[tokio::test]
async fn an_operator_sets_what_a_tenant_has_used() {
    let mut gateway = start(0, 0).await;
    let answer = set(&gateway, "acme/quotas/monthly", json!({ "used": 9 }))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&answer["was_used"], &answer["balance"]),
        (&json!(0), &json!(1)),
        "{answer}"
    );
    ask(&gateway).await.expect(204);
    ask(&gateway).await.refusal(429, "quota_exhausted");
    let answer = set(&gateway, "acme/quotas/monthly", json!({ "used": 4 }))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&answer["was_used"], &answer["balance"]),
        (&json!(10), &json!(6)),
        "{answer}"
    );
    for _ in 0..6 {
        ask(&gateway).await.expect(204);
    }
    ask(&gateway).await.refusal(429, "quota_exhausted");
    set(&gateway, "acme/quotas/yearly", json!({ "used": 4 }))
        .await
        .expect(404);
    set(&gateway, "hooli/quotas/monthly", json!({ "used": 4 }))
        .await
        .expect(404);
    set(&gateway, "acme/quotas/monthly", json!({ "left": 4 }))
        .await
        .expect(400);
    let admin = tests::Client::to(gateway.admin_address());
    let unsigned = admin.ask(Method::POST, "/api/v1/tenants/acme/quotas/monthly");
    unsigned.body("{\"used\":0}").send().await.expect(401);
    gateway.signal(Signal::Term);
    assert_eq!(gateway.wait_exit().await, Some(0));
    assert_eq!(counted(&gateway)["used"], 10);
}

#[tokio::test]
async fn the_status_says_which_time_it_is() {
    let gateway = start(0, 0).await;
    let clock = gateway.admin_json("/api/v1/status").await["clock"].clone();
    assert_eq!(
        (&clock["jumps"], &clock["wall_clock_ahead_seconds"]),
        (&json!(0), &json!(0.0)),
        "{clock}"
    );
    assert!(
        clock["time"].as_str().is_some_and(|time| time.starts_with("20")),
        "{clock}"
    );
    assert_eq!(gateway.metric("gateway_clock_jumps_total", &[]).await, 0.0);
}
