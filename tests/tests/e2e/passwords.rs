//! Checks callers with a name and a password: each credential costs one slow comparison, and never delays other
//! callers.

use std::time::Duration;

use fixtures::fleet::{Fleet, Handle};
use tests::configs::Config;
use tests::crowd::at_once;
use tests::{Ask, Gateway, Setup, eventually};
use tokio::task::JoinSet;

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
overload: off
"#;

const LONG: Duration = Duration::from_secs(60);

/// Hashes of the words lovelace and hopper, as `htpasswd -nB -C 10` writes them.
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
        .mapped("free", "api", "access: { any_of: [basic, anonymous] }");
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

/// A gateway that believes the tests on whom they ask for, with ada and grace as users, and what it was made of.
async fn start_behind_a_proxy(failures: &str) -> (Fleet, Handle, Gateway, String) {
    let (fleet, api) = one_backend("api").await;
    let top = TOP.replace("{ rate: 1/h, burst: 20 }", failures);
    let config = Config::with(top)
        .top("client_address: { trusted_proxies: [127.0.0.0/8] }")
        .backend("api", api.address(), "")
        .mapped("any", "api", "cost: 1")
        .to_string();
    let users = USERS.replace(", disabled: true", "");
    let gateway = Setup::new(&config).file("users.yaml", users).start().await;
    (fleet, api, gateway, config)
}

fn from(ask: Ask, address: &str, credential: &str) -> Ask {
    with(ask.header("x-forwarded-for", address), credential)
}

/// Guesses ada's password from this address, eight times at once, each time another; until it is dropped.
fn guess(gateway: &Gateway, address: &str) -> JoinSet<()> {
    let mut guessers = JoinSet::new();
    for guesser in 0..8 {
        let (client, address) = (gateway.another_client(), address.to_owned());
        guessers.spawn(async move {
            for guess in 0.. {
                let credential = format!("ada:{address}-{guesser}-{guess}");
                let answer = from(client.get("/any/echo"), &address, &credential).send().await;
                assert!([401, 429, 503].contains(&answer.status), "{answer:?}");
            }
        });
    }
    guessers
}

#[tokio::test]
async fn guessers_from_many_addresses_keep_nobody_out() {
    for failures in ["off", "{ rate: 5/s, burst: 50 }"] {
        let (_fleet, _api, gateway, config) = start_behind_a_proxy(failures).await;
        let ada = || from(gateway.get("/any/echo"), "192.0.2.1", "ada:lovelace").send();
        ada().await.expect(200);
        let addresses: Vec<_> = (1..=10).map(|last| format!("198.51.100.{last}")).collect();
        let _guessers: Vec<_> = addresses.iter().map(|address| guess(&gateway, address)).collect();
        for address in &addresses {
            let wrong = || async {
                let answer = from(gateway.get("/any/echo"), address, "ada:wrong").send().await;
                (answer.status != 503).then_some(())
            };
            eventually(LONG, "a guess is compared", wrong).await;
        }
        for _ in 0..31 {
            gateway.reload(&config).await;
            ada().await.expect(200);
        }
        // Nor anybody whose password is compared for the first time.
        let grace = from(gateway.get("/any/echo"), "192.0.2.2", "grace:hopper").send();
        grace.await.expect(200);
    }
}

#[tokio::test]
async fn a_password_that_is_taken_out_stops_with_the_reload() {
    let (_fleet, _api, gateway, config) = start_behind_a_proxy("off").await;
    let ada = || from(gateway.get("/any/echo"), "192.0.2.1", "ada:lovelace").send();
    ada().await.expect(200);
    let line = |id: &str| {
        USERS
            .lines()
            .find(|line| line.contains(id))
            .expect("it is there")
            .to_owned()
    };
    let graces = line("grace").replace(", disabled: true", "");
    let hash_in = |line: &str| line.split('"').nth(1).expect("it is quoted").to_owned();
    let other_hash = line("ada").replace(&hash_in(&line("ada")), &hash_in(&graces));
    for (users, status) in [
        (
            format!("users:\n{}\n{graces}\n", line("ada").replace("premium", "open")),
            200,
        ),
        (format!("users:\n{}\n{graces}\n", other_hash), 401),
        (format!("users:\n{graces}\n"), 401),
        (format!("users:\n{}\n", line("ada")), 200),
        (
            format!("users:\n{}\n", line("ada").replace(" }", ", disabled: true }")),
            401,
        ),
    ] {
        std::fs::write(gateway.path("users.yaml"), &users).expect("the folder takes files");
        gateway.reload(&config).await;
        assert_eq!(ada().await.status, status, "{users}");
    }
}

#[tokio::test]
async fn nothing_is_compared_for_an_address_that_has_used_up_its_failures() {
    let (_fleet, _api, gateway, _config) = start_behind_a_proxy("{ rate: 1/h, burst: 3 }").await;
    let ask = |address: &'static str, credential: &str| from(gateway.get("/any/echo"), address, credential).send();
    let (one, other) = ("198.51.100.1", "198.51.100.2");
    for guess in 0..3 {
        let refused = ask(one, &format!("ada:{guess}")).await;
        refused.refusal(401, "credentials_invalid");
    }
    // Neither what is wrong nor what is right, as long as it is not known.
    ask(one, "ada:3").await.refusal(429, "rate_limited");
    ask(one, "ada:lovelace").await.refusal(429, "rate_limited");
    ask(other, "ada:lovelace").await.expect(200);
    ask(one, "ada:lovelace").await.expect(200);
    // A right password costs nothing and a wrong one costs one token, whoever compares it.
    for _ in 0..2 {
        ask(other, "ada:3").await.refusal(401, "credentials_invalid");
        ask(other, "grace:hopper").await.expect(200);
    }
    ask(other, "ada:4").await.refusal(401, "credentials_invalid");
    ask(other, "ada:5").await.refusal(429, "rate_limited");
}

#[tokio::test]
async fn a_guesser_that_does_not_wait_for_the_answer_is_counted_too() {
    let (_fleet, _api, gateway, _config) = start_behind_a_proxy("{ rate: 1/h, burst: 3 }").await;
    let address = "198.51.100.1";
    let guesses = std::cell::Cell::new(0);
    let guess_and_leave = || async {
        guesses.set(guesses.get() + 1);
        let credential = base64(&format!("ada:{}", guesses.get()));
        let mut raw = gateway.connect().await;
        raw.send(format!(
            "GET /any/echo HTTP/1.1\r\nhost: edge\r\nx-forwarded-for: {address}\r\nauthorization: Basic {credential}\r\n\r\n"
        ))
        .await;
        drop(raw);
        let labels = [("limit", "callers.failures"), ("decision", "admitted")];
        let counted = gateway.metrics().await.sum("gateway_limit_decisions_total", &labels);
        (counted >= Some(3.0)).then_some(())
    };
    eventually(LONG, "three failures are counted", guess_and_leave).await;
    let limited = from(gateway.get("/any/echo"), address, "ada:more").send().await;
    limited.refusal(429, "rate_limited");
}
