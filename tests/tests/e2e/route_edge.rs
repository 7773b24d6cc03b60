//! Checks the conditions of a route on a request: client address, header fields, path and method.

use fixtures::fleet::{Fleet, Handle};
use serde_json::Value;
use tests::configs::{Config, UNGUARDED};
use tests::{Answer, Gateway};

use crate::{SOON, one_backend};

const OPEN: &str = "access: { any_of: [anonymous] }";

async fn start(top: &str, routes: &[(&str, &str)]) -> (Fleet, Handle, Gateway) {
    let (fleet, api) = one_backend("api").await;
    let config = Config::default().top(top).backend("api", api.address(), UNGUARDED);
    let config = routes.iter().fold(config, |config, (name, yaml)| {
        config.route(name, &format!("{{ backend: api, {yaml} }}"))
    });
    (fleet, api, Gateway::start(config.to_string()).await)
}

#[tokio::test]
async fn a_route_is_open_to_addresses() {
    let addresses = "access: { any_of: [anonymous], addresses: { allow: [10.0.0.0/8], deny: [10.6.6.0/24] } }";
    let (_fleet, api, gateway) = start(
        "client_address: { trusted_proxies: [127.0.0.0/8] }",
        &[("inside", &format!("match: {{ path: \"/{{*rest}}\" }}, {addresses}"))],
    )
    .await;
    let ask = |from: &str| gateway.get("/echo").header("x-forwarded-for", from).send();
    ask("10.1.2.3").await.expect(200);
    // Values from an untrusted sender stand further left, and are not believed.
    for stranger in ["10.6.6.6", "192.0.2.1", "10.1.2.3, 192.0.2.1"] {
        ask(stranger).await.refusal(403, "address_not_allowed");
    }
    gateway.get("/echo").send().await.refusal(403, "address_not_allowed");
    assert_eq!(api.counts().requests, 1);
    let labels = [("route", "inside"), ("reason", "address_not_allowed")];
    assert_eq!(gateway.metric("gateway_rejections_total", &labels).await, 4.0);
    let recent = gateway.admin_json("/api/v1/rejections").await;
    let text = recent.to_string();
    assert!(text.contains("routes.inside.access.addresses"), "{text}");
    tests::eventually(SOON, "the access log says why", || async {
        let lines = gateway.stdout();
        (lines.matches("\"reason\":\"address_not_allowed\"").count() == 4).then_some(())
    })
    .await;
}

/// The last value of a trusted proxy decides. If it cannot be read, the request is refused.
#[tokio::test]
async fn who_cannot_be_told_is_not_let_in_where_addresses_matter() {
    let route = |name: &str, addresses: &str| {
        format!(
            "match: {{ path: \"/{name}/{{*rest}}\" }}, rewrite: \"/echo\", access: {{ any_of: [anonymous]{addresses} }}"
        )
    };
    let (_fleet, _api, gateway) = start(
        "client_address: { trusted_proxies: [127.0.0.0/8, 10.0.0.2/32] }",
        &[
            ("all", &route("all", "")),
            ("denied", &route("denied", ", addresses: { deny: [192.0.2.0/24] }")),
            (
                "allowed",
                &route("allowed", ", addresses: { allow: [127.0.0.0/8, 203.0.113.0/24] }"),
            ),
        ],
    )
    .await;
    let ask = async |route: &str, fields: &[u8]| {
        let line = format!("GET /{route}/x HTTP/1.1\r\nhost: edge\r\nconnection: close\r\n");
        let answer = gateway.raw([line.as_bytes(), fields, b"\r\n\r\n"].concat()).await;
        answer.split(' ').nth(1).expect("a status").to_owned()
    };
    for (fields, denied, allowed) in [
        (&b"x-forwarded-for: 203.0.113.1"[..], "200", "200"),
        (b"x-forwarded-for: 203.0.113.1, , 10.0.0.2,", "200", "200"),
        (b"x-forwarded-for: caf\xe9, 203.0.113.1", "200", "200"),
        (b"x-forwarded-for: caf\xe9, 192.0.2.1", "403", "403"),
        (
            b"x-forwarded-for: 203.0.113.1\r\nx-forwarded-for: 192.0.2.1",
            "403",
            "403",
        ),
        (b"x-forwarded-for: unknown", "403", "403"),
        (b"x-forwarded-for: 203.0.113.1, unknown", "403", "403"),
        (b"x-forwarded-for: 203.0.113.1, unknown, 10.0.0.2", "403", "403"),
        (b"x-forwarded-for: 203.0.113.1, 192.0.2.999", "403", "403"),
        (b"x-forwarded-for: 203.0.113.1, caf\xe9", "403", "403"),
        (b"forwarded: for=203.0.113.1", "200", "200"),
        (b"forwarded: for=_hidden", "403", "403"),
        (b"forwarded: for=203.0.113.1, proto=http", "403", "403"),
        (b"forwarded: host=\"a;for=203.0.113.1\";for=192.0.2.1", "403", "403"),
        (b"x-forwarded-for: 64:ff9b::192.0.2.1", "403", "403"),
        (b"x-forwarded-for: 2002:c000:201::1", "403", "403"),
        (b"x-forwarded-for: ::ffff:192.0.2.1", "403", "403"),
        (b"x-forwarded-for: 64:ff9b::203.0.113.1", "200", "403"),
        (b"x-nothing: 1", "200", "200"),
    ] {
        let answers = [
            ask("all", fields).await,
            ask("denied", fields).await,
            ask("allowed", fields).await,
        ];
        assert_eq!(answers, ["200", denied, allowed], "{}", String::from_utf8_lossy(fields));
    }
}

