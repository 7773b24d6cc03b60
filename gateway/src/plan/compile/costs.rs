//! Checks that the cost of a request fits into every limit that it is charged to. A request that costs more than a
//! limit can hold would never be admitted.

use std::collections::HashSet;
use std::num::NonZeroU64;
use std::sync::Arc;

use crate::config::{self, At, Code, Config, Mistake, Quota, RateLimit, Tenant};
use crate::plan::compile::compiler::Compiler;

/// Largest number of further limits that are shown with a cost that is over several.
const SHOWN: usize = 8;

/// A limit that a request is charged to.
struct Charged {
    /// Path of the limit in the config.
    place: String,
    /// Maximum number of tokens that it holds.
    most: At<NonZeroU64>,
}

/// Checks a route's cost against the terms of every admitted tenant: its own terms, or those of its tier.
pub(super) fn check_route(compiler: &mut Compiler<'_>, name: &str, written: &config::Route) {
    // The default cost fits into every limit.
    if !written.cost.is_written() {
        return;
    }
    let mut seen = HashSet::new();
    let cost = &written.cost;
    let mut over = charged(compiler.config, &written.access);
    over.retain(|charged| cost.value > charged.most.value && seen.insert(charged.place.clone()));
    over.sort_by_key(|charged| charged.most.value);
    let Some(least) = over.first() else { return };
    let mut mistake = over_cost(&format!("{} (routes.{name})", least.place), cost, least.most);
    if over.len() > 1 {
        mistake
            .message
            .push_str(&format!(", and more than {} other limits hold", over.len() - 1));
        mistake.hint = Some(format!(
            "lower the cost to {}, or raise all of these limits to {cost}",
            least.most
        ));
        for charged in over.iter().skip(1).take(SHOWN) {
            mistake = mistake.related(charged.most.span(), format!("`{}` is {}", charged.place, charged.most));
        }
    }
    compiler.mistake(mistake);
}

/// Reports a mistake if `cost` is higher than `most`, the maximum that the limit holds.
pub(super) fn check(compiler: &mut Compiler<'_>, path: &str, cost: &At<NonZeroU64>, most: At<NonZeroU64>) {
    if cost.value > most.value {
        compiler.mistake(over_cost(path, cost, most));
    }
}

fn over_cost(path: &str, cost: &At<NonZeroU64>, most: At<NonZeroU64>) -> Mistake {
    Mistake::new(
        Code::OverParent,
        cost.span().or(most.span()),
        format!("a request costs {cost}, more than `{path}` ever holds"),
    )
    .related(most.span(), format!("this is {most}"))
    .hint(format!("lower the cost to {most}, or raise the limit to {cost}"))
}

/// Returns the maximum that one request can take from a rate.
pub(super) fn most_at_once(rate: &RateLimit) -> At<NonZeroU64> {
    rate.burst.unwrap_or_else(|| rate.rate.map(|rate| rate.count))
}

/// Returns the limits that the requests of all admitted tenants are charged to, by tier. The list can have duplicates.
fn charged<'c>(config: &'c Config, access: &'c config::Access) -> Vec<Charged> {
    let mut all = Vec::new();
    let tenant = |name: &'c str| config.tenants.entry(name).map(|(name, terms)| (&name.value, terms));
    // `None` stands for all tenants that the config does not name.
    let tenants: Vec<Option<(&Arc<str>, &Tenant)>> = match access.tenants.as_slice() {
        [] => {
            let written = config.tenants.iter().map(|(name, terms)| Some((&name.value, terms)));
            std::iter::once(None).chain(written).collect()
        }
        listed => listed.iter().map(|name| tenant(name)).collect(),
    };
    for (tier_name, tier) in config.tiers.iter() {
        if !access.tiers.is_empty() && !access.tiers.iter().any(|admitted| **admitted == *tier_name.value) {
            continue;
        }
        let of_tier = format!("tiers.{tier_name}");
        for tenant in &tenants {
            let own = tenant.map(|(_, terms)| terms);
            // A tenant with its own `tier` is in no other tier.
            let its_tier = own.and_then(|own| own.tier.as_ref());
            if its_tier.is_some_and(|its| **its != *tier_name.value) {
                continue;
            }
            let of_tenant = tenant.map(|(name, _)| format!("tenants.{name}")).unwrap_or_default();
            let (is_own, most) = rate_of(&tier.rate, own);
            all.push(Charged {
                place: if is_own { of_tenant.clone() } else { of_tier.clone() },
                most,
            });
            let quotas = own.iter().flat_map(|own| own.quotas.iter());
            all.extend(quotas.map(|(name, quota)| quota_at(&of_tenant, name, quota)));
            let quotas = tier.quotas.iter();
            let inherited = quotas.filter(|(name, _)| own.is_none_or(|own| own.quotas.get(name).is_none()));
            all.extend(inherited.map(|(name, quota)| quota_at(&of_tier, name, quota)));
        }
    }
    all
}

/// Returns the maximum that a tenant can take from its tier's rate at once, and whether the tenant's own terms set it.
fn rate_of(tier: &RateLimit, own: Option<&Tenant>) -> (bool, At<NonZeroU64>) {
    let own = match tier.burst {
        Some(_) => own.and_then(|own| own.burst),
        None => own.and_then(|own| own.rate).map(|rate| rate.map(|rate| rate.count)),
    };
    own.map_or_else(|| (false, most_at_once(tier)), |most| (true, most))
}

fn quota_at(whose: &str, name: &str, quota: &Quota) -> Charged {
    Charged {
        place: format!("{whose}.quotas.{name}"),
        most: quota.limit,
    }
}
