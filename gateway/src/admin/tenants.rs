//! `GET /api/v1/tenants`: whom the config and the key file name and who has come with a token, what they may take, and
//! what they have left.
//!
//! The busiest first, and at most as many as asked for. Callers without credentials are the tenant `anonymous`, which
//! has a bucket for each address and so no balance of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use policies::{Moment, Quota};
use serde::Serialize;
use serde_json::{Value, json};

use super::Admin;
use super::page_size::PageSize;
use crate::clock;
use crate::config::Location;
use crate::intake::buckets::{Owner, Table};
use crate::intake::caller::ANONYMOUS;
use crate::intake::limits::Per;
use crate::observe::TenantMetrics;
use crate::plan::Plan;

/// Of one tenant.
const MOST_LIMITS: usize = 20;

#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    /// In the tenants table, or of its first key in the key file; `null` for a tenant known from tokens alone.
    at: Option<&'a Location>,
    /// One, unless its keys are of several.
    tiers: Vec<&'a str>,
    /// Keys that hold now.
    api_keys: usize,
    requests: Requests,
    /// Its bucket in each tier, then in each limit of a route that is counted per tenant.
    limits: Vec<LimitView<'a>>,
}

/// Since the start.
#[derive(Default, Serialize)]
struct Requests {
    total: u64,
    /// Refused by a limit.
    limited: u64,
    /// Refused or failed by the gateway for another reason.
    rejected: u64,
}

#[derive(Serialize)]
struct LimitView<'a> {
    name: &'a str,
    /// `null` for the limit of a tier.
    route: Option<&'a str>,
    /// Where it stands in the config; `null` for a built-in tier.
    at: Option<&'a Location>,
    per_second: f64,
    burst: u64,
    /// Whole tokens left.
    balance: u64,
}

/// What is known of a tenant before its buckets are looked at.
#[derive(Default)]
struct Known {
    tiers: BTreeSet<Arc<str>>,
    api_keys: usize,
    metrics: Option<Arc<TenantMetrics>>,
}

pub(super) async fn show(State(admin): State<Arc<Admin>>, size: PageSize) -> Json<Value> {
    Json(list(&admin, size))
}

pub(super) fn list(admin: &Admin, PageSize(most): PageSize) -> Value {
    let (plan, tenants) = (
        admin.gateway.live.load(),
        &admin.gateway.state.observer.registry.tenants,
    );
    let known = known(&plan, tenants.all());
    let mut names: Vec<_> = known.iter().collect();
    let requests = |known: &Known| known.metrics.as_ref().map_or(0, |metrics| metrics.requests());
    names.sort_by_key(|(_, known)| std::cmp::Reverse(requests(known)));
    let now = clock::now();
    let entries: Vec<_> = names
        .iter()
        .take(most)
        .map(|(name, known)| entry(&plan, name, known, now))
        .collect();
    json!({ "tenants": entries, "total": names.len(), "not_counted": tenants.unlisted() })
}

fn known(plan: &Plan, seen: Vec<Arc<TenantMetrics>>) -> BTreeMap<Arc<str>, Known> {
    let mut all: BTreeMap<Arc<str>, Known> = BTreeMap::new();
    for (name, tier) in &plan.tiers.tenants {
        all.entry(Arc::clone(name))
            .or_default()
            .tiers
            .extend(tier.iter().map(|tier| Arc::clone(&tier.name)));
    }
    let unix_now = clock::unix_seconds();
    for key in plan.doorman.api_keys().map(|keys| keys.all()).unwrap_or_default() {
        let known = all.entry(Arc::clone(&key.tenant)).or_default();
        known.api_keys += usize::from(key.is_live(unix_now));
        if !matches!(plan.tiers.tenants.get(&key.tenant), Some(Some(_))) {
            known
                .tiers
                .insert(Arc::clone(key.tier.as_ref().unwrap_or(&plan.tiers.default.name)));
        }
    }
    for metrics in seen {
        let known = all.entry(Arc::clone(&metrics.name)).or_default();
        if known.tiers.is_empty() {
            known.tiers.insert(metrics.tier());
        }
        known.metrics = Some(metrics);
    }
    for known in all.values_mut().filter(|known| known.tiers.is_empty()) {
        known.tiers.insert(Arc::clone(&plan.tiers.default.name));
    }
    all
}

fn entry<'a>(plan: &'a Plan, name: &'a str, known: &'a Known, now: Moment) -> Entry<'a> {
    let place = |setting: String| {
        plan.outline
            .is_written(&setting)
            .then(|| plan.outline.place(&setting))
            .flatten()
    };
    let metrics = known.metrics.as_ref();
    Entry {
        name,
        at: place(format!("tenants.{name}")).or_else(|| place(format!("keys.{name}"))),
        tiers: known.tiers.iter().map(|tier| &**tier).collect(),
        api_keys: known.api_keys,
        requests: metrics.map_or_else(Requests::default, |metrics| Requests {
            total: metrics.requests(),
            limited: metrics.limited(),
            rejected: metrics.rejected(),
        }),
        limits: if name == ANONYMOUS {
            Vec::new()
        } else {
            limits(plan, name, known, now)
        },
    }
}

fn limits<'a>(plan: &'a Plan, tenant: &str, known: &'a Known, now: Moment) -> Vec<LimitView<'a>> {
    let owner = Owner::Tenant(tenant).key();
    let view = |name, route, setting: &str, table: &Table, quota: Quota| LimitView {
        name,
        route,
        at: plan.outline.place(setting),
        per_second: 1.0 / quota.time_to_earn(1).as_secs_f64(),
        burst: quota.burst(),
        balance: table.balance(owner, now),
    };
    let tiers = known
        .tiers
        .iter()
        .filter_map(|name| plan.tiers.by_name.get(name))
        .map(|tier| {
            let setting = if tier.has_terms_for(tenant) {
                format!("tenants.{tenant}")
            } else {
                format!("tiers.{}", tier.name)
            };
            view(&tier.name, None, &setting, &tier.limit.table, tier.quotas.of(owner))
        });
    let of_routes = plan
        .listed
        .iter()
        .flat_map(|route| route.limits.iter().map(move |limit| (&*route.name, limit)));
    let per_tenant = of_routes
        .filter(|(_, limit)| limit.limit.per == Per::Tenant)
        .map(|(route, limit)| {
            let name = &*limit.limit.name;
            let setting = format!("routes.{route}.limits.{name}");
            view(name, Some(route), &setting, &limit.limit.table, limit.quota)
        });
    tiers.chain(per_tenant).take(MOST_LIMITS).collect()
}
