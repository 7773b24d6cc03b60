//! Checks deadlines: one time budget for the whole answer, which a caller may shorten, a backend is told, and nothing
//! exceeds.

use std::time::{Duration, Instant};

use fixtures::fleet::{Behaviour, Fault, Fleet, Handle, Latency};
use tests::configs::Config;
use tests::{Answer, Ask, Failure, Gateway};

use crate::{SOON, one_backend};

async fn start(guards: &str, route: &str) -> (Fleet, Handle, Gateway) {
    let (fleet, api) = one_backend("api").await;
    let config = Config::default()
        .backend("api", api.address(), guards)
        .open_route("api", "api", route);
    (fleet, api, Gateway::start(config.to_string()).await)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Asks some times: never may the answer come sooner than the budget, and at least once it has to come within 50 ms
/// after. A machine that is busy with other tests may hold up some of them, but not all.
async fn takes(budget: Duration, ask: impl Fn() -> Ask) -> Answer {
    const TIMES: usize = 5;
    let mut all = Vec::new();
    for _ in 0..TIMES {
        let begun = Instant::now();
        let answer = ask().send().await;
        all.push((begun.elapsed(), answer));
    }
    all.sort_by_key(|(took, _)| *took);
    let (took, answer) = all.swap_remove(0);
    assert!(
        (budget..budget + ms(50)).contains(&took),
        "took {took:?} of {budget:?}: {answer:#?}"
    );
    answer
}

#[tokio::test]
async fn a_hanging_backend_costs_a_caller_its_budget_and_no_more() {
    let (_fleet, api, gateway) = start("breaker: off", "time_limit: 300ms").await;
    api.behave(Behaviour::always(Fault::Hang)).await;
    let answer = takes(ms(300), || gateway.get("/api/echo")).await;
    answer.refusal(504, "out_of_time");
}

#[tokio::test]
async fn a_backends_own_limit_is_named_as_the_cause() {
    let (_fleet, api, gateway) = start("breaker: off, retry: off, attempt_limit: 200ms", "time_limit: 5s").await;
    api.behave(Behaviour::always(Fault::Hang)).await;
    let answer = takes(ms(200), || gateway.get("/api/echo")).await;
    answer.refusal(504, "backend_timeout");
}

#[tokio::test]
async fn all_attempts_together_stay_within_the_calls_limit() {
    let guards = "breaker: off, time_limit: 400ms, attempt_limit: 150ms, \
                  retry: { attempts: 10, backoff: 1ms..1ms, on: [timed_out] }";
    let (_fleet, api, gateway) = start(guards, "time_limit: 5s").await;
    api.behave(Behaviour::always(Fault::Hang)).await;
    let answer = takes(ms(400), || gateway.get("/api/echo")).await;
    answer.refusal(504, "backend_timeout");
    let attempts: Vec<_> = api
        .requests()
        .iter()
        .filter_map(|r| r.header("x-attempt").map(str::to_owned))
        .collect();
    assert_eq!(attempts[..3], ["1", "2", "3"]);
}

#[tokio::test]
async fn a_caller_may_want_less_time_and_cannot_have_more() {
    let (_fleet, api, gateway) = start("breaker: off", "time_limit: 300ms").await;
    api.behave(Behaviour::always(Fault::Hang)).await;
    for (field, value, budget) in [
        ("x-request-timeout-ms", "200", 200),
        ("x-request-timeout-ms", "60000", 300),
        ("grpc-timeout", "150m", 150),
        ("grpc-timeout", "1H", 300),
    ] {
        let answer = takes(ms(budget), || gateway.get("/api/echo").header(field, value)).await;
        assert_eq!(answer.status, 504, "{field}: {value}");
    }
}

#[tokio::test]
async fn each_attempt_is_told_what_is_left() {
    let guards = "breaker: off, retry: { attempts: 3, backoff: 20ms..40ms }";
    let (_fleet, api, gateway) = start(guards, "time_limit: 5s").await;
    api.behave(Behaviour::status(503).with_latency(Latency::fixed(20)))
        .await;
    gateway.get("/api/echo").send().await.expect(503);
    let told = |name: &str| -> Vec<u64> {
        let values = api.requests();
        values
            .iter()
            .map(|r| r.header(name).and_then(|v| v.parse().ok()).expect("a number"))
            .collect()
    };
    assert_eq!(told("x-attempt"), [1, 2, 3]);
    let left = told("x-request-timeout-ms");
    assert!(left[0] <= 5_000 && left[0] > 4_000, "{left:?}");
    for pair in left.windows(2) {
        assert!(
            pair[1] + 35 <= pair[0],
            "an attempt of 20 ms and a wait of 18 at least: {left:?}"
        );
    }
}

#[tokio::test]
async fn what_the_caller_wants_is_what_the_backend_is_told() {
    let (_fleet, _api, gateway) = start("", "time_limit: 5s").await;
    let answer = gateway
        .get("/api/echo")
        .header("x-request-timeout-ms", "700")
        .send()
        .await
        .expect(200);
    let left: u64 = answer
        .echoed("x-request-timeout-ms")
        .and_then(|v| v.parse().ok())
        .expect("a number");
    assert!((1..=700).contains(&left), "{left}");
}

#[tokio::test]
async fn nothing_begins_that_could_not_end() {
    let (_fleet, api, gateway) = start("", "time_limit: 5s").await;
    let answer = gateway
        .get("/api/echo")
        .header("x-request-timeout-ms", "1")
        .send()
        .await;
    answer.refusal(504, "out_of_time");
    assert_eq!(api.counts().requests, 0);
}

#[tokio::test]
async fn a_caller_who_hangs_up_frees_slot_and_backend_at_once() {
    let (_fleet, api, gateway) = start("bulkhead: { limit: 1, queue: 0 }", "time_limit: 20s").await;
    api.next([Behaviour::always(Fault::Hang)]);
    let mut caller = gateway.connect().await;
    caller.send("GET /api/echo HTTP/1.1\r\nhost: a\r\n\r\n").await;
    api.wait_for(|counts| counts.in_flight == 1, SOON)
        .await
        .expect("it is asked");
    let hung_up = Instant::now();
    drop(caller);
    api.wait_for(|counts| counts.cancelled == 1, SOON)
        .await
        .expect("the connection is closed");
    assert!(hung_up.elapsed() < ms(2000), "{:?}", hung_up.elapsed());
    gateway
        .metric_becomes("gateway_bulkhead_in_use", &[("backend", "api")], 0.0)
        .await;
    gateway.get("/api/echo").send().await.expect(200);
}

#[tokio::test]
async fn a_caller_who_hangs_up_during_the_answer_frees_slot_and_backend_at_once() {
    let (_fleet, api, gateway) = start("bulkhead: { limit: 1, queue: 0 }", "time_limit: 20s").await;
    let mut caller = gateway.connect().await;
    caller
        .send("GET /api/stream/1000?every_ms=50 HTTP/1.1\r\nhost: a\r\n\r\n")
        .await;
    assert!(caller.head().await.starts_with("HTTP/1.1 200"));
    caller.reset();
    api.wait_for(|counts| counts.cancelled == 1, SOON)
        .await
        .expect("the connection is closed");
    gateway
        .metric_becomes("gateway_bulkhead_in_use", &[("backend", "api")], 0.0)
        .await;
    gateway.get("/api/echo").send().await.expect(200);
}

#[tokio::test]
async fn the_budget_covers_the_whole_answer() {
    let (_fleet, api, gateway) = start("", "time_limit: 300ms").await;
    let begun = Instant::now();
    let came = gateway.get("/api/stream/1000?every_ms=20").try_send().await;
    assert!(
        matches!(
            came,
            Err(Failure::Aborted {
                status: 200,
                received: 1..
            })
        ),
        "{came:?}"
    );
    assert!((ms(250)..ms(1500)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    api.wait_for(|counts| counts.cancelled == 1, SOON)
        .await
        .expect("the connection is closed");
    assert_eq!(
        gateway
            .metric("gateway_aborted_responses_total", &[("route", "api")])
            .await,
        1.0
    );
}

#[tokio::test]
async fn streams_may_outlast_the_budget() {
    let (_fleet, _api, gateway) = start("", "time_limit: 200ms, stream: true").await;
    let answer = gateway.get("/api/stream/20?every_ms=25").send().await.expect(200);
    assert_eq!(answer.text().lines().count(), 20);
    let (_fleet, _api, gateway) = start("", "time_limit: 200ms").await;
    let answer = gateway.get("/api/sse?events=20&every_ms=25").send().await.expect(200);
    assert_eq!(answer.text().matches("event: tick").count(), 20);
}
