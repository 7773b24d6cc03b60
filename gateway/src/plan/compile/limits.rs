//! Tiers, tenants and written limits -> tables of buckets and what each owner may take.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::Arc;

use policies::Quota;

use super::Desk;
use crate::config::{self, At, Code, Mistake, Rate};
use crate::intake::buckets::{Owner, Quotas};
use crate::intake::limits::{Limit, Mode, Per};
use crate::intake::tiers::{Tier, Tiers};
use crate::plan::RouteLimit;

/// All tables of buckets that a plan uses.
pub(super) struct Tables {
    pub(super) tiers: Arc<Tiers>,
    pub(super) failures: Option<RouteLimit>,
    /// What takes effect with the plan.
    pub(super) quotas: Vec<(Arc<str>, Quotas)>,
}

impl Tables {
    pub(super) fn compile(desk: &mut Desk<'_>) -> Option<Self> {
        let config = desk.config;
        let mut all_quotas = Vec::new();
        let mut by_name = HashMap::new();
        for (number, (name, tier)) in (0..).zip(config.tiers.iter()) {
            let path = format!("tiers.{name}");
            let Some(usual) = quota(desk, &path, &tier.rate, &tier.burst) else {
                continue;
            };
            let mut quotas = Quotas {
                usual,
                named: HashMap::new(),
            };
            for (tenant, terms) in config.tenants.iter() {
                if terms.rate.is_none() && terms.burst.is_none() {
                    continue;
                }
                let (rate, burst) = (
                    terms.rate.as_ref().unwrap_or(&tier.rate),
                    terms.burst.as_ref().unwrap_or(&tier.burst),
                );
                if let Some(own) = quota(desk, &format!("tenants.{tenant}"), rate, burst) {
                    quotas.name(Owner::Tenant(tenant).key(), own);
                }
            }
            let limit = Limit {
                name: Arc::clone(&name.value),
                per: Per::Tenant,
                mode: mode(*tier.mode),
                cost: 1,
                table: desk.state.buckets.table(name, &quotas),
                metrics: desk.state.observer.registry.limit(name),
            };
            all_quotas.push((Arc::clone(name), quotas.clone()));
            by_name.insert(
                Arc::clone(name),
                Arc::new(Tier::new(limit, number, *tier.weight, quotas)),
            );
        }
        let mut tenants = HashMap::new();
        for (tenant, terms) in config.tenants.iter() {
            let tier = terms
                .tier
                .as_ref()
                .and_then(|name| desk.resolve("tier", name, &config.tiers));
            tenants.insert(
                Arc::clone(tenant),
                tier.and_then(|(name, _)| by_name.get(&name.value).cloned()),
            );
        }
        desk.resolve("tier", &config.default_tier, &config.tiers);
        let failures = config.callers.failures.as_ref().and_then(|failures| {
            let (name, key): (Arc<str>, Arc<str>) = ("failures".into(), "callers.failures".into());
            written(
                desk,
                name,
                key,
                &failures.rate,
                &failures.burst,
                Per::ClientAddress,
                Mode::Enforce,
                1,
                &mut all_quotas,
            )
        });
        let default = by_name.get(config.default_tier.as_str()).cloned()?;
        let registry = Arc::clone(&desk.state.observer.registry);
        Some(Self {
            tiers: Arc::new(Tiers::new(by_name, default, tenants, registry)),
            failures,
            quotas: all_quotas,
        })
    }

    /// The limits of one route, in declared order. State goes by route and name: two routes share none.
    pub(super) fn of_route(
        &self,
        desk: &mut Desk<'_>,
        route: &str,
        written_limits: &config::Route,
    ) -> (Vec<RouteLimit>, Vec<(Arc<str>, Quotas)>) {
        let mut quotas = Vec::new();
        let limits = written_limits
            .limits
            .iter()
            .filter_map(|(name, limit)| {
                let key = format!("{route}/{name}").into();
                let cost = limit.cost.unwrap_or(written_limits.cost);
                let path = format!("routes.{route}.limits.{name}");
                check_cost(desk, &path, &cost, &limit.burst);
                written(
                    desk,
                    Arc::clone(name),
                    key,
                    &limit.rate,
                    &limit.burst,
                    per(*limit.per),
                    mode(*limit.mode),
                    cost.get(),
                    &mut quotas,
                )
            })
            .collect();
        (limits, quotas)
    }
}

#[expect(clippy::too_many_arguments, reason = "one limit as written, field by field")]
fn written(
    desk: &mut Desk<'_>,
    name: Arc<str>,
    key: Arc<str>,
    rate: &At<Rate>,
    burst: &At<NonZeroU64>,
    per: Per,
    mode: Mode,
    cost: u64,
    all_quotas: &mut Vec<(Arc<str>, Quotas)>,
) -> Option<RouteLimit> {
    let quota = quota(desk, &key, rate, burst)?;
    let quotas = Quotas {
        usual: quota,
        named: HashMap::new(),
    };
    let table = desk.state.buckets.table(&key, &quotas);
    let metrics = desk.state.observer.registry.limit(&key);
    all_quotas.push((key, quotas));
    Some(RouteLimit::new(
        Arc::new(Limit {
            name,
            per,
            mode,
            cost,
            table,
            metrics,
        }),
        quota,
    ))
}

fn quota(desk: &mut Desk<'_>, path: &str, rate: &At<Rate>, burst: &At<NonZeroU64>) -> Option<Quota> {
    Quota::new(rate.count.get(), rate.per, burst.get())
        .map_err(|error| {
            desk.mistake(
                Mistake::new(
                    Code::OutOfRange,
                    rate.span().or(burst.span()),
                    format!("`{path}` cannot be counted: {error}"),
                )
                .related(burst.span(), "with this burst"),
            );
        })
        .ok()
}

/// A request that costs more than a full bucket holds would never be admitted.
pub(super) fn check_cost(desk: &mut Desk<'_>, path: &str, cost: &At<NonZeroU64>, burst: &At<NonZeroU64>) {
    if cost.value > burst.value {
        desk.mistake(
            Mistake::new(
                Code::OverParent,
                cost.span().or(burst.span()),
                format!("a request costs {cost}, more than `{path}` ever holds"),
            )
            .related(burst.span(), format!("the burst is {burst}"))
            .hint("lower the cost or raise the burst"),
        );
    }
}

const fn mode(written: config::Mode) -> Mode {
    match written {
        config::Mode::Enforce => Mode::Enforce,
        config::Mode::Shadow => Mode::Shadow,
    }
}

const fn per(written: config::Per) -> Per {
    match written {
        config::Per::Tenant => Per::Tenant,
        config::Per::Caller => Per::Caller,
        config::Per::ClientAddress => Per::ClientAddress,
        config::Per::Route => Per::Route,
        config::Per::Global => Per::Global,
    }
}
