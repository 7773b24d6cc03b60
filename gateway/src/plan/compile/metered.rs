//! Compiles the cost of routes that is read from their answers.

use std::sync::Arc;

use crate::config::{self, At, Code, Config, Measure, MeasuredCost, Mistake, ReservedCost, Route};
use crate::metering::{Metering, Paths, Reserve};
use crate::plan::compile::compiler::Compiler;
use crate::plan::compile::limits::all_quotas;

/// Whether a quota of this name counts units that answers say: a route names it.
pub(super) fn counts_units(config: &Config, name: &str) -> bool {
    let measured = config
        .routes
        .iter()
        .filter_map(|(_, route)| route.measured_cost.as_ref());
    measured.flat_map(|cost| &cost.quotas).any(|quota| **quota == name)
}

/// Whether a limit of the route counts units: it has no cost of its own, and counts more than requests at once.
pub(super) fn limit_counts_units(route: &Route, limit: &config::Limit) -> bool {
    route.measured_cost.is_some() && limit.cost.is_none() && !matches!(limit.measure, Measure::InFlight(_))
}

/// Returns the least that every request of the route takes from its limits, as far as the config says it.
pub(super) fn least_cost(route: &Route) -> &At<std::num::NonZeroU64> {
    let measured = route.measured_cost.as_ref();
    let default = measured.and_then(|cost| cost.reserve.default.as_ref());
    default.unwrap_or(&route.cost)
}

/// Compiles how the route measures its requests; `None` if it does not.
pub(super) fn compile(compiler: &mut Compiler<'_>, name: &str, route: &Route) -> Option<Arc<Metering>> {
    let MeasuredCost {
        body,
        text,
        reserve,
        quotas,
    } = route.measured_cost.as_ref()?;
    let ReservedCost {
        bytes_per_unit,
        max,
        default,
        most,
        times,
    } = reserve;
    for quota in quotas {
        check_quota(compiler, quota);
    }
    warn_of_nothing_counted(compiler, name, route);
    let usage = body.iter().map(|path| path.value.0.clone());
    let texts = text.iter().map(|path| path.value.clone());
    Some(Arc::new(Metering {
        paths: Paths::new(usage, texts),
        reserve: Reserve {
            bytes_per_unit: std::num::NonZeroU64::new(**bytes_per_unit).unwrap_or(std::num::NonZeroU64::MIN),
            most: max.iter().map(|path| path.value.clone()).collect(),
            default: default.as_deref().copied(),
            ceiling: most.as_deref().copied(),
            times: times.iter().map(|path| path.value.clone()).collect(),
        },
        quotas: quotas.iter().map(|quota| quota.as_str().into()).collect(),
        setting: compiler.setting(&format!("routes.{name}.cost")),
    }))
}

/// Reports a quota that no tier and no tenant has.
fn check_quota(compiler: &mut Compiler<'_>, quota: &At<String>) {
    let config: &config::Config = compiler.config;
    let mut names: Vec<&str> = Vec::new();
    for (_, quotas) in all_quotas(config) {
        names.extend(quotas.iter().map(|(name, _)| &*name.value));
        if quotas.may_contain(quota) {
            return;
        }
    }
    if names.contains(&quota.as_str()) {
        return;
    }
    names.sort_unstable();
    names.dedup();
    let message = format!("there is no quota `{quota}`");
    let hint = match names.as_slice() {
        [] => "add it to a tier, as in `quotas: { units: { limit: 1000000, every: day } }`".to_owned(),
        all => format!("quotas of tiers and tenants are: `{}`", all.join("`, `")),
    };
    compiler.mistake(Mistake::new(Code::UnknownName, quota.span(), message).hint(hint));
}

/// Warns about units that no limit counts.
fn warn_of_nothing_counted(compiler: &mut Compiler<'_>, name: &str, route: &Route) {
    let Some(cost) = &route.measured_cost else { return };
    if !cost.quotas.is_empty() || route.limits.iter().any(|(_, limit)| limit_counts_units(route, limit)) {
        return;
    }
    let message = format!("what `routes.{name}.cost` measures is counted by no limit");
    let at = cost.body.first().and_then(At::span);
    compiler.warnings.push(Mistake::new(Code::Doubtful, at, message).hint(
        "write one, as in `limits: { units: { rate: 100000/min, burst: 100000 } }`; those of tiers count requests",
    ));
}
