//! Checks that a request with an `Idempotency-Key` is done once: by what the backend was asked, over restarts, replicas
//! and a store that fails.

use bytes::Bytes;
use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Behaviour, Fault, Fleet, Handle, Keep, Spec};
use fixtures::redis_server::{Options, RedisServer};
use http::Method;
use serde_json::{Value, json};
use tests::configs::Config;
use tests::http2_caller::Http2;
use tests::{Answer, Client, Gateway, Raw, Setup, Signal, Upload, eventually};

use crate::SOON;

const TOKEN: &str = "correct-horse-battery-staple";
const UUID: &str = "8e03978e-40d5-43e8-bc93-6894a57f9324";

const TOP: &str = "
listeners: { public: { address: \"127.0.0.1:0\" } }
admin: { address: \"127.0.0.1:0\", token_file: admin.token }
tiers: { open: { rate: 1000000/s, burst: 1000000, in_flight: off } }
default_tier: open
callers: { api_keys: { file: keys.yaml }, anonymous: { by: client_address, tier: open } }
overload: off
workers: 1
";

struct Shop {
    _fleet: Option<Fleet>,
    backend: Handle,
    config: Config,
}

/// A backend, and the route `/checkout` to it with this idempotency.
async fn shop(idempotency: &str) -> Shop {
    shop_with(idempotency, "retry: off, breaker: off, ejection: off", "").await
}

async fn shop_with(idempotency: &str, of_backend: &str, of_route: &str) -> Shop {
    let fleet = Fleet::start([Spec::new("shop").keep(Keep::default())])
        .await
        .expect("a port is free");
    let config = Config::with(TOP)
        .backend("shop", fleet.address("shop"), of_backend)
        .route(
            "checkout",
            &format!(
                "{{ match: {{ path: \"/checkout/{{*rest}}\" }}, access: {{ any_of: [api_key, anonymous] }}, backend: shop, \
                 idempotency: {idempotency}{of_route} }}"
            ),
        );
    Shop {
        backend: fleet.backend("shop"),
        _fleet: Some(fleet),
        config,
    }
}

fn setup(config: &Config) -> Setup {
    let keys = [
        KeyLine::new("acme-1", "acme", "key-acme-1"),
        KeyLine::new("acme-2", "acme", "key-acme-2"),
        KeyLine::new("other-1", "other", "key-other-1"),
    ];
    Setup::new(config.to_string())
        .file("keys.yaml", key_file(&keys))
        .file("admin.token", TOKEN)
}

impl Shop {
    async fn start(&self) -> Gateway {
        setup(&self.config).start().await
    }

    /// Makes the next requests be answered with these bodies, one each.
    fn answers(&self, bodies: &[&str]) {
        self.backend.next(bodies.iter().map(|body| charged(body)));
    }

    fn asked(&self) -> u64 {
        self.backend.counts().requests
    }
}

fn charged(body: &str) -> Behaviour {
    let length = body.len();
    Behaviour::raw(format!(
        "HTTP/1.1 201 Created\r\nconnection: close\r\ncontent-type: application/json\r\nx-charge: {body}\r\n\
         set-cookie: session=1\r\ncontent-length: {length}\r\n\r\n{body}"
    ))
}

/// Sends the usual checkout of `acme-1`.
async fn checkout(client: &Client, key: &str) -> Answer {
    send(client, "key-acme-1", key, "{\"cart\":7}").await
}

async fn send(client: &Client, credential: &str, key: &str, body: &'static str) -> Answer {
    let ask = client.post("/checkout/1").key(credential);
    let ask = ask.header("content-type", "application/json");
    ask.header("idempotency-key", key).body(body).send().await
}

/// Checks that an answer is that of an earlier request, whole.
#[track_caller]
fn is_replay(answer: &Answer, body: &str) {
    assert_eq!(
        (
            answer.status,
            answer.text().as_str(),
            answer.header("idempotent-replayed")
        ),
        (201, body, Some("true")),
        "{answer:#?}"
    );
    assert_eq!(answer.header("x-charge"), Some(body));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("content-length"), Some(&*body.len().to_string()));
}

async fn at_gate(backend: &Handle, count: u64) {
    let waits = backend.wait_for(|counts| counts.at_gate == count, SOON).await;
    waits.expect("the request has come");
}

async fn admin(gateway: &Gateway, path: &str, body: Value) -> Answer {
    let ask = Client::to(gateway.admin_address()).post(path).bearer(TOKEN);
    ask.body(body.to_string()).send().await
}

fn of_acme(key: &str) -> Value {
    json!({ "route": "checkout", "tenant": "acme", "caller": "api_key:acme-1", "key": key })
}

#[tokio::test]
async fn two_requests_at_once_make_one_charge_and_then_get_the_same_answer() {
    let shop = shop("{}").await;
    let gateway = shop.start().await;
    shop.answers(&["first", "second"]);
    shop.backend.close_gate();
    let (client, other) = (gateway.client(), gateway.another_client());
    let running = tokio::spawn(async move { checkout(&client, UUID).await });
    at_gate(&shop.backend, 1).await;
    let second = checkout(&other, &format!("\"{UUID}\"")).await;
    second.refusal(409, "idempotency_key_in_use");
    assert_eq!(second.retry_after(), 1);
    let another = send(&other, "key-acme-1", UUID, "{\"cart\":8}").await;
    another.refusal(422, "idempotency_key_reused");
    shop.backend.open_gate();
    let first = running.await.expect("no panic").expect(201);
    assert_eq!(
        (first.text().as_str(), first.header("idempotent-replayed")),
        ("first", None)
    );

    is_replay(&checkout(&other, UUID).await, "first");
    is_replay(&checkout(&other, &format!("\"{UUID}\";v=1")).await, "first");
    for changed in [
        other.post("/checkout/1").body("{\"cart\":8}"),
        other.post("/checkout/1?x=1").body("{\"cart\":7}"),
        other.post("/checkout/2").body("{\"cart\":7}"),
        other.ask(Method::PATCH, "/checkout/1").body("{\"cart\":7}"),
    ] {
        let ask = changed.key("key-acme-1").header("idempotency-key", UUID);
        let answer = ask.header("content-type", "application/json").send().await;
        answer.refusal(422, "idempotency_key_reused");
    }
    let ask = other
        .post("/checkout/1")
        .key("key-acme-1")
        .header("idempotency-key", UUID);
    let other_type = ask
        .header("content-type", "text/plain")
        .body("{\"cart\":7}")
        .send()
        .await;
    other_type.refusal(422, "idempotency_key_reused");

    let requests = shop.backend.requests();
    assert_eq!(requests.len(), 1, "one charge");
    assert_eq!(requests[0].header("idempotency-key"), Some(UUID));
    assert_eq!(
        (&*requests[0].body, requests[0].body_length),
        (&b"{\"cart\":7}"[..], 10)
    );
    for (result, count) in [("kept", 1.0), ("running", 1.0), ("replayed", 2.0), ("reused", 6.0)] {
        let labels = [("route", "checkout"), ("result", result)];
        let found = gateway.metric("gateway_idempotency_requests_total", &labels).await;
        assert_eq!(found, count, "{result}");
    }
    let status = &gateway.admin_json("/api/v1/status").await["idempotency"];
    assert_eq!((&status["answered"], &status["running"]), (&json!(1), &json!(0)));
    eventually(SOON, "the log tells it", || async {
        gateway.stdout().contains("\"idempotency\":\"replayed\"").then_some(())
    })
    .await;
}

#[tokio::test]
async fn no_caller_gets_the_answer_of_another() {
    for (scope, of_second) in [("caller", None), ("tenant", Some("first"))] {
        let shop = shop(&format!("{{ scope: {scope} }}")).await;
        let gateway = shop.start().await;
        let client = gateway.client();
        shop.answers(&["first", "second", "third"]);
        let first = send(&client, "key-acme-1", UUID, "{}").await.expect(201);
        assert_eq!(first.header("set-cookie"), Some("session=1"));
        let second = send(&client, "key-acme-2", UUID, "{}").await.expect(201);
        let other = send(&client, "key-other-1", UUID, "{}").await.expect(201);
        match of_second {
            Some(body) => {
                is_replay(&second, body);
                assert_eq!(second.header("set-cookie"), None, "a session is its caller's");
            }
            None => assert_eq!(second.text(), "second"),
        }
        assert_ne!(other.text(), "first");
        assert_eq!(other.header("idempotent-replayed"), None);
        let again = send(&client, "key-acme-1", UUID, "{}").await;
        is_replay(&again, "first");
        assert_eq!(again.header("set-cookie").is_some(), scope == "caller");
    }
}

#[tokio::test]
async fn callers_without_a_credential_are_told_apart_by_what_the_backend_knows_them_by() {
    let shop = shop("{}").await;
    let gateway = shop.start().await;
    shop.answers(&["first", "second"]);
    let ask = |key: &str, cookie: &str| {
        let ask = gateway.post("/checkout/1").header("idempotency-key", key);
        ask.header("cookie", cookie).body("{}").send()
    };
    ask("short", "session=1").await.refusal(400, "idempotency_key_invalid");
    assert_eq!(ask(UUID, "session=1").await.expect(201).text(), "first");
    ask(UUID, "session=2").await.refusal(422, "idempotency_key_reused");
    is_replay(&ask(UUID, "session=1").await, "first");
}

#[tokio::test]
async fn an_outcome_that_nobody_knows_is_not_tried_again_until_an_operator_says_so() {
    let shop = shop_with(
        "{}",
        "retry: off, breaker: off, ejection: off, attempt_limit: 300ms",
        "",
    )
    .await;
    let gateway = shop.start().await;
    let client = gateway.client();
    for (key, fault, status) in [
        ("dies", Fault::Close, 502),
        ("resets", Fault::Reset, 502),
        ("breaks-off", Fault::ResetMidBody, 502),
        ("garbage", Fault::Garbage, 502),
        ("hangs", Fault::Hang, 504),
    ] {
        let before = shop.asked();
        shop.backend.next([Behaviour::always(fault)]);
        checkout(&client, key).await.expect(status);
        let again = checkout(&client, key).await;
        let problem = again.refusal(409, "idempotency_outcome_unknown");
        assert_eq!(again.header("retry-after"), None, "waiting does not help");
        assert!(
            problem["detail"]
                .as_str()
                .is_some_and(|detail| detail.contains("86400 s"))
        );
        assert_eq!(shop.asked(), before + 1, "{key}");
    }
    let listed = gateway.admin_json("/api/v1/idempotency?q=dies").await;
    assert_eq!(listed["total"], 1, "{listed:#}");
    let found = &listed["keys"][0];
    assert_eq!(
        (&found["tenant"], &found["caller"], &found["state"]),
        (&json!("acme"), &json!("api_key:acme-1"), &json!("unknown"))
    );
    let view = admin(&gateway, "/api/v1/idempotency/find", of_acme("dies"))
        .await
        .expect(200);
    assert_eq!(view.json()["state"], "unknown");
    let client_of_admin = Client::to(gateway.admin_address());
    let unsigned = client_of_admin.post("/api/v1/idempotency/release");
    unsigned.body(of_acme("dies").to_string()).send().await.expect(401);
    let release = async |key| admin(&gateway, "/api/v1/idempotency/release", of_acme(key)).await;
    assert_eq!(release("dies").await.expect(200).json(), json!({ "was": "unknown" }));
    release("dies").await.expect(404);
    shop.answers(&["after all"]);
    assert_eq!(checkout(&client, "dies").await.expect(201).text(), "after all");
    is_replay(&checkout(&client, "dies").await, "after all");
}

#[tokio::test]
async fn what_was_not_sent_leaves_the_key_free() {
    let guards = "retry: off, ejection: off, bulkhead: { limit: 1, queue: 0 }, \
                  breaker: { window: 60s, min_calls: 1, failure_ratio: 0.1, open_for: 60s }";
    let shop = shop_with("{}", guards, "").await;
    let gateway = shop.start().await;
    let client = gateway.client();
    shop.backend.close_gate();
    let (holding, other) = (gateway.another_client(), gateway.another_client());
    let held = tokio::spawn(async move { checkout(&holding, "holds").await });
    at_gate(&shop.backend, 1).await;
    checkout(&other, "full").await.refusal(503, "bulkhead_full");
    checkout(&other, "full").await.refusal(503, "bulkhead_full");
    shop.answers(&["held", "then"]);
    shop.backend.open_gate();
    held.await.expect("no panic");
    eventually(SOON, "the slot is free", || async {
        (checkout(&client, "full").await.status != 503).then_some(())
    })
    .await;
    let kept = checkout(&client, "full").await;
    assert_eq!(kept.header("idempotent-replayed"), Some("true"));

    shop.backend.behave(Behaviour::refusing()).await;
    let unreached = checkout(&client, "later").await;
    assert_eq!(unreached.reason(), Some("backend_unreached"));
    checkout(&client, "later").await.refusal(503, "breaker_open");
    shop.backend.heal().await;
    let force = json!({ "state": "closed" });
    admin(&gateway, "/api/v1/backends/shop/breaker", force)
        .await
        .expect(200);
    let done = checkout(&client, "later").await.expect(200);
    assert_eq!(done.header("idempotent-replayed"), None);
    let again = checkout(&client, "later").await.expect(200);
    assert_eq!(
        (again.body, again.headers.contains_key("idempotent-replayed")),
        (done.body, true)
    );
}

#[tokio::test]
async fn answers_of_every_status_are_kept_but_those_that_say_nothing_was_done() {
    let shop = shop("{ max_answer: 1KiB }").await;
    let gateway = shop.start().await;
    let client = gateway.client();
    for status in [400, 404, 422, 500, 503] {
        let key = format!("status-{status}");
        let before = shop.asked();
        shop.backend.next([Behaviour::status(status)]);
        let first = checkout(&client, &key).await.expect(status);
        let again = checkout(&client, &key).await.expect(status);
        assert_eq!(
            (again.header("idempotent-replayed"), &again.body),
            (Some("true"), &first.body)
        );
        assert_eq!(shop.asked(), before + 1);
    }
    for status in [401, 425, 429] {
        let key = format!("status-{status}");
        shop.backend.next([Behaviour::status(status), charged("done")]);
        checkout(&client, &key).await.expect(status);
        assert_eq!(checkout(&client, &key).await.expect(201).text(), "done");
        is_replay(&checkout(&client, &key).await, "done");
    }
    let long = "x".repeat(5_000);
    let before = shop.asked();
    shop.answers(&[&long]);
    assert_eq!(checkout(&client, "long").await.expect(201).text(), long);
    let problem = checkout(&client, "long")
        .await
        .refusal(409, "idempotency_answer_not_kept");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("201")));
    assert_eq!(shop.asked(), before + 1);
}

