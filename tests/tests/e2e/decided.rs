//! Checks that every rejection names the setting that decided it and the line of that setting, in both protocols.

use fixtures::fleet::{Behaviour, Fault, Fleet, Handle, Keep, Spec};
use http::{HeaderValue, Method};
use serde_json::{Value, json};
use tests::configs::Config;
use tests::http2_caller::Http2;
use tests::tls::Authority;
use tests::{Gateway, Setup, eventually};

use crate::{SOON, one_backend};

struct Scene {
    _fleet: Fleet,
    gateway: Gateway,
    config: String,
}

/// A request, and what decides on its refusal.
struct Case {
    path: &'static str,
    fields: &'static [(&'static str, &'static str)],
    reason: &'static str,
    setting: Option<&'static str>,
    /// Stands on the line of the setting, if that is written.
    line: Option<&'static str>,
}

impl Scene {
    async fn start(config: impl FnOnce(&Handle) -> String) -> Self {
        let (fleet, api) = one_backend("api").await;
        api.behave(Behaviour::always(Fault::Hang)).await;
        let config = config(&api);
        let gateway = Gateway::start(&config).await;
        Self {
            _fleet: fleet,
            gateway,
            config,
        }
    }

    /// The line of the config that holds `text`, from 1.
    fn line_of(&self, text: &str) -> usize {
        let found = self.config.lines().position(|line| line.contains(text));
        found.unwrap_or_else(|| panic!("{text} in\n{}", self.config)) + 1
    }

    /// The newest refusal of this reason, once there are so many.
    async fn newest(&self, reason: &str, count: usize) -> Value {
        let reason = format!("?q={reason}");
        eventually(SOON, "the refusal is listed", || async {
            let listed = self.gateway.admin_json(&format!("/api/v1/rejections{reason}")).await;
            (listed["total"].as_u64() >= Some(count as u64)).then(|| listed["rejections"][0].clone())
        })
        .await
    }

    fn check(&self, refused: &Value, reason: &str, setting: Option<&str>, line: Option<&str>) {
        assert_eq!(refused["reason"], reason, "{refused}");
        let decided = &refused["decided_by"];
        let Some(setting) = setting else {
            assert_eq!(*decided, Value::Null, "{refused}");
            return;
        };
        assert_eq!(decided["setting"], setting, "{refused}");
        match line {
            Some(text) => assert_eq!(decided["at"]["line"], self.line_of(text), "{refused}"),
            None => assert!(decided["at"].is_null(), "{refused}"),
        }
    }
}

