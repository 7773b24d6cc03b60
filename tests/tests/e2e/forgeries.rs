//! Checks the cost of forged credentials: a bounded number of signature checks, and no failure of other callers'
//! requests. The log names the check that failed, and the caller gets only a category.

use std::time::Duration;

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Fleet, Handle};
use fixtures::tokens::{Algorithm, Header, kid, mint, seconds_from_now, sign};
use serde_json::{Value, json};
use tests::configs::Config;
use tests::crowd::at_once;
use tests::{Gateway, Setup, eventually};

use crate::callers::{all_keys, claims, claims_with, signed};
use crate::{SOON, one_backend};

const TOP: &str = r#"
listeners: { public: { address: "127.0.0.1:0" } }
admin: { address: "127.0.0.1:0" }
client_address: { trusted_proxies: [127.0.0.0/8] }
tiers: { open: { rate: 1000000/s, burst: 1000000 } }
default_tier: open
callers:
  api_keys: { file: keys.yaml }
  jwt:
    main: { issuer: "https://id.test", audience: [edge], keys: { file: jwks.json }, leeway: 0s, tenant: /tenant,
            algorithms: [HS256, ES256, RS256], required_claims: [/jti], max_age: 1h }
    strict: { issuer: "https://strict.test", audience: [edge], keys: { file: jwks.json }, tenant: /tenant,
              algorithms: [ES256], typ: [at+jwt], caller: /org/user }
  failures: off
  verifications: { rate: 1/h, burst: 5 }
"#;

async fn start(top: &str) -> (Fleet, Handle, Gateway) {
    let (fleet, api) = one_backend("api").await;
    let config = Config::with(top)
        .backend("api", api.address(), "")
        .mapped("any", "api", "");
    let keys = [
        KeyLine::new("acme-1", "acme", "key-acme"),
        KeyLine::new("old", "acme", "key-old").with("expires", "2020-01-01"),
    ];
    let gateway = Setup::new(config.to_string())
        .file("keys.yaml", key_file(&keys))
        .file("jwks.json", all_keys().to_string())
        .start()
        .await;
    (fleet, api, gateway)
}

/// Good for the issuer `main`.
fn good(subject: &str) -> Value {
    let mut claims = claims_with("sub", subject.into());
    claims["jti"] = subject.into();
    claims["iat"] = seconds_from_now(Duration::ZERO).into();
    claims
}

fn forged(subject: &str) -> String {
    let (mine, other) = (signed(&good(subject)), signed(&good("other")));
    let text = mine.rsplit_once('.').expect("three parts").0;
    format!("{text}.{}", other.rsplit_once('.').expect("three parts").1)
}

#[tokio::test]
async fn a_forger_is_put_off_and_everyone_who_is_known_goes_on() {
    let (_fleet, api, gateway) = start(TOP).await;
    let known = signed(&good("ada"));
    let ask = |token: &str, from: &str| gateway.get("/any/echo").bearer(token).header("x-forwarded-for", from);
    ask(&known, "192.0.2.1").send().await.expect(200);

    // Fifty forged tokens, each of them new: five are looked at.
    let flood = at_once(50, |number| ask(&forged(&format!("eve-{number}")), "192.0.2.1")).await;
    let told = flood.statuses();
    let looked_at = told[&(401, "credentials_invalid".to_owned())];
    // Two workers may each have begun one before the other's failure was counted.
    assert!((5..=6).contains(&looked_at), "{told:?}");
    assert_eq!(told[&(503, "overloaded".to_owned())], 50 - looked_at, "{told:?}");
    let refused = ask(&signed(&good("new")), "192.0.2.1").send().await;
    refused.refusal(503, "overloaded");
    let wait: u64 = refused
        .header("retry-after")
        .expect("it says when")
        .parse()
        .expect("seconds");
    // One token an hour is earned, and each check beyond the five needs one.
    let most = 3600 * (looked_at as u64 - 4);
    assert!((1..=most).contains(&wait), "{wait}");

    // A known caller is served from the same address, and unknown callers from any other.
    ask(&known, "192.0.2.1").send().await.expect(200);
    gateway
        .get("/any/echo")
        .key("key-acme")
        .header("x-forwarded-for", "192.0.2.1")
        .send()
        .await
        .expect(200);
    ask(&signed(&good("new")), "192.0.2.2").send().await.expect(200);

    for (outcome, count) in [
        ("verified", 2),
        ("failed", looked_at),
        ("address_over_budget", 51 - looked_at),
        ("over_budget", 0),
    ] {
        let counted = gateway
            .metric("gateway_verifications_total", &[("outcome", outcome)])
            .await;
        assert_eq!(counted, count as f64, "{outcome}");
    }
    assert!(gateway.metric("gateway_verification_seconds_total", &[]).await > 0.0);
    assert_eq!(api.counts().requests, 4);
}

