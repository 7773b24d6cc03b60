//! Checks that the recovery of a backend is noticed, whichever callers are slow and whichever come first.

use std::time::Duration;

use bytes::Bytes;
use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Behaviour, Fault, Fleet, Handle};
use serde_json::Value;
use tests::configs::Config;
use tests::crowd::at_once;
use tests::{Answer, Gateway, Raw, Setup, Upload, eventually, http2_caller};

use crate::{SOON, one_backend};

/// Opens at 5 failures, for 100 ms, and closes after two good probes.
const GUARDS: &str = "retry: off, time_limit: 20s, breaker: { min_calls: 5, open_for: 100ms, probes: 2 }";

const TOP: &str = "
listeners: { public: { address: \"127.0.0.1:0\" } }
admin: { address: \"127.0.0.1:0\" }
tiers: { open: { rate: 1000000/s, burst: 1000000 } }
callers: { api_keys: { file: keys.yaml } }
";

const KEYS: [&str; 3] = ["slow", "quick", "third"];

/// A gateway whose breaker is half-open, before a backend that has recovered.
async fn half_open() -> (Fleet, Handle, Gateway) {
    let (fleet, api) = one_backend("api").await;
    let config =
        Config::with(TOP)
            .backend("api", api.address(), GUARDS)
            .mapped("api", "api", "access: { any_of: [api_key] }");
    let lines = KEYS.map(|name| KeyLine::new(name, name, name).tier("open"));
    let gateway = Setup::new(config.to_string())
        .file("keys.yaml", key_file(&lines))
        .start()
        .await;
    api.behave(Behaviour::status(503)).await;
    at_once(5, |_| gateway.get("/api/echo").header("x-api-key", "quick"))
        .await
        .all(503);
    api.heal().await;
    api.take_requests();
    eventually(SOON, "the open time is over", || async {
        (breaker(&gateway).await["state"] == "half_open").then_some(())
    })
    .await;
    (fleet, api, gateway)
}

async fn breaker(gateway: &Gateway) -> Value {
    gateway.admin_json("/api/v1/backends").await["backends"][0]["breaker"].clone()
}

async fn counts(gateway: &Gateway) -> (Value, Value) {
    let counts = breaker(gateway).await["counts"].clone();
    (
        counts["probes_under_way"].clone(),
        counts["probes_without_place"].clone(),
    )
}

async fn ask(gateway: &Gateway, key: &str) -> Answer {
    gateway.get("/api/echo").header("x-api-key", key).send().await
}

/// A request of which its caller sends no more than this.
async fn begun(gateway: &Gateway, rest: &str) -> Raw {
    let mut caller = gateway.connect().await;
    caller
        .send(format!(
            "POST /api/echo HTTP/1.1\r\nhost: a\r\nx-api-key: slow\r\n{rest}"
        ))
        .await;
    caller
}

#[tokio::test]
async fn uploads_that_do_not_come_take_no_place_of_a_probe() {
    let (_fleet, api, gateway) = half_open().await;
    let mut slow = Vec::new();
    for rest in [
        "content-length: 10\r\n\r\n",
        "content-length: 10\r\n\r\nhalf",
        "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "content-length: 1000000\r\nexpect: 100-continue\r\n\r\n",
    ] {
        for _ in 0..3 {
            slow.push(begun(&gateway, rest).await);
        }
    }
    let large = format!("content-length: 1000000\r\n\r\n{}", "x".repeat(100_000));
    slow.push(begun(&gateway, &large).await);
    let over_http2 = http2_caller::Http2::connect(gateway.address()).await;
    let mut request = over_http2.request(http::Method::POST, "/api/echo");
    request
        .headers_mut()
        .insert("x-api-key", "slow".parse().expect("a value"));
    let _stream = over_http2.send(request, false).await.expect("it is taken");
    // So many of one tenant are let through as there may be probes, without a place; the others are refused.
    api.wait_for(|counts| counts.in_flight == 2, SOON)
        .await
        .expect("some are begun");
    eventually(SOON, "none has a place", || async {
        (counts(&gateway).await == (0.into(), 2.into())).then_some(())
    })
    .await;
    for _ in 0..2 {
        ask(&gateway, "quick").await.expect(200);
    }
    assert_eq!(breaker(&gateway).await["state"], "closed");
    eventually(SOON, "the log says why the others were refused", || async {
        gateway
            .stdout()
            .contains("half-open, and as many unfinished requests of this tenant")
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_long_requests_of_one_tenant_leave_places_to_the_others() {
    let (_fleet, api, gateway) = half_open().await;
    api.next([(); 2].map(|()| Behaviour::always(Fault::Hang)));
    let held: Vec<_> = (0..2)
        .map(|_| tokio::spawn(gateway.get("/api/echo").header("x-api-key", "slow").send()))
        .collect();
    api.wait_for(|counts| counts.in_flight == 2, SOON)
        .await
        .expect("both are probes");
    assert_eq!(counts(&gateway).await, (2.into(), 0.into()));
    assert_eq!(breaker(&gateway).await["cause"], "open_time_over");
    let refused = ask(&gateway, "slow").await;
    refused.refusal(503, "breaker_open");
    eventually(SOON, "the log says why", || async {
        gateway
            .stdout()
            .contains("half-open, and as many probes are under way")
            .then_some(())
    })
    .await;
    for _ in 0..2 {
        ask(&gateway, "quick").await.expect(200);
    }
    assert_eq!(breaker(&gateway).await["state"], "closed");
    for held in held {
        held.abort();
    }
}

#[tokio::test]
async fn slow_uploads_heal_a_backend_that_has_nothing_else() {
    let (_fleet, api, gateway) = half_open().await;
    for _ in 0..2 {
        let (pieces, upload) = Upload::pieces(1);
        let ask = gateway.post("/api/echo").header("x-api-key", "slow").upload(upload);
        let answer = tokio::spawn(ask.send());
        for number in 0..4 {
            pieces.send(Bytes::from(vec![b'x'; 50_000])).await.expect("it is open");
            if number == 1 {
                // More has arrived than a probe waits for.
                let begun = |counts: &fixtures::fleet::Counts| counts.in_flight == 1;
                api.wait_for(begun, SOON).await.expect("it is begun");
                assert_eq!(counts(&gateway).await, (0.into(), 1.into()));
            }
        }
        drop(pieces);
        answer.await.expect("no panic").expect(200);
    }
    assert_eq!(breaker(&gateway).await["state"], "closed");
    let requests = api.take_requests();
    assert!(
        requests
            .iter()
            .all(|request| request.body_complete && request.body_length == 200_000)
    );
}

#[tokio::test]
async fn a_body_that_comes_a_moment_later_is_whole() {
    let (_fleet, _api, gateway) = half_open().await;
    for _ in 0..2 {
        let mut caller = begun(&gateway, "connection: close\r\ncontent-length: 10\r\n\r\nhalf").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        caller.send("other.").await;
        let answer = caller.rest().await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert_eq!(breaker(&gateway).await["state"], "closed");
}