#[tokio::test]
async fn of_several_limits_the_one_that_ended_it_is_named() {
    let scene = Scene::start(|api| {
        Config::default()
            .top("time_limits: { request: 3s, reserve: 2700ms }")
            .top("path_policy:\n  double_slash: reject")
            .top("request_limits: { uri: 256B }")
            .backend("attempt", api.address(), "breaker: off, retry: off, attempt_limit: 100ms")
            .backend("call", api.address(), "breaker: off, retry: off, time_limit: 120ms")
            .backend("patient", api.address(), "breaker: off, retry: off")
            .open_route("attempt", "attempt", "")
            .open_route("call", "call", "")
            .open_route("short", "patient", "time_limit: 150ms")
            .open_route("default", "patient", "method_override: reject")
            .route(
                "parts",
                "\n    match: { path: \"/parts/{which}\" }\n    access: { any_of: [anonymous] }\n    aggregate:\n      parts:\n        \
                 limited: { backend: patient, path: /x, when: { value: \"{path.which}\", is: limited }, time_limit: 90ms }\n        \
                 attempted: { backend: attempt, path: /y, when: { value: \"{path.which}\", is: attempted } }\n        \
                 hurried: { backend: patient, path: /y, when: { value: \"{path.which}\", is: hurried } }",
            )
            .to_string()
    })
    .await;
    let case = |path, fields, reason, setting, line| Case {
        path,
        fields,
        reason,
        setting,
        line,
    };
    let cases = [
        case(
            "/attempt/x",
            &[][..],
            "backend_timeout",
            Some("backends.attempt.attempt_limit"),
            Some("attempt_limit"),
        ),
        case(
            "/call/x",
            &[],
            "backend_timeout",
            Some("backends.call.time_limit"),
            Some("time_limit: 120ms"),
        ),
        case(
            "/short/x",
            &[],
            "out_of_time",
            Some("routes.short.time_limit"),
            Some("time_limit: 150ms"),
        ),
        case(
            "/default/x",
            &[],
            "out_of_time",
            Some("time_limits.request"),
            Some("request: 3s"),
        ),
        case("/short/x", &[("x-request-timeout-ms", "50")], "out_of_time", None, None),
        case(
            "/short/x",
            &[("x-request-timeout-ms", "60000")],
            "out_of_time",
            Some("routes.short.time_limit"),
            Some("time_limit: 150ms"),
        ),
        case(
            "/parts/limited",
            &[],
            "out_of_time",
            Some("routes.parts.aggregate.parts.limited.time_limit"),
            Some("time_limit: 90ms"),
        ),
        case(
            "/parts/attempted",
            &[],
            "backend_timeout",
            Some("backends.attempt.attempt_limit"),
            Some("attempt_limit"),
        ),
        case(
            "/parts/hurried",
            &[],
            "out_of_time",
            Some("time_limits.request"),
            Some("request: 3s"),
        ),
        case(
            "/parts/hurried",
            &[("x-request-timeout-ms", "50")],
            "out_of_time",
            None,
            None,
        ),
        case(
            "/default//x",
            &[],
            "malformed_request",
            Some("path_policy.double_slash"),
            Some("double_slash: reject"),
        ),
        case(
            "/default/a%2Fb",
            &[],
            "malformed_request",
            Some("path_policy.encoded_slash"),
            Some("double_slash: reject"),
        ),
        case(
            "/default/x",
            &[("x-http-method-override", "DELETE")],
            "malformed_request",
            Some("routes.default.method_override"),
            Some("method_override"),
        ),
        case("/default/%zz", &[], "malformed_request", None, None),
    ];
    let caller = Http2::connect(scene.gateway.address()).await;
    let mut refused = std::collections::HashMap::<&str, usize>::new();
    for Case {
        path,
        fields,
        reason,
        setting,
        line,
    } in cases
    {
        for protocol in ["HTTP/1.1", "HTTP/2"] {
            let status = if protocol == "HTTP/2" {
                let mut request = caller.request(Method::GET, path);
                for (name, value) in fields {
                    request.headers_mut().insert(*name, HeaderValue::from_static(value));
                }
                let answer = caller.send(request, true).await.expect("it is taken").whole().await;
                answer.expect("an answer").status
            } else {
                let ask = fields
                    .iter()
                    .fold(scene.gateway.get(path), |ask, (name, value)| ask.header(name, value));
                ask.send().await.status
            };
            assert!(status >= 400, "{protocol} {path}: {status}");
            let count = refused.entry(reason).or_default();
            *count += 1;
            let newest = scene.newest(reason, *count).await;
            scene.check(&newest, reason, setting, line);
        }
    }
}

