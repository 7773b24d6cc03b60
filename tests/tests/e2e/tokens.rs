//! Checks that a token counts only if everything in it is valid.

use std::time::Duration;

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::Behaviour;
use fixtures::tokens::{ALGORITHMS, Algorithm, kid, mint, seconds_from_now};
use serde_json::{Value, json};
use tests::configs::Config;
use tests::{Setup, eventually};

use crate::callers::{TOP, all_keys, claims, claims_with, signed, start};
use crate::{SOON, backends, one_backend};

fn claims_without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().expect("claims are an object").remove(name);
    claims
}

#[tokio::test]
async fn tokens_of_every_algorithm_are_admitted() {
    let (_fleet, _api, gateway) = start().await;
    for algorithm in ALGORITHMS {
        let token = mint(algorithm, &claims(), Some(&kid(algorithm)));
        let answer = gateway.get("/tokens/echo").bearer(&token).send().await;
        assert_eq!(answer.status, 200, "{algorithm:?}: {answer:#?}");
        assert_eq!(answer.echoed("x-tenant-id").as_deref(), Some("acme"), "{algorithm:?}");
        assert_eq!(answer.echoed("x-caller-id").as_deref(), Some("ada"), "{algorithm:?}");
    }
}

#[tokio::test]
async fn a_claim_gives_the_tier_if_there_is_such_a_tier() {
    let (_fleet, _api, gateway) = start().await;
    for (plan, tier) in [("premium", "premium"), ("platinum", "open")] {
        let token = signed(&claims_with("plan", plan.into()));
        let answer = gateway.get("/tokens/echo").bearer(&token).send().await.expect(200);
        assert_eq!(answer.echoed("x-tenant-tier").as_deref(), Some(tier), "{plan}");
    }
}

#[tokio::test]
async fn a_tier_that_there_is_not_is_the_default_and_is_told() {
    let (_fleet, _api, gateway) = start().await;
    let long = "\u{2603}".repeat(100);
    let cases = [
        (json!("premium"), "premium", None),
        (json!(null), "open", None),
        (json!("platinum"), "open", Some("platinum")),
        (json!("Premium"), "open", Some("Premium")),
        (json!("gr\u{f6}\u{df}er"), "open", Some("gr\u{f6}\u{df}er")),
        (json!(""), "open", Some("")),
        (json!(7), "open", Some("7")),
        (json!(["premium"]), "open", Some("[\"premium\"]")),
        (json!(true), "open", Some("true")),
        (json!("a\nb"), "open", Some("a\nb")),
        (json!(long), "open", Some(&long[..63])),
    ];
    // The config decides on this tenant, whatever the token says.
    let mut decided = claims_with("plan", "platinum".into());
    decided["tenant"] = "initech".into();
    let answer = gateway
        .get("/tokens/echo")
        .bearer(&signed(&decided))
        .send()
        .await
        .expect(200);
    assert_eq!(answer.echoed("x-tenant-tier").as_deref(), Some("enterprise"));
    for (plan, tier, _) in &cases {
        let token = signed(&claims_with("plan", plan.clone()));
        for _ in 0..2 {
            let answer = gateway.get("/tokens/echo").bearer(&token).send().await.expect(200);
            assert_eq!(answer.echoed("x-tenant-tier").as_deref(), Some(*tier), "{plan}");
        }
    }
    let unknown: Vec<_> = cases.iter().filter_map(|(_, _, unknown)| *unknown).collect();
    let requests = 2 * unknown.len();
    gateway
        .metric_becomes("gateway_unknown_tiers_total", &[], requests as f64)
        .await;
    let told = gateway.admin_json("/api/v1/status").await["unknown_tiers"].clone();
    assert_eq!(told["requests"], requests);
    let named = told["named"].as_array().expect("a list");
    assert_eq!(named.len(), unknown.len());
    for name in &unknown {
        let expected = json!({ "name": name, "tenant": "acme", "requests": 2 });
        assert!(named.contains(&expected), "{expected} in {told}");
    }
    let lines = eventually(SOON, "all lines are written", || async {
        let written = gateway.stdout();
        let lines: Vec<Value> = written
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        (lines.len() == 1 + 2 * cases.len()).then_some(lines)
    })
    .await;
    assert_eq!(lines[0]["unknown_tier"], Value::Null);
    for (pair, (plan, tier, unknown)) in lines[1..].chunks(2).zip(&cases) {
        for line in pair {
            assert_eq!(
                (&line["tier"], &line["unknown_tier"]),
                (&json!(tier), &json!(unknown)),
                "{plan}"
            );
        }
    }
    assert!(gateway.log().contains("names a tier that there is not"));

    // A reload forgets nothing.
    gateway.signal(tests::Signal::Hup);
    gateway.metric_becomes("gateway_config_generation", &[], 2.0).await;
    let token = signed(&claims_with("plan", "platinum".into()));
    gateway.get("/tokens/echo").bearer(&token).send().await.expect(200);
    gateway
        .metric_becomes("gateway_unknown_tiers_total", &[], (requests + 1) as f64)
        .await;
}

