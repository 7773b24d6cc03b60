//! Checks stopping: accepted requests are answered, later ones are not, and the exit code says whether all were
//! answered.

use std::time::{Duration, Instant};

use fixtures::fleet::Behaviour;
use fixtures::fleet::{Fleet, Handle, Latency};
use tests::configs::{Config, UNGUARDED};
use tests::crowd::{at_once, steadily};
use tests::{Failure, Gateway, Signal, eventually};

use crate::{SOON, one_backend};
use tokio::net::TcpStream;

const DONE: Option<i32> = Some(0);
const CUT: Option<i32> = Some(3);

async fn start(limits: &str) -> (Fleet, Handle, Gateway) {
    let (fleet, api) = one_backend("api").await;
    let config = Config::default()
        .top(format!("time_limits: {{ {limits} }}"))
        .open("api", api.address(), UNGUARDED);
    (fleet, api, Gateway::start(config.to_string()).await)
}

async fn refuses(gateway: &Gateway) {
    eventually(SOON, "no new connection is taken", || async {
        TcpStream::connect(gateway.address()).await.err()
    })
    .await;
}

#[tokio::test]
async fn what_is_under_way_is_answered_before_the_end() {
    for signal in [Signal::Term, Signal::Int] {
        let (_fleet, api, mut gateway) = start("drain: 10s").await;
        api.close_gate();
        let client = gateway.client();
        let held = tokio::spawn(at_once(20, move |_| client.get("/api/echo")));
        api.wait_for(|counts| counts.at_gate == 20, SOON)
            .await
            .expect("all are asked");
        gateway.signal(signal);
        refuses(&gateway).await;
        assert_eq!(gateway.admin("/readyz").send().await.status, 503);
        assert_eq!(gateway.admin("/livez").send().await.status, 200);
        api.open_gate();
        held.await.expect("no panic").all(200);
        assert_eq!(gateway.wait_exit().await, DONE, "{signal:?}");
    }
}

#[tokio::test]
async fn a_stream_under_way_comes_to_its_end() {
    let (_fleet, _api, mut gateway) = start("drain: 10s").await;
    let mut streaming = gateway.get("/api/stream/10?every_ms=50").open().await.expect("a head");
    assert!(streaming.piece().await.expect("a piece").is_some());
    gateway.signal(Signal::Term);
    let mut pieces = 1;
    while streaming.piece().await.expect("the rest comes").is_some() {
        pieces += 1;
    }
    assert!(pieces >= 10, "{pieces}");
    assert_eq!(gateway.wait_exit().await, DONE);
}