#[tokio::test]
async fn a_caller_that_leaves_or_gives_up_finds_the_answer_later() {
    let shop = shop("{}").await;
    let gateway = shop.start().await;
    let client = gateway.client();
    shop.answers(&["left", "gave up"]);
    shop.backend.close_gate();
    let mut raw = Raw::connect(gateway.address()).await;
    raw.send(
        "POST /checkout/1 HTTP/1.1\r\nhost: shop\r\nx-api-key: key-acme-1\r\nidempotency-key: left\r\n\
         content-type: application/json\r\ncontent-length: 10\r\n\r\n{\"cart\":7}",
    )
    .await;
    at_gate(&shop.backend, 1).await;
    raw.reset();
    gateway.metric_becomes("gateway_requests_in_flight", &[], 0.0).await;
    checkout(&client, "left").await.refusal(409, "idempotency_key_in_use");
    shop.backend.open_gate();
    let answer = eventually(SOON, "the answer is there", || async {
        let answer = checkout(&client, "left").await;
        (answer.status != 409).then_some(answer)
    })
    .await;
    is_replay(&answer, "left");

    shop.backend.close_gate();
    let ask = client
        .post("/checkout/1")
        .key("key-acme-1")
        .header("idempotency-key", "short");
    let ask = ask
        .header("content-type", "application/json")
        .header("x-request-timeout-ms", "200");
    ask.body("{\"cart\":7}").send().await.refusal(504, "out_of_time");
    checkout(&client, "short").await.refusal(409, "idempotency_key_in_use");
    shop.backend.open_gate();
    let answer = eventually(SOON, "the answer is there", || async {
        let answer = checkout(&client, "short").await;
        (answer.status != 409).then_some(answer)
    })
    .await;
    is_replay(&answer, "gave up");
    assert_eq!(shop.asked(), 2);
}

