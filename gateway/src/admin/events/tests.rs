use std::time::Duration;

use axum::http::{Method, StatusCode};
use policies::Deadline;

use crate::admin::bench::{Bench, event, problem};
use crate::clock;
use crate::rejection::Reason;
use crate::server::Phase;

#[tokio::test]
async fn events_tell_everything_until_the_drain() {
    let bench = Bench::start().await;
    bench.refuse("one", Reason::BreakerOpen);
    let mut stream = bench.ask(Method::GET, "/api/v1/events").await;
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let snapshot = event(&mut stream).await;
    assert_eq!(snapshot["status"]["phase"], "serving");
    assert_eq!(snapshot["routes"]["routes"][0]["name"], "users");
    assert_eq!(snapshot["backends"]["backends"][0]["name"], "users");
    assert_eq!(snapshot["tenants"]["tenants"][0]["name"], "acme");
    assert_eq!(snapshot["rejections"][0]["request_id"], "one");
    bench.lifecycle.advance(Phase::Draining);
    let mut last = event(&mut stream).await;
    while last["status"]["phase"] == "serving" {
        last = event(&mut stream).await;
    }
    assert_eq!(last["status"]["phase"], "draining");
    assert_eq!(stream.chunk().await.unwrap(), None, "the stream has ended");
    problem(bench.ask(Method::GET, "/api/v1/events").await, 503, "draining").await;
}

#[tokio::test]
async fn streams_are_bounded_and_their_places_come_back() {
    let bench = Bench::start().await;
    let mut streams = Vec::new();
    for _ in 0..crate::admin::stream_slots::MOST_OF_PEER {
        let mut stream = bench.ask(Method::GET, "/api/v1/events").await;
        event(&mut stream).await;
        streams.push(stream);
    }
    problem(bench.ask(Method::GET, "/api/v1/events").await, 503, "too_many_streams").await;
    streams.clear();
    // The server notices at its next write or read.
    let until = clock::now() + Duration::from_secs(10);
    while bench.ask(Method::GET, "/api/v1/events").await.status() != StatusCode::OK {
        assert!(
            Deadline::at(until).allows(clock::now(), Duration::ZERO, Duration::ZERO),
            "no place came back"
        );
        tokio::task::yield_now().await;
    }
}
