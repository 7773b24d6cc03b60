//! Checks server-sent events: each event passes as it comes, for as long as events come, and a drain ends the stream
//! properly.

use std::time::{Duration, Instant};

use fixtures::fleet::{Fleet, Handle};
use tests::configs::Config;
use tests::{Failure, Gateway, Signal, Streaming};

use crate::one_backend;

async fn start(limits: &str) -> (Fleet, Handle, Gateway) {
    let (fleet, api) = one_backend("api").await;
    let config = Config::default().top(format!("time_limits: {{ {limits} }}")).open(
        "api",
        api.address(),
        "retry: off, bulkhead: { limit: 1, queue: 0, streams: 2 }",
    );
    (fleet, api, Gateway::start(config.to_string()).await)
}

async fn event(stream: &mut Streaming) -> Result<Option<String>, Failure> {
    let piece = stream.piece().await?;
    Ok(piece.map(|piece| String::from_utf8_lossy(&piece).into_owned()))
}

#[tokio::test]
async fn events_pass_one_by_one_beyond_the_time_of_a_request() {
    let (_fleet, _api, gateway) = start("request: 400ms, reserve: 100ms, idle_stream: 10s").await;
    let begun = Instant::now();
    let mut stream = gateway
        .get("/api/sse?events=5&every_ms=150")
        .open()
        .await
        .expect("a head");
    let mut ids = Vec::new();
    while let Some(text) = event(&mut stream).await.expect("no break") {
        assert_eq!(text.matches("id: ").count(), 1, "one at a time: {text:?}");
        ids.push(text);
    }
    assert_eq!(ids.len(), 5, "{ids:?}");
    assert!(
        begun.elapsed() >= Duration::from_millis(400),
        "longer than a request may take"
    );
}

#[tokio::test]
async fn a_stream_holds_its_slot_and_gives_it_back() {
    let (_fleet, _api, gateway) = start("idle_stream: 10s").await;
    let open = || gateway.get("/api/sse?events=100000&every_ms=20").open();
    let (one, two) = (open().await.expect("a head"), open().await.expect("a head"));
    let in_use = "gateway_bulkhead_streams_in_use";
    gateway.metric_becomes(in_use, &[("backend", "api")], 2.0).await;
    gateway.get("/api/echo").send().await.expect(200);
    drop((one, two));
    gateway.metric_becomes(in_use, &[("backend", "api")], 0.0).await;
}

#[tokio::test]
async fn a_stream_that_pauses_too_long_is_broken_off() {
    let (_fleet, _api, gateway) = start("idle_stream: 200ms").await;
    let mut stream = gateway
        .get("/api/sse?events=2&every_ms=60000")
        .open()
        .await
        .expect("a head");
    let broken = loop {
        match event(&mut stream).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it did not come to its end"),
            Err(broken) => break broken,
        }
    };
    assert!(matches!(broken, Failure::Aborted { status: 200, .. }), "{broken}");
}

#[tokio::test]
async fn a_drain_ends_streams_between_two_events() {
    for target in ["/api/sse?events=100000&every_ms=20", "/api/sse?events=2&every_ms=60000"] {
        let (_fleet, _api, mut gateway) = start("idle_stream: 120s, drain: 15s").await;
        let mut stream = gateway.get(target).open().await.expect("a head");
        let first = event(&mut stream).await.expect("no break").expect("an event");
        gateway.signal(Signal::Term);
        let mut all = first;
        while let Some(text) = event(&mut stream).await.expect("a proper end") {
            all.push_str(&text);
        }
        assert!(all.ends_with("\n\n"), "{all:?}");
        assert_eq!(gateway.wait_exit().await, Some(0), "{target}");
    }
}
