use axum::http::{Method, StatusCode};

use super::PAGES;
use crate::admin::bench::{Bench, problem};
use crate::rejection::Reason;

#[tokio::test]
async fn pages_of_the_documentation_are_served() {
    let bench = Bench::start().await;
    for (name, text) in PAGES {
        let response = bench.ask(Method::GET, &format!("/docs/{name}")).await;
        assert_eq!(
            (response.status(), response.headers()["content-type"].to_str().unwrap()),
            (StatusCode::OK, "text/plain; charset=utf-8")
        );
        assert_eq!(response.text().await.unwrap(), text);
    }
    let response = bench.ask(Method::GET, "/docs/passwords.md").await;
    problem(response, 404, "not_found").await;
    let (_, refusals) = PAGES[0];
    for reason in Reason::ALL {
        assert!(
            refusals.contains(&format!("`{}`", reason.as_str())),
            "the dashboard links to it"
        );
    }
}
