//! Compiles the store that processes share, and the terms of the limits that are counted in it.

use std::collections::BTreeMap;
use std::time::Duration;

use policies::{Every, Ratio};

use crate::config::{self, At, Code, Config, Counted, Mistake, Span};
use crate::limits::kinds::Terms;
use crate::limits::leased::WhenDown;
use crate::plan::compile::compiler::Compiler;
use crate::plan::compile::limits::all_quotas;
use crate::store::CentralTerms;
use crate::tenancy::own_terms::LeaseRule;

/// Whether a limit is counted in the store.
pub(super) fn is_shared(config: &Config, counted: Option<&At<Counted>>) -> bool {
    match counted {
        Some(counted) => **counted != Counted::Local,
        None => config.limits_store.is_some(),
    }
}

/// Returns the terms of a limit whose terms in one process are `own`; the same if it is not counted in the store. `at` is
/// where the limit is written.
pub(super) fn terms(
    compiler: &mut Compiler<'_>,
    path: &str,
    counted: Option<&At<Counted>>,
    at: Option<Span>,
    own: Terms,
) -> Option<Terms> {
    if !is_shared(compiler.config, counted) {
        return Some(own);
    }
    let Some(store) = &compiler.config.limits_store else {
        let counted = counted?;
        compiler.mistake(
            Mistake::new(
                Code::MissingKey,
                counted.span(),
                format!("`{path}` is to be counted by all processes together, and there is no store"),
            )
            .hint(
                "write `limits_store: { redis: { url: \"redis://host:6379\" } }` at the top, or `counted: local` here",
            ),
        );
        return None;
    };
    let config::LimitsStore {
        // Compiled in `store`.
        redis: _,
        call_limit: _,
        // Read in `rule`.
        lease_share: _,
        when_down: _,
        lease_time,
    } = store;
    let central = match own {
        Terms::Bucket(quota) => CentralTerms::Bucket(quota),
        Terms::Window(quota) => CentralTerms::Window(quota),
        Terms::Calendar(quota) => CentralTerms::Calendar(quota),
        Terms::InFlight(cap) => CentralTerms::Slots(cap),
        Terms::LeasedBucket(_) | Terms::LeasedWindow(_) | Terms::LeasedCalendar(_) | Terms::LeasedSlots(_) => {
            return Some(own);
        }
    };
    if !central.are_exact() {
        let most = match own {
            Terms::Window(_) => format!("windows of {:?} or more", CentralTerms::SHORTEST_WINDOW),
            _ => format!(
                "buckets that fill within {} days",
                CentralTerms::LONGEST_FILL.as_secs() / 86_400
            ),
        };
        compiler.mistake(
            Mistake::new(Code::OutOfRange, at, format!("`{path}` cannot be counted in the store"))
                .label(format!("the store counts {most}"))
                .hint("write `counted: local`, so that each process counts alone"),
        );
        return None;
    }
    let period = match own {
        Terms::Window(quota) => Some(quota.window()),
        Terms::Calendar(quota) => Some(length(quota.every())),
        _ => None,
    };
    if let Some(period) = period
        && **lease_time * 4 > period
    {
        compiler.mistake(
            Mistake::new(
                Code::OverParent,
                lease_time.span().or(at),
                format!("`limits_store.lease_time` is too long for `{path}`"),
            )
            .label(format!("at most a quarter of its {period:?}"))
            .related(at, "is counted in it")
            .hint("shorten it, or write `counted: local` for the limit"),
        );
        return None;
    }
    Some(rule(store, counted).leased(own))
}

/// Returns how a limit is counted in the store; `None` if it is counted in each process.
pub(super) fn lease_rule(config: &Config, counted: Option<&At<Counted>>) -> Option<LeaseRule> {
    let store = config.limits_store.as_ref()?;
    is_shared(config, counted).then(|| rule(store, counted))
}

fn rule(store: &config::LimitsStore, counted: Option<&At<Counted>>) -> LeaseRule {
    let when_down = match *store.when_down {
        config::WhenDown::Bounded => WhenDown::Bounded,
        config::WhenDown::Open => WhenDown::Open,
        config::WhenDown::Closed => WhenDown::Closed,
    };
    LeaseRule {
        share: Ratio::new(store.lease_share.get()).unwrap_or(Ratio::ONE),
        time: *store.lease_time,
        when_down,
        is_exact: counted.is_some_and(|counted| **counted == Counted::Exact),
    }
}

const fn length(every: Every) -> Duration {
    const DAY: u64 = 86_400;
    Duration::from_secs(match every {
        Every::Minute => 60,
        Every::Hour => 3_600,
        Every::Day => DAY,
        Every::Week => 7 * DAY,
        Every::Month => 28 * DAY,
    })
}

/// Checks that a quota is counted in the same place everywhere, because a tenant has only one count for it.
pub(super) fn check_quotas(compiler: &mut Compiler<'_>) {
    let config = compiler.config;
    let mut first: BTreeMap<&str, (bool, Option<Span>)> = BTreeMap::new();
    for (owner, quotas) in all_quotas(config) {
        for (name, quota) in quotas.iter() {
            let is_shared = is_shared(config, quota.counted.as_ref());
            let at = quota.counted.as_ref().map_or(quota.limit.span(), At::span);
            let (seen, elsewhere) = *first.entry(name).or_insert((is_shared, at));
            if seen != is_shared {
                compiler.mistake(
                    Mistake::new(
                        Code::Conflict,
                        at,
                        format!("`{owner}.quotas.{name}` is counted in another place than elsewhere"),
                    )
                    .related(elsewhere, "here it is another")
                    .hint("write the same `counted` for both: a tenant has one count for each"),
                );
            }
        }
    }
}
