//! Checks that every answer of the admin API is as `/api/v1/openapi.json` describes it, without a member more.

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Behaviour, Fleet, Spec};
use fixtures::keys::JWKS;
use fixtures::redis_server::RedisServer;
use http::Method;
use serde_json::json;
use tests::configs::Config;
use tests::{Client, Gateway, Setup, eventually};

use crate::SOON;
use crate::described::Described;

const TOKEN: &str = "correct-horse-battery-staple";

/// A config with something of everything that the admin API shows.
const TOP: &str = r#"
listeners: { public: { address: "127.0.0.1:0" } }
admin: { address: "127.0.0.1:0", token_file: admin.token }
workers: 2
usage: {}
tiers: { twice: { rate: 1/h, burst: 2, quotas: { monthly: { limit: 100, every: month } } } }
default_tier: twice
callers:
  api_keys: { file: keys.yaml }
  anonymous: { by: client_address, tier: enterprise }
  revocations: { file: revoked.yaml }
  jwt:
    local: { issuer: "https://id.test", audience: [edge], keys: { file: jwks.json }, algorithms: [ES256], tenant: /tenant }
    far: { issuer: "https://far.test", audience: [edge], keys: { url: "http://127.0.0.1:9/jwks.json" }, algorithms: [ES256],
           tenant: /tenant }
tenants: { file: tenants.yaml }
"#;

fn setup(fleet: &Fleet, store: Option<&RedisServer>) -> Setup {
    let store = store.map_or_else(String::new, |redis| {
        format!("limits_store: {{ redis: {{ url: \"{}\" }} }}", redis.url())
    });
    let (api, gone) = (fleet.address("api"), fleet.address("gone"));
    let open = "access: { any_of: [anonymous] }";
    let config = Config::with(TOP)
        .top(store)
        .backend_of(
            "api",
            [api],
            "health: { path: /echo, every: 1s }, \
             breaker: { failure_ratio: 0.9, slow: { over: 5s, ratio: 0.9 }, consecutive: 50 }, \
             bulkhead: { limit: 20, queue: 10, wait: 1s }",
        )
        .backend_of(
            "gone",
            [gone, "127.0.0.1:9".parse().expect("an address")],
            "breaker: { adaptive: { threshold: 2s } }, bulkhead: { limit: adaptive, from: 2, to: 20 }",
        )
        .backend_from("named", "{ dns: localhost, port: 9 }", "breaker: off")
        .route(
            "keyed",
            "{ match: { path: /keyed, methods: [GET] }, backend: api, rewrite: /echo, \
             limits: { search: { rate: 100/s, burst: 100, per: tenant } }, cors: { origins: [\"https://a.test\"] } }",
        )
        .route(
            "mirrored",
            &format!(
                "{{ match: {{ path: /mirrored, headers: {{ x-a: b }} }}, {open}, backend: api, rewrite: /echo, \
                 mirror: {{ to: gone, percent: 100, compare: status }} }}"
            ),
        )
        .route(
            "split",
            &format!(
                "{{ match: {{ path: /split }}, {open}, rewrite: /echo, \
                 split: [{{ backend: api, percent: 50 }}, {{ backend: gone }}] }}"
            ),
        )
        .route(
            "page",
            &format!(
                "{{ match: {{ path: /page }}, {open}, aggregate: {{ partial: allow, parts: {{
                    a: {{ backend: api, path: /echo }},
                    b: {{ backend: gone, path: /echo, fallback: {{ value: null }} }} }} }} }}"
            ),
        )
        .route(
            "fixed",
            &format!("{{ match: {{ path: /fixed }}, {open}, respond: {{ status: 204 }} }}"),
        )
        .route(
            "moved",
            &format!("{{ match: {{ path: /moved }}, {open}, redirect: {{ to: /fixed }} }}"),
        );
    Setup::new(config.to_string())
        .file("keys.yaml", key_file(&[KeyLine::new("acme-1", "acme", "key-acme")]))
        .file(
            "tenants.yaml",
            "tenants:\n  acme: { burst: 3 }\n  globex: { tier: free, disabled: true }\n",
        )
        .file("revoked.yaml", "revocations: []\n")
        .file("jwks.json", JWKS)
        .file("admin.token", TOKEN)
}