#[tokio::test]
async fn requests_without_a_key_or_with_a_wrong_one() {
    let shop = shop_with("{ required: true }", "retry: off", ", body_limit: 20B").await;
    let gateway = shop.start().await;
    let client = gateway.client();
    let post = || client.post("/checkout/1").key("key-acme-1");
    let missing = post().body("{}").send().await;
    let problem = missing.refusal(400, "idempotency_key_missing");
    assert_eq!(problem["title"], "Idempotency-Key is missing");
    for wrong in ["", "a b", "\"a", "a, b", "\"\"", &"k".repeat(256)] {
        let answer = post().header("idempotency-key", wrong).body("{}").send().await;
        answer.refusal(400, "idempotency_key_invalid");
    }
    let twice = post().header("idempotency-key", "a").header("idempotency-key", "a");
    twice.body("{}").send().await.refusal(400, "idempotency_key_invalid");
    let large = post().header("idempotency-key", "a").body("x".repeat(21));
    large.send().await.refusal(413, "body_too_large");
    assert_eq!(shop.asked(), 0);
    client.get("/checkout/1").key("key-acme-1").send().await.expect(200);
    assert_eq!(shop.asked(), 1, "a safe method needs no key");
}

#[tokio::test]
async fn bodies_in_chunks_and_over_http2_are_the_same_request() {
    let shop = shop("{}").await;
    let gateway = shop.start().await;
    let client = gateway.client();
    shop.answers(&["first", "second"]);
    let (pieces, upload) = Upload::pieces(4);
    for piece in ["{\"ca", "rt\"", ":7}"] {
        pieces
            .send(Bytes::from_static(piece.as_bytes()))
            .await
            .expect("it is read");
    }
    drop(pieces);
    let ask = client
        .post("/checkout/1")
        .key("key-acme-1")
        .header("idempotency-key", UUID);
    let chunked = ask
        .header("content-type", "application/json")
        .upload(upload)
        .send()
        .await;
    assert_eq!(chunked.expect(201).text(), "first");
    is_replay(&checkout(&client, UUID).await, "first");
    let caller = Http2::connect(gateway.address()).await;
    let mut request = caller.request(Method::POST, "/checkout/1");
    for (name, value) in [
        ("x-api-key", "key-acme-1"),
        ("idempotency-key", UUID),
        ("content-type", "application/json"),
    ] {
        request.headers_mut().insert(name, value.parse().expect("a value"));
    }
    let mut stream = caller.send(request, false).await.expect("it is sent");
    stream
        .upload
        .send_data(Bytes::from_static(b"{\"cart\":7}"), true)
        .expect("it is sent");
    let whole = stream.whole().await.expect("a whole answer");
    assert_eq!(
        (whole.text().as_str(), whole.header("idempotent-replayed")),
        ("first", "true")
    );
    assert_eq!(shop.asked(), 1);
}