#[tokio::test]
async fn heads_and_bodies_name_what_they_are_held_to() {
    let scene = Scene::start(|api| {
        Config::default()
            .top("request_limits:\n  head: 2KiB\n  headers: 20\n  uri: 256B")
            .top("time_limits:\n  head: 300ms\n  first_byte: 10s")
            .top("minimum_rates:\n  grace: 300ms\n  body: 1KiB")
            .open("api", api.address(), "retry: off")
            .to_string()
    })
    .await;
    let gateway = &scene.gateway;
    let fields = "x-a: b\r\n".repeat(30);
    let long = format!("x-a: {}\r\n", "b".repeat(3000));
    let target = "y".repeat(300);
    for (reason, head, setting, line) in [
        (
            "headers_too_large",
            format!("GET /api/x HTTP/1.1\r\nhost: e\r\n{fields}\r\n"),
            "request_limits.headers",
            "headers: 20",
        ),
        (
            "headers_too_large",
            format!("GET /api/x HTTP/1.1\r\nhost: e\r\n{long}\r\n"),
            "request_limits.head",
            "head: 2KiB",
        ),
        (
            "uri_too_long",
            format!("GET /{target} HTTP/1.1\r\nhost: e\r\n\r\n"),
            "request_limits.uri",
            "uri: 256B",
        ),
        (
            "request_timeout",
            "GET /api/x HTTP/1.1\r\nhost:".to_owned(),
            "time_limits.head",
            "head: 300ms",
        ),
        (
            "request_timeout",
            "POST /api/x HTTP/1.1\r\nhost: e\r\ncontent-length: 100000\r\n\r\nx".to_owned(),
            "minimum_rates.body",
            "body: 1KiB",
        ),
    ] {
        let mut caller = gateway.connect().await;
        caller.send(&head).await;
        let told = caller.rest().await;
        assert!(told.contains(reason), "{setting}: {told}");
        let count = match setting {
            "request_limits.head" | "minimum_rates.body" => 2,
            _ => 1,
        };
        let newest = scene.newest(reason, count).await;
        scene.check(&newest, reason, Some(setting), Some(line));
    }

    let caller = Http2::connect(gateway.address()).await;
    let refuse = async |fill: &dyn Fn(&mut http::HeaderMap), path: &str| {
        let mut request = caller.request(Method::GET, path);
        fill(request.headers_mut());
        let answer = caller.send(request, true).await.expect("it is taken").whole().await;
        answer.expect("an answer").header("x-gateway-reason").to_owned()
    };
    let many = |headers: &mut http::HeaderMap| {
        for _ in 0..30 {
            headers.append("x-a", HeaderValue::from_static("b"));
        }
    };
    assert_eq!(refuse(&many, "/api/x").await, "headers_too_large");
    scene.check(
        &scene.newest("headers_too_large", 3).await,
        "headers_too_large",
        Some("request_limits.headers"),
        Some("headers: 20"),
    );
    let wide = |headers: &mut http::HeaderMap| {
        headers.append("x-a", HeaderValue::try_from("b".repeat(3000)).expect("a value"));
    };
    assert_eq!(refuse(&wide, "/api/x").await, "headers_too_large");
    scene.check(
        &scene.newest("headers_too_large", 4).await,
        "headers_too_large",
        Some("request_limits.head"),
        Some("head: 2KiB"),
    );
    assert_eq!(refuse(&|_| {}, &format!("/{target}")).await, "uri_too_long");
    scene.check(
        &scene.newest("uri_too_long", 2).await,
        "uri_too_long",
        Some("request_limits.uri"),
        Some("uri: 256B"),
    );
    let mut request = caller.request(Method::POST, "/api/x");
    request
        .headers_mut()
        .insert("content-length", HeaderValue::from_static("100000"));
    let answer = caller.send(request, false).await.expect("it is taken").whole().await;
    assert_eq!(answer.expect("an answer").status, 408);
    scene.check(
        &scene.newest("request_timeout", 3).await,
        "request_timeout",
        Some("minimum_rates.body"),
        Some("body: 1KiB"),
    );
}

#[tokio::test]
async fn too_many_connections_name_which_limit() {
    for (limits, setting) in [
        ("connection_limits: { total: 1 }", "connection_limits.total"),
        ("connection_limits: { per_address: 1 }", "connection_limits.per_address"),
    ] {
        let scene = Scene::start(|api| Config::default().top(limits).open("api", api.address(), "").to_string()).await;
        let mut there = scene.gateway.connect().await;
        there.send("GET /nowhere HTTP/1.1\r\nhost: e\r\n\r\n").await;
        // The request has its place in the list once it is answered.
        there.head().await;
        let told = scene.gateway.connect().await.rest().await;
        assert!(told.contains("overloaded"), "{told}");
        let newest = scene.newest("overloaded", 1).await;
        scene.check(&newest, "overloaded", Some(setting), Some(limits));
    }
}

