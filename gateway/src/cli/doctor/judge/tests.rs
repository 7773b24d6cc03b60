use serde_json::json;

use super::*;

/// A backend without trouble: a hundred calls, all answered at the first attempt.
fn well() -> Value {
    json!({
        "name": "b",
        "at": { "file": "gateway.yaml", "line": 7, "column": 3 },
        "time_limit_ms": 1000,
        "attempt_limit_ms": 1000,
        "endpoints": [{ "url": "http://a" }],
        "bulkhead": { "limit": 10, "adaptive": null, "outcomes": { "admitted": 100, "full": 0, "timeout": 0, "left": 0 } },
        "breaker": {
            "state": "closed",
            "counts": { "reopenings": 0 },
            "settings": { "failure_ratio": 0.5, "min_calls": 10, "open_for_ms": 2000, "probes": 1 },
        },
        "retry": { "attempts": 2, "budget": { "share": 0.2, "floor_per_second": 3.0 }, "stopped": {} },
        "calls": { "answered": 100, "timed_out": 0 },
        "attempts": { "answered": 100, "failed_status": 0 },
        "duration": { "p50_ms": 10.0, "p99_ms": 40.0 },
    })
}

/// Sets a value at a JSON pointer.
fn with(mut value: Value, changes: &[(&str, Value)]) -> Value {
    for (pointer, change) in changes {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        value.pointer_mut(parent).unwrap()[name] = change.clone();
    }
    value
}

fn found(backends: Vec<Value>, metrics: &str) -> Vec<(&'static str, String)> {
    let snapshot = Snapshot {
        backends,
        metrics: metrics.to_owned(),
        ..Snapshot::default()
    };
    judge(&snapshot)
        .into_iter()
        .map(|found| (found.symptom, found.advice))
        .collect()
}

#[test]
fn a_backend_without_trouble_has_no_findings() {
    assert_eq!(found(vec![well()], ""), []);
    // A few events are no trouble, and neither is one that goes on to happen seldom.
    let few = with(
        well(),
        &[("/calls/timed_out", json!(4)), ("/bulkhead/outcomes/full", json!(1))],
    );
    assert_eq!(found(vec![few], ""), []);
    let start = with(
        well(),
        &[
            ("/calls", json!({ "timed_out": 3 })),
            ("/bulkhead/outcomes", json!({ "full": 3 })),
        ],
    );
    assert_eq!(found(vec![start], ""), []);
    let metrics = "gateway_breaker_transitions_total{backend=\"b\",to=\"open\"} 2\n\
                   gateway_breaker_transitions_total{backend=\"other\",to=\"open\"} 9\n\
                   gateway_limit_room_in_use{owners=\"tenants\"} 10\ngateway_limit_room{owners=\"tenants\"} 100\n";
    assert_eq!(found(vec![well()], metrics), []);
}

#[test]
fn each_trouble_of_a_backend_comes_with_a_number_to_set() {
    let check = |changes: &[(&str, Value)], metrics: &str, symptom: &str, advice: &str| {
        let found = found(vec![with(well(), changes)], metrics);
        assert!(
            matches!(&*found, [(word, told)] if *word == symptom && told.contains(advice)),
            "{symptom}: {found:?}"
        );
    };
    let opened = "gateway_breaker_transitions_total{backend=\"b\",to=\"open\"} 3\n";
    check(&[], opened, "breaker_flaps", "`min_calls: 20`");
    let failed = [("/attempts/failed_status", json!(60)), ("/retry/attempts", json!(1))];
    check(&failed, opened, "breaker_flaps", "`open_for: 4s`");
    let again = [
        ("/breaker/state", json!("open")),
        ("/breaker/counts/reopenings", json!(3)),
    ];
    check(&again, "", "breaker_never_recovers", "`open_for: 1s`");
    let several = [again.as_slice(), &[("/breaker/settings/probes", json!(3))]].concat();
    check(&several, "", "breaker_never_recovers", "`probes: 1`");
    check(
        &[("/calls/timed_out", json!(20))],
        "",
        "deadlines",
        "`attempt_limit: 30ms`",
    );
    let all_slow = [
        ("/calls/timed_out", json!(20)),
        ("/duration/p50_ms", json!(700.0)),
        ("/duration/p99_ms", json!(1000.0)),
    ];
    check(&all_slow, "", "deadlines", "`time_limit: 2s`");
    check(
        &[("/bulkhead/outcomes/full", json!(50))],
        "",
        "bulkhead_rejections",
        "`limit: 15`",
    );
    let adaptive = [
        ("/bulkhead/outcomes/full", json!(50)),
        ("/bulkhead/adaptive", json!({ "from": 4, "to": 10 })),
    ];
    check(&adaptive, "", "bulkhead_rejections", "`to: 20`");
    check(
        &[("/attempts/failed_status", json!(40))],
        "",
        "retries_multiply",
        "`share: 0.1`",
    );
    let thrice = [("/attempts/failed_status", json!(40)), ("/retry/attempts", json!(3))];
    check(&thrice, "", "retries_multiply", "`attempts: 2`");
    check(
        &[("/retry/stopped/budget_empty", json!(10))],
        "",
        "retry_storm",
        "`floor: 1/s`",
    );
}

