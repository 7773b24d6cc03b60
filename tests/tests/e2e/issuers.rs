//! Checks failures of an identity provider: known keys stay in use for the configured time, no unverifiable token is
//! accepted, and operators can see the failure.

use std::time::Duration;

use fixtures::fleet::{Behaviour, Fault, Handle};
use fixtures::tokens::{Algorithm, kid, mint};
use serde_json::{Value, json};
use tests::configs::Config;
use tests::{Gateway, eventually};

use crate::callers::{all_keys, claims, claims_with};
use crate::{SOON, backends};

const TOP: &str = r#"
listeners: { public: { address: "127.0.0.1:0" } }
admin: { address: "127.0.0.1:0" }
tiers: { open: { rate: 1000000/s, burst: 1000000 } }
default_tier: open
"#;

/// How the keys of the issuer `main` are kept fresh.
fn config(provider: &Handle, freshness: &str, others: &str) -> String {
    let url = format!("http://{}/jwks.json", provider.address());
    format!(
        r#"{TOP}callers:
  failures: off
  jwt:
    main: {{ issuer: "https://id.test", audience: [edge], algorithms: [ES256, EdDSA], tenant: /tenant,
            keys: {{ url: "{url}", {freshness} }} }}
{others}"#
    )
}

async fn start(api: &Handle, top: String) -> Gateway {
    let config =
        Config::with(top)
            .backend("api", api.address(), "")
            .mapped("tokens", "api", "access: { any_of: [jwt] }");
    Gateway::start(config.to_string()).await
}

/// The public keys of these algorithms.
fn publishing(algorithms: &[Algorithm]) -> Behaviour {
    let mut set = all_keys();
    let wanted = |key: &Value| algorithms.iter().any(|algorithm| key["kid"] == kid(*algorithm));
    set["keys"].as_array_mut().expect("a list").retain(wanted);
    answering("200 OK", &set.to_string())
}

fn answering(status: &str, body: &str) -> Behaviour {
    let length = body.len();
    Behaviour::raw(format!(
        "HTTP/1.1 {status}\r\nlocation: /other\r\ncontent-length: {length}\r\n\r\n{body}"
    ))
}

fn token(algorithm: Algorithm, subject: &str) -> String {
    mint(algorithm, &claims_with("sub", subject.into()), Some(&kid(algorithm)))
}

/// Another token's signature.
fn forged(subject: &str) -> String {
    let (good, other) = (token(Algorithm::ES256, subject), token(Algorithm::ES256, "other"));
    let signed = good.rsplit_once('.').expect("three parts").0;
    let signature = other.rsplit_once('.').expect("three parts").1;
    format!("{signed}.{signature}")
}

async fn status_of(gateway: &Gateway, token: &str) -> u16 {
    gateway.get("/tokens/echo").bearer(token).send().await.status
}

async fn becomes(gateway: &Gateway, token: &str, status: u16) {
    let reason = format!("the token is answered {status}");
    eventually(SOON, &reason, || async {
        (status_of(gateway, token).await == status).then_some(())
    })
    .await;
}

async fn issuer(gateway: &Gateway, name: &str) -> Value {
    let status = gateway.admin_json("/api/v1/status").await;
    let issuers = status["issuers"].as_array().expect("a list");
    let found = issuers.iter().find(|issuer| issuer["name"] == name);
    found.expect("it is configured").clone()
}

