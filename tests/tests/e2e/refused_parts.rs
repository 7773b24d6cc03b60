//! Checks that a part refused by its backend is no outage: the caller gets the status of the refusal and what to do
//! next.

use fixtures::fleet::{Behaviour, Fleet, Keep, Spec};
use serde_json::{Value, json};
use tests::configs::Config;
use tests::{Answer, Gateway, eventually};

use crate::SOON;

/// A route to all parts; `top` is the rest of the aggregate's mapping.
fn route(top: &str, parts: &str) -> String {
    format!(
        "{{ match: {{ path: /all }}, access: {{ any_of: [anonymous] }}, time_limit: 4s, \
         aggregate: {{ {top}, parts: {{ {parts} }} }} }}"
    )
}

async fn start(top: &str, parts: &str, guards: &str) -> (Fleet, Gateway) {
    let fleet = Fleet::start(["first", "second"].map(|name| Spec::new(name).keep(Keep::default())))
        .await
        .expect("ports are free");
    let config = Config::default()
        .backend("first", fleet.address("first"), guards)
        .backend("second", fleet.address("second"), guards)
        .route("all", &route(top, parts));
    let gateway = Gateway::start(config.to_string()).await;
    (fleet, gateway)
}

fn refuses(status: u16, fields: &str, body: &str) -> Behaviour {
    let length = body.len();
    Behaviour::raw(format!(
        "HTTP/1.1 {status} No\r\nconnection: close\r\n{fields}content-length: {length}\r\n\r\n{body}"
    ))
}

fn detail(answer: &Answer) -> String {
    answer.json()["detail"].as_str().expect("it says what to do").to_owned()
}

const PAYMENT: &str = "payment: { backend: first, path: /charges, method: POST, body: { amount: 1 } }";

#[tokio::test]
async fn a_required_parts_refusal_is_the_answer_and_no_outage() {
    let guards = "retry: off, ejection: off, breaker: { min_calls: 3, failure_ratio: 0.5 }";
    let (fleet, gateway) = start("errors: true", PAYMENT, guards).await;
    let first = fleet.backend("first");
    for status in [
        400, 402, 403, 404, 405, 406, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418, 422, 423, 424, 428, 451, 460,
    ] {
        first.behave(refuses(status, "allow: GET, HEAD\r\n", "<html>")).await;
        let answer = gateway.post("/all").send().await;
        let problem = answer.refusal(status, "backend_status");
        assert_eq!(problem["part"], "payment", "{answer:#?}");
        assert_eq!(problem.get("details"), None, "{answer:#?}");
        let text = detail(&answer).to_lowercase();
        assert!(!text.contains("later"), "{status}: {text}");
        assert_eq!(answer.header("retry-after"), None, "{status}");
        assert_eq!(
            answer.header("allow"),
            (status == 405).then_some("GET, HEAD"),
            "{status}"
        );
        assert_eq!(
            answer.header("proxy-status"),
            Some(&*format!(
                "gateway;received-status={status};details=\"payment: backend_status\""
            ))
        );
    }
    let refused = gateway
        .metrics()
        .await
        .sum("gateway_rejections_total", &[("route", "all")]);
    assert_eq!(refused.unwrap_or(0.0), 0.0, "none is a refusal of the gateway");
    // Fields about the exchange with the backend are not passed to the caller.
    for status in [301, 304, 401, 407, 421, 425, 426, 431, 505] {
        first.behave(refuses(status, "", "")).await;
        let answer = gateway.post("/all").send().await;
        answer.refusal(502, "backend_status");
        first.heal().await;
        for _ in 0..20 {
            gateway.post("/all").send().await.expect(200);
        }
    }
}

#[tokio::test]
async fn who_asks_for_time_is_given_it() {
    let (fleet, gateway) = start("errors: true", PAYMENT, "retry: off, breaker: off, ejection: off").await;
    let first = fleet.backend("first");
    for (status, fields, told, wait) in [
        (503, "retry-after: 9\r\n", 503, Some(9)),
        (503, "retry-after: 0\r\n", 503, Some(1)),
        (503, "retry-after: 99999999\r\n", 503, Some(86_400)),
        (503, "retry-after: Sun, 06 Nov 1994 08:49:47 GMT\r\n", 503, Some(1)),
        (503, "", 502, None),
        (503, "retry-after: soon\r\n", 502, None),
        (429, "retry-after: 9\r\n", 429, Some(9)),
        (429, "", 429, Some(1)),
        (413, "retry-after: 9\r\n", 413, Some(9)),
        (413, "", 413, None),
        (500, "retry-after: 9\r\n", 502, None),
        (504, "retry-after: 9\r\n", 502, None),
        (402, "retry-after: 9\r\n", 402, None),
    ] {
        first.behave(refuses(status, fields, "")).await;
        let answer = gateway.post("/all").send().await;
        answer.refusal(told, "backend_status");
        let found = answer.header("retry-after").map(|_| answer.retry_after());
        assert_eq!(found, wait, "{status} {fields}");
        let says = wait.is_some_and(|wait| detail(&answer).contains(&format!(" {wait} s.")));
        assert_eq!(says, wait.is_some(), "{status}: {answer:#?}");
    }
}

