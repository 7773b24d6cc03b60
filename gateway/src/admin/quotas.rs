//! `POST /api/v1/tenants/{tenant}/quotas/{quota}` with `{"used": 0}`: sets how much of a quota a tenant has used in the
//! current period, and answers with the new state.
//!
//! Use it to give credit after an outage, or to correct a count after a wrong clock. `?route=NAME` selects a limit of
//! that route that is counted per tenant. The new count is kept in the state file as any count is.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use policies::CalendarQuota;
use serde::Deserialize;
use serde_json::{Value, json};

use super::body_limit::MAX_BODY;
use super::problem::Problem;
use super::state::Admin;
use super::tenants::{self, Known};
use super::token::Authorised;
use crate::auth::caller::ANONYMOUS;
use crate::clock::Now;
use crate::limits::kinds::Terms;
use crate::limits::owner::Owner;
use crate::limits::store::Origin;
use crate::limits::{Limit, Per};
use crate::plan::Plan;
use crate::{header_fields, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Count {
    used: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfRoute {
    route: Option<String>,
}

pub(super) async fn set(
    _: Authorised,
    State(admin): State<Arc<Admin>>,
    Path((tenant, quota)): Path<(String, String)>,
    of_route: Result<Query<OfRoute>, QueryRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(OfRoute { route }) = of_route.map_err(|error| Problem::bad_value(error.to_string()))?;
    let body = body.map_err(|error| Problem::bad_value(error.to_string()))?;
    let Count { used } = json::typed(&body, MAX_BODY)
        .map_err(|error| Problem::bad_value(format!("The body is {{\"used\": 0}}: {error}.")))?;
    if used > CalendarQuota::MOST {
        let most = CalendarQuota::MOST;
        return Err(Problem::bad_value(format!("used: at most {most} is counted.")));
    }
    let (plan, state) = (admin.gateway.live.load(), &admin.gateway.state);
    let known = tenants::known(&plan, state.observer.registry.tenants.all());
    let known = known
        .get(&*tenant)
        .filter(|_| tenant != ANONYMOUS)
        .ok_or_else(no_such_tenant)?;
    let (limit, terms) = find(&plan, &tenant, known, &quota, route.as_deref()).ok_or_else(no_such_quota)?;
    let terms = Terms::Calendar(terms);
    let account = limit.table.account(Owner::Tenant(&tenant), terms, Origin::Written);
    let (count, terms) = account.as_calendar().ok_or_else(no_such_quota)?;
    // Otherwise the amount that was set aside would be added when the clock jumps.
    state.accounts.set_aside.forget(&limit.metrics.name, &count.owner);
    let now = Now::read();
    let was = count.usage.set(terms, now.wall, used);
    tracing::info!(tenant, quota, route, was, used, "a quota's count was set");
    Ok(Json(json!({
        "tenant": tenant,
        "quota": quota,
        "route": route,
        "was_used": was,
        "used": used,
        "most": terms.limit(),
        "balance": count.usage.balance(terms, now.wall),
        "resets_in_seconds": header_fields::whole_seconds(count.usage.ends_in(terms, now.wall)),
    })))
}

/// Finds the quota in the tenant's tiers or in the route, and the terms of the tenant.
fn find<'a>(
    plan: &'a Plan,
    tenant: &str,
    known: &Known,
    quota: &str,
    route: Option<&str>,
) -> Option<(&'a Limit, CalendarQuota)> {
    let owner = Owner::Tenant(tenant).key();
    let calendar = |limit: &'a Limit, terms| match terms {
        Terms::Calendar(terms) if *limit.name == *quota => Some((limit, terms)),
        _ => None,
    };
    match route {
        Some(name) => {
            let route = plan.listed.iter().find(|route| *route.name == *name)?;
            let per_tenant = route.limits.iter().filter(|limit| limit.limit.per == Per::Tenant);
            per_tenant
                .filter_map(|limit| calendar(&limit.limit, limit.terms))
                .next()
        }
        None => {
            let tiers = known.tiers.iter().filter_map(|name| plan.tiers.by_name.get(name));
            let mut allowances = tiers.flat_map(|tier| &tier.allowances);
            allowances.find_map(|allowance| calendar(&allowance.limit, allowance.of(owner)?))
        }
    }
}

fn no_such_tenant() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "no_such_tenant",
        "No such tenant",
        "/api/v1/tenants lists them: those that the config and the key file name, and those that have come with a token.",
    )
}

fn no_such_quota() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "no_such_quota",
        "The tenant has no such quota",
        "/api/v1/tenants lists its limits; one of a route is named with ?route=NAME, and only those of kind quota have a count.",
    )
}

#[cfg(test)]
mod tests;
