//! Shows what the limits that replicas share cost in exactness and in calls of the store.

use std::fmt::Write as _;
use std::num::NonZeroU32;
use std::time::Duration;

use policies::LeaseTerms;

use crate::limits::kinds::Terms;
use crate::limits::leased;
use crate::limits::owner::Owner;
use crate::plan::Plan;
use crate::setting::SettingId;

/// Numbers of replicas that are shown where none is asked for.
const REPLICAS: [NonZeroU32; 3] = [
    NonZeroU32::MIN,
    NonZeroU32::new(3).unwrap(),
    NonZeroU32::new(10).unwrap(),
];

/// Most limits that are shown.
const MOST: usize = 100;

/// Numbers of one limit, each kind in the field's words.
struct Row {
    lease: LeaseTerms,
    /// Tokens a second; `None` where they are not earned evenly.
    rate: Option<f64>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tokens,
    /// A count that is never exceeded.
    Quota,
    /// Slots, with the heartbeat.
    Slots(Duration),
}

/// Returns a line for each limit that is counted in the store, for each number of replicas.
pub(super) fn lines(plan: &Plan, replicas: Option<NonZeroU32>) -> Vec<String> {
    let mut found: Vec<(SettingId, Terms)> = Vec::new();
    let mut tiers: Vec<_> = plan.tiers.by_name.values().collect();
    tiers.sort_by_key(|tier| tier.number);
    for allowance in tiers.iter().flat_map(|tier| &tier.allowances) {
        found.extend(allowance.usual.map(|terms| (allowance.limit.setting, terms)));
    }
    let mut tenants: Vec<_> = plan.tiers.tenants.iter().collect();
    tenants.sort_by_key(|(name, _)| *name);
    for (name, written) in tenants {
        let owner = Owner::Tenant(name).key();
        let tier = written.tier.as_ref().unwrap_or(&plan.tiers.default);
        let own = tier
            .allowances
            .iter()
            .filter_map(|allowance| allowance.named.get(&owner));
        found.extend(own.map(|own| (own.setting, own.terms)));
    }
    let of_routes = plan.listed.iter().flat_map(|route| route.limits.iter());
    found.extend(of_routes.map(|limit| (limit.limit.setting, limit.terms)));
    let mut seen = Vec::new();
    let mut named = Vec::new();
    for (setting, terms) in found {
        let Some(row) = Row::of(&terms) else { continue };
        if !seen.contains(&setting) {
            seen.push(setting);
            named.push((path(plan, setting), row));
        }
    }
    if named.is_empty() {
        return Vec::new();
    }
    let left_out = named.len().saturating_sub(MOST);
    named.truncate(MOST);
    let asked = replicas.map(|replicas| [replicas]);
    let replicas: &[NonZeroU32] = asked.as_ref().map_or(&REPLICAS, |asked| asked);
    let widest = named.iter().map(|(path, _)| path.len()).max().unwrap_or_default();
    let mut lines = vec![format!(
        "{:widest$}  replicas  a lease  on lease  of burst  calls/s",
        "limit"
    )];
    for (path, row) in &named {
        for (number, replicas) in replicas.iter().enumerate() {
            let path = if number == 0 { path } else { "" };
            lines.push(row.line(path, widest, *replicas));
        }
    }
    if left_out > 0 {
        lines.push(format!("and {left_out} more"));
    }
    lines
}

fn path(plan: &Plan, setting: SettingId) -> String {
    let found = plan.settings.get(setting);
    found.map_or_else(String::new, |setting| setting.path.to_string())
}

