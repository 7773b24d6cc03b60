//! Checks that copies of a route's requests go to another backend, and that no caller and no other call notices.

use std::collections::BTreeSet;

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Behaviour, Fault, Fleet, Handle, Recorded, Spec};
use http::Method;
use serde_json::json;
use tests::configs::Config;
use tests::{Ask, Gateway, Setup, Signal, Upload, cli, eventually};

use crate::{SOON, backends};

const TOP: &str = r#"
listeners: { public: { address: "127.0.0.1:0" } }
admin: { address: "127.0.0.1:0" }
tiers: { open: { rate: 1000000/s, burst: 1000000 }, few: { rate: 1/h, burst: 1 } }
default_tier: open
callers: { api_keys: { file: keys.yaml }, anonymous: { by: client_address, tier: open } }
"#;

const ALONE: &str = "retry: off";

/// Config with a route `/api/...` to the backend `v1`, mirrored to `v2` by these terms, and a route `/v2/...`.
fn config(fleet: &Fleet, mirror: &str, more: &str) -> String {
    let open = "access: { any_of: [anonymous, api_key] }";
    Config::with(TOP)
        .backend("v1", fleet.address("v1"), &format!("{ALONE}{more}"))
        .backend("v2", fleet.address("v2"), &format!("{ALONE}{more}"))
        .mapped("api", "v1", &format!("{open}, mirror: {{ to: v2, {mirror} }}"))
        .mapped("v2", "v2", open)
        .to_string()
}

fn setup(config: String) -> Setup {
    let keys = ["acme", "globex"].map(|tenant| KeyLine::new(tenant, tenant, &format!("key-{tenant}")));
    let few = KeyLine::new("few", "few", "key-few").tier("few");
    Setup::new(config).file("keys.yaml", key_file(keys.iter().chain([&few])))
}

async fn start(mirror: &str, more: &str) -> (Fleet, [Handle; 2], Gateway) {
    let (fleet, both) = backends(["v1", "v2"]).await;
    let gateway = setup(config(&fleet, mirror, more)).start().await;
    (fleet, both, gateway)
}

/// Returns as soon as so many copies have this outcome.
async fn outcomes(gateway: &Gateway, outcome: &str, count: u32) {
    let labels = [("route", "api"), ("outcome", outcome)];
    counted(gateway, "gateway_mirrored_requests_total", &labels, count).await;
}

async fn compared(gateway: &Gateway, result: &str, count: u32) {
    let labels = [("route", "api"), ("result", result)];
    counted(gateway, "gateway_mirror_comparisons_total", &labels, count).await;
}

/// Waits for a series, which appears at its first count.
async fn counted(gateway: &Gateway, name: &str, labels: &[(&str, &str)], count: u32) {
    let reason = format!("{name} with {labels:?} becomes {count}");
    eventually(SOON, &reason, || async {
        (gateway.metrics().await.sum(name, labels) == Some(f64::from(count))).then_some(())
    })
    .await;
}

/// Returns what a request is but for the fields in which a copy differs.
fn told(request: &Recorded) -> (String, String, Vec<(String, String)>, Vec<u8>) {
    let differs = ["host", "x-gateway-mirror", "x-request-timeout-ms"];
    let fields = request
        .headers
        .iter()
        .map(|(name, value)| (name.to_lowercase(), value.clone()))
        .filter(|(name, _)| !differs.contains(&&**name));
    let mut fields: Vec<_> = fields.collect();
    fields.sort();
    (
        request.method.clone(),
        request.target.clone(),
        fields,
        request.body.clone(),
    )
}

