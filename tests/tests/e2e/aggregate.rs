//! Checks aggregates: one call replaces five, all parts run at once, missing parts are named, and the same parts make
//! the same document.

use std::collections::BTreeSet;

use fixtures::fleet::{Behaviour, Fault, Fleet, Handle, Latency, Spec, demo};
use http::Method;
use serde_json::{Value, json};
use tests::Gateway;
use tests::configs::Config;
use tests::crowd::at_once;

use crate::SOON;

const GUARDS: &str = "retry: off, time_limit: 5s, \
                      breaker: { min_calls: 3, failure_ratio: 0.6, open_for: 1h }";

/// The shop of the demo without its tempers, and a gateway that makes dashboards of it.
async fn start() -> (Fleet, Gateway) {
    let specs = demo::specs()
        .into_iter()
        .map(|spec| spec.behaviour(Behaviour::default()));
    let fleet = Fleet::start(specs.collect::<Vec<Spec>>())
        .await
        .expect("ports are free");
    let names = ["users", "orders", "inventory", "recommendations", "payments"];
    let config = names.into_iter().fold(Config::default(), |config, name| {
        config.backend(name, fleet.address(name), GUARDS)
    });
    let route = |name: &str, partial: &str, parts: &[&str]| {
        format!(
            "{{ match: {{ path: \"/{name}/{{id}}\", methods: [GET] }}, access: {{ any_of: [anonymous] }}, \
             time_limit: 4s, aggregate: {{ partial: {partial}, errors: true, parts: {{ {} }} }} }}",
            parts.join(", ")
        )
    };
    let user = r#"user: { backend: users, path: "/v1/users/{path.id}", required: true, drop: [email] }"#;
    let orders = r#"orders: { backend: orders, path: "/orders?user={path.id}", keep: [items.id, total], rename: { total: cents } }"#;
    let offers = r#"offers: { backend: recommendations, path: "/recommendations/{path.id}", target: items }"#;
    let stand_in = r#"orders: { backend: orders, path: "/orders?user={path.id}", keep: [items],
                      fallback: { value: { items: [], secret: 1 } } }"#;
    let credit = r#"credit: { backend: payments, path: "/credit/{part.user.account}", needs: [user], group: billing,
                    keep: [account, currency] }"#;
    let stock = r#"stock: { backend: inventory, path: "/stock/{path.id}", group: "." }"#;
    let config = [
        ("dashboard", "allow", vec![user, orders, offers]),
        ("strict", "deny", vec![user, orders]),
        ("spare", "allow", vec![user, stand_in]),
        ("account", "allow", vec![user, credit, stock]),
        ("options", "allow", vec![orders, offers]),
    ]
    .into_iter()
    .fold(config, |config, (name, partial, parts)| {
        config.route(name, &route(name, partial, &parts))
    });
    let gateway = Gateway::start(config.to_string()).await;
    (fleet, gateway)
}

fn failed_parts(document: &Value) -> Vec<&str> {
    let errors = document["_errors"].as_array().expect("the document lists them");
    errors.iter().filter_map(|error| error["part"].as_str()).collect()
}

async fn at_gate(backend: &Handle) {
    backend
        .wait_for(|counts| counts.at_gate == 1, SOON)
        .await
        .expect("it is asked");
}

