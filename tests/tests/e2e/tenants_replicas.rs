//! Checks changes of tenants and keys over replicas that share a store.

use std::fs;

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::redis_server::RedisServer;
use serde_json::{Value, json};
use tests::{Gateway, Setup, eventually};

use crate::SOON;
use crate::tenants::{TENANTS, TOKEN, ask, change, config, status, text};

/// Returns what replicas of this store start with.
fn setup(redis: &RedisServer) -> Setup {
    let with_store = config().top(format!(
        "limits_store: {{ redis: {{ url: \"{}\" }}, call_limit: 100ms }}",
        redis.url()
    ));
    Setup::new(with_store.to_string())
        .file("keys.yaml", key_file(&[KeyLine::new("k1", "acme", "key-acme")]))
        .file("tenants.yaml", TENANTS)
        .file("revoked.yaml", "revocations: []\n")
        .file("admin.token", TOKEN)
}

#[tokio::test]
async fn replicas_follow_and_the_later_change_wins() {
    let Some(redis) = RedisServer::start() else { return };
    let setup = setup(&redis);
    let (one, two) = tokio::join!(setup.clone().start(), setup.clone().start());
    change(&one, "PUT", "/api/v1/tenants/initech", json!({ "tier": "open" })).await;
    let key = change(&one, "POST", "/api/v1/tenants/initech/keys", json!({})).await;
    let secret = key["secret"].as_str().expect("it is shown once").to_owned();
    eventually(SOON, "the other replica takes the key", || async {
        (status(&two, &secret).await == 204).then_some(())
    })
    .await;
    eventually(SOON, "the other file has the tenant", || async {
        text(&two, "tenants.yaml")
            .contains("  initech: { tier: open }\n")
            .then_some(())
    })
    .await;
    change(&two, "PATCH", "/api/v1/tenants/initech", json!({ "disabled": true })).await;
    eventually(SOON, "the first replica refuses", || async {
        (status(&one, &secret).await == 403).then_some(())
    })
    .await;
    // One that was away catches up.
    let three = setup.start().await;
    eventually(SOON, "a new replica refuses", || async {
        (status(&three, &secret).await == 403).then_some(())
    })
    .await;
    // Both change it at once: one wins everywhere.
    tokio::join!(
        change(
            &one,
            "PATCH",
            "/api/v1/tenants/globex",
            json!({ "labels": { "by": "one" } })
        ),
        change(
            &two,
            "PATCH",
            "/api/v1/tenants/globex",
            json!({ "labels": { "by": "two" } })
        ),
    );
    eventually(SOON, "all say the same", || async {
        let mut labels = Vec::new();
        for gateway in [&one, &two, &three] {
            labels.push(gateway.admin_json("/api/v1/tenants/globex").await["record"]["labels"].clone());
        }
        let is_told = || {
            [&one, &two]
                .iter()
                .any(|gateway| gateway.log().contains("the later change wins"))
        };
        (labels[0] == labels[1] && labels[1] == labels[2] && labels[0].is_object() && is_told()).then_some(())
    })
    .await;
}

/// Returns the fingerprints of the files of tenants, as the replicas tell them.
async fn fingerprints(gateway: &Gateway) -> Vec<u64> {
    let shown = gateway.admin_json("/api/v1/replicas").await;
    let replicas = shown["replicas"].as_array().expect("a list").iter();
    let of = |replica: &Value| replica["changes"]["tenants"].as_u64().expect("a number");
    replicas.map(of).collect()
}