#[test]
fn a_shared_server_is_a_trouble_only_if_there_is_no_room() {
    let other = with(well(), &[("/name", json!("other"))]);
    assert_eq!(found(vec![well(), other.clone()], ""), []);
    let crowded = with(well(), &[("/bulkhead/outcomes/full", json!(50))]);
    let words: Vec<_> = found(vec![crowded.clone(), other.clone()], "")
        .into_iter()
        .map(|(word, _)| word)
        .collect();
    assert_eq!(words, ["bulkhead_rejections", "shared_pool"]);
    let apart = with(other, &[("/endpoints", json!([{ "url": "http://elsewhere" }]))]);
    assert_eq!(found(vec![crowded, apart], "").len(), 1);
}

#[test]
fn the_tightest_limit_of_a_tenant_is_named() {
    let tenant = json!({
        "name": "acme",
        "requests": { "total": 200, "limited": 100 },
        "limits": [
            { "name": "free", "setting": "tiers.free", "most": 20, "per_second": 10.0, "balance": 15, "at": null },
            { "name": "search", "setting": "routes.search.limits.search", "most": 10, "per_second": 5.0, "balance": 0,
              "at": { "file": "gateway.yaml", "line": 9, "column": 1 } },
        ],
    });
    let found = limited(&tenant).unwrap();
    assert_eq!(found.setting, "routes.search.limits.search");
    assert_eq!(found.at.as_deref(), Some("gateway.yaml:9"));
    assert!(found.advice.contains("`rate: 10/s`, `burst: 20`"), "{}", found.advice);
    assert_eq!(limited(&with(tenant, &[("/requests/limited", json!(5))])), None);
}

#[test]
fn callers_that_leave_and_full_tables_are_found() {
    let route = json!({
        "name": "r", "at": { "file": "gateway.yaml", "line": 3, "column": 1 }, "time_limit_ms": 9000,
        "requests": { "2xx": 10, "4xx": 30 }, "rejections": { "caller_gone": 30 }, "duration": { "p50_ms": 200.0 },
    });
    let found = left(&route).unwrap();
    assert!(found.advice.contains("`time_limit: 400ms`"), "{}", found.advice);
    let snapshot = Snapshot {
        metrics: "gateway_limit_room_in_use{owners=\"callers\"} 95\ngateway_limit_room{owners=\"callers\"} 100\n"
            .to_owned(),
        ..Snapshot::default()
    };
    let found = judge(&snapshot);
    assert_eq!(
        (found.len(), &*found[0].advice),
        (
            1,
            "if memory allows: `callers: 200`, else fewer limits that are counted by callers"
        )
    );
}

#[test]
fn rates_are_written_as_in_the_config() {
    for (second, expected) in [
        (10.0, "10/s"),
        (1.5, "2/s"),
        (0.5, "30/min"),
        (5.0 / 3600.0, "5/h"),
        (1e-5, "1/d"),
    ] {
        assert_eq!(per(second), expected);
    }
}

#[test]
fn times_are_written_as_in_the_config() {
    for (millis, expected) in [
        (1.0, "1ms"),
        (33.4, "34ms"),
        (400.0, "400ms"),
        (1234.0, "1300ms"),
        (2000.0, "2s"),
    ] {
        assert_eq!(written(millis), expected);
    }
}
