//! Checks the output for operators: health, metrics, the state of all parts, and one log line for each request.

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Behaviour, Fleet, Handle};
use http::Method;
use serde_json::Value;
use tests::configs::Config;
use tests::{Gateway, Setup, eventually};

use crate::{SOON, one_backend};

const TOP: &str = r#"
listeners: { public: { address: "127.0.0.1:0" } }
admin: { address: "127.0.0.1:0" }
access_log: { file: access.log }
tiers: { trickle: { rate: 1/h, burst: 3 } }
callers: { api_keys: { file: keys.yaml }, anonymous: { by: client_address, tier: premium } }
"#;

async fn start() -> (Fleet, Handle, Gateway) {
    let (fleet, api) = one_backend("api").await;
    let config = Config::with(TOP)
        .open("api", api.address(), "retry: { backoff: 1ms..2ms }")
        .mapped("keyed", "api", "time_limit: 3s");
    let keys = [
        KeyLine::new("acme-1", "acme", "key-acme").tier("premium"),
        KeyLine::new("poor-1", "poor", "key-poor").tier("trickle"),
    ];
    let gateway = Setup::new(config.to_string())
        .file("keys.yaml", key_file(&keys))
        .start()
        .await;
    (fleet, api, gateway)
}

/// The lines of the access log, once there are so many.
async fn lines(gateway: &Gateway, count: usize) -> Vec<Value> {
    eventually(SOON, &format!("{count} lines in the access log"), || async {
        let log = std::fs::read_to_string(gateway.path("access.log")).unwrap_or_default();
        let whole: Vec<&str> = log.split_inclusive('\n').filter(|line| line.ends_with('\n')).collect();
        let parsed = whole
            .iter()
            .map(|line| serde_json::from_str(line).expect("a line is JSON"))
            .collect();
        (whole.len() >= count).then_some(parsed)
    })
    .await
}

#[tokio::test]
async fn a_line_of_the_access_log_holds_the_decision() {
    let (_fleet, api, gateway) = start().await;
    api.next([Behaviour::status(503)]);
    let answer = gateway
        .get("/keyed/echo?secret=1")
        .key("key-acme")
        .send()
        .await
        .expect(200);
    let line = &lines(&gateway, 1).await[0];
    assert_eq!(line["request_id"].as_str(), answer.header("x-request-id"));
    for (name, expected) in [
        ("method", "GET"),
        ("path", "/keyed/echo"),
        ("route", "keyed"),
        ("tenant", "acme"),
        ("tier", "premium"),
        ("caller", "acme-1"),
        ("kind", "api_key"),
        ("backend", "api"),
        ("client", "127.0.0.1"),
    ] {
        assert_eq!(line[name], expected, "{name}: {line:#}");
    }
    assert_eq!(
        (&line["status"], &line["attempts"]),
        (&Value::from(200), &Value::from(2)),
        "{line:#}"
    );
    assert_eq!(line["bytes_out"], answer.body.len(), "{line:#}");
    assert_eq!(line["budget_ms"], 3000.0, "{line:#}");
    assert!(
        line["used_ms"].as_f64().is_some_and(|used| used > 0.0 && used < 3000.0),
        "{line:#}"
    );
    let written = line.to_string();
    assert!(
        !written.contains("secret") && !written.contains("key-acme"),
        "{written}"
    );
}

#[tokio::test]
async fn every_no_has_one_word_in_answer_log_and_metrics() {
    let (_fleet, _api, gateway) = start().await;
    let cases = [
        (gateway.get("/nowhere"), 404, "no_route", ""),
        (gateway.get("/keyed/echo"), 401, "credentials_missing", "keyed"),
        (
            gateway.get("/keyed/echo").key("nobody's"),
            401,
            "credentials_invalid",
            "keyed",
        ),
        (gateway.get("/api//echo"), 400, "malformed_request", ""),
    ];
    let count = cases.len();
    for (ask, status, reason, route) in cases {
        ask.send().await.refusal(status, reason);
        let labels = [("reason", reason), ("route", route)];
        assert_eq!(
            gateway.metric("gateway_rejections_total", &labels).await,
            1.0,
            "{reason}"
        );
    }
    let reasons: Vec<_> = lines(&gateway, count)
        .await
        .iter()
        .map(|line| line["reason"].clone())
        .collect();
    assert_eq!(
        reasons,
        [
            "no_route",
            "credentials_missing",
            "credentials_invalid",
            "malformed_request"
        ]
    );
}

