//! Checks the owners of counts: every owner has its own count while there is room, and no kind of owner takes the room
//! of another kind.

use fixtures::api_keys::{KeyLine, key_file};
use serde_json::Value;
use tests::configs::Config;
use tests::{Answer, Ask, Gateway, Setup, Signal};

use crate::callers::{all_keys, claims_with, signed};

const TOP: &str = r#"
listeners: { public: { address: "127.0.0.1:0" } }
admin: { address: "127.0.0.1:0" }
client_address: { trusted_proxies: [127.0.0.0/8] }
account_limits: { addresses: 4, networks: 1, tenants: 2, callers: 2 }
tiers: { trickle: { rate: 1/h, burst: 3 }, open: { rate: 1000000/s, burst: 1000000 } }
default_tier: trickle
callers:
  api_keys: { file: keys.yaml }
  jwt: { main: { issuer: "https://id.test", audience: [edge], keys: { file: jwks.json }, algorithms: [ES256],
                 tenant: /tenant, tier: /plan } }
  anonymous: { by: client_address, tier: trickle }
"#;

fn config(top: &str, limits: &str) -> String {
    let config = Config::with(TOP).top(top).route(
        "fixed",
        &format!(
            "{{ match: {{ path: /fixed }}, access: {{ any_of: [api_key, jwt, anonymous] }}, limits: {limits}, \
             respond: {{ status: 204 }} }}"
        ),
    );
    config.to_string()
}

fn setup(top: &str, limits: &str) -> Setup {
    let keys = [KeyLine::new("ada", "acme", "key-ada").tier("open")];
    Setup::new(config(top, limits))
        .file("keys.yaml", key_file(&keys))
        .file("jwks.json", all_keys().to_string())
}

fn from(gateway: &Gateway, address: &str) -> Ask {
    gateway.get("/fixed").header("x-forwarded-for", address)
}

fn with_token(gateway: &Gateway, claims: &[(&str, Value)]) -> Ask {
    let mut all = claims_with("plan", "trickle".into());
    for (name, value) in claims {
        all[*name] = value.clone();
    }
    gateway.get("/fixed").bearer(&signed(&all))
}

fn left(answer: &Answer, limit: &str) -> Option<u64> {
    let items = answer.header("ratelimit")?.split(", ");
    let item = items
        .into_iter()
        .find_map(|item| item.strip_prefix(&format!("\"{limit}\";r=")))?;
    item.split(';').next()?.parse().ok()
}

async fn accounts(gateway: &Gateway, of: &str) -> f64 {
    gateway.metric("gateway_limit_room_in_use", &[("owners", of)]).await
}

#[tokio::test]
async fn addresses_in_any_number_keep_out_no_tenant() {
    let gateway = setup("", "{}").start().await;
    for network in 0..20 {
        for host in 1..=4 {
            from(&gateway, &format!("10.0.{network}.{host}")).send().await;
        }
    }
    assert_eq!(accounts(&gateway, "addresses").await, 4.0);
    from(&gateway, "192.0.2.1").send().await.refusal(429, "rate_limited");
    for tenant in ["one", "two"] {
        let answer = with_token(&gateway, &[("tenant", tenant.into())])
            .send()
            .await
            .expect(204);
        assert_eq!(left(&answer, "trickle"), Some(2), "{tenant}: {answer:#?}");
    }
    // The tenants' own room is over, and the key file's tenants need none.
    let shared = with_token(&gateway, &[("tenant", "three".into())]);
    assert_eq!(left(&shared.send().await.expect(204), "trickle"), Some(2));
    let shared = with_token(&gateway, &[("tenant", "four".into())]);
    assert_eq!(left(&shared.send().await.expect(204), "trickle"), Some(1));
    gateway.get("/fixed").key("key-ada").send().await.expect(204);

    let counted = async |name: &str| gateway.metric(name, &[("limit", "trickle")]).await;
    assert!(counted("gateway_limit_overflow_total").await >= 70.0);
    for (owners, most) in [
        ("addresses", 4.0),
        ("networks", 1.0),
        ("tenants", 2.0),
        ("restored", 16.0),
    ] {
        let told = gateway.metric("gateway_limit_room", &[("owners", owners)]).await;
        assert_eq!(told, most, "{owners}");
    }
}