#[tokio::test]
async fn explain_and_the_list_of_routes_tell_of_it() {
    let shop = shop("{ required: true }").await;
    let gateway = shop.start().await;
    let explain = async |method: &str, headers: Value| {
        let body = json!({ "url": "/checkout/1", "method": method, "key": "key-acme-1", "headers": headers });
        admin(&gateway, "/api/v1/explain", body).await.expect(200).text()
    };
    let with_key = explain("POST", json!([format!("idempotency-key: {UUID}")])).await;
    assert!(with_key.contains("sent once for this caller"), "{with_key}");
    assert!(explain("POST", json!([])).await.contains("it has no Idempotency-Key"));
    assert!(explain("GET", json!([])).await.contains("changes nothing"));
    let routes = gateway.admin_json("/api/v1/routes").await;
    assert_eq!(routes["routes"][0]["idempotency"]["keep_for_ms"], 86_400_000);
}

/// Config of a replica with this store.
fn with_store(shop: &Shop, redis: &RedisServer) -> Config {
    let url = redis.url();
    shop.config.clone().top(format!(
        "limits_store: {{ redis: {{ url: \"{url}\" }}, call_limit: 1s }}"
    ))
}

async fn is_up(gateway: &Gateway) {
    eventually(SOON, "the store is up", || async {
        let status = gateway.admin_json("/api/v1/status").await;
        (status["limits_store"]["up"] == true).then_some(())
    })
    .await;
}