#[tokio::test]
async fn all_parts_are_asked_at_once_and_become_one_document() {
    let (fleet, gateway) = start().await;
    let parts = ["users", "orders", "recommendations"].map(|name| fleet.backend(name));
    for part in &parts {
        part.close_gate();
    }
    let asked = tokio::spawn(gateway.get("/dashboard/7").send());
    for part in &parts {
        at_gate(part).await;
    }
    for part in parts.iter().rev() {
        part.open_gate();
    }
    let answer = asked.await.expect("no panic").expect(200);
    assert_eq!(answer.header("x-gateway-complete"), Some("true"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let document = answer.json();
    let names: Vec<&String> = document.as_object().expect("an object").keys().collect();
    assert_eq!(names, ["user", "orders", "offers"], "in declared order");
    assert_eq!(document["user"]["id"], "7");
    assert_eq!(document["user"]["email"], Value::Null);
    assert_eq!(document["orders"]["items"][0], json!({ "id": "7-1" }));
    assert!(document["orders"]["cents"].is_u64() && document["orders"]["total"].is_null());
}

#[tokio::test]
async fn what_is_optional_may_be_missing_and_the_answer_says_so() {
    for fault in [Fault::status(503), Fault::Reset, Fault::InvalidJson, Fault::status(404)] {
        let (fleet, gateway) = start().await;
        fleet.backend("orders").behave(Behaviour::always(fault.clone())).await;
        let answer = gateway.get("/dashboard/7").send().await.expect(200);
        assert_eq!(answer.header("x-gateway-complete"), Some("false"), "{fault:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{fault:?}");
        let status = answer.header("proxy-status").expect("RFC 9209 says what failed");
        assert!(status.contains("orders"), "{status}");
        let document = answer.json();
        assert_eq!(document.get("orders"), None, "{fault:?}");
        assert_eq!(failed_parts(&document), ["orders"], "{fault:?}");
        assert_eq!(document["user"]["id"], "7");
        fleet.backend("orders").heal().await;
        let answer = gateway.get("/dashboard/7").send().await.expect(200);
        assert_eq!(answer.header("x-gateway-complete"), Some("true"), "{fault:?}");
    }
}

#[tokio::test]
async fn a_fallback_stands_in_and_is_shaped_like_what_it_stands_for() {
    let (fleet, gateway) = start().await;
    fleet.backend("orders").behave(Behaviour::refusing()).await;
    let answer = gateway.get("/spare/7").send().await.expect(200);
    assert_eq!(answer.header("x-gateway-complete"), Some("false"));
    assert_eq!(answer.json()["orders"], json!({ "items": [] }));
}

#[tokio::test]
async fn without_what_is_required_there_is_no_document() {
    let (fleet, gateway) = start().await;
    let (users, orders) = (fleet.backend("users"), fleet.backend("orders"));
    for (status, mapped) in [(404, 404), (403, 403), (500, 502), (503, 502)] {
        orders.close_gate();
        users.next([Behaviour::status(status)]);
        let cancelled = orders.counts().cancelled;
        let answer = gateway.get("/dashboard/7").send().await;
        assert_eq!(answer.status, mapped, "{status}: {answer:#?}");
        assert!(answer.text().contains("user"), "{answer:#?}");
        // The part that still waited has become pointless.
        let gone = orders
            .wait_for(|counts| counts.in_flight == 0, SOON)
            .await
            .expect("it is cancelled");
        assert!(gone.cancelled >= cancelled);
        orders.open_gate();
    }
}

#[tokio::test]
async fn a_pointless_part_is_cancelled_at_the_socket() {
    let (fleet, gateway) = start().await;
    let (users, orders) = (fleet.backend("users"), fleet.backend("orders"));
    users.close_gate();
    orders.close_gate();
    let asked = tokio::spawn(gateway.get("/dashboard/7").send());
    at_gate(&users).await;
    at_gate(&orders).await;
    users.reset_connections();
    let answer = asked.await.expect("no panic");
    assert_eq!(answer.status, 502, "{answer:#?}");
    orders
        .wait_for(|counts| counts.cancelled == 1, SOON)
        .await
        .expect("it is cancelled");
}

#[tokio::test]
async fn where_nothing_may_be_missing_one_failure_is_the_answer() {
    let (fleet, gateway) = start().await;
    gateway.get("/strict/7").send().await.expect(200);
    fleet.backend("orders").behave(Behaviour::refusing()).await;
    let answer = gateway.get("/strict/7").send().await;
    assert_eq!(answer.status, 502, "{answer:#?}");
}

#[tokio::test]
async fn when_every_part_fails_there_is_no_empty_document() {
    let (fleet, gateway) = start().await;
    fleet.backend("orders").behave(Behaviour::refusing()).await;
    fleet.backend("recommendations").behave(Behaviour::status(503)).await;
    let answer = gateway.get("/options/7").send().await;
    assert_eq!(answer.status, 502, "{answer:#?}");
}

#[tokio::test]
async fn a_part_may_need_another_and_is_skipped_without_it() {
    let (_fleet, gateway) = start().await;
    let document = gateway.get("/account/7").send().await.expect(200).json();
    assert_eq!(document["billing"], json!({ "account": "acc-7", "currency": "EUR" }));
    assert_eq!(document["sku"], "7", "a part grouped at `.` is merged at the root");
    assert_eq!(document.get("credit"), None);
}

#[tokio::test]
async fn a_part_behind_an_open_breaker_is_missing_and_not_asked() {
    let (fleet, gateway) = start().await;
    let orders = fleet.backend("orders");
    orders.behave(Behaviour::status(503)).await;
    for _ in 0..6 {
        let answer = gateway.get("/dashboard/7").send().await.expect(200);
        assert_eq!(answer.header("x-gateway-complete"), Some("false"));
    }
    assert_eq!(orders.counts().requests, 3);
    let rejected = [("backend", "orders"), ("reason", "breaker_open")];
    assert_eq!(gateway.metric("gateway_backend_rejections_total", &rejected).await, 3.0);
    let partial = gateway
        .metric("gateway_partial_responses_total", &[("route", "dashboard")])
        .await;
    assert_eq!(partial, 6.0);
}

#[tokio::test]
async fn a_head_request_has_the_head_alone() {
    let (_fleet, gateway) = start().await;
    let answer = gateway
        .client()
        .ask(Method::HEAD, "/dashboard/7")
        .send()
        .await
        .expect(200);
    assert_eq!(answer.header("x-gateway-complete"), Some("true"));
    assert_eq!(answer.body.len(), 0);
}

#[tokio::test]
async fn a_caller_who_hangs_up_cancels_every_part() {
    let (fleet, gateway) = start().await;
    let parts = ["users", "orders", "recommendations"].map(|name| fleet.backend(name));
    for part in &parts {
        part.close_gate();
    }
    let mut caller = gateway.connect().await;
    caller.send("GET /dashboard/7 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    for part in &parts {
        at_gate(part).await;
    }
    drop(caller);
    for part in &parts {
        part.wait_for(|counts| counts.cancelled == 1, SOON)
            .await
            .expect("it is cancelled");
    }
}

#[tokio::test]
async fn the_order_of_arrival_does_not_show() {
    let runs = if cfg!(feature = "long") { 1000 } else { 200 };
    let (fleet, gateway) = start().await;
    for name in ["users", "orders", "recommendations"] {
        let random = Latency::Uniform { from_ms: 0, to_ms: 8 };
        fleet.backend(name).behave(Behaviour::late(random)).await;
    }
    let mut documents = BTreeSet::new();
    for _ in 0..runs / 20 {
        let tally = at_once(20, |_| gateway.get("/dashboard/7")).await;
        tally.all(200);
        documents.extend(tally.answers().map(|answer| answer.text()));
    }
    assert_eq!(documents.len(), 1, "{documents:#?}");
}
