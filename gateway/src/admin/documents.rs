//! `GET /docs/{page}`: the pages of the documentation that an operator needs while something is wrong, as plain text.
//!
//! They are a part of the binary, so they describe this version and need no network.

use axum::extract::Path;
use axum::response::{IntoResponse, Response};

use super::{dashboard, problem};

/// Name and text of each page.
const PAGES: [(&str, &str); 13] = [
    ("refusals.md", include_str!("../../docs/refusals.md")),
    ("operations.md", include_str!("../../docs/operations.md")),
    ("resilience.md", include_str!("../../docs/resilience.md")),
    ("limits.md", include_str!("../../docs/limits.md")),
    ("tenants.md", include_str!("../../docs/tenants.md")),
    ("aggregation.md", include_str!("../../docs/aggregation.md")),
    ("compression.md", include_str!("../../docs/compression.md")),
    ("cache.md", include_str!("../../docs/cache.md")),
    ("idempotency.md", include_str!("../../docs/idempotency.md")),
    ("discovery.md", include_str!("../../docs/discovery.md")),
    ("metrics.md", include_str!("../../docs/metrics.md")),
    ("usage.md", include_str!("../../docs/usage.md")),
    ("upgrade.md", include_str!("../../docs/upgrade.md")),
];

pub(super) async fn page(Path(name): Path<String>) -> Response {
    match PAGES.iter().find(|(known, _)| *known == name) {
        Some((_, text)) => dashboard::file("text/plain; charset=utf-8", text),
        None => problem::not_found().await.into_response(),
    }
}

#[cfg(test)]
mod tests;