#[tokio::test]
async fn two_replicas_make_one_charge_and_a_restart_remembers_it() {
    let Some(redis) = RedisServer::start() else { return };
    let shop = shop("{}").await;
    let setup = setup(&with_store(&shop, &redis));
    let (one, two) = tokio::join!(setup.clone().start(), setup.clone().start());
    is_up(&one).await;
    is_up(&two).await;
    for round in 0..5 {
        let key = format!("round-{round}");
        shop.answers(&["once"]);
        let before = shop.asked();
        shop.backend.close_gate();
        let callers: Vec<_> = [&one, &two, &one, &two]
            .map(|replica| replica.another_client())
            .into_iter()
            .map(|client| {
                let key = key.clone();
                tokio::spawn(async move { checkout(&client, &key).await })
            })
            .collect();
        at_gate(&shop.backend, 1).await;
        shop.backend.open_gate();
        let mut firsts = 0;
        for caller in callers {
            let answer = caller.await.expect("no panic");
            match (answer.status, answer.header("idempotent-replayed")) {
                (201, None) => firsts += 1,
                (201, Some(_)) => is_replay(&answer, "once"),
                _ => drop(answer.refusal(409, "idempotency_key_in_use")),
            }
        }
        assert_eq!((firsts, shop.asked()), (1, before + 1), "{key}");
        is_replay(&checkout(&two.client(), &key).await, "once");
        let other = send(&one.client(), "key-acme-1", &key, "{\"cart\":8}").await;
        other.refusal(422, "idempotency_key_reused");
    }
    drop((one, two));
    let again = setup.start().await;
    is_up(&again).await;
    is_replay(&checkout(&again.client(), "round-0").await, "once");
    let release = admin(&again, "/api/v1/idempotency/release", of_acme("round-0")).await;
    assert_eq!(release.expect(200).json(), json!({ "was": "answered" }));
    shop.answers(&["anew"]);
    assert_eq!(checkout(&again.client(), "round-0").await.expect(201).text(), "anew");
}

