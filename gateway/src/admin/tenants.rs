//! `GET /api/v1/tenants`: the tenants of the config, the key file and seen tokens, their limits, and what is left of
//! each.
//!
//! Tenants that a limit refused most often in the last minute come first, then the busiest. Callers without credentials
//! are the tenant `anonymous`, which has one bucket per address and so no balance.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Value, json};

use super::history::{Counted, Of};
use super::list_query::{ListQuery, Page};
use super::state::Admin;
use crate::auth::caller::ANONYMOUS;
use crate::clock::{self, Now};
use crate::header_fields;
use crate::limits::kinds::Terms;
use crate::limits::owner::{Owner, OwnerKey};
use crate::limits::{Limit, Per};
use crate::observe::TenantMetrics;
use crate::plan::Plan;
use crate::plan::own_settings::{OF_EACH, OwnSettings};
use crate::setting::{Location, SettingId};
use crate::tenancy::record::TenantRecord;

/// Largest number of limits shown for one tenant.
const MOST_LIMITS: usize = 20;

#[derive(Serialize)]
pub(super) struct Entry<'a> {
    name: &'a str,
    /// Place in the tenants table, or of its first key in the key file; `null` for another tenant.
    at: Option<&'a Location>,
    /// One tier, unless its keys have several.
    tiers: Vec<&'a str>,
    /// Whether every request is refused.
    disabled: bool,
    /// Number of keys that are accepted now.
    api_keys: usize,
    requests: Requests,
    /// Limits of its tiers, then each limit of a route that is counted per tenant.
    limits: Vec<LimitView<'a>>,
}

/// Requests since the start.
#[derive(Default, Serialize)]
struct Requests {
    total: u64,
    /// Rejected by a limit.
    limited: u64,
    /// Rejected or failed by the gateway for another reason.
    rejected: u64,
    /// Rejected or failed, by reason.
    by_reason: BTreeMap<&'static str, u64>,
    /// Rejected by a limit, by the strictest limit that refused.
    by_limit: BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct LimitView<'a> {
    name: &'a str,
    /// `null` for a limit of a tier.
    route: Option<&'a str>,
    /// Path of the setting that the terms come from.
    setting: Option<Cow<'a, str>>,
    /// Place in the config or in the file of tenants; `null` for a built-in tier.
    at: Option<Location>,
    kind: &'static str,
    /// Burst of a bucket, limit of a window or period, or largest number of requests at once.
    most: u64,
    /// Rate at which the limit refills; `null` for a quota and for requests in flight.
    per_second: Option<f64>,
    /// Whole tokens left, or number of further requests that are admitted.
    balance: u64,
    /// Time until the quota's next period; `null` for other limits.
    resets_in_seconds: Option<u64>,
}

/// Facts about a tenant, without the state of its limits.
#[derive(Default)]
pub(super) struct Known {
    pub(super) tiers: BTreeSet<Arc<str>>,
    api_keys: usize,
    metrics: Option<Arc<TenantMetrics>>,
}

pub(super) async fn show(State(admin): State<Arc<Admin>>, query: ListQuery) -> Json<Value> {
    Json(list(&admin, &query))
}

pub(super) fn list(admin: &Admin, query: &ListQuery) -> Value {
    let (plan, tenants) = (
        admin.gateway.live.load(),
        &admin.gateway.state.observer.registry.tenants,
    );
    let known = known(&plan, tenants.all());
    let texts =
        |(name, known): &(&Arc<str>, &Known)| query.finds(known.tiers.iter().chain([*name]).map(|text| &**text));
    let mut names: Vec<_> = known.iter().filter(texts).collect();
    names.sort_by_cached_key(|(name, known)| {
        let counted = known
            .metrics
            .as_deref()
            .map_or_else(Counted::default, Counted::of_tenant);
        std::cmp::Reverse(admin.history.recent(Of::Tenants, name, counted).urgency())
    });
    let now = clock::Now::read();
    let listed = names.len();
    let Page {
        entries,
        total,
        next_offset,
    } = query.page(names);
    let mut entries: Vec<_> = entries
        .into_iter()
        .map(|(name, known)| json!(entry(&plan, name, known, now, None)))
        .collect();
    // Tenants of the file without keys and requests come last, in an order of their own.
    let Some(part) = &plan.tiers.directory else {
        return json!({ "tenants": entries, "total": total, "next_offset": next_offset, "not_counted": tenants.unlisted() });
    };
    let (mut place, mut more) = (listed, Vec::new());
    part.tenants.each(|name, record| {
        let is_wanted = || query.finds([name].into_iter().chain(record.tier.as_deref()));
        if !known.contains_key(name) && is_wanted() {
            if query.shows(place) {
                more.push((Arc::<str>::from(name), of_record(&plan, record)));
            }
            place += 1;
        }
    });
    entries.extend(
        more.iter()
            .map(|(name, known)| json!(entry(&plan, name, known, now, None))),
    );
    let (total, next_offset) = (place, query.next(place));
    json!({ "tenants": entries, "total": total, "next_offset": next_offset, "not_counted": tenants.unlisted() })
}

/// Returns what is known of a tenant of the file that has neither keys nor requests.
fn of_record(plan: &Plan, record: &TenantRecord) -> Known {
    let tier = record.tier.as_ref().unwrap_or(&plan.tiers.default.name);
    Known {
        tiers: BTreeSet::from([Arc::clone(tier)]),
        ..Known::default()
    }
}

