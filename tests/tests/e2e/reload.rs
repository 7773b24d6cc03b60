//! Checks reloads: a new config takes effect between two requests and keeps the counts, and an invalid config changes
//! nothing.

use std::time::Duration;

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Behaviour, Fleet, Handle};
use tests::configs::{Config, UNGUARDED};
use tests::crowd::{at_once, steadily};
use tests::{Answer, Gateway, Setup, Signal, eventually};
use tokio::time::interval;

use crate::{SOON, one_backend};

const SUCCESSFUL: &str = "gateway_config_last_reload_successful";

const LIMITED: &str = r#"
listeners: { public: { address: "127.0.0.1:0" } }
admin: { address: "127.0.0.1:0" }
callers: { api_keys: { file: keys.yaml } }
"#;

fn limited(burst: u32, more: &str) -> String {
    Config::with(LIMITED)
        .top(format!(
            "tiers: {{ trickle: {{ rate: 1/h, burst: {burst} }} }}\ndefault_tier: trickle"
        ))
        .route(
            "fixed",
            &format!("{{ match: {{ path: /fixed }}, respond: {{ status: 204 }}{more} }}"),
        )
        .to_string()
}

async fn start_limited() -> Gateway {
    let keys = key_file(&[KeyLine::new("k", "acme", "key")]);
    Setup::new(limited(10, "")).file("keys.yaml", keys).start().await
}

fn version(api: &Handle, version: u32) -> String {
    let route = format!(
        "{{ match: {{ path: /version }}, access: {{ any_of: [anonymous] }}, respond: {{ status: 200, body: \"{version}\" }} }}"
    );
    Config::default()
        .open("api", api.address(), UNGUARDED)
        .route("version", &route)
        .to_string()
}

async fn start_versions() -> (Fleet, Handle, Gateway) {
    let (fleet, api) = one_backend("api").await;
    let gateway = Gateway::start(version(&api, 1)).await;
    (fleet, api, gateway)
}

async fn current(gateway: &Gateway) -> String {
    gateway.get("/version").send().await.expect(200).text()
}

/// Gives the gateway a config that it has to refuse, and returns when it has.
async fn reload_in_vain(gateway: &Gateway, config: &str) {
    gateway.rewrite_config(config);
    gateway.signal(Signal::Hup);
    gateway.metric_becomes(SUCCESSFUL, &[], 0.0).await;
}

#[tokio::test]
async fn a_new_config_takes_over() {
    let (_fleet, api, gateway) = start_versions().await;
    assert_eq!(current(&gateway).await, "1");
    assert_eq!(gateway.metric(SUCCESSFUL, &[]).await, 1.0);
    for number in 2..5 {
        gateway.reload(version(&api, number)).await;
        assert_eq!(current(&gateway).await, number.to_string());
        assert_eq!(gateway.metric(SUCCESSFUL, &[]).await, 1.0);
    }
}

#[tokio::test]
async fn a_bad_config_changes_nothing_and_shows() {
    let (_fleet, api, gateway) = start_versions().await;
    for bad in ["nonsense: [", "listeners: {}", "listners: {}\n"] {
        reload_in_vain(&gateway, bad).await;
        assert_eq!(current(&gateway).await, "1");
        gateway.get("/api/echo").send().await.expect(200);
        gateway.reload(version(&api, 1)).await;
        assert_eq!(gateway.metric(SUCCESSFUL, &[]).await, 1.0);
    }
    reload_in_vain(&gateway, "listners: {}").await;
    let log = gateway.log();
    assert!(log.contains("listners"), "the log says what is wrong: {log}");
    let status = gateway.admin_json("/api/v1/status").await;
    assert!(
        status.to_string().contains("listners"),
        "so does the status: {status:#}"
    );
}

