//! Answers probes and metrics scrapers.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use super::state::Admin;
use crate::clock;
use crate::observe::Format;
use crate::server::Phase;

/// Returns whether the path is a probe, which is answered without a token and without a place.
pub(super) fn is_probe(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz")
}

/// Answers as long as the control thread runs.
pub(super) async fn live() -> &'static str {
    "live\n"
}

/// Returns an issuer that still waits for its first keys. After the start this lasts at most the time of one fetch.
pub(super) fn awaited_issuer(admin: &Admin) -> Option<Arc<str>> {
    let (plan, uptime) = (
        admin.gateway.live.load(),
        admin.gateway.state.observer.registry.uptime(clock::now()),
    );
    let mut issuers = plan.authenticator.issuers().iter();
    let awaited = issuers.find(|issuer| {
        let patience = issuer.source().map(|source| source.freshness.timeout);
        patience.is_some_and(|patience| uptime < patience) && issuer.keys().status().is_awaited()
    });
    awaited.map(|issuer| Arc::clone(issuer.name()))
}

/// Answers whether new requests should be sent to this gateway.
pub(super) async fn ready(State(admin): State<Arc<Admin>>) -> Response {
    if admin.gateway.lifecycle.phase() == Phase::Serving
        && let Some(issuer) = awaited_issuer(&admin)
    {
        let text = format!("not ready: waiting for the keys of the issuer {issuer}\n");
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    }
    let lifecycle = &admin.gateway.lifecycle;
    let stopping = |what| {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{what}, {} requests in flight\n", lifecycle.requests()),
        )
    };
    match lifecycle.phase() {
        Phase::Serving => "ready\n".into_response(),
        Phase::Noticed => stopping("not ready: stopping soon, still accepting connections").into_response(),
        Phase::Draining | Phase::Cut => stopping("not ready: stopping, no new connections").into_response(),
    }
}

/// Renders one page at a time. Whatever else waits for this thread, probes above all, gets its turn between two pages,
/// however many are asked for at once. In OpenMetrics if `Accept` asks for it.
pub(super) async fn metrics(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Response {
    let accept = headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
    let format = Format::asked_for(&accept.collect::<Vec<_>>().join(","));
    let turn = admin.scrapes.acquire().await;
    let page = admin.gateway.state.observer.registry.render_as(format);
    tokio::task::yield_now().await;
    drop(turn);
    ([(CONTENT_TYPE, format.content_type()), (VARY, "accept")], page).into_response()
}

#[cfg(test)]
mod tests;
