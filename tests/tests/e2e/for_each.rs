//! Checks a part that is called for each element of an array: in order, a few at a time, each call guarded like any
//! other.

use fixtures::fleet::{Behaviour, Fleet, Keep, Spec, demo};
use serde_json::{Value, json};
use tests::Gateway;
use tests::configs::Config;

use crate::SOON;

/// `/stock/{user}`: the items of the user's orders, and the stock of each; `terms` is the rest of the part's mapping.
async fn start(guards: &str, each: &str, terms: &str) -> (Fleet, Gateway) {
    let specs = demo::specs()
        .into_iter()
        .map(|spec| spec.behaviour(Behaviour::default()).keep(Keep::default()));
    let fleet = Fleet::start(specs.collect::<Vec<Spec>>())
        .await
        .expect("ports are free");
    let config = Config::default()
        .backend("orders", fleet.address("orders"), "retry: off")
        .backend("inventory", fleet.address("inventory"), guards)
        .route(
            "stock",
            &format!(
                "{{ match: {{ path: \"/stock/{{user}}\" }}, access: {{ any_of: [anonymous] }}, time_limit: 4s, \
                 aggregate: {{ partial: allow, errors: true, parts: {{ \
                 orders: {{ backend: orders, path: \"/orders?user={{path.user}}\" }}, \
                 stock: {{ backend: inventory, path: \"/stock/{{item.sku}}\", keep: [sku], \
                 for_each: {{ in: \"{{part.orders.items}}\"{each} }}{terms} }} }} }} }}"
            ),
        )
        .route(
            "wanted",
            "{ match: { path: /wanted }, access: { any_of: [anonymous] }, time_limit: 4s, aggregate: { parts: { \
             stock: { backend: inventory, path: \"/stock/{item}\", keep: [sku], for_each: { in: \"{body}\", limit: 3 } } } } }",
        );
    let gateway = Gateway::start(config.to_string()).await;
    (fleet, gateway)
}

fn items(body: &str) -> Behaviour {
    let length = body.len();
    Behaviour::raw(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    ))
}

fn skus(of: &Value) -> Vec<&str> {
    let all = of.as_array().expect("an array");
    all.iter().map(|item| item["sku"].as_str().unwrap_or("none")).collect()
}

fn error(document: &Value) -> &Value {
    &document["_errors"][0]["reason"]
}

#[tokio::test]
async fn every_element_is_asked_for_and_answers_keep_their_order() {
    let (fleet, gateway) = start("retry: off", ", at_once: 2", "").await;
    let inventory = fleet.backend("inventory");
    inventory.close_gate();
    let asked = tokio::spawn(gateway.get("/stock/7").send());
    let waits = inventory.wait_for(|counts| counts.at_gate == 2, SOON);
    waits.await.expect("two at once");
    inventory.open_gate();
    let answer = asked.await.expect("no panic").expect(200);
    assert_eq!(answer.header("x-gateway-complete"), Some("true"));
    let document = answer.json();
    assert_eq!(skus(&document["stock"]), skus(&document["orders"]["items"]));
    assert_eq!(inventory.counts().requests, 3);
}