#[tokio::test]
async fn a_copy_is_the_request_as_its_backend_gets_it() {
    let (_fleet, [v1, v2], gateway) = start("percent: 100, methods: [GET, POST]", "").await;
    let ask = |ask: Ask| {
        ask.key("key-acme")
            .header("x-wish", "1")
            .header("cookie", "a=b")
            .header("x-gateway-mirror", "forged")
            .header("x-tenant-id", "forged")
    };
    let body = vec![b'x'; 60_000];
    ask(gateway.get("/api/echo?a=b%20c")).send().await.expect(200);
    ask(gateway.post("/api/echo"))
        .body(body.clone())
        .send()
        .await
        .expect(200);
    let (upload, pieces) = Upload::pieces(10);
    for piece in body.chunks(10_000) {
        let sent = upload.send(bytes::Bytes::copy_from_slice(piece)).await;
        sent.expect("the upload takes ten pieces");
    }
    drop(upload);
    ask(gateway.post("/api/echo")).upload(pieces).send().await.expect(200);
    gateway.client().ask(Method::PUT, "/api/echo").send().await.expect(200);
    outcomes(&gateway, "answered", 3).await;

    let (mut sent, mut copied) = (v1.requests(), v2.requests());
    let key = |request: &Recorded| (request.method.clone(), request.headers.len());
    sent.retain(|request| request.method != "PUT");
    sent.sort_by_key(key);
    copied.sort_by_key(key);
    assert_eq!((sent.len(), copied.len()), (3, 3), "PUT is not among the methods");
    for request in &sent {
        assert_eq!(request.header("x-gateway-mirror"), None);
    }
    for copy in &copied {
        assert_eq!(copy.header("x-gateway-mirror"), Some("1"));
        assert_eq!(copy.header("host"), Some(&*v2.address().to_string()));
        assert_eq!(copy.header("x-api-key"), None, "the credential is not passed on");
        assert_eq!(copy.header("x-tenant-id"), Some("acme"));
        assert_eq!(copy.header("x-attempt"), Some("1"));
        assert!(copy.header("x-request-timeout-ms").is_some());
        let has_body = copy.method == "POST";
        assert_eq!(copy.body_length, if has_body { 60_000 } else { 0 });
    }
    // The length of a chunked body is known once it is copied.
    let plain = |requests: &[Recorded]| -> BTreeSet<_> {
        let with_length = |request: &&Recorded| request.header("transfer-encoding").is_none();
        requests.iter().filter(with_length).map(told).collect()
    };
    assert!(plain(&sent).is_subset(&plain(&copied)), "{sent:#?} {copied:#?}");
    assert_eq!(plain(&sent).len(), 2);
}

#[tokio::test]
async fn a_mirror_that_hangs_holds_nothing_up_and_gets_no_more_than_its_limit() {
    let (_fleet, [v1, v2], gateway) = start("percent: 100, limit: 3", ", time_limit: 60s").await;
    v2.close_gate();
    for _ in 0..20 {
        gateway.get("/api/echo").send().await.expect(200);
    }
    assert_eq!(v1.counts().finished, 20);
    outcomes(&gateway, "full", 17).await;
    v2.wait_for(|counts| counts.at_gate == 3, SOON)
        .await
        .expect("three copies");
    let in_use = [("backend", "v2")];
    assert_eq!(gateway.metric("gateway_bulkhead_in_use", &in_use).await, 0.0);
    assert_eq!(
        gateway
            .metric("gateway_mirrored_requests_in_flight", &[("route", "api")])
            .await,
        3.0
    );
    let told = gateway.admin_json("/api/v1/backends").await;
    let v2_told = told["backends"]
        .as_array()
        .and_then(|all| all.iter().find(|one| one["name"] == "v2"));
    assert_eq!(
        v2_told.map(|backend| backend["endpoints"][0]["in_flight"].clone()),
        Some(json!(0)),
        "copies are no load: {told}"
    );
    v2.open_gate();
    outcomes(&gateway, "answered", 3).await;
    gateway.get("/api/echo").send().await.expect(200);
    outcomes(&gateway, "answered", 4).await;
}

/// Config whose mirror has this time limit, and one place.
fn limited(fleet: &Fleet, time_limit: &str) -> String {
    Config::default()
        .backend("v1", fleet.address("v1"), ALONE)
        .backend("v2", fleet.address("v2"), &format!("{ALONE}, time_limit: {time_limit}"))
        .open_route(
            "api",
            "v1",
            "mirror: { to: v2, percent: 100, methods: [GET, POST], limit: 1 }",
        )
        .to_string()
}

#[tokio::test]
async fn a_copy_that_is_not_answered_in_time_is_given_up() {
    let (fleet, [_, v2]) = backends(["v1", "v2"]).await;
    let gateway = Gateway::start(limited(&fleet, "100ms")).await;
    v2.behave(Behaviour::always(Fault::Hang)).await;
    gateway.get("/api/echo").send().await.expect(200);
    outcomes(&gateway, "timed_out", 1).await;
    v2.heal().await;
    // On a busy machine, an answer may take longer than that.
    gateway.reload(limited(&fleet, "20s")).await;
    gateway.get("/api/echo").send().await.expect(200);
    outcomes(&gateway, "answered", 1).await;
}