#[tokio::test]
async fn a_caller_who_hangs_up_shows_in_the_log() {
    let (_fleet, api, gateway) = start().await;
    api.close_gate();
    let mut caller = gateway.connect().await;
    caller.send("GET /api/echo HTTP/1.1\r\nhost: a\r\n\r\n").await;
    api.wait_for(|counts| counts.at_gate == 1, SOON)
        .await
        .expect("it is asked");
    drop(caller);
    let line = &lines(&gateway, 1).await[0];
    assert_eq!(
        (&line["status"], &line["reason"]),
        (&Value::from(499), &Value::from("caller_gone")),
        "{line:#}"
    );
}

#[tokio::test]
async fn metrics_are_named_from_the_start_and_appear_as_they_are_counted() {
    let (_fleet, _api, gateway) = start().await;
    let page = gateway.metrics().await;
    for (name, labels) in [
        ("gateway_requests_total", [("route", "keyed"), ("code", "2xx")]),
        (
            "gateway_rejections_total",
            [("route", "keyed"), ("reason", "rate_limited")],
        ),
        (
            "gateway_backend_rejections_total",
            [("backend", "api"), ("reason", "breaker_open")],
        ),
        (
            "gateway_backend_calls_total",
            [("backend", "api"), ("outcome", "answered")],
        ),
        (
            "gateway_bulkhead_outcomes_total",
            [("backend", "api"), ("outcome", "full")],
        ),
        (
            "gateway_breaker_transitions_total",
            [("backend", "api"), ("to", "open")],
        ),
    ] {
        let [(label, value), (other, _)] = labels;
        let begun = format!("{name}{{{label}=\"{value}\",{other}=");
        assert!(!page.text().contains(&begun), "{name}");
        assert_eq!(page.sum(name, &labels), Some(0.0), "{name}");
    }
    for name in ["gateway_aborted_responses_total", "gateway_partial_responses_total"] {
        assert!(
            page.text().contains(&format!("\n{name}{{route=\"keyed\"}} 0\n")),
            "{name}"
        );
    }
    for _ in 0..3 {
        gateway.get("/keyed/echo").key("key-acme").send().await.expect(200);
    }
    let requests = [("route", "keyed"), ("code", "2xx")];
    gateway.metric_becomes("gateway_requests_total", &requests, 3.0).await;
    let page = gateway.metrics().await;
    assert_eq!(
        page.sum("gateway_request_duration_seconds_count", &[("route", "keyed")]),
        Some(3.0)
    );
    assert_eq!(
        page.sum("gateway_callers_total", &[("kind", "api_key"), ("outcome", "admitted")]),
        Some(3.0)
    );
    assert_eq!(
        page.sum(
            "gateway_limit_decisions_total",
            &[("limit", "premium"), ("decision", "admitted")]
        ),
        Some(3.0)
    );
    let answered = [("backend", "api"), ("outcome", "answered")];
    assert_eq!(page.sum("gateway_backend_calls_total", &answered), Some(3.0));
    assert_eq!(page.sum("gateway_backend_attempts_total", &answered), Some(3.0));
    assert_eq!(page.sum("gateway_build_info", &[]), Some(1.0));
    assert!(
        page.sum("process_resident_memory_bytes", &[])
            .is_some_and(|bytes| bytes > 1e6)
    );
}

#[tokio::test]
async fn the_page_is_what_prometheus_reads() {
    let (_fleet, _api, gateway) = start().await;
    let answer = gateway.admin("/metrics").send().await.expect(200);
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let text = answer.text();
    let mut families = std::collections::HashSet::new();
    for line in text.lines() {
        if let Some(typed) = line.strip_prefix("# TYPE ") {
            let name = typed.split(' ').next().unwrap_or_default();
            assert!(families.insert(name.to_owned()), "{name} twice");
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix));
            let known = families.contains(name) || family.is_some_and(|family| families.contains(family));
            assert!(known, "a sample without a family: {line}");
            let value = line.rsplit(' ').next().unwrap_or_default();
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
}

#[tokio::test]
async fn health_is_two_questions() {
    let (_fleet, api, gateway) = start().await;
    api.behave(Behaviour::refusing()).await;
    for path in ["/livez", "/readyz"] {
        gateway.admin(path).send().await.expect(200);
    }
    let elsewhere = gateway.get("/livez").send().await;
    elsewhere.refusal(404, "no_route");
}

