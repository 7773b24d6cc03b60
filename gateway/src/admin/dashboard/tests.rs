use axum::http::{HeaderValue, Method, StatusCode};

use crate::admin::bench::{Bench, DIGEST, SECRET, TOKEN, event};
use crate::rejection::Reason;

#[tokio::test]
async fn the_dashboard_is_served_and_runs_only_its_own_script() {
    let bench = Bench::start().await;
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/dashboard.css", "text/css; charset=utf-8"),
        ("/dashboard.js", "text/javascript; charset=utf-8"),
    ] {
        let response = bench.ask(Method::GET, path).await;
        assert_eq!(
            (response.status(), &response.headers()["content-type"]),
            (StatusCode::OK, &HeaderValue::from_static(kind))
        );
        let policy = response.headers()["content-security-policy"].to_str().unwrap();
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self';") && !policy.contains("unsafe"),
            "{policy}"
        );
    }
    let page = include_str!("page.html");
    let script = include_str!("script.js");
    for forbidden in ["style=", "onclick", "onload", "//cdn", "https://", "<script>"] {
        assert!(!page.contains(forbidden), "{forbidden} in the page");
    }
    for forbidden in [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "https://",
    ] {
        assert!(!script.contains(forbidden), "{forbidden} in the script");
    }
}

#[tokio::test]
async fn secrets_are_told_to_nobody() {
    let bench = Bench::start().await;
    bench.refuse("one", Reason::BreakerOpen);
    let mut told = String::new();
    for path in ["status", "routes", "backends", "tenants", "rejections"] {
        told += &bench.get(&format!("/api/v1/{path}")).await.to_string();
    }
    told += &event(&mut bench.ask(Method::GET, "/api/v1/events").await)
        .await
        .to_string();
    told += &bench.page().await;
    told += &bench.change("/api/v1/reload", "").await.text().await.unwrap();
    for secret in [TOKEN, SECRET, DIGEST, "example-acme-1"] {
        assert!(!told.contains(secret), "{secret} is told");
    }
}
