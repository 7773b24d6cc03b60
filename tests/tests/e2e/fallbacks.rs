//! Checks fallbacks when a backend gives no good answer: the last good answer, another backend or a fixed value, in the
//! order written. The answer never looks like a fresh one.

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Behaviour, Fault, Fleet, Keep, Spec};
use serde_json::json;
use tests::configs::Config;
use tests::{Gateway, Setup};

async fn fleet() -> Fleet {
    Fleet::start(["first", "second", "third"].map(|name| Spec::new(name).keep(Keep::default())))
        .await
        .expect("ports are free")
}

/// `/x/...` goes to `first`; what its route says of fallbacks is `written`.
fn route(fleet: &Fleet, written: &str) -> Config {
    let config = Config::default().backend("first", fleet.address("first"), "retry: off");
    config.backend("second", fleet.address("second"), "retry: off").route(
        "x",
        &format!(
            "{{ match: {{ path: \"/{{*rest}}\", methods: [GET, HEAD, POST] }}, access: {{ any_of: [anonymous] }}, \
             backend: first, time_limit: 2s, fallback: {written} }}"
        ),
    )
}

fn answers(head: &str, body: &str) -> Behaviour {
    let length = body.len();
    Behaviour::raw(format!(
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n{head}\r\n{body}"
    ))
}

#[tokio::test]
async fn the_last_good_answer_then_a_value() {
    let fleet = fleet().await;
    let gateway = Gateway::start(route(&fleet, "[{ stale: 1h }, { value: { items: [] } }]").to_string()).await;
    let first = fleet.backend("first");
    first
        .behave(answers(
            "content-type: text/plain\r\netag: \"7\"\r\nset-cookie: s=1\r\n",
            "good",
        ))
        .await;
    let good = gateway.get("/x/1").send().await.expect(200);
    assert_eq!(
        (good.header("x-gateway-fallback"), good.text().as_str()),
        (None, "good")
    );

    first.behave(Behaviour::refusing()).await;
    let stale = gateway.get("/x/1").send().await.expect(200);
    assert_eq!(
        (stale.header("x-gateway-fallback"), stale.text().as_str()),
        (Some("stale"), "good")
    );
    assert_eq!(
        (stale.header("content-type"), stale.header("etag")),
        (Some("text/plain"), Some("\"7\""))
    );
    assert_eq!(
        (stale.header("set-cookie"), stale.header("cache-control")),
        (None, Some("no-store"))
    );
    assert!(stale.header("age").is_some());
    assert_eq!(
        stale.header("proxy-status"),
        Some("gateway;error=destination_unavailable;details=\"backend_unreached; served stale\"")
    );

    let value = gateway.get("/x/2").send().await.expect(200);
    assert_eq!(
        (value.header("x-gateway-fallback"), value.json()),
        (Some("value"), json!({ "items": [] }))
    );
    assert_eq!(value.header("content-type"), Some("application/json"));
    let counted = async |kind| {
        gateway
            .metric("gateway_fallbacks_total", &[("route", "x"), ("kind", kind)])
            .await
    };
    assert_eq!((counted("stale").await, counted("value").await), (1.0, 1.0));

    first.behave(Behaviour::default()).await;
    let well = gateway.get("/x/1").send().await;
    assert_eq!(well.header("x-gateway-fallback"), None);
}

#[tokio::test]
async fn a_refusal_is_an_answer() {
    let fleet = fleet().await;
    let gateway = Gateway::start(route(&fleet, "[{ stale: 1h }, { value: 1 }]").to_string()).await;
    let first = fleet.backend("first");
    gateway.get("/echo").send().await.expect(200);
    for status in [404, 410, 403] {
        first.behave(Behaviour::status(status)).await;
        let answer = gateway.get("/echo").send().await.expect(status);
        assert_eq!(answer.header("x-gateway-fallback"), None);
    }
    for outage in [
        Behaviour::status(500),
        Behaviour::status(503),
        Behaviour::always(Fault::Reset),
        Behaviour::always(Fault::Garbage),
    ] {
        first.behave(outage.clone()).await;
        let answer = gateway.get("/echo").send().await.expect(200);
        assert_eq!(answer.header("x-gateway-fallback"), Some("stale"), "{outage:?}");
    }
}