/// The limits of heads are those with which a connection began, and so is the line that is named.
#[tokio::test]
async fn a_reload_moves_no_line_of_what_was_decided_before() {
    let limits = |fields: u32| format!("request_limits:\n  headers: {fields}");
    let config = |api: &Handle, top: &str| {
        let route = "{ match: { path: /hello }, access: { any_of: [anonymous] }, respond: { body: hello } }";
        Config::default()
            .top(top)
            .backend("api", api.address(), "breaker: off, retry: off")
            .open_route("api", "api", "time_limit: 100ms")
            .route("hello", route)
            .to_string()
    };
    let (fleet, api) = one_backend("api").await;
    api.behave(Behaviour::always(Fault::Hang)).await;
    let written = config(&api, &limits(20));
    let scene = Scene {
        gateway: Gateway::start(&written).await,
        _fleet: fleet,
        config: written,
    };
    let mut old = scene.gateway.connect().await;
    old.send("GET /hello HTTP/1.1\r\nhost: e\r\n\r\n").await;
    old.head().await;
    old.take(5).await;
    scene.gateway.get("/api/x").send().await.expect(504);
    let before = scene.newest("out_of_time", 1).await;
    scene
        .gateway
        .reload(config(&api, &format!("# one line more\n# and another\n{}", limits(90))))
        .await;
    assert_eq!(scene.newest("out_of_time", 1).await, before, "it is as it was");
    scene.check(
        &before,
        "out_of_time",
        Some("routes.api.time_limit"),
        Some("time_limit: 100ms"),
    );
    let fields = "x-a: b\r\n".repeat(30);
    old.send(format!("GET /hello HTTP/1.1\r\nhost: e\r\n{fields}\r\n"))
        .await;
    assert!(old.rest().await.contains("headers_too_large"));
    let refused = scene.newest("headers_too_large", 1).await;
    scene.check(
        &refused,
        "headers_too_large",
        Some("request_limits.headers"),
        Some("headers: 20"),
    );
    let after = scene.gateway.get("/api/x").send().await;
    assert_eq!(after.status, 504);
    let moved = scene.newest("out_of_time", 2).await;
    assert_eq!(
        moved["decided_by"]["at"]["line"],
        json!(scene.line_of("time_limit: 100ms") + 2)
    );
}

