//! Checks the response cache: who gets which stored answer, how often a backend is asked, and what ends the use of an
//! answer. Facts are judged by what the backend was asked, not by times.

use std::time::Duration;

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Behaviour, Fault, Fleet, Keep, Spec};
use http::Method;
use serde_json::json;
use tests::configs::Config;
use tests::crowd::at_once;
use tests::{Client, Gateway, Setup, eventually};

const TOKEN: &str = "correct-horse-battery-staple";

const TOP: &str = "
listeners: { public: { address: \"127.0.0.1:0\" } }
admin: { address: \"127.0.0.1:0\", token_file: admin.token }
tiers: { open: { rate: 1000000/s, burst: 1000000, in_flight: off } }
default_tier: open
callers: { api_keys: { file: keys.yaml }, anonymous: { by: client_address, tier: open } }
overload: off
";

async fn fleet() -> Fleet {
    Fleet::start(["first", "second"].map(|name| Spec::new(name).keep(Keep::default())))
        .await
        .expect("ports are free")
}

/// `/x/...` goes to `first` and is cached as `cache` says.
fn config(fleet: &Fleet, cache: &str) -> Config {
    let methods = "[GET, HEAD, POST, OPTIONS]";
    Config::with(TOP)
        .backend("first", fleet.address("first"), "retry: off, breaker: off, ejection: off")
        .backend("second", fleet.address("second"), "retry: off")
        .route(
            "x",
            &format!(
                "{{ match: {{ path: \"/x/{{*rest}}\", methods: {methods} }}, access: {{ any_of: [api_key, anonymous] }}, \
                 backend: first, cache: {cache} }}"
            ),
        )
}

/// Starts a gateway with two keys of `acme`, and one of `other`.
async fn start(config: Config) -> Gateway {
    let keys = [
        KeyLine::new("acme-1", "acme", "key-acme-1"),
        KeyLine::new("acme-2", "acme", "key-acme-2"),
        KeyLine::new("other-1", "other", "key-other-1"),
    ];
    Setup::new(config.to_string())
        .file("keys.yaml", key_file(&keys))
        .file("admin.token", TOKEN)
        .start()
        .await
}

fn answers(head: &str, body: &str) -> Behaviour {
    let length = body.len();
    Behaviour::raw(format!(
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n{head}\r\n{body}"
    ))
}

#[tokio::test]
async fn a_fresh_answer_is_used_again_and_says_so() {
    let fleet = fleet().await;
    let gateway = start(config(&fleet, "{}")).await;
    let first = fleet.backend("first");
    first
        .behave(answers(
            "cache-control: max-age=600\r\netag: \"7\"\r\ncontent-type: text/plain\r\n",
            "good",
        ))
        .await;
    let miss = gateway.get("/x/1").send().await.expect(200);
    assert_eq!(miss.header("cache-status"), Some("gateway; fwd=uri-miss; stored"));
    let hit = gateway.get("/x/1").send().await.expect(200);
    assert!(
        hit.header("cache-status")
            .is_some_and(|status| status.starts_with("gateway; hit; ttl="))
    );
    assert_eq!(
        (hit.text().as_str(), hit.header("content-type")),
        ("good", Some("text/plain"))
    );
    assert_eq!(hit.header("content-length"), Some("4"));
    assert!(hit.header("age").is_some() && hit.header("date").is_some());
    assert!(hit.header("ratelimit").is_some(), "a hit is a request");
    let head = gateway.client().ask(Method::HEAD, "/x/1").send().await.expect(200);
    assert_eq!((head.text().as_str(), head.header("content-length")), ("", Some("4")));

    let known = gateway
        .get("/x/1")
        .header("if-none-match", "W/\"7\"")
        .send()
        .await
        .expect(304);
    assert_eq!((known.text().as_str(), known.header("etag")), ("", Some("\"7\"")));
    assert_eq!(first.take_requests().len(), 1);

    // A part of the answer, a body and another method are the backend's business.
    let part = gateway.get("/x/1").header("range", "bytes=0-1").send().await;
    assert_eq!(part.header("cache-status"), Some("gateway; fwd=bypass"));
    let with_body = gateway.get("/x/1").body("b").send().await;
    assert_eq!(with_body.header("cache-status"), Some("gateway; fwd=bypass"));
    let options = gateway.client().ask(Method::OPTIONS, "/x/1").send().await;
    assert_eq!(options.header("cache-status"), Some("gateway; fwd=method"));
    assert_eq!(first.take_requests().len(), 3);

    let counted = async |result| {
        gateway
            .metric("gateway_cache_requests_total", &[("route", "x"), ("result", result)])
            .await
    };
    assert_eq!(
        (counted("hit").await, counted("miss").await, counted("bypass").await),
        (3.0, 1.0, 3.0)
    );
    let stored = &gateway.admin_json("/api/v1/status").await["stored_answers"];
    assert_eq!(stored["answers"], 1);
    assert!(stored["bytes"].as_u64().is_some_and(|bytes| bytes > 4));
    assert_eq!(
        gateway.admin_json("/api/v1/routes").await["routes"][0]["cached"]["hits"],
        3
    );
}

#[tokio::test]
async fn two_hundred_callers_ask_the_backend_once() {
    let fleet = fleet().await;
    let gateway = start(config(&fleet, "{ scope: tenant }")).await;
    let first = fleet.backend("first");
    first
        .behave(answers("cache-control: max-age=600\r\n", "dashboard"))
        .await;
    first.close_gate();
    let keys = ["key-acme-1", "key-acme-2"];
    let crowd = at_once(200, |number| gateway.get("/x/dashboard").key(keys[number % 2]));
    let open = async {
        first
            .wait_for(|counts| counts.requests >= 1, Duration::from_secs(30))
            .await
            .expect("one request comes");
        // The others have come when they are in flight.
        gateway.metric_becomes("gateway_requests_in_flight", &[], 200.0).await;
        first.open_gate();
    };
    let (tally, ()) = tokio::join!(crowd, open);
    tally.all(200);
    assert!(tally.answers().all(|answer| answer.text() == "dashboard"));
    assert_eq!(first.take_requests().len(), 1);
    let collapsed = gateway
        .metric(
            "gateway_cache_requests_total",
            &[("route", "x"), ("result", "collapsed")],
        )
        .await;
    assert_eq!(collapsed, 199.0);
    // Another tenant shares nothing.
    gateway.get("/x/dashboard").key("key-other-1").send().await.expect(200);
    assert_eq!(first.take_requests().len(), 1);
}

#[tokio::test]
async fn a_dashboard_of_several_parts_calls_each_backend_once() {
    let fleet = fleet().await;
    let dashboard = "{ match: { path: /dashboard }, access: { any_of: [anonymous] }, cache: { ttl: 10m }, \
                     aggregate: { parts: { one: { backend: first, path: /one }, two: { backend: second, path: /two } } } }";
    let gateway = start(config(&fleet, "{}").route("dashboard", dashboard)).await;
    let (first, second) = (fleet.backend("first"), fleet.backend("second"));
    for backend in [&first, &second] {
        let head = "content-type: application/json\r\n";
        backend.behave(answers(head, "{\"a\":1}")).await;
    }
    first.close_gate();
    let crowd = at_once(50, |_| gateway.get("/dashboard"));
    let open = async {
        gateway.metric_becomes("gateway_requests_in_flight", &[], 50.0).await;
        first.open_gate();
    };
    let (tally, ()) = tokio::join!(crowd, open);
    tally.all(200);
    let hit = gateway.get("/dashboard").send().await.expect(200);
    assert_eq!(hit.json(), json!({ "one": { "a": 1 }, "two": { "a": 1 } }));
    assert!(
        hit.header("cache-status")
            .is_some_and(|status| status.starts_with("gateway; hit"))
    );
    let tag = hit.header("etag").expect("a merged document has a tag").to_owned();
    gateway
        .get("/dashboard")
        .header("if-none-match", &tag)
        .send()
        .await
        .expect(304);
    assert_eq!((first.take_requests().len(), second.take_requests().len()), (1, 1));
}

#[tokio::test]
async fn nobody_gets_what_was_answered_to_another() {
    let fleet = fleet().await;
    let gateway = start(config(&fleet, "{}")).await;
    let first = fleet.backend("first");
    let ask = async |path: &str, key: &str, own: &str| {
        first.behave(answers(own, key)).await;
        let answer = gateway.get(path).key(key).send().await.expect(200);
        answer.text()
    };
    let plain = "cache-control: max-age=600\r\n";
    for key in ["key-acme-1", "key-acme-2", "key-other-1"] {
        assert_eq!(ask("/x/own", key, plain).await, key);
    }
    for key in ["key-acme-1", "key-acme-2", "key-other-1"] {
        assert_eq!(ask("/x/own", key, "cache-control: no-store\r\n").await, key);
    }
    assert_eq!(first.take_requests().len(), 3, "each asked once");
    let public = "cache-control: max-age=600, public\r\n";
    assert_eq!(ask("/x/public", "key-acme-1", public).await, "key-acme-1");
    assert_eq!(ask("/x/public", "key-other-1", public).await, "key-acme-1");
    // What sets a cookie is for one client.
    let cookie = "cache-control: max-age=600, public\r\nset-cookie: s=1\r\n";
    assert_eq!(ask("/x/cookie", "key-acme-1", cookie).await, "key-acme-1");
    assert_eq!(ask("/x/cookie", "key-other-1", cookie).await, "key-other-1");
    // Callers at one address are told apart by what the backend sees of them.
    let session = async |cookie: &str| {
        first.behave(answers(plain, cookie)).await;
        gateway
            .get("/x/session")
            .header("cookie", cookie)
            .send()
            .await
            .expect(200)
            .text()
    };
    assert_eq!(
        (session("s=1").await, session("s=2").await, session("s=1").await),
        ("s=1".into(), "s=2".into(), "s=1".into())
    );
    // Each tenant shares with itself where the route says so.
    let shared = start(config(&fleet, "{ scope: tenant }")).await;
    let ask = async |key: &str, own: &str| {
        first.behave(answers(own, key)).await;
        shared.get("/x/own").key(key).send().await.expect(200).text()
    };
    assert_eq!(ask("key-acme-1", plain).await, "key-acme-1");
    assert_eq!(ask("key-acme-2", plain).await, "key-acme-1");
    assert_eq!(ask("key-other-1", plain).await, "key-other-1");
}

#[tokio::test]
async fn a_stale_answer_is_confirmed_by_the_backend() {
    let fleet = fleet().await;
    let gateway = start(config(&fleet, "{}")).await;
    let first = fleet.backend("first");
    first
        .behave(answers(
            "cache-control: no-cache\r\netag: \"7\"\r\nx-one: 1\r\n",
            "good",
        ))
        .await;
    gateway.get("/x/1").send().await.expect(200);
    first
        .behave(Behaviour::raw(
            "HTTP/1.1 304 Not Modified\r\nconnection: close\r\netag: \"7\"\r\nx-one: 2\r\ncache-control: max-age=600\r\n\r\n",
        ))
        .await;
    let confirmed = gateway.get("/x/1").send().await.expect(200);
    assert_eq!(
        (confirmed.text().as_str(), confirmed.header("x-one")),
        ("good", Some("2"))
    );
    assert_eq!(
        confirmed.header("cache-status"),
        Some("gateway; fwd=stale; fwd-status=304; stored")
    );
    let requests = first.take_requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[1].header("if-none-match"), Some("\"7\""));
    // The 304 has renewed it.
    let hit = gateway.get("/x/1").send().await.expect(200);
    assert_eq!((hit.text().as_str(), hit.header("x-one")), ("good", Some("2")));
    assert_eq!(first.take_requests().len(), 0);
}

#[tokio::test]
async fn a_failure_is_covered_where_the_answer_allows_it() {
    let fleet = fleet().await;
    let gateway = start(config(&fleet, "{ stale_if_error: 1h }")).await;
    let first = fleet.backend("first");
    first
        .behave(answers("cache-control: max-age=0\r\netag: \"7\"\r\n", "good"))
        .await;
    gateway.get("/x/1").send().await.expect(200);
    first
        .behave(answers(
            "cache-control: max-age=0, must-revalidate\r\netag: \"8\"\r\n",
            "strict",
        ))
        .await;
    gateway.get("/x/2").send().await.expect(200);
    for outage in [
        Behaviour::status(503),
        Behaviour::always(Fault::Reset),
        Behaviour::always(Fault::Garbage),
    ] {
        first.behave(outage.clone()).await;
        let stale = gateway.get("/x/1").send().await.expect(200);
        assert_eq!(stale.text(), "good", "{outage:?}");
        let status = stale.header("cache-status").unwrap_or_default().to_owned();
        assert!(
            status.starts_with("gateway; fwd=stale") && status.ends_with("detail=stale-if-error"),
            "{status}"
        );
        let strict = gateway.get("/x/2").send().await;
        assert!(strict.status >= 500, "{outage:?}");
    }
}

#[tokio::test]
async fn a_stale_answer_is_served_while_a_newer_one_is_fetched() {
    let fleet = fleet().await;
    let gateway = start(config(&fleet, "{}")).await;
    let first = fleet.backend("first");
    first
        .behave(answers(
            "cache-control: max-age=0, stale-while-revalidate=3600\r\n",
            "old",
        ))
        .await;
    gateway.get("/x/1").send().await.expect(200);
    first.take_requests();
    first.behave(answers("cache-control: max-age=600\r\n", "new")).await;
    first.close_gate();
    // The backend has not answered yet, so these cannot have waited for it.
    for _ in 0..3 {
        let stale = gateway.get("/x/1").send().await.expect(200);
        assert_eq!(stale.text(), "old");
    }
    first.open_gate();
    eventually(Duration::from_secs(30), "the newer answer is used", async || {
        (gateway.get("/x/1").send().await.text() == "new").then_some(())
    })
    .await;
    assert_eq!(first.take_requests().len(), 1, "it is fetched once");
}

#[tokio::test]
async fn a_change_and_a_purge_end_the_use_of_an_answer() {
    let fleet = fleet().await;
    let gateway = start(config(&fleet, "{}")).await;
    let admin = Client::to(gateway.admin_address());
    let first = fleet.backend("first");
    let public = "cache-control: max-age=600, public\r\n";
    let is_asked = async |path: &str| {
        first.behave(answers(public, "good")).await;
        first.take_requests();
        gateway.get(path).send().await.expect(200);
        first.take_requests().len() == 1
    };
    assert!(is_asked("/x/1").await && !is_asked("/x/1").await && is_asked("/x/2").await);
    first.behave(Behaviour::status(500)).await;
    gateway.post("/x/1").send().await.expect(500);
    assert!(!is_asked("/x/1").await, "a failed change changes nothing");
    first.behave(answers("location: /x/2\r\n", "")).await;
    gateway.post("/x/1").send().await.expect(200);
    assert!(is_asked("/x/1").await && is_asked("/x/2").await && !is_asked("/x/1").await);

    let purge = async |body: serde_json::Value| {
        let ask = admin.post("/api/v1/cache/purge").bearer(TOKEN);
        ask.body(body.to_string()).send().await
    };
    assert_eq!(
        purge(json!({ "uri": "/x/1" })).await.expect(200).json(),
        json!({ "purged": 1 })
    );
    assert!(is_asked("/x/1").await && !is_asked("/x/2").await);
    assert_eq!(
        purge(json!({ "route": "x" })).await.expect(200).json(),
        json!({ "purged": 2 })
    );
    assert!(is_asked("/x/1").await && is_asked("/x/2").await);
    assert_eq!(
        purge(json!({ "all": true })).await.expect(200).json(),
        json!({ "purged": 2 })
    );
    purge(json!({ "route": "y" })).await.expect(404);
    for wrong in [
        json!({}),
        json!({ "uri": "x" }),
        json!({ "uri": "/x", "all": true }),
        json!({ "all": false }),
    ] {
        purge(wrong).await.expect(400);
    }
    let without = admin.post("/api/v1/cache/purge").body("{}").send().await;
    assert_eq!(without.status, 401);
}

#[tokio::test]
async fn callers_can_ask_for_the_newest_only_where_the_route_lets_them() {
    let fleet = fleet().await;
    let first = fleet.backend("first");
    for (cache, asked) in [("{}", 2), ("{ caller_directives: ignore }", 1)] {
        let gateway = start(config(&fleet, cache)).await;
        first.behave(answers("cache-control: max-age=600\r\n", "good")).await;
        first.take_requests();
        gateway.get("/x/1").send().await.expect(200);
        gateway
            .get("/x/1")
            .header("cache-control", "no-cache")
            .send()
            .await
            .expect(200);
        assert_eq!(first.take_requests().len(), asked, "{cache}");
    }
    let gateway = start(config(&fleet, "{}")).await;
    let only = gateway
        .get("/x/1")
        .header("cache-control", "only-if-cached")
        .send()
        .await;
    assert_eq!((only.status, first.take_requests().len()), (504, 0));
}

#[tokio::test]
async fn a_slow_caller_holds_up_nobody_who_waits_with_it() {
    let fleet = fleet().await;
    let gateway = start(config(&fleet, "{}")).await;
    let first = fleet.backend("first");
    first
        .behave(answers("cache-control: max-age=600\r\n", &"x".repeat(500_000)))
        .await;
    first.close_gate();
    // It asks first, and reads nothing of its answer.
    let mut slow = gateway.connect().await;
    let host = gateway.address();
    slow.send(format!("GET /x/1 HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
    first
        .wait_for(|counts| counts.requests >= 1, Duration::from_secs(30))
        .await
        .expect("its request comes");
    let other = gateway.get("/x/1").send();
    let open = async {
        gateway.metric_becomes("gateway_requests_in_flight", &[], 2.0).await;
        first.open_gate();
    };
    let (other, ()) = tokio::join!(other, open);
    assert_eq!(other.expect(200).body.len(), 500_000);
    assert_eq!(first.take_requests().len(), 1);
}
