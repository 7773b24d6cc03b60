//! `/api/v1/tenants/{tenant}`: shows one tenant, and changes its entry in the file of tenants.
//!
//! PUT writes the whole entry, PATCH merges (RFC 7396) and DELETE takes the entry out. An entry has the names and values
//! of the file. A change is in force for the next request of the tenant, and the file has it before the answer is sent.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::change::{self, Terms};
use super::list_query::NoParameters;
use super::problem::Problem;
use super::state::Admin;
use super::token::MayChangeKeys;
use super::{rejections, tenants};
use crate::auth::caller::is_tenant_name;
use crate::clock;
use crate::control::changes::tenants::{Unusable, change as change_tenant, read, tag, view};
use crate::control::changes::{Changed, Order};
use crate::control::notices;
use crate::plan::own_settings::OwnSettings;
use crate::tenancy::record::TenantRecord;
use crate::usage::events;

/// Number of refusals that are shown of a tenant.
const NEWEST: usize = 10;

pub(super) async fn show(
    _: NoParameters,
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let plan = admin.gateway.live.load();
    let record = plan.tiers.record(&name);
    let known = tenants::known_tenant(&admin, &plan, &name).ok_or_else(change::absent)?;
    let own = OwnSettings::new(&plan);
    let shown = tenants::entry(&plan, &name, &known, clock::Now::read(), Some(&own));
    let mut shown = serde_json::to_value(shown).unwrap_or_default();
    let observer = &admin.gateway.state.observer;
    if observer.usage.is_on() {
        let (today, this_month) = observer.usage.of_tenant(&name).unwrap_or_default();
        shown["usage"] = json!({ "today": events::numbers(&today), "this_month": events::numbers(&this_month) });
    }
    let mut refused = observer.rejections.newest(usize::MAX);
    refused.retain(|recent| recent.tenant.as_deref() == Some(&*name));
    refused.truncate(NEWEST);
    let refused: Vec<_> = refused
        .into_iter()
        .map(|recent| rejections::placed(&own, recent))
        .collect();
    shown["rejections"] = json!(refused);
    if record.is_some() {
        shown["at"] = json!(own.place(&name, ""));
    }
    shown["record"] = record.as_deref().map_or(Value::Null, |record| view(record).into());
    Ok(change::answer(
        StatusCode::OK,
        record.as_deref().map(tag).as_deref(),
        shown,
    ))
}

pub(super) async fn put(
    MayChangeKeys(by): MayChangeKeys,
    terms: Terms,
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let mut wanted = Map::new();
    change::merge(&mut wanted, change::object(body)?);
    make(&admin, name, terms.by(by), move |name, _| read(name, &wanted).map(Some)).await
}

pub(super) async fn patch(
    MayChangeKeys(by): MayChangeKeys,
    terms: Terms,
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let patch = change::object(body)?;
    make(&admin, name, terms.by(by), move |name, before| {
        let Some(before) = before else { return Ok(None) };
        let mut wanted = view(before);
        change::merge(&mut wanted, patch.clone());
        read(name, &wanted).map(Some)
    })
    .await
}

pub(super) async fn delete(
    MayChangeKeys(by): MayChangeKeys,
    terms: Terms,
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    make(&admin, name, terms.by(by), |_, _| Ok(None)).await
}

async fn make(
    admin: &Arc<Admin>,
    name: String,
    order: Order,
    wanted: impl Fn(&str, Option<&TenantRecord>) -> Result<Option<TenantRecord>, Unusable> + Send + Sync + 'static,
) -> Result<Response, Problem> {
    if !is_tenant_name(&name) {
        let why = "A tenant's name has 1 to 128 characters, no control characters, and is not `anonymous`.";
        return Err(Problem::bad_value(why.to_owned()));
    }
    let (is_trial, of) = (order.is_trial, name.clone());
    let made = change::make(admin, move |running| {
        change_tenant(running, &of, &order, &|before| wanted(&of, before))
    })
    .await?;
    if !is_trial && !made.lines.is_empty() {
        notices::announce_tenant(&admin.gateway.state, &name, made.after.as_ref());
    }
    Ok(answer(&name, &made, is_trial))
}

fn answer(name: &str, made: &Changed<TenantRecord>, is_trial: bool) -> Response {
    let status = match (&made.before, is_trial) {
        (None, false) => StatusCode::CREATED,
        _ => StatusCode::OK,
    };
    let shown = json!({
        "name": name,
        "record": made.after.as_ref().map(view),
        "dry_run": is_trial,
        "diff": made.lines,
    });
    change::answer(status, made.after.as_ref().map(tag).as_deref(), shown)
}

/// `GET /api/v1/tenants/{tenant}/keys`: lists the keys of the tenant.
pub(super) async fn keys(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    query: super::list_query::ListQuery,
) -> Json<Value> {
    Json(super::keys::list(&admin, &query, Some(&name)))
}
