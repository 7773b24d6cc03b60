use axum::http::{Method, StatusCode};

use super::{PARTS, SCRIPT};
use crate::admin::bench::{Bench, DIGEST, SECRET, TOKEN, event, problem};
use crate::rejection::Reason;

#[tokio::test]
async fn the_dashboard_is_served_and_runs_only_its_own_script() {
    let bench = Bench::start().await;
    let served = [("/".to_owned(), "text/html; charset=utf-8")].into_iter();
    let parts = PARTS
        .iter()
        .map(|(name, kind, _)| (format!("/dashboard/{name}"), *kind));
    for (path, kind) in served.chain(parts) {
        let response = bench.ask(Method::GET, &path).await;
        assert_eq!(
            (response.status(), response.headers()["content-type"].to_str().unwrap()),
            (StatusCode::OK, kind)
        );
        let policy = response.headers()["content-security-policy"].to_str().unwrap();
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self';") && !policy.contains("unsafe"),
            "{policy}"
        );
    }
    problem(bench.ask(Method::GET, "/dashboard/page.html").await, 404, "not_found").await;
    let page = include_str!("page.html");
    for forbidden in ["style=", "onclick", "onload", "//cdn", "https://", "<script>"] {
        assert!(!page.contains(forbidden), "{forbidden} in the page");
    }
    for (name, _, text) in PARTS.iter().filter(|(_, kind, _)| *kind == SCRIPT) {
        for forbidden in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "https://",
            "localStorage",
            "sessionStorage",
            "document.cookie",
            "indexedDB",
        ] {
            assert!(!text.contains(forbidden), "{forbidden} in {name}");
        }
    }
}

#[tokio::test]
async fn secrets_are_told_to_nobody() {
    let bench = Bench::start().await;
    bench.refuse("one", Reason::BreakerOpen);
    let mut told = String::new();
    for path in [
        "status",
        "routes",
        "backends",
        "tenants",
        "rejections",
        "rejections/groups",
        "history",
    ] {
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
