//! Checks tiers: each tenant has exactly the limits of its tier for itself, and every answer says what is left.

use std::time::Duration;

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Behaviour, Fleet, Handle};
use tests::configs::Config;
use tests::{Answer, Gateway, Setup};
use tokio::time::sleep;

use crate::one_backend;

/// Name, rate a second and burst: the numbers of the article.
pub(crate) const TIERS: [(&str, u32, u32); 4] = [
    ("free", 10, 20),
    ("basic", 50, 100),
    ("premium", 200, 400),
    ("enterprise", 1000, 2000),
];

/// `trickle` gains nothing that a test could notice; `drip` gains a token each ten seconds.
const TOP: &str = r#"
listeners: { public: { address: "127.0.0.1:0" } }
admin: { address: "127.0.0.1:0" }
access_log: off
tiers: { trickle: { rate: 1/h, burst: 10 }, drip: { rate: 6/min, burst: 4 }, quick: { rate: 2/s, burst: 4 } }
callers:
  api_keys: { file: keys.yaml }
  anonymous: { by: client_address, tier: trickle }
"#;

fn config() -> Config {
    Config::with(TOP)
        .route("fixed", r#"{ match: { path: "/fixed" }, respond: { status: 204 } }"#)
        .route(
            "dear",
            r#"{ match: { path: "/dear" }, cost: 4, respond: { status: 204 } }"#,
        )
        .route(
            "scoped",
            r#"{ match: { path: "/scoped" }, access: { scopes: [none.has] }, respond: { status: 204 } }"#,
        )
        .route(
            "narrow",
            r#"{ match: { path: "/narrow", methods: [GET] }, limits: { search: { rate: 1/h, burst: 2, per: tenant } },
                 respond: { status: 204 } }"#,
        )
        .route(
            "shadow",
            r#"{ match: { path: "/shadow" }, limits: { dark: { rate: 1/h, burst: 1, per: tenant, mode: shadow } },
                 respond: { status: 204 } }"#,
        )
        .route(
            "open",
            r#"{ match: { path: "/open" }, access: { any_of: [anonymous] }, respond: { status: 204 } }"#,
        )
}

/// A key for each of two tenants of every tier, `free-1` and `free-2`, and a second key of the first, `free-1b`.
fn keys() -> String {
    let own = ["trickle", "drip", "quick"];
    let tiers = TIERS.map(|(tier, ..)| tier).into_iter().chain(own);
    let lines: Vec<KeyLine> = tiers
        .flat_map(|tier| {
            [("1", "1"), ("2", "2"), ("1b", "1")].map(|(key, tenant)| {
                let key = format!("{tier}-{key}");
                KeyLine::new(&key, &format!("{tier}-tenant-{tenant}"), &key).tier(tier)
            })
        })
        .collect();
    key_file(&lines)
}

async fn start(config: Config) -> Gateway {
    Setup::new(config.to_string()).file("keys.yaml", keys()).start().await
}

/// Returns the balance of a limit according to `RateLimit`.
fn left(answer: &Answer, limit: &str) -> Option<u64> {
    parameter(answer.header("ratelimit")?, limit, "r")
}

/// The value of a parameter of one item of a list such as `"free";r=7;t=1, "day";r=9;t=60`.
fn parameter(list: &str, item: &str, name: &str) -> Option<u64> {
    let mut items = list.split(", ").map(|item| item.split(';').collect::<Vec<_>>());
    let found = items.find(|parts| parts[0] == format!("\"{item}\""))?;
    found
        .iter()
        .find_map(|part| part.strip_prefix(&format!("{name}=")))?
        .parse()
        .ok()
}

#[tokio::test]
async fn every_answer_says_what_the_tier_grants_and_what_is_left() {
    let gateway = start(config()).await;
    for (tier, rate, burst) in TIERS {
        let answer = gateway.get("/fixed").key(&format!("{tier}-1")).send().await.expect(204);
        let policy = format!("\"{tier}\";q={burst};w={}", burst.div_ceil(rate));
        assert_eq!(answer.header("ratelimit-policy"), Some(policy.as_str()));
        assert_eq!(left(&answer, tier), Some(u64::from(burst) - 1), "{answer:#?}");
    }
    let answer = gateway.get("/open").send().await.expect(204);
    assert_eq!(left(&answer, "trickle"), Some(9), "{answer:#?}");
}

#[tokio::test]
async fn after_the_burst_a_refusal_says_when_to_come_back() {
    let gateway = start(config()).await;
    let ask = || gateway.get("/fixed").key("drip-1").send();
    for remaining in [3, 2, 1, 0] {
        assert_eq!(left(&ask().await.expect(204), "drip"), Some(remaining));
    }
    let refused = ask().await;
    let problem = refused.refusal(429, "rate_limited");
    assert_eq!(problem["violated-policies"], serde_json::json!(["drip"]));
    assert_eq!(left(&refused, "drip"), Some(0));
    assert_eq!(refused.header("ratelimit-policy"), Some("\"drip\";q=4;w=40"));
    let wait = refused.retry_after();
    assert!(
        (5..=10).contains(&wait),
        "a token comes every ten seconds: {refused:#?}"
    );
    assert_eq!(
        parameter(refused.header("ratelimit").expect("just read"), "drip", "t"),
        Some(wait)
    );
}

#[tokio::test]
async fn whoever_waits_as_long_as_told_is_admitted() {
    let gateway = start(config()).await;
    let ask = || gateway.get("/fixed").key("quick-1").send();
    let refused = loop {
        let answer = ask().await;
        if answer.status != 204 {
            break answer;
        }
    };
    refused.refusal(429, "rate_limited");
    sleep(Duration::from_secs(refused.retry_after())).await;
    ask().await.expect(204);
}