#[tokio::test]
async fn nothing_to_ask_for_is_an_empty_array() {
    let (fleet, gateway) = start("retry: off", "", "").await;
    fleet.backend("orders").behave(items(r#"{"items":[]}"#)).await;
    let answer = gateway.get("/stock/7").send().await.expect(200);
    assert_eq!(answer.header("x-gateway-complete"), Some("true"));
    assert_eq!(answer.json()["stock"], json!([]));
    assert_eq!(fleet.backend("inventory").counts().requests, 0);
}

#[tokio::test]
async fn what_is_no_array_or_too_long_is_a_failed_part() {
    let (fleet, gateway) = start("retry: off", ", limit: 2", "").await;
    for (body, reason) in [
        (r#"{"items":{"sku":"lamp"}}"#, "not_an_array"),
        (r#"{"items":"lamp"}"#, "not_an_array"),
        ("{}", "value_missing"),
        (
            r#"{"items":[{"sku":"a"},{"sku":"b"},{"sku":"c"}]}"#,
            "too_many_elements",
        ),
    ] {
        fleet.backend("orders").behave(items(body)).await;
        let answer = gateway.get("/stock/7").send().await.expect(200);
        assert_eq!(answer.header("x-gateway-complete"), Some("false"), "{body}");
        let document = answer.json();
        assert_eq!(error(&document), reason, "{body}");
        assert_eq!(document.get("stock"), None, "{body}");
    }
    assert_eq!(fleet.backend("inventory").counts().requests, 0);
}

#[tokio::test]
async fn an_element_that_fails_does_what_is_written() {
    for (policy, expected) in [
        ("fail", None),
        ("omit", Some(vec!["a", "c"])),
        ("null", Some(vec!["a", "none", "c"])),
    ] {
        let each = format!(", at_once: 1, on_failure: {policy}");
        let (fleet, gateway) = start("retry: off", &each, "").await;
        let three = items(r#"{"items":[{"sku":"a"},{"sku":"b"},{"sku":"c"}]}"#);
        fleet.backend("orders").behave(three).await;
        let well = Behaviour::default;
        fleet
            .backend("inventory")
            .next([well(), Behaviour::status(404), well()]);
        let answer = gateway.get("/stock/7").send().await.expect(200);
        assert_eq!(answer.header("x-gateway-complete"), Some("false"), "{policy}");
        let document = answer.json();
        assert_eq!(error(&document), "elements_failed", "{policy}");
        assert_eq!(document.get("stock").map(skus), expected, "{policy}");
        let asked = if policy == "fail" { 2 } else { 3 };
        assert_eq!(fleet.backend("inventory").counts().requests, asked, "{policy}");
    }
}

#[tokio::test]
async fn every_call_meets_the_guards_of_its_backend() {
    let guards = "retry: off, bulkhead: { limit: 1, queue: 0 }";
    let (fleet, gateway) = start(guards, ", at_once: 3, on_failure: omit", "").await;
    let inventory = fleet.backend("inventory");
    inventory.close_gate();
    let asked = tokio::spawn(gateway.get("/stock/7").send());
    let waits = inventory.wait_for(|counts| counts.at_gate == 1, SOON);
    waits.await.expect("one gets in");
    inventory.open_gate();
    let document = asked.await.expect("no panic").expect(200).json();
    assert_eq!(document["stock"].as_array().map(Vec::len), Some(1));
    assert_eq!(inventory.counts().requests, 1);
    let full = [("backend", "inventory"), ("reason", "bulkhead_full")];
    assert_eq!(gateway.metric("gateway_backend_rejections_total", &full).await, 2.0);
}

#[tokio::test]
async fn elements_come_from_the_caller_too_and_cannot_leave_their_segment() {
    let (fleet, gateway) = start("retry: off", "", "").await;
    let wanted = |body: &'static str| gateway.post("/wanted").body(body).send();
    let answer = wanted(r#"["a/b?c", "d&e", 12.50]"#).await.expect(200);
    assert_eq!(answer.header("x-gateway-complete"), Some("true"));
    let targets: Vec<_> = fleet
        .backend("inventory")
        .requests()
        .into_iter()
        .map(|asked| asked.target)
        .collect();
    assert_eq!(targets, ["/stock/a%2Fb%3Fc", "/stock/d%26e", "/stock/12.50"]);
    for (body, reason) in [
        (r#"["a", "b", "c", "d"]"#, "too_many_elements"),
        (r#"{"sku":"a"}"#, "not_an_array"),
        ("null", "value_missing"),
        (r#"["..", "a"]"#, "elements_failed"),
        (r#"[{}, "a"]"#, "elements_failed"),
    ] {
        let answer = wanted(body).await;
        assert_eq!(
            (answer.status, answer.reason()),
            (400, Some(reason)),
            "{body}: {answer:#?}"
        );
    }
}