#[tokio::test]
async fn whatever_the_provider_does_keys_in_use_stay_and_nothing_else_gets_in() {
    let (_fleet, [api, provider]) = backends(["api", "provider"]).await;
    provider.behave(publishing(&[Algorithm::ES256])).await;
    let gateway = start(
        &api,
        config(&provider, "refresh: 1s, max_age: 1h, time_limit: 200ms", ""),
    )
    .await;
    becomes(&gateway, &token(Algorithm::ES256, "first"), 200).await;

    let all = all_keys();
    let symmetric: Vec<Value> = all["keys"].as_array().expect("a list").clone();
    let symmetric = json!({ "keys": symmetric.into_iter().filter(|key| key["kty"] == "oct").collect::<Vec<_>>() });
    let bad_days = [
        ("killed", Behaviour::refusing(), "unreached"),
        ("slow", Behaviour::always(Fault::Hang), "timed_out"),
        ("dripping", Behaviour::always(Fault::Drip { every_ms: 50 }), "timed_out"),
        ("garbage", Behaviour::always(Fault::Garbage), "unreached"),
        ("broken", Behaviour::status(500), "status"),
        ("moved", answering("302 Found", ""), "status"),
        (
            "ten-megabytes",
            Behaviour::always(Fault::HugeBody { bytes: 10 << 20 }),
            "too_large",
        ),
        ("page", answering("200 OK", "<html>"), "invalid"),
        ("no-keys", answering("200 OK", r#"{"keys":[]}"#), "invalid"),
        ("secrets", answering("200 OK", &symmetric.to_string()), "invalid"),
    ];
    for (day, behaviour, outcome) in bad_days {
        let labels = [("issuer", "main"), ("outcome", outcome)];
        let before = gateway.metric("gateway_jwks_fetches_total", &labels).await;
        provider.behave(behaviour).await;
        eventually(SOON, day, || async {
            (gateway.metric("gateway_jwks_fetches_total", &labels).await > before).then_some(())
        })
        .await;

        // Neither token has been seen before, so nothing but the keys can vouch for them.
        assert_eq!(status_of(&gateway, &token(Algorithm::ES256, day)).await, 200, "{day}");
        assert_eq!(status_of(&gateway, &forged(day)).await, 401, "{day}");
        // Nobody can say that there is no such key.
        let lacking = gateway
            .get("/tokens/echo")
            .bearer(&token(Algorithm::EdDSA, day))
            .send()
            .await;
        lacking.refusal(503, "keys_unavailable");
        assert!((1..=60).contains(&lacking.retry_after()), "{lacking:#?}");
        let told = issuer(&gateway, "main").await;
        assert_eq!(told["stale"], true, "{day}: {told}");
        assert_eq!(
            told["keys"],
            json!([{ "kid": kid(Algorithm::ES256), "algorithm": "ES256" }]),
            "{day}"
        );
        assert!(
            told["last_error"]["error"].is_string() && told["usable_until"].is_string(),
            "{day}: {told}"
        );
        assert_eq!(
            gateway.metric("gateway_jwks_stale", &[("issuer", "main")]).await,
            1.0,
            "{day}"
        );
        assert!(gateway.memory() < 200 << 20, "{day}");
    }

    provider.behave(publishing(&[Algorithm::ES256])).await;
    gateway
        .metric_becomes("gateway_jwks_stale", &[("issuer", "main")], 0.0)
        .await;
    let told = issuer(&gateway, "main").await;
    assert_eq!(
        (&told["stale"], &told["last_error"]),
        (&json!(false), &Value::Null),
        "{told}"
    );
}

#[tokio::test]
async fn keys_that_nobody_confirms_are_withdrawn_at_the_stated_age() {
    let (_fleet, [api, provider]) = backends(["api", "provider"]).await;
    provider.behave(publishing(&[Algorithm::ES256])).await;
    let gateway = start(&api, config(&provider, "refresh: 1s, max_age: 3s", "")).await;
    let known = token(Algorithm::ES256, "known");
    becomes(&gateway, &known, 200).await;
    provider.behave(Behaviour::refusing()).await;
    gateway
        .metric_becomes("gateway_jwks_stale", &[("issuer", "main")], 1.0)
        .await;
    assert_eq!(status_of(&gateway, &known).await, 200);

    // A token that was verified before is not accepted for longer than its key.
    becomes(&gateway, &known, 503).await;
    assert_eq!(gateway.metric("gateway_jwks_keys", &[("issuer", "main")]).await, 0.0);
    let told = issuer(&gateway, "main").await;
    assert_eq!(
        (&told["keys"], &told["usable_until"]),
        (&json!([]), &Value::Null),
        "{told}"
    );
    assert!(gateway.log().contains("withdrawn"));

    provider.behave(publishing(&[Algorithm::ES256])).await;
    becomes(&gateway, &known, 200).await;
}

#[tokio::test]
async fn a_dead_provider_neither_blocks_the_start_nor_touches_the_others() {
    let (_fleet, [api, provider, dead, silent]) = backends(["api", "provider", "dead", "silent"]).await;
    provider.behave(publishing(&[Algorithm::ES256])).await;
    dead.behave(Behaviour::refusing()).await;
    silent.behave(Behaviour::always(Fault::Hang)).await;
    let other = |name: &str, provider: &Handle| {
        format!(
            "    {name}: {{ issuer: \"https://{name}.test\", audience: [edge], algorithms: [ES256], tenant: /tenant, \
             keys: {{ url: \"http://{}/jwks.json\", time_limit: 300ms }} }}\n",
            provider.address()
        )
    };
    let others = other("dead", &dead) + &other("silent", &silent);
    let gateway = start(&api, config(&provider, "refresh: 1h", &others)).await;
    becomes(&gateway, &token(Algorithm::ES256, "ada"), 200).await;
    for name in ["dead", "silent"] {
        let claims = claims_with("iss", format!("https://{name}.test").into());
        let token = mint(Algorithm::ES256, &claims, Some(&kid(Algorithm::ES256)));
        let refused = gateway.get("/tokens/echo").bearer(&token).send().await;
        refused.refusal(503, "keys_unavailable");
        assert!((1..=60).contains(&refused.retry_after()), "{refused:#?}");
        assert_eq!(issuer(&gateway, name).await["keys"], json!([]), "{name}");
    }
    let labels = [("issuer", "dead"), ("outcome", "unreached")];
    eventually(SOON, "the dead one is told of", || async {
        (gateway.metric("gateway_jwks_fetches_total", &labels).await > 0.0).then_some(())
    })
    .await;
    assert_eq!(issuer(&gateway, "main").await["last_error"], Value::Null);
}

#[tokio::test]
async fn the_first_requests_wait_for_the_keys() {
    let (_fleet, [api, provider]) = backends(["api", "provider"]).await;
    provider.behave(publishing(&[Algorithm::ES256])).await;
    provider.close_gate();
    let gateway = start(&api, config(&provider, "refresh: 1h, time_limit: 30s", "")).await;
    let sent: Vec<_> = (0..20)
        .map(|number| {
            let ask = gateway.get("/tokens/echo");
            tokio::spawn(ask.bearer(&token(Algorithm::ES256, &format!("caller-{number}"))).send())
        })
        .collect();
    // An instance without keys wants no requests.
    let ready = gateway.admin("/readyz").send().await.expect(503).text();
    assert!(ready.contains("keys of the issuer main"), "{ready}");
    assert_eq!(gateway.admin_json("/api/v1/status").await["ready"], false);
    provider.open_gate();
    for sent in sent {
        sent.await.expect("no panic").expect(200);
    }
    gateway.admin("/readyz").send().await.expect(200);
    assert_eq!(gateway.admin_json("/api/v1/status").await["ready"], true);
    assert_eq!(provider.counts().requests, 1);
}

#[tokio::test]
async fn readiness_waits_for_keys_no_longer_than_for_one_fetch() {
    let (_fleet, [api, dead]) = backends(["api", "dead"]).await;
    dead.behave(Behaviour::always(Fault::Hang)).await;
    let gateway = start(&api, config(&dead, "time_limit: 1s", "")).await;
    eventually(SOON, "it is ready", || async {
        (gateway.admin("/readyz").send().await.status == 200).then_some(())
    })
    .await;
    assert_eq!(issuer(&gateway, "main").await["keys"], json!([]));
}

#[tokio::test]
async fn rotated_keys_are_found_by_their_name_and_removed_ones_stop_at_once() {
    let (_fleet, [api, provider]) = backends(["api", "provider"]).await;
    provider.behave(publishing(&[Algorithm::ES256])).await;
    let gateway = start(&api, config(&provider, "refresh: 1h", "")).await;
    let old = token(Algorithm::ES256, "ada");
    assert_eq!(status_of(&gateway, &old).await, 200);
    assert_eq!(provider.counts().requests, 1);

    provider.behave(publishing(&[Algorithm::EdDSA])).await;
    // The first requests wait for one fetch together.
    provider.close_gate();
    let sent: Vec<_> = (0..20)
        .map(|number| {
            let ask = gateway.get("/tokens/echo");
            tokio::spawn(ask.bearer(&token(Algorithm::EdDSA, &format!("caller-{number}"))).send())
        })
        .collect();
    provider
        .wait_for(|counts| counts.requests == 2, SOON)
        .await
        .expect("it is asked");
    assert_eq!(
        status_of(&gateway, &old).await,
        200,
        "whoever lacks no key does not wait"
    );
    provider.open_gate();
    for sent in sent {
        sent.await.expect("no panic").expect(200);
    }
    assert_eq!(provider.counts().requests, 2);
    // The old name may have become good again, so it is looked for.
    let refused = gateway.get("/tokens/echo").bearer(&old).send().await;
    refused.refusal(401, "credentials_invalid");
    assert_eq!(provider.counts().requests, 3);
}

#[tokio::test]
async fn names_of_keys_that_nobody_has_cost_few_fetches_and_delay_no_rotation() {
    let (_fleet, [api, provider]) = backends(["api", "provider"]).await;
    provider.behave(publishing(&[Algorithm::ES256])).await;
    let gateway = start(
        &api,
        config(&provider, "refresh: 1h, cool_down: 1h, time_limit: 30s", ""),
    )
    .await;
    let forged = |kid: &str| mint(Algorithm::ES256, &claims(), Some(kid));
    assert_eq!(status_of(&gateway, &token(Algorithm::ES256, "ada")).await, 200);
    for kid in ["one", "two", "one"] {
        assert_eq!(status_of(&gateway, &forged(kid)).await, 401, "{kid}");
    }
    provider.behave(publishing(&[Algorithm::ES256, Algorithm::EdDSA])).await;
    assert_eq!(status_of(&gateway, &token(Algorithm::EdDSA, "ada")).await, 200);

    let (mut bad, mut unknown) = (0, 0);
    for number in 0..200 {
        let answer = gateway
            .get("/tokens/echo")
            .bearer(&forged(&format!("key-{number}")))
            .send()
            .await;
        match answer.status {
            401 => bad += 1,
            _ => {
                answer.refusal(503, "keys_unavailable");
                // Six in an hour.
                assert!((1..=600).contains(&answer.retry_after()), "{answer:#?}");
                unknown += 1;
            }
        }
    }
    assert_eq!((bad, unknown), (2, 198));
    assert_eq!(provider.counts().requests, 1 + 6);
    // What is known goes on, and what a fetch has shown not to be there stays bad.
    assert_eq!(status_of(&gateway, &token(Algorithm::EdDSA, "bob")).await, 200);
    assert_eq!(status_of(&gateway, &forged("one")).await, 401);
    assert_eq!(provider.counts().requests, 1 + 6);
}

/// Like [`publishing`], with keys that have no names.
fn publishing_unnamed(algorithms: &[Algorithm]) -> Behaviour {
    let mut set = all_keys();
    let keys = set["keys"].as_array_mut().expect("a list");
    keys.retain(|key| algorithms.iter().any(|algorithm| key["kid"] == kid(*algorithm)));
    keys.iter_mut()
        .for_each(|key| drop(key.as_object_mut().expect("a key").remove("kid")));
    answering("200 OK", &set.to_string())
}

#[tokio::test]
async fn keys_without_names_are_found_after_a_rotation_too() {
    let (_fleet, [api, provider]) = backends(["api", "provider"]).await;
    provider.behave(publishing_unnamed(&[Algorithm::ES256])).await;
    let gateway = start(
        &api,
        config(&provider, "refresh: 1h, cool_down: 1h, time_limit: 30s", ""),
    )
    .await;
    let unnamed = |algorithm, subject: &str| mint(algorithm, &claims_with("sub", subject.into()), None);
    assert_eq!(status_of(&gateway, &unnamed(Algorithm::ES256, "ada")).await, 200);
    assert_eq!(provider.counts().requests, 1);
    provider.behave(publishing_unnamed(&[Algorithm::EdDSA])).await;
    assert_eq!(status_of(&gateway, &unnamed(Algorithm::EdDSA, "ada")).await, 200);
    assert_eq!(provider.counts().requests, 2);
    // What no key has signed is bad, and costs half of the fetches however much of it comes.
    for number in 0..50 {
        let refused = gateway
            .get("/tokens/echo")
            .bearer(&unnamed(Algorithm::ES256, &format!("caller-{number}")))
            .send()
            .await;
        refused.refusal(401, "credentials_invalid");
    }
    assert_eq!(provider.counts().requests, 1 + 3);
    assert_eq!(
        gateway
            .metric("gateway_jwks_waiting_requests", &[("issuer", "main")])
            .await,
        0.0
    );
}

#[tokio::test]
async fn who_allows_little_time_does_not_wait_longer() {
    let (_fleet, [api, silent]) = backends(["api", "silent"]).await;
    silent.behave(Behaviour::always(Fault::Hang)).await;
    let gateway = start(&api, config(&silent, "time_limit: 30s", "")).await;
    let hurried = gateway
        .get("/tokens/echo")
        .header("x-request-timeout-ms", "50")
        .bearer(&token(Algorithm::ES256, "ada"))
        .send();
    let refused = tests::within(SOON, "it is answered", hurried).await;
    refused.refusal(503, "keys_unavailable");
    // A token that is wrong with any key is refused at once, without a fetch.
    let past = claims_with("exp", 1_000_000.into());
    let expired = mint(Algorithm::ES256, &past, Some(&kid(Algorithm::ES256)));
    let refused = gateway.get("/tokens/echo").bearer(&expired).send().await;
    refused.refusal(401, "credentials_expired");
}

#[tokio::test]
async fn a_reload_keeps_the_keys_and_a_failed_one_goes_on_fetching_them() {
    let (_fleet, [api, provider]) = backends(["api", "provider"]).await;
    provider.behave(publishing(&[Algorithm::ES256])).await;
    let written = |freshness: &str| {
        let config = Config::with(config(&provider, freshness, "")).backend("api", api.address(), "");
        config.mapped("tokens", "api", "access: { any_of: [jwt] }").to_string()
    };
    let gateway = Gateway::start(written("refresh: 1h")).await;
    becomes(&gateway, &token(Algorithm::ES256, "ada"), 200).await;

    // Without the provider, a reload uses the keys that it has.
    provider.behave(Behaviour::refusing()).await;
    gateway.reload(written("refresh: 1s, max_age: 1h")).await;
    assert_eq!(status_of(&gateway, &token(Algorithm::ES256, "bob")).await, 200);
    gateway
        .metric_becomes("gateway_jwks_stale", &[("issuer", "main")], 1.0)
        .await;

    let narrower = written("refresh: 1s, max_age: 1h").replace("[ES256, EdDSA]", "[ES256]");
    gateway.reload(narrower).await;
    assert_eq!(status_of(&gateway, &token(Algorithm::ES256, "carol")).await, 200);

    // A mistake that shows only when the issuer has been compiled.
    let broken = written("refresh: 1h")
        .replace("[ES256, EdDSA]", "[EdDSA]")
        .replace("default_tier: open", "default_tier: none");
    gateway.rewrite_config(broken);
    gateway.signal(tests::Signal::Hup);
    gateway
        .metric_becomes("gateway_config_last_reload_successful", &[], 0.0)
        .await;
    provider.behave(publishing(&[Algorithm::ES256])).await;
    gateway
        .metric_becomes("gateway_jwks_stale", &[("issuer", "main")], 0.0)
        .await;
    assert_eq!(status_of(&gateway, &token(Algorithm::ES256, "eve")).await, 200);
}

/// A day of `max-age` would be longer than `refresh`; a second is shorter.
#[tokio::test]
async fn an_answer_that_is_soon_stale_is_fetched_again_soon() {
    let (_fleet, [api, provider]) = backends(["api", "provider"]).await;
    let mut set = all_keys();
    set["keys"]
        .as_array_mut()
        .expect("a list")
        .retain(|key| key["kty"] != "oct");
    let body = set.to_string();
    let length = body.len();
    let short = format!("HTTP/1.1 200 OK\r\ncache-control: max-age=1\r\ncontent-length: {length}\r\n\r\n{body}");
    provider.behave(Behaviour::raw(short)).await;
    let gateway = start(&api, config(&provider, "refresh: 1h, cool_down: 1s", "")).await;
    becomes(&gateway, &token(Algorithm::ES256, "ada"), 200).await;
    provider
        .wait_for(|counts| counts.requests >= 3, Duration::from_secs(10))
        .await
        .expect("it is asked again");
}