#[tokio::test]
async fn two_keys_of_a_tenant_share_its_bucket_and_two_tenants_do_not() {
    let gateway = start(config()).await;
    for key in ["drip-1", "drip-1b", "drip-1", "drip-1b"] {
        gateway.get("/fixed").key(key).send().await.expect(204);
    }
    for key in ["drip-1", "drip-1b"] {
        gateway.get("/fixed").key(key).send().await.refusal(429, "rate_limited");
    }
    let other = gateway.get("/fixed").key("drip-2").send().await.expect(204);
    assert_eq!(left(&other, "drip"), Some(3));
}

#[tokio::test]
async fn a_dear_route_costs_more_tokens() {
    let gateway = start(config()).await;
    let ask = || gateway.get("/dear").key("trickle-1").send();
    assert_eq!(left(&ask().await.expect(204), "trickle"), Some(6));
    assert_eq!(left(&ask().await.expect(204), "trickle"), Some(2));
    ask().await.refusal(429, "rate_limited");
    let cheap = gateway.get("/fixed").key("trickle-1").send().await.expect(204);
    assert_eq!(left(&cheap, "trickle"), Some(1), "a refusal consumes nothing");
}

#[tokio::test]
async fn a_request_is_charged_to_all_its_limits_or_to_none() {
    let gateway = start(config()).await;
    let ask = || gateway.get("/narrow").key("trickle-1").send();
    let first = ask().await.expect(204);
    assert_eq!((left(&first, "search"), left(&first, "trickle")), (Some(1), Some(9)));
    let tightest = first.header("ratelimit").expect("just read");
    assert!(tightest.starts_with("\"search\""), "tightest first: {tightest}");
    ask().await.expect(204);
    for _ in 0..20 {
        let refused = ask().await;
        refused.refusal(429, "rate_limited");
        assert_eq!(
            left(&refused, "trickle"),
            None,
            "only what refused is listed: {refused:#?}"
        );
    }
    let elsewhere = gateway.get("/fixed").key("trickle-1").send().await.expect(204);
    assert_eq!(left(&elsewhere, "trickle"), Some(7));
}

#[tokio::test]
async fn a_shadow_limit_counts_and_refuses_nobody() {
    let gateway = start(config()).await;
    for _ in 0..4 {
        gateway.get("/shadow").key("trickle-1").send().await.expect(204);
    }
    let shadow = [("limit", "shadow/dark"), ("decision", "shadow")];
    assert_eq!(gateway.metric("gateway_limit_decisions_total", &shadow).await, 3.0);
}

#[tokio::test]
async fn who_is_turned_away_before_the_limit_is_told_nothing_of_it() {
    let gateway = start(config()).await;
    let ask = |target: &str| gateway.get(target).key("trickle-1");
    let turned_away = [
        (401, gateway.get("/fixed").send().await),
        (401, gateway.get("/fixed").key("nobody's").send().await),
        (403, ask("/scoped").send().await),
        (404, ask("/nowhere").send().await),
        (405, gateway.post("/narrow").key("trickle-1").send().await),
        (400, ask("/fixed").header("x-request-timeout-ms", "soon").send().await),
    ];
    for (status, answer) in turned_away {
        let answer = answer.expect(status);
        assert_eq!(answer.header("ratelimit"), None, "{answer:#?}");
        assert_eq!(answer.header("ratelimit-policy"), None, "{answer:#?}");
    }
    let charged = ask("/fixed").send().await.expect(204);
    assert_eq!(left(&charged, "trickle"), Some(9), "none of them was charged");
}

async fn start_with_backend(guards: &str) -> (Fleet, Handle, Gateway) {
    let (fleet, api) = one_backend("api").await;
    let config = config().backend("api", api.address(), guards).mapped("api", "api", "");
    (fleet, api, start(config).await)
}

#[tokio::test]
async fn what_an_open_breaker_kept_from_the_backend_is_refunded() {
    let guards = "retry: off, breaker: { min_calls: 2, failure_ratio: 0.5, open_for: 1h }";
    let (_fleet, api, gateway) = start_with_backend(guards).await;
    api.behave(Behaviour::status(500)).await;
    let ask = || gateway.get("/api/echo").key("trickle-1").send();
    for remaining in [9, 8] {
        let failed = ask().await.expect(500);
        assert_eq!(
            left(&failed, "trickle"),
            Some(remaining),
            "a backend's failure is not refunded"
        );
    }
    for _ in 0..20 {
        let refused = ask().await;
        refused.refusal(503, "breaker_open");
        assert_eq!(left(&refused, "trickle"), Some(8), "{refused:#?}");
    }
}

#[tokio::test]
async fn what_a_full_bulkhead_kept_from_the_backend_is_refunded() {
    let (_fleet, api, gateway) = start_with_backend("bulkhead: { limit: 1, queue: 0 }").await;
    api.close_gate();
    let held = tokio::spawn(gateway.get("/api/echo").key("trickle-1").send());
    api.wait_for(|counts| counts.at_gate == 1, crate::SOON)
        .await
        .expect("it is asked");
    for _ in 0..20 {
        let refused = gateway.get("/api/echo").key("trickle-1").send().await;
        refused.refusal(503, "bulkhead_full");
        assert_eq!(left(&refused, "trickle"), Some(9), "{refused:#?}");
    }
    api.open_gate();
    held.await.expect("no panic").expect(200);
}
