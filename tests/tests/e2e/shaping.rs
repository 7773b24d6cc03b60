//! Checks what an aggregate makes of its parts' answers: lists whose elements get the answers of other backends, values
//! that change their places, one part as the whole document, and fields that the caller chooses.

use fixtures::fleet::{Behaviour, Fleet, Keep, Spec, demo};
use http::Method;
use serde_json::{Value, json};
use tests::configs::Config;
use tests::{Answer, Gateway, cli};

/// The shop, and one route for each of the aggregates, whose paths are their names.
async fn start(aggregates: &[(&str, &str)]) -> (Fleet, Gateway) {
    let specs = demo::specs()
        .into_iter()
        .map(|spec| spec.behaviour(Behaviour::default()).keep(Keep::default()));
    let fleet = Fleet::start(specs.collect::<Vec<Spec>>())
        .await
        .expect("ports are free");
    let guards = "retry: off, breaker: off, ejection: off";
    let mut config = Config::default()
        .backend("orders", fleet.address("orders"), guards)
        .backend("inventory", fleet.address("inventory"), guards)
        .backend("users", fleet.address("users"), guards);
    for (name, aggregate) in aggregates {
        config = config.route(
            name,
            &format!(
                "{{ match: {{ path: /{name} }}, access: {{ any_of: [anonymous] }}, time_limit: 4s, aggregate: {aggregate} }}"
            ),
        );
    }
    let gateway = Gateway::start(config.to_string()).await;
    (fleet, gateway)
}

/// Answer of a backend to any request.
fn says(body: &str) -> Behaviour {
    let length = body.len();
    Behaviour::raw(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    ))
}

fn products(on_failure: &str) -> String {
    format!(
        "{{ partial: allow, errors: true, parts: {{ cart: {{ backend: orders, path: /carts/7, group: . }}, \
         products: {{ backend: inventory, path: \"/products/{{item.sku}}\", keep: [name, cents], \
         for_each: {{ in: \"{{part.cart.items}}\", into: \"items.*.product\", at_once: 8, on_failure: {on_failure} }} }} }} }}"
    )
}

fn tag(answer: &Answer) -> &str {
    answer.header("etag").expect("a complete answer has a tag")
}

#[tokio::test]
async fn each_item_of_a_cart_gets_its_product_and_the_one_that_fails_is_seen() {
    let aggregates = ["null", "omit", "fail"].map(|on_failure| (on_failure, products(on_failure)));
    let routes: Vec<_> = aggregates
        .iter()
        .map(|(name, aggregate)| (*name, aggregate.as_str()))
        .collect();
    let (fleet, gateway) = start(&routes).await;
    for (on_failure, gone) in [("null", Some(&Value::Null)), ("omit", None)] {
        let answer = gateway.get(&format!("/{on_failure}")).send().await.expect(200);
        assert_eq!(answer.header("x-gateway-complete"), Some("false"));
        let status = answer.header("proxy-status").expect("it says which part failed");
        assert!(status.contains("products: elements_failed"), "{status}");
        let document = answer.json();
        let items = document["items"].as_array().expect("a list");
        assert_eq!(items.len(), 20);
        for item in items {
            let sku = item["sku"].as_str().expect("a text");
            if sku == "notebook-green" {
                assert_eq!(item.get("product"), gone, "{on_failure}");
                continue;
            }
            let kind = sku.split('-').next().expect("a word");
            let name = item["product"]["name"].as_str().expect("a name").to_lowercase();
            assert!(name.ends_with(kind), "{sku} got {name}");
            assert_eq!(item["product"].as_object().expect("an object").len(), 2, "cut to shape");
        }
        let expected = json!([{
            "part": "products", "reason": "elements_failed", "status": 410, "backend_status": 410, "failed": 1, "of": 20,
            "elements": [{ "index": 8, "reason": "backend_status", "status": 410 }],
        }]);
        assert_eq!(document["_errors"], expected, "{on_failure}");
    }
    let document = gateway.get("/fail").send().await.expect(200).json();
    assert_eq!(document["items"][0].get("product"), None);
    assert_eq!(document["_errors"][0]["part"], "products");
    fleet.backend("orders").behave(Behaviour::status(404)).await;
    let answer = gateway.get("/null").send().await;
    assert_eq!(
        (answer.status, answer.reason()),
        (404, Some("backend_status")),
        "without a cart there is nothing"
    );
}

