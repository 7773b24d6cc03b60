//! Checks that a failing backend gets no calls, that its callers get an answer at once, and that calls resume when it
//! has recovered.

use fixtures::fleet::{Behaviour, Fault, Fleet, Handle, Latency};
use tests::configs::Config;
use tests::crowd::at_once;
use tests::{Gateway, eventually};

use crate::{SOON, backends, one_backend};

const CLOSED: f64 = 0.0;
const OPEN: f64 = 2.0;

/// Opens at 5 calls and 60 %, for 500 ms; needs 2 good probes. Nothing is tried twice.
const BREAKER: &str = "retry: off, attempt_limit: 400ms, \
    breaker: { window: 60s, min_calls: 5, failure_ratio: 0.6, open_for: 500ms, probes: 2 }";

/// The same, and stays open for longer than a test lasts.
const STAYS_OPEN: &str = "retry: off, attempt_limit: 400ms, \
    breaker: { window: 60s, min_calls: 5, failure_ratio: 0.6, open_for: 1h, probes: 2 }";

async fn start(guards: &str) -> (Fleet, Handle, Gateway) {
    let (fleet, api) = one_backend("api").await;
    let config = Config::default().open("api", api.address(), guards);
    (fleet, api, Gateway::start(config.to_string()).await)
}

async fn state(gateway: &Gateway, backend: &str) -> f64 {
    gateway.metric("gateway_breaker_state", &[("backend", backend)]).await
}

async fn opened(gateway: &Gateway) -> f64 {
    gateway
        .metric(
            "gateway_breaker_transitions_total",
            &[("backend", "api"), ("to", "open")],
        )
        .await
}

#[tokio::test]
async fn opens_at_the_ratio_once_there_were_enough_calls() {
    let (_fleet, api, gateway) = start(STAYS_OPEN).await;
    api.next([Behaviour::default(), Behaviour::default()]);
    api.next([(); 3].map(|()| Behaviour::status(500)));
    for expected in [200, 200, 500, 500, 500] {
        assert_eq!(state(&gateway, "api").await, CLOSED);
        gateway.get("/api/echo").send().await.expect(expected);
    }
    assert_eq!(state(&gateway, "api").await, OPEN);
    for _ in 0..10 {
        let refused = gateway.get("/api/echo").send().await;
        refused.refusal(503, "breaker_open");
        assert!(refused.retry_after() > 3500, "until the next probe: {refused:#?}");
    }
    assert_eq!(api.counts().requests, 5, "an open breaker lets nothing through");
}

#[tokio::test]
async fn stays_closed_below_the_ratio_and_for_answers_that_are_no_failures() {
    let (_fleet, api, gateway) = start(STAYS_OPEN).await;
    for _ in 0..10 {
        api.next([Behaviour::default(), Behaviour::status(500)]);
        gateway.get("/api/echo").send().await.expect(200);
        gateway.get("/api/echo").send().await.expect(500);
    }
    for status in [400, 404, 429, 501, 505] {
        for _ in 0..10 {
            gateway
                .get(&format!("/api/status/{status}"))
                .send()
                .await
                .expect(status);
        }
    }
    assert_eq!(state(&gateway, "api").await, CLOSED);
}