#[tokio::test]
async fn a_replica_that_is_killed_within_a_call_leaves_the_outcome_unknown() {
    let Some(redis) = RedisServer::start() else { return };
    let shop = shop_with("{}", "retry: off, breaker: off, ejection: off", ", time_limit: 1s").await;
    let setup = setup(&with_store(&shop, &redis));
    let (killed, other) = tokio::join!(setup.clone().start(), setup.clone().start());
    is_up(&killed).await;
    is_up(&other).await;
    shop.backend.close_gate();
    let client = killed.another_client();
    let lost = tokio::spawn(async move {
        let ask = client
            .post("/checkout/1")
            .key("key-acme-1")
            .header("idempotency-key", "lost");
        let ask = ask.header("content-type", "application/json").body("{\"cart\":7}");
        ask.try_send().await.is_err()
    });
    at_gate(&shop.backend, 1).await;
    checkout(&other.client(), "lost")
        .await
        .refusal(409, "idempotency_key_in_use");
    admin(&other, "/api/v1/idempotency/release", of_acme("lost"))
        .await
        .expect(409);
    killed.signal(Signal::Kill);
    assert!(lost.await.expect("no panic"));
    eventually(SOON, "the lease is over", || async {
        let answer = checkout(&other.client(), "lost").await;
        assert_eq!(answer.status, 409, "never free: {answer:#?}");
        (answer.reason() == Some("idempotency_outcome_unknown")).then_some(())
    })
    .await;
    assert_eq!(shop.asked(), 1);
    let listed = other.admin_json("/api/v1/idempotency").await;
    assert_eq!(
        (&listed["total"], &listed["keys"][0]["key"]),
        (&json!(1), &json!("lost"))
    );
    shop.backend.open_gate();
    let release = admin(&other, "/api/v1/idempotency/release", of_acme("lost")).await;
    assert_eq!(release.expect(200).json(), json!({ "was": "unknown" }));
    assert_eq!(other.admin_json("/api/v1/idempotency").await["total"], 0);
    checkout(&other.client(), "lost").await.expect(200);
    assert_eq!(shop.asked(), 2);
}

