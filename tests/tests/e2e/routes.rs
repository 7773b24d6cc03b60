//! Checks routing: the most specific route wins in any order, and the path that was authorised is the path that is
//! sent.

use fixtures::fleet::{Fleet, Handle};
use http::Method;
use tests::configs::Config;
use tests::{Answer, Gateway};

use crate::one_backend;

/// A route that answers with its own name.
fn answering(config: Config, name: &str, matches: &str) -> Config {
    let route = format!(
        "{{ match: {{ {matches} }}, access: {{ any_of: [anonymous] }}, \
         respond: {{ status: 200, headers: {{ x-route: {name} }}, body: \"{name}\" }} }}"
    );
    config.route(name, &route)
}

/// Least specific first, so that an order of writing would show.
async fn start() -> Gateway {
    let routes = [
        ("wildcard", r#"path: "/users/{*rest}""#),
        ("parameter", r#"path: "/users/{id}""#),
        ("literal", r#"path: "/users/me""#),
        ("deep", r#"path: "/users/{id}/orders/{order}""#),
        ("any_host", r#"path: /hosts"#),
        ("wildcard_host", r#"host: "*.example.com", path: /hosts"#),
        ("exact_host", r#"host: api.example.com, path: /hosts"#),
        ("plain", r#"path: /versions"#),
        ("with_header", r#"path: /versions, headers: { x-version: "2" }"#),
        ("with_query", r#"path: /views, query: { view: full }"#),
        ("read_only", r#"path: "/read/{id}", methods: [GET, DELETE]"#),
        ("any_method", r#"path: "/read/{*rest}""#),
        ("several", r#"path: ["/a", "/b/{x}"]"#),
    ];
    let config = routes.into_iter().fold(Config::default(), |config, (name, matches)| {
        answering(config, name, matches)
    });
    Gateway::start(config.to_string()).await
}

fn route(answer: &Answer) -> Option<&str> {
    answer.header("x-route")
}

#[tokio::test]
async fn the_most_specific_path_wins() {
    let gateway = start().await;
    for (path, expected) in [
        ("/users/me", "literal"),
        ("/users/7", "parameter"),
        ("/users/me2", "parameter"),
        ("/users/7/orders/9", "deep"),
        ("/users/7/orders", "wildcard"),
        ("/users/me/orders/9/more", "wildcard"),
        ("/a", "several"),
        ("/b/1", "several"),
        ("/users/7?view=full", "parameter"),
    ] {
        let answer = gateway.get(path).send().await.expect(200);
        assert_eq!(route(&answer), Some(expected), "{path}");
    }
}

#[tokio::test]
async fn an_exact_host_beats_a_wildcard_and_a_wildcard_beats_none() {
    let gateway = start().await;
    for (host, expected) in [
        ("api.example.com", "exact_host"),
        ("API.Example.COM:8080", "exact_host"),
        ("www.example.com", "wildcard_host"),
        ("example.com", "any_host"),
        ("elsewhere.test", "any_host"),
    ] {
        let answer = gateway.get("/hosts").header("host", host).send().await.expect(200);
        assert_eq!(route(&answer), Some(expected), "{host}");
    }
}

#[tokio::test]
async fn a_condition_beats_none() {
    let gateway = start().await;
    let version = |value: &str| gateway.get("/versions").header("x-version", value).send();
    assert_eq!(route(&version("2").await.expect(200)), Some("with_header"));
    assert_eq!(route(&version("3").await.expect(200)), Some("plain"));
    let answer = gateway.get("/views?a=1&view=full").send().await.expect(200);
    assert_eq!(route(&answer), Some("with_query"));
    gateway.get("/views?view=short").send().await.refusal(404, "no_route");
}

#[tokio::test]
async fn an_unknown_path_is_404_and_a_known_one_with_a_wrong_method_405() {
    let gateway = start().await;
    for path in ["/", "/users", "/users/", "/nowhere", "/b", "/b/1/2"] {
        gateway.get(path).send().await.refusal(404, "no_route");
    }
    let refused = gateway.post("/read/1").send().await;
    refused.refusal(405, "method_not_allowed");
    let mut allowed: Vec<&str> = refused.header("allow").expect("a 405 has it").split(", ").collect();
    allowed.sort_unstable();
    assert_eq!(
        allowed,
        ["DELETE", "GET", "HEAD"],
        "the less specific route is not fallen back to"
    );
    let answer = gateway.post("/read/1/2").send().await.expect(200);
    assert_eq!(route(&answer), Some("any_method"));
}

#[tokio::test]
async fn options_without_cors_is_405_and_trace_and_connect_are_never_served() {
    let gateway = start().await;
    gateway
        .client()
        .ask(Method::OPTIONS, "/read/1")
        .send()
        .await
        .refusal(405, "method_not_allowed");
    let (_fleet, api) = one_backend("api").await;
    let gateway = Gateway::start(Config::default().open("api", api.address(), "").to_string()).await;
    for line in ["TRACE /api/echo", "CONNECT /api/echo", "CONNECT example.com:443"] {
        let answer = gateway.raw(format!("{line} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        assert!(
            answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 501"),
            "{line}: {answer}"
        );
    }
    assert_eq!(api.counts().requests, 0);
}

#[tokio::test]
async fn a_fixed_answer_needs_no_backend() {
    let gateway = start().await;
    let answer = gateway.get("/users/me").send().await.expect(200);
    assert_eq!(answer.text(), "literal");
    assert!(answer.header("x-request-id").is_some());
}

async fn start_with_echo() -> (Fleet, Handle, Gateway) {
    let (fleet, api) = one_backend("api").await;
    let open = "access: { any_of: [anonymous] }, backend: api";
    let config = Config::default()
        .backend("api", api.address(), "")
        .route("plain", &format!(r#"{{ match: {{ path: ["/echo", "/echo/{{*rest}}", "/bytes/{{n}}"] }}, {open} }}"#))
        .route(
            "rewritten",
            &format!(
                r#"{{ match: {{ path: "/users/{{id}}/files/{{*rest}}" }}, {open}, rewrite: "/echo/{{path.rest}}/of/{{path.id}}" }}"#
            ),
        )
        .route("get_only", &format!(r#"{{ match: {{ path: "/status/{{code}}", methods: [GET] }}, {open} }}"#));
    let gateway = Gateway::start(config.to_string()).await;
    (fleet, api, gateway)
}

#[tokio::test]
async fn the_bytes_that_were_authorised_are_the_bytes_that_are_sent() {
    let (_fleet, api, gateway) = start_with_echo().await;
    for (target, expected) in [
        ("/echo?q=1&q=%2F&empty", "/echo?q=1&q=%2F&empty"),
        ("/echo/a%20b/c+d/%C3%A9", "/echo/a%20b/c+d/%C3%A9"),
        ("/echo/x?", "/echo/x?"),
        ("/echo/~a/b;c=d/e@f:g", "/echo/~a/b;c=d/e@f:g"),
        ("/users/7/files/a/b.txt", "/echo/a/b.txt/of/7"),
        ("/users/a%20b/files/x%3Fy?v=1", "/echo/x%3Fy/of/a%20b?v=1"),
    ] {
        gateway.get(target).send().await.expect(200);
        let request = api.take_requests().pop().expect("it came");
        assert_eq!(request.target, expected, "{target}");
    }
}

#[tokio::test]
async fn a_path_that_could_be_read_in_two_ways_is_refused() {
    let (_fleet, api, gateway) = start_with_echo().await;
    for target in [
        "/echo/../status/200",
        "/echo/./x",
        "/echo/..",
        "/echo/%2e%2e/x",
        "/echo/.%2E/x",
        "/echo/%2e/x",
        "/echo//x",
        "//echo/x",
        "/echo/a%2Fb",
        "/echo/a%2fb",
        "/echo/a%5cb",
        "/echo/a%00b",
        "/echo/%zz",
        "/echo/%",
        "/users/..%2f..%2fadmin/files/x",
    ] {
        gateway.get(target).send().await.refusal(400, "malformed_request");
    }
    let answer = gateway.raw("GET /echo/a\\b HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(api.counts().requests, 0);
}

#[tokio::test]
async fn get_admits_head_whose_answer_has_no_body() {
    let (_fleet, api, gateway) = start_with_echo().await;
    let answer = gateway
        .client()
        .ask(Method::HEAD, "/bytes/1234")
        .send()
        .await
        .expect(200);
    assert_eq!((answer.header("content-length"), answer.body.len()), (Some("1234"), 0));
    gateway
        .client()
        .ask(Method::HEAD, "/status/200")
        .send()
        .await
        .expect(200);
    let methods: Vec<String> = api.requests().into_iter().map(|request| request.method).collect();
    assert_eq!(methods, ["HEAD", "HEAD"]);
    let fixed = start().await;
    let answer = fixed.client().ask(Method::HEAD, "/read/1").send().await.expect(200);
    assert_eq!((answer.header("content-length"), answer.body.len()), (Some("9"), 0));
}

#[tokio::test]
async fn what_concerns_one_connection_only_is_not_passed_on() {
    let (_fleet, api, gateway) = start_with_echo().await;
    let ask = gateway
        .get("/echo")
        .header("connection", "x-private, keep-alive")
        .header("x-private", "1");
    let ask = ask
        .header("te", "gzip")
        .header("upgrade", "frobnicate")
        .header("proxy-authorization", "Basic eDp5");
    ask.header("x-public", "1").send().await.expect(200);
    let request = api.requests().pop().expect("it came");
    for name in [
        "connection",
        "x-private",
        "te",
        "upgrade",
        "keep-alive",
        "proxy-authorization",
        "transfer-encoding",
    ] {
        assert_eq!(request.header(name), None, "{name}");
    }
    assert_eq!(request.header("x-public"), Some("1"));
    assert_eq!(request.header("host"), Some(api.address().to_string().as_str()));
    assert!(request.header("via").is_some(), "{:?}", request.headers);
}