/// Returns what is known of one tenant.
pub(super) fn known_tenant(admin: &Admin, plan: &Plan, name: &str) -> Option<Known> {
    let mut known = known(plan, admin.gateway.state.observer.registry.tenants.all());
    let record = || plan.tiers.record(name);
    known.remove(name).or_else(|| Some(of_record(plan, &*record()?)))
}

pub(super) fn known(plan: &Plan, seen: Vec<Arc<TenantMetrics>>) -> BTreeMap<Arc<str>, Known> {
    let mut all: BTreeMap<Arc<str>, Known> = BTreeMap::new();
    for (name, written) in &plan.tiers.tenants {
        all.entry(Arc::clone(name))
            .or_default()
            .tiers
            .extend(written.tier.iter().map(|tier| Arc::clone(&tier.name)));
    }
    let unix_now = clock::unix_seconds();
    let keys = plan.authenticator.api_keys();
    for key in keys.as_ref().map(|keys| keys.all()).unwrap_or_default() {
        let known = all.entry(Arc::clone(&key.tenant)).or_default();
        known.api_keys += usize::from(key.is_live(unix_now));
        let record = plan.tiers.record(&key.tenant);
        if let Some(tier) = plan.tiers.tier_of(&key.tenant, record.as_deref()) {
            known.tiers.insert(Arc::clone(&tier.name));
        } else {
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

/// Returns what is shown of a tenant. Without `own`, the lines of its entry in the file of tenants are not looked for.
pub(super) fn entry<'a>(
    plan: &'a Plan,
    name: &'a str,
    known: &'a Known,
    now: Now,
    own: Option<&OwnSettings<'_>>,
) -> Entry<'a> {
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
        disabled: plan.tiers.record(name).is_some_and(|record| record.disabled)
            || plan
                .tiers
                .tenants
                .get(name)
                .is_some_and(|written| written.disabled.is_some()),
        api_keys: known.api_keys,
        requests: metrics.map_or_else(Requests::default, |metrics| Requests {
            total: metrics.requests(),
            limited: metrics.limited(),
            rejected: metrics.rejected(),
            by_reason: metrics
                .refused()
                .into_iter()
                .map(|(reason, count)| (reason.as_str(), count))
                .collect(),
            by_limit: metrics.limits().map(|(name, count)| (name.to_owned(), count)).collect(),
        }),
        limits: if name == ANONYMOUS {
            Vec::new()
        } else {
            limits(plan, name, known, now, own)
        },
    }
}

fn limits<'a>(
    plan: &'a Plan,
    tenant: &str,
    known: &'a Known,
    now: Now,
    own: Option<&OwnSettings<'_>>,
) -> Vec<LimitView<'a>> {
    let owner = Owner::Tenant(tenant).key();
    let of_tiers = known
        .tiers
        .iter()
        .filter_map(|name| plan.tiers.by_name.get(name))
        .flat_map(|tier| &tier.allowances);
    let record = plan.tiers.record(tenant);
    let record = record.as_deref();
    let of_tiers = of_tiers.filter_map(|allowance| {
        let terms = allowance.of(owner, record)?;
        Some((&*allowance.limit, None, allowance.setting_of(owner, record), terms))
    });
    let of_routes = plan
        .listed
        .iter()
        .flat_map(|route| route.limits.iter().map(move |limit| (&*route.name, limit)))
        .filter(|(_, limit)| limit.limit.per == Per::Tenant)
        .map(|(route, limit)| (&*limit.limit, Some(route), limit.limit.setting, limit.terms));
    // A tenant of two tiers has one count for a limit that both have.
    let mut seen: Vec<(&str, Option<&str>)> = Vec::new();
    of_tiers
        .chain(of_routes)
        .filter(|(limit, route, ..)| {
            let is_new = !seen.contains(&(&*limit.name, *route));
            seen.push((&limit.name, *route));
            is_new
        })
        .take(MOST_LIMITS)
        .map(|(limit, route, setting, terms)| {
            let mut view = view(plan, limit, route, setting, terms, owner, now);
            let of_tenant = view.setting.as_deref().and_then(|path| match own {
                Some(own) => own.find(Some(tenant), path),
                None => Some((format!("tenants.{tenant}.{}", path.strip_prefix(OF_EACH)?), None)),
            });
            if let Some((setting, at)) = of_tenant {
                (view.setting, view.at) = (Some(setting.into()), at.or(view.at.take()));
            }
            view
        })
        .collect()
}

fn view<'a>(
    plan: &'a Plan,
    limit: &'a Limit,
    route: Option<&'a str>,
    setting: SettingId,
    terms: Terms,
    owner: OwnerKey,
    now: Now,
) -> LimitView<'a> {
    let setting = plan.settings.get(setting);
    LimitView {
        name: &limit.name,
        route,
        setting: setting.map(|setting| Cow::from(&*setting.path)),
        at: setting.and_then(|setting| setting.at.clone()),
        kind: terms.kind().as_str(),
        most: terms.most(),
        per_second: terms.per_second(),
        balance: limit.table.balance(owner, terms, now),
        resets_in_seconds: terms.renewed_in(now).map(header_fields::whole_seconds),
    }
}

#[cfg(test)]
mod tests;
