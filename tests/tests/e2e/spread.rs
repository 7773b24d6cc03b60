//! Checks what replicas that share a store tell each other: revocations, forced breakers, and that they are there.

use std::time::Instant;

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::Fleet;
use fixtures::redis_cluster::RedisCluster;
use fixtures::redis_server::RedisServer;
use http::Method;
use serde_json::{Value, json};
use tests::configs::Config;
use tests::{Answer, Client, Gateway, Setup, Signal, cli, eventually};

use crate::{SOON, one_backend};

const TOKEN: &str = "correct-horse-battery-staple";
const TOP: &str = r#"
listeners: { public: { address: "127.0.0.1:0" } }
workers: 1
admin: { address: "127.0.0.1:0", token_file: admin.token }
tiers: { open: { rate: 100000/s, burst: 100000 } }
default_tier: open
callers: { api_keys: { file: keys.yaml } }
"#;

async fn setup(redis: &RedisServer) -> (Fleet, Setup) {
    setup_at(&redis.url(), "").await
}

/// Makes a config with the store at this URL. `more` is of the route.
async fn setup_at(url: &str, more: &str) -> (Fleet, Setup) {
    let (fleet, api) = one_backend("api").await;
    let config = Config::with(TOP)
        .top(format!(
            "limits_store: {{ redis: {{ url: \"{url}\" }}, call_limit: 100ms }}"
        ))
        .backend("api", api.address(), "")
        .mapped("any", "api", more);
    let lines = [
        KeyLine::new("k1", "acme", "key-1"),
        KeyLine::new("k2", "other", "key-2"),
    ];
    let setup = Setup::new(config.to_string())
        .file("keys.yaml", key_file(&lines))
        .file("admin.token", TOKEN);
    (fleet, setup)
}

async fn change(gateway: &Gateway, method: Method, target: &str, body: &Value) -> Answer {
    let ask = Client::to(gateway.admin_address()).ask(method, target);
    ask.bearer(TOKEN).body(body.to_string()).send().await.expect(200)
}

