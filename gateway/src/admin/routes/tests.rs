use std::sync::Arc;
use std::time::Duration;

use policies::breaker::ForcedState;
use serde_json::{Value, json};

use crate::admin::bench::{Bench, CONFIG};
use crate::clock;
use crate::observe::{Outcome, RequestRecord};
use crate::rejection::Reason;

#[tokio::test]
async fn routes_stand_in_the_order_and_on_the_lines_of_the_config() {
    let bench = Bench::start().await;
    bench.refuse("one", Reason::BreakerOpen);
    let listed = bench.get("/api/v1/routes").await;
    let [users, page] = listed["routes"].as_array().unwrap().as_slice() else {
        panic!("two routes: {listed}")
    };
    assert_eq!(
        (&users["name"], &page["name"], &listed["total"]),
        (&json!("users"), &json!("page"), &json!(2))
    );
    assert_eq!(
        CONFIG.lines().nth(users["at"]["line"].as_u64().unwrap() as usize - 1),
        Some("  users:")
    );
    assert_eq!(users["match"]["paths"], json!(["/users/{id}"]));
    assert_eq!(users["access"]["any_of"], json!(["api_key"]));
    assert_eq!(
        page["access"]["any_of"],
        json!(["api_key", "jwt"]),
        "left out, it is what is configured"
    );
    assert_eq!(users["limits"][0]["terms"], "5/s, burst 10");
    assert_eq!(
        (&users["time_limit_ms"], &page["time_limit_ms"]),
        (&json!(5000), &json!(28_000))
    );
    assert_eq!(
        (&users["worst_case_ms"], &page["worst_case_ms"]),
        (&json!(5000), &json!(10_000))
    );
    assert_eq!(
        users["time_budget"],
        json!({
            "limit": { "setting": "routes.users.time_limit", "limit_ms": 5000 },
            "turn": null,
            "uses": { "call": {
                "backend": "users",
                "protocol": "http1",
                "limit": { "setting": "backends.users.time_limit", "limit_ms": 10_000 },
                "queue_ms": 5000,
                "attempt": { "setting": "backends.users.attempt_limit", "limit_ms": 10_000 },
                "backoffs_ms": [110],
                "heeds_retry_after": true,
            } },
            "worst": { "worst_case_ms": 5000, "decided_by": "routes.users.time_limit", "uncut_ms": 25_110 },
        })
    );
    assert_eq!(
        page["time_budget"]["uses"]["parts"][0]["setting"],
        "backends.orders.time_limit"
    );
    assert_eq!(
        users["target"],
        json!({ "backend": { "name": "users", "rewrite": null } })
    );
    assert_eq!(page["target"]["aggregate"]["parts"][0]["backend"], "orders");
    assert_eq!(
        page["edge"],
        json!({
            "allow": null, "deny": [], "origins": null, "compression": null, "security_headers": "off",
            "added_headers": ["identity", "forwarded", "trace", "ratelimit"],
            "request_fields": [], "response_fields": [], "method_override": "reject",
            "path_policy": {
                "dot_segments": "reject", "double_slash": "reject", "encoded_slash": "reject", "backslash": "reject",
            },
            "upgrade": "off",
        })
    );
    assert_eq!(
        (&users["requests"]["5xx"], &users["requests"]["2xx"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(users["rejections"], json!({ "breaker_open": 1 }));
    assert_eq!(users["duration"]["count"], 1);
    let one = bench.get("/api/v1/routes?limit=1").await;
    assert_eq!((one["routes"].as_array().unwrap().len(), &one["total"]), (1, &json!(2)));
}

/// Numbers of routes and of backends in a large installation.
const MANY: (usize, usize) = (10_000, 600);

fn many_routes() -> String {
    let mut config = String::from(
        "listeners:\n  public: { address: 127.0.0.1:0 }\ncallers: { anonymous: { by: client_address } }\nbackends:\n",
    );
    for number in 0..MANY.1 {
        config += &format!(
            "  service-{number}: {{ endpoints: [{{ url: \"http://127.0.0.1:{}\" }}] }}\n",
            1000 + number
        );
    }
    config += "routes:\n";
    for number in 0..MANY.0 {
        let backend = number % MANY.1;
        config += &format!(
            "  route-{number}: {{ match: {{ path: \"/path-{number}/{{*rest}}\" }}, access: {{ any_of: [anonymous] }}, backend: service-{backend} }}\n"
        );
    }
    config
}

#[tokio::test]
async fn a_large_config_shows_its_trouble_first_and_has_a_short_metrics_page() {
    let bench = Bench::start_on(&many_routes(), None).await;
    let (plan, observer) = (bench.live.load(), &bench.state.observer);
    let names = |list: &Value, of: &str| -> Vec<String> {
        let entries = list[of].as_array().unwrap().iter();
        entries
            .map(|entry| entry["name"].as_str().unwrap().to_owned())
            .collect()
    };

    let page = bench.page().await;
    let (size, most) = (page.len(), 2 << 20);
    assert!(size < most, "{} KiB before the first request", size >> 10);
    for route in &plan.listed {
        let mut record = RequestRecord::default();
        record.status = 200;
        record.route = Some(Arc::clone(&route.metrics));
        observer.finish(&mut record);
    }
    let (used, most) = (bench.page().await.len(), 16 << 20);
    assert!(used < most, "{} KiB with all routes in use", used >> 10);

    // Without trouble, the order is that of the config.
    let all = bench.get("/api/v1/backends?limit=3").await;
    assert_eq!(names(&all, "backends"), ["service-0", "service-1", "service-2"]);
    assert_eq!((&all["total"], &all["next_offset"]), (&json!(600), &json!(3)));

    plan.backends[500].guards.breaker.force(ForcedState::Open, clock::now());
    plan.backends[501]
        .guards
        .breaker
        .force(ForcedState::Closed, clock::now());
    plan.backends[300].metrics.called(Outcome::Answered, Duration::ZERO);
    let busy = &plan.listed[9_999].metrics;
    for status in [500, 200, 200] {
        let mut record = RequestRecord::default();
        (record.status, record.route) = (status, Some(Arc::clone(busy)));
        observer.finish(&mut record);
    }
    let backends = bench.get("/api/v1/backends").await;
    assert_eq!(
        names(&backends, "backends")[..4],
        ["service-500", "service-501", "service-300", "service-0"]
    );
    let routes = bench.get("/api/v1/routes?limit=35").await;
    let shown = names(&routes, "routes");
    assert_eq!(
        shown[..2],
        ["route-500", "route-1100"],
        "those of the backend that is not called"
    );
    // Each of the two backends has 16 or 17 routes; the failed route comes after them.
    assert_eq!((&*shown[32], &*shown[33]), ("route-9999", "route-0"));
    assert_eq!(
        (
            &routes["total"],
            &routes["next_offset"],
            &routes["totals"]["requests"]["2xx"]
        ),
        (&json!(10_000), &json!(35), &json!(10_002))
    );

    let check = async |query: &str, total: usize, first: &str, next: Value| {
        let found = bench.get(&format!("/api/v1/routes?{query}")).await;
        assert_eq!(
            (&found["total"], &found["next_offset"]),
            (&json!(total), &next),
            "{query}"
        );
        assert_eq!(
            names(&found, "routes").first().map(String::as_str),
            Some(first),
            "{query}"
        );
    };
    check("q=PATH-1234%2F", 1, "route-1234", Value::Null).await;
    check("q=route-99&limit=10", 111, "route-9999", json!(10)).await;
    check("q=service-7", 17 + 10 * 17, "route-7", json!(100)).await;
    check("offset=9999", 10_000, "route-9998", Value::Null).await;
    assert_eq!(bench.get("/api/v1/routes?q=nothing").await["routes"], json!([]));
    let found = bench.get("/api/v1/backends?q=127.0.0.1%3A1123").await;
    assert_eq!(names(&found, "backends"), ["service-123"]);
}
