//! What a part asks, and how: nothing of how the caller would have the whole, and an answer that can be read.

use fixtures::fleet::{Behaviour, Fleet, Keep, Spec};
use tests::configs::Config;
use tests::{Gateway, eventually};

use crate::SOON;

async fn start(part: &str) -> (Fleet, Gateway) {
    let fleet = Fleet::start([Spec::new("one").keep(Keep::default())])
        .await
        .expect("a port is free");
    let config = Config::default()
        .backend("one", fleet.address("one"), "retry: off")
        .route(
            "all",
            &format!(
                "{{ match: {{ path: /all }}, access: {{ any_of: [anonymous] }}, time_limit: 2s, \
             aggregate: {{ parts: {{ one: {{ backend: one, path: /echo{part} }} }} }} }}"
            ),
        );
    let gateway = Gateway::start(config.to_string()).await;
    (fleet, gateway)
}

#[tokio::test]
async fn how_the_caller_would_have_the_whole_is_not_for_parts() {
    let (fleet, gateway) = start("").await;
    let ask = gateway
        .post("/all")
        .body("{}")
        .header("accept", "text/html")
        .header("accept-encoding", "gzip, br")
        .header("range", "bytes=0-1")
        .header("if-range", "\"7\"")
        .header("if-none-match", "\"7\"")
        .header("if-modified-since", "Mon, 01 Jan 2024 00:00:00 GMT")
        .header("content-type", "text/plain")
        .header("content-language", "de")
        .header("content-digest", "sha-256=:x:")
        .header("digest", "md5=x")
        .header("accept-language", "de");
    ask.send().await.expect(200);
    let asked = &fleet.backend("one").requests()[0];
    let fields = [
        ("accept", Some("application/json")),
        ("accept-encoding", Some("identity")),
        ("accept-language", Some("de")),
        ("range", None),
        ("if-range", None),
        ("if-none-match", None),
        ("if-modified-since", None),
        ("content-type", None),
        ("content-language", None),
        ("content-digest", None),
        ("digest", None),
    ];
    for (name, expected) in fields {
        assert_eq!(asked.header(name), expected, "{name}");
    }
    assert_eq!((asked.method.as_str(), asked.body_length), ("GET", 0));
}

#[tokio::test]
async fn a_body_is_json_of_the_type_that_is_written() {
    for (written, expected) in [
        (", body: { x: 1 }", "application/json"),
        (
            ", body: { x: 1 }, headers: { content-type: application/vnd.api+json }",
            "application/vnd.api+json",
        ),
    ] {
        let (fleet, gateway) = start(written).await;
        gateway.get("/all").send().await.expect(200);
        let asked = &fleet.backend("one").requests()[0];
        assert_eq!(asked.header("content-type"), Some(expected));
        assert_eq!(asked.body.as_slice(), b"{\"x\":1}");
    }
}

#[tokio::test]
async fn what_is_sent_for_all_elements_is_bounded() {
    let (fleet, gateway) = start(r#", for_each: { in: "{body.items}", limit: 1000 }, body: { whole: "{body}" }"#).await;
    let order = |items: usize, note: usize| {
        let items = vec!["1"; items].join(",");
        format!("{{\"items\":[{items}],\"note\":\"{}\"}}", "x".repeat(note))
    };
    let answer = gateway.post("/all").body(order(10, 1 << 10)).send().await.expect(200);
    assert_eq!(answer.json()["one"].as_array().map(Vec::len), Some(10));
    // Their bodies are too much, or the fields that all of them have; nothing of it is sent.
    let answer = gateway.post("/all").body(order(100, 200_000)).send().await;
    answer.refusal(400, "too_many_elements");
    let ask = gateway.post("/all").body(order(1_000, 0));
    let answer = ask.header("x-large", &"x".repeat(20_000)).send().await;
    answer.refusal(400, "too_many_elements");
    assert_eq!(fleet.backend("one").counts().requests, 10);
}

#[tokio::test]
async fn an_encoded_answer_is_a_failed_part_and_the_log_says_so() {
    let (fleet, gateway) = start("").await;
    let answer = |coding: &str| {
        Behaviour::raw(format!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-encoding: {coding}\r\ncontent-length: 2\r\n\r\n{{}}"
        ))
    };
    let one = fleet.backend("one");
    one.behave(answer("identity")).await;
    gateway.get("/all").send().await.expect(200);
    one.behave(answer("gzip")).await;
    gateway.get("/all").send().await.refusal(502, "invalid_json");
    eventually(SOON, "the log says why", || async {
        gateway.stdout().contains("one: its answer is encoded").then_some(())
    })
    .await;
}
