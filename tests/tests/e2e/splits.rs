//! Checks that several backends share the requests of one route as written: by percent, so that a key stays with its
//! backend on each replica, or by condition.

use std::collections::BTreeSet;

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Behaviour, Fleet, Spec};
use serde_json::json;
use tests::configs::Config;
use tests::{Ask, Gateway, Setup, cli};

const TOP: &str = r#"
listeners: { public: { address: "127.0.0.1:0" } }
admin: { address: "127.0.0.1:0" }
client_address: { trusted_proxies: [127.0.0.0/8] }
tiers: { open: { rate: 1000000/s, burst: 1000000 }, gold: { rate: 1000000/s, burst: 1000000 } }
default_tier: open
callers: { api_keys: { file: keys.yaml }, anonymous: { by: client_address, tier: open } }
"#;

/// Number of tenants with a key.
const TENANTS: u32 = 200;

async fn fleet() -> Fleet {
    Fleet::start(["v1", "v2", "v3"].map(Spec::new))
        .await
        .expect("ports are free")
}

/// A config whose route `users` has this split.
fn config(fleet: &Fleet, split: &str) -> String {
    let config = ["v1", "v2", "v3"].iter().fold(Config::with(TOP), |config, name| {
        config.backend(name, fleet.address(name), "retry: off")
    });
    let route = format!(
        "{{ match: {{ path: \"/users/{{*rest}}\" }}, access: {{ any_of: [api_key, anonymous] }}, \
         rewrite: \"/echo/{{path.rest}}\", split: {split} }}"
    );
    config.route("users", &route).to_string()
}

fn setup(fleet: &Fleet, split: &str) -> Setup {
    let mut keys: Vec<_> = (0..TENANTS)
        .map(|number| {
            KeyLine::new(
                &format!("k{number}"),
                &format!("tenant-{number}"),
                &format!("key-{number}"),
            )
        })
        .collect();
    // A second caller of the first tenant, and a tenant of another tier.
    keys.push(KeyLine::new("other", "tenant-0", "key-other"));
    keys.push(KeyLine::new("rich", "rich", "key-rich").tier("gold"));
    Setup::new(config(fleet, split)).file("keys.yaml", key_file(&keys))
}

/// Returns the name of the backend that answers.
async fn answered_by(ask: Ask) -> String {
    let answer = ask.send().await.expect(200).json();
    answer["backend"].as_str().expect("an echo").to_owned()
}

async fn by_key(gateway: &Gateway, key: &str) -> String {
    answered_by(gateway.get("/users/1").header("x-api-key", key)).await
}

/// Returns the tenants that `backend` serves.
async fn served_by(gateway: &Gateway, backend: &str) -> BTreeSet<u32> {
    let mut served = BTreeSet::new();
    for tenant in 0..TENANTS {
        if by_key(gateway, &format!("key-{tenant}")).await == backend {
            served.insert(tenant);
        }
    }
    served
}

#[tokio::test]
async fn a_tenant_stays_with_its_backend_on_each_replica_and_only_newcomers_move() {
    let fleet = fleet().await;
    let split = |percent: &str| format!("[{{ backend: v2, percent: {percent}, key: tenant }}, {{ backend: v1 }}]");
    let (one, other) = (
        setup(&fleet, &split("20")).start().await,
        setup(&fleet, &split("20")).start().await,
    );
    let at_20 = served_by(&one, "v2").await;
    assert!((20..=60).contains(&at_20.len()), "{}", at_20.len());
    assert_eq!(at_20, served_by(&one, "v2").await, "the same a second time");
    assert_eq!(at_20, served_by(&other, "v2").await, "the same on another replica");
    for key in ["key-0", "key-other"] {
        assert_eq!(
            by_key(&one, key).await == "v2",
            at_20.contains(&0),
            "all callers of a tenant"
        );
    }

    one.reload(config(&fleet, &split("40"))).await;
    let at_40 = served_by(&one, "v2").await;
    assert!(at_40.is_superset(&at_20) && at_40.len() > at_20.len());
    one.reload(config(&fleet, &split("20"))).await;
    assert_eq!(served_by(&one, "v2").await, at_20, "whoever came last leaves first");
    one.reload(config(&fleet, &split("0"))).await;
    assert_eq!(served_by(&one, "v2").await.len(), 0);
    one.reload(config(&fleet, &split("100"))).await;
    assert_eq!(served_by(&one, "v1").await.len(), 0);
}

