//! Checks that pages of other origins can use a route that allows it, and can read all its answers, rejections
//! included.

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Fleet, Handle};
use tests::configs::Config;
use tests::http2_caller::Http2;
use tests::{Answer, Ask, Gateway, Setup};

use crate::one_backend;

const APP: &str = "https://app.example.com";
const EVIL: &str = "https://evil.example";

const TOP: &str = "
listeners: { public: { address: \"127.0.0.1:0\" } }
admin: { address: \"127.0.0.1:0\" }
tiers: { free: { rate: 1/h, burst: 1 } }
callers: { api_keys: { file: keys.yaml }, anonymous: { by: client_address, tier: free } }
cors: { origins: [\"https://app.example.com\"], credentials: true }
";

async fn start() -> (Fleet, Handle, Gateway) {
    let (fleet, api) = one_backend("api").await;
    let config = Config::with(TOP)
        .backend("api", api.address(), "")
        .route(
            "keyed",
            "{ match: { path: \"/keyed/{*rest}\", methods: [GET, PUT] }, backend: api, rewrite: \"/{path.rest}\" }",
        )
        .open_route("closed", "api", "cors: off")
        .open_route("any", "api", "cors: { origins: [\"*\"], expose: [x-total] }")
        .mapped(
            "denied",
            "api",
            "access: { any_of: [anonymous], addresses: { deny: [127.0.0.0/8] } }",
        );
    let keys = key_file(&[KeyLine::new("a", "acme", "key-a")]);
    let gateway = Setup::new(config.to_string()).file("keys.yaml", keys).start().await;
    (fleet, api, gateway)
}

fn preflight(gateway: &Gateway, target: &str, origin: &str, method: &str) -> Ask {
    gateway
        .client()
        .ask(http::Method::OPTIONS, target)
        .header("origin", origin)
        .header("access-control-request-method", method)
        .header("access-control-request-headers", "x-api-key")
}

fn allowed(answer: &Answer) -> Option<&str> {
    answer.header("access-control-allow-origin")
}

#[tokio::test]
async fn a_preflight_is_answered_before_anyone_is_asked_who_they_are() {
    let (_fleet, api, gateway) = start().await;
    for _ in 0..3 {
        let answer = preflight(&gateway, "/keyed/echo", APP, "PUT").send().await.expect(204);
        assert_eq!(allowed(&answer), Some(APP));
        for (name, value) in [
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-methods", "GET, PUT"),
            ("access-control-allow-headers", "authorization, content-type, x-api-key"),
            ("access-control-max-age", "600"),
            ("vary", "origin"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{name}");
        }
        assert_eq!(answer.header("ratelimit"), None, "nobody is charged");
        assert!(answer.body.is_empty());
    }
    let refused = preflight(&gateway, "/keyed/echo", EVIL, "PUT").send().await;
    refused.refusal(403, "origin_not_allowed");
    assert_eq!((allowed(&refused), refused.header("vary")), (None, Some("origin")));
    for target in ["/closed/echo", "/nowhere"] {
        assert!(
            preflight(&gateway, target, APP, "GET").send().await.status >= 404,
            "{target}"
        );
    }
    // A browser says which method is missing if it is told which are there.
    for lacking in ["DELETE", "POST", "OPTIONS", "PROPFIND"] {
        let answer = preflight(&gateway, "/keyed/echo", APP, lacking)
            .send()
            .await
            .expect(204);
        assert_eq!(
            (allowed(&answer), answer.header("access-control-allow-methods")),
            (Some(APP), Some("GET, PUT")),
            "{lacking}"
        );
    }
    let denied = preflight(&gateway, "/denied/echo", APP, "GET").send().await;
    denied.refusal(403, "address_not_allowed");
    assert_eq!(api.counts().requests, 0);
    let labels = [("route", "keyed"), ("reason", "origin_not_allowed")];
    assert_eq!(gateway.metric("gateway_rejections_total", &labels).await, 1.0);
}

#[tokio::test]
async fn what_is_refused_can_be_read_by_who_may_ask() {
    let (_fleet, _api, gateway) = start().await;
    let unknown = gateway.get("/keyed/echo").header("origin", APP).send().await;
    unknown.refusal(401, "credentials_missing");
    assert_eq!(allowed(&unknown), Some(APP));
    let exposed = unknown.header("access-control-expose-headers").unwrap_or_default();
    assert!(
        exposed.contains("retry-after") && exposed.contains("x-gateway-reason"),
        "{exposed}"
    );
    let ask = |origin| gateway.get("/keyed/echo").key("key-a").header("origin", origin).send();
    let served = ask(APP).await.expect(200);
    assert_eq!(
        (allowed(&served), served.header("access-control-allow-credentials")),
        (Some(APP), Some("true"))
    );
    let limited = ask(APP).await;
    limited.refusal(429, "rate_limited");
    assert_eq!(allowed(&limited), Some(APP));
    assert_eq!(allowed(&ask(EVIL).await), None);
}

#[tokio::test]
async fn any_origin_is_never_repeated() {
    let (_fleet, _api, gateway) = start().await;
    let answer = gateway.get("/any/echo").header("origin", EVIL).send().await.expect(200);
    assert_eq!(allowed(&answer), Some("*"));
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    assert_eq!(answer.header("access-control-expose-headers"), Some("x-total"));
    let closed = gateway.get("/closed/echo").header("origin", APP).send().await;
    assert_eq!((allowed(&closed), closed.header("vary")), (None, None));
}

const ROUTES_OF_THEIR_OWN: [(&str, &str); 4] = [
    ("usual", ""),
    (
        "own",
        "cors: { origins: [\"https://own.example.com\"], credentials: true }",
    ),
    ("every", "cors: { origins: [\"*\"] }"),
    ("closed", "cors: off"),
];
const OWN: &str = "https://own.example.com";

/// Routes that take GET alone; and those of one path, each for a method and with pages of its own.
async fn start_with(top: &str) -> (Fleet, Gateway) {
    let (fleet, api) = one_backend("api").await;
    let config = Config::default()
        .top("request_limits: { head: 2KiB, headers: 20, uri: 256B }")
        .top(top)
        .backend("api", api.address(), "");
    let access = "access: { any_of: [anonymous] }, backend: api, rewrite: /echo";
    let config = ROUTES_OF_THEIR_OWN.iter().fold(config, |config, (name, more)| {
        let matches = format!("match: {{ path: /{name}, methods: [GET] }}");
        config.route(name, &format!("{{ {matches}, {access}, {more} }}"))
    });
    let odd = "match: { path: \"/odd/{*rest}\", methods: [GET] }, path_policy: { encoded_slash: keep }";
    let config = config.route("odd", &format!("{{ {odd}, {access} }}"));
    let shared = [
        ("GET", "cors: off"),
        ("POST", ROUTES_OF_THEIR_OWN[1].1),
        ("PUT", ROUTES_OF_THEIR_OWN[2].1),
    ];
    let config = shared.iter().fold(config, |config, (method, more)| {
        let matches = format!("match: {{ path: /shared, methods: [{method}] }}");
        config.route(
            &format!("shared-{method}"),
            &format!("{{ {matches}, {access}, {more} }}"),
        )
    });
    let gateway = Gateway::start(config.to_string()).await;
    (fleet, gateway)
}

/// What is said to a page: the origin that may read, whether with credentials, and whether another is told otherwise.
fn told<'a>(field: impl Fn(&str) -> Option<&'a str>) -> (Option<&'a str>, bool, bool) {
    (
        field("access-control-allow-origin"),
        field("access-control-allow-credentials") == Some("true"),
        field("vary").is_some_and(|vary| vary.eq_ignore_ascii_case("origin")),
    )
}

#[tokio::test]
async fn a_page_may_read_why_there_was_no_route() {
    let (_fleet, gateway) = start_with("cors: { origins: [\"https://app.example.com\"] }").await;
    let caller = Http2::connect(gateway.address()).await;
    let long = format!("/{}", "y".repeat(300));
    let wide = "b".repeat(1500);
    let (nothing, closed) = ((None, false, true), (None, false, false));
    let app = (Some(APP), false, true);
    let own = (Some(OWN), true, true);
    let every = (Some("*"), false, false);
    for (method, target, origin, status, expected) in [
        ("DELETE", "/usual", APP, 405, app),
        ("OPTIONS", "/usual", APP, 405, app),
        ("DELETE", "/usual", EVIL, 405, nothing),
        ("DELETE", "/usual", "null", 405, nothing),
        ("DELETE", "/usual", OWN, 405, nothing),
        ("POST", "/own", OWN, 405, own),
        ("POST", "/own", APP, 405, nothing),
        ("PATCH", "/every", EVIL, 405, every),
        ("PATCH", "/closed", APP, 405, closed),
        ("DELETE", "/shared", OWN, 405, own),
        ("DELETE", "/shared", APP, 405, (Some("*"), false, true)),
        // The path is read as the route has it that lacks the method.
        ("DELETE", "/odd/a%2Fb", APP, 405, app),
        ("GET", "/odd/a%2Fb", APP, 200, app),
        ("DELETE", "/usual/a%2Fb", APP, 400, app),
        ("GET", "/nowhere", APP, 404, app),
        ("HEAD", "/nowhere", APP, 404, app),
        ("OPTIONS", "/nowhere", APP, 404, app),
        ("GET", "/nowhere", EVIL, 404, nothing),
        ("GET", "/usual/deeper", APP, 404, app),
        ("GET", "/own/deeper", OWN, 404, nothing),
        ("GET", "/usual/%zz", APP, 400, app),
        ("GET", long.as_str(), APP, 414, app),
        ("POST", long.as_str(), EVIL, 414, nothing),
        ("GET", "/usual?many", APP, 431, app),
        ("GET", "/own?wide", APP, 431, app),
        ("GET", "/own?wide", OWN, 431, nothing),
        ("GET", "/usual", APP, 200, app),
        ("HEAD", "/usual", APP, 200, app),
        ("HEAD", "/own", OWN, 200, own),
        ("GET", "/closed", APP, 200, closed),
    ] {
        let what = format!("{method} {target} from {origin}");
        let mut ask = gateway
            .client()
            .ask(method.parse().expect("a method"), target)
            .header("origin", origin);
        let mut request = caller.request(method.parse().expect("a method"), target);
        let fields = request.headers_mut();
        fields.append("origin", origin.parse().expect("a value"));
        if target.ends_with("many") {
            for _ in 0..30 {
                ask = ask.header("x-a", "b");
                fields.append("x-a", "b".parse().expect("a value"));
            }
        } else if target.ends_with("wide") {
            ask = ask.header("x-a", &wide).header("x-b", &wide);
            fields.append("x-a", wide.parse().expect("a value"));
            fields.append("x-b", wide.parse().expect("a value"));
        }
        let answer = ask.send().await;
        assert_eq!(answer.status, status, "{what}: {answer:#?}");
        assert_eq!(told(|name| answer.header(name)), expected, "{what}: {answer:#?}");
        let stream = caller.send(request, true).await.expect("it takes requests");
        let second = stream.whole().await.expect("an answer");
        assert_eq!(second.status, status, "{what} over HTTP/2: {second:?}");
        let field = |name: &str| second.headers.get(name).map(|value| value.to_str().expect("text"));
        assert_eq!(told(field), expected, "{what} over HTTP/2: {second:?}");
        if status >= 400 && expected.0.is_some() {
            let exposed = answer.header("access-control-expose-headers").unwrap_or_default();
            assert!(exposed.contains("x-gateway-reason"), "{what}: {exposed}");
        }
    }
}

#[tokio::test]
async fn a_preflight_for_a_method_that_is_missing_says_which_there_are() {
    let (_fleet, gateway) = start_with("cors: { origins: [\"https://app.example.com\"] }").await;
    let app = (Some(APP), false, true);
    for (target, method, origin, status, expected, methods) in [
        ("/usual", "GET", APP, 204, app, Some("GET")),
        ("/usual", "DELETE", APP, 204, app, Some("GET")),
        ("/usual", "HEAD", APP, 204, app, Some("GET")),
        ("/usual", "DELETE", EVIL, 403, (None, false, true), None),
        ("/own", "PUT", OWN, 204, (Some(OWN), true, true), Some("GET")),
        ("/own", "PUT", APP, 403, (None, false, true), None),
        ("/every", "PUT", EVIL, 204, (Some("*"), false, false), Some("GET")),
        ("/odd/a%2Fb", "PUT", APP, 204, app, Some("GET")),
        ("/closed", "PUT", APP, 405, (None, false, false), None),
        ("/closed", "GET", APP, 405, (None, false, false), None),
        ("/shared", "DELETE", OWN, 204, (Some(OWN), true, true), Some("POST")),
        ("/shared", "DELETE", EVIL, 204, (Some("*"), false, true), Some("PUT")),
        ("/shared", "PUT", EVIL, 204, (Some("*"), false, false), Some("PUT")),
        ("/nowhere", "GET", APP, 404, app, None),
        ("/nowhere", "GET", EVIL, 404, (None, false, true), None),
    ] {
        let what = format!("{method} of {target} from {origin}");
        let answer = preflight(&gateway, target, origin, method).send().await;
        assert_eq!(answer.status, status, "{what}: {answer:#?}");
        assert_eq!(told(|name| answer.header(name)), expected, "{what}: {answer:#?}");
        assert_eq!(answer.header("access-control-allow-methods"), methods, "{what}");
    }
}

/// Without a word at the top only routes speak.
#[tokio::test]
async fn where_the_top_says_nothing_only_routes_do() {
    let (_fleet, gateway) = start_with("").await;
    let ask = |method: http::Method, target: &str| gateway.client().ask(method, target).header("origin", OWN);
    for (method, target, status, origin) in [
        (http::Method::GET, "/nowhere", 404, None),
        (http::Method::DELETE, "/usual", 405, None),
        (http::Method::DELETE, "/own", 405, Some(OWN)),
        (http::Method::DELETE, "/every", 405, Some("*")),
    ] {
        let answer = ask(method, target).send().await;
        assert_eq!((answer.status, allowed(&answer)), (status, origin), "{target}");
    }
    let (_fleet, gateway) = start_with("cors: { origins: [\"*\"] }").await;
    for (target, origin) in [("/nowhere", Some("*")), ("/closed", None)] {
        let ask = gateway
            .client()
            .ask(http::Method::DELETE, target)
            .header("origin", EVIL);
        assert_eq!(allowed(&ask.send().await), origin, "{target}");
    }
}