/// What only the stage that refuses can know comes with the refusal: how long connecting may take, which part's bytes, whose
/// time an answer has used up, and that another backend has failed as well.
#[tokio::test]
async fn what_only_the_place_of_the_failure_knows_is_told() {
    let specs = ["hangs", "also", "large", "drips", "well"].map(|name| Spec::new(name).keep(Keep::default()));
    let fleet = Fleet::start(specs).await.expect("ports are free");
    for (name, fault) in [
        ("hangs", Fault::Hang),
        ("also", Fault::Hang),
        ("large", Fault::HugeBody { bytes: 3000 }),
        ("drips", Fault::Drip { every_ms: 40 }),
    ] {
        fleet.backend(name).behave(Behaviour::always(fault)).await;
    }
    // The backend accepts connections, and does not speak TLS.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port is free");
    let silent = silent
        .local_addr()
        .map(|address| (silent, address))
        .expect("it is bound");
    let part = |name: &str, more: &str| format!("{{ backend: {name}, path: /echo, {more} }}");
    let aggregate = |name: &str, more: &str, parts: &[String]| {
        let parts = parts.iter().enumerate();
        let parts: String = parts
            .map(|(index, part)| format!("        p{index}: {part}\n"))
            .collect();
        format!(
            "\n    match: {{ path: /{name} }}\n    access: {{ any_of: [anonymous] }}\n    aggregate:\n      partial: deny\n\
             {more}      parts:\n{parts}"
        )
    };
    let guards = "retry: off, breaker: off";
    let config = Config::default()
        .top("time_limits:\n  connect: 120ms")
        .backend(
            "hangs",
            fleet.address("hangs"),
            &format!("{guards}, attempt_limit: 90ms"),
        )
        .backend(
            "also",
            fleet.address("also"),
            &format!("{guards}, attempt_limit: 110ms"),
        )
        .backend("large", fleet.address("large"), guards)
        .backend(
            "slow",
            fleet.address("drips"),
            &format!("{guards}, time_limit: 310ms, attempt_limit: 310ms"),
        )
        .backend("drips", fleet.address("drips"), guards)
        .backend("well", fleet.address("well"), guards)
        .backend("silent", silent.1, &format!("{guards}, tls: {{ ca_file: ca.pem }}"))
        .open_route("connect", "silent", "")
        .open_route("instead", "hangs", "fallback: [{ backend: also }]")
        .open_route("last", "hangs", "fallback: [{ backend: silent }]")
        .route("bytes", &aggregate("bytes", "", &[part("large", "body_limit: 1111B")]))
        .route(
            "all-bytes",
            &aggregate(
                "all-bytes",
                "      body_limit: 5555B\n",
                &[part("large", ""), part("large", "")],
            ),
        )
        .route(
            "elements",
            &aggregate("elements", "", &[part("large", "method: GET, body_limit: 2222B")]),
        )
        .route("call", &aggregate("call", "", &[part("slow", "")]))
        .route("part", &aggregate("part", "", &[part("drips", "time_limit: 330ms")]))
        .route(
            "same",
            &aggregate(
                "same",
                "      conflict: error\n",
                &[part("well", "group: ."), part("well", "group: .")],
            ),
        )
        .route(
            "lacks",
            &aggregate(
                "lacks",
                "",
                &[part("well", ""), part("well", "query: { q: \"{part.p0.none}\" }")],
            ),
        )
        .to_string()
        .replace(&format!("http://{}", silent.1), &format!("https://{}", silent.1));
    let setup = Setup::new(&config).file("ca.pem", Authority::new("backends").pem());
    let scene = Scene {
        gateway: setup.start().await,
        _fleet: fleet,
        config,
    };
    let mut refused = std::collections::HashMap::<&str, usize>::new();
    for (path, reason, setting, line) in [
        (
            "/connect/x",
            "backend_unreached",
            "time_limits.connect",
            "connect: 120ms",
        ),
        (
            "/instead/x",
            "backend_timeout",
            "backends.hangs.attempt_limit",
            "attempt_limit: 90ms",
        ),
        (
            "/last/x",
            "backend_timeout",
            "backends.hangs.attempt_limit",
            "attempt_limit: 90ms",
        ),
        (
            "/bytes",
            "backend_invalid",
            "routes.bytes.aggregate.parts.p0.body_limit",
            "1111B",
        ),
        (
            "/elements",
            "backend_invalid",
            "routes.elements.aggregate.parts.p0.body_limit",
            "2222B",
        ),
        (
            "/all-bytes",
            "backend_invalid",
            "routes.all-bytes.aggregate.body_limit",
            "5555B",
        ),
        ("/call", "out_of_time", "backends.slow.time_limit", "time_limit: 310ms"),
        (
            "/part",
            "out_of_time",
            "routes.part.aggregate.parts.p0.time_limit",
            "time_limit: 330ms",
        ),
        (
            "/same",
            "backend_invalid",
            "routes.same.aggregate.conflict",
            "conflict: error",
        ),
        (
            "/lacks",
            "backend_invalid",
            "routes.lacks.aggregate.parts.p1",
            "{part.p0.none}",
        ),
    ] {
        let status = scene.gateway.get(path).send().await.status;
        assert!(status >= 500, "{path}: {status}");
        let count = refused.entry(reason).or_default();
        *count += 1;
        let newest = scene.newest(reason, *count).await;
        scene.check(&newest, reason, Some(setting), Some(line));
    }
}
