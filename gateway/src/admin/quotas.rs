//! `POST /api/v1/tenants/{tenant}/quotas/{quota}` with `{"used": 0}`: sets how much of a quota a tenant has used in the
//! current period, and answers with the new state.
//!
//! Use it to give credit after an outage, or to correct a count after a wrong clock. `?route=NAME` selects a limit of
//! that route that is counted per tenant. The new count is kept in the state file as any count is. One that replicas
//! share is set in the store, and every replica gives back what it has on lease of it within a second.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use policies::CalendarQuota;
use policies::lease::UsedReply;
use serde::Deserialize;
use serde_json::{Value, json};

use super::body_limit::MAX_BODY;
use super::problem::Problem;
use super::state::Admin;
use super::tenants::{self, Known};
use super::token::MayChangeKeys;
use crate::auth::caller::ANONYMOUS;
use crate::clock::Now;
use crate::control::notices;
use crate::limits::kinds::{Account, Terms};
use crate::limits::owner::Owner;
use crate::limits::store::Origin;
use crate::limits::{Limit, Per};
use crate::plan::Plan;
use crate::store::{Answer, Trouble};
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
    _: MayChangeKeys,
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
    let known = tenants::known_tenant(&admin, &plan, &tenant)
        .filter(|_| tenant != ANONYMOUS)
        .ok_or_else(no_such_tenant)?;
    let (limit, terms) = find(&plan, &tenant, &known, &quota, route.as_deref()).ok_or_else(no_such_quota)?;
    let (name, account) = (
        Arc::clone(&limit.metrics.name),
        limit.table.account(Owner::Tenant(&tenant), terms, Origin::Written),
    );
    let (set, terms) = match account {
        Account::Calendar(count, terms) => {
            // Otherwise the amount that was set aside would be added when the clock jumps.
            state.accounts.set_aside.forget(&name, &count.owner);
            let now = Now::read();
            let was = count.usage.set(&terms, now.wall, used);
            let balance = count.usage.balance(&terms, now.wall);
            let set = Set {
                was,
                balance,
                on_lease: 0,
                resets_in: count.usage.ends_in(&terms, now.wall),
            };
            (set, terms)
        }
        Account::LeasedCalendar(count, terms) => {
            let store = state.shared_store.get().ok_or_else(no_such_quota)?;
            let command = count.set_used(&terms, used);
            let reply = match store.execute(vec![command]).await.pop() {
                Some(Ok(Answer::Used(reply))) => reply,
                Some(Err(trouble)) => return Err(not_set(trouble)),
                _ => return Err(not_set(Trouble::Unexpected)),
            };
            // This replica and the others give back what they have on lease, and ask the store again.
            let UsedReply { was, on_lease, left } = reply;
            let now = Now::read();
            count.recall(left, now);
            let end = terms.own.every().end(now.wall).elapsed();
            notices::announce_quota(state, &name, &tenant, left, end.as_secs());
            let set = Set {
                was,
                balance: left,
                on_lease,
                resets_in: end.saturating_sub(now.wall.elapsed()),
            };
            (set, terms.own)
        }
        _ => return Err(no_such_quota()),
    };
    let Set {
        was,
        balance,
        on_lease,
        resets_in,
    } = set;
    tracing::info!(tenant, quota, route, was, used, "a quota's count was set");
    Ok(Json(json!({
        "tenant": tenant,
        "quota": quota,
        "route": route,
        "was_used": was,
        "used": used,
        "on_lease": on_lease,
        "most": terms.limit(),
        "balance": balance,
        "resets_in_seconds": header_fields::whole_seconds(resets_in),
    })))
}

/// Answer to a change of a quota's count.
struct Set {
    was: u64,
    balance: u64,
    /// Tokens that replicas hold. They count on top until they come back.
    on_lease: u64,
    resets_in: Duration,
}

/// Finds the quota in the tenant's tiers or in the route, and the terms of the tenant.
fn find<'a>(
    plan: &'a Plan,
    tenant: &str,
    known: &Known,
    quota: &str,
    route: Option<&str>,
) -> Option<(&'a Limit, Terms)> {
    let owner = Owner::Tenant(tenant).key();
    let calendar = |limit: &'a Limit, terms| match terms {
        Terms::Calendar(_) | Terms::LeasedCalendar(_) if *limit.name == *quota => Some((limit, terms)),
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
            let record = plan.tiers.record(tenant);
            let mut allowances = tiers.flat_map(|tier| &tier.allowances);
            allowances.find_map(|allowance| calendar(&allowance.limit, allowance.of(owner, record.as_deref())?))
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

fn not_set(trouble: Trouble) -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "limits_store_down",
        "The shared store does not say that the count is set",
        "Read the balance, and set the count again: that changes nothing if it was set.",
    )
    .detail(format!("The trouble is: {trouble}. /api/v1/status says more."))
}

#[cfg(test)]
mod tests;