#[tokio::test]
async fn what_one_attempt_has_sent_goes_to_no_other_backend_though_the_last_reached_nobody() {
    let fleet = fleet().await;
    let retry = "breaker: off, ejection: off, retry: { attempts: 2, backoff: 1ms..2ms, with_idempotency_key: true }";
    let (first, second) = (fleet.backend("first"), fleet.backend("second"));
    let routes = "{ match: { path: \"/one\", methods: [POST] }, access: { any_of: [anonymous] }, backend: first, \
                  fallback: { backend: second } }";
    let several = "{ match: { path: \"/all\", methods: [POST] }, access: { any_of: [anonymous] }, aggregate: { parts: { \
                   one: { backend: first, path: /one, method: POST, headers: { idempotency-key: k }, \
                   fallback: { backend: second } } } } }";
    let config = Config::default()
        .backend_of("first", [first.address(), ([127, 0, 0, 1], 1).into()], retry)
        .backend("second", second.address(), "retry: off")
        .route("one", routes)
        .route("all", several);
    let gateway = Gateway::start(config.to_string()).await;
    first.behave(Behaviour::status(503)).await;
    for path in ["/one", "/all"] {
        // Repeats as often as the retry budget allows.
        for _ in 0..8 {
            gateway.post(path).header("idempotency-key", "k").send().await;
        }
        assert!(!first.take_requests().is_empty());
        assert_eq!(second.take_requests().len(), 0, "{path}");
    }
}

#[tokio::test]
async fn nobody_is_shown_what_was_said_to_another() {
    let fleet = fleet().await;
    let keys = key_file(&[
        KeyLine::new("ann", "ann", "ann-key"),
        KeyLine::new("bob", "bob", "bob-key"),
    ]);
    let config = route(&fleet, "{ stale: 1h }").to_string();
    let config = config
        .replace("callers: {", "callers: { api_keys: { file: keys.yaml },")
        .replace("any_of: [anonymous]", "any_of: [api_key]");
    let gateway = Setup::new(config).file("keys.yaml", keys).start().await;
    let first = fleet.backend("first");
    let ask = async |who: &str, cookie: &str| gateway.get("/echo").key(who).header("cookie", cookie).send().await;
    first.behave(answers("", "for ann alone")).await;
    ask("ann-key", "s=1").await.expect(200);
    first.behave(Behaviour::refusing()).await;
    assert_eq!(ask("ann-key", "s=1").await.expect(200).text(), "for ann alone");
    ask("bob-key", "s=1").await.refusal(502, "backend_unreached");
    ask("ann-key", "s=2").await.refusal(502, "backend_unreached");
}

#[tokio::test]
async fn what_nobody_may_keep_or_came_in_pieces_is_not_kept() {
    let fleet = fleet().await;
    let gateway = Gateway::start(route(&fleet, "{ stale: 1h }").to_string()).await;
    let first = fleet.backend("first");
    let fails = async |target: &str| {
        first.behave(Behaviour::refusing()).await;
        // Unreached, or broken if a kept connection was closed a moment too late to be noticed.
        assert_eq!(gateway.get(target).send().await.status, 502);
        first.behave(Behaviour::default()).await;
    };
    first
        .behave(answers("cache-control: private, no-store\r\n", "secret"))
        .await;
    gateway.get("/secret").send().await.expect(200);
    fails("/secret").await;
    gateway.get("/bytes/1048577").send().await.expect(200);
    fails("/bytes/1048577").await;
    first.behave(Behaviour::always(Fault::CutOff { chunked: true })).await;
    assert!(gateway.get("/echo").try_send().await.is_err(), "it breaks off");
    fails("/echo").await;
    gateway.get("/stream/3").send().await.expect(200);
    first.behave(Behaviour::refusing()).await;
    let stale = gateway.get("/stream/3").send().await.expect(200);
    assert_eq!(
        stale.text(),
        "chunk 1\nchunk 2\nchunk 3\n",
        "chunks that came whole are"
    );
}

