//! Checks that a reload which makes the answers worse is taken back, and that one which does not stays.

use fixtures::fleet::Fleet;
use fixtures::fleet::Handle;
use http::Method;
use serde_json::Value;
use tests::configs::{Config, UNGUARDED};
use tests::crowd::at_once;
use tests::{Answer, Gateway, Setup, eventually};

use crate::{SOON, one_backend};

const TOKEN: &str = "correct-horse-battery-staple";

const TOP: &str = "
listeners: { public: { address: \"127.0.0.1:0\" } }
admin: { address: \"127.0.0.1:0\", token_file: admin.token }
tiers: { open: { rate: 1000000/s, burst: 1000000 } }
callers: { anonymous: { by: client_address, tier: open } }
overload: off
";

/// Enough that a failure of everything is no chance.
const MANY: usize = 60;

fn config(path: &str, backend: std::net::SocketAddr) -> String {
    let route =
        format!("{{ match: {{ path: {path} }}, access: {{ any_of: [anonymous] }}, rewrite: /echo, backend: api }}");
    Config::with(TOP)
        .backend("api", backend, UNGUARDED)
        .route("api", &route)
        .to_string()
}

async fn start(options: &[&str]) -> (Fleet, Handle, Gateway) {
    let (fleet, api) = one_backend("api").await;
    let setup = Setup::new(config("/api", api.address())).file("admin.token", TOKEN);
    let setup = options.iter().fold(setup, |setup, option| setup.option(option));
    let gateway = setup.start().await;
    for _ in 0..MANY {
        gateway.get("/api").send().await.expect(200);
    }
    (fleet, api, gateway)
}

async fn reload(gateway: &Gateway, query: &str) -> Answer {
    let admin = tests::Client::to(gateway.admin_address());
    let asked = admin.ask(Method::POST, &format!("/api/v1/reload{query}"));
    asked.header("authorization", &format!("Bearer {TOKEN}")).send().await
}

async fn state(gateway: &Gateway) -> Value {
    gateway.admin_json("/api/v1/status").await["config"].take()
}

/// Sends requests until one succeeds; returns why the reload was taken back.
async fn is_taken_back(gateway: &Gateway) -> String {
    eventually(SOON, "the config before is in force again", || async {
        (gateway.get("/api").send().await.status == 200).then_some(())
    })
    .await;
    // The outcome is noted a moment after the plan is in force.
    let state = eventually(SOON, "the reload is noted as taken back", || async {
        let state = state(gateway).await;
        (state["last_reload"]["successful"] == false).then_some(state)
    })
    .await;
    assert_eq!(
        (&state["generation"], &state["canary_seconds"]),
        (&3.into(), &Value::Null)
    );
    assert_eq!(gateway.metric("gateway_config_last_reload_successful", &[]).await, 0.0);
    state["last_reload"]["error"].as_str().expect("a reason").to_owned()
}

#[tokio::test]
async fn a_backend_that_nobody_serves_is_taken_back() {
    let (_fleet, _api, gateway) = start(&[]).await;
    gateway.rewrite_config(config("/api", "127.0.0.1:9".parse().expect("an address")));
    let answer = reload(&gateway, "?canary=1h").await.expect(200);
    assert_eq!(answer.json()["generation"], 2);
    assert!(
        state(&gateway).await["canary_seconds"]
            .as_u64()
            .is_some_and(|left| left > 3500)
    );
    let why = is_taken_back(&gateway).await;
    assert!(
        why.contains("0 % of the requests were answered with 5xx before, and "),
        "{why}"
    );
    // The file is the same as before. It is read again on request alone.
    gateway.get("/api").send().await.expect(200);
    reload(&gateway, "").await.expect(200);
    gateway.get("/api").send().await.expect(502);
}

#[tokio::test]
async fn a_route_that_is_gone_is_taken_back() {
    let (_fleet, api, gateway) = start(&["--canary=1h", "--watch"]).await;
    gateway.rewrite_config(config("/other", api.address()));
    eventually(SOON, "the new config is in force", || async {
        (gateway.get("/api").send().await.status == 404).then_some(())
    })
    .await;
    let why = is_taken_back(&gateway).await;
    assert!(why.contains("% of the requests were refused before, and "), "{why}");
}

/// A route of few requests, which all requests together do not show.
#[tokio::test]
async fn the_route_that_broke_is_found_beside_busy_ones_and_is_named() {
    const BUSY: usize = 4000;
    let (_fleet, api) = one_backend("api").await;
    let config = |backend: std::net::SocketAddr| {
        let fine = "\n  fine: { match: { path: /fine }, access: { any_of: [anonymous] }, respond: { status: 204 } }\n";
        config("/api", backend).trim_end().to_owned() + fine
    };
    let setup = Setup::new(config(api.address())).file("admin.token", TOKEN);
    let gateway = setup.start().await;
    let busy = async || {
        for _ in 0..BUSY / 100 {
            let client = gateway.client();
            at_once(100, move |_| client.get("/fine")).await.all(204);
        }
    };
    for _ in 0..MANY {
        gateway.get("/api").send().await.expect(200);
    }
    busy().await;
    gateway.rewrite_config(config("127.0.0.1:9".parse().expect("an address")));
    reload(&gateway, "?canary=1h").await.expect(200);
    busy().await;
    let why = is_taken_back(&gateway).await;
    assert!(
        why.contains("route api: 0 % of the requests were answered with 5xx before"),
        "{why}"
    );
    gateway.get("/fine").send().await.expect(204);
}

#[tokio::test]
async fn what_is_no_worse_stays() {
    let (_fleet, api, gateway) = start(&[]).await;
    gateway.rewrite_config(config("/api", api.address()).replace("rewrite: /echo", "rewrite: /echo?new"));
    reload(&gateway, "?canary=1s").await.expect(200);
    for _ in 0..MANY {
        gateway.get("/api").send().await.expect(200);
    }
    eventually(SOON, "it is not watched any more", || async {
        state(&gateway).await["canary_seconds"].is_null().then_some(())
    })
    .await;
    let state = state(&gateway).await;
    assert_eq!(
        (&state["generation"], &state["last_reload"]["successful"]),
        (&2.into(), &true.into())
    );
    for wrong in [
        "?canary=0s",
        "?canary=2h",
        "?canary=5",
        "?canary=1s&canary=2s",
        "?time=5s",
    ] {
        reload(&gateway, wrong).await.expect(400);
    }
}
