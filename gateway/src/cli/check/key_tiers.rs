//! Finds tenants whose keys are in different tiers. They have a bucket in each tier, so their rates add up.

use std::collections::{BTreeMap, BTreeSet};

use crate::auth::api_key::keys::ApiKey;
use crate::config::{Config, Rate};

/// Returns a line for each such tenant, sorted by name: its tiers, their rates, and the sum. Keys that are never
/// accepted again do not count.
pub(super) fn in_several(keys: &[ApiKey], config: &Config, unix_now: u64) -> Vec<String> {
    let mut tiers: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for key in keys {
        let is_over = key.disabled || key.expires.is_some_and(|at| at <= unix_now);
        // A tenant with a tier in the tenants table has only that tier.
        let is_placed = config
            .tenants
            .get(&key.tenant)
            .is_some_and(|terms| terms.tier.is_some());
        if is_over || is_placed {
            continue;
        }
        let tier = key.tier.as_deref().unwrap_or(config.default_tier.as_str());
        tiers.entry(&key.tenant).or_default().insert(tier);
    }
    tiers
        .into_iter()
        .filter(|(_, tiers)| tiers.len() > 1)
        .map(|(tenant, tiers)| line(tenant, &tiers, config))
        .collect()
}

fn line(tenant: &str, tiers: &BTreeSet<&str>, config: &Config) -> String {
    let own = config.tenants.get(tenant).and_then(|terms| terms.rate.as_ref());
    let rates: Vec<(&str, Rate)> = tiers
        .iter()
        .filter_map(|tier| Some((*tier, own.or(config.tiers.get(tier).map(|tier| &tier.rate.rate))?.value)))
        .collect();
    let each: Vec<_> = rates.iter().map(|(tier, rate)| format!("{tier} {rate}")).collect();
    let sum: f64 = rates
        .iter()
        .map(|(_, rate)| rate.count.get() as f64 / rate.per.as_secs_f64())
        .sum();
    // Three decimals show even a rate per day.
    let sum = format!("{sum:.3}");
    let sum = sum.trim_end_matches('0').trim_end_matches('.');
    format!("{tenant}: {} = {sum}/s", each.join(" + "))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;

    const CONFIG: &str = r#"
listeners: { public: { address: "127.0.0.1:0" } }
tiers: { slow: { rate: 90/min, burst: 5 } }
tenants: { placed: { tier: premium }, special: { rate: 7/s } }
routes: { r: { match: { path: /r }, respond: { status: 204 } } }
"#;

    #[test]
    fn rates_add_up_over_tiers() {
        let loaded = config::parse("gateway.yaml", CONFIG, Path::new("."), &|_| None).unwrap();
        let key = |tenant: &str, tier: Option<&str>| ApiKey {
            id: tenant.into(),
            tenant: tenant.into(),
            digest: [0; 32],
            tier: tier.map(Into::into),
            scopes: Box::new([]),
            label: None,
            not_before: None,
            expires: None,
            disabled: false,
        };
        let keys = [
            key("acme", None),
            key("acme", Some("slow")),
            key("acme", Some("basic")),
            key("one", Some("slow")),
            key("one", Some("slow")),
            key("placed", Some("slow")),
            key("placed", Some("free")),
            key("special", Some("free")),
            key("special", Some("basic")),
            ApiKey {
                disabled: true,
                ..key("off", Some("basic"))
            },
            key("off", None),
            ApiKey {
                expires: Some(1000),
                ..key("past", Some("basic"))
            },
            key("past", None),
        ];
        assert_eq!(
            in_several(&keys, &loaded.config, 1000),
            [
                "acme: basic 50/s + free 10/s + slow 90/min = 61.5/s",
                "special: basic 7/s + free 7/s = 14/s"
            ]
        );
    }
}
