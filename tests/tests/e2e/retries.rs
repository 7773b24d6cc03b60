//! Checks retries: only requests that are safe to repeat, only while a retry can help, and never so many that they
//! overload a failing backend.

use std::time::{Duration, Instant};

use fixtures::fleet::{Behaviour, Fault, Fleet, Handle};
use http::Method;
use tests::configs::Config;
use tests::crowd::steadily;
use tests::{Ask, Gateway};
use tokio::time::sleep;

use crate::one_backend;

async fn start(retry: &str) -> (Fleet, Handle, Gateway) {
    let (fleet, api) = one_backend("api").await;
    let guards = format!(
        "breaker: off, bulkhead: {{ limit: 10000 }}, attempt_limit: 500ms, retry: {{ backoff: 1ms..5ms, {retry} }}"
    );
    let config = Config::default().open("api", api.address(), &guards);
    (fleet, api, Gateway::start(config.to_string()).await)
}

fn failures() -> [Behaviour; 6] {
    [
        Behaviour::status(503),
        Behaviour::status(502),
        Behaviour::always(Fault::Reset),
        Behaviour::always(Fault::Close),
        Behaviour::always(Fault::Garbage),
        Behaviour::always(Fault::Hang),
    ]
}

#[tokio::test]
async fn what_may_be_done_twice_is_tried_again() {
    let (_fleet, api, gateway) = start("attempts: 2").await;
    for method in [Method::GET, Method::HEAD] {
        for failure in failures() {
            api.take_requests();
            api.next([failure.clone()]);
            let answer = gateway.client().ask(method.clone(), "/api/echo").send().await;
            assert_eq!(answer.status, 200, "{method} after {failure:?}: {answer:#?}");
            let attempts: Vec<_> = api
                .take_requests()
                .iter()
                .map(|r| r.header("x-attempt").map(str::to_owned))
                .collect();
            assert_eq!(
                attempts,
                [Some("1".into()), Some("2".into())],
                "{method} after {failure:?}"
            );
        }
    }
    assert_eq!(
        gateway.metric("gateway_retries_total", &[("backend", "api")]).await,
        12.0
    );
}

#[tokio::test]
async fn the_answer_of_the_last_attempt_is_the_answer() {
    let (_fleet, api, gateway) = start("attempts: 3").await;
    api.behave(Behaviour::status(503)).await;
    let answer = gateway.get("/api/echo").send().await.expect(503);
    assert_eq!(answer.reason(), None, "a backend's own 503 passes through");
    assert_eq!(answer.json()["error"], "this backend was told to fail");
    assert_eq!(api.counts().requests, 3);
}

#[tokio::test]
async fn a_backend_that_is_not_there_is_tried_again_whatever_the_method() {
    let (_fleet, api, gateway) = start("attempts: 3").await;
    api.behave(Behaviour::refusing()).await;
    gateway
        .post("/api/echo")
        .body("x")
        .send()
        .await
        .refusal(502, "backend_unreached");
    let unreached = [("backend", "api"), ("outcome", "unreached")];
    assert_eq!(gateway.metric("gateway_backend_attempts_total", &unreached).await, 3.0);
    api.heal().await;
    gateway.post("/api/echo").body("x").send().await.expect(200);
}

