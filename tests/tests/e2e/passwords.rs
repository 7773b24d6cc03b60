//! Callers with a name and a password: each credential costs one slow comparison, and never somebody else's time.

use fixtures::fleet::{Fleet, Handle};
use tests::configs::Config;
use tests::crowd::at_once;
use tests::{Ask, Gateway, Setup, eventually};

use crate::{SOON, one_backend};

const TOP: &str = r#"
listeners: { public: { address: "127.0.0.1:0" } }
admin: { address: "127.0.0.1:0" }
tiers: { open: { rate: 1000000/s, burst: 1000000 } }
default_tier: open
callers:
  basic: { file: users.yaml }
  anonymous: { by: client_address }
  failures: { rate: 1/h, burst: 20 }
"#;

/// What `htpasswd -nB -C 10` makes of the words lovelace and hopper.
const USERS: &str = r#"
users:
  - { id: ada, tenant: acme, tier: premium, password_hash: "$2b$10$/ZsGkLXy3vF/5sxtezIWGejgQsFEHybCdXm7490eqDXG1ioZCSAG6" }
  - { id: grace, tenant: globex, password_hash: "$2b$10$A11hgeBdQyIkHb1KfX68kezGyovFCjF9dfs8VhjGZWwRfaVFeuDTW", disabled: true }
"#;

async fn start() -> (Fleet, Handle, Gateway) {
    let (fleet, api) = one_backend("api").await;
    let config = Config::with(TOP)
        .backend("api", api.address(), "")
        .mapped("any", "api", "cost: 1")
        .mapped("free", "api", "access: { any_of: [anonymous] }");
    let gateway = Setup::new(config.to_string()).file("users.yaml", USERS).start().await;
    (fleet, api, gateway)
}

fn with(ask: Ask, credential: &str) -> Ask {
    ask.header("authorization", &format!("Basic {}", base64(credential)))
}

fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut encoded = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let bits = (0..3).fold(0_u32, |bits, at| {
            bits << 8 | u32::from(chunk.get(at).copied().unwrap_or(0))
        });
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place)) as usize & 63];
            encoded.push(if place > chunk.len() { '=' } else { char::from(digit) });
        }
    }
    encoded
}

#[tokio::test]
async fn a_password_names_tenant_tier_and_caller_and_is_not_passed_on() {
    let (_fleet, _api, gateway) = start().await;
    for _ in 0..3 {
        let answer = with(gateway.get("/any/echo"), "ada:lovelace").send().await.expect(200);
        let told = ["x-tenant-id", "x-tenant-tier", "x-caller-id"].map(|name| answer.echoed(name));
        assert_eq!(told, ["acme", "premium", "ada"].map(|value| Some(value.to_owned())));
        assert_eq!(answer.echoed("authorization"), None);
    }
    let admitted = [("kind", "basic"), ("outcome", "admitted")];
    assert_eq!(gateway.metric("gateway_callers_total", &admitted).await, 3.0);
}

#[tokio::test]
async fn what_does_not_fit_is_refused_in_the_same_words() {
    let (_fleet, api, gateway) = start().await;
    for (credential, check) in [
        ("ada:Lovelace", "password"),
        ("eve:lovelace", "user_unknown"),
        ("grace:hopper", "user_disabled"),
        ("ada", "header_malformed"),
    ] {
        for route in ["/any/echo", "/free/echo"] {
            let refused = with(gateway.get(route), credential).send().await;
            refused.refusal(401, "credentials_invalid");
        }
        // The caller learns no more; the log says which check it was.
        eventually(SOON, check, || async { gateway.stdout().contains(check).then_some(()) }).await;
    }
    let refused = gateway.get("/any/echo").send().await;
    let detail = refused.refusal(401, "credentials_missing")["detail"].to_string();
    assert!(detail.contains("Authorization: Basic"), "{detail}");
    assert_eq!(
        refused.header("www-authenticate"),
        Some("Basic realm=\"gateway\", charset=\"UTF-8\"")
    );
    assert_eq!(api.counts().requests, 0);
}

#[tokio::test]
async fn guessing_is_limited_and_keeps_out_nobody_who_knows() {
    let (_fleet, _api, gateway) = start().await;
    with(gateway.get("/any/echo"), "ada:lovelace").send().await.expect(200);
    let guesses = at_once(100, |guess| {
        with(gateway.another_client().get("/any/echo"), &format!("ada:{guess}"))
    })
    .await;
    // Few are compared at once from one address; the others are told to come back. None gets in.
    let refused = [401, 429, 503].map(|status| guesses.with_status(status));
    assert_eq!(refused.iter().sum::<usize>(), 100, "{:?}", guesses.statuses());
    assert!(guesses.with_status(503) > 0, "{:?}", guesses.statuses());
    for guess in 0..40 {
        let answer = with(gateway.get("/any/echo"), &format!("ada:again-{}", guess % 10))
            .send()
            .await;
        assert!([401, 429].contains(&answer.status), "{answer:?}");
    }
    let limited = with(gateway.get("/any/echo"), "ada:again-0").send().await;
    limited.refusal(429, "rate_limited");
    with(gateway.get("/any/echo"), "ada:lovelace").send().await.expect(200);
    with(gateway.get("/any/echo"), "eve:any")
        .send()
        .await
        .refusal(429, "rate_limited");
}

#[tokio::test]
async fn many_first_requests_with_one_credential_need_one_comparison() {
    let (_fleet, _api, gateway) = start().await;
    let credential = "ada:lovelace";
    let crowd = at_once(60, |_| with(gateway.another_client().get("/any/echo"), credential)).await;
    crowd.all(200);
}