#[tokio::test]
async fn a_dead_mirror_is_soon_left_alone_and_calls_know_nothing_of_it() {
    let guards = ", breaker: { min_calls: 5, open_for: 60s }";
    let (_fleet, [_, v2], gateway) = start("percent: 100, limit: 1", guards).await;
    v2.behave(Behaviour::refusing()).await;
    for copies in 1..=5 {
        gateway.get("/api/echo").send().await.expect(200);
        outcomes(&gateway, "unreached", copies).await;
    }
    for _ in 0..10 {
        gateway.get("/api/echo").send().await.expect(200);
    }
    outcomes(&gateway, "breaker_open", 10).await;
    let shown = gateway.admin_json("/api/v1/routes?q=api").await;
    let mirrored = &shown["routes"][0]["mirrored"];
    assert_eq!(
        mirrored,
        &json!({
            "in_flight": 0, "breaker": "open", "requests": { "unreached": 5, "breaker_open": 10 }, "comparisons": null,
        })
    );
    // The backend's own breaker, which calls go by, has seen nothing.
    v2.heal().await;
    assert_eq!(gateway.metric("gateway_breaker_state", &[("backend", "v2")]).await, 0.0);
    gateway.get("/v2/echo").send().await.expect(200);

    // The other way round: calls that open the breaker stop no copies.
    let (_fleet, [_, v2], gateway) = start("percent: 100", guards).await;
    v2.behave(Behaviour::status(500)).await;
    for _ in 0..5 {
        gateway.get("/v2/echo").send().await.expect(500);
    }
    gateway.get("/v2/echo").send().await.refusal(503, "breaker_open");
    v2.heal().await;
    gateway.get("/api/echo").send().await.expect(200);
    outcomes(&gateway, "answered", 1).await;
}

#[tokio::test]
async fn copies_that_fail_eject_no_endpoint_and_are_not_sent_again() {
    let (fleet, [_, one, other]) = backends(["v1", "one", "other"]).await;
    let addresses = [one.address(), other.address()];
    let guards = "breaker: off, ejection: { consecutive: 1 }, retry: { on: [500], attempts: 3 }";
    let config = Config::default()
        .backend("v1", fleet.address("v1"), ALONE)
        .backend_of("v2", addresses, guards)
        .open_route("api", "v1", "mirror: { to: v2, percent: 100 }")
        .to_string();
    let gateway = Gateway::start(config).await;
    for endpoint in [&one, &other] {
        endpoint.behave(Behaviour::status(500)).await;
    }
    for copies in 1..=40 {
        gateway.get("/api/echo").send().await.expect(200);
        outcomes(&gateway, "failed_status", copies).await;
    }
    let counts = [&one, &other].map(|endpoint| endpoint.counts().requests);
    assert_eq!(counts.iter().sum::<u64>(), 40, "each once");
    assert!(counts.iter().all(|count| *count > 0), "both endpoints: {counts:?}");
    for (name, labels) in [
        ("gateway_endpoints_ejected", [("backend", "v2")]),
        ("gateway_retries_total", [("backend", "v2")]),
    ] {
        assert_eq!(gateway.metric(name, &labels).await, 0.0, "{name}");
    }
}