#[tokio::test]
async fn the_bucket_is_the_stated_hash() {
    // FNV-1a and SplitMix64 over `users`, a zero byte and the tenant's name, of 10,000: see routing.md.
    let fleet = fleet().await;
    let bucket = |name: &str| {
        let bytes = format!("users\0{name}").into_bytes();
        let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (u128::from(hash ^ (hash >> 31)) * 10_000) >> 64
    };
    let split = "[{ backend: v2, percent: 12.34 }, { backend: v3, percent: 37.66 }, { backend: v1, percent: 50 }]";
    let gateway = setup(&fleet, split).start().await;
    for tenant in 0..TENANTS {
        let expected = match bucket(&format!("tenant-{tenant}")) {
            0..1_234 => "v2",
            1_234..5_000 => "v3",
            _ => "v1",
        };
        assert_eq!(by_key(&gateway, &format!("key-{tenant}")).await, expected, "{tenant}");
    }
}

#[tokio::test]
async fn requests_are_shared_by_the_key_that_is_written() {
    let fleet = fleet().await;
    let split = |key: &str| format!("[{{ backend: v2, percent: 50, key: \"{key}\" }}, {{ backend: v1 }}]");
    let gateway = setup(&fleet, &split("cookie.sid")).start().await;
    // Each key stays, both backends have some, and nothing else of the request counts.
    let check = async |value: &dyn Fn(Ask, u32) -> Ask| {
        let mut all = BTreeSet::new();
        for number in 0..30 {
            let ask = |tenant: &str| value(gateway.get("/users/1").header("x-api-key", tenant), number);
            let (one, again) = (answered_by(ask("key-1")).await, answered_by(ask("key-2")).await);
            assert_eq!(one, again, "{number}");
            all.insert(one);
        }
        assert_eq!(all.len(), 2);
    };
    check(&|ask, number| ask.header("cookie", &format!("a=b; sid=s{number}"))).await;
    // Without the cookie a request is among the last to move.
    for key in ["key-1", "key-2", "key-3", "key-4", "key-5", "key-6", "key-7", "key-8"] {
        assert_eq!(by_key(&gateway, key).await, "v1");
    }
    gateway.reload(config(&fleet, &split("header.x-session"))).await;
    check(&|ask, number| ask.header("x-session", &format!("u{number}"))).await;
    gateway.reload(config(&fleet, &split("client_address"))).await;
    check(&|ask, number| ask.header("x-forwarded-for", &format!("192.0.2.{number}"))).await;

    // Callers without credentials have no tenant: their address takes its place.
    gateway.reload(config(&fleet, &split("tenant"))).await;
    let mut all = BTreeSet::new();
    for number in 0..30 {
        let ask = || {
            gateway
                .get("/users/1")
                .header("x-forwarded-for", &format!("192.0.2.{number}"))
        };
        let (one, again) = (answered_by(ask()).await, answered_by(ask()).await);
        assert_eq!(one, again, "{number}");
        all.insert(one);
    }
    assert_eq!(all.len(), 2);

    gateway.reload(config(&fleet, &split("none"))).await;
    let mut all = BTreeSet::new();
    for _ in 0..60 {
        all.insert(by_key(&gateway, "key-1").await);
    }
    assert_eq!(all.len(), 2, "one tenant meets both");
}