#[tokio::test]
async fn the_state_of_everything_can_be_asked_for() {
    let (_fleet, _api, gateway) = start().await;
    gateway.get("/keyed/echo").key("key-poor").send().await.expect(200);
    for _ in 0..4 {
        gateway.get("/keyed/echo").key("key-poor").send().await;
    }
    let asked_of = |path: &'static str, words: &'static [&'static str]| (path, words);
    for (path, words) in [
        asked_of("/api/v1/status", &["version", "generation"]),
        asked_of("/api/v1/routes", &["api", "keyed"]),
        asked_of("/api/v1/backends", &["api", "closed", "bulkhead", "breaker"]),
        asked_of("/api/v1/tenants", &["poor"]),
        asked_of("/api/v1/rejections", &["rate_limited", "keyed", "poor"]),
    ] {
        let told = eventually(SOON, &format!("{path} tells {words:?}"), || async {
            let told = gateway.admin_json(path).await.to_string();
            words.iter().all(|word| told.contains(word)).then_some(told)
        })
        .await;
        assert!(!told.contains("key-poor"), "{path} tells a secret: {told}");
    }
}

#[tokio::test]
async fn asking_changes_nothing_and_changing_needs_leave() {
    let (_fleet, _api, gateway) = start().await;
    let admin = tests::Client::to(gateway.admin_address());
    for path in ["/api/v1/status", "/metrics", "/readyz"] {
        let answer = admin.ask(Method::POST, path).send().await;
        assert!([401, 403, 404, 405].contains(&answer.status), "{path}: {answer:#?}");
    }
    let rebound = admin.get("/api/v1/status").header("host", "evil.example").send().await;
    assert!(
        [400, 403, 421].contains(&rebound.status),
        "a page elsewhere must not read this: {rebound:#?}"
    );
}

#[tokio::test]
async fn the_access_log_may_be_off_or_on_stdout() {
    let (_fleet, api) = one_backend("api").await;
    let config = |log: &str| Config::default().top(log).open("api", api.address(), "").to_string();
    let gateway = Gateway::start(config("")).await;
    gateway.get("/api/echo").send().await.expect(200);
    eventually(SOON, "a line on stdout", || async {
        let line = gateway
            .stdout()
            .lines()
            .find_map(|line| serde_json::from_str::<Value>(line).ok())?;
        (line["route"] == "api").then_some(())
    })
    .await;
    let silent = Gateway::start(config("access_log: off")).await;
    silent.get("/api/echo").send().await.expect(200);
    silent
        .metric_becomes("gateway_requests_total", &[("route", "api"), ("code", "2xx")], 1.0)
        .await;
    assert_eq!(silent.stdout(), "");
}

#[tokio::test]
async fn a_request_keeps_a_sane_id_and_its_trace() {
    let (_fleet, _api, gateway) = start().await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let ask = || gateway.get("/api/echo").header("traceparent", parent);
    let answer = ask().header("x-request-id", "order-4711").send().await.expect(200);
    assert_eq!(answer.header("x-request-id"), Some("order-4711"));
    assert_eq!(answer.echoed("x-request-id").as_deref(), Some("order-4711"));
    let trace = answer.echoed("traceparent").expect("continued");
    assert!(trace.starts_with("00-0af7651916cd43dd8448eb211c80319c-"), "{trace}");
    let insane = "x".repeat(5000);
    let answer = ask().header("x-request-id", &insane).send().await.expect(200);
    assert!(
        answer
            .header("x-request-id")
            .is_some_and(|id| id.len() < 300 && id != insane)
    );
}

#[tokio::test]
async fn lines_that_a_full_disk_does_not_take_are_counted_each_once() {
    let (_fleet, api) = one_backend("api").await;
    let config = Config::default()
        .top("access_log: { file: /dev/full }")
        .open("api", api.address(), "");
    let gateway = Gateway::start(config.to_string()).await;
    for _ in 0..7 {
        gateway.get("/api/echo").send().await.expect(200);
    }
    gateway
        .metric_becomes("gateway_access_log_dropped_total", &[], 7.0)
        .await;
    let log = gateway.log();
    assert_eq!(log.matches("the access log cannot be written").count(), 1, "{log}");
}