#[tokio::test]
async fn a_body_is_copied_whole_or_not_at_all() {
    let (fleet, [v1, v2], gateway) = start("percent: 100, methods: [POST], body: 1KiB", "").await;
    let post = async |length: usize| {
        let answer = gateway.post("/api/echo").body(vec![b'x'; length]).send().await;
        answer.expect(200);
    };
    post(1_024).await;
    outcomes(&gateway, "answered", 1).await;
    post(1_025).await;
    outcomes(&gateway, "body_too_large", 1).await;
    post(200_000).await;
    outcomes(&gateway, "body_too_large", 2).await;
    // Of a chunked body it is known only once too much has come.
    let (upload, pieces) = Upload::pieces(10);
    for _ in 0..5 {
        upload
            .send(vec![b'x'; 400].into())
            .await
            .expect("the upload takes ten pieces");
    }
    drop(upload);
    gateway.post("/api/echo").upload(pieces).send().await.expect(200);
    outcomes(&gateway, "body_too_large", 3).await;

    // The caller leaves within the body.
    let mut leaving = gateway.connect().await;
    leaving
        .send("POST /api/echo HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n12345")
        .await;
    counted(&gateway, "gateway_mirrored_requests_in_flight", &[("route", "api")], 1).await;
    drop(leaving);
    outcomes(&gateway, "body_cut", 1).await;
    assert_eq!(v2.counts().requests, 1);
    v1.wait_for(|counts| counts.requests == 5, SOON)
        .await
        .expect("all five");
    counted(&gateway, "gateway_mirrored_body_bytes", &[], 0).await;

    gateway
        .reload(config(&fleet, "percent: 100, methods: [GET, POST], body: none", ""))
        .await;
    post(1).await;
    outcomes(&gateway, "body_too_large", 4).await;
    gateway.get("/api/echo").send().await.expect(200);
    outcomes(&gateway, "answered", 2).await;
}

#[tokio::test]
async fn a_caller_that_sends_slowly_holds_a_copy_no_longer_than_the_mirrors_time_limit() {
    let (fleet, [_, v2]) = backends(["v1", "v2"]).await;
    let gateway = Gateway::start(limited(&fleet, "200ms")).await;
    let mut slow = gateway.connect().await;
    slow.send("POST /api/echo HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n12345")
        .await;
    outcomes(&gateway, "body_cut", 1).await;
    counted(&gateway, "gateway_mirrored_body_bytes", &[], 0).await;
    // Its place is free again, although the request is still being sent.
    gateway.reload(limited(&fleet, "20s")).await;
    gateway.post("/api/echo").body("x").send().await.expect(200);
    outcomes(&gateway, "answered", 1).await;
    slow.send("67890").await;
    assert!(slow.head().await.starts_with("HTTP/1.1 200"));
    assert_eq!(v2.counts().requests, 1);
}

#[tokio::test]
async fn what_is_refused_is_not_mirrored() {
    let (fleet, [v1, v2]) = backends(["v1", "v2"]).await;
    let config = Config::with(TOP)
        .backend(
            "v1",
            fleet.address("v1"),
            "retry: off, breaker: { consecutive: 1, open_for: 60s }",
        )
        .backend("v2", fleet.address("v2"), ALONE)
        .mapped(
            "api",
            "v1",
            "mirror: { to: v2, percent: 100 }, fallback: [{ backend: v2 }]",
        )
        .to_string();
    let gateway = setup(config).start().await;
    let get = || gateway.get("/api/echo");
    get().send().await.refusal(401, "credentials_missing");
    get().key("key-few").send().await.expect(200);
    outcomes(&gateway, "answered", 1).await;
    get().key("key-few").send().await.refusal(429, "rate_limited");
    v1.behave(Behaviour::status(500)).await;
    // It is sent, so it is copied; then the breaker is open, and the fallback's answer comes from the mirror's backend.
    get().key("key-acme").send().await.expect(200);
    outcomes(&gateway, "answered", 2).await;
    get().key("key-acme").send().await.expect(200);
    let copies = |requests: Vec<Recorded>| {
        let is_copy = |request: &&Recorded| request.header("x-gateway-mirror").is_some();
        requests.iter().filter(is_copy).count()
    };
    assert_eq!((v1.counts().requests, v2.counts().requests), (2, 4));
    assert_eq!(copies(v2.requests()), 2);
}

#[tokio::test]
async fn streams_and_tunnels_are_not_mirrored() {
    let (fleet, [_, v2]) = backends(["v1", "v2"]).await;
    let config = Config::default()
        .backend("v1", fleet.address("v1"), ALONE)
        .backend("v2", fleet.address("v2"), ALONE)
        .open_route(
            "api",
            "v1",
            "upgrade: websocket, mirror: { to: v2, percent: 100, methods: [GET, POST] }",
        )
        .to_string();
    let gateway = Gateway::start(config).await;
    let handshake = "GET /api/echo HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                     sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    gateway.raw(handshake).await;
    let accept = |value| gateway.get("/api/echo").header("accept", value);
    accept("text/event-stream").send().await.expect(200);
    accept("application/json, text/event-stream").send().await.expect(200);
    gateway
        .post("/api/echo")
        .header("content-type", "application/grpc")
        .send()
        .await
        .expect(200);
    accept("text/html, */*").send().await.expect(200);
    outcomes(&gateway, "answered", 1).await;
    let copied = v2.requests();
    assert_eq!(copied.len(), 1);
    assert_eq!(copied[0].header("accept"), Some("text/html, */*"));
}

