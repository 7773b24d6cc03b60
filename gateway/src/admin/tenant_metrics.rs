//! Samples the metrics of tenants: of the busiest, and of those that the config names.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;

use crate::clock;
use crate::limits::owner::Owner;
use crate::observe::families::Family;
use crate::observe::tenants::Shown;
use crate::observe::{Page, TenantMetrics};
use crate::plan::Plan;

/// Adds the metrics of the tenants to the page.
pub(super) fn sample(plan: &Plan, seen: Vec<Arc<TenantMetrics>>, page: &mut Page) {
    let Some(shown) = &plan.metric_tenants else { return };
    for tenant in chosen(shown, seen) {
        let name = &*tenant.name;
        page.put(Family::TenantRequests, &[name], tenant.requests());
        for (reason, count) in tenant.refused() {
            page.put(Family::TenantRefusals, &[name, reason.as_str()], count);
        }
        for (limit, count) in tenant.limits() {
            page.put(Family::TenantLimitRefusals, &[name, limit], count);
        }
        let (owner, now) = (Owner::Tenant(name).key(), clock::Now::read());
        let record = plan.tiers.record(name);
        let tier = plan.tiers.by_name.get(&tenant.tier());
        for allowance in tier.into_iter().flat_map(|tier| &tier.allowances) {
            if let Some(terms) = allowance.of(owner, record.as_deref()) {
                let left = allowance.limit.table.balance(owner, terms, now);
                page.put(Family::TenantLimitRemaining, &[name, &allowance.limit.name], left);
            }
        }
    }
}

/// Returns the tenants that are shown: the busiest, and those that are named.
fn chosen(shown: &Shown, mut seen: Vec<Arc<TenantMetrics>>) -> Vec<Arc<TenantMetrics>> {
    seen.sort_by_cached_key(|tenant| (Reverse(tenant.requests()), Arc::clone(&tenant.name)));
    let named: HashSet<&str> = shown.names.iter().map(|name| &**name).collect();
    let mut place = 0;
    seen.retain(|tenant| {
        place += 1;
        place <= shown.top || named.contains(&*tenant.name)
    });
    seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Registry;
    use crate::observe::record::RequestRecord;

    #[test]
    fn the_busiest_and_the_named_are_shown() {
        let registry = Registry::default();
        for (name, requests) in [("a", 3), ("b", 9), ("c", 5), ("d", 1)] {
            let tenant = registry.tenants.find_or_add(name, "free");
            (0..requests).for_each(|_| tenant.count(&RequestRecord::default()));
        }
        let check = |top, names: &[&str], expected: &[&str]| {
            let shown = Shown {
                top,
                names: names.iter().map(|name| Arc::from(*name)).collect(),
            };
            let chosen = chosen(&shown, registry.tenants.all());
            let chosen: Vec<_> = chosen.iter().map(|tenant| &*tenant.name).collect();
            assert_eq!(chosen, expected);
        };
        check(2, &[], &["b", "c"]);
        check(1, &["d", "b", "unknown"], &["b", "d"]);
        check(0, &["a"], &["a"]);
        check(9, &[], &["b", "c", "a", "d"]);
    }
}
