//! Checks that each backend has its own number of slots and its own queue, and that trouble of one backend does not
//! affect another.

use std::time::Duration;

use fixtures::fleet::{Behaviour, Fault, Fleet, Handle, Latency};
use tests::configs::Config;
use tests::crowd::{at_once, steadily};
use tests::{Answer, Gateway};
use tokio::task::JoinHandle;

use crate::{SOON, backends, one_backend};

const API: [(&str, &str); 1] = [("backend", "api")];

async fn start(guards: &str) -> (Fleet, Handle, Gateway) {
    let (fleet, api) = one_backend("api").await;
    let config = Config::default().open("api", api.address(), guards);
    (fleet, api, Gateway::start(config.to_string()).await)
}

fn asked(gateway: &Gateway) -> JoinHandle<Answer> {
    tokio::spawn(gateway.get("/api/echo").send())
}

#[tokio::test]
async fn so_many_at_once_so_many_waiting_and_no_more() {
    let (_fleet, api, gateway) = start("bulkhead: { limit: 2, queue: 3, wait: 10s }").await;
    api.close_gate();
    let held: Vec<_> = (0..5).map(|_| asked(&gateway)).collect();
    gateway.metric_becomes("gateway_bulkhead_waiting", &API, 3.0).await;
    api.wait_for(|counts| counts.at_gate == 2, SOON)
        .await
        .expect("two slots");
    assert_eq!(gateway.metric("gateway_bulkhead_in_use", &API).await, 2.0);
    assert_eq!(gateway.metric("gateway_bulkhead_limit", &API).await, 2.0);
    for _ in 0..5 {
        gateway.get("/api/echo").send().await.refusal(503, "bulkhead_full");
    }
    assert_eq!(api.counts().requests, 2);
    api.open_gate();
    for answer in held {
        answer.await.expect("no panic").expect(200);
    }
    let outcome = |outcome| [API[0], ("outcome", outcome)];
    let page = gateway.metrics().await;
    for (word, count) in [("admitted", 5.0), ("full", 5.0), ("timeout", 0.0), ("left", 0.0)] {
        let counted = page.sum("gateway_bulkhead_outcomes_total", &outcome(word));
        assert_eq!(counted, Some(count), "{word}");
    }
}

#[tokio::test]
async fn whoever_waits_too_long_is_told_so() {
    let (_fleet, api, gateway) = start("bulkhead: { limit: 1, queue: 1, wait: 50ms }").await;
    api.close_gate();
    let held = asked(&gateway);
    api.wait_for(|counts| counts.at_gate == 1, SOON)
        .await
        .expect("it has the slot");
    gateway.get("/api/echo").send().await.refusal(503, "bulkhead_timeout");
    assert_eq!(gateway.metric("gateway_bulkhead_waiting", &API).await, 0.0);
    api.open_gate();
    held.await.expect("no panic").expect(200);
}

#[tokio::test]
async fn waiting_is_bounded_by_the_callers_own_budget() {
    let (_fleet, api, gateway) = start("bulkhead: { limit: 1, queue: 1, wait: 10s }").await;
    api.close_gate();
    let held = asked(&gateway);
    api.wait_for(|counts| counts.at_gate == 1, SOON)
        .await
        .expect("it has the slot");
    let answer = gateway
        .get("/api/echo")
        .header("x-request-timeout-ms", "60")
        .send()
        .await;
    answer.refusal(504, "out_of_time");
    api.open_gate();
    held.await.expect("no panic").expect(200);
}

#[tokio::test]
async fn a_caller_who_hangs_up_leaves_the_queue() {
    let (_fleet, api, gateway) = start("bulkhead: { limit: 1, queue: 1, wait: 10s }").await;
    api.close_gate();
    let held = asked(&gateway);
    api.wait_for(|counts| counts.at_gate == 1, SOON)
        .await
        .expect("it has the slot");
    let mut waiting = gateway.connect().await;
    waiting.send("GET /api/echo HTTP/1.1\r\nhost: a\r\n\r\n").await;
    gateway.metric_becomes("gateway_bulkhead_waiting", &API, 1.0).await;
    drop(waiting);
    gateway.metric_becomes("gateway_bulkhead_waiting", &API, 0.0).await;
    let next = asked(&gateway);
    gateway.metric_becomes("gateway_bulkhead_waiting", &API, 1.0).await;
    api.open_gate();
    held.await.expect("no panic").expect(200);
    next.await.expect("no panic").expect(200);
    assert_eq!(api.counts().requests, 2, "whoever left was never sent");
}

