//! Checks `gateway simulate`: that a recorded load is limited as it was, and what is said of a described one.

use std::fs;

use fixtures::api_keys::{KeyLine, key_file};
use serde_json::Value;
use tests::configs::Config;
use tests::{Setup, cli, eventually};

use crate::{SOON, one_backend};

const TOP: &str = r#"
listeners: { public: { address: "127.0.0.1:0" } }
admin: { address: "127.0.0.1:0" }
access_log: { file: access.log }
overload: off
tiers:
  small: { rate: 10/s, burst: 20 }
  large: { rate: 22/s, burst: 60 }
callers: { api_keys: { file: keys.yaml }, anonymous: { by: client_address, tier: small } }
"#;

/// Most differing refusals, of a hundred.
const DIFFERENCE: f64 = 1.0;

#[tokio::test]
async fn a_replayed_log_is_limited_as_it_was() {
    let (_fleet, api) = one_backend("api").await;
    let config = Config::with(TOP).backend("api", api.address(), "retry: off").route(
        "api",
        "{ match: { path: \"/{*rest}\" }, access: { any_of: [api_key, anonymous] }, limits: { all: { rate: 38/s, burst: 80, per: global } }, backend: api }",
    );
    let keys = [
        KeyLine::new("small-1", "shop", "key-small").tier("small"),
        KeyLine::new("large-1", "mall", "key-large").tier("large"),
    ];
    let setup = Setup::new(config.to_string()).file("keys.yaml", key_file(&keys));
    let gateway = setup.clone().start().await;
    let mut refused = 0;
    // As fast as one caller goes, so that buckets drain and earn again while it lasts.
    for round in 0..400 {
        for key in [Some("key-small"), Some("key-large"), None] {
            let ask = gateway.get("/echo");
            let answer = match key {
                Some(key) => ask.key(key).send().await,
                None => ask.send().await,
            };
            assert!([200, 429].contains(&answer.status), "{round}: {}", answer.status);
            refused += u64::from(answer.status == 429);
        }
    }
    assert!(refused > 200, "{refused}");
    let log = eventually(SOON, "the log has all requests", || async {
        let log = fs::read_to_string(gateway.path("access.log")).unwrap_or_default();
        (log.lines().count() == 1200).then_some(log)
    })
    .await;
    let told = cli(
        &["simulate", "--log", "recorded.log", "--json"],
        &setup.file("recorded.log", log),
    );
    assert_eq!(told.code, Some(0), "{told:?}");
    let report: Value = serde_json::from_str(&told.stdout).expect("JSON");
    let outcome = &report[0]["outcome"];
    assert_eq!(outcome["requests"], 1200);
    assert_eq!(outcome["logged"]["rate_limited"], refused);
    let here = outcome["here"]["rate_limited"].as_u64().expect("a number");
    let off = 100.0 * here.abs_diff(refused) as f64 / refused as f64;
    assert!(off <= DIFFERENCE, "{here} of {refused}: {off} %\n{outcome:#}");
    let calls = outcome["backends"][0]["calls"].as_u64();
    assert_eq!(calls, outcome["here"]["answered"].as_u64());
}

#[test]
fn a_recorded_request_gets_the_fields_and_the_body_that_its_log_has_not() {
    let config = Config::with(TOP)
        .backend("api", "127.0.0.1:9".parse().expect("an address"), "")
        .route(
            "new",
            r#"{ match: { path: /orders, headers: { x-version: "2" } }, access: { any_of: [anonymous] }, aggregate: { parts: {
               order: { backend: api, path: "/orders/{body.id}" } } } }"#,
        );
    let line = r#"{"time":"2027-01-31T10:00:00.000Z","request_id":"a","method":"POST","path":"/orders","status":200,"bytes_in":9,"client":"127.0.0.1"}"#;
    let setup = Setup::new(config.to_string())
        .file(
            "keys.yaml",
            key_file(&[KeyLine::new("small-1", "shop", "key-small").tier("small")]),
        )
        .file("recorded.log", format!("{line}\n"))
        .file("order.json", r#"{ "id": 7 }"#);
    let simulated = |options: &[&str]| {
        let told = cli(
            &[&["simulate", "--log", "recorded.log", "--json"], options].concat(),
            &setup,
        );
        assert_eq!(told.code, Some(0), "{told:?}");
        let report: Value = serde_json::from_str(&told.stdout).expect("JSON");
        report[0]["outcome"]["here"].clone()
    };
    assert_eq!(simulated(&[]), serde_json::json!({ "no_route": 1 }));
    let fields = ["-H", "x-version: 2"];
    assert_ne!(
        simulated(&fields),
        serde_json::json!({ "answered": 1 }),
        "the body has no id"
    );
    let all = ["-H", "x-version: 2", "--body", "order.json"];
    assert_eq!(simulated(&all), serde_json::json!({ "answered": 1 }));
    let told = cli(&["simulate", "--log", "recorded.log", "-H", "x-version"], &setup);
    assert_eq!(told.code, Some(2), "{told:?}");
}

const LOADS: &str = r#"
config: gateway.yaml
callers: { shop: { key: key-small } }
tests:
  a minute of a shop while the backend fails for 10s:
    - { at: 20s, backends: { api: 500 for 10s } }
    - { send: 6000 POST /echo at 0s over 1m as shop }
"#;

#[test]
fn a_described_load_is_told_with_its_limits_breakers_and_peaks() {
    let config = Config::with(TOP)
        .backend(
            "api",
            "127.0.0.1:9".parse().expect("an address"),
            "breaker: { window: 10s, min_calls: 10, failure_ratio: 0.5, open_for: 30s }",
        )
        .route(
            "api",
            "{ match: { path: \"/{*rest}\" }, access: { any_of: [api_key] }, backend: api }",
        );
    let keys = [KeyLine::new("small-1", "shop", "key-small").tier("small")];
    let setup = Setup::new(config.to_string())
        .file("keys.yaml", key_file(&keys))
        .file("loads.yaml", LOADS);
    let told = cli(&["simulate", "loads.yaml", "--json"], &setup);
    assert_eq!(told.code, Some(0), "{told:?}");
    let report: Value = serde_json::from_str(&told.stdout).expect("JSON");
    let outcome = &report[0]["outcome"];
    assert_eq!(outcome["requests"], 6000);
    let limited = &outcome["limited"][0];
    assert_eq!((&limited["tenant"], &limited["of"]), (&"shop".into(), &6000.into()));
    assert_eq!(limited["setting"], "tiers.small");
    assert_eq!(outcome["backends"][0]["breaker_opened"], 1);
    let first = outcome["backends"][0]["breaker_first_ms"]
        .as_u64()
        .expect("it has refused");
    assert!((20_000..30_000).contains(&first), "{first}");
    let told = cli(&["simulate", "loads.yaml"], &setup);
    assert!(told.stdout.contains("limited\n  shop: "), "{}", told.stdout);
    assert!(told.stdout.contains("rate_limited by tiers.small"), "{}", told.stdout);
}

#[test]
fn what_is_no_log_is_refused() {
    let config = Config::default().route(
        "r",
        "{ match: { path: / }, access: { any_of: [anonymous] }, respond: { status: 204 } }",
    );
    let setup = Setup::new(config.to_string()).file("other.log", "GET / 200\n{}\n");
    let told = cli(&["simulate", "--log", "other.log"], &setup);
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(told.stderr.contains("it has no line of an access log"), "{told:?}");
    let told = cli(&["simulate", "--log", "missing.log"], &setup);
    assert_eq!(told.code, Some(1), "{told:?}");
}