#[tokio::test]
async fn what_the_backend_chose_by_decides_for_whom_it_is_kept() {
    let fleet = fleet().await;
    let gateway = Gateway::start(route(&fleet, "{ stale: 1h }").to_string()).await;
    let first = fleet.backend("first");
    let ask = async |name: &'static str, value: &'static str| gateway.get("/echo").header(name, value).send().await;

    first.behave(answers("content-encoding: gzip\r\n", "zipped")).await;
    ask("accept-encoding", "gzip").await.expect(200);
    first.behave(answers("vary: user-agent\r\n", "for phones")).await;
    ask("user-agent", "phone").await.expect(200);
    first.behave(answers("", "not to be stored")).await;
    ask("cache-control", "no-store").await.expect(200);

    first.behave(Behaviour::refusing()).await;
    assert_eq!(ask("accept-encoding", "gzip").await.expect(200).text(), "zipped");
    ask("accept-encoding", "identity")
        .await
        .refusal(502, "backend_unreached");
    ask("user-agent", "desk").await.refusal(502, "backend_unreached");
    ask("cache-control", "no-store").await.refusal(502, "backend_unreached");
}

#[tokio::test]
async fn another_backend_answers_in_its_place() {
    let fleet = fleet().await;
    let gateway = Gateway::start(route(&fleet, "[{ backend: second }, { value: 1 }]").to_string()).await;
    let (first, second) = (fleet.backend("first"), fleet.backend("second"));
    first.behave(Behaviour::status(503)).await;
    let answer = gateway.get("/echo").send().await.expect(200);
    assert_eq!(
        (answer.header("x-gateway-fallback"), answer.header("x-backend")),
        (Some("backend"), Some("second"))
    );
    assert_eq!(
        answer.header("proxy-status"),
        Some("gateway;received-status=503;details=\"backend_status; served backend\"")
    );

    // A request that a backend may have executed is not sent to another one.
    first.behave(Behaviour::always(Fault::Reset)).await;
    let answer = gateway.post("/echo").body("1").send().await.expect(200);
    assert_eq!(answer.header("x-gateway-fallback"), Some("value"));
    assert_eq!(second.counts().requests, 1);
    first.behave(Behaviour::refusing()).await;
    let answer = gateway.post("/echo").body("1").send().await.expect(200);
    assert_eq!(
        answer.header("x-gateway-fallback"),
        Some("backend"),
        "nothing was sent to the first"
    );
}

/// `/all` of three parts; `first` is what the part of the first backend says beside its call.
fn aggregate(fleet: &Fleet, whole: &str, first: &str) -> Config {
    ["first", "second", "third"]
        .into_iter()
        .fold(Config::default(), |config, name| config.backend(name, fleet.address(name), "retry: off"))
        .route(
            "all",
            &format!(
                "{{ match: {{ path: /all }}, access: {{ any_of: [anonymous] }}, time_limit: 2s, aggregate: {{ {whole}, \
                 partial: allow, errors: true, parts: {{ \
                 one: {{ backend: first, path: /status/200{first} }}, two: {{ backend: second, path: /status/201 }} }} }} }}"
            ),
        )
}

#[tokio::test]
async fn a_parts_fallbacks_go_in_order() {
    let fleet = fleet().await;
    let written = ", required: true, fallback: [{ stale: 1h }, { backend: third }]";
    let gateway = Gateway::start(aggregate(&fleet, "conflict: last", written).to_string()).await;
    let first = fleet.backend("first");
    let ask = async || gateway.get("/all").send().await;

    first.behave(Behaviour::status(503)).await;
    let other = ask().await.expect(200);
    assert_eq!(other.json()["one"]["backend"], "third");
    assert_eq!(
        other.header("x-gateway-complete"),
        Some("true"),
        "another backend's word is as good"
    );
    assert_eq!(other.json()["_errors"][0]["served"], "backend");

    first.behave(Behaviour::default()).await;
    ask().await.expect(200);
    first.behave(Behaviour::always(Fault::InvalidJson)).await;
    let stale = ask().await.expect(200);
    assert_eq!(stale.json()["one"]["backend"], "first");
    assert_eq!(
        stale.json()["_errors"][0],
        json!({ "part": "one", "reason": "invalid_json", "status": 502, "served": "stale" })
    );
    assert_eq!(
        (stale.header("x-gateway-complete"), stale.header("cache-control")),
        (Some("false"), Some("no-store"))
    );
    assert_eq!(
        gateway
            .metric("gateway_fallbacks_total", &[("route", "all"), ("kind", "stale")])
            .await,
        1.0
    );

    first.behave(Behaviour::status(404)).await;
    ask().await.refusal(404, "backend_status");
}

