//! Checks which route a request takes: by prefix, by expression, and to a redirect.

use fixtures::fleet::Fleet;
use tests::Gateway;
use tests::configs::{Config, UNGUARDED};

use crate::one_backend;

async fn start(routes: &[(&str, &str)]) -> (Fleet, Gateway) {
    let (fleet, api) = one_backend("api").await;
    let config = Config::default().backend("api", api.address(), UNGUARDED);
    let open = "access: { any_of: [anonymous] }";
    let config = routes.iter().fold(config, |config, (name, yaml)| {
        config.route(name, &format!("{{ {open}, {yaml} }}"))
    });
    (fleet, Gateway::start(config.to_string()).await)
}

#[tokio::test]
async fn a_prefix_is_stripped_or_replaced() {
    let (_fleet, gateway) = start(&[
        ("kept", "match: { prefix: /kept }, backend: api"),
        ("shop", "match: { prefix: [/shop, /store/], strip: true }, backend: api"),
        (
            "v1",
            "match: { prefix: \"/api/{version}\" }, backend: api, rewrite: \"/v1/{path.rest}\"",
        ),
    ])
    .await;
    for (asked, expected) in [
        ("/kept", "/kept"),
        ("/kept/a?b=c", "/kept/a?b=c"),
        ("/shop", "/"),
        ("/shop/", "/"),
        ("/shop?a=1", "/?a=1"),
        ("/shop/a%20b/c/", "/a%20b/c/"),
        ("/store/x", "/x"),
        ("/api/v7", "/v1/"),
        ("/api/v7/users/7?full", "/v1/users/7?full"),
    ] {
        let echoed = gateway.get(asked).send().await.expect(200).json();
        let (path, query) = expected.split_once('?').unwrap_or((expected, ""));
        assert_eq!(echoed["path"], path, "{asked}: {echoed}");
        assert_eq!(echoed["query"].as_str().unwrap_or_default(), query, "{asked}: {echoed}");
    }
    for missing in ["/shopping", "/", "/api", "/Shop"] {
        gateway.get(missing).send().await.refusal(404, "no_route");
    }
}

#[tokio::test]
async fn an_expression_decides_between_routes_of_one_path() {
    let (_fleet, gateway) = start(&[
        (
            "number",
            "match: { path: \"/users/{id}\", parameters: { id: { regex: \"[0-9]+\" } } }, respond: { body: number }",
        ),
        (
            "name",
            "match: { path: \"/users/{id}\", parameters: { id: { regex: \"[a-z]+\" } } }, respond: { body: name }",
        ),
        (
            "beta",
            "match: { path: /home, headers: { x-build: { regex: \"(?i)beta-.*\" } } }, respond: { body: beta }",
        ),
        (
            "page",
            "match: { path: /list, query: { page: { regex: \"[1-9][0-9]*\" } } }, respond: { body: page }",
        ),
        ("home", "match: { path: /home }, respond: { body: home }"),
    ])
    .await;
    let body = async |target: &str| gateway.get(target).send().await.expect(200).text();
    assert_eq!(body("/users/42").await, "number");
    assert_eq!(body("/users/ada").await, "name");
    gateway.get("/users/Ada").send().await.refusal(404, "no_route");
    assert_eq!(body("/list?page=3").await, "page");
    gateway.get("/list?page=03").send().await.refusal(404, "no_route");
    assert_eq!(body("/home").await, "home");
    let beta = gateway.get("/home").header("x-build", "Beta-7").send().await;
    assert_eq!(beta.expect(200).text(), "beta");
    let routes = gateway.admin_json("/api/v1/routes").await.to_string();
    assert!(routes.contains(r#""parameters":["id=/[0-9]+/"]"#), "{routes}");
}

#[tokio::test]
async fn a_redirect_sends_the_caller_elsewhere() {
    let (_fleet, gateway) = start(&[
        (
            "old",
            "match: { prefix: /old }, redirect: { to: \"https://new.example/{path.rest}\" }",
        ),
        (
            "item",
            "match: { path: \"/item/{id}\" }, redirect: { to: \"/items?id={path.id}\", status: 302 }",
        ),
        (
            "secure",
            "match: { host: plain.example, prefix: / }, redirect: { to: \"https://{host}/{path.rest}\", status: 301 }",
        ),
    ])
    .await;
    for (asked, host, status, location) in [
        ("/old", "edge", 308, "https://new.example/"),
        ("/old/a%20b?c=d", "edge", 308, "https://new.example/a%20b?c=d"),
        ("/item/a&b?c=d", "edge", 302, "/items?id=a%26b"),
        ("/x/y?z", "plain.example:8080", 301, "https://plain.example/x/y?z"),
        ("/", "plain.example", 301, "https://plain.example/"),
    ] {
        let answer = gateway.get(asked).header("host", host).send().await.expect(status);
        assert_eq!(answer.header("location"), Some(location), "{asked}");
        assert_eq!(
            (answer.header("content-length"), answer.body.len()),
            (Some("0"), 0),
            "{asked}"
        );
        assert!(answer.header("x-request-id").is_some());
    }
}
