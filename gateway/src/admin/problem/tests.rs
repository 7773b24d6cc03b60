use axum::http::{Method, StatusCode};

use crate::admin::bench::{Bench, problem};

#[tokio::test]
async fn what_is_not_served_is_a_problem_too() {
    let bench = Bench::start().await;
    problem(bench.ask(Method::GET, "/api/v1/nothing").await, 404, "not_found").await;
    for (method, path, allow) in [
        (Method::POST, "/api/v1/status", "GET,HEAD"),
        (Method::DELETE, "/metrics", "GET,HEAD"),
        (Method::GET, "/api/v1/reload", "POST"),
        (Method::PUT, "/api/v1/backends/users/breaker", "POST"),
    ] {
        let response = bench.ask(method, path).await;
        assert_eq!(response.headers()["allow"], allow, "{path}");
        problem(response, 405, "method_not_allowed").await;
    }
    for path in ["routes", "backends", "tenants", "rejections"] {
        problem(
            bench.ask(Method::GET, &format!("/api/v1/{path}?limit=0")).await,
            400,
            "bad_value",
        )
        .await;
    }
    for path in [
        "/",
        "/livez",
        "/readyz",
        "/metrics",
        "/api/v1/status",
        "/api/v1/rejections",
    ] {
        let response = bench.ask(Method::HEAD, path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert!(response.bytes().await.unwrap().is_empty(), "{path}");
    }
}