/// Waits until the key has this status.
async fn becomes(gateway: &Gateway, key: &str, status: u16) {
    eventually(SOON, &format!("{key} has {status}"), || async {
        let answer = gateway.get("/any/echo").key(key).send().await;
        (answer.status == status).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_revocation_reaches_every_replica() {
    let Some(redis) = RedisServer::start() else { return };
    let (_fleet, setup) = setup(&redis).await;
    let (one, two) = tokio::join!(setup.clone().start(), setup.clone().start());
    becomes(&two, "key-1", 200).await;
    let entry = json!({ "tenant": "acme", "reason": "unpaid" });
    change(&one, Method::POST, "/api/v1/revocations", &entry).await;
    becomes(&two, "key-1", 401).await;
    becomes(&two, "key-2", 200).await;
    // One that starts later, and one that knows it from the store alone.
    let late = setup.clone().start().await;
    becomes(&late, "key-1", 401).await;
    let listed = late.admin_json("/api/v1/revocations").await;
    assert_eq!(listed["revocations"][0]["reason"], "unpaid", "{listed:#}");

    change(&two, Method::DELETE, "/api/v1/revocations?tenant=acme", &Value::Null).await;
    for gateway in [&one, &two, &late] {
        becomes(gateway, "key-1", 200).await;
    }
}

#[tokio::test]
async fn a_revocation_reaches_a_replica_that_was_away_from_the_store() {
    let Some(mut redis) = RedisServer::start() else { return };
    let (_fleet, setup) = setup(&redis).await;
    let (one, two) = tokio::join!(setup.clone().start(), setup.clone().start());
    becomes(&two, "key-1", 200).await;
    redis.kill();
    let entry = json!({ "key": "k1" });
    change(&one, Method::POST, "/api/v1/revocations", &entry).await;
    becomes(&one, "key-1", 401).await;
    redis.restart();
    becomes(&two, "key-1", 401).await;
}

#[tokio::test]
async fn a_forced_breaker_is_forced_on_every_replica() {
    let Some(redis) = RedisServer::start() else { return };
    let (_fleet, setup) = setup(&redis).await;
    let (one, two) = tokio::join!(setup.clone().start(), setup.clone().start());
    let state = json!({ "state": "open" });
    change(&one, Method::POST, "/api/v1/backends/api/breaker", &state).await;
    becomes(&two, "key-1", 503).await;
    let late = setup.clone().start().await;
    becomes(&late, "key-1", 503).await;
    let state = json!({ "state": "auto" });
    change(&late, Method::POST, "/api/v1/backends/api/breaker", &state).await;
    for gateway in [&one, &two, &late] {
        becomes(gateway, "key-1", 200).await;
    }
}

#[tokio::test]
async fn a_drained_endpoint_is_drained_on_every_replica() {
    let Some(redis) = RedisServer::start() else { return };
    let (fleet, setup) = setup(&redis).await;
    let (one, two) = tokio::join!(setup.clone().start(), setup.clone().start());
    let drain = |state| json!({ "address": fleet.backend("api").address(), "state": state });
    let target = "/api/v1/backends/api/endpoints";
    change(&one, Method::POST, target, &drain("drained")).await;
    becomes(&two, "key-1", 503).await;
    let late = setup.clone().start().await;
    becomes(&late, "key-1", 503).await;
    // A reload there keeps it.
    two.signal(Signal::Hup);
    eventually(SOON, "the new config", || async {
        (two.metric("gateway_config_generation", &[]).await == 2.0).then_some(())
    })
    .await;
    becomes(&two, "key-1", 503).await;
    let drained = eventually(SOON, "all tell of it", || async {
        let shown = one.admin_json("/api/v1/replicas").await;
        let replicas = shown["replicas"].as_array().cloned().unwrap_or_default();
        let counts: Vec<_> = replicas
            .iter()
            .map(|replica| replica["changes"]["drained"].clone())
            .collect();
        (counts.len() == 3 && counts.iter().all(|count| *count == 1)).then_some(shown)
    });
    let shown = drained.await;
    assert_eq!(shown["replicas"][0]["changes"]["forced"], 0, "{shown:#}");

    change(&late, Method::POST, target, &drain("auto")).await;
    for gateway in [&one, &two, &late] {
        becomes(gateway, "key-1", 200).await;
    }
}

#[tokio::test]
async fn a_quota_that_is_set_holds_on_every_replica() {
    let Some(redis) = RedisServer::start() else { return };
    set_quota(&redis.url()).await;
}

#[tokio::test]
async fn replicas_of_a_cluster_count_and_tell_together() {
    let Some(cluster) = RedisCluster::start() else { return };
    set_quota(&cluster.url()).await;
}

/// Sets a quota on one of two replicas, several times, and uses it up.
async fn set_quota(url: &str) {
    let (fleet, setup) = setup_at(url, "limits: { monthly: { limit: 40, every: month } }").await;
    let (one, two) = tokio::join!(setup.clone().start(), setup.clone().start());
    let set = async |gateway: &Gateway, used: u64| -> Value {
        let target = "/api/v1/tenants/acme/quotas/monthly?route=any";
        change(gateway, Method::POST, target, &json!({ "used": used }))
            .await
            .json()
    };
    becomes(&one, "key-1", 200).await;
    becomes(&two, "key-1", 200).await;
    set(&one, 40).await;
    becomes(&one, "key-1", 429).await;
    becomes(&two, "key-1", 429).await;
    // They would refuse until the end of the month.
    set(&two, 0).await;
    becomes(&one, "key-1", 200).await;
    becomes(&two, "key-1", 200).await;

    // Exact as soon as nothing is on lease.
    let answer = eventually(SOON, "all leases have come back", || async {
        let answer = set(&one, 30).await;
        (answer["on_lease"] == 0).then_some(answer)
    })
    .await;
    assert_eq!(
        (&answer["used"], &answer["balance"]),
        (&json!(30), &json!(10)),
        "{answer}"
    );
    let mut admitted = 0;
    let ask = async |gateway: &Gateway| gateway.get("/any/echo").key("key-1").send().await.status;
    let started = Instant::now();
    while admitted < 10 {
        assert!(started.elapsed() < SOON, "only {admitted} of 10 are admitted");
        for gateway in [&one, &two] {
            admitted += u32::from(ask(gateway).await == 200);
        }
    }
    for gateway in [&one, &two, &one, &two] {
        assert_eq!(ask(gateway).await, 429, "{admitted} were admitted");
    }
    assert_eq!(admitted, 10);
    drop(fleet);
}

#[tokio::test]
async fn each_replica_lists_all() {
    let Some(redis) = RedisServer::start() else { return };
    let (_fleet, setup) = setup(&redis).await;
    let (one, mut two) = tokio::join!(setup.clone().start(), setup.clone().start());
    let listed = async |count: usize| {
        eventually(SOON, "all are listed", || async {
            let shown = one.admin_json("/api/v1/replicas").await;
            let replicas = shown["replicas"].as_array().map_or(0, Vec::len);
            (replicas == count).then_some(shown)
        })
        .await
    };
    let shown = listed(2).await;
    let here: Vec<_> = shown["replicas"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|replica| replica["this"] == true)
        .collect();
    assert_eq!(here.len(), 1, "{shown:#}");
    let name = here[0]["name"].as_str().unwrap();
    assert!(name.ends_with(&format!(":{}", one.pid())), "{shown:#}");
    assert_eq!(here[0]["config_generation"], 1, "{shown:#}");
    assert_eq!(shown["limits_store"]["up"], true, "{shown:#}");
    let status = one.admin_json("/api/v1/status").await;
    assert_eq!(status["limits_store"]["eviction"], "noeviction", "{status:#}");
    assert_eq!(one.metric("gateway_store_up", &[]).await, 1.0);

    let admin = one.admin_address().to_string();
    let told = cli(&["status", "--all", "--admin", &admin], &setup);
    assert!(told.stdout.contains(&format!("{name} *")), "{}", told.stdout);
    assert!(told.stdout.contains(&format!(":{} ", two.pid())), "{}", told.stdout);

    // A replica that stops leaves the list at once.
    two.signal(Signal::Term);
    two.wait_exit().await;
    listed(1).await;
}