#[tokio::test]
async fn fields_and_status_of_parts_become_those_of_the_whole() {
    let fleet = fleet().await;
    let whole = "status: two, wrap: data, headers: { link: one, set-cookie: [two, one] }";
    let gateway = Gateway::start(aggregate(&fleet, whole, "").to_string()).await;
    let fields = "link: </7>\r\nset-cookie: a=1\r\ncache-control: max-age=60\r\nx-other: no\r\n";
    fleet.backend("first").behave(answers(fields, "{\"n\":1.0}")).await;
    let second = "HTTP/1.1 201 Created\r\nconnection: close\r\ncontent-length: 2\r\nset-cookie: b=2\r\ncache-control: private, max-age=9\r\n\r\n[]";
    fleet.backend("second").behave(Behaviour::raw(second)).await;
    let answer = gateway.get("/all").send().await.expect(201);
    assert_eq!(answer.text(), "{\"data\":{\"one\":{\"n\":1.0},\"two\":[]}}");
    assert_eq!((answer.header("link"), answer.header("x-other")), (Some("</7>"), None));
    assert_eq!(answer.header("cache-control"), Some("private, max-age=9"));
    let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["b=2", "a=1"], "in the order written");
    assert_eq!(answer.header("content-type"), Some("application/json"));

    fleet.backend("second").behave(Behaviour::status(500)).await;
    let answer = gateway.get("/all").send().await.expect(200);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.json()["data"], json!({ "one": { "n": 1.0 } }));
    assert_eq!(answer.json()["_errors"][0]["part"], "two");
}

#[tokio::test]
async fn another_backends_refusal_is_an_answer_and_only_a_value_stands_in_for_it() {
    let fleet = fleet().await;
    let (first, third) = (fleet.backend("first"), fleet.backend("third"));
    for (written, expected) in [
        ("[{ backend: third }, { stale: 1h }]", None),
        ("[{ backend: third }, { stale: 1h }, { value: [] }]", Some(json!([]))),
    ] {
        first.behave(Behaviour::default()).await;
        let written = format!(", fallback: {written}");
        let gateway = Gateway::start(aggregate(&fleet, "conflict: last", &written).to_string()).await;
        let ask = async || gateway.get("/all").send().await.expect(200);
        assert_eq!(ask().await.header("x-gateway-complete"), Some("true"));
        first.behave(Behaviour::status(503)).await;
        for (answer, status) in [(Behaviour::status(404), 404), (Behaviour::status(410), 410)] {
            third.behave(answer).await;
            let answer = ask().await;
            let document = answer.json();
            assert_eq!(
                document["_errors"][0]["backend_status"], status,
                "what is gone is not shown"
            );
            assert_eq!(document.get("one"), expected.as_ref());
            assert_eq!(answer.header("x-gateway-complete"), Some("false"));
        }
        third
            .behave(Behaviour::raw("HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"))
            .await;
        let answer = ask().await;
        assert_eq!(
            (answer.json().get("one"), answer.header("x-gateway-complete")),
            (None, Some("true"))
        );
        third.behave(Behaviour::default()).await;
    }
}

