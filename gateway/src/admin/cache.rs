//! Shows and empties the store of answers.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::body_limit::MAX_BODY;
use super::list_query::NoParameters;
use super::problem::Problem;
use super::state::Admin;
use super::token::Authorised;
use crate::cache::AnswerStore;
use crate::json;
use crate::observe::{CacheResult, Family, RouteMetrics};

/// Size of the store.
#[derive(Serialize)]
pub(super) struct StoredAnswers {
    bytes: u64,
    max_bytes: u64,
    answers: usize,
    /// Tenants that share the store now.
    tenants: usize,
    /// Answers removed to make room.
    evicted: u64,
}

impl StoredAnswers {
    pub(super) fn of(store: &AnswerStore) -> Self {
        let size = store.size();
        Self {
            bytes: size.bytes,
            max_bytes: size.most,
            answers: size.entries,
            tenants: size.tenants,
            evicted: size.evicted,
        }
    }
}

/// Requests of a route by how the cache took part.
#[derive(Serialize)]
pub(super) struct Cached {
    hits: u64,
    stale: u64,
    revalidated: u64,
    misses: u64,
    collapsed: u64,
    bypassed: u64,
}

impl Cached {
    /// Counts the requests of a route, or with [`Family::CachePartRequests`] the calls of its parts.
    pub(super) fn of(route: &RouteMetrics, family: Family) -> Self {
        let count = |result| route.count(family, result);
        Self {
            hits: count(CacheResult::Hit),
            stale: count(CacheResult::Stale),
            revalidated: count(CacheResult::Revalidated),
            misses: count(CacheResult::Miss),
            collapsed: count(CacheResult::Collapsed),
            bypassed: count(CacheResult::Bypass),
        }
    }
}

/// Answers that are to be removed: exactly one member.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Purge {
    route: Option<String>,
    uri: Option<String>,
    all: Option<bool>,
}

/// `POST /api/v1/cache/purge` with `{"route": "NAME"}`, `{"uri": "/path?query"}` or `{"all": true}`: removes stored
/// answers of this process. Answers with their number.
pub(super) async fn purge(
    _: Authorised,
    _: NoParameters,
    State(admin): State<Arc<Admin>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Problem> {
    let body = body.map_err(|error| Problem::bad_value(error.to_string()))?;
    let wrong = |why: &dyn std::fmt::Display| {
        Problem::bad_value(format!(
            "The body is {{\"route\": \"NAME\"}}, {{\"uri\": \"/path?query\"}} or {{\"all\": true}}: {why}."
        ))
    };
    let purge: Purge = json::typed(&body, MAX_BODY).map_err(|error| wrong(&error))?;
    let responses = &admin.gateway.state.responses;
    let purged = match purge {
        Purge {
            route: Some(route),
            uri: None,
            all: None,
        } => {
            let plan = admin.gateway.live.load();
            if !plan.listed.iter().any(|listed| *listed.name == *route) {
                return Err(Problem::new(
                    StatusCode::NOT_FOUND,
                    "no_such_route",
                    "There is no route of this name",
                    "/api/v1/routes lists them.",
                ));
            }
            responses.purge_route(&route)
        }
        Purge {
            route: None,
            uri: Some(uri),
            all: None,
        } => {
            let (host, target) = split(&uri).ok_or_else(|| wrong(&"the URI is a path, or a URL with http or https"))?;
            responses.purge_uri(host.as_deref(), target)
        }
        Purge {
            route: None,
            uri: None,
            all: Some(true),
        } => responses.purge_all(),
        _ => return Err(wrong(&"one of them")),
    };
    tracing::info!(purged, "stored answers were removed through the admin API");
    Ok(Json(json!({ "purged": purged })))
}

/// Splits a URI into its host, if it names one, and path and query.
fn split(uri: &str) -> Option<(Option<String>, &str)> {
    if uri.starts_with('/') {
        return Some((None, uri));
    }
    let rest = uri.strip_prefix("http://").or_else(|| uri.strip_prefix("https://"))?;
    let (host, target) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let target = if target.is_empty() { "/" } else { target };
    Some((Some(host.to_ascii_lowercase()), target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_names_a_host_or_any() {
        let check = |uri: &str, expected: Option<(Option<&str>, &str)>| {
            let expected = expected.map(|(host, target)| (host.map(str::to_owned), target));
            assert_eq!(split(uri), expected, "{uri}");
        };
        check("/a?b", Some((None, "/a?b")));
        check("https://Shop.example/a?b", Some((Some("shop.example"), "/a?b")));
        check("http://h:80", Some((Some("h:80"), "/")));
        check("a", None);
        check("ftp://h/a", None);
    }
}