#[tokio::test]
async fn differences_are_counted_and_the_first_ones_logged() {
    let (fleet, [_, v2], gateway) = start("percent: 100, compare: status", "").await;
    let get = async |target: &str| gateway.get(target).send().await;
    get("/api/echo").await.expect(200);
    compared(&gateway, "same", 1).await;
    v2.behave(Behaviour::status(503)).await;
    get("/api/echo").await.expect(200);
    compared(&gateway, "different", 1).await;
    // Without an answer of the mirror there is nothing to compare.
    v2.behave(Behaviour::always(Fault::Reset)).await;
    get("/api/echo").await.expect(200);
    outcomes(&gateway, "broken", 1).await;
    v2.heal().await;

    gateway.reload(config(&fleet, "percent: 100, compare: body", "")).await;
    get("/api/bytes/100000").await.expect(200);
    compared(&gateway, "same", 2).await;
    // An echo names its backend.
    get("/api/echo").await.expect(200);
    compared(&gateway, "different", 2).await;
    get("/api/bytes/1048576").await.expect(200);
    compared(&gateway, "same", 3).await;
    get("/api/bytes/1048577").await.expect(200);
    compared(&gateway, "not_compared", 1).await;
    gateway
        .client()
        .ask(Method::HEAD, "/api/bytes/10")
        .send()
        .await
        .expect(200);
    compared(&gateway, "same", 4).await;

    let shown = gateway.admin_json("/api/v1/routes?q=api").await;
    let route = &shown["routes"][0];
    assert_eq!(
        route["mirrored"]["comparisons"],
        json!({ "same": 4, "different": 2, "not_compared": 1 })
    );
    assert_eq!(
        route["mirror"],
        json!({
            "to": "v2", "percent": 100.0, "key": "none", "methods": ["GET", "HEAD", "OPTIONS"],
            "body_limit_bytes": 65536, "limit": 16, "compare": "body",
        })
    );
    let log = gateway.log();
    let lines: Vec<_> = log
        .lines()
        .filter(|line| line.contains("answered differently"))
        .collect();
    assert_eq!(lines.len(), 2, "{log}");
    for (line, differs) in lines.iter().zip(["status", "body"]) {
        for text in ["routes.api.mirror.compare", differs] {
            assert!(line.contains(text), "{text}: {line}");
        }
    }
}

