//! What of a config the requests have reached: routes, tiers, limits that refused, and other settings that refused.
//!
//! A limit counts as reached once it has refused, made a request wait, or counted in shadow: only then has anything
//! depended on its numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Seen;
use crate::limits::Limit;
use crate::observe::{Decision, Family};
use crate::plan::Plan;
use crate::rejection::Reason;
use crate::setting::{Location, SettingId};

/// Settings that refuse connections, slow callers, or what depends on the load of the machine: virtual time has none of
/// these. Each is a path or the begin of one.
const OUT_OF_REACH: [&str; 10] = [
    "connection_limits.",
    "minimum_rates.",
    "overload",
    "time_limits.head",
    "time_limits.connect",
    "request_limits.json_total",
    "request_limits.parked_total",
    "callers.verifications",
    "callers.jwt.",
    "limits_store",
];

/// Something of a config that a test can reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub kind: Kind,
    /// Name of a route or tier, path of a setting.
    pub name: String,
    pub at: Option<Location>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Route,
    Tier,
    Limit,
    Refusal,
}

impl Kind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Tier => "tier",
            Self::Limit => "limit",
            Self::Refusal => "refusal",
        }
    }
}

/// Names that requests have reached.
#[derive(Debug, Clone, Default)]
pub struct Reached {
    routes: BTreeSet<Arc<str>>,
    tiers: BTreeSet<Arc<str>>,
    /// Paths of settings that have decided.
    settings: BTreeSet<String>,
}

impl Item {
    /// Says what no test has done.
    pub fn missing(&self) -> String {
        match self.kind {
            Kind::Route => format!("no test reaches the route `{}`", self.name),
            Kind::Tier => format!("no test has a caller of the tier `{}`", self.name),
            Kind::Limit => format!("in no test the limit `{}` refuses", self.name),
            Kind::Refusal => format!("in no test `{}` refuses", self.name),
        }
    }
}

impl Reached {
    pub fn has(&self, item: &Item) -> bool {
        match item.kind {
            Kind::Route => self.routes.contains(&*item.name),
            Kind::Tier => self.tiers.contains(&*item.name),
            Kind::Limit | Kind::Refusal => self.settings.contains(&item.name),
        }
    }

    pub fn add(&mut self, other: Self) {
        self.routes.extend(other.routes);
        self.tiers.extend(other.tiers);
        self.settings.extend(other.settings);
    }

    /// Notes what one request has reached.
    pub fn note(&mut self, seen: &Seen, plan: &Plan) {
        self.routes.extend(seen.route.clone());
        self.tiers.extend(seen.tier.clone());
        self.settings
            .extend(seen.decided.as_ref().map(|decided| decided.setting.clone()));
        // The refusal of an optional part, or one that a fallback has replaced, is not that of the request.
        for attempt in &seen.attempts {
            let backend = plan.backends.iter().find(|backend| *backend.name == *attempt.backend);
            let is = |reason: Reason| attempt.reason == Some(reason.as_str());
            let Some(ids) = backend.map(|backend| &backend.ids) else {
                continue;
            };
            let by = if is(Reason::BreakerOpen) {
                ids.breaker
            } else if is(Reason::BulkheadFull) {
                ids.bulkhead.slots
            } else if is(Reason::BulkheadTimeout) {
                ids.bulkhead.wait
            } else {
                continue;
            };
            self.settings.extend(path(plan, by));
        }
    }

    /// Notes the limits that have made requests wait, or would have refused them.
    pub fn note_uncounted(&mut self, plan: &Plan) {
        for (limit, setting) in limits(plan) {
            let counts = [Decision::Shadow, Decision::Delayed];
            let counts = counts.map(|decision| limit.metrics.count(Family::LimitDecisions, decision));
            if counts.iter().any(|count| *count > 0) {
                self.settings.extend(path(plan, setting));
            }
        }
    }
}

fn path(plan: &Plan, setting: SettingId) -> Option<String> {
    Some(plan.settings.get(setting)?.path.to_string())
}

