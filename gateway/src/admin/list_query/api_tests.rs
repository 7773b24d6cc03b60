use axum::http::Method;
use serde_json::{Value, json};

use crate::admin::bench::{Bench, problem};
use crate::server::Phase;

#[tokio::test]
async fn a_parameter_that_is_not_known_is_refused() {
    let bench = Bench::start().await;
    for path in ["routes", "backends", "tenants", "keys", "rejections", "revocations"] {
        for query in [
            "page=2",
            "limit=5&name=users",
            "Limit=5",
            "limit=1&limit=2",
            "offset=ten",
            "q=a&q=b",
        ] {
            let response = bench.ask(Method::GET, &format!("/api/v1/{path}?{query}")).await;
            let told = problem(response, 400, "bad_value").await;
            let detail = told["detail"].as_str().unwrap();
            let named = query
                .rsplit('&')
                .next()
                .and_then(|pair| pair.split('=').next())
                .unwrap();
            assert!(detail.contains(named), "{path}?{query}: {detail}");
        }
        let listed = bench
            .get(&format!("/api/v1/{path}?q=%20nobody%20&offset=1&limit=1"))
            .await;
        assert_eq!(
            (&listed["total"], &listed["next_offset"]),
            (&json!(0), &Value::Null),
            "{path}"
        );
    }
    assert_eq!(bench.get("/api/v1/keys?tenant=acme").await["total"], 1);
    assert_eq!(bench.get("/api/v1/keys?tenant=nobody").await["total"], 0);
    for path in ["status?x", "events?limit=1"] {
        problem(
            bench.ask(Method::GET, &format!("/api/v1/{path}")).await,
            400,
            "bad_value",
        )
        .await;
    }
    for path in [
        "reload?dry=1",
        "drain?in=5m",
        "backends/users/breaker?for=1s",
        "backends/users/endpoints?for=1s",
    ] {
        let response = bench.change(&format!("/api/v1/{path}"), r#"{"state":"open"}"#).await;
        problem(response, 400, "bad_value").await;
    }
    assert_eq!(bench.lifecycle.phase(), Phase::Serving);
}
