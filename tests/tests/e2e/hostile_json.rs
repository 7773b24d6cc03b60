//! Checks untrusted JSON: it is a value or a rejection, no name in it has a meaning for the gateway, no depth overflows
//! the stack, and two readers of what passes read the same.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fixtures::fleet::{Behaviour, Fleet, Spec};
use tests::Gateway;
use tests::configs::Config;

use crate::callers;

const RAW: &str = "$serde_json::private::RawValue";
const NUMBER: &str = "$serde_json::private::Number";

/// Routes that read what a stranger writes: `/body` takes a member of the caller's JSON and `/whole` all of it,
/// `/shaped` cuts an answer to shape, `/deep` merges two, `/each` makes a call for each element of an answer.
async fn start() -> (Fleet, Gateway) {
    let fleet = Fleet::start([Spec::new("echo"), Spec::new("parts")])
        .await
        .expect("ports are free");
    let aggregate = |path: &str, parts: &str| {
        format!(
            "{{ match: {{ path: {path} }}, access: {{ any_of: [anonymous] }}, aggregate: {{ conflict: deep, parts: {{ {parts} }} }} }}"
        )
    };
    let config = Config::default()
        .backend("echo", fleet.address("echo"), "retry: off, breaker: off")
        .backend("parts", fleet.address("parts"), "retry: off, breaker: off")
        .route(
            "body",
            &aggregate(
                "/body",
                "a: { backend: echo, path: /echo, headers: { x-a: \"{body.a}\" } }",
            ),
        )
        .route(
            "whole",
            &aggregate(
                "/whole",
                "a: { backend: echo, path: /echo, method: POST, body: { a: \"{body}\" } }",
            ),
        )
        .route(
            "shaped",
            &aggregate("/shaped", "a: { backend: parts, path: /a, keep: [a] }"),
        )
        .route(
            "deep",
            &aggregate(
                "/deep",
                "a: { backend: parts, path: /a, group: . }, b: { backend: parts, path: /b, group: . }",
            ),
        )
        .route(
            "each",
            &aggregate(
                "/each",
                "a: { backend: parts, path: /a }, \
                 b: { backend: echo, path: \"/echo/{item.a}\", for_each: { in: \"{part.a.list}\", limit: 5 } }",
            ),
        );
    let gateway = Gateway::start(config.to_string()).await;
    (fleet, gateway)
}

fn answer(body: &str) -> Behaviour {
    let length = body.len();
    Behaviour::raw(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    ))
}

/// A text in a text in a text: each is behind `brackets` brackets the one member of an object, of this name. What is
/// escaped grows by the same for each shell.
fn shells(name: &str, shells: usize, brackets: usize) -> String {
    let mut text = "1".to_owned();
    for _ in 0..shells {
        let mut quoted = String::new();
        for char in text.chars() {
            match char {
                '"' => quoted.push_str(r"\u0022"),
                '\\' => quoted.push_str(r"\u005c"),
                plain => quoted.push(plain),
            }
        }
        let (open, shut) = ("[".repeat(brackets), "]".repeat(brackets));
        text = format!("{open}{{\"{name}\":\"{quoted}\"}}{shut}");
    }
    text
}

fn escaped(name: &str) -> String {
    let mut out = String::new();
    for char in name.chars() {
        write!(out, "\\u{:04x}", u32::from(char)).expect("a string takes any text");
    }
    out
}

/// What a reader would have to be told of; none of it may end the process.
fn strange() -> Vec<String> {
    let mut all = Vec::new();
    for name in [RAW, NUMBER] {
        for name in [name.to_owned(), escaped(name)] {
            all.push(shells(&name, 30, 120));
            all.push(format!("{{\"a\":{}}}", shells(&name, 30, 100)));
            all.push(format!("{{\"{name}\":\"not JSON\"}}"));
            all.push(format!("{{\"{name}\":\"{{\\\"a\\\":1,\\\"a\\\":2}}\"}}"));
            all.push(format!(
                "{{\"a\":{{\"{name}\":\"1\"}},\"list\":[{{\"{name}\":\"1e5\"}}]}}"
            ));
        }
    }
    for deep in [127, 128, 129, 1_000, 30_000] {
        all.push("[".repeat(deep) + &"]".repeat(deep));
        all.push("[".repeat(deep));
        all.push(format!("{}1{}", "{\"a\":".repeat(deep), "}".repeat(deep)));
    }
    all
}