#[tokio::test]
async fn fields_are_changed_both_ways_and_identity_is_out_of_reach() {
    let rules = "headers: {
        request: { remove: [x-debug], rename: { x-old: x-new }, set: { x-edge: eu-1 }, add: { x-hop: edge } },
        response: { remove: [server], set: { x-served-by: edge } } }";
    let (_fleet, _api, gateway) = start(
        "",
        &[("api", &format!("match: {{ path: \"/{{*rest}}\" }}, {OPEN}, {rules}"))],
    )
    .await;
    let answer = gateway
        .get("/echo")
        .header("x-debug", "1")
        .header("x-old", "kept")
        .header("x-new", "forged")
        .header("x-edge", "forged")
        .header("x-hop", "client")
        .header("x-tenant-id", "forged")
        // The same names as WSGI and CGI would read them.
        .header("x_debug", "1")
        .header("x_new", "forged")
        .header("x_edge", "forged")
        .send()
        .await
        .expect(200);
    let told = |name| answer.echoed(name);
    assert_eq!(told("x-debug"), None);
    assert_eq!(told("x-old"), None);
    assert_eq!(told("x-new").as_deref(), Some("kept"));
    assert_eq!(told("x-edge").as_deref(), Some("eu-1"));
    assert!(told("x-hop").is_some_and(|hops| hops.contains("edge")), "{answer:?}");
    assert_ne!(told("x-tenant-id").as_deref(), Some("forged"));
    for spelling in ["x_debug", "x_new", "x_edge"] {
        assert_eq!(told(spelling), None, "{spelling}");
    }
    assert_eq!(answer.header("x-served-by"), Some("edge"));
    let refused = gateway.get("/echo").header("expect", "a miracle").send().await;
    refused.refusal(400, "malformed_request");
    assert_eq!(refused.header("x-served-by"), Some("edge"), "on our own answers too");
}

fn path_of(answer: &Answer) -> String {
    match &answer.json()["path"] {
        Value::String(path) => path.clone(),
        other => panic!("no path: {other}"),
    }
}