#[tokio::test]
async fn a_process_that_stops_waits_for_calls_whose_callers_have_left() {
    let Some(redis) = RedisServer::start() else { return };
    let shop = shop("{}").await;
    let setup = setup(&with_store(&shop, &redis));
    let mut stopping = setup.clone().start().await;
    is_up(&stopping).await;
    shop.answers(&["left"]);
    shop.backend.close_gate();
    let mut raw = Raw::connect(stopping.address()).await;
    raw.send(
        "POST /checkout/1 HTTP/1.1\r\nhost: shop\r\nx-api-key: key-acme-1\r\nidempotency-key: left\r\n\
         content-type: application/json\r\ncontent-length: 10\r\n\r\n{\"cart\":7}",
    )
    .await;
    at_gate(&shop.backend, 1).await;
    raw.reset();
    stopping.metric_becomes("gateway_requests_in_flight", &[], 0.0).await;
    stopping.signal(Signal::Term);
    eventually(SOON, "it stops", || async {
        stopping.log().contains("stopping: readiness fails").then_some(())
    })
    .await;
    shop.backend.open_gate();
    assert_eq!(stopping.wait_exit().await, Some(0));
    let next = setup.start().await;
    is_up(&next).await;
    is_replay(&checkout(&next.client(), "left").await, "left");
    assert_eq!(shop.asked(), 1);
}

#[tokio::test]
async fn a_store_that_is_gone_refuses_or_passes_as_written() {
    let options = Options {
        more: ["--appendonly", "yes", "--appendfsync", "always"]
            .map(str::to_owned)
            .into(),
        ..Options::default()
    };
    let Some(mut redis) = RedisServer::start_with(options) else {
        return;
    };
    let shop = shop("{}").await;
    let gateway = setup(&with_store(&shop, &redis)).start().await;
    is_up(&gateway).await;
    let client = gateway.client();
    shop.answers(&["before", "within"]);
    checkout(&client, "before").await.expect(201);
    // One is under way while the store dies.
    shop.backend.close_gate();
    let other = gateway.another_client();
    let within = tokio::spawn(async move { checkout(&other, "within").await });
    at_gate(&shop.backend, 1).await;
    redis.kill();
    eventually(SOON, "the store is missed", || async {
        let status = gateway.admin_json("/api/v1/status").await;
        (status["limits_store"]["up"] == false).then_some(())
    })
    .await;
    for key in ["before", "new"] {
        let refused = checkout(&client, key).await;
        refused.refusal(503, "idempotency_unavailable");
        assert_eq!(refused.retry_after(), 1);
    }
    assert_eq!(shop.asked(), 2, "the two before");
    shop.backend.open_gate();
    assert_eq!(within.await.expect("no panic").expect(201).text(), "within");
    redis.restart();
    is_up(&gateway).await;
    is_replay(&checkout(&client, "before").await, "before");
    // What could not be told to the store is told later.
    let answer = eventually(SOON, "the store is told", || async {
        let answer = checkout(&client, "within").await;
        (answer.status != 409).then_some(answer)
    })
    .await;
    is_replay(&answer, "within");
    assert_eq!(shop.asked(), 2);

    let open = shop_of(&shop, "{ when_down: open }");
    redis.kill();
    let gateway = setup(&with_store(&open, &redis)).start().await;
    shop.answers(&["one", "two"]);
    for body in ["one", "two"] {
        assert_eq!(checkout(&gateway.client(), "open").await.expect(201).text(), body);
    }
    let labels = [("route", "checkout"), ("result", "unprotected")];
    gateway
        .metric_becomes("gateway_idempotency_requests_total", &labels, 2.0)
        .await;
}

/// The same backend behind a route with another idempotency.
fn shop_of(shop: &Shop, idempotency: &str) -> Shop {
    let text = shop.config.to_string();
    let (_, routes) = text.split_once("routes:\n").expect("it has routes");
    let route = routes.trim().strip_prefix("checkout: ").expect("its only route");
    let route = route.replace("idempotency: {}", &format!("idempotency: {idempotency}"));
    Shop {
        _fleet: None,
        backend: shop.backend.clone(),
        config: Config::with(TOP)
            .backend(
                "shop",
                shop.backend.address(),
                "retry: off, breaker: off, ejection: off",
            )
            .route("checkout", &route),
    }
}