/// Returns the limits of all tiers that callers can have, of all routes, and of failed authentications.
pub(super) fn limits(plan: &Plan) -> Vec<(&Limit, SettingId)> {
    let mut limits: Vec<(&Limit, SettingId)> = Vec::new();
    let used = tiers(plan);
    for (name, tier) in &plan.tiers.by_name {
        if !used.contains(&**name) {
            continue;
        }
        for allowance in &tier.allowances {
            if allowance.usual.is_some() {
                limits.push((&allowance.limit, allowance.limit.setting));
            }
            limits.extend(allowance.named.values().map(|own| (&*allowance.limit, own.setting)));
        }
    }
    let of_routes = plan.listed.iter().flat_map(|route| &route.limits);
    limits.extend(
        of_routes
            .chain(&plan.failures)
            .map(|limit| (&*limit.limit, limit.limit.setting)),
    );
    limits
}

/// Returns the names of all limits that can refuse.
pub fn limit_names(plan: &Plan) -> BTreeSet<&str> {
    let allowances = plan.tiers.by_name.values().flat_map(|tier| &tier.allowances);
    let of_tiers = allowances.map(|allowance| &*allowance.limit.name);
    let of_routes = plan.listed.iter().flat_map(|route| &route.limits);
    let others = of_routes.chain(&plan.failures).map(|limit| &*limit.limit.name);
    of_tiers.chain(others).collect()
}

/// Returns the tiers that the config writes, and those that a tenant or a key names, or that callers get by default.
fn tiers(plan: &Plan) -> BTreeSet<&str> {
    let is_written = |path: &str| plan.outline.is_written(path);
    let written = plan.tiers.by_name.keys().map(|name| &**name);
    let written = written.filter(|name| is_written(&format!("tiers.{name}")));
    let of_tenants = plan.tiers.tenants.values().filter_map(|written| written.tier.as_ref());
    let mut tiers: BTreeSet<&str> = written.chain(of_tenants.map(|tier| &*tier.name)).collect();
    if let Some(part) = &plan.tiers.directory {
        part.tenants.each_distinct(|_, record| {
            let tier = record.tier.as_ref().and_then(|name| plan.tiers.by_name.get(name));
            tiers.extend(tier.map(|tier| &*tier.name));
        });
    }
    let keys = plan.authenticator.api_keys();
    let keys = keys.as_ref().map_or(&[][..], |keys| keys.all());
    let of_default = &*plan.tiers.default.name;
    for key in keys {
        let record = plan.tiers.record(&key.tenant);
        if plan.tiers.tier_of(&key.tenant, record.as_deref()).is_none() {
            let named = key.tier.as_ref().and_then(|tier| plan.tiers.by_name.get(tier));
            tiers.insert(named.map_or(of_default, |tier| &*tier.name));
        }
    }
    let others = ["callers.basic", "callers.mtls", "callers.external"];
    if !plan.authenticator.issuers().is_empty() || others.into_iter().any(is_written) {
        tiers.insert(of_default);
    }
    tiers
}

/// Returns all that tests can reach, in the order of the config within each kind.
pub fn items(plan: &Plan) -> Vec<Item> {
    let place = |path: &str| plan.outline.place(path).cloned();
    let routes = plan.listed.iter().map(|route| Item {
        kind: Kind::Route,
        name: route.name.to_string(),
        at: place(&format!("routes.{}", route.name)),
    });
    let tiers = tiers(plan).into_iter().map(|name| Item {
        kind: Kind::Tier,
        name: name.to_owned(),
        at: place(&format!("tiers.{name}")),
    });
    let mut items: Vec<Item> = routes.chain(tiers).collect();
    let mut decide = BTreeMap::new();
    for (_, setting) in limits(plan) {
        if let Some(setting) = plan.settings.get(setting).filter(|setting| setting.is_written) {
            decide.insert(setting.path.to_string(), (Kind::Limit, setting.at.clone()));
        }
    }
    for (_, setting) in plan.settings.iter().filter(|(_, setting)| setting.is_written) {
        let of_limits = ["tiers.", "tenants."]
            .iter()
            .any(|begin| setting.path.starts_with(begin));
        let is_out = OUT_OF_REACH.iter().any(|begin| setting.path.starts_with(begin));
        if !of_limits && !is_out {
            let refusal = (Kind::Refusal, setting.at.clone());
            decide.entry(setting.path.to_string()).or_insert(refusal);
        }
    }
    items.extend(decide.into_iter().map(|(name, (kind, at))| Item { kind, name, at }));
    let line = |item: &Item| item.at.as_ref().map_or(usize::MAX, |at| at.line);
    items.sort_by_key(|item| (item.kind, line(item)));
    items
}
