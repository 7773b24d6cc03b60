//! What probes and scrapers ask for.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::Admin;
use crate::observe::page;
use crate::server::Phase;

/// Whether this is what probes ask for, which is answered whoever asks and whatever else is going on.
pub(super) fn is_probe(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz")
}

/// The control thread turns.
pub(super) async fn live() -> &'static str {
    "live\n"
}

/// Whether new requests should be sent here.
pub(super) async fn ready(State(admin): State<Arc<Admin>>) -> Response {
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

pub(super) async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    (
        [(CONTENT_TYPE, page::CONTENT_TYPE)],
        admin.gateway.state.observer.registry.render(),
    )
        .into_response()
}