#[tokio::test]
async fn an_odd_path_means_what_its_route_says_and_is_sent_as_it_was_matched() {
    let route =
        |path: &str, policy: &str| format!("match: {{ path: \"{path}\" }}, {OPEN}, path_policy: {{ {policy} }}");
    let (_fleet, api, gateway) = start(
        "",
        &[
            ("strict", &route("/echo/strict/{*rest}", "")),
            (
                "kept",
                &route("/echo/kept/{id}", "encoded_slash: keep, backslash: keep"),
            ),
            (
                "asking",
                &format!("match: {{ path: \"/echo/kept/{{id}}\", methods: [OPTIONS] }}, {OPEN}"),
            ),
            (
                "tidy",
                &route(
                    "/echo/tidy/{*rest}",
                    "dot_segments: decode, double_slash: decode, encoded_slash: decode, backslash: decode",
                ),
            ),
        ],
    )
    .await;
    for (target, arrives) in [
        ("/echo/strict/a", "/echo/strict/a"),
        ("/echo/strict/%61%2525", "/echo/strict/%61%2525"),
        ("/echo/kept/group%2Fproject", "/echo/kept/group%2Fproject"),
        ("/echo/kept/a%5Cb", "/echo/kept/a%5Cb"),
        ("/echo/tidy/a//b/../c%2Fd/%2e/e", "/echo/tidy/a/c/d/e"),
        ("/echo/tidy/a%5c..%5cb", "/echo/tidy/b"),
    ] {
        let answer = gateway.get(target).send().await.expect(200);
        assert_eq!(path_of(&answer), arrives, "{target}");
    }
    let served = api.counts().requests;
    for target in [
        "/echo/strict/a//b",
        "/echo/strict/a%2Fb",
        "/echo/strict/../kept/a",
        "/echo/tidy/../strict/a",
        "/echo/tidy/..%2fkept/a",
        "/echo/tidy/../../../a",
        "/echo/tidy/a/..;/b",
        "/echo/kept/..%2f..%2fadmin",
        "/echo/kept/a//b",
        "/echo/kept/a%00",
        "/echo/tidy/a%00",
    ] {
        gateway.get(target).send().await.refusal(400, "malformed_request");
    }
    // A preflight is about one route and is itself for another, which has its own reading of the path.
    let preflight = gateway
        .client()
        .ask(http::Method::OPTIONS, "/echo/kept/a%2Fb")
        .header("origin", "https://app.example.com")
        .header("access-control-request-method", "GET");
    preflight.send().await.refusal(400, "malformed_request");
    assert_eq!(api.counts().requests, served);
}

#[tokio::test]
async fn nobody_asks_for_another_method_than_was_authorised() {
    let (_fleet, api, gateway) = start(
        "",
        &[
            (
                "strict",
                &format!("match: {{ path: /echo/strict, methods: [POST] }}, {OPEN}"),
            ),
            (
                "lenient",
                &format!("match: {{ path: /echo/lenient, methods: [POST] }}, {OPEN}, method_override: strip"),
            ),
        ],
    )
    .await;
    let ask = |target, name| gateway.post(target).header(name, "DELETE").send();
    for name in ["x-http-method-override", "x-http-method", "x-method-override"] {
        let problem = ask("/echo/strict", name).await.refusal(400, "malformed_request");
        assert!(
            problem["detail"]
                .as_str()
                .is_some_and(|text| text.contains("another method")),
            "{problem}"
        );
        let answer = ask("/echo/lenient", name).await.expect(200);
        assert_eq!(
            (answer.echoed(name), &answer.json()["method"]),
            (None, &Value::from("POST"))
        );
    }
    assert_eq!(api.counts().requests, 3);
}

#[tokio::test]
async fn browsers_are_told_to_take_no_chances() {
    let (_fleet, _api, gateway) = start(
        "security_headers: api",
        &[
            ("api", &format!("match: {{ path: /echo }}, {OPEN}")),
            (
                "off",
                &format!("match: {{ path: /echo/off }}, {OPEN}, security_headers: off"),
            ),
        ],
    )
    .await;
    let answer = gateway.get("/echo").send().await.expect(200);
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("x-frame-options"), Some("DENY"));
    assert_eq!(answer.header("strict-transport-security"), None, "not without TLS");
    let off = gateway.get("/echo/off").send().await.expect(200);
    assert_eq!(off.header("x-content-type-options"), None);
}

