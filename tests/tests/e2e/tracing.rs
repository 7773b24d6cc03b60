//! Checks that traces reach a collector: a span for the request, each part and each attempt, in the trace of the caller
//! and of the backend; and that a collector that takes nothing costs no request anything.

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Behaviour, Fleet, Handle, Spec};
use serde_json::{Value, json};
use tests::configs::Config;
use tests::{Gateway, Setup, Signal, eventually};

use crate::{SOON, backends};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn top(collector: &Handle, tracing: &str) -> String {
    format!(
        r#"
listeners: {{ public: {{ address: "127.0.0.1:0" }} }}
admin: {{ address: "127.0.0.1:0" }}
overload: off
access_log: {{ file: access.log }}
tiers: {{ open: {{ rate: 1000000/s, burst: 1000000 }}, once: {{ rate: 1/h, burst: 1 }} }}
callers: {{ api_keys: {{ file: keys.yaml }}, anonymous: {{ by: client_address, tier: open }} }}
tracing: {{ otlp: {{ url: "http://{}/v1/traces" }}{tracing} }}
"#,
        collector.address()
    )
}

async fn start(config: Config) -> Gateway {
    let keys = [KeyLine::new("once-1", "once-co", "key-once").tier("once")];
    Setup::new(config.to_string())
        .file("keys.yaml", key_file(&keys))
        .file(
            "otlp.headers",
            "# of the collector\nauthorization: Bearer 1234\n\nx-scope: edge\n",
        )
        .start()
        .await
}

/// All spans that the collector has got so far.
fn spans(collector: &Handle) -> Vec<Value> {
    let exports = collector
        .requests()
        .into_iter()
        .filter(|request| request.body_complete && request.body_length == request.body.len() as u64);
    let documents = exports.map(|export| serde_json::from_slice::<Value>(&export.body).expect("an export is JSON"));
    let of = |document: Value| {
        let spans = document["resourceSpans"][0]["scopeSpans"][0]["spans"]
            .as_array()
            .cloned();
        spans.expect("a list of spans")
    };
    documents.flat_map(of).collect()
}

/// Waits for the server span of each of these names, and returns all spans.
async fn spans_of(collector: &Handle, names: &[&str]) -> Vec<Value> {
    eventually(SOON, &format!("the collector has {names:?}"), || async {
        let all = spans(collector);
        let has = |name: &&str| all.iter().any(|span| span["name"] == **name && span["kind"] == 2);
        names.iter().all(has).then_some(all)
    })
    .await
}

fn attribute(span: &Value, key: &str) -> Value {
    let all = span["attributes"].as_array().expect("attributes");
    let found = all.iter().find(|attribute| attribute["key"] == key);
    found.map_or(Value::Null, |found| {
        let value = found["value"].as_object().expect("a typed value");
        value.values().next().expect("one value").clone()
    })
}