#[tokio::test]
async fn no_body_ends_the_process() {
    let (_fleet, gateway) = start().await;
    for body in strange() {
        for path in ["/body", "/whole"] {
            let answer = gateway.post(path).body(body.clone()).send().await;
            assert!(matches!(answer.status, 200 | 400), "{answer:#?}");
        }
    }
    let fine = gateway.post("/body").body(r#"{"a":"fine"}"#).send().await.expect(200);
    assert_eq!(fine.json()["a"]["headers"]["x-a"], "fine");
}

#[tokio::test]
async fn no_answer_of_a_backend_ends_the_process() {
    let (fleet, gateway) = start().await;
    let parts = fleet.backend("parts");
    for body in strange() {
        parts.behave(answer(&body)).await;
        for path in ["/shaped", "/deep", "/each"] {
            let answer = gateway.get(path).send().await;
            assert!(matches!(answer.status, 200 | 502), "{answer:#?}");
        }
    }
    parts.behave(answer(r#"{"a":1,"b":2}"#)).await;
    let fine = gateway.get("/shaped").send().await.expect(200);
    assert_eq!(fine.text(), r#"{"a":{"a":1}}"#);
}

#[tokio::test]
async fn no_token_ends_the_process() {
    let (_fleet, _api, gateway) = callers::start().await;
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let plain = encode(r#"{"alg":"HS256"}"#);
    for name in [RAW, NUMBER] {
        for (many, brackets) in [(13, 120), (1, 126), (15, 20)] {
            let bomb = shells(name, many, brackets);
            for token in [
                format!("{plain}.{}.AAAA", encode(&bomb)),
                format!("{}.{plain}.AAAA", encode(&bomb)),
                format!("{plain}.{}.AAAA", encode(&format!("{{\"iss\":\"a\",\"x\":{bomb}}}"))),
            ] {
                let answer = gateway.get("/tokens/echo").bearer(&token).send().await;
                answer.refusal(401, "credentials_invalid");
            }
        }
    }
}

#[tokio::test]
async fn a_name_that_stands_twice_is_refused_however_it_is_written() {
    let (fleet, gateway) = start().await;
    let parts = fleet.backend("parts");
    for body in [
        r#"{"a":1,"a":2}"#,
        r#"{"a":1,"\u0061":2}"#,
        r#"{"b":{"a":1,"\u0061":2},"a":1}"#,
        r#"{"a":1,"b":[{"\ud83d\ude00":1,"😀":2}]}"#,
        r#"{"a":[[[{"":1,"":2}]]]}"#,
    ] {
        for path in ["/body", "/whole"] {
            let answer = gateway.post(path).body(body).send().await;
            answer.refusal(400, "malformed_request");
        }
        parts.behave(answer(body)).await;
        for path in ["/shaped", "/deep", "/each"] {
            assert_eq!(gateway.get(path).send().await.status, 502, "{body} at {path}");
        }
    }
}

#[tokio::test]
async fn names_of_a_librarys_own_are_passed_on_as_they_came() {
    let (fleet, gateway) = start().await;
    for body in [
        format!("{{\"{RAW}\":\"{{\\\"a\\\":1,\\\"a\\\":2}}\"}}"),
        format!("{{\"{NUMBER}\":\"1\"}}"),
        "[1E400, 1.0, 12345678901234567890, -0, 0.10e-5]".to_owned(),
    ] {
        gateway.post("/whole").body(body.clone()).send().await.expect(200);
        let sent = fleet.backend("echo").requests().pop().expect("it was asked").body;
        assert_eq!(String::from_utf8_lossy(&sent), format!("{{\"a\":{body}}}"));
    }
}