#[tokio::test]
async fn a_condition_decides_before_the_rest() {
    let fleet = fleet().await;
    let split = r#"[
      { backend: v3, when: { tier: gold } },
      { backend: v2, when: { tenant: [tenant-1, tenant-2], header: { x-canary: "1" } } },
      { backend: v2, when: { cookie: { canary: "*" } } },
      { backend: v1 }]"#;
    let gateway = setup(&fleet, &split.replace('\n', " ")).start().await;
    let check = async |key: &str, fields: &[(&str, &str)], expected: &str| {
        let ask = fields.iter().fold(
            gateway.get("/users/1").header("x-api-key", key),
            |ask, (name, value)| ask.header(name, value),
        );
        assert_eq!(answered_by(ask).await, expected, "{key} {fields:?}");
    };
    check("key-1", &[], "v1").await;
    check("key-rich", &[], "v3").await;
    check("key-rich", &[("cookie", "canary=1")], "v3").await;
    check("key-1", &[("x-canary", "1")], "v2").await;
    check("key-2", &[("x-canary", "1")], "v2").await;
    check("key-3", &[("x-canary", "1")], "v1").await;
    check("key-1", &[("x-canary", "2")], "v1").await;
    check("key-3", &[("cookie", "a=1; canary=yes")], "v2").await;
    check("key-3", &[("cookie", "xcanary=yes")], "v1").await;
}

#[tokio::test]
async fn a_percent_with_a_condition_is_of_those_that_meet_it() {
    let fleet = fleet().await;
    let gateway = setup(
        &fleet,
        "[{ backend: v2, percent: 100, when: { header: { x-try: \"1\" } } }, { backend: v3, percent: 30 }, { backend: v1 }]",
    )
    .start()
    .await;
    for tenant in 0..20 {
        let ask = gateway.get("/users/1").header("x-api-key", &format!("key-{tenant}"));
        assert_eq!(answered_by(ask.header("x-try", "1")).await, "v2", "{tenant}");
    }
    assert_eq!(served_by(&gateway, "v2").await.len(), 0);
    let of_v3 = served_by(&gateway, "v3").await.len();
    assert!((35..=85).contains(&of_v3), "{of_v3}");
}

#[tokio::test]
async fn a_backend_that_fails_is_not_left_but_has_the_routes_fallbacks() {
    let fleet = fleet().await;
    let split = "[{ backend: v2, percent: 100 }, { backend: v1 }]";
    let gateway = setup(&fleet, split).start().await;
    fleet.backend("v2").behave(Behaviour::refusing()).await;
    let key = |ask: Ask| ask.header("x-api-key", "key-1");
    key(gateway.get("/users/1"))
        .send()
        .await
        .refusal(502, "backend_unreached");
    let with_fallback = config(&fleet, &format!("{split}, fallback: [{{ backend: v1 }}]"));
    gateway.reload(with_fallback).await;
    let answer = key(gateway.get("/users/1")).send().await.expect(200);
    assert_eq!(
        (answer.json()["backend"].clone(), answer.header("x-gateway-fallback")),
        (json!("v1"), Some("backend"))
    );
}

#[tokio::test]
async fn the_split_is_shown_and_said_by_check() {
    let fleet = fleet().await;
    let split = r#"[{ backend: v2, percent: 5, key: "cookie.sid" }, { backend: v3, when: { tier: [gold, open], header: { x-canary: "1" } } }, { backend: v1 }]"#;
    let setup = setup(&fleet, split);
    let said = cli(&["check", "gateway.yaml"], &setup);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    for line in [
        "split                    5%  to v2, by cookie.sid",
        "split                   all  to v3 if tier gold or open and header x-canary: 1",
        "split                  rest  to v1",
    ] {
        assert!(said.stdout.contains(line), "{line}\n{}", said.stdout);
    }
    let gateway = setup.start().await;
    let routes = gateway.admin_json("/api/v1/routes").await;
    assert_eq!(
        routes["routes"][0]["target"]["split"]["entries"],
        json!([
            { "backend": "v2", "percent": 5.0, "key": "cookie.sid", "when": [] },
            { "backend": "v3", "percent": null, "key": null, "when": ["tier gold or open", "header x-canary: 1"] },
            { "backend": "v1", "percent": null, "key": null, "when": [] },
        ])
    );
}
