//! `POST /api/v1/diff`: what another config would decide differently from the one in force.
//!
//! Takes the token for changes, because the answer shows settings, and comparing takes time. The files that the other
//! config names are read on this machine. No secret is shown: contents of files and secrets are only told apart.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use serde::Deserialize;

use super::body_limit::MAX_BODY;
use super::list_query::NoParameters;
use super::problem::Problem;
use super::state::Admin;
use super::token::Authorised;
use crate::config::Invalid;
use crate::diff::{Difference, Side, compare};
use crate::files::FileSet;
use crate::json;

/// Path of comparisons in the admin API.
pub(super) const LINK: &str = "/api/v1/diff";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Other {
    /// Text of the config; left out, the config file as it is now.
    config: Option<String>,
}

/// `POST /api/v1/diff` with `{"config": "..."}`, or with `{}` for the config file as it is now.
pub(super) async fn post(
    _: Authorised,
    _: NoParameters,
    State(admin): State<Arc<Admin>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Difference>, Problem> {
    let body = body.map_err(|error| Problem::bad_value(error.to_string()))?;
    let Other { config } = json::typed(&body, MAX_BODY)
        .map_err(|error| Problem::bad_value(format!("The body is {{\"config\": \"...\"}} or {{}}: {error}.")))?;
    let (plan, path) = (admin.gateway.live.load(), admin.gateway.reloader.path().to_owned());
    let difference = tokio::task::spawn_blocking(move || {
        let written = plan.written.files.iter().chain(&plan.written.revocations);
        let files: FileSet = written.map(|(path, version)| (path.clone(), version.clone())).collect();
        let old = Side::of_text(&path, &plan.written.text, files)?;
        let new = match config {
            Some(text) => Side::of_text(&path, &text, FileSet::new())?,
            None => Side::read(&path)?,
        };
        Ok::<_, Box<Invalid>>(compare(&old, &new))
    });
    match difference.await {
        Ok(Ok(difference)) => Ok(Json(difference)),
        Ok(Err(invalid)) => Err(refused(&invalid)),
        Err(_) => Err(Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "The configs could not be compared",
            "The log says why.",
        )),
    }
}

fn refused(invalid: &Invalid) -> Problem {
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "config_invalid",
        "The config has mistakes",
        "",
    )
    .detail(invalid.render(false))
}