#[tokio::test]
async fn an_edit_by_hand_stays_and_is_told_as_a_conflict() {
    let Some(redis) = RedisServer::start() else { return };
    let setup = setup(&redis);
    let (one, two) = tokio::join!(setup.clone().start(), setup.start());
    let tier = async |gateway: &Gateway| gateway.admin_json("/api/v1/tenants/globex").await["record"]["tier"].clone();
    let are_same = async |expected: bool| {
        eventually(SOON, "both tell of their files", || async {
            let all = fingerprints(&one).await;
            (all.len() == 2 && (all[0] == all[1]) == expected).then_some(())
        })
        .await;
    };
    change(&one, "PATCH", "/api/v1/tenants/globex", json!({ "tier": "basic" })).await;
    eventually(SOON, "the other replica follows", || async {
        (tier(&two).await == "basic").then_some(())
    })
    .await;
    are_same(true).await;
    // An entry that the admin API has changed, and one that it has not.
    let edited = text(&two, "tenants.yaml")
        .replace("globex: { tier: basic }", "globex: { tier: open }")
        .replace("owner: ada", "owner: bob");
    fs::write(two.path("tenants.yaml"), &edited).expect("a file of ours");
    eventually(SOON, "the edit is in force and told", || async {
        let conflicts = two.metric("gateway_entry_conflicts", &[]).await;
        (tier(&two).await == "open" && conflicts == 1.0).then_some(())
    })
    .await;
    are_same(false).await;
    assert!(two.log().contains("conflict: the file was changed"), "{}", two.log());
    assert_eq!(
        (tier(&one).await, one.metric("gateway_entry_conflicts", &[]).await),
        (json!("basic"), 0.0)
    );
    let own = two.metric("gateway_entries_fingerprint", &[("file", "tenants")]).await;
    assert_ne!(
        own,
        one.metric("gateway_entries_fingerprint", &[("file", "tenants")]).await
    );

    // A reload does not bring back what the API has said before.
    let generation = two.metric("gateway_config_generation", &[]).await;
    change(&two, "POST", "/api/v1/reload", Value::Null).await;
    assert!(two.metric("gateway_config_generation", &[]).await > generation);
    change(
        &one,
        "PATCH",
        "/api/v1/tenants/acme",
        json!({ "labels": { "owner": "bob" } }),
    )
    .await;
    eventually(SOON, "the fleet has all entries but one in common", || async {
        text(&one, "tenants.yaml").contains("bob").then_some(())
    })
    .await;
    assert_eq!(text(&two, "tenants.yaml"), edited);

    // The next change by the API wins everywhere.
    change(&one, "PATCH", "/api/v1/tenants/globex", json!({ "tier": "free" })).await;
    eventually(SOON, "the conflict is over", || async {
        let conflicts = two.metric("gateway_entry_conflicts", &[]).await;
        (tier(&two).await == "free" && conflicts == 0.0).then_some(())
    })
    .await;
    are_same(true).await;
}

/// Returns as soon as a quota of the tenant `acme` is in force.
async fn has_quota(gateway: &Gateway, name: &str) {
    eventually(SOON, "the other replica follows", || async {
        let shown = gateway.admin_json("/api/v1/tenants/acme").await;
        let mut limits = shown["limits"].as_array()?.iter();
        limits.any(|limit| limit["name"] == name).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_quota_of_the_file_is_counted_where_it_says() {
    let Some(redis) = RedisServer::start() else { return };
    let setup = setup(&redis);
    let (one, two) = tokio::join!(setup.clone().start(), setup.start());
    let daily = |counted: &str| json!({ "limit": 6, "every": "day", "counted": counted });
    let terms = json!({ "tier": "open", "quotas": { "shared": daily("exact") } });
    change(&one, "PATCH", "/api/v1/tenants/acme", terms).await;
    has_quota(&two, "shared").await;
    let mut admitted = 0;
    for _ in 0..6 {
        for gateway in [&one, &two] {
            admitted += usize::from(status(gateway, "key-acme").await == 204);
        }
    }
    assert_eq!(admitted, 6, "each decision asks the store");
    let terms = json!({ "quotas": { "shared": null, "own": daily("local") } });
    change(&one, "PATCH", "/api/v1/tenants/acme", terms).await;
    has_quota(&two, "own").await;
    for gateway in [&one, &two] {
        let mut admitted = 0;
        while status(gateway, "key-acme").await == 204 {
            admitted += 1;
        }
        assert_eq!(admitted, 6, "each replica counts alone");
    }
    // One name has one place.
    let answer = ask(
        &one,
        "PATCH",
        "/api/v1/tenants/globex",
        json!({ "quotas": { "own": daily("leased") } }),
        &[],
    )
    .await;
    assert_eq!(answer.status, 422, "{}", answer.text());
    assert!(answer.text().contains("counted in another place"), "{}", answer.text());
}