#[tokio::test]
async fn a_part_without_a_body_is_heard_whether_it_could_fall_back_or_not() {
    let fleet = fleet().await;
    let created = "HTTP/1.1 201 Created\r\nconnection: close\r\ncontent-length: 0\r\n\
                   cache-control: no-store\r\nlocation: /7\r\n\r\n";
    for (fallback, status, expected) in [
        ("", "201 Created", 201),
        (", fallback: { value: 1 }", "201 Created", 201),
        (", fallback: { stale: 1h }", "201 Created", 201),
        ("", "206 Partial Content", 200),
    ] {
        let whole = "status: one, headers: { location: one }";
        let gateway = Gateway::start(aggregate(&fleet, whole, fallback).to_string()).await;
        let answer = Behaviour::raw(created.replace("201 Created", status));
        fleet.backend("first").behave(answer).await;
        let answer = gateway.get("/all").send().await.expect(expected);
        assert_eq!(answer.header("location"), Some("/7"), "{fallback} {status}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{fallback} {status}");
    }
}

#[tokio::test]
async fn a_cache_is_told_of_all_that_parts_vary_with() {
    let fleet = fleet().await;
    let gateway = Gateway::start(aggregate(&fleet, "conflict: last", "").to_string()).await;
    let first = "cache-control: max-age=60\r\nvary: accept-language, Accept-Encoding\r\n";
    fleet.backend("first").behave(answers(first, "1")).await;
    let second = "cache-control: max-age=60\r\nvary: Cookie\r\nvary: Accept-Language\r\n";
    fleet.backend("second").behave(answers(second, "2")).await;
    let answer = gateway.get("/all").send().await.expect(200);
    assert_eq!(answer.header("cache-control"), Some("max-age=60"));
    assert_eq!(answer.header("vary"), Some("accept-language, cookie"));
}

#[tokio::test]
async fn parts_that_are_too_much_together_fail_in_declared_order() {
    let fleet = fleet().await;
    let gateway = Gateway::start(aggregate(&fleet, "body_limit: 1KiB", "").to_string()).await;
    let long = format!("\"{}\"", "x".repeat(700));
    for (first, second, failed) in [
        ("1", long.as_str(), None),
        (&long, &long, Some("two")),
        ("1", "2", None),
    ] {
        fleet.backend("first").behave(answers("", first)).await;
        fleet.backend("second").behave(answers("", second)).await;
        let document = gateway.get("/all").send().await.expect(200).json();
        assert_eq!(document["_errors"][0]["part"].as_str(), failed);
        assert_eq!(document["_errors"][0]["reason"].as_str(), failed.map(|_| "too_large"));
        assert_eq!(document.get("two").is_none(), failed.is_some());
    }
}

#[tokio::test]
async fn one_tenant_pushes_out_no_others_last_good_answer() {
    let fleet = fleet().await;
    let keys =
        key_file(&["ann", "bob"].map(|name| KeyLine::new(name, name, &format!("{name}-key")).tier("enterprise")));
    let config = route(&fleet, "{ stale: 1h }").to_string();
    let config = config
        .replace("callers: {", "callers: { api_keys: { file: keys.yaml },")
        .replace("any_of: [anonymous]", "any_of: [api_key]");
    let gateway = Setup::new(config).file("keys.yaml", keys).start().await;
    let first = fleet.backend("first");
    first.behave(answers("", "hers")).await;
    gateway.get("/mine").key("ann-key").send().await.expect(200);
    // More than everything that is kept: 80 answers of nearly a mebibyte.
    first.behave(answers("", &"x".repeat(1_000_000))).await;
    for number in 0..80 {
        gateway
            .get(&format!("/{number}"))
            .key("bob-key")
            .send()
            .await
            .expect(200);
    }
    first.behave(Behaviour::refusing()).await;
    let kept = gateway.get("/mine").key("ann-key").send().await.expect(200);
    assert_eq!(
        (kept.header("x-gateway-fallback"), kept.text().as_str()),
        (Some("stale"), "hers")
    );
    let latest = gateway.get("/79").key("bob-key").send().await.expect(200);
    assert_eq!(latest.header("x-gateway-fallback"), Some("stale"));
    gateway.get("/0").key("bob-key").send().await.expect(502);
}