#[tokio::test]
async fn a_required_list_of_answers_fails_the_whole_as_any_part() {
    let aggregate = products("fail").replace("keep: [name, cents]", "required: true");
    let (_fleet, gateway) = start(&[("cart", &aggregate)]).await;
    let answer = gateway.get("/cart").send().await;
    assert_eq!(
        (answer.status, answer.reason()),
        (410, Some("elements_failed")),
        "{answer:#?}"
    );
}

#[tokio::test]
async fn answers_go_into_answers_that_go_into_a_list() {
    let (fleet, gateway) = start(&[(
        "cart",
        "{ parts: { \
         stock: { backend: users, path: \"/users/{item.id}\", keep: [name], \
         for_each: { in: \"{part.owners}\", into: \"*.user\" } }, \
         owners: { backend: inventory, path: \"/owners/{item.sku}\", rename: { id: number }, \
         for_each: { in: \"{part.cart.o.items}\", into: \"o.items.*.made.by\" } }, \
         cart: { backend: orders, path: /carts/7, group: basket, keep: [o.items.sku], rename: { o: all }, \
         defaults: { \"all.items.*.count\": 1 } } } }",
    )])
    .await;
    fleet
        .backend("orders")
        .behave(says(
            r#"{"o":{"items":[{"sku":"a","made":{"in":1.50}},{"sku":"b"}]},"x":1}"#,
        ))
        .await;
    fleet.backend("inventory").behave(says(r#"{"id":7}"#)).await;
    let answer = gateway.get("/cart").send().await.expect(200);
    assert_eq!(answer.header("x-gateway-complete"), Some("true"));
    let document = answer.json();
    let user = &document["basket"]["all"]["items"][0]["made"]["by"]["user"];
    assert!(user["name"].is_string(), "{document}");
    let item = |sku: &str| json!({ "sku": sku, "made": { "by": { "number": 7, "user": user } }, "count": 1 });
    assert_eq!(
        document,
        json!({ "basket": { "all": { "items": [item("a"), item("b")] } } })
    );
}

#[tokio::test]
async fn an_element_that_takes_no_answer_is_a_failed_one_and_is_not_asked_for() {
    let (fleet, gateway) = start(&[("cart", &products("omit").replace("{item.sku}", "lamp-red"))]).await;
    let list = r#"{"items":[{"product":0},7,[],null,{"sku":"b"}]}"#;
    fleet.backend("orders").behave(says(list)).await;
    let document = gateway.get("/cart").send().await.expect(200).json();
    let product = json!({ "name": "Desk lamp", "cents": 5450 });
    let expected = json!([{ "product": product }, 7, [], null, { "sku": "b", "product": product }]);
    assert_eq!(document["items"], expected);
    let told = &document["_errors"][0];
    assert_eq!((&told["failed"], &told["of"]), (&json!(3), &json!(5)), "{told}");
    assert_eq!(
        told["elements"][0],
        json!({ "index": 1, "reason": "not_mergeable", "status": 502 })
    );
    assert_eq!(fleet.backend("inventory").counts().requests, 2);
}

#[tokio::test]
async fn values_change_their_places_and_what_is_absent_has_a_default() {
    let (fleet, gateway) = start(&[(
        "user",
        "{ parts: { user: { backend: users, path: /users/7, group: ., target: data, \
         rename: { nick: names.short }, copy: { id: links.self }, move: { \"person.name\": names.full, \"tags.*.t.v\": \"tags.*.v\" }, \
         map: [{ at: edges, target: node, keep: [id], defaults: { live: true } }], \
         defaults: { \"tags.*.v\": none, plan: { name: free } } } } }",
    )])
    .await;
    let body = r#"{"data":{"id":7.0,"nick":"al","person":{"name":"Al"},"tags":[{"t":{"v":1}},{}],"edges":[{"node":{"id":1,"x":2}}]}}"#;
    fleet.backend("users").behave(says(body)).await;
    let answer = gateway.get("/user").send().await.expect(200);
    assert_eq!(
        answer.text(),
        r#"{"id":7.0,"person":{},"tags":[{"t":{},"v":1},{"v":"none"}],"edges":[{"id":1,"live":true}],"names":{"short":"al","full":"Al"},"links":{"self":7.0},"plan":{"name":"free"}}"#
    );
}

#[tokio::test]
async fn what_shaping_makes_too_long_is_a_failed_part() {
    let (fleet, gateway) = start(&[(
        "list",
        "{ partial: allow, errors: true, parts: { user: { backend: users, path: /users/7 }, list: { backend: orders, path: /list, body_limit: 1KiB, \
         defaults: { \"*.text\": \"a default of the config that is as long as many of the elements together\" } } } }",
    )])
    .await;
    let list = |count: usize| json!(vec![json!({}); count]).to_string();
    fleet.backend("orders").behave(says(&list(10))).await;
    let document = gateway.get("/list").send().await.expect(200).json();
    assert_eq!(document["list"].as_array().map(Vec::len), Some(10));
    fleet.backend("orders").behave(says(&list(300))).await;
    let document = gateway.get("/list").send().await.expect(200).json();
    assert_eq!(document.get("list"), None);
    assert_eq!(document["_errors"][0]["reason"], "too_large");
}

#[tokio::test]
async fn one_part_can_be_the_whole_document() {
    let parts = |rest: &str| {
        format!(
            "document: items, parts: {{ user: {{ backend: users, path: /users/7 }}, \
             items: {{ backend: orders, path: \"/orders?user={{part.user.id}}\", target: items{rest} }}, \
             stock: {{ backend: inventory, path: \"/stock/{{item.sku}}\", keep: [available], \
             for_each: {{ in: \"{{part.items.items}}\", into: \"items.*.stock\" }} }} }}"
        )
    };
    let (fleet, gateway) = start(&[
        ("bare", &format!("{{ {} }}", parts(""))),
        (
            "wrapped",
            &format!("{{ partial: allow, errors: true, wrap: data.list, {} }}", parts("")),
        ),
        (
            "spare",
            &format!(
                "{{ partial: allow, {} }}",
                parts(", fallback: { value: { items: [] } }")
            ),
        ),
    ])
    .await;
    let answer = gateway.get("/bare").send().await.expect(200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let bare = answer.json();
    let items = bare.as_array().expect("a bare array");
    assert_eq!(items.len(), 3);
    assert!(items.iter().all(|item| item["stock"]["available"].is_u64()), "{bare}");
    let known = gateway.get("/bare").header("if-none-match", tag(&answer)).send().await;
    known.expect(304);
    let head = gateway.client().ask(Method::HEAD, "/bare").send().await.expect(200);
    assert_eq!(
        head.header("content-length"),
        Some(answer.text().len().to_string().as_str())
    );

    let wrapped = gateway.get("/wrapped").send().await.expect(200).json();
    assert_eq!(wrapped, json!({ "data": { "list": bare } }));
    fleet.backend("inventory").behave(Behaviour::status(404)).await;
    let wrapped = gateway.get("/wrapped").send().await.expect(200).json();
    assert_eq!(wrapped["data"]["list"][0].get("stock"), None);
    assert_eq!(wrapped["_errors"][0]["part"], "stock");

    fleet.backend("orders").behave(Behaviour::status(503)).await;
    let answer = gateway.get("/spare").send().await.expect(200);
    assert_eq!(
        (answer.text().as_str(), answer.header("x-gateway-complete")),
        ("[]", Some("false"))
    );
    let answer = gateway.get("/wrapped").send().await;
    assert_eq!(
        (answer.status, answer.reason()),
        (502, Some("backend_status")),
        "no document, no answer"
    );
}

#[tokio::test]
async fn a_caller_chooses_among_the_fields_that_are_offered() {
    let (fleet, gateway) = start(&[(
        "page",
        "{ partial: allow, errors: true, fields: { allow: [user.name, orders.items, orders.total] }, parts: { \
         user: { backend: users, path: /users/7 }, orders: { backend: orders, path: /orders?user=7 } } }",
    )])
    .await;
    let whole = gateway.get("/page").send().await.expect(200);
    let part = gateway
        .get("/page?fields=orders.items.sku,user.name")
        .send()
        .await
        .expect(200);
    let (document, chosen) = (whole.json(), part.json());
    let skus = document["orders"]["items"].as_array().expect("a list").iter();
    let skus: Vec<_> = skus.map(|item| json!({ "sku": item["sku"] })).collect();
    assert_eq!(
        chosen,
        json!({ "user": { "name": document["user"]["name"] }, "orders": { "items": skus } })
    );
    assert_ne!(tag(&whole), tag(&part), "the tag is that of the bytes");
    let known = gateway
        .get("/page?fields=orders.items.sku,user.name")
        .header("if-none-match", tag(&part));
    known.send().await.expect(304);
    let other = gateway
        .get("/page?fields=user.name")
        .header("if-none-match", tag(&part));
    other.send().await.expect(200);

    let asked = fleet.backend("users").counts().requests;
    for (query, said) in [
        (
            "fields=user",
            "`user` is not offered; there are user.name, orders.items, orders.total",
        ),
        ("fields=user.email", "`user.email` is not offered"),
        ("fields=", "an empty name"),
        ("fields=*", "not offered"),
        ("fields=orders.total&fields=user.name", "once"),
    ] {
        let answer = gateway.get(&format!("/page?{query}")).send().await;
        let problem = answer.refusal(400, "field_not_offered");
        let detail = problem["detail"].as_str().expect("a text");
        assert!(detail.contains(said), "{query}: {detail}");
    }
    assert_eq!(fleet.backend("users").counts().requests, asked, "no part was called");
    let reasons = [("route", "page"), ("reason", "field_not_offered")];
    assert_eq!(gateway.metric("gateway_rejections_total", &reasons).await, 5.0);

    fleet.backend("orders").behave(Behaviour::status(404)).await;
    let partial = gateway.get("/page?fields=user.name").send().await.expect(200);
    assert_eq!(
        partial.json()["_errors"][0]["part"],
        "orders",
        "what failed is told anyway"
    );
}

#[tokio::test]
async fn chosen_fields_are_stored_apart_from_the_whole_and_from_each_other() {
    let specs = ["users"].map(|name| Spec::new(name).keep(Keep::default()));
    let fleet = Fleet::start(specs).await.expect("ports are free");
    let users = fleet.backend("users");
    users.behave(says(r#"{"name":"Ada","mail":"a@b"}"#)).await;
    let config = Config::default()
        .backend("users", fleet.address("users"), "retry: off")
        .route(
            "page",
            "{ match: { path: /page }, access: { any_of: [anonymous] }, cache: { ttl: 10m }, \
         aggregate: { fields: { parameter: only, allow: [user] }, parts: { user: { backend: users, path: /u } } } }",
        );
    let gateway = Gateway::start(config.to_string()).await;
    for round in ["fwd=uri-miss", "hit"] {
        for (query, body) in [
            ("", r#"{"user":{"name":"Ada","mail":"a@b"}}"#),
            ("?only=user.name", r#"{"user":{"name":"Ada"}}"#),
            ("?only=user.mail", r#"{"user":{"mail":"a@b"}}"#),
        ] {
            let answer = gateway.get(&format!("/page{query}")).send().await.expect(200);
            assert_eq!(answer.text(), body, "{query}");
            let status = answer.header("cache-status").expect("it says so");
            assert!(status.contains(round), "{query}: {status}");
            let known = gateway
                .get(&format!("/page{query}"))
                .header("if-none-match", tag(&answer));
            known.send().await.expect(304);
        }
        gateway
            .get("/page?only=mail")
            .send()
            .await
            .refusal(400, "field_not_offered");
    }
    assert_eq!(users.counts().requests, 3);
}

#[test]
fn explain_tells_where_answers_go() {
    let config = Config::default()
        .backend("orders", "127.0.0.1:1".parse().expect("an address"), "retry: off")
        .route(
            "cart",
            &format!(
                "{{ match: {{ path: /cart }}, access: {{ any_of: [anonymous] }}, aggregate: {} }}",
                products("null")
                    .replace("backend: inventory", "backend: orders")
                    .replace("errors: true,", "errors: true, fields: { allow: [items] },")
            ),
        );
    let setup = tests::Setup::new(config.to_string());
    let told = cli(&["explain", "GET", "/cart"], &setup);
    for said in ["into cart at items.*.product", "?fields="] {
        assert!(told.stdout.contains(said), "{said} is not in\n{}", told.stdout);
    }
}
