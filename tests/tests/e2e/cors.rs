//! Pages of other origins use a route if it says so, and may read whatever it answers them, refusals among it.

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Fleet, Handle};
use tests::configs::Config;
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
    let wrong = preflight(&gateway, "/keyed/echo", APP, "DELETE").send().await;
    wrong.refusal(405, "method_not_allowed");
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