#[tokio::test]
async fn the_first_sight_of_a_token_costs_one_check_and_the_next_none() {
    let (_fleet, _api, gateway) = start(TOP).await;
    let (known, bad) = (signed(&good("ada")), forged("ada"));
    for _ in 0..10 {
        gateway.get("/any/echo").bearer(&known).send().await.expect(200);
        let refused = gateway.get("/any/echo").bearer(&bad).send().await;
        refused.refusal(401, "credentials_invalid");
    }
    for (outcome, count) in [("verified", 1.0), ("failed", 1.0)] {
        let counted = gateway
            .metric("gateway_verifications_total", &[("outcome", outcome)])
            .await;
        assert_eq!(counted, count, "{outcome}");
    }
}

#[tokio::test]
async fn many_random_credentials_cost_no_memory() {
    let top = TOP.replace(
        "verifications: { rate: 1/h, burst: 5 }",
        "verifications: { rate: 1000/s, burst: 1000 }",
    );
    let (_fleet, _api, gateway) = start(&top).await;
    let known = signed(&good("ada"));
    gateway.get("/any/echo").bearer(&known).send().await.expect(200);
    let flood = |from: usize| {
        let gateway = &gateway;
        async move {
            at_once(2_000, |number| {
                let number = from + number;
                let ask = gateway
                    .get("/any/echo")
                    .header("x-forwarded-for", &format!("10.{}.{}.1", number >> 8, number & 255));
                match number % 3 {
                    0 => ask.key(&format!("guess-{number}")),
                    1 => ask.bearer(&format!("guess.{number}.x")),
                    _ => ask.bearer(&forged(&format!("eve-{number}"))),
                }
            })
            .await
        }
    };
    flood(0).await.all(401);
    let before = gateway.memory();
    flood(2_000).await.all(401);
    flood(4_000).await.all(401);
    let grown = gateway.memory().saturating_sub(before);
    assert!(grown < 20 << 20, "{grown} bytes more");
    gateway.get("/any/echo").bearer(&known).send().await.expect(200);
}