#[tokio::test]
async fn an_answer_that_will_not_change_is_not_asked_for_again() {
    let (_fleet, api, gateway) = start("attempts: 5").await;
    for status in [400, 401, 404, 409, 429, 500, 501] {
        let answer = gateway
            .get(&format!("/api/status/{status}"))
            .send()
            .await
            .expect(status);
        assert_eq!(answer.reason(), None);
        assert_eq!(api.take_requests().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn what_may_not_be_done_twice_reaches_the_backend_once() {
    let (_fleet, api, gateway) = start("attempts: 5, with_idempotency_key: true").await;
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        for failure in failures() {
            api.take_requests();
            api.next([failure.clone()]);
            let answer = gateway
                .client()
                .ask(method.clone(), "/api/echo")
                .body("one order")
                .send()
                .await;
            assert!(answer.status >= 500, "{method} after {failure:?}: {answer:#?}");
            assert_eq!(api.take_requests().len(), 1, "{method} after {failure:?}");
        }
    }
}

#[tokio::test]
async fn an_idempotency_key_makes_it_safe_where_the_operator_agrees() {
    for (opted_in, reached) in [("true", 2), ("false", 1)] {
        let (_fleet, api, gateway) = start(&format!("attempts: 2, with_idempotency_key: {opted_in}")).await;
        for failure in failures() {
            api.take_requests();
            api.next([failure.clone()]);
            let ask: Ask = gateway
                .post("/api/echo")
                .header("idempotency-key", "k-1")
                .body("one order");
            let answer = ask.send().await;
            assert_eq!(answer.status == 200, reached == 2, "after {failure:?}: {answer:#?}");
            let requests = api.take_requests();
            assert_eq!(requests.len(), reached, "after {failure:?}");
            for request in requests {
                assert_eq!(request.body, b"one order");
                assert_eq!(request.header("idempotency-key"), Some("k-1"));
            }
        }
    }
}

#[tokio::test]
async fn a_body_too_long_to_keep_is_sent_once() {
    let (_fleet, api, gateway) = start("attempts: 2, with_idempotency_key: true, body_limit: 1KiB").await;
    for (length, reached) in [(1024, 2), (1025, 1)] {
        api.take_requests();
        api.next([Behaviour::status(503)]);
        let ask = gateway
            .post("/api/echo")
            .header("idempotency-key", "k")
            .body(vec![b'x'; length]);
        ask.send().await;
        assert_eq!(api.take_requests().len(), reached, "{length} bytes");
    }
    assert_eq!(stopped(&gateway, "body_not_kept").await, 1.0);
}

#[tokio::test]
async fn a_backend_that_says_when_is_believed_if_there_is_time() {
    let (_fleet, api, gateway) = start("attempts: 2").await;
    let later = |seconds| {
        Behaviour::always(Fault::Status {
            status: 503,
            retry_after_s: Some(seconds),
        })
    };
    api.next([later(1)]);
    let begun = Instant::now();
    gateway.get("/api/echo").send().await.expect(200);
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());

    api.next([later(3600)]);
    let begun = Instant::now();
    let answer = gateway.get("/api/echo").send().await.expect(503);
    assert_eq!(answer.retry_after(), 3600);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

/// A 503 with this field.
fn unwell(field: &str) -> Behaviour {
    Behaviour::raw(format!(
        "HTTP/1.1 503 Unwell\r\n{field}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    ))
}

async fn stopped(gateway: &Gateway, reason: &str) -> f64 {
    gateway
        .metric(
            "gateway_retries_stopped_total",
            &[("backend", "api"), ("reason", reason)],
        )
        .await
}

#[tokio::test]
async fn a_date_to_come_back_at_is_understood_in_every_format() {
    let (_fleet, api, gateway) = start("attempts: 2").await;
    for past in [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
    ] {
        api.next([unwell(&format!("retry-after: {past}"))]);
        gateway.get("/api/echo").send().await.expect(200);
    }
    for (number, far) in ["Fri, 31 Dec 9999 23:59:59 GMT", "Fri Dec 31 23:59:59 9999"]
        .into_iter()
        .enumerate()
    {
        api.take_requests();
        api.next([unwell(&format!("retry-after: {far}"))]);
        gateway.get("/api/echo").send().await.expect(503);
        assert_eq!(api.take_requests().len(), 1, "{far}");
        assert_eq!(stopped(&gateway, "retry_after_too_long").await, 1.0 + number as f64);
    }
    // A `Retry-After` that cannot be read is ignored.
    for nonsense in ["soon", "-1", "Fri, 31 Dec 9999 23:59:59 CET"] {
        api.next([unwell(&format!("retry-after: {nonsense}"))]);
        gateway.get("/api/echo").send().await.expect(200);
    }
}

#[tokio::test]
async fn a_grpc_backend_may_push_back() {
    let (_fleet, api, gateway) = start("attempts: 2").await;
    for (pushback, status) in [("5", 200), ("0", 200), ("-1", 503), ("later", 503), ("3600000", 503)] {
        api.next([unwell(&format!("grpc-retry-pushback-ms: {pushback}"))]);
        gateway.get("/api/echo").send().await.expect(status);
    }
    assert_eq!(stopped(&gateway, "pushed_back").await, 2.0);
    assert_eq!(stopped(&gateway, "retry_after_too_long").await, 1.0);
}

#[tokio::test]
async fn waits_can_be_spread_in_every_way() {
    for retry in [
        "jitter: full",
        "jitter: equal",
        "jitter: 1",
        "preset: default",
        "preset: article",
    ] {
        let (_fleet, api, gateway) = start(&format!("attempts: 2, {retry}")).await;
        api.next([Behaviour::status(503)]);
        gateway.get("/api/echo").send().await.expect(200);
    }
}

#[tokio::test]
async fn why_nothing_was_tried_again_is_counted_and_logged() {
    let cases = [
        ("retry: { attempts: 2, backoff: 1ms }, breaker: off", "exhausted", 1),
        (
            "retry: { backoff: 10s }, time_limit: 5s, breaker: off",
            "out_of_time",
            1,
        ),
        (
            "retry: { attempts: 9, backoff: 1ms, share: 0, floor: 1/h }, breaker: off",
            "budget_empty",
            4,
        ),
        (
            "retry: { backoff: 1ms }, breaker: { consecutive: 1, open_for: 1h }",
            "breaker_not_closed",
            1,
        ),
    ];
    for (guards, reason, requests) in cases {
        let (_fleet, api) = one_backend("api").await;
        let gateway = Gateway::start(Config::default().open("api", api.address(), guards).to_string()).await;
        api.behave(Behaviour::status(503)).await;
        for _ in 0..requests {
            gateway.get("/api/echo").send().await.expect(503);
        }
        assert!(stopped(&gateway, reason).await >= 1.0, "{guards}");
        let told = &gateway.admin_json("/api/v1/backends").await["backends"][0]["retry"]["stopped"];
        assert!(told[reason].as_u64() >= Some(1), "{told}");
    }
    // None is counted where nothing is ever tried again.
    let (_fleet, api) = one_backend("api").await;
    let gateway = Gateway::start(Config::default().open("api", api.address(), "retry: off").to_string()).await;
    api.behave(Behaviour::status(503)).await;
    gateway.get("/api/echo").send().await.expect(503);
    assert_eq!(
        gateway
            .metric("gateway_retries_stopped_total", &[("backend", "api")])
            .await,
        0.0
    );
}

#[tokio::test]
async fn a_request_that_is_a_retry_already_is_not_multiplied() {
    let (_fleet, api) = one_backend("api").await;
    let config = Config::default()
        .top("client_address: { trusted_proxies: [127.0.0.0/8] }")
        .open(
            "api",
            api.address(),
            "breaker: off, retry: { attempts: 3, backoff: 1ms..5ms }",
        );
    let gateway = Gateway::start(config.to_string()).await;
    api.behave(Behaviour::status(503)).await;
    gateway
        .get("/api/echo")
        .header("x-attempt", "2")
        .send()
        .await
        .expect(503);
    assert_eq!(api.take_requests().len(), 1);
    assert_eq!(stopped(&gateway, "is_retry").await, 1.0);
    gateway
        .get("/api/echo")
        .header("x-attempt", "1")
        .send()
        .await
        .expect(503);
    assert_eq!(api.take_requests().len(), 3);
}

#[tokio::test]
async fn a_total_outage_costs_the_backend_a_fifth_more_and_the_floor() {
    let (_fleet, api, gateway) = start("attempts: 5, share: 0.2, floor: 3/s").await;
    api.behave(Behaviour::status(503)).await;
    let begun = Instant::now();
    let client = gateway.client();
    let (tally, ()) = steadily(200, || client.get("/api/echo"), sleep(Duration::from_secs(2))).await;
    let seconds = begun.elapsed().as_secs_f64();
    tally.all(503);
    let (first, reached) = (tally.told.len() as f64, api.counts().requests as f64);
    let most = 1.2 * first + 20.0 + 3.0 * seconds;
    assert!(
        reached <= most,
        "{reached} of {first} first attempts reached it, at most {most}"
    );
    assert!(
        reached >= 1.15 * first + 20.0,
        "the budget is there to be used: {reached} of {first}"
    );
}