#[tokio::test]
async fn addresses_beyond_their_share_are_counted_by_network_before_all_together() {
    let gateway = setup("", "{}").start().await;
    // Four have their own, the others of their network one together, and all further ones another.
    for (address, remaining) in [
        ("10.0.0.1", 2),
        ("10.0.0.2", 2),
        ("10.0.0.3", 2),
        ("10.0.0.4", 2),
        ("10.0.0.5", 2),
        ("10.0.0.6", 1),
        ("10.0.1.1", 2),
        ("2001:db8:0:1::1", 1),
        ("10.0.0.1", 1),
    ] {
        let answer = from(&gateway, address).send().await.expect(204);
        assert_eq!(left(&answer, "trickle"), Some(remaining), "{address}");
    }
    let widened = gateway
        .metric("gateway_limit_widened_total", &[("limit", "trickle")])
        .await;
    let overflowed = gateway
        .metric("gateway_limit_overflow_total", &[("limit", "trickle")])
        .await;
    assert!(widened >= 2.0 && overflowed >= 2.0, "{widened} {overflowed}");
}

#[tokio::test]
async fn callers_of_the_same_name_are_told_apart_by_what_they_show() {
    let gateway = setup("", "{ each: { rate: 1/h, burst: 5, per: caller } }")
        .start()
        .await;
    let by_key = || gateway.get("/fixed").key("key-ada").send();
    let by_token = || with_token(&gateway, &[("plan", "open".into())]).send();
    for remaining in [4, 3] {
        assert_eq!(left(&by_key().await.expect(204), "each"), Some(remaining));
        assert_eq!(left(&by_token().await.expect(204), "each"), Some(remaining));
    }
}

#[tokio::test]
async fn who_was_there_before_a_restart_takes_no_room() {
    let folder = tempfile::tempdir().unwrap();
    let file = format!("state_file: {}", folder.path().join("counts").display());
    let limits = "{ daily: { limit: 10, every: month, per: client_address } }";
    let mut gateway = setup(&file, limits).start().await;
    let ask = |gateway: &Gateway, address: &str| from(gateway, address).key("key-ada").send();
    for host in 1..=4 {
        ask(&gateway, &format!("10.0.0.{host}")).await.expect(204);
    }
    assert_eq!(accounts(&gateway, "addresses").await, 4.0);
    gateway.signal(Signal::Term);
    assert_eq!(gateway.wait_exit().await, Some(0));

    let gateway = setup(&file, limits).start().await;
    assert_eq!(
        (
            accounts(&gateway, "addresses").await,
            accounts(&gateway, "restored").await
        ),
        (0.0, 4.0)
    );
    for host in 5..=8 {
        let answer = ask(&gateway, &format!("10.0.0.{host}")).await.expect(204);
        assert_eq!(left(&answer, "daily"), Some(9), "{host}");
    }
    let known = ask(&gateway, "10.0.0.1").await.expect(204);
    assert_eq!(left(&known, "daily"), Some(8));
    assert_eq!(
        gateway
            .metric("gateway_limit_widened_total", &[("limit", "fixed/daily")])
            .await,
        0.0
    );
}

#[tokio::test]
async fn a_limit_that_counts_something_else_after_a_reload_goes_on_from_what_was_taken() {
    let limits = [
        "{ fair: { rate: 1/h, burst: 4 } }",
        "{ fair: { kind: sliding_window, rate: 4/d } }",
        "{ fair: { limit: 4, every: month } }",
    ];
    for (at, before) in limits.iter().enumerate() {
        let gateway = setup("", before).start().await;
        let ask = || gateway.get("/fixed").key("key-ada").send();
        for remaining in [3, 2, 1] {
            assert_eq!(left(&ask().await.expect(204), "fair"), Some(remaining), "{before}");
        }
        let after = limits[(at + 1) % limits.len()];
        gateway.reload(config("", after)).await;
        assert_eq!(left(&ask().await.expect(204), "fair"), Some(0), "{before} then {after}");
        let word = if at == 1 { "quota_exhausted" } else { "rate_limited" };
        ask().await.refusal(429, word);
        assert!(
            gateway.log().contains("a limit counts something else"),
            "{}",
            gateway.log()
        );
    }
}