#[tokio::test]
async fn a_token_that_is_wrong_in_one_way_is_refused() {
    let (_fleet, api, gateway) = start().await;
    let (good, other) = (signed(&claims()), signed(&claims_with("sub", "eve".into())));
    let parts = |token: &str| token.split('.').map(str::to_owned).collect::<Vec<_>>();
    let past = seconds_from_now(Duration::ZERO) - 60;
    let narrow = claims_with("iss", "https://narrow.test".into());
    let cases = [
        (
            "altered",
            format!("{}.{}.{}", parts(&good)[0], parts(&other)[1], parts(&good)[2]),
            "credentials_invalid",
        ),
        (
            "unsigned",
            format!("eyJhbGciOiJub25lIn0.{}.", parts(&good)[1]),
            "credentials_invalid",
        ),
        (
            "cut short",
            format!("{}.{}", parts(&good)[0], parts(&good)[1]),
            "credentials_invalid",
        ),
        ("no token", "not-a-token".to_owned(), "credentials_invalid"),
        (
            "expired",
            signed(&claims_with("exp", past.into())),
            "credentials_expired",
        ),
        (
            "not yet",
            signed(&claims_with("nbf", (past + 600).into())),
            "credentials_invalid",
        ),
        ("for ever", signed(&claims_without("exp")), "credentials_invalid"),
        (
            "another issuer",
            signed(&claims_with("iss", "https://evil.test".into())),
            "credentials_invalid",
        ),
        ("no issuer", signed(&claims_without("iss")), "credentials_invalid"),
        (
            "another audience",
            signed(&claims_with("aud", "other".into())),
            "credentials_invalid",
        ),
        ("no audience", signed(&claims_without("aud")), "credentials_invalid"),
        ("no tenant", signed(&claims_without("tenant")), "credentials_invalid"),
        (
            "a tenant that is no name",
            signed(&claims_with("tenant", "a\nb".into())),
            "credentials_invalid",
        ),
        (
            "an algorithm the issuer does not use",
            mint(Algorithm::RS256, &narrow, Some(&kid(Algorithm::RS256))),
            "credentials_invalid",
        ),
        (
            "the key of another algorithm",
            mint(Algorithm::ES256, &claims(), Some(&kid(Algorithm::RS256))),
            "credentials_invalid",
        ),
    ];
    for (case, token, reason) in cases {
        let refused = gateway.get("/open/echo").bearer(&token).send().await;
        assert_eq!(
            (refused.status, refused.reason()),
            (401, Some(reason)),
            "{case}: {refused:#?}"
        );
    }
    gateway
        .get("/tokens/echo")
        .bearer(&signed(&narrow))
        .send()
        .await
        .expect(200);
    assert_eq!(api.counts().requests, 1);
}

#[tokio::test]
async fn keys_come_from_a_url_and_never_symmetric_ones() {
    let (_fleet, [api, issuer]) = backends(["api", "issuer"]).await;
    let body = all_keys().to_string();
    let length = body.len();
    let served = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}");
    issuer.behave(Behaviour::raw(served)).await;
    let url = format!("http://{}/jwks.json", issuer.address());
    let top = TOP
        .replacen("file: jwks.json", &format!("url: \"{url}\""), 1)
        .replace("HS256, HS384, HS512, ", "");
    let config = Config::with(top)
        .backend("api", api.address(), "")
        .mapped("tokens", "api", "");
    let gateway = Setup::new(config.to_string())
        .file("keys.yaml", key_file(&[KeyLine::new("acme-1", "acme", "key-acme")]))
        .file("jwks.json", all_keys().to_string())
        .start()
        .await;
    let with = |algorithm| {
        gateway
            .get("/tokens/echo")
            .bearer(&mint(algorithm, &claims(), Some(&kid(algorithm))))
            .send()
    };
    eventually(SOON, "the keys have come", || async {
        (with(Algorithm::ES256).await.status == 200).then_some(())
    })
    .await;
    with(Algorithm::PS512).await.expect(200);
    with(Algorithm::HS256).await.refusal(401, "credentials_invalid");
}

