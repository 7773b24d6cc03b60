//! Checks the limits of connections: their number, their requests, and how long each may keep the gateway waiting.

use std::time::Duration;

use tests::configs::Config;
use tests::{Gateway, Raw, eventually};

use crate::{SOON, one_backend};

const REFUSED: &str = "gateway_connections_refused_total";
const OVERDUE: &str = "gateway_connections_overdue_total";
const HELLO: &str = "GET /hello HTTP/1.1\r\nhost: edge.test\r\n\r\n";

async fn start(top: &str) -> Gateway {
    let hello = "{ match: { path: /hello }, access: { any_of: [anonymous] }, respond: { body: hello } }";
    let config = Config::default().top(top).route("hello", hello);
    Gateway::start(config.to_string()).await
}

async fn answered(connection: &mut Raw) -> String {
    connection.send(HELLO).await;
    let head = connection.head().await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    connection.take(5).await;
    head
}

#[tokio::test]
async fn beyond_the_total_a_connection_is_refused_and_those_that_are_there_go_on() {
    let gateway = start("connection_limits: { total: 2 }").await;
    let (mut one, mut other) = (gateway.connect().await, gateway.connect().await);
    answered(&mut one).await;
    answered(&mut other).await;
    let mut third = gateway.connect().await;
    let told = third.rest().await;
    assert!(
        told.starts_with("HTTP/1.1 503") && told.contains("overloaded"),
        "{told}"
    );
    gateway.metric_becomes(REFUSED, &[("reason", "too_many")], 1.0).await;
    answered(&mut one).await;
    drop(other);
    gateway.metric_becomes("gateway_connections", &[], 1.0).await;
    answered(&mut gateway.connect().await).await;
}

#[tokio::test]
async fn an_address_has_its_share_of_connections_only_where_that_is_written() {
    let gateway = start("connection_limits: { per_address: 2 }").await;
    let (mut one, mut other) = (gateway.connect().await, gateway.connect().await);
    answered(&mut one).await;
    answered(&mut other).await;
    let told = gateway.connect().await.rest().await;
    assert!(
        told.starts_with("HTTP/1.1 503") && told.contains("overloaded"),
        "{told}"
    );
    gateway
        .metric_becomes(REFUSED, &[("reason", "too_many_from_address")], 1.0)
        .await;
    drop(one);
    gateway.metric_becomes("gateway_connections", &[], 1.0).await;
    answered(&mut gateway.connect().await).await;
}

#[tokio::test]
async fn a_connection_ends_after_as_many_requests_as_it_may_bring() {
    let gateway = start("connection_limits: { requests: 3 }").await;
    let mut connection = gateway.connect().await;
    for _ in 0..2 {
        let head = answered(&mut connection).await.to_ascii_lowercase();
        assert!(!head.contains("connection: close"), "{head}");
    }
    let last = answered(&mut connection).await.to_ascii_lowercase();
    assert!(last.contains("connection: close"), "{last}");
    assert_eq!(connection.rest().await, "");
}

#[tokio::test]
async fn who_is_waited_for_is_told_apart() {
    let gateway = start("time_limits: { first_byte: 1ms, head: 1ms, keep_alive: 1ms }").await;
    let mut silent = gateway.connect().await;
    silent.rest().await;
    let mut half = gateway.connect().await;
    half.send("GET /hello HTTP/1.1\r\n").await;
    let told = half.rest().await;
    assert!(told.starts_with("HTTP/1.1 408"), "{told}");
    let mut idle = gateway.connect().await;
    answered(&mut idle).await;
    assert_eq!(idle.rest().await, "");
    for awaited in ["first_byte", "head", "next_request"] {
        gateway.metric_becomes(OVERDUE, &[("awaited", awaited)], 1.0).await;
    }
}

#[tokio::test]
async fn a_body_that_drips_is_given_up_and_its_caller_told() {
    let (_fleet, api) = one_backend("api").await;
    let config = Config::default()
        .top("minimum_rates: { grace: 500ms, body: 1KiB }")
        .open("api", api.address(), "retry: off");
    let gateway = Gateway::start(config.to_string()).await;
    let mut slow = gateway.connect().await;
    slow.send("POST /api/echo HTTP/1.1\r\nhost: edge.test\r\ncontent-length: 1000000\r\n\r\nx")
        .await;
    let told = slow.rest().await;
    assert!(
        told.starts_with("HTTP/1.1 408") && told.contains("request_timeout"),
        "{told}"
    );
    gateway.metric_becomes(OVERDUE, &[("awaited", "body")], 1.0).await;
    // A body that is there is not waited for, however large.
    gateway
        .post("/api/echo")
        .body(vec![b'x'; 2_000_000])
        .send()
        .await
        .expect(200);
}

#[tokio::test]
async fn an_answer_that_is_not_taken_is_cut_and_the_log_says_why() {
    let (_fleet, api) = one_backend("api").await;
    let config = Config::default()
        .top("time_limits: { write: 300ms }")
        .open("api", api.address(), "retry: off");
    let gateway = Gateway::start(config.to_string()).await;
    let mut idle = gateway.connect().await;
    idle.send("GET /api/bytes/30000000 HTTP/1.1\r\nhost: edge.test\r\n\r\n")
        .await;
    gateway.metric_becomes(OVERDUE, &[("awaited", "reader")], 1.0).await;
    eventually(SOON, "the log says why it was cut", || async {
        gateway.stdout().contains("took the answer too slowly").then_some(())
    })
    .await;
}

/// The kernel would take megabytes at a time, and between two of them whoever reads steadily seems to take nothing.
#[tokio::test]
async fn an_answer_that_is_taken_steadily_is_not_cut_however_much_of_it_waits() {
    let (_fleet, api) = one_backend("api").await;
    let config = Config::default()
        .top("time_limits: { write: 2s }")
        .open("api", api.address(), "retry: off");
    let gateway = Gateway::start(config.to_string()).await;
    let mut steady = gateway.connect().await;
    steady
        .send("GET /api/bytes/30000000 HTTP/1.1\r\nhost: edge.test\r\n\r\n")
        .await;
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    for _ in 0..80 {
        pace.tick().await;
        steady.take(16 * 1024).await;
    }
    assert_eq!(gateway.metric(OVERDUE, &[("awaited", "reader")]).await, 0.0);
}

/// What serves requests is made when one comes and put away when none has come for a while. Memory that was given back
/// is seen only by who asks for some: so connections are opened in batches, until one costs no more than it may.
#[tokio::test]
async fn whoever_idles_costs_little_and_is_served_as_before() {
    const BATCH: usize = 200;
    let gateway = start("time_limits: { keep_alive: 1h }").await;
    let memory = || gateway.metric("process_resident_memory_bytes", &[]);
    let mut idle = Vec::new();
    let began = std::time::Instant::now();
    loop {
        let before = memory().await;
        for _ in 0..BATCH {
            let mut connection = gateway.connect().await;
            answered(&mut connection).await;
            idle.push(connection);
        }
        let each = (memory().await - before) / BATCH as f64;
        if each < 6.0 * 1024.0 {
            break;
        }
        assert!(
            began.elapsed() < std::time::Duration::from_secs(10),
            "{each} bytes each"
        );
    }
    for connection in &mut idle {
        answered(connection).await;
        // In two pieces, and with another behind it.
        connection.send(&HELLO[..9]).await;
        connection.send(format!("{}{HELLO}", &HELLO[9..])).await;
        for _ in 0..2 {
            assert!(connection.head().await.starts_with("HTTP/1.1 200"));
            connection.take(5).await;
        }
    }
}