#[tokio::test]
async fn what_a_slow_caller_has_not_taken_yet_is_still_sent() {
    const LENGTH: usize = 32 << 20;
    let (_fleet, api) = one_backend("api").await;
    // All of it takes a busy machine longer than the usual ten seconds.
    let config = Config::default()
        .top("time_limits: { drain: 20s, request: 60s }")
        .backend("api", api.address(), &format!("{UNGUARDED}, time_limit: 60s"))
        .open_route("api", "api", "");
    let mut gateway = Gateway::start(config.to_string()).await;
    let mut caller = gateway.connect().await;
    caller
        .send(format!("GET /api/bytes/{LENGTH} HTTP/1.1\r\nhost: a\r\n\r\n"))
        .await;
    assert!(caller.head().await.starts_with("HTTP/1.1 200"));
    let mut taken = 0;
    // Until the last byte is in our hands, which is long before it is in the caller's.
    while !gateway.stdout().contains("/api/bytes/") {
        taken += caller.take(16 << 10).await.len();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(api.in_flight(), 0);
    gateway.signal(Signal::Term);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(caller.rest().await.len(), LENGTH - taken);
    assert_eq!(gateway.wait_exit().await, DONE);
}

#[tokio::test]
async fn connections_without_a_request_hold_up_nothing() {
    let (_fleet, _api, mut gateway) = start("drain: 20s").await;
    let idle = gateway.connect().await;
    let mut used = gateway.connect().await;
    used.send("GET /api/bytes/0 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(used.head().await.starts_with("HTTP/1.1 200"));
    let mut refused = gateway.connect().await;
    refused
        .send("POST /nowhere HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n")
        .await;
    assert!(refused.head().await.starts_with("HTTP/1.1 404"));
    let begun = Instant::now();
    gateway.signal(Signal::Term);
    assert_eq!(gateway.wait_exit().await, DONE);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    drop((idle, used, refused));
}

#[tokio::test]
async fn what_does_not_end_in_time_is_cut_and_the_exit_code_says_so() {
    let (_fleet, api, mut gateway) = start("drain: 200ms").await;
    api.close_gate();
    let client = gateway.client();
    let held = tokio::spawn(client.get("/api/echo").try_send());
    api.wait_for(|counts| counts.at_gate == 1, SOON)
        .await
        .expect("it is asked");
    let begun = Instant::now();
    gateway.signal(Signal::Term);
    assert_eq!(gateway.wait_exit().await, CUT);
    assert!(
        (Duration::from_millis(200)..Duration::from_secs(5)).contains(&begun.elapsed()),
        "{:?}",
        begun.elapsed()
    );
    assert!(held.await.expect("no panic").is_err());
    let cut = "\"status\":503,\"reason\":\"draining\"";
    eventually(SOON, "the log says that its caller did not leave", || async {
        gateway.stdout().contains(cut).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_second_signal_stops_at_once() {
    let (_fleet, api, mut gateway) = start("drain: 15s").await;
    api.close_gate();
    let held = tokio::spawn(gateway.get("/api/echo").try_send());
    api.wait_for(|counts| counts.at_gate == 1, SOON)
        .await
        .expect("it is asked");
    gateway.signal(Signal::Term);
    refuses(&gateway).await;
    let begun = Instant::now();
    gateway.signal(Signal::Term);
    assert_eq!(gateway.wait_exit().await, CUT);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(held.await.expect("no panic").is_err());
}

#[tokio::test]
async fn readiness_fails_before_callers_notice_anything() {
    let (_fleet, _api, mut gateway) = start("drain_notice: 1s, drain: 10s").await;
    assert_eq!(gateway.admin("/readyz").send().await.status, 200);
    gateway.signal(Signal::Term);
    eventually(SOON, "readiness fails", || async {
        (gateway.admin("/readyz").send().await.status == 503).then_some(())
    })
    .await;
    gateway.another_client().get("/api/echo").send().await.expect(200);
    assert_eq!(gateway.wait_exit().await, DONE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn under_load_nothing_that_was_accepted_fails() {
    let (_fleet, api, mut gateway) = start("drain: 10s").await;
    api.behave(Behaviour::late(Latency::Uniform { from_ms: 0, to_ms: 20 }))
        .await;
    // A connection for each request: it is accepted or refused, and nothing lies between.
    let (tally, ()) = {
        let gateway = &gateway;
        let ask = move || gateway.another_client().get("/api/echo");
        let stopping = async move {
            tokio::time::sleep(Duration::from_millis(700)).await;
            gateway.signal(Signal::Term);
            refuses(gateway).await;
        };
        steadily(300, ask, stopping).await
    };
    assert_eq!(gateway.wait_exit().await, DONE);
    let failed: Vec<String> = tally
        .told
        .iter()
        .filter_map(|told| told.came.as_ref().err())
        .filter(|failure| !matches!(failure, Failure::Refused(_)))
        .map(ToString::to_string)
        .collect();
    assert!(failed.is_empty(), "accepted and not answered: {failed:?}");
    assert!(tally.with_status(200) > 100, "{:?}", tally.statuses());
    assert_eq!(
        tally.with_status(200) + tally.failures().len(),
        tally.told.len(),
        "{:?}",
        tally.statuses()
    );
}
