//! Checks that a running gateway explains what it does with a request: by command, by link, and to the request itself.

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Fleet, Handle};
use http::Method;
use serde_json::{Value, json};
use tests::configs::Config;
use tests::{Gateway, Setup, cli, eventually};

use crate::live_commands::run;
use crate::{SOON, one_backend};

const TOKEN: &str = "correct-horse-battery-staple";
const TOP: &str = r#"
listeners: { public: { address: "127.0.0.1:0" } }
admin: { address: "127.0.0.1:0", token_file: admin.token }
overload: off
tiers: { trickle: { rate: 1/h, burst: 2 } }
callers: { api_keys: { file: keys.yaml }, anonymous: { by: client_address, tier: premium } }
"#;

fn config(api: &Handle) -> String {
    Config::with(TOP)
        .backend("api", api.address(), "retry: off")
        .route(
            "keyed",
            "{ match: { host: api.example.com, path: \"/keyed/{*rest}\" }, access: { any_of: [api_key] }, backend: api }",
        )
        .route(
            "open",
            "{ match: { path: \"/open/{*rest}\" }, access: { any_of: [anonymous] }, backend: api }",
        )
        .to_string()
}

async fn start() -> (Fleet, Handle, Gateway, String) {
    let (fleet, api) = one_backend("api").await;
    let config = config(&api);
    let gateway = setup(&config).start().await;
    (fleet, api, gateway, config)
}

fn setup(config: &str) -> Setup {
    let keys = [KeyLine::new("poor-1", "poor", "key-poor").tier("trickle")];
    Setup::new(config)
        .file("keys.yaml", key_file(&keys))
        .file("admin.token", TOKEN)
}

/// Returns the line of the config that has this text, from 1.
fn line_of(config: &str, text: &str) -> usize {
    config
        .lines()
        .position(|line| line.contains(text))
        .expect("a line has it")
        + 1
}

const KEYED: [&str; 5] = [
    "explain",
    "GET",
    "http://api.example.com/keyed/echo",
    "--as",
    "key-poor",
];

#[tokio::test]
async fn the_command_tells_what_the_gateway_then_does_and_takes_nothing() {
    let (_fleet, api, gateway, config) = start().await;
    let explained = async |more: &[&str]| {
        let command = [&KEYED[..], &["--live"], more].concat();
        let (code, out, err) = run(&gateway, &command, Some("admin.token")).await;
        assert_eq!(code, Some(0), "{err}");
        out
    };
    let ask = async || {
        let request = gateway.get("/keyed/echo").header("host", "api.example.com");
        request.key("key-poor").send().await
    };
    for left in [2, 1] {
        for _ in 0..3 {
            let page = explained(&[]).await;
            assert!(page.contains("outcome"), "{page}");
            assert!(page.contains("sent to api"), "{page}");
            assert!(page.contains(&format!("takes 1, {left} left")), "{page}");
        }
        ask().await.expect(200);
    }
    assert_eq!(api.take_requests().len(), 2);
    let page = explained(&[]).await;
    assert!(page.contains("429 rate_limited"), "{page}");
    let line = line_of(&config, "trickle: {");
    assert!(page.contains(&format!("gateway.yaml:{line} tiers.trickle")), "{page}");
    let told: Value = serde_json::from_str(&explained(&["--json"]).await).expect("JSON");
    let answer = ask().await;
    answer.refusal(429, "rate_limited");
    assert_eq!(told["outcome"]["status"], answer.status);
    assert_eq!(told["outcome"]["reason"].as_str(), answer.reason());
    assert_eq!(told["outcome"]["limits"], json!(["trickle"]));
    assert_eq!(told["outcome"]["at"]["line"], line);
}

#[tokio::test]
async fn without_the_token_no_credential_can_be_tried() {
    let (_fleet, _api, gateway, _) = start().await;
    let (code, _, err) = run(&gateway, &[&KEYED[..], &["--live"]].concat(), None).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("wants a token"), "{err}");
    let answer = gateway.admin("/api/v1/explain?url=/keyed/x&key=key-poor").send().await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    let answer = gateway.admin("/api/v1/explain").send().await;
    assert_eq!(answer.status, 400, "{}", answer.text());
}

#[test]
fn a_config_is_explained_without_a_gateway() {
    let config = Config::with(TOP)
        .backend("api", "127.0.0.1:9".parse().expect("an address"), "")
        .route(
            "open",
            "{ match: { path: \"/open/{id}\", methods: [GET] }, access: { any_of: [anonymous] }, backend: api }",
        )
        .to_string();
    let told = cli(&["explain", "POST", "/open/7"], &setup(&config));
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    assert!(told.stdout.contains("405 method_not_allowed"), "{}", told.stdout);
    assert!(
        told.stdout.contains("open /open/{id}: takes GET, HEAD alone"),
        "{}",
        told.stdout
    );
    let told = cli(&["explain", "GET", "open"], &setup(&config));
    assert_eq!(told.code, Some(1));
    assert!(told.stderr.contains("neither a URL nor a path"), "{}", told.stderr);
    let told = cli(
        &["explain", "GET", "/open/7"],
        &setup(&config.replace("backend: api", "backend: apo")),
    );
    assert_eq!(told.code, Some(78), "{}", told.stdout);
}

#[tokio::test]
async fn a_request_with_the_operators_token_gets_its_own_decision() {
    let (_fleet, api, gateway, _) = start().await;
    let ask = |token: &str| {
        let request = gateway.get("/keyed/echo").header("host", "api.example.com");
        request.key("key-poor").header("x-gateway-explain", token).send()
    };
    for _ in 0..4 {
        let answer = ask(TOKEN).await.expect(200);
        let told = answer.json();
        assert_eq!(told["outcome"]["verdict"], "sent", "{told:#}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("ratelimit"), None);
    }
    assert_eq!(api.take_requests().len(), 0);
    // Another token is no token: the request is served, and the backend does not see the field.
    for token in ["correct-horse-battery-stapler", ""] {
        ask(token).await.expect(200);
        assert_eq!(api.take_requests()[0].header("x-gateway-explain"), None);
    }
    ask("").await.refusal(429, "rate_limited");
    let told = ask(TOKEN).await.expect(200).json();
    assert_eq!(told["outcome"]["reason"], "rate_limited", "{told:#}");
    let request = gateway.another_client().ask(Method::POST, "/nowhere");
    let answer = request
        .header("x-gateway-explain", TOKEN)
        .body("left unread")
        .send()
        .await;
    assert_eq!(answer.expect(200).json()["outcome"]["status"], 404);
}

#[tokio::test]
async fn the_newest_refusals_link_to_their_explanations() {
    let (_fleet, _api, gateway, _) = start().await;
    for expected in [200, 200, 429] {
        let request = gateway.get("/keyed/echo").header("host", "api.example.com");
        request.key("key-poor").send().await.expect(expected);
    }
    gateway.get("/nowhere").send().await.expect(404);
    for (reason, route) in [("rate_limited", json!("keyed")), ("no_route", Value::Null)] {
        let refused = eventually(SOON, "the refusal is listed", || async {
            let listed = gateway.admin_json(&format!("/api/v1/rejections?q={reason}")).await;
            listed["rejections"].get(0).cloned()
        })
        .await;
        let link = refused["explain"].as_str().expect("a link");
        let told = gateway.admin_json(link).await;
        assert_eq!(told["outcome"]["reason"], reason, "{link}: {told:#}");
        assert_eq!(refused["route"], route);
    }
}
