//! Checks the requests of parts: preferences of the caller for the whole answer are not passed on, and the answer is in
//! a form that the gateway can read.

use fixtures::fleet::{Behaviour, Fleet, Keep, Spec};
use tests::configs::Config;
use tests::{Gateway, eventually};

use crate::{SOON, one_backend};

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
async fn an_encoded_answer_is_decoded_or_a_failed_part_and_the_log_says_why() {
    /// `{"a":1.50}` in gzip.
    const GZIP: &[u8] = &[
        31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 171, 86, 74, 84, 178, 50, 212, 51, 53, 168, 5, 0, 85, 69, 88, 175, 10, 0, 0, 0,
    ];
    const PLAIN: &[u8] = b"{\"a\":1.50}";
    let (fleet, gateway) = start("").await;
    let one = fleet.backend("one");
    let answers = async |fields: &str, body: &[u8]| {
        let head = format!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\n{fields}content-length: {}\r\n\r\n",
            body.len()
        );
        one.behave(Behaviour::raw([head.as_bytes(), body].concat())).await;
        gateway.get("/all").send().await
    };
    let logged = async |text: &str| {
        let is_there = || async { gateway.stdout().contains(text).then_some(()) };
        eventually(SOON, "the log says why", is_there).await;
    };
    for (fields, body) in [
        ("", PLAIN),
        ("content-encoding: \r\n", PLAIN),
        ("content-encoding: identity\r\n", PLAIN),
        ("content-encoding: gzip\r\n", GZIP),
        ("content-encoding: x-gzip\r\n", GZIP),
        ("", &[b"\xef\xbb\xbf", PLAIN].concat()),
    ] {
        let answer = answers(fields, body).await.expect(200);
        assert!(answer.text().contains("1.50"), "{fields}: {answer:#?}");
    }
    for fields in ["content-encoding: compress\r\n", "content-encoding: br, br, br\r\n"] {
        answers(fields, PLAIN).await.refusal(502, "unsupported_encoding");
    }
    logged("one: its content-encoding cannot be undone").await;
    answers("content-encoding: gzip\r\n", PLAIN)
        .await
        .refusal(502, "unsupported_encoding");
    logged("one: its bytes are not gzip").await;
    answers("content-type: text/html\r\n", b"{\"a\":1,<html>")
        .await
        .refusal(502, "invalid_json");
    logged("one: refused at byte 7 of its answer").await;
}

#[tokio::test]
async fn a_part_gets_the_fields_that_are_written_for_it() {
    let (_fleet, api) = one_backend("api").await;
    let config = Config::default().backend("api", api.address(), "retry: off").route(
        "all",
        "{ match: { path: /all }, access: { any_of: [anonymous] }, aggregate: { forward: [cookie, x-wanted], parts: { \
         named: { backend: api, path: /named }, \
         none: { backend: api, path: /none, forward: [], headers: { x-made: \"{header.x-other}\" } }, \
         all: { backend: api, path: /all, forward: all }, \
         writes: { backend: api, path: /writes, method: POST, body: {}, forward: [accept-language] } } } }",
    );
    let gateway = Gateway::start(config.to_string()).await;
    let fields = [
        ("cookie", "a=1; b=2"),
        ("authorization", "Bearer of-the-backend"),
        ("x-wanted", "w"),
        ("x-other", "o"),
        ("accept-language", "de"),
        ("user-agent", "test"),
        ("idempotency-key", "k"),
        ("x-tenant-id", "forged"),
        ("content-language", "de"),
    ];
    let mut ask = gateway.post("/all");
    for (name, value) in fields {
        ask = ask.header(name, value);
    }
    ask.send().await.expect(200);
    let requests = api.requests();
    let of = |path: &str| {
        let request = requests.iter().find(|request| request.target == path).expect(path);
        // What the gateway writes comes to every part.
        for name in ["x-request-id", "via", "traceparent", "x-tenant-id", "x-forwarded-for"] {
            assert!(
                request.header(name).is_some_and(|value| value != "forged"),
                "{path} {name}"
            );
        }
        let names = fields
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| *name != "x-tenant-id");
        names.filter(|name| request.header(name).is_some()).collect::<Vec<_>>()
    };
    assert_eq!(of("/named"), ["cookie", "x-wanted"]);
    assert_eq!(of("/none"), [""; 0]);
    assert_eq!(
        of("/all"),
        [
            "cookie",
            "authorization",
            "x-wanted",
            "x-other",
            "accept-language",
            "user-agent"
        ]
    );
    assert_eq!(of("/writes"), ["accept-language", "idempotency-key"]);
    let made = requests
        .iter()
        .find(|request| request.target == "/none")
        .expect("it is asked");
    assert_eq!(
        made.header("x-made"),
        Some("o"),
        "a template may use what is not passed on"
    );
    let told = requests
        .iter()
        .find(|request| request.target == "/writes")
        .expect("it is asked");
    assert_eq!(told.header("idempotency-key"), Some("k:writes"));
}
