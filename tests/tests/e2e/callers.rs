//! Checks authentication: every credential is verified, no identity is invented, and a rejection says what is missing.

use std::time::Duration;

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Fleet, Handle};
use fixtures::keys;
use fixtures::tokens::{Algorithm, kid, mint, seconds_from_now};
use serde_json::{Value, json};
use tests::configs::Config;
use tests::{Gateway, Setup};

use crate::one_backend;

pub(crate) const TOP: &str = r#"
listeners: { public: { address: "127.0.0.1:0" } }
admin: { address: "127.0.0.1:0" }
tiers: { open: { rate: 1000000/s, burst: 1000000 } }
default_tier: open
tenants: { initech: { tier: enterprise } }
callers:
  api_keys: { file: keys.yaml }
  jwt:
    main: { issuer: "https://id.test", audience: [edge], keys: { file: jwks.json }, leeway: 0s,
            algorithms: [HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA],
            tenant: /tenant, tier: /plan, scopes: /scope }
    narrow: { issuer: "https://narrow.test", audience: [edge], keys: { file: jwks.json }, algorithms: [ES256],
              tenant: /tenant }
  anonymous: { by: client_address, tier: open }
  failures: { rate: 1/h, burst: 20 }
"#;

pub(crate) async fn start() -> (Fleet, Handle, Gateway) {
    let (fleet, api) = one_backend("api").await;
    let config = Config::with(TOP)
        .backend("api", api.address(), "")
        .mapped("any", "api", "")
        .mapped("keys", "api", "access: { any_of: [api_key] }")
        .mapped("tokens", "api", "access: { any_of: [jwt] }")
        .mapped("kept", "api", "access: { any_of: [jwt] }, forward_credential: false")
        .mapped("open", "api", "access: { any_of: [api_key, jwt, anonymous] }")
        .mapped("scoped", "api", "access: { scopes: [users.read, users.list] }")
        .mapped("paying", "api", "access: { tiers: [premium, enterprise] }")
        .mapped("acme", "api", "access: { tenants: [acme] }");
    let keys = [
        KeyLine::new("acme-1", "acme", "key-acme").scopes(&["users.read", "users.list"]),
        KeyLine::new("globex-1", "globex", "key-globex")
            .tier("premium")
            .scopes(&["users.read"]),
        KeyLine::new("initech-1", "initech", "key-initech").tier("free"),
        KeyLine::new("old", "acme", "key-old").with("expires", "2020-01-01"),
        KeyLine::new("early", "acme", "key-early").with("not_before", "2199-01-01"),
        KeyLine::new("off", "acme", "key-off").with("disabled", "true"),
    ];
    let gateway = Setup::new(config.to_string())
        .file("keys.yaml", key_file(&keys))
        .file("jwks.json", all_keys().to_string())
        .start()
        .await;
    (fleet, api, gateway)
}

/// The public keys and the symmetric ones in one set.
pub(crate) fn all_keys() -> Value {
    let listed = |set: &str| {
        let set: Value = serde_json::from_str(set).expect("a JWKS");
        set["keys"].as_array().expect("a list").clone()
    };
    let all = [listed(keys::JWKS), listed(keys::OCT_JWKS)].concat();
    json!({ "keys": all })
}

/// Claims that the issuer `main` would sign for Ada of Acme.
pub(crate) fn claims() -> Value {
    json!({
        "iss": "https://id.test", "aud": "edge", "sub": "ada", "tenant": "acme",
        "exp": seconds_from_now(Duration::from_secs(600)),
    })
}

pub(crate) fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

pub(crate) fn signed(claims: &Value) -> String {
    mint(Algorithm::ES256, claims, Some(&kid(Algorithm::ES256)))
}

#[tokio::test]
async fn without_a_credential_the_answer_says_what_is_missing() {
    let (_fleet, api, gateway) = start().await;
    let refused = gateway.get("/any/echo").send().await;
    let detail = refused.refusal(401, "credentials_missing")["detail"].to_string();
    assert!(detail.contains("x-api-key"), "{detail}");
    assert!(detail.contains("Bearer"), "{detail}");
    let challenge = refused
        .header("www-authenticate")
        .expect("RFC 9110 section 11.6.1 wants a challenge");
    assert!(challenge.contains("Bearer"), "{challenge}");
    assert_eq!(api.counts().requests, 0);
}

#[tokio::test]
async fn a_key_admits_and_names_tenant_tier_and_caller() {
    let (_fleet, _api, gateway) = start().await;
    let answer = gateway.get("/any/echo").key("key-globex").send().await.expect(200);
    assert_eq!(answer.echoed("x-tenant-id").as_deref(), Some("globex"));
    assert_eq!(answer.echoed("x-tenant-tier").as_deref(), Some("premium"));
    assert_eq!(answer.echoed("x-caller-id").as_deref(), Some("globex-1"));
}

#[tokio::test]
async fn the_tenants_table_has_the_last_word_on_the_tier() {
    let (_fleet, _api, gateway) = start().await;
    let answer = gateway.get("/any/echo").key("key-initech").send().await.expect(200);
    assert_eq!(answer.echoed("x-tenant-tier").as_deref(), Some("enterprise"));
}