#[tokio::test]
async fn an_aggregate_is_one_trace_from_the_caller_to_its_backends() {
    let (_fleet, [collector, users, orders]) = backends(["collector", "users", "orders"]).await;
    orders.next([Behaviour::status(503)]);
    let config = Config::with(top(&collector, ", sample: 0, service: edge"))
        .backend("users", users.address(), "")
        .backend("orders", orders.address(), "retry: { attempts: 2, backoff: 1ms..2ms }")
        .route(
            "home",
            r#"{ match: { path: "/home/{id}" }, access: { any_of: [anonymous] }, aggregate: { parts: {
               user: { backend: users, path: "/echo?user={path.id}" }, orders: { backend: orders, path: /echo } } } }"#,
        );
    let gateway = start(config).await;
    let ask = gateway
        .get("/home/7")
        .header("traceparent", &format!("00-{TRACE}-{PARENT}-01"));
    ask.send().await.expect(200);
    let all = spans_of(&collector, &["GET /home/{id}"]).await;
    assert!(all.iter().all(|span| span["traceId"] == TRACE), "{all:#?}");
    let of_kind = |kind: u64| all.iter().filter(|span| span["kind"] == kind).collect::<Vec<_>>();
    let (servers, parts, attempts) = (of_kind(2), of_kind(1), of_kind(3));
    assert_eq!((servers.len(), parts.len(), attempts.len()), (1, 2, 3), "{all:#?}");
    let server = servers[0];
    assert_eq!(server["parentSpanId"], PARENT);
    for (key, expected) in [
        ("http.request.method", json!("GET")),
        ("url.scheme", json!("http")),
        ("url.path", json!("/home/7")),
        ("http.route", json!("/home/{id}")),
        ("http.response.status_code", json!("200")),
        ("network.protocol.version", json!("1.1")),
        ("client.address", json!("127.0.0.1")),
        ("gateway.route", json!("home")),
        ("gateway.tier", json!("open")),
        ("gateway.complete", json!(true)),
    ] {
        assert_eq!(attribute(server, key), expected, "{key}: {server:#}");
    }
    let time = |span: &Value, key: &str| span[key].as_str().expect("text").parse::<u64>().expect("a number");
    for span in parts.iter().chain(&attempts) {
        assert!(
            time(span, "startTimeUnixNano") >= time(server, "startTimeUnixNano"),
            "{span:#}"
        );
        assert!(
            time(span, "endTimeUnixNano") <= time(server, "endTimeUnixNano"),
            "{span:#}"
        );
    }
    assert!(parts.iter().all(|part| part["parentSpanId"] == server["spanId"]));
    let of_orders: Vec<_> = attempts
        .iter()
        .filter(|span| attribute(span, "gateway.backend") == "orders")
        .collect();
    let told: Vec<_> = of_orders
        .iter()
        .map(|span| {
            let facts = ["http.response.status_code", "error.type", "http.request.resend_count"];
            facts.map(|fact| attribute(span, fact))
        })
        .collect();
    assert_eq!(
        told,
        [
            [json!("503"), json!("503"), Value::Null],
            [json!("200"), Value::Null, json!("1")]
        ]
    );
    let address = orders.address();
    assert_eq!(attribute(of_orders[0], "server.address"), address.ip().to_string());
    assert_eq!(attribute(of_orders[0], "server.port"), address.port().to_string());

    // Each backend was told the span of its own attempt.
    for (handle, name) in [(&users, "users"), (&orders, "orders")] {
        let sent: Vec<_> = handle
            .requests()
            .iter()
            .map(|request| request.header("traceparent").map(str::to_owned))
            .collect();
        let own = attempts
            .iter()
            .filter(|span| attribute(span, "gateway.backend") == name);
        let expected: Vec<_> = own
            .map(|span| Some(format!("00-{TRACE}-{}-01", span["spanId"].as_str().expect("an id"))))
            .collect();
        assert_eq!(sent, expected, "{name}");
    }
    let export = &collector.requests()[0];
    assert_eq!(
        (export.target.as_str(), export.header("content-type")),
        ("/v1/traces", Some("application/json"))
    );
    let resource = serde_json::from_slice::<Value>(&export.body).expect("JSON")["resourceSpans"][0]["resource"].clone();
    assert_eq!(attribute(&resource, "service.name"), "edge");
    eventually(SOON, "the log names the trace", || async {
        let log = std::fs::read_to_string(gateway.path("access.log")).expect("a log");
        log.contains(&format!("\"trace_id\":\"{TRACE}\"")).then_some(())
    })
    .await;
    gateway
        .metric_becomes("gateway_traces_total", &[("outcome", "exported")], 1.0)
        .await;
}