#[tokio::test]
async fn every_kind_of_failure_counts() {
    let cases = [
        (Behaviour::status(500), 500),
        (Behaviour::status(502), 502),
        (Behaviour::status(503), 503),
        (Behaviour::status(504), 504),
        (Behaviour::always(Fault::Reset), 502),
        (Behaviour::always(Fault::Close), 502),
        (Behaviour::always(Fault::Garbage), 502),
        (Behaviour::always(Fault::Hang), 504),
        (Behaviour::refusing(), 502),
    ];
    for (failure, status) in cases {
        let (_fleet, api, gateway) = start(STAYS_OPEN).await;
        api.behave(failure.clone()).await;
        let tally = at_once(5, |_| gateway.get("/api/echo")).await;
        assert_eq!(tally.with_status(status), 5, "{failure:?}: {:?}", tally.statuses());
        let refused = gateway.get("/api/echo").send().await;
        assert_eq!(refused.reason(), Some("breaker_open"), "{failure:?}: {refused:#?}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_one_more_failure() {
    let (_fleet, api, gateway) = start(STAYS_OPEN).await;
    api.behave(Behaviour::always(Fault::ResetMidBody)).await;
    for _ in 0..20 {
        // Either it breaks off, or the breaker has opened.
        let _ = gateway.get("/api/echo").try_send().await;
    }
    assert_eq!(state(&gateway, "api").await, OPEN);
}

#[tokio::test]
async fn heals_after_good_probes() {
    let (_fleet, api, gateway) = start(BREAKER).await;
    api.behave(Behaviour::status(503)).await;
    at_once(5, |_| gateway.get("/api/echo")).await.all(503);
    gateway.get("/api/echo").send().await.refusal(503, "breaker_open");
    api.heal().await;
    let closed = || async {
        gateway.get("/api/echo").send().await;
        (state(&gateway, "api").await == CLOSED).then_some(())
    };
    eventually(SOON, "good probes close it", closed).await;
    at_once(20, |_| gateway.get("/api/echo")).await.all(200);
    assert_eq!(opened(&gateway).await, 1.0);
}

#[tokio::test]
async fn a_bad_probe_opens_it_again() {
    let (_fleet, api, gateway) = start(BREAKER).await;
    api.behave(Behaviour::status(503)).await;
    at_once(5, |_| gateway.get("/api/echo")).await.all(503);
    let again = || async {
        gateway.get("/api/echo").send().await.expect(503);
        (opened(&gateway).await >= 3.0).then_some(())
    };
    eventually(SOON, "probes fail", again).await;
    let probes = api.counts().requests - 5;
    assert!((2..=4).contains(&probes), "one probe each time: {probes}");
}

#[tokio::test]
async fn each_bad_probe_keeps_it_open_for_longer() {
    let growing = "retry: off, \
        breaker: { min_calls: 5, open_for: 100ms, growth: 10, open_for_max: 1h, jitter: 0.1, probes: 2 }";
    let (_fleet, api, gateway) = start(growing).await;
    api.behave(Behaviour::status(503)).await;
    // Open for 100 ms, for 1 s, and then for 10 s, each 10 % more or less.
    let thrice = || async {
        gateway.get("/api/echo").send().await.expect(503);
        (opened(&gateway).await == 3.0).then_some(())
    };
    eventually(SOON, "two probes fail", thrice).await;
    let breaker = &gateway.admin_json("/api/v1/backends").await["backends"][0]["breaker"];
    assert_eq!(
        (&breaker["state"], &breaker["counts"]["reopenings"]),
        (&"open".into(), &2.into())
    );
    let left = breaker["retry_in_ms"].as_u64().expect("it is open");
    assert!((1_100..=11_000).contains(&left), "{breaker}");
    let refused = gateway.get("/api/echo").send().await;
    refused.refusal(503, "breaker_open");
    assert!((2..=11).contains(&refused.retry_after()), "{refused:#?}");
}

#[tokio::test]
async fn an_adaptive_one_bears_fewer_failures_of_a_slow_backend() {
    // 30 % are enough if the last ten calls took more than 150 ms on average; else it takes 60 %.
    let adaptive = "retry: off, breaker: { min_calls: 5, adaptive: { latency_window: 10, threshold: 150ms } }";
    for (latency, failures_borne) in [(250, 4), (0, 14)] {
        let (_fleet, api, gateway) = start(adaptive).await;
        let late = |behaviour: Behaviour| behaviour.with_latency(Latency::fixed(latency));
        api.behave(late(Behaviour::default())).await;
        at_once(10, |_| gateway.get("/api/echo")).await.all(200);
        let breaker = gateway.admin_json("/api/v1/backends").await["backends"][0]["breaker"].clone();
        assert!(breaker["mean_latency_ms"].as_u64() >= Some(latency), "{breaker}");
        if latency == 0 && breaker["mean_latency_ms"].as_u64() > Some(150) {
            // The machine itself is that slow.
            continue;
        }
        api.behave(late(Behaviour::status(500))).await;
        for _ in 0..failures_borne {
            gateway.get("/api/echo").send().await.expect(500);
        }
        assert_eq!(
            state(&gateway, "api").await,
            CLOSED,
            "{failures_borne} failures at {latency} ms"
        );
        gateway.get("/api/echo").send().await.expect(500);
        assert_eq!(state(&gateway, "api").await, OPEN);
    }
}

#[tokio::test]
async fn half_open_lets_through_no_more_than_its_probes() {
    let (_fleet, api, gateway) = start(BREAKER).await;
    api.behave(Behaviour::status(503)).await;
    at_once(5, |_| gateway.get("/api/echo")).await.all(503);
    api.heal().await;
    api.close_gate();
    let client = gateway.client();
    let probes = tokio::spawn(async move {
        let probe = || async {
            let answer = client.get("/api/echo").send().await;
            (answer.reason() != Some("breaker_open")).then_some(answer)
        };
        tokio::join!(
            eventually(SOON, "a probe", probe),
            eventually(SOON, "another probe", probe)
        )
    });
    api.wait_for(|counts| counts.at_gate == 2, SOON)
        .await
        .expect("two probes are sent");
    let tally = at_once(20, |_| gateway.get("/api/echo")).await;
    assert_eq!(tally.statuses().len(), 1, "{:?}", tally.statuses());
    assert_eq!(
        tally.answers().next().and_then(|answer| answer.reason()),
        Some("breaker_open")
    );
    api.open_gate();
    let (one, other) = probes.await.expect("no panic");
    assert_eq!((one.status, other.status), (200, 200));
    gateway.get("/api/echo").send().await.expect(200);
    assert_eq!(state(&gateway, "api").await, CLOSED);
}

#[tokio::test]
async fn callers_who_want_too_little_time_cannot_open_it() {
    let (_fleet, api, gateway) = start(STAYS_OPEN).await;
    api.behave(Behaviour::always(Fault::Hang)).await;
    let tally = at_once(30, |_| gateway.get("/api/echo").header("x-request-timeout-ms", "40")).await;
    tally.all(504);
    assert_eq!(state(&gateway, "api").await, CLOSED);
    api.heal().await;
    gateway.get("/api/echo").send().await.expect(200);
}

#[tokio::test]
async fn callers_who_hang_up_cannot_open_it() {
    let (_fleet, api, gateway) = start(STAYS_OPEN).await;
    api.close_gate();
    for number in 1..=20 {
        let mut caller = gateway.connect().await;
        caller.send("GET /api/echo HTTP/1.1\r\nhost: a\r\n\r\n").await;
        api.wait_for(|counts| counts.at_gate == 1, SOON)
            .await
            .expect("it is asked");
        caller.reset();
        api.wait_for(|counts| counts.cancelled == number, SOON)
            .await
            .expect("it is cancelled");
    }
    api.open_gate();
    assert_eq!(state(&gateway, "api").await, CLOSED);
    gateway.get("/api/echo").send().await.expect(200);
}

#[tokio::test]
async fn is_shared_by_the_routes_of_a_backend_and_by_no_other_backend() {
    let (_fleet, [sick, well]) = backends(["sick", "well"]).await;
    let config = Config::default()
        .open("sick", sick.address(), STAYS_OPEN)
        .open_route("sick_too", "sick", "")
        .open("well", well.address(), STAYS_OPEN);
    let gateway = Gateway::start(config.to_string()).await;
    sick.behave(Behaviour::status(500)).await;
    at_once(5, |_| gateway.get("/sick/echo")).await.all(500);
    gateway.get("/sick_too/echo").send().await.refusal(503, "breaker_open");
    at_once(20, |_| gateway.get("/well/echo")).await.all(200);
    assert_eq!(state(&gateway, "well").await, CLOSED);
}