#[tokio::test]
async fn a_key_that_does_not_hold_is_refused() {
    let (_fleet, api, gateway) = start().await;
    for (key, reason) in [
        ("nobody's", "credentials_invalid"),
        ("key-old", "credentials_expired"),
        ("key-early", "credentials_invalid"),
        ("key-off", "credentials_invalid"),
    ] {
        for route in ["/any/echo", "/open/echo"] {
            let refused = gateway.get(route).key(key).send().await;
            refused.refusal(401, reason);
        }
    }
    assert_eq!(api.counts().requests, 0);
}

#[tokio::test]
async fn a_credential_of_the_wrong_kind_is_a_missing_one() {
    let (_fleet, _api, gateway) = start().await;
    let refused = gateway.get("/tokens/echo").key("key-acme").send().await;
    refused.refusal(401, "credentials_missing");
    let refused = gateway.get("/keys/echo").bearer(&signed(&claims())).send().await;
    refused.refusal(401, "credentials_missing");
}

#[tokio::test]
async fn two_credentials_must_both_hold_and_name_one_tenant() {
    let (_fleet, _api, gateway) = start().await;
    let ask = |key: &str, token: &str| gateway.get("/any/echo").key(key).bearer(token).send();
    let token = signed(&claims());
    ask("key-acme", &token).await.expect(200);
    ask("nobody's", &token).await.refusal(401, "credentials_invalid");
    ask("key-acme", "not-a-token").await.refusal(401, "credentials_invalid");
    ask("key-globex", &token).await.refusal(401, "credentials_invalid");
}

#[tokio::test]
async fn a_valid_credential_is_not_enough_for_every_route() {
    let (_fleet, api, gateway) = start().await;
    gateway.get("/scoped/echo").key("key-acme").send().await.expect(200);
    gateway.get("/paying/echo").key("key-globex").send().await.expect(200);
    gateway.get("/acme/echo").key("key-acme").send().await.expect(200);
    for (route, key) in [("scoped", "key-globex"), ("paying", "key-acme"), ("acme", "key-globex")] {
        let refused = gateway.get(&format!("/{route}/echo")).key(key).send().await;
        refused.refusal(403, "not_allowed");
    }
    let scoped = |scope: &str| {
        gateway
            .get("/scoped/echo")
            .bearer(&signed(&claims_with("scope", scope.into())))
            .send()
    };
    scoped("users.list other users.read").await.expect(200);
    scoped("users.read").await.refusal(403, "not_allowed");
    assert_eq!(api.counts().requests, 4);
}

#[tokio::test]
async fn anonymous_callers_are_admitted_only_where_a_route_says_so() {
    let (_fleet, _api, gateway) = start().await;
    let answer = gateway.get("/open/echo").send().await.expect(200);
    assert_eq!(answer.echoed("x-tenant-tier").as_deref(), Some("open"));
    for route in ["any", "keys", "tokens"] {
        let refused = gateway.get(&format!("/{route}/echo")).send().await;
        refused.refusal(401, "credentials_missing");
    }
}

#[tokio::test]
async fn a_key_is_never_passed_on_and_a_token_only_where_it_may() {
    let (_fleet, _api, gateway) = start().await;
    let token = signed(&claims());
    let answer = gateway.get("/any/echo").key("key-acme").send().await.expect(200);
    assert_eq!(answer.echoed("x-api-key"), None);
    let answer = gateway.get("/tokens/echo").bearer(&token).send().await.expect(200);
    assert_eq!(answer.echoed("authorization"), Some(format!("Bearer {token}")));
    let answer = gateway.get("/kept/echo").bearer(&token).send().await.expect(200);
    assert_eq!(answer.echoed("authorization"), None);
}

#[tokio::test]
async fn what_a_client_says_about_itself_never_arrives() {
    let (_fleet, api, gateway) = start().await;
    let lies = [
        "x-tenant",
        "x-tenant-id",
        "x-tenant-tier",
        "x-caller-id",
        "x-user",
        "x-user-id",
        "x-gateway-reason",
        "x-gateway-anything",
        "X-Tenant-ID",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "forwarded",
    ];
    for name in lies {
        let ask = gateway.get("/any/echo").key("key-acme").header(name, "lie.example");
        ask.send().await.expect(200);
        let request = api.take_requests().pop().expect("it came");
        let lied = request.headers.iter().find(|(_, value)| value.contains("lie.example"));
        assert_eq!(lied, None, "{name}");
        assert_eq!(request.header_values("x-tenant-id"), ["acme"], "{name}");
        assert_eq!(request.header_values("x-tenant-tier"), ["open"], "{name}");
    }
    let lie = gateway
        .get("/paying/echo")
        .key("key-acme")
        .header("x-tenant-tier", "enterprise");
    lie.send().await.refusal(403, "not_allowed");
}

#[tokio::test]
async fn guessing_is_limited_and_locks_out_nobody_who_knows() {
    let (_fleet, _api, gateway) = start().await;
    let guess = |number: usize| gateway.get("/any/echo").key(&format!("guess-{number}"));
    for number in 0..20 {
        guess(number).send().await.refusal(401, "credentials_invalid");
    }
    guess(20).send().await.refusal(429, "rate_limited");
    let guessed_token = gateway.get("/any/echo").bearer("guess").send().await;
    guessed_token.refusal(429, "rate_limited");
    gateway.get("/any/echo").key("key-acme").send().await.expect(200);
    gateway
        .get("/any/echo")
        .bearer(&signed(&claims()))
        .send()
        .await
        .expect(200);
    gateway.get("/open/echo").send().await.expect(200);
}
