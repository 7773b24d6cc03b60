//! Checks the limits of JSON: bodies from which values are read are short unless the config says otherwise, and the
//! memory for all of them is bounded, of which one tenant gets at most half.

use fixtures::fleet::{Behaviour, Fleet, Handle, Spec};
use tests::configs::Config;
use tests::{Gateway, eventually};

use crate::SOON;

/// `/body` sends the whole body on, and `/part` shows an answer; `/long/...` may be longer than others; `/both`
/// waits for another answer, too.
async fn start(top: &str) -> (Fleet, Handle, Gateway) {
    let fleet = Fleet::start([Spec::new("one"), Spec::new("two")])
        .await
        .expect("ports are free");
    let route = |path: &str, more: &str, part: &str| {
        format!(
            "{{ match: {{ path: {path} }}, access: {{ any_of: [anonymous] }}{more}, \
             aggregate: {{ parts: {{ a: {{ backend: one, path: /echo, {part} }} }} }} }}"
        )
    };
    let whole = "method: POST, body: { a: \"{body}\" }";
    let config = Config::default()
        .top(top)
        .backend("one", fleet.address("one"), "retry: off, breaker: off")
        .route("body", &route("/body", "", whole))
        .route("long", &route("/long/body", ", body_limit: 4MiB", whole))
        .route("part", &route("/part", "", "keep: [a]"))
        .route("long_part", &route("/long/part", "", "body_limit: 4MiB, keep: [a]"))
        .backend("two", fleet.address("two"), "retry: off, breaker: off")
        .route(
            "both",
            &route("/both", "", "body_limit: 4MiB }, b: { backend: two, path: /echo"),
        );
    let gateway = Gateway::start(config.to_string()).await;
    let one = fleet.backend("one");
    (fleet, one, gateway)
}

/// Of so many bytes.
fn text(length: usize) -> String {
    format!("{{\"a\":\"{}\"}}", "x".repeat(length - 8))
}

fn answer(body: &str) -> Behaviour {
    let length = body.len();
    Behaviour::raw(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    ))
}

/// Returns the setting that decided on the newest rejection, according to the admin API.
async fn decided_by(gateway: &Gateway, expected: &str) {
    let shown = gateway.admin_json("/api/v1/rejections").await;
    assert_eq!(shown["rejections"][0]["decided_by"]["setting"], expected, "{shown:#}");
}

#[tokio::test]
async fn a_body_that_values_are_taken_from_is_short_unless_its_route_says_otherwise() {
    let (_fleet, one, gateway) = start("").await;
    const KIB: usize = 1024;
    let post = |path, length| gateway.post(path).body(text(length)).send();
    post("/body", 256 * KIB).await.expect(200);
    post("/body", 256 * KIB + 1).await.refusal(413, "body_too_large");
    post("/long/body", 4096 * KIB).await.expect(200);
    post("/long/body", 4096 * KIB + 1).await.refusal(413, "body_too_large");
    one.behave(answer(&text(1024 * KIB))).await;
    gateway.get("/part").send().await.expect(200);
    one.behave(answer(&text(1024 * KIB + 1))).await;
    gateway.get("/part").send().await.refusal(502, "too_large");
    gateway.get("/long/part").send().await.expect(200);

    let (_fleet, _one, gateway) = start("request_limits: { json_body: 1KiB }").await;
    let post = |path, length| gateway.post(path).body(text(length)).send();
    post("/body", KIB).await.expect(200);
    post("/body", KIB + 1).await.refusal(413, "body_too_large");
    post("/long/body", 4096 * KIB).await.expect(200);
    decided_by(&gateway, "request_limits.json_body").await;
}

#[tokio::test]
async fn a_body_has_no_more_values_than_a_quarter_of_its_bytes_could_be() {
    let (_fleet, _one, gateway) = start("").await;
    let zeros = |count: usize| format!("[{}0]", "0,".repeat(count - 1));
    gateway.post("/body").body(zeros(65_000)).send().await.expect(200);
    let answer = gateway.post("/body").body(zeros(70_000)).send().await;
    answer.refusal(400, "malformed_request");
    assert!(answer.text().contains("more values"), "{answer:#?}");
    gateway.post("/long/body").body(zeros(70_000)).send().await.expect(200);
}

#[tokio::test]
async fn what_is_held_at_once_is_bounded_and_given_back() {
    let (_fleet, one, gateway) = start("request_limits: { json_total: 16MiB }").await;
    // A tenant has 8 MiB. Each of these takes 2 MiB: while it is read, and then with the request that is made of it.
    let post = || {
        let ask = gateway.post("/long/body").body(text(1 << 20));
        tokio::spawn(ask.send())
    };
    one.close_gate();
    let mut held = Vec::new();
    for number in 1..=3 {
        held.push(post());
        let waits = one.wait_for(move |counts| counts.at_gate == number, SOON);
        waits.await.expect("it is sent on");
    }
    let refused = post().await.expect("no panic");
    refused.refusal(503, "overloaded");
    assert_eq!(refused.header("retry-after"), Some("1"));
    let reserved = gateway.metric("gateway_json_reserved_bytes", &[]).await;
    assert!((6e6..6.4e6).contains(&reserved), "{reserved}");
    assert_eq!(gateway.metric("gateway_json_refused_total", &[]).await, 1.0);
    // A short body still finds room.
    let short = tokio::spawn(gateway.post("/body").body(text(1_000)).send());
    let waits = one.wait_for(|counts| counts.at_gate == 4, SOON);
    waits.await.expect("it is sent on");
    one.open_gate();
    for held in held {
        held.await.expect("no panic").expect(200);
    }
    short.await.expect("no panic").expect(200);
    eventually(SOON, "all of it is given back", || async {
        (gateway.metric("gateway_json_reserved_bytes", &[]).await == 0.0).then_some(())
    })
    .await;
    post().await.expect("no panic").expect(200);
    decided_by(&gateway, "request_limits.json_total").await;
}

#[tokio::test]
async fn an_answer_for_which_there_is_no_room_is_a_failed_part() {
    let (fleet, one, gateway) = start("request_limits: { json_total: 16MiB }").await;
    let two = fleet.backend("two");
    one.behave(answer(&text(3 << 20))).await;
    two.close_gate();
    // One answer has arrived, of which 6 MiB are counted, and another is awaited.
    let first = tokio::spawn(gateway.get("/both").send());
    let waits = two.wait_for(|counts| counts.at_gate == 1, SOON);
    waits.await.expect("it is asked");
    eventually(SOON, "the first answer is held", || async {
        (gateway.metric("gateway_json_reserved_bytes", &[]).await >= 6e6).then_some(())
    })
    .await;
    let refused = gateway.get("/long/part").send().await;
    refused.refusal(503, "overloaded");
    assert_eq!(refused.header("retry-after"), Some("1"));
    two.open_gate();
    first.await.expect("no panic").expect(200);
    eventually(SOON, "all of it is given back", || async {
        (gateway.metric("gateway_json_reserved_bytes", &[]).await == 0.0).then_some(())
    })
    .await;
    gateway.get("/long/part").send().await.expect(200);
}