#[tokio::test]
async fn the_log_names_the_check_and_the_caller_learns_the_category() {
    let (_fleet, api, gateway) =
        start(&TOP.replace("verifications: { rate: 1/h, burst: 5 }", "verifications: off")).await;
    let with = |name: &str, value: Value| {
        let mut claims = good("ada");
        claims[name] = value;
        claims
            .as_object_mut()
            .expect("claims")
            .retain(|_, value| !value.is_null());
        claims
    };
    let es256 = |claims: &Value| mint(Algorithm::ES256, claims, Some(&kid(Algorithm::ES256)));
    let headed = |change: fn(&mut Header)| {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(kid(Algorithm::ES256));
        change(&mut header);
        sign(&header, &good("ada"))
    };
    let now = seconds_from_now(Duration::ZERO);
    let strict = |claims: &Value| {
        let mut claims = claims.clone();
        claims["iss"] = "https://strict.test".into();
        claims
    };
    let access_token = |claims: &Value| {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(kid(Algorithm::ES256));
        header.typ = Some("at+jwt".into());
        sign(&header, claims)
    };
    const INVALID: &str = "credentials_invalid";
    let cases = [
        ("token_malformed", INVALID, "a.b.c".to_owned()),
        ("token_too_large", INVALID, format!("a.{}.c", "b".repeat(9 * 1024))),
        (
            "typ",
            INVALID,
            headed(|header| header.typ = Some("secevent+jwt".into())),
        ),
        ("typ", INVALID, es256(&strict(&good("ada")))),
        (
            "alg",
            INVALID,
            mint(Algorithm::RS256, &good("ada"), Some(&kid(Algorithm::ES256))),
        ),
        (
            "alg",
            INVALID,
            mint(Algorithm::EdDSA, &good("ada"), Some(&kid(Algorithm::ES256))),
        ),
        (
            "kid_unknown",
            INVALID,
            headed(|header| header.kid = Some("nobody".into())),
        ),
        ("signature", INVALID, forged("ada")),
        ("iss", INVALID, es256(&with("iss", "https://evil.test".into()))),
        ("exp", INVALID, es256(&with("exp", Value::Null))),
        ("expired", "credentials_expired", es256(&with("exp", (now - 10).into()))),
        ("nbf", INVALID, es256(&with("nbf", (now + 600).into()))),
        ("iat", INVALID, es256(&with("iat", (now + 600).into()))),
        ("iat", INVALID, es256(&with("iat", Value::Null))),
        (
            "max_age",
            "credentials_expired",
            es256(&with("iat", (now - 7200).into())),
        ),
        ("aud", INVALID, es256(&with("aud", "other".into()))),
        ("required_claims", INVALID, es256(&with("jti", Value::Null))),
        ("caller", INVALID, es256(&with("sub", Value::Null))),
        ("caller", INVALID, access_token(&strict(&good("ada")))),
        ("tenant", INVALID, es256(&with("tenant", Value::Null))),
    ];
    let mut expected = Vec::new();
    for (number, (check, reason, token)) in cases.iter().enumerate() {
        let id = format!("case-{number}");
        let refused = gateway
            .get("/any/echo")
            .bearer(token)
            .header("x-request-id", &id)
            .send()
            .await;
        let problem = refused.refusal(401, reason).to_string();
        // The category has words of its own; none of them is the check's.
        let told = problem.to_lowercase();
        assert!(
            !told.contains(&format!("\"{check}\"")) && !told.contains("signature"),
            "{check}: {problem}"
        );
        expected.push((id, (*check).to_owned()));
    }
    for (number, (check, reason, key)) in [
        ("key_unknown", INVALID, "guess"),
        ("key_expired", "credentials_expired", "key-old"),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("key-{number}");
        let refused = gateway
            .get("/any/echo")
            .key(key)
            .header("x-request-id", &id)
            .send()
            .await;
        refused.refusal(401, reason);
        expected.push((id, check.to_owned()));
    }
    let logged = eventually(SOON, "every line is written", || async {
        let lines: Vec<Value> = gateway
            .stdout()
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        (lines.len() >= expected.len()).then_some(lines)
    })
    .await;
    for (id, check) in expected {
        let line = logged
            .iter()
            .find(|line| line["request_id"] == *id)
            .expect("it was logged");
        assert_eq!(line["fault"], json!(check), "{line}");
    }
    // With everything in its place, both issuers' tokens are good.
    gateway
        .get("/any/echo")
        .bearer(&es256(&good("ada")))
        .send()
        .await
        .expect(200);
    let mut claims = strict(&claims());
    claims["org"] = json!({ "user": "bob" });
    let answer = gateway
        .get("/any/echo")
        .bearer(&access_token(&claims))
        .send()
        .await
        .expect(200);
    assert_eq!(answer.echoed("x-caller-id").as_deref(), Some("bob"));
    assert_eq!(api.counts().requests, 2);
}
