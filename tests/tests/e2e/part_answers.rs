//! Checks that the answer of a part is neither lost nor invented: an empty answer stays empty, an incomplete one counts
//! as incomplete, numbers keep their digits, and a missing value is reported.

use fixtures::fleet::{Behaviour, Fleet, Keep, Spec};
use serde_json::{Value, json};
use tests::configs::Config;
use tests::{Answer, Gateway};

/// `/all`: an aggregate of these parts, of the backends `first` and `second`; `top` is the rest of its mapping.
async fn start(top: &str, parts: &str) -> (Fleet, Gateway) {
    let fleet = Fleet::start(["first", "second"].map(|name| Spec::new(name).keep(Keep::default())))
        .await
        .expect("ports are free");
    let guards = "retry: off, breaker: off, ejection: off";
    let config = Config::default()
        .backend("first", fleet.address("first"), guards)
        .backend("second", fleet.address("second"), guards)
        .route(
            "all",
            &format!(
                "{{ match: {{ path: /all }}, access: {{ any_of: [anonymous] }}, time_limit: 4s, \
                 aggregate: {{ {top}, parts: {{ {parts} }} }} }}"
            ),
        );
    let gateway = Gateway::start(config.to_string()).await;
    (fleet, gateway)
}

fn says(status: &str, fields: &str, body: &str) -> Behaviour {
    let length = if status.starts_with("204") {
        String::new()
    } else {
        format!("content-length: {}\r\n", body.len())
    };
    Behaviour::raw(format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\n{length}{fields}\r\n{body}"
    ))
}

fn is_complete(answer: &Answer) -> bool {
    answer.header("x-gateway-complete") == Some("true")
}