/// As deep as a config can be written, in every way in which it can.
#[tokio::test]
async fn a_config_of_any_depth_is_refused_by_a_process_that_goes_on() {
    let (_fleet, api, gateway) = start_versions().await;
    let good = version(&api, 1);
    let deep = 100_000;
    let pattern = format!(
        "{good}  deep: {{ match: {{ path: {} }}, backend: api }}\n",
        "/a".repeat(deep)
    );
    let parts: String = (1..deep / 10)
        .map(|part| format!("        p{part}: {{ backend: api, path: /, needs: [p{}] }}\n", part - 1))
        .collect();
    let chain = format!(
        "{good}  chain:\n    match: {{ path: /chain }}\n    aggregate:\n      parts:\n        p0: {{ backend: api, path: / }}\n{parts}"
    );
    let blocks: String = (0..2000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    for (what, config) in [
        ("a pattern", pattern),
        ("a chain of parts", chain),
        ("lists", format!("routes: {}", "[".repeat(deep))),
        ("maps", format!("routes: {}", "{a: ".repeat(deep))),
        ("lists in blocks", "- ".repeat(deep)),
        ("maps in blocks", blocks),
        ("keys", "? ".repeat(deep)),
    ] {
        reload_in_vain(&gateway, &config).await;
        assert_eq!(current(&gateway).await, "1", "{what}");
        gateway.reload(&good).await;
    }
}

#[tokio::test]
async fn a_drained_bucket_is_still_drained() {
    let gateway = start_limited().await;
    let ask = || gateway.get("/fixed").key("key").send();
    for _ in 0..10 {
        ask().await.expect(204);
    }
    ask().await.refusal(429, "rate_limited");
    gateway.reload(limited(10, ", cost: 1")).await;
    ask().await.refusal(429, "rate_limited");
    reload_in_vain(&gateway, "nonsense").await;
    ask().await.refusal(429, "rate_limited");
}

#[tokio::test]
async fn a_changed_limit_scales_what_is_left_and_refills_nothing() {
    let gateway = start_limited().await;
    let left = |answer: &Answer| {
        let field = answer.header("ratelimit").expect("a charged answer has it");
        field
            .split(';')
            .find_map(|part| part.strip_prefix("r=")?.parse::<u32>().ok())
            .expect("r")
    };
    for _ in 0..5 {
        gateway.get("/fixed").key("key").send().await.expect(204);
    }
    gateway.reload(limited(20, "")).await;
    let answer = gateway.get("/fixed").key("key").send().await.expect(204);
    let remaining = left(&answer);
    assert!(remaining <= 9, "half of a bucket of 20 was there at most: {remaining}");
    gateway.reload(limited(2, "")).await;
    let answer = gateway.get("/fixed").key("key").send().await;
    assert!(answer.status == 429 || left(&answer) <= 1, "{answer:#?}");
}

#[tokio::test]
async fn an_open_breaker_stays_open_and_a_slot_in_use_stays_in_use() {
    let (_fleet, api) = one_backend("api").await;
    let config = |more: &str| {
        let guards = "retry: off, bulkhead: { limit: 1, queue: 0 }, breaker: { min_calls: 2, open_for: 1h }";
        let config = Config::default()
            .backend("api", api.address(), guards)
            .open_route("api", "api", more);
        config
            .backend("other", api.address(), guards)
            .open_route("other", "other", "")
            .to_string()
    };
    let gateway = Gateway::start(config("")).await;
    api.behave(Behaviour::status(500)).await;
    for _ in 0..2 {
        gateway.get("/api/echo").send().await.expect(500);
    }
    api.heal().await;
    api.close_gate();
    let held = tokio::spawn(gateway.get("/other/echo").send());
    api.wait_for(|counts| counts.at_gate == 1, SOON)
        .await
        .expect("it is asked");
    gateway.reload(config("time_limit: 9s")).await;
    gateway.get("/api/echo").send().await.refusal(503, "breaker_open");
    gateway.get("/other/echo").send().await.refusal(503, "bulkhead_full");
    api.open_gate();
    held.await.expect("no panic").expect(200);
}

#[tokio::test]
async fn keys_and_routes_are_read_again() {
    let gateway = start_limited().await;
    gateway.get("/fixed").key("key").send().await.expect(204);
    let keys = key_file(&[KeyLine::new("k2", "acme", "new-key")]);
    std::fs::write(gateway.path("keys.yaml"), keys).expect("a file of ours");
    gateway.reload(limited(10, "")).await;
    gateway
        .get("/fixed")
        .key("key")
        .send()
        .await
        .refusal(401, "credentials_invalid");
    gateway.get("/fixed").key("new-key").send().await.expect(204);
}

#[tokio::test]
async fn a_backend_that_is_gone_keeps_its_counts_and_shows_no_state() {
    let (_fleet, api) = one_backend("api").await;
    let config = |name: &str| Config::default().open(name, api.address(), UNGUARDED).to_string();
    let gateway = Gateway::start(config("one")).await;
    gateway.get("/one/echo").send().await.expect(200);
    for (now, gone) in [("two", "one"), ("one", "two")] {
        gateway.reload(config(now)).await;
        gateway.get(&format!("/{now}/echo")).send().await.expect(200);
        gateway
            .metric_becomes(
                "gateway_requests_total",
                &[("route", now)],
                if now == "one" { 2.0 } else { 1.0 },
            )
            .await;
        let page = gateway.metrics().await;
        for name in ["gateway_bulkhead_limit", "gateway_backend_connections"] {
            assert!(page.sum(name, &[("backend", now)]).is_some(), "{name} of {now}");
            assert_eq!(page.sum(name, &[("backend", gone)]), None, "{name} of {gone}");
        }
        for (name, label) in [
            ("gateway_requests_total", "route"),
            ("gateway_backend_calls_total", "backend"),
        ] {
            assert_eq!(page.sum(name, &[(label, gone)]), Some(1.0), "{name} of {gone}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn no_request_notices_that_configs_are_swapped_under_it() {
    let seconds = if cfg!(feature = "long") { 30 } else { 3 };
    let per_second = if cfg!(feature = "long") { 1000 } else { 500 };
    let (_fleet, api, gateway) = start_versions().await;
    let configs = [
        version(&api, 2),
        "listners: {}".to_owned(),
        version(&api, 1),
        "routes: [".to_owned(),
    ];
    let swapping = async {
        let mut ticks = interval(Duration::from_millis(100));
        for config in configs.iter().cycle().take(seconds * 10) {
            ticks.tick().await;
            gateway.rewrite_config(config);
            gateway.signal(Signal::Hup);
        }
    };
    let client = gateway.client();
    let (tally, ()) = steadily(per_second, || client.get("/api/echo"), swapping).await;
    tally.all(200);
    assert!(
        tally.told.len() > seconds * per_second as usize / 2,
        "{}",
        tally.told.len()
    );
    let generations = gateway.metric("gateway_config_generation", &[]).await;
    assert!(generations > seconds as f64 * 2.0, "{generations} configs were in use");
    eventually(SOON, "the last config is in use", || async {
        gateway.reload(version(&api, 7)).await;
        (current(&gateway).await == "7").then_some(())
    })
    .await;
}

/// With each reload a route comes or goes, and the limits of another tenant change.
#[tokio::test]
async fn reloads_one_after_the_other_refill_nothing_and_are_in_force_when_they_are_answered() {
    const TOKEN: &str = "correct-horse-battery-staple";
    const RELOADS: usize = 40;
    const BURST: usize = 100;
    let (_fleet, api) = one_backend("api").await;
    let config = |is_odd: bool| {
        let burst = if is_odd { 400 } else { 200 };
        let more = if is_odd {
            "  added: { match: { path: /added }, access: { any_of: [api_key] }, respond: { status: 204 } }\n"
        } else {
            ""
        };
        let top = LIMITED.replace(
            "127.0.0.1:0\" }\ncallers",
            "127.0.0.1:0\", token_file: admin.token }\ncallers",
        );
        let tiers =
            format!("tiers: {{ once: {{ rate: 1/h, burst: {BURST} }}, changed: {{ rate: 1/h, burst: {burst} }} }}");
        let config = Config::with(top)
            .top("overload: off")
            .top(tiers)
            .backend("api", api.address(), UNGUARDED)
            .route("echo", "{ match: { path: /echo }, backend: api }")
            .route(
                "home",
                "{ match: { path: /home }, aggregate: { parts: { a: { backend: api, path: /echo } } } }",
            );
        config.to_string().trim_end().to_owned() + "\n" + more
    };
    let tiers = [("once", "once"), ("changed", "changed"), ("free", "enterprise")];
    let keys = tiers.map(|(name, tier)| KeyLine::new(name, name, name).tier(tier));
    let setup = Setup::new(config(false)).file("keys.yaml", key_file(&keys));
    let gateway = setup.file("admin.token", TOKEN).start().await;
    let reloads = async {
        let admin = tests::Client::to(gateway.admin_address());
        for number in 1..=RELOADS {
            let is_odd = number % 2 == 1;
            gateway.rewrite_config(config(is_odd));
            let ask = admin.ask(http::Method::POST, "/api/v1/reload");
            let answer = ask.header("authorization", &format!("Bearer {TOKEN}")).send().await;
            assert_eq!(answer.expect(200).json()["generation"], number + 1);
            let added = gateway.get("/added").key("free").send().await;
            added.expect(if is_odd { 204 } else { 404 });
        }
    };
    let client = gateway.client();
    let ask = |number: usize| {
        let [path, key] = match number % 4 {
            0 => ["/echo", "once"],
            1 => ["/echo", "changed"],
            2 => ["/home", "free"],
            _ => ["/echo", "free"],
        };
        client.get(path).key(key)
    };
    let numbers = std::sync::atomic::AtomicUsize::new(0);
    let next = || ask(numbers.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    let (tally, ()) = steadily(200, next, reloads).await;
    // Whatever is left of the buckets is used up.
    let rest = at_once(8 * BURST, ask).await;
    let told = tally.statuses().into_iter().chain(rest.statuses());
    let others: Vec<_> = told
        .filter(|((status, reason), _)| *status != 200 && (*status, reason.as_str()) != (429, "rate_limited"))
        .collect();
    assert!(others.is_empty(), "{others:?}");
    let admitted = async |limit: &str| {
        let labels = [("limit", limit), ("decision", "admitted")];
        gateway.metric("gateway_limit_decisions_total", &labels).await as usize
    };
    assert_eq!(admitted("once").await, BURST);
    // Its burst was 200 or 400, and what was left was scaled.
    let changed = admitted("changed").await;
    assert!((200..=400).contains(&changed), "{changed}");
}

#[tokio::test]
async fn requests_under_way_end_as_they_began() {
    let (_fleet, api, gateway) = start_versions().await;
    api.close_gate();
    let client = gateway.client();
    let held = tokio::spawn(at_once(20, move |_| client.get("/api/echo")));
    api.wait_for(|counts| counts.at_gate == 20, SOON)
        .await
        .expect("all are asked");
    let without = Config::default().route(
        "version",
        "{ match: { path: /version }, access: { any_of: [anonymous] }, respond: { status: 200, body: \"9\" } }",
    );
    gateway.reload(without.to_string()).await;
    gateway.get("/api/echo").send().await.refusal(404, "no_route");
    api.open_gate();
    held.await.expect("no panic").all(200);
}