/// Fields of these names that a stranger sends stay out, whether the gateway adds its own or not.
#[tokio::test]
async fn a_route_chooses_which_fields_are_added() {
    const FORGED: [(&str, &str); 3] = [
        ("x-tenant-id", "globex"),
        ("x-forwarded-for", "10.9.9.9"),
        ("forwarded", "for=10.9.9.9"),
    ];
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let route = |path: &str, own: &str| format!("match: {{ path: {path} }}, rewrite: /echo, {OPEN}{own}");
    let plain = |path: &str, own: &str| format!("match: {{ path: {path} }}, {OPEN}{own}");
    let off = ", added_headers: { identity: false, forwarded: false, trace: false, ratelimit: false }";
    let (_fleet, _api, gateway) = start(
        "added_headers: { forwarded: false }",
        &[
            ("top", &plain("/echo/top", "")),
            (
                "own",
                &plain("/echo/own", ", added_headers: { forwarded: true, identity: false }"),
            ),
            ("off", &plain("/echo/off", off)),
            ("rewritten", &route("/rewritten", off)),
        ],
    )
    .await;
    let ask = |path: &str| {
        let asked = FORGED
            .into_iter()
            .fold(gateway.get(path), |ask, (name, value)| ask.header(name, value));
        asked.header("traceparent", TRACE)
    };
    const NAMES: [&str; 5] = [
        "x-tenant-id",
        "x-forwarded-for",
        "forwarded",
        "traceparent",
        "x-request-id",
    ];
    for (path, identity, forwarded, traced, told) in [
        ("/echo/top", true, false, true, true),
        ("/echo/own", false, true, true, true),
        ("/echo/off", false, false, false, false),
        ("/rewritten", false, false, false, false),
    ] {
        let answer = ask(path).send().await.expect(200);
        let got = NAMES.map(|name| answer.echoed(name));
        let [tenant, address, standard, trace, id] = got.each_ref().map(Option::as_deref);
        assert_eq!(tenant.is_some(), identity, "{path}: {got:?}");
        assert!(
            tenant != Some("globex") && address != Some("10.9.9.9"),
            "{path}: {got:?}"
        );
        assert_eq!(
            (address.is_some(), standard.is_some()),
            (forwarded, forwarded),
            "{path}: {got:?}"
        );
        assert_eq!(trace == Some(TRACE), !traced, "{path}: {got:?}");
        assert_eq!(id.is_some(), traced, "{path}: {got:?}");
        assert!(answer.header("x-request-id").is_some(), "{path}");
        let limits = [answer.header("ratelimit"), answer.header("ratelimit-policy")];
        assert_eq!(limits.map(|field| field.is_some()), [told; 2], "{path}: {limits:?}");
    }
    let own_id = ask("/echo/off").header("x-request-id", "mine").send().await.expect(200);
    assert_eq!(own_id.echoed("x-request-id").as_deref(), Some("mine"));
}

/// The same placeholders as in a rewrite; what they name is encoded for a field, and what is missing leaves nothing.
#[tokio::test]
async fn fields_are_filled_from_the_request_both_ways() {
    let headers = "headers: { \
        request: { set: { x-id: \"{path.id}\", x-both: \"{query.q}/{header.x-in}\", x-login: \"{claim.sub}\", x-braces: \"{{path.id}}\" }, \
                   add: { x-more: \"{query.more}\" } }, \
        response: { set: { x-id: \"{path.id}\", x-asked: \"{header.x-in}\", x-echo: \"{query.q}\" } } }";
    let (_fleet, api, gateway) = start(
        "",
        &[(
            "users",
            &format!("match: {{ path: \"/users/{{id}}\" }}, rewrite: \"/echo\", {OPEN}, {headers}"),
        )],
    )
    .await;
    let ask = |path: &str| {
        gateway
            .get(path)
            .header("x-in", "in")
            .header("x-login", "forged")
            .header("x-more", "own")
            .send()
    };
    let answer = ask("/users/a%20b?q=1%262&more=%C3%A9").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let sent = api.requests().pop().expect("it was asked");
    for (name, value) in [
        ("x-id", Some("a b")),
        ("x-both", Some("1&2/in")),
        ("x-login", None),
        ("x-braces", Some("{path.id}")),
        ("x-more", Some("own")),
    ] {
        assert_eq!(sent.header(name), value, "{name}");
    }
    for (name, value) in [("x-id", "a b"), ("x-asked", "in"), ("x-echo", "1&2")] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    // A value that would begin another line is no value.
    let answer = ask("/users/7?q=a%0d%0ax-evil:1").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let sent = api.requests().pop().expect("it was asked");
    assert_eq!((sent.header("x-both"), sent.header("x-evil")), (None, None));
}
