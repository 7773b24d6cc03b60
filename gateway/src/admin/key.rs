//! `/api/v1/keys/{key}` and `POST /api/v1/tenants/{tenant}/keys`: makes API keys, and changes their entries in the key
//! file.
//!
//! POST answers with the key itself, once: only its digest is kept. PATCH merges (RFC 7396) and DELETE takes the entry
//! out. A change is in force for the next request, and the file has it before the answer is sent.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use axum::response::Response;
use serde_json::{Map, Value};

use super::change::{self, Terms};
use super::list_query::NoParameters;
use super::problem::Problem;
use super::state::Admin;
use super::tenants;
use super::token::MayChangeKeys;
use crate::auth::api_key::format;
use crate::auth::api_key::keys::{ApiKey, digest_of};
use crate::auth::caller::is_tenant_name;
use crate::control::changes::keys::{change as change_key, read, settable, tag};
use crate::control::changes::{Changed, Order};
use crate::control::notices;

pub(super) async fn show(
    _: NoParameters,
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let plan = admin.gateway.live.load();
    let keys = plan.authenticator.api_keys().ok_or_else(change::absent)?;
    let key = keys
        .all()
        .iter()
        .find(|key| *key.id == *id)
        .ok_or_else(change::absent)?;
    let shown = super::keys::shown(&admin, key);
    Ok(change::answer(StatusCode::OK, Some(&tag(key)), shown))
}

/// Makes a key for a tenant.
pub(super) async fn add(
    MayChangeKeys(by): MayChangeKeys,
    terms: Terms,
    State(admin): State<Arc<Admin>>,
    Path(tenant): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = match body {
        Ok(body) if body.is_empty() => Map::new(),
        body => change::object(body)?,
    };
    let mut wanted = Map::new();
    change::merge(&mut wanted, body);
    if !is_tenant_name(&tenant) {
        let why = "A tenant's name has 1 to 128 characters, no control characters, and is not `anonymous`.";
        return Err(Problem::bad_value(why.to_owned()));
    }
    let plan = admin.gateway.live.load();
    if plan.tenants.is_some() && tenants::known_tenant(&admin, &plan, &tenant).is_none() {
        return Err(change::absent());
    }
    let no_randomness = |_| {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "no_randomness",
            "The system has no randomness to make a key of",
            "Try again; nothing was changed.",
        )
    };
    let id = match wanted.remove("id") {
        None => format::make_id(&tenant).map_err(no_randomness)?,
        Some(Value::String(id)) if format::is_id(&id) => id,
        Some(_) => {
            let why = format!("id: use 1 to {} letters, digits and hyphens.", format::MAX_ID);
            return Err(Problem::bad_value(why));
        }
    };
    let secret = format::issue(&id).map_err(no_randomness)?;
    let digest = digest_of(secret.as_bytes());
    let order = terms.by(by);
    let is_trial = order.is_trial;
    let of = id.clone();
    let made = change::make(&admin, move |running| {
        change_key(running, &of, &order, &|before| {
            if before.is_some() {
                return Err(vec![format!("`id`: there is a key `{of}` already")]);
            }
            read(&of, &tenant, &digest, &wanted).map(Some)
        })
    })
    .await?;
    tell(&admin, &id, &made, is_trial);
    let mut shown = view_of(&admin, &made);
    shown["dry_run"] = is_trial.into();
    shown["diff"] = made.lines.into();
    if !is_trial {
        shown["secret"] = secret.into();
    }
    let status = if is_trial { StatusCode::OK } else { StatusCode::CREATED };
    let mut response = change::answer(status, made.after.as_ref().map(tag).as_deref(), shown);
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

pub(super) async fn patch(
    MayChangeKeys(by): MayChangeKeys,
    terms: Terms,
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let patch = change::object(body)?;
    make(&admin, id, terms.by(by), move |before| {
        let mut wanted = settable(before);
        change::merge(&mut wanted, patch.clone());
        read(&before.id, &before.tenant, &before.digest, &wanted).map(Some)
    })
    .await
}

pub(super) async fn delete(
    MayChangeKeys(by): MayChangeKeys,
    terms: Terms,
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    make(&admin, id, terms.by(by), |_| Ok(None)).await
}

async fn make(
    admin: &Arc<Admin>,
    id: String,
    order: Order,
    wanted: impl Fn(&ApiKey) -> Result<Option<ApiKey>, Vec<String>> + Send + Sync + 'static,
) -> Result<Response, Problem> {
    let (is_trial, of) = (order.is_trial, id.clone());
    let made = change::make(admin, move |running| {
        change_key(running, &of, &order, &|before| before.map_or(Ok(None), &wanted))
    })
    .await?;
    tell(admin, &id, &made, is_trial);
    let mut shown = view_of(admin, &made);
    shown["dry_run"] = is_trial.into();
    shown["diff"] = made.lines.into();
    Ok(change::answer(
        StatusCode::OK,
        made.after.as_ref().map(tag).as_deref(),
        shown,
    ))
}

fn tell(admin: &Admin, id: &str, made: &Changed<ApiKey>, is_trial: bool) {
    if !is_trial && !made.lines.is_empty() {
        notices::announce_key(&admin.gateway.state, id, made.after.as_ref());
    }
}

fn view_of(admin: &Admin, made: &Changed<ApiKey>) -> Value {
    let key = made.after.as_ref().or(made.before.as_ref());
    let mut shown = key.map_or(Value::Null, |key| super::keys::shown(admin, key));
    if made.after.is_none() {
        shown["deleted"] = true.into();
    }
    shown
}