/// Asks for something of everything.
async fn use_it(gateway: &Gateway) {
    for path in [
        "/page",
        "/split",
        "/split",
        "/mirrored",
        "/fixed",
        "/moved",
        "/nowhere",
        "/keyed",
    ] {
        gateway.get(path).header("x-a", "b").send().await;
    }
    for _ in 0..5 {
        gateway.get("/keyed").key("key-acme").send().await;
    }
    eventually(SOON, "all are counted", || async {
        let shown = gateway.admin_json("/api/v1/tenants/acme").await;
        (shown["requests"]["total"] == 5 && shown["requests"]["limited"] == 2).then_some(())
    })
    .await;
}

async fn fleet() -> Fleet {
    let failing = Spec::new("gone").behaviour(Behaviour::status(503));
    Fleet::start([Spec::new("api"), failing]).await.expect("ports are free")
}

#[tokio::test]
async fn every_answer_is_as_it_is_described() {
    let fleet = fleet().await;
    let gateway = setup(&fleet, None).start().await;
    use_it(&gateway).await;
    let described = Described::of(&gateway).await;
    for path in [
        "/api/v1/status",
        "/api/v1/routes",
        "/api/v1/backends",
        "/api/v1/tenants",
        "/api/v1/tenants/acme",
        "/api/v1/tenants/globex",
        "/api/v1/tenants/acme/keys",
        "/api/v1/keys",
        "/api/v1/keys/acme-1",
        "/api/v1/usage",
        "/api/v1/usage?by=minute",
        "/api/v1/rejections",
        "/api/v1/rejections/groups",
        "/api/v1/history",
        "/api/v1/explain?url=/page",
        "/api/v1/explain?url=/keyed&tenant=acme",
        "/api/v1/explain?url=/split",
        "/api/v1/explain?url=/nowhere",
        "/api/v1/explain?url=/keyed&tenant=globex",
        "/api/v1/revocations",
    ] {
        let answer = gateway.admin(path).send().await.expect(200);
        described.check("get", path, &answer);
    }
    let gone = json!({ "address": fleet.address("gone"), "state": "drained" });
    let config = fs_text(&gateway);
    for (method, path, body) in [
        ("POST", "/api/v1/backends/api/breaker", json!({ "state": "open" })),
        ("POST", "/api/v1/backends/api/breaker", json!({ "state": "auto" })),
        ("POST", "/api/v1/backends/gone/endpoints", gone),
        ("POST", "/api/v1/tenants/acme/quotas/monthly", json!({ "used": 7 })),
        ("POST", "/api/v1/explain", json!({ "url": "/keyed", "key": "key-acme" })),
        ("POST", "/api/v1/diff", json!({})),
        (
            "POST",
            "/api/v1/diff",
            json!({ "config": config.replace("rewrite: /echo", "rewrite: /other") }),
        ),
        (
            "POST",
            "/api/v1/revocations",
            json!({ "key": "acme-1", "reason": "lost", "until": "1d" }),
        ),
        ("GET", "/api/v1/revocations", json!(null)),
        ("GET", "/api/v1/status", json!(null)),
        ("DELETE", "/api/v1/revocations?key=acme-1", json!(null)),
        ("POST", "/api/v1/reload", json!(null)),
        ("POST", "/api/v1/drain", json!(null)),
    ] {
        let asked: Method = method.parse().expect("a method");
        let mut ask = Client::to(gateway.admin_address()).ask(asked, path).bearer(TOKEN);
        if !body.is_null() {
            ask = ask.body(body.to_string());
        }
        let answer = ask.send().await;
        assert!(matches!(answer.status, 200 | 202), "{method} {path}: {}", answer.text());
        described.check(&method.to_lowercase(), path, &answer);
    }
}

#[tokio::test]
async fn replicas_and_their_store_are_as_they_are_described() {
    let Some(redis) = RedisServer::start() else { return };
    let fleet = fleet().await;
    let gateway = setup(&fleet, Some(&redis)).start().await;
    let described = Described::of(&gateway).await;
    eventually(SOON, "it lists itself", || async {
        let answer = gateway.admin("/api/v1/replicas").send().await;
        let is_listed = answer.status == 200 && answer.json()["replicas"].as_array().is_some_and(|all| !all.is_empty());
        is_listed.then_some(())
    })
    .await;
    for path in ["/api/v1/replicas", "/api/v1/status"] {
        let answer = gateway.admin(path).send().await.expect(200);
        described.check("get", path, &answer);
    }
}

fn fs_text(gateway: &Gateway) -> String {
    std::fs::read_to_string(gateway.path("gateway.yaml")).expect("a file of ours")
}