#[tokio::test]
async fn a_key_is_mirrored_or_not_and_the_backend_of_a_split_gets_no_second_copy() {
    let fleet = Fleet::start(["v1", "v2", "v3"].map(Spec::new))
        .await
        .expect("ports are free");
    let config = |mirror: &str, split: &str| {
        let config = ["v1", "v2", "v3"].iter().fold(
            Config::default().top("client_address: { trusted_proxies: [127.0.0.0/8] }"),
            |config, name| config.backend(name, fleet.address(name), ALONE),
        );
        config
            .route(
                "api",
                &format!(
                    "{{ match: {{ path: /echo }}, access: {{ any_of: [anonymous] }}, split: {split}, mirror: {mirror} }}"
                ),
            )
            .to_string()
    };
    let by_address = |percent: u32| format!("{{ to: v3, percent: {percent}, key: client_address }}");
    let only = "[{ backend: v1, percent: 50, key: client_address }, { backend: v2 }]";
    let gateway = Gateway::start(config(&by_address(30), only)).await;
    let v3 = fleet.backend("v3");
    let mut sent = 0;
    // Returns the addresses whose requests are copied.
    let mut copied = async || {
        for number in 0..100 {
            let ask = gateway
                .get("/echo")
                .header("x-forwarded-for", &format!("192.0.2.{number}"));
            ask.send().await.expect(200);
        }
        // The last one is copied for sure, and comes last.
        let mark = gateway.get("/echo").header("x-forwarded-for", "198.51.100.1");
        mark.send().await.expect(200);
        let counted = || async {
            let labels = [("route", "api")];
            let all = gateway
                .metrics()
                .await
                .sum("gateway_mirrored_requests_total", &labels)?;
            let under_way = gateway.metric("gateway_mirrored_requests_in_flight", &labels).await;
            (under_way == 0.0).then_some(all)
        };
        let all = eventually(SOON, "all copies are counted", counted).await;
        assert!(all > f64::from(sent), "some are copied");
        sent = all as u32;
        let forwarded = |request: &Recorded| request.header("x-forwarded-for").map(str::to_owned);
        let all: BTreeSet<_> = v3.take_requests().iter().filter_map(forwarded).collect();
        all
    };
    let at_30 = copied().await;
    assert!((12..=50).contains(&at_30.len()), "{at_30:?}");
    assert_eq!(at_30, copied().await);
    gateway.reload(config(&by_address(60), only)).await;
    let at_60 = copied().await;
    assert!(at_60.is_superset(&at_30) && at_60.len() > at_30.len());
    gateway.reload(config("{ to: v3, percent: 50 }", only)).await;
    let by_chance = copied().await;
    assert!((25..=77).contains(&by_chance.len()), "{by_chance:?}");

    // The mirror's backend gets some of the requests itself. No request comes twice.
    v3.take_requests();
    let with_v3 = "[{ backend: v3, percent: 50, key: client_address }, { backend: v1 }]";
    gateway.reload(config("{ to: v3, percent: 100 }", with_v3)).await;
    let both = copied().await;
    assert!(both.len() >= 100, "{}", both.len());
    let counts = ["v1", "v3"].map(|name| fleet.backend(name).counts().requests);
    assert_eq!(both.len(), 101, "each address once: {counts:?}");
}

#[tokio::test]
async fn a_reload_changes_the_mirror_and_keeps_what_is_under_way() {
    let (fleet, [_, v2], gateway) = start("percent: 100, limit: 2", ", time_limit: 60s").await;
    v2.close_gate();
    for _ in 0..2 {
        gateway.get("/api/echo").send().await.expect(200);
    }
    v2.wait_for(|counts| counts.at_gate == 2, SOON)
        .await
        .expect("two copies");
    let reload = async |mirror: &str| gateway.reload(config(&fleet, mirror, ", time_limit: 60s")).await;
    reload("percent: 100, limit: 3").await;
    for _ in 0..3 {
        gateway.get("/api/echo").send().await.expect(200);
    }
    outcomes(&gateway, "full", 2).await;
    v2.wait_for(|counts| counts.at_gate == 3, SOON).await.expect("one more");
    v2.open_gate();
    outcomes(&gateway, "answered", 3).await;
    reload("percent: 0").await;
    for _ in 0..10 {
        gateway.get("/api/echo").send().await.expect(200);
    }
    reload("percent: 100").await;
    gateway.get("/api/echo").send().await.expect(200);
    outcomes(&gateway, "answered", 4).await;
    assert_eq!(v2.counts().requests, 4);
}

#[tokio::test]
async fn copies_under_way_do_not_delay_a_drain() {
    let (_fleet, [_, v2], mut gateway) = start("percent: 100", ", time_limit: 60s").await;
    v2.close_gate();
    for _ in 0..5 {
        gateway.get("/api/echo").send().await.expect(200);
    }
    v2.wait_for(|counts| counts.at_gate == 5, SOON)
        .await
        .expect("five copies");
    gateway.signal(Signal::Term);
    // Waits for less than the copies would.
    assert_eq!(gateway.wait_exit().await, Some(0));
    v2.wait_for(|counts| counts.cancelled == 5, SOON)
        .await
        .expect("they are dropped");
}

#[tokio::test]
async fn check_prints_the_mirror() {
    let (fleet, _) = backends(["v1", "v2"]).await;
    let mirror = "percent: 0.5, key: tenant, methods: [GET, POST], compare: status";
    let said = cli(&["check", "gateway.yaml"], &setup(config(&fleet, mirror, "")));
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let line = "mirror                 0.5%  GET and POST to v2, by tenant";
    assert!(said.stdout.contains(line), "{}", said.stdout);
}