#[tokio::test]
async fn errors_and_refusals_are_told_without_a_sample_and_rate_limits_are_not() {
    let (_fleet, [collector, api]) = backends(["collector", "api"]).await;
    let tracing = ", sample: 0";
    let top = top(&collector, tracing).replace("/v1/traces\" }", "/v1/traces\", headers_file: otlp.headers }");
    let config = Config::with(top).open("api", api.address(), "retry: off").mapped(
        "keyed",
        "api",
        "access: { any_of: [api_key] }",
    );
    let gateway = start(config).await;
    gateway.get("/api/x").send().await.expect(200);
    for status in [200, 429] {
        gateway.get("/keyed/x").key("key-once").send().await.expect(status);
    }
    gateway.get("/keyed/x").send().await.expect(401);
    api.next([Behaviour::status(500)]);
    gateway.get("/api/x").send().await.expect(500);
    let all = spans_of(&collector, &["GET /api/{*rest}", "GET /keyed/{*rest}"]).await;
    let servers: Vec<_> = all.iter().filter(|span| span["kind"] == 2).collect();
    let told: Vec<_> = servers
        .iter()
        .map(|span| {
            (
                attribute(span, "http.response.status_code"),
                attribute(span, "error.type"),
                span["status"]["code"].clone(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (json!("401"), json!("credentials_missing"), Value::Null),
            (json!("500"), json!("500"), json!(2))
        ],
        "{all:#?}"
    );
    let export = &collector.requests()[0];
    assert_eq!(
        (export.header("authorization"), export.header("x-scope")),
        (Some("Bearer 1234"), Some("edge"))
    );
}

#[tokio::test]
async fn a_sampled_share_is_told_and_a_reload_turns_it_off() {
    let (_fleet, [collector, api]) = backends(["collector", "api"]).await;
    let config = Config::with(top(&collector, ", sample: 1, tail: false")).open("api", api.address(), "");
    let gateway = start(config.clone()).await;
    gateway.get("/api/x").send().await.expect(200);
    let all = spans_of(&collector, &["GET /api/{*rest}"]).await;
    assert_eq!(all.len(), 2, "the request and its attempt: {all:#?}");
    assert!(all[0]["parentSpanId"].is_null());
    let sent = api.requests()[0].header("traceparent").expect("a trace").to_owned();
    assert!(sent.ends_with("-01"), "the backend learns that it is sampled: {sent}");

    let without = config.to_string();
    let line = without
        .lines()
        .find(|line| line.starts_with("tracing:"))
        .expect("it is there")
        .to_owned();
    gateway.reload(without.replace(&line, "")).await;
    gateway.get("/api/y").send().await.expect(200);
    assert!(
        api.requests()[1]
            .header("traceparent")
            .expect("a trace")
            .ends_with("-00")
    );
    gateway.reload(without).await;
    gateway.get("/api/z").send().await.expect(200);
    let paths = eventually(SOON, "the third request", || async {
        let all = spans(&collector).into_iter().filter(|span| span["kind"] == 2);
        let paths: Vec<_> = all.map(|span| attribute(&span, "url.path")).collect();
        paths.contains(&json!("/api/z")).then_some(paths)
    })
    .await;
    assert_eq!(paths, ["/api/x", "/api/z"]);
}

#[tokio::test]
async fn a_collector_that_takes_nothing_costs_no_request() {
    let (_fleet, [collector, api]) = backends(["collector", "api"]).await;
    collector.behave(Behaviour::status(400)).await;
    let config = Config::with(top(&collector, ", sample: 1")).open("api", api.address(), "");
    let mut gateway = start(config).await;
    for _ in 0..20 {
        gateway.get("/api/x").send().await.expect(200);
    }
    gateway
        .metric_becomes("gateway_traces_total", &[("outcome", "not_accepted")], 20.0)
        .await;
    assert!(
        gateway.log().contains("traces were not accepted: it answers 400"),
        "{}",
        gateway.log()
    );
    assert_eq!(
        gateway.metric("gateway_traces_total", &[("outcome", "exported")]).await,
        0.0
    );

    // What is left at the end is sent before the process ends.
    collector.behave(Behaviour::default()).await;
    gateway.get("/api/last").send().await.expect(200);
    gateway.signal(Signal::Term);
    assert_eq!(gateway.wait_exit().await, Some(0));
    assert!(
        spans(&collector)
            .iter()
            .any(|span| attribute(span, "url.path") == "/api/last")
    );
}

#[tokio::test]
async fn a_collector_that_hangs_or_is_away_costs_no_request() {
    let fleet = Fleet::start([Spec::new("api"), Spec::new("collector")])
        .await
        .expect("ports are free");
    let (api, collector) = (fleet.backend("api"), fleet.backend("collector"));
    collector.close_gate();
    let config = Config::with(top(&collector, ", sample: 1")).open("api", api.address(), "");
    let gateway = start(config).await;
    gateway.get("/api/x").send().await.expect(200);
    collector
        .wait_for(|counts| counts.at_gate == 1, SOON)
        .await
        .expect("it is sent");
    // The exporter waits for its answer; more than the queue holds arrives meanwhile.
    for _ in 0..2100 {
        gateway.get("/api/x").send().await.expect(200);
    }
    let dropped = gateway
        .metric("gateway_traces_total", &[("outcome", "queue_full")])
        .await;
    assert!(dropped >= 52.0, "{dropped} of 2100 for 2048 places");
    collector.open_gate();
}

#[tokio::test]
async fn the_metrics_lead_to_a_trace_if_they_are_asked_for_in_open_metrics() {
    const ACCEPT: &str = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    let (_fleet, [collector, api]) = backends(["collector", "api"]).await;
    let config = Config::with(top(&collector, ", sample: 0")).open("api", api.address(), "");
    let gateway = start(config).await;
    let scrape = || gateway.admin("/metrics").header("accept", ACCEPT).send();
    gateway.get("/api/echo").send().await.expect(200);
    gateway
        .metric_becomes("gateway_requests_total", &[("route", "api"), ("code", "2xx")], 1.0)
        .await;
    let page = scrape().await.expect(200);
    let kind = page.header("content-type").expect("a type").to_owned();
    assert!(
        kind.starts_with("application/openmetrics-text; version=1.0.0"),
        "{kind}"
    );
    let page = page.text();
    assert!(
        page.ends_with("\n# EOF\n") && !page.contains("trace_id"),
        "the request is not traced: {page}"
    );

    let ask = gateway
        .get("/api/echo")
        .header("traceparent", &format!("00-{TRACE}-{PARENT}-01"));
    ask.send().await.expect(200);
    let exemplar = format!("# {{trace_id=\"{TRACE}\"}} ");
    let page = eventually(SOON, "the trace is an exemplar", || async {
        let page = scrape().await.expect(200).text();
        page.contains(&exemplar).then_some(page)
    })
    .await;
    let lines: Vec<_> = page.lines().filter(|line| line.contains("trace_id")).collect();
    let [line] = lines[..] else { panic!("{lines:?}") };
    assert!(
        line.starts_with("gateway_request_duration_seconds_bucket{route=\"api\",le=\""),
        "{line}"
    );
    let plain = gateway.admin("/metrics").send().await.expect(200).text();
    assert!(!plain.contains("trace_id") && !plain.contains("# EOF"), "{plain}");
}