#[tokio::test]
async fn a_slot_is_held_to_the_last_byte() {
    let (_fleet, _api, gateway) = start("bulkhead: { limit: 1, queue: 0 }").await;
    let mut streaming = gateway.get("/api/stream/20?every_ms=50").open().await.expect("a head");
    assert_eq!(streaming.status, 200);
    assert!(streaming.piece().await.expect("a piece").is_some());
    gateway.get("/api/echo").send().await.refusal(503, "bulkhead_full");
    while streaming.piece().await.expect("the rest comes").is_some() {}
    gateway.metric_becomes("gateway_bulkhead_in_use", &API, 0.0).await;
    gateway.get("/api/echo").send().await.expect(200);
}

#[tokio::test]
async fn every_slot_comes_back_however_a_call_ends() {
    const LIMIT: usize = 8;
    let guards = "breaker: off, attempt_limit: 30ms, retry: { attempts: 2, backoff: 1ms..2ms }, \
                  bulkhead: { limit: 8, queue: 8, wait: 20ms, tenant_share: 1 }";
    let (_fleet, api, gateway) = start(guards).await;
    let ways = [
        Behaviour::default(),
        Behaviour::status(503),
        Behaviour::always(Fault::Reset),
        Behaviour::always(Fault::Close),
        Behaviour::always(Fault::ResetMidBody),
        Behaviour::always(Fault::CutOff { chunked: true }),
        Behaviour::always(Fault::Garbage),
        Behaviour::always(Fault::Hang),
        Behaviour::late(Latency::fixed(10)),
    ];
    for round in 0..12 {
        api.next(ways.iter().cycle().skip(round).take(20).cloned());
        let crowd = at_once(20, |_| gateway.get("/api/echo"));
        // Some callers stay for their answers, others hang up at various moments.
        let leavers = async {
            for number in 0..10 {
                let mut caller = gateway.connect().await;
                caller.send("GET /api/echo HTTP/1.1\r\nhost: a\r\n\r\n").await;
                if number % 2 == 0 {
                    tokio::task::yield_now().await;
                }
                caller.reset();
            }
        };
        tokio::join!(crowd, leavers);
    }
    gateway.metric_becomes("gateway_bulkhead_in_use", &API, 0.0).await;
    gateway.metric_becomes("gateway_bulkhead_waiting", &API, 0.0).await;
    api.wait_for(|counts| counts.in_flight == 0, SOON)
        .await
        .expect("nothing is left");

    api.heal().await;
    api.close_gate();
    let config = Config::default().open(
        "api",
        api.address(),
        "attempt_limit: 9s, bulkhead: { limit: 8, queue: 0, tenant_share: 1 }",
    );
    gateway.reload(config.to_string()).await;
    let held: Vec<_> = (0..LIMIT).map(|_| asked(&gateway)).collect();
    api.wait_for(|counts| counts.at_gate == LIMIT as u64, SOON)
        .await
        .expect("all slots are there");
    gateway.get("/api/echo").send().await.refusal(503, "bulkhead_full");
    api.open_gate();
    for answer in held {
        answer.await.expect("no panic").expect(200);
    }
}

#[tokio::test]
async fn five_hundred_callers_of_a_hanging_backend_are_no_matter_to_another() {
    let (_fleet, [hanging, well]) = backends(["hanging", "well"]).await;
    let config = Config::default()
        .top("access_log: off")
        .open(
            "hanging",
            hanging.address(),
            "time_limit: 5s, breaker: off, retry: off, bulkhead: { tenant_share: 1 }",
        )
        .open("well", well.address(), "");
    let gateway = Gateway::start(config.to_string()).await;
    let probe = || {
        let client = gateway.another_client();
        move || client.get("/well/echo")
    };
    let rest = tokio::time::sleep;
    let (idle, ()) = steadily(100, probe(), rest(Duration::from_secs(1))).await;
    idle.all(200);

    hanging.behave(Behaviour::always(Fault::Hang)).await;
    let client = gateway.client();
    let crowd = tokio::spawn(at_once(500, move |_| client.get("/hanging/echo")));
    hanging
        .wait_for(|counts| counts.in_flight == 100, SOON)
        .await
        .expect("the bulkhead is full");
    let (busy, ()) = steadily(100, probe(), rest(Duration::from_secs(2))).await;
    busy.all(200);
    assert_eq!(hanging.in_flight(), 100, "all the while");
    hanging.heal().await;
    hanging.reset_connections();
    let crowd = crowd.await.expect("no panic");
    assert!(
        crowd.failures().is_empty(),
        "every one of them is answered: {:?}",
        crowd.statuses()
    );
    // How much is for the benchmarks to judge, on a machine of their own.
    #[allow(clippy::print_stdout)]
    {
        println!(
            "p99 beside a hanging backend {:?}, idle {:?}",
            busy.quantile(0.99),
            idle.quantile(0.99)
        );
    }
}
