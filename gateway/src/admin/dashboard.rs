//! `GET /`: the dashboard, one static page that requests only this address and runs only its own scripts.

use axum::extract::Path;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::response::{IntoResponse, Response};

use super::problem;

/// Names of tenants and paths come from callers. If one reaches the page as markup, this policy keeps it from running.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Name, type and text of each file that the page loads.
const PARTS: [(&str, &str, &str); 6] = [
    (
        "style.css",
        "text/css; charset=utf-8",
        include_str!("dashboard/style.css"),
    ),
    ("main.js", SCRIPT, include_str!("dashboard/main.js")),
    ("numbers.js", SCRIPT, include_str!("dashboard/numbers.js")),
    ("page.js", SCRIPT, include_str!("dashboard/page.js")),
    ("changes.js", SCRIPT, include_str!("dashboard/changes.js")),
    ("explain.js", SCRIPT, include_str!("dashboard/explain.js")),
];
const SCRIPT: &str = "text/javascript; charset=utf-8";

pub(super) async fn page() -> Response {
    file("text/html; charset=utf-8", include_str!("dashboard/page.html"))
}

/// Serves a file that the page loads.
pub(super) async fn part(Path(name): Path<String>) -> Response {
    match PARTS.iter().find(|(known, ..)| *known == name) {
        Some((_, kind, text)) => file(kind, text),
        None => problem::not_found().await.into_response(),
    }
}

pub(super) fn file(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        // The page belongs to the binary, and the next binary may have another page.
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}

#[cfg(test)]
mod tests;
