//! Handles changes by an operator: reload the config, force a breaker, drain an endpoint or the process.
//!
//! Each handler takes [`Authorised`] first, so the token is checked before anything else is read or answered.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use policies::breaker::ForcedState;
use serde::Deserialize;
use serde_json::{Value, json};

use super::backends;
use super::body_limit::MAX_BODY;
use super::breaker::BreakerView;
use super::list_query::{NoParameters, only_parameter};
use super::problem::Problem;
use super::state::Admin;
use super::token::Authorised;
use crate::call::backend::Backend;
use crate::control::notices;
use crate::control::reload::canary_time;
use crate::plan::Plan;
use crate::server::Phase;
use crate::{clock, json};

/// `POST /api/v1/reload`: answers 422 with every mistake if the config cannot be used; then nothing has changed. With
/// `canary=60s`, the config before is put in force again if the answers get worse within this time.
pub(super) async fn reload(_: Authorised, uri: Uri, State(admin): State<Arc<Admin>>) -> Result<Json<Value>, Problem> {
    let canary = only_parameter(&uri, "canary")?;
    let canary = canary.map(|text| canary_time(&text).map_err(|why| Problem::bad_value(format!("canary: {why}."))));
    let reloader = &admin.gateway.reloader;
    let reloaded = match canary.transpose()? {
        Some(time) => reloader.reload_watched(time).await,
        None => reloader.reload().await,
    };
    match reloaded {
        Ok(generation) => Ok(Json(json!({ "generation": generation }))),
        Err(mistakes) => Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "config_invalid",
            "The config was not put in force; everything runs on as before",
            "",
        )
        .detail(mistakes.to_string())),
    }
}

/// `POST /api/v1/drain`: readiness fails, and the gateway stops as it does on SIGTERM.
pub(super) async fn drain(
    _: Authorised,
    _: NoParameters,
    State(admin): State<Arc<Admin>>,
) -> (StatusCode, Json<Value>) {
    let lifecycle = &admin.gateway.lifecycle;
    tracing::info!("drain asked for through the admin API");
    lifecycle.advance(Phase::Noticed);
    (
        StatusCode::ACCEPTED,
        Json(json!({ "phase": lifecycle.phase().as_str() })),
    )
}

/// Breaker state that an operator asks for.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Wanted {
    Open,
    Closed,
    /// The breaker decides by itself again, with new counts.
    Auto,
}

impl Wanted {
    const fn word(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::Auto => "auto",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Force {
    state: Wanted,
}

/// `POST /api/v1/backends/{name}/breaker` with `{"state": "open" | "closed" | "auto"}`: answers with the new state of
/// the breaker. All replicas that share a store follow.
pub(super) async fn force_breaker(
    _: Authorised,
    _: NoParameters,
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Problem> {
    let body = body.map_err(|error| Problem::bad_value(error.to_string()))?;
    let Force { state } = json::typed(&body, MAX_BODY).map_err(|error| {
        Problem::bad_value(format!(
            "The body is {{\"state\": \"open\"}}, \"closed\" or \"auto\": {error}."
        ))
    })?;
    let plan = admin.gateway.live.load();
    let backend = find(&plan, &name)?;
    if !backend.breaker_on {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "breaker_off",
            "This backend has no breaker",
            "The config turns it off: take `breaker: off` out of the backend and reload.",
        ));
    }
    let (breaker, now) = (&backend.guards.breaker, clock::now());
    backend.tell(match &state {
        Wanted::Open => breaker.force(ForcedState::Open, now),
        Wanted::Closed => breaker.force(ForcedState::Closed, now),
        Wanted::Auto => breaker.unforce(now),
    });
    notices::announce_breaker(&admin.gateway.state, &name, state.word());
    Ok(Json(json!({ "backend": name, "breaker": BreakerView::of(backend) })))
}

/// Use of an endpoint that an operator asks for.
#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Use {
    /// State of an endpoint that gets no new call.
    Drained,
    /// Probes and calls decide again.
    Auto,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Drain {
    address: SocketAddr,
    state: Use,
}

/// `POST /api/v1/backends/{name}/endpoints` with `{"address": "10.0.0.5:8080", "state": "drained" | "auto"}`: answers with
/// the endpoints of the backend. All replicas that share a store follow.
pub(super) async fn drain_endpoint(
    _: Authorised,
    _: NoParameters,
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Problem> {
    let body = body.map_err(|error| Problem::bad_value(error.to_string()))?;
    let Drain { address, state } = json::typed(&body, MAX_BODY).map_err(|error| {
        Problem::bad_value(format!(
            "The body is {{\"address\": \"10.0.0.5:8080\", \"state\": \"drained\"}} or \"auto\": {error}."
        ))
    })?;
    let plan = admin.gateway.live.load();
    let backend = find(&plan, &name)?;
    let found = backend.endpoints.registry().drain(address, state == Use::Drained);
    let found = found.ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            "no_such_endpoint",
            "No endpoint of this backend has this address",
            "/api/v1/backends lists them.",
        )
    })?;
    for (endpoint, _) in found.iter().filter(|(_, has_changed)| *has_changed) {
        let endpoint = &endpoint.name;
        match state {
            Use::Drained => tracing::warn!(backend = %name, %endpoint, "endpoint is drained"),
            Use::Auto => tracing::warn!(backend = %name, %endpoint, "endpoint is no longer drained"),
        }
    }
    let drained = backend.endpoints.registry().drained().into_iter();
    let urls: Vec<_> = drained
        .filter(|(_, other)| *other == address)
        .map(|(url, _)| url)
        .collect();
    notices::announce_drained(&admin.gateway.state, &name, address, &urls);
    Ok(Json(
        json!({ "backend": name, "endpoints": backends::endpoint_views(backend) }),
    ))
}

fn find<'p>(plan: &'p Plan, name: &str) -> Result<&'p Arc<Backend>, Problem> {
    plan.backends
        .iter()
        .find(|backend| *backend.name == *name)
        .ok_or_else(|| {
            Problem::new(
                StatusCode::NOT_FOUND,
                "no_such_backend",
                "No such backend",
                "/api/v1/backends lists them.",
            )
        })
}

#[cfg(test)]
mod tests;