/// An issuer that signs tokens can write any tenant into them.
#[tokio::test]
async fn an_issuer_speaks_for_its_own_tenants_alone() {
    let (_fleet, [api]) = backends(["api"]).await;
    let issuer = |name: &str, tenants: &str| {
        format!(
            "    {name}: {{ issuer: \"https://{name}.test\", audience: [edge], keys: {{ file: jwks.json }}, \
             algorithms: [ES256], tenant: /tenant{tenants} }}\n"
        )
    };
    let config = |issuers: String| {
        let top = TOP.split_once("callers:").expect("it has callers").0;
        Config::with(format!("{top}callers:\n  jwt:\n{issuers}"))
            .backend("api", api.address(), "")
            .mapped("tokens", "api", "access: { any_of: [jwt] }")
            .to_string()
    };
    let token = |issuer: &str, tenant: &str| {
        let mut claims = claims_with("tenant", tenant.into());
        claims["iss"] = format!("https://{issuer}.test").into();
        mint(Algorithm::ES256, &claims, Some(&kid(Algorithm::ES256)))
    };
    let (acme, globex) = (", tenants: [acme]", ", tenants: [globex, initech]");
    let gateway = Setup::new(config(
        issuer("one", acme) + &issuer("two", globex) + &issuer("rest", ""),
    ))
    .file("jwks.json", all_keys().to_string())
    .start()
    .await;
    let status = async |issuer: &str, tenant: &str| {
        let answer = gateway.get("/tokens/echo").bearer(&token(issuer, tenant)).send().await;
        if answer.status != 200 {
            answer.refusal(401, "credentials_invalid");
        }
        answer.status
    };
    for (issuer, tenant, expected) in [
        ("one", "acme", 200),
        ("one", "globex", 401),
        ("one", "umbrella", 401),
        ("two", "globex", 200),
        ("two", "initech", 200),
        ("two", "acme", 401),
        ("rest", "umbrella", 200),
        ("rest", "acme", 401),
        ("rest", "initech", 401),
    ] {
        assert_eq!(status(issuer, tenant).await, expected, "{issuer} {tenant}");
    }
    eventually(SOON, "the log says why", || async {
        gateway.stdout().contains("tenant_of_other_issuer").then_some(())
    })
    .await;
    // A token that was good under another list is not remembered as such.
    let swapped = config(issuer("one", globex) + &issuer("two", acme) + &issuer("rest", ""));
    gateway.reload(swapped).await;
    for (issuer, tenant, expected) in [("one", "acme", 401), ("one", "globex", 200), ("two", "acme", 200)] {
        assert_eq!(status(issuer, tenant).await, expected, "{issuer} {tenant}");
    }
}

/// What the token says is put into fields both ways, and without a token nothing of it is, whatever the caller wrote.
#[tokio::test]
async fn a_claim_fills_fields() {
    let (_fleet, api) = one_backend("api").await;
    let filled = "access: { any_of: [api_key, jwt] }, headers: { \
        request: { set: { x-login: \"{claim.sub}@{claim.org.name}\" } }, \
        response: { set: { x-for: \"{claim.sub}\" } } }";
    let config = Config::with(TOP)
        .backend("api", api.address(), "")
        .mapped("filled", "api", filled);
    let gateway = Setup::new(config.to_string())
        .file("keys.yaml", key_file(&[KeyLine::new("acme-1", "acme", "key-acme")]))
        .file("jwks.json", all_keys().to_string())
        .start()
        .await;
    let token = signed(&claims_with("org", serde_json::json!({ "name": "acme" })));
    let ask = || gateway.get("/filled/echo").header("x-login", "root@acme");
    let answer = ask().bearer(&token).send().await.expect(200);
    assert_eq!(answer.echoed("x-login").as_deref(), Some("ada@acme"));
    assert_eq!(answer.header("x-for"), Some("ada"));
    // A token without the claim, and a key that has none.
    let answer = ask().bearer(&signed(&claims())).send().await.expect(200);
    assert_eq!(answer.echoed("x-login"), None);
    let answer = ask().key("key-acme").send().await.expect(200);
    assert_eq!((answer.echoed("x-login"), answer.header("x-for")), (None, None));
}