#[tokio::test]
async fn details_are_json_or_nothing() {
    let (fleet, gateway) = start("errors: details", PAYMENT, "retry: off, breaker: off, ejection: off").await;
    let first = fleet.backend("first");
    let json = "content-type: application/problem+json\r\n";
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let text = |length: usize| format!("\"{}\"", "x".repeat(length - 2));
    for (fields, body) in [
        (json, r#"{"code":"declined","amount":1E2}"#),
        ("", r#"{"code":"declined"}"#),
        ("content-type: Application/JSON;charset=utf-8\r\n", "[]"),
        (json, "null"),
        (json, &nested(32)),
        (json, &text(8 << 10)),
    ] {
        first.behave(refuses(402, fields, body)).await;
        let answer = gateway.post("/all").send().await;
        answer.refusal(402, "backend_status");
        let expected = format!(",\"details\":{body}}}");
        assert!(answer.text().ends_with(&expected), "{body}: {answer:#?}");
    }
    for (fields, body) in [
        (json, ""),
        (json, "<html>"),
        (json, r#"{"a":1},"status":200,"b":{"c":1}"#),
        (json, r#"{"a":1}}"#),
        (json, r#"{"a":1,"a":2}"#),
        (json, r#"{"a":"\ud800"}"#),
        (json, &nested(33)),
        (json, &nested(4_000)),
        (json, &text((8 << 10) + 1)),
        (json, &text(3 << 20)),
        ("content-type: text/html\r\n", r#"{"a":1}"#),
        (
            "content-type: application/json\r\ncontent-encoding: compress\r\n",
            r#"{"a":1}"#,
        ),
        (
            "content-type: application/json\r\ncontent-encoding: gzip\r\n",
            r#"{"a":1}"#,
        ),
    ] {
        first.behave(refuses(402, fields, body)).await;
        let answer = gateway.post("/all").send().await;
        let problem = answer.refusal(402, "backend_status");
        assert_eq!(problem.get("details"), None, "{fields}: {answer:#?}");
    }
    // An answer that breaks off has nevertheless sent its status.
    first
        .behave(Behaviour::raw(
            "HTTP/1.1 402 No\r\ncontent-length: 100\r\n\r\n{\"a\":1}",
        ))
        .await;
    gateway.post("/all").send().await.refusal(402, "backend_status");
}

#[tokio::test]
async fn what_failed_is_listed_with_the_words_of_its_backend() {
    let parts = r#"good: { backend: second, path: /echo },
        payment: { backend: first, path: /charges },
        receipt: { backend: second, path: "/receipts/{part.payment.id}" },
        items: { backend: first, path: "/items/{item}", for_each: { in: "{body}", on_failure: omit } }"#;
    for (errors, details) in [("true", false), ("details", true)] {
        let top = format!("partial: allow, errors: {errors}");
        let (fleet, gateway) = start(&top, parts, "retry: off, breaker: off, ejection: off").await;
        let said = json!({ "code": "declined" });
        fleet.backend("first").behave(refuses(402, "", &said.to_string())).await;
        let answer = gateway.post("/all").body("[1,2]").send().await.expect(200);
        let document = answer.json();
        let listed = document["_errors"].as_array().expect("a list").clone();
        let of = |part: &str| {
            let entry = listed.iter().find(|entry| entry["part"] == part);
            entry.unwrap_or_else(|| panic!("no {part}: {document:#}")).clone()
        };
        for part in ["payment", "items"] {
            let entry = of(part);
            assert_eq!(
                (&entry["status"], &entry["backend_status"]),
                (&json!(402), &json!(402)),
                "{entry}"
            );
            assert_eq!(entry.get("details"), details.then_some(&said), "{entry}");
        }
        let entry = of("receipt");
        assert_eq!(
            (&entry["reason"], &entry["status"]),
            (&json!("need_failed"), &json!(402))
        );
        assert_eq!(entry.get("details"), None, "it stands with the part that has it");
        assert!(document.get("good").is_some());
    }
}

#[tokio::test]
async fn of_several_required_parts_the_first_to_fail_is_the_answer() {
    let parts = "a: { backend: first, path: /a }, b: { backend: second, path: /b }";
    let (fleet, gateway) = start("errors: true", parts, "retry: off, breaker: off, ejection: off").await;
    let (first, second) = (fleet.backend("first"), fleet.backend("second"));
    for (slow, fast, part, status) in [(&first, &second, "b", 402), (&second, &first, "a", 409)] {
        slow.close_gate();
        slow.behave(Behaviour::status(500)).await;
        fast.behave(refuses(status, "", "")).await;
        let answer = gateway.get("/all").send().await;
        assert_eq!(answer.refusal(status, "backend_status")["part"], part);
        slow.open_gate();
        let is_idle = || async { (slow.counts().in_flight == 0).then_some(()) };
        eventually(SOON, "the other is cancelled", is_idle).await;
    }
}

#[tokio::test]
async fn a_part_that_depends_on_a_refused_one_is_not_asked() {
    let parts = r#"payment: { backend: first, path: /charges, required: true },
        receipt: { backend: second, path: /echo, needs: [payment], required: true }"#;
    let (fleet, gateway) = start("partial: allow", parts, "retry: off, breaker: off").await;
    fleet.backend("first").behave(refuses(402, "", "")).await;
    let problem = gateway.get("/all").send().await.refusal(402, "backend_status");
    assert_eq!(problem["part"], Value::from("payment"));
    assert_eq!(fleet.backend("second").counts().requests, 0);
}