impl Row {
    fn of(terms: &Terms) -> Option<Self> {
        let (lease, kind) = match terms {
            Terms::LeasedBucket(terms) => (terms.lease, Kind::Tokens),
            Terms::LeasedWindow(terms) => (terms.lease, Kind::Tokens),
            Terms::LeasedCalendar(terms) => (terms.lease, Kind::Quota),
            Terms::LeasedSlots(terms) => (terms.lease, Kind::Slots(leased::heartbeat(terms.lease.time()))),
            Terms::Bucket(_) | Terms::Window(_) | Terms::Calendar(_) | Terms::InFlight(_) => return None,
        };
        let rate = terms.per_second();
        Some(Self { lease, rate, kind })
    }

    fn line(&self, path: &str, widest: usize, replicas: NonZeroU32) -> String {
        let bound = self.lease.bound(self.rate.unwrap_or_default(), replicas);
        let lease = match bound.lease {
            0 => "exact".to_owned(),
            lease => lease.to_string(),
        };
        let mut line = format!("{path:widest$}  {replicas:>8}  {lease:>7}  ");
        let _ = match self.kind {
            Kind::Tokens => write!(
                line,
                "{:>8}  {:>6.1} %  {:>7.1}",
                bound.on_lease, bound.percent_of_burst, bound.calls_per_second
            ),
            // Nothing is admitted beyond it. What is on lease is refused to the callers of other replicas for a while.
            Kind::Quota => write!(line, "{:>8}  {:>8}  {:>7}", bound.on_lease, "never", ""),
            Kind::Slots(heartbeat) => write!(
                line,
                "{:>8}  {:>8}  {:>7.1}",
                bound.on_lease,
                "never",
                f64::from(replicas.get()) / heartbeat.as_secs_f64()
            ),
        };
        line.truncate(line.trim_end().len());
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::compile::test_plan;

    const CONFIG: &str = r#"listeners: { public: { address: "127.0.0.1:0" } }
callers: { anonymous: { by: client_address } }
limits_store: { redis: { url: "redis://127.0.0.1" } }
tiers:
  free: { in_flight: off }
  basic: { in_flight: off }
  premium: { quotas: { monthly: { limit: 1000, every: month } } }
  enterprise: { counted: local, in_flight: off }
tenants:
  acme: { tier: premium, rate: 300/s }
routes:
  all:
    match: { path: /all }
    access: { any_of: [anonymous] }
    limits: { own: { rate: 100/s, burst: 100, counted: exact }, here: { rate: 100/s, burst: 100, counted: local } }
    respond: { status: 204 }
"#;

    #[test]
    fn every_shared_limit_is_told_with_its_bound() {
        let plan = test_plan::plan(CONFIG, &test_plan::state());
        let lines = lines(&plan, None);
        assert_eq!(
            lines,
            [
                "limit                         replicas  a lease  on lease  of burst  calls/s",
                "tiers.free                           1        2         2    10.0 %      5.0",
                "                                     3    exact         0     0.0 %     10.0",
                "                                    10    exact         0     0.0 %     10.0",
                "tiers.basic                          1       10        10    10.0 %      5.6",
                "                                     3        3         9     9.0 %     16.7",
                "                                    10        1        10    10.0 %     50.0",
                "tiers.premium                        1       40        40    10.0 %      5.7",
                "                                     3       13        39     9.8 %     16.7",
                "                                    10        4        40    10.0 %     50.0",
                "tiers.premium.in_flight              1       40        40     never      1.0",
                "                                     3       13        39     never      3.0",
                "                                    10        4        40     never     10.0",
                "tiers.premium.quotas.monthly         1      100       100     never",
                "                                     3       33        99     never",
                "                                    10       10       100     never",
                "tenants.acme                         1       40        40    10.0 %      8.6",
                "                                     3       13        39     9.8 %     25.0",
                "                                    10        4        40    10.0 %     75.0",
                "routes.all.limits.own                1    exact         0     0.0 %    100.0",
                "                                     3    exact         0     0.0 %    100.0",
                "                                    10    exact         0     0.0 %    100.0",
            ]
        );
        let asked = super::lines(&plan, NonZeroU32::new(3));
        assert_eq!(asked.len(), 8);
    }
}
