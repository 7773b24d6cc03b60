//! Shows the external service that knows the callers, and forgets its answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use policies::breaker;
use serde::Serialize;
use serde_json::{Value, json};

use super::list_query::NoParameters;
use super::problem::Problem;
use super::state::Admin;
use super::token::Authorised;
use crate::clock;
use crate::observe::timestamp::Timestamp;
use crate::plan::Plan;
use crate::plan::compile::external::SERVICE;

/// State of the external service.
#[derive(Serialize)]
pub(super) struct ExternalView {
    url: Option<Arc<str>>,
    /// State of its breaker; `null` if it is off.
    breaker: Option<&'static str>,
    /// Stored answers that name callers.
    callers: usize,
    /// Stored refusals.
    refusals: usize,
    /// Requests by how their answer was found.
    lookups: BTreeMap<&'static str, u64>,
    /// Questions by what came of them.
    questions: BTreeMap<&'static str, u64>,
    last_failure: Option<Failure>,
}

/// The newest failure to get an answer.
#[derive(Serialize)]
struct Failure {
    at: Timestamp,
    outcome: &'static str,
    detail: Arc<str>,
}

impl ExternalView {
    /// Returns `None` without an external service.
    pub(super) fn of(plan: &Plan) -> Option<Self> {
        let known = plan.authenticator.external()?.known();
        let backend = plan.backends.iter().find(|backend| *backend.name == *SERVICE);
        let (callers, refusals) = known.sizes();
        Some(Self {
            url: backend.and_then(|backend| Some(Arc::clone(&backend.written.all().first()?.origin.url))),
            breaker: backend.filter(|backend| backend.breaker_on).map(|backend| {
                match backend.guards.breaker.state(clock::now()) {
                    breaker::State::Closed | breaker::State::ForcedClosed => "closed",
                    breaker::State::HalfOpen => "half_open",
                    breaker::State::Open | breaker::State::ForcedOpen => "open",
                }
            }),
            callers,
            refusals,
            lookups: known
                .lookups()
                .map(|(result, count)| (result.as_str(), count))
                .collect(),
            questions: known
                .outcomes()
                .map(|(outcome, count)| (outcome.as_str(), count))
                .collect(),
            last_failure: known.last_failure().map(|failure| Failure {
                at: Timestamp(Duration::from_secs(failure.at)),
                outcome: failure.outcome.as_str(),
                detail: failure.detail,
            }),
        })
    }
}

/// `POST /api/v1/external/purge`: forgets all answers of the external service, also those that are under way. Answers
/// with the number of stored ones.
pub(super) async fn purge(
    _: Authorised,
    _: NoParameters,
    State(admin): State<Arc<Admin>>,
) -> Result<Json<Value>, Problem> {
    let plan = admin.gateway.live.load();
    let Some(external) = plan.authenticator.external() else {
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            "no_external_service",
            "There is no external service",
            "The config has no callers.external.",
        ));
    };
    let purged = external.known().purge();
    tracing::info!(
        purged,
        "answers of the external service were forgotten through the admin API"
    );
    Ok(Json(json!({ "purged": purged })))
}