#[tokio::test]
async fn for_each_over_nothing_is_no_elements() {
    for (over, nothing, something) in [
        (
            "part.cart",
            vec!["null", "[]"],
            vec![("{}", "not_an_array"), ("7", "not_an_array")],
        ),
        (
            "part.cart.items",
            vec!["null", r#"{"items":null}"#, r#"{"items":[]}"#],
            vec![("{}", "value_missing"), (r#"{"items":"null"}"#, "not_an_array")],
        ),
        (
            "part.cart.a.0.items",
            vec!["null", r#"{"a":null}"#, r#"{"a":[null]}"#, r#"{"a":[{"items":null}]}"#],
            vec![
                ("{}", "value_missing"),
                (r#"{"a":[]}"#, "value_missing"),
                (r#"{"a":[{}]}"#, "value_missing"),
            ],
        ),
    ] {
        let parts = format!(
            "cart: {{ backend: first, path: /cart }}, \
             stock: {{ backend: second, path: \"/echo/{{item}}\", for_each: {{ in: \"{{{over}}}\" }} }}"
        );
        let (fleet, gateway) = start("errors: true", &parts).await;
        let first = fleet.backend("first");
        let whole = |body: &str| format!(r#"{{"cart":{body},"stock":[]}}"#);
        for body in nothing {
            first.behave(says("200 OK", "", body)).await;
            let answer = gateway.get("/all").send().await.expect(200);
            assert!(is_complete(&answer), "{over} of {body}: {answer:#?}");
            assert_eq!(answer.text(), whole(body), "{over}");
        }
        for status in ["204 No Content", "205 Reset Content"] {
            first.behave(says(status, "", "")).await;
            let answer = gateway.get("/all").send().await.expect(200);
            assert!(is_complete(&answer), "{over} of {status}: {answer:#?}");
            assert_eq!(answer.text(), r#"{"stock":[]}"#, "{over}");
        }
        for (body, reason) in something {
            first.behave(says("200 OK", "", body)).await;
            gateway.get("/all").send().await.refusal(502, reason);
        }
        assert_eq!(fleet.backend("second").counts().requests, 0);
    }
}

#[tokio::test]
async fn a_default_stands_in_for_nothing() {
    let parts = r#"cart: { backend: first, path: /cart },
        stock: { backend: second, path: "/echo/{item}", for_each: { in: "{part.cart.items}" },
                 missing: { default: { part.cart.items: [a, b] } }, keep: [path] }"#;
    let (fleet, gateway) = start("errors: true", parts).await;
    for body in ["{}", "null", r#"{"items":null}"#] {
        fleet.backend("first").behave(says("200 OK", "", body)).await;
        let answer = gateway.get("/all").send().await.expect(200);
        assert_eq!(answer.json()["stock"].as_array().map(Vec::len), Some(2), "{body}");
    }
}

#[tokio::test]
async fn a_part_that_says_it_is_incomplete_makes_the_whole_incomplete() {
    for top in ["errors: true", "partial: allow, errors: true"] {
        let parts = r#"inner: { backend: first, path: /inner, group: "." },
            after: { backend: second, path: "/echo/{part.inner.n}", keep: [method] }"#;
        let (fleet, gateway) = start(top, parts).await;
        let first = fleet.backend("first");
        for (fields, complete) in [
            ("x-gateway-complete: false\r\n", false),
            ("X-Gateway-Complete:  FALSE \r\n", false),
            ("x-gateway-complete: true\r\nx-gateway-complete: false\r\n", false),
            ("x-gateway-fallback: stale\r\n", false),
            ("x-gateway-fallback: value\r\n", false),
            ("x-gateway-fallback: backend\r\n", true),
            ("x-gateway-complete: true\r\n", true),
            ("x-gateway-skipped: payment\r\n", true),
            ("", true),
        ] {
            let fields = format!("{fields}cache-control: max-age=60\r\n");
            first.behave(says("200 OK", &fields, r#"{"n":1.0}"#)).await;
            let answer = gateway.get("/all").send().await.expect(200);
            assert_eq!(is_complete(&answer), complete, "{fields}: {answer:#?}");
            let document = answer.json();
            assert_eq!(
                (&document["n"], &document["after"]["method"]),
                (&json!(1.0), &json!("GET"))
            );
            assert_eq!(answer.header("etag").is_some(), complete, "{fields}");
            assert_eq!(
                answer.header("cache-control") == Some("no-store"),
                !complete,
                "{answer:#?}"
            );
            let entry = (!complete).then(|| json!([{ "part": "inner", "reason": "incomplete", "status": 502 }]));
            assert_eq!(document.get("_errors"), entry.as_ref(), "{fields}");
            assert_eq!(
                answer.header("proxy-status"),
                (!complete).then_some("gateway;details=\"inner: incomplete\"")
            );
        }
    }
}

#[tokio::test]
async fn an_incomplete_element_or_stand_in_is_incomplete_too_and_never_kept() {
    let parts = r#"each: { backend: first, path: "/{item}", for_each: { in: "{body}" } }"#;
    let (fleet, gateway) = start("errors: true", parts).await;
    let first = fleet.backend("first");
    let incomplete = says("200 OK", "x-gateway-complete: false\r\n", "{}");
    first.next([says("200 OK", "", "{}"), incomplete.clone()]);
    first.behave(says("200 OK", "", "{}")).await;
    first.next([incomplete.clone()]);
    let answer = gateway.post("/all").body("[1,2,3]").send().await.expect(200);
    assert!(!is_complete(&answer), "{answer:#?}");
    assert_eq!(answer.json()["each"], json!([{}, {}, {}]));
    assert_eq!(answer.json()["_errors"][0]["reason"], "elements_failed");

    let parts = "one: { backend: first, path: /a, fallback: [{ stale: 1h }, { backend: second }] }";
    let (fleet, gateway) = start("partial: allow, errors: true", parts).await;
    let (first, second) = (fleet.backend("first"), fleet.backend("second"));
    first.behave(incomplete.clone()).await;
    assert!(!is_complete(&gateway.get("/all").send().await.expect(200)));
    first.behave(Behaviour::refusing()).await;
    second.behave(says("200 OK", "", r#"{"b":1}"#)).await;
    let answer = gateway.get("/all").send().await.expect(200);
    assert!(is_complete(&answer), "it is the other's own word: {answer:#?}");
    assert_eq!(answer.json()["one"], json!({ "b": 1 }));
    second.behave(incomplete).await;
    assert!(!is_complete(&gateway.get("/all").send().await.expect(200)));
}

#[tokio::test]
async fn a_target_that_is_not_there_is_a_failed_part() {
    let parts = r#"good: { backend: second, path: /echo, keep: [method] },
        one: { backend: first, path: /a, target: data.0.items, keep: [n] },
        root: { backend: first, path: /b, target: data.0.items, group: "." }"#;
    let (fleet, gateway) = start("partial: allow, errors: true", parts).await;
    let first = fleet.backend("first");
    for body in [
        "{}",
        "null",
        "7",
        "[]",
        r#"{"data":null}"#,
        r#"{"data":[]}"#,
        r#"{"data":[{}]}"#,
        r#"{"data":[{"item":1}]}"#,
        r#"{"data":{"items":1}}"#,
    ] {
        first.behave(says("200 OK", "", body)).await;
        let answer = gateway.get("/all").send().await.expect(200);
        assert!(!is_complete(&answer), "{body}: {answer:#?}");
        let document = answer.json();
        assert_eq!(
            (document.get("one"), &document["good"]["method"]),
            (None, &json!("GET")),
            "{body}"
        );
        for index in [0, 1] {
            let entry = &document["_errors"][index];
            assert_eq!(
                (&entry["reason"], &entry["status"]),
                (&json!("target_missing"), &json!(502)),
                "{body}"
            );
        }
    }
    for (body, one) in [
        (r#"{"data":[{"items":{"n":1}}]}"#, json!({ "n": 1 })),
        (r#"{"data":[{"items":{}}]}"#, json!({})),
        (r#"{"data":[{"items":null}]}"#, Value::Null),
    ] {
        first.behave(says("200 OK", "", body)).await;
        let answer = gateway.get("/all").send().await.expect(200);
        assert!(is_complete(&answer), "{body}: {answer:#?}");
        assert_eq!(answer.json().get("one"), Some(&one), "{body}");
    }
}

#[tokio::test]
async fn an_element_without_the_target_fails_as_an_element() {
    for (on_failure, expected) in [
        ("omit", Some(json!([{ "n": 1 }]))),
        ("null", Some(json!([{ "n": 1 }, null]))),
        ("fail", None),
    ] {
        let parts = format!(
            "good: {{ backend: second, path: /echo }}, each: {{ backend: first, path: \"/{{item}}\", target: data, \
             for_each: {{ in: \"{{body}}\", at_once: 1, on_failure: {on_failure} }} }}"
        );
        let (fleet, gateway) = start("partial: allow, errors: true", &parts).await;
        let first = fleet.backend("first");
        first.behave(says("200 OK", "", "{}")).await;
        first.next([says("200 OK", "", r#"{"data":{"n":1}}"#)]);
        let answer = gateway.post("/all").body("[1,2]").send().await.expect(200);
        assert!(!is_complete(&answer), "{answer:#?}");
        let document = answer.json();
        assert_eq!(document.get("each"), expected.as_ref(), "{on_failure}");
        assert_eq!(document["_errors"][0]["reason"], "elements_failed");
    }
    // Where it is required, it is the answer, and what may stand in does.
    let (fleet, gateway) = start("errors: true", "one: { backend: first, path: /a, target: data }").await;
    fleet.backend("first").behave(says("200 OK", "", "{}")).await;
    gateway.get("/all").send().await.refusal(502, "target_missing");
    let parts = "one: { backend: first, path: /a, target: data, fallback: { value: { data: { n: 1E2 } } } }";
    let (fleet, gateway) = start("partial: allow", parts).await;
    fleet.backend("first").behave(says("200 OK", "", "{}")).await;
    let answer = gateway.get("/all").send().await.expect(200);
    assert_eq!(
        (is_complete(&answer), answer.text().as_str()),
        (false, r#"{"one":{"n":1E2}}"#)
    );
}

#[tokio::test]
async fn a_number_is_as_it_was_written_wherever_it_goes() {
    let parts = r#"raw: { backend: first, path: /a },
        shaped: { backend: first, path: /a, target: d, keep: [x.n], rename: { x: y } },
        listed: { backend: first, path: /a, target: l, group: "." },
        each: { backend: first, path: "/{item}", for_each: { in: "{part.raw.l}" }, keep: [n], collection: all },
        sent: { backend: second, path: "/v/{part.raw.n}", query: { n: "{part.raw.n}", b: "{body.n}" },
                headers: { x-n: "{part.raw.n}" },
                body: { whole: "{part.raw.n}", text: "a {part.raw.n}", list: "{part.raw.l}", wrote: @n@, of: "{body.n}" } },
        stand_in: { backend: second, path: "/missing", when: { value: "{part.raw.n}", is: @n@ },
                    missing: { default: { body.absent: @n@ } }, body: { d: "{body.absent}" } },
        value: { backend: first, path: "/{body.no}", fallback: { value: { n: @n@ } } }"#;
    for number in [
        "1E400",
        "1E2",
        "1e2",
        "1E+2",
        "1e-2",
        "1.0E-7",
        "-0",
        "-0.0",
        "1.50",
        "12345678901234567890.10",
        "1E0",
    ] {
        let (fleet, gateway) = start("partial: allow, conflict: deep", &parts.replace("@n@", number)).await;
        let second = fleet.backend("second");
        let body = format!(r#"{{"n":{number},"l":[{number}],"d":{{"x":{{"n":{number},"o":1}}}}}}"#);
        fleet.backend("first").behave(says("200 OK", "", &body)).await;
        second.behave(says("200 OK", "", "{}")).await;
        let asked = gateway
            .post("/all")
            .body(format!(r#"{{"n":{number}}}"#))
            .send()
            .await
            .expect(200);
        let expected = format!(
            r#"{{"raw":{body},"shaped":{{"y":{{"n":{number}}}}},"listed":[{number}],"each":{{"all":[{{"n":{number}}}]}},"sent":{{}},"stand_in":{{}},"value":{{"n":{number}}}}}"#
        );
        assert_eq!(asked.text(), expected, "{number}");
        let escaped = number.replace('+', "%2B");
        let targets: Vec<_> = second.requests().into_iter().collect();
        let sent = targets
            .iter()
            .find(|asked| asked.target.starts_with("/v/"))
            .expect("it is asked");
        assert_eq!(sent.target, format!("/v/{escaped}?n={escaped}&b={escaped}"));
        assert_eq!(sent.header("x-n"), Some(number));
        let wanted =
            format!(r#"{{"whole":{number},"text":"a {number}","list":[{number}],"wrote":{number},"of":{number}}}"#);
        assert_eq!(String::from_utf8_lossy(&sent.body), wanted);
        let other = targets
            .iter()
            .find(|asked| asked.target == "/missing")
            .expect("it is asked");
        assert_eq!(String::from_utf8_lossy(&other.body), format!(r#"{{"d":{number}}}"#));
    }
}

#[tokio::test]
async fn a_group_is_a_path_like_everywhere_else() {
    let one = |group: &str| {
        format!(
            "one: {{ backend: first, path: /a, group: {group} }}, two: {{ backend: second, path: /b, group: p.r.s }}, \
             three: {{ backend: second, path: /b, group: p.q, collection: all.items }}"
        )
    };
    for (top, group, expected) in [
        (
            "errors: true",
            "p.q",
            r#"{"p":{"q":{"all":{"items":[1.0]}},"r":{"s":[1.0]}}}"#,
        ),
        (
            "conflict: deep",
            "p.q",
            r#"{"p":{"q":{"n":1E2,"all":{"items":[1.0]}},"r":{"s":[1.0]}}}"#,
        ),
        (
            "errors: true",
            "p",
            r#"{"p":{"n":1E2,"r":{"s":[1.0]},"q":{"all":{"items":[1.0]}}}}"#,
        ),
        (
            "wrap: data.whole",
            "o.p",
            r#"{"data":{"whole":{"o":{"p":{"n":1E2}},"p":{"r":{"s":[1.0]},"q":{"all":{"items":[1.0]}}}}}}"#,
        ),
        (
            "errors: true",
            "\".\"",
            r#"{"n":1E2,"p":{"r":{"s":[1.0]},"q":{"all":{"items":[1.0]}}}}"#,
        ),
    ] {
        let (fleet, gateway) = start(top, &one(group)).await;
        fleet.backend("first").behave(says("200 OK", "", r#"{"n":1E2}"#)).await;
        fleet.backend("second").behave(says("200 OK", "", "[1.0]")).await;
        let answer = gateway.get("/all").send().await.expect(200);
        assert_eq!(answer.text(), expected, "{top}, {group}");
        assert!(is_complete(&answer), "{answer:#?}");
    }
    let (fleet, gateway) = start("conflict: error", &one("p.q")).await;
    fleet.backend("second").behave(says("200 OK", "", "[1.0]")).await;
    gateway.get("/all").send().await.refusal(502, "conflict");
}
