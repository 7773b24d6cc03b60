use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::admin::bench::{Bench, CONFIG, line_of};
use crate::rejection::Reason;

#[tokio::test]
async fn rejections_name_the_line_that_decided() {
    let bench = Bench::start().await;
    let expected = [
        (Reason::RateLimited, "routes.users.limits.search", Some("search:")),
        (Reason::BreakerOpen, "backends.users.breaker", Some("min_calls")),
        (
            Reason::BulkheadTimeout,
            "backends.users.bulkhead.wait",
            Some("wait: 5s"),
        ),
        (Reason::NotAllowed, "routes.users.access", Some("any_of:")),
        (
            Reason::BackendUnreached,
            "backends.users.endpoints",
            Some("127.0.0.1:9\""),
        ),
        (Reason::UriTooLong, "request_limits.uri", None),
        (Reason::BackendTimeout, "backends.users.time_limit", Some("  users:")),
        (Reason::OutOfTime, "routes.users.time_limit", Some("time_limit: 5s")),
        (Reason::RequestTimeout, "time_limits.head", None),
        (Reason::Overloaded, "connection_limits.per_address", None),
    ];
    for (reason, setting, _) in expected {
        bench.refuse_by(reason.as_str(), reason, Some(setting));
    }
    for (id, reason) in [
        ("hurried", Reason::OutOfTime),
        ("full", Reason::Overloaded),
        ("last", Reason::NoRoute),
    ] {
        bench.refuse_by(id, reason, None);
    }
    let shown = bench.get("/api/v1/rejections").await;
    let shown = shown["rejections"].as_array().unwrap();
    for (rejection, id) in shown.iter().zip(["last", "full", "hurried"]) {
        assert_eq!(
            (&rejection["request_id"], &rejection["decided_by"]),
            (&json!(id), &Value::Null),
            "newest first"
        );
    }
    for ((reason, setting, line), rejection) in expected.iter().rev().zip(&shown[3..]) {
        assert_eq!(
            (&rejection["reason"], &rejection["tenant"]),
            (&json!(reason.as_str()), &json!("acme"))
        );
        let decided = &rejection["decided_by"];
        assert_eq!(decided["setting"], *setting);
        match line {
            Some(text) => assert_eq!(decided["at"]["line"], line_of(text), "{setting}"),
            None => assert!(decided["at"].is_null(), "a default: {decided}"),
        }
    }
    assert_eq!(
        bench.get("/api/v1/rejections?limit=3").await["rejections"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
}

/// A rejection shows the setting that was in force, also after its line has moved and its limit has changed.
#[tokio::test]
async fn a_refusal_names_the_config_that_it_was_refused_by() {
    let bench = Bench::start().await;
    bench.refuse_by("before", Reason::OutOfTime, Some("routes.users.time_limit"));
    let moved = CONFIG
        .replace("    time_limit: 5s\n", "")
        .replace("routes:\n", "# a line more\nroutes:\n");
    std::fs::write(bench.folder.path().join("gateway.yaml"), moved).unwrap();
    let reloaded = bench.change("/api/v1/reload", "").await;
    assert_eq!(reloaded.status(), StatusCode::OK);
    bench.refuse_by("after", Reason::OutOfTime, Some("time_limits.request"));
    let shown = bench.get("/api/v1/rejections").await;
    let [after, before] = shown["rejections"].as_array().unwrap().as_slice() else {
        panic!("two refusals: {shown}")
    };
    assert_eq!(before["decided_by"]["setting"], "routes.users.time_limit");
    assert_eq!(before["decided_by"]["at"]["line"], line_of("time_limit: 5s"));
    assert_eq!(
        after["decided_by"],
        json!({ "setting": "time_limits.request", "at": null })
    );
}
