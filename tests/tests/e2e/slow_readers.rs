//! Checks callers that do not read: the resources of an answer are released when the request's time is over, however
//! slowly the answer is read.

use std::time::Duration;

use fixtures::fleet::{Fleet, Handle};
use h2::client::Builder;
use http::Method;
use tests::configs::Config;
use tests::http2_caller::Http2;
use tests::{Gateway, Raw, eventually};

use crate::{SOON, one_backend};

const API: [(&str, &str); 1] = [("backend", "api")];
const GUARDS: &str = "retry: off, breaker: off, bulkhead: { limit: 2, queue: 0 }";
/// Far more than all buffers on the way take.
const LARGE: &str = "/bytes/60000000";

/// `/api` has a limit, `/long` is a stream. `write` and the rates would end nobody within the time of a test.
async fn start(more: &str) -> (Fleet, Handle, Gateway) {
    let (fleet, api) = one_backend("api").await;
    let config = Config::default()
        .top("minimum_rates: off")
        .top("time_limits: { write: 10m, idle_stream: 10m }")
        .backend("api", api.address(), GUARDS)
        .open_route("api", "api", &format!("time_limit: 700ms{more}"))
        .open_route("long", "api", "time_limit: 700ms, stream: true");
    (fleet, api, Gateway::start(config.to_string()).await)
}

async fn asks(gateway: &Gateway, path: &str) -> Raw {
    let mut caller = gateway.connect().await;
    caller.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
    assert!(caller.head().await.starts_with("HTTP/1.1 200"));
    caller
}

async fn comes_back(gateway: &Gateway, api: &Handle) {
    gateway.metric_becomes("gateway_bulkhead_in_use", &API, 0.0).await;
    gateway.metric_becomes("gateway_requests_in_flight", &[], 0.0).await;
    api.wait_for(|counts| counts.in_flight == 0, SOON)
        .await
        .expect("the backend's connection ends");
    eventually(SOON, "the log says whose fault it was", || async {
        gateway.stdout().contains("out of time within the body").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_slot_comes_back_in_time_although_nothing_is_read() {
    let (_fleet, api, gateway) = start("").await;
    let _caller = asks(&gateway, &format!("/api{LARGE}")).await;
    comes_back(&gateway, &api).await;
}

#[tokio::test]
async fn a_slot_comes_back_in_time_although_something_is_read_now_and_then() {
    let (_fleet, api, gateway) = start("").await;
    let mut caller = asks(&gateway, &format!("/api{LARGE}")).await;
    let reads = async {
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        while caller.piece().await.is_some() {
            pace.tick().await;
        }
    };
    tokio::join!(reads, comes_back(&gateway, &api));
}

#[tokio::test]
async fn a_stream_that_is_not_read_is_reset_in_time_and_its_neighbour_goes_on() {
    let (_fleet, api, gateway) = start("").await;
    let windows = Builder::new()
        .initial_window_size(64 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .to_owned();
    let caller = Http2::connect_with(gateway.address(), &windows).await;
    let idle = caller
        .send(caller.request(Method::GET, &format!("/api{LARGE}")), true)
        .await
        .expect("it is taken");
    let answer = idle.head().await.expect("a head");
    comes_back(&gateway, &api).await;
    assert_eq!(caller.get("/api/echo").await.expect("an answer").status, 200);
    let (_, mut body) = answer.into_parts();
    let mut told = Ok(());
    while let Some(piece) = body.data().await {
        match piece {
            Ok(piece) => body.flow_control().release_capacity(piece.len()).expect("it came"),
            Err(error) => told = Err(error),
        }
        if told.is_err() {
            break;
        }
    }
    assert!(told.is_err_and(|error| error.is_reset()), "it is not taken for whole");
}

#[tokio::test]
async fn a_place_among_the_requests_at_once_comes_back_in_time_as_well() {
    let (_fleet, api) = one_backend("api").await;
    let config = Config::default()
        .top("minimum_rates: off")
        .top("time_limits: { write: 10m }")
        .backend("api", api.address(), GUARDS)
        .open_route(
            "api",
            "api",
            "time_limit: 700ms, limits: { few: { in_flight: 1, per: route } }",
        );
    let gateway = Gateway::start(config.to_string()).await;
    let caller = Http2::connect_with(gateway.address(), Builder::new().initial_window_size(0)).await;
    let idle = caller
        .send(caller.request(Method::GET, &format!("/api{LARGE}")), true)
        .await
        .expect("it is taken");
    let _answer = idle.head().await.expect("a head");
    gateway.get("/api/echo").send().await.refusal(429, "too_many_in_flight");
    eventually(SOON, "the place is free again", || async {
        (gateway.get("/api/echo").send().await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_route_of_streams_says_so_and_is_exempt() {
    let (_fleet, api, gateway) = start("").await;
    let _exempt = asks(&gateway, &format!("/long{LARGE}")).await;
    let _held = asks(&gateway, &format!("/api{LARGE}")).await;
    // The second has begun later, and its time is over.
    gateway.metric_becomes("gateway_bulkhead_in_use", &API, 0.0).await;
    assert_eq!(gateway.metric("gateway_bulkhead_streams_in_use", &API).await, 1.0);
    // The backend notices a moment later that the other is gone.
    api.wait_for(|counts| counts.in_flight == 1, SOON)
        .await
        .expect("one is left");
}
