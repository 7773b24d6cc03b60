//! Compiles the response cache of routes and parts.

use std::time::Duration;

use http::HeaderName;

use crate::cache::freshness::DefaultTimes;
use crate::cache::responses::CacheTerms;
use crate::config::{self, At, Config};
use crate::plan::Target;
use crate::template::Placeholder;

/// Returns the memory for all stored answers, in bytes.
pub(super) fn stored_bytes(config: &Config) -> u64 {
    let config::Cache { max_bytes } = &config.cache;
    max_bytes.0
}

/// Whether anything is stored to be used again.
pub(super) fn has_any(config: &Config) -> bool {
    let has_part = |aggregate: &config::Aggregate| aggregate.parts.iter().any(|(_, part)| part.cache.is_some());
    config.routes.iter().any(|(_, route)| {
        let has_part = matches!(&route.target, config::Target::Aggregate(aggregate) if has_part(aggregate));
        route.cache.is_some() || has_part
    })
}

/// Compiles the cache of a route.
pub(super) fn compile(route: &config::Route, written: &config::RouteCache, target: Option<&Target>) -> CacheTerms {
    let names = made_fields(route).chain(target.into_iter().flat_map(read_fields));
    terms(written, names)
}

/// Compiles the cache of a part.
pub(super) fn of_part(route: Option<&config::Route>, part: &config::Part, written: &config::RouteCache) -> CacheTerms {
    let own = part.headers.iter();
    let own = own.filter_map(|(name, _)| HeaderName::from_bytes(name.as_bytes()).ok());
    terms(written, own.chain(route.into_iter().flat_map(made_fields)))
}

/// Compiles a cache whose answers vary with these fields, too.
fn terms(written: &config::RouteCache, names: impl Iterator<Item = HeaderName>) -> CacheTerms {
    let config::RouteCache {
        scope,
        ttl,
        stale_while_revalidate,
        stale_if_error,
        vary,
        caller_directives,
    } = written;
    let time = |time: &Option<At<Duration>>| time.as_ref().map(|time| time.value);
    let mut names: Vec<HeaderName> = vary.iter().map(|name| name.value.clone()).chain(names).collect();
    names.sort_by(|one, other| one.as_str().cmp(other.as_str()));
    names.dedup();
    CacheTerms {
        times: DefaultTimes {
            ttl: time(ttl),
            stale_while_revalidate: time(stale_while_revalidate),
            stale_if_error: time(stale_if_error),
        },
        shares_with_tenant: **scope == config::CacheScope::Tenant,
        heeds_callers: **caller_directives == config::CallerDirectives::Follow,
        vary: names.into(),
    }
}

/// Returns the fields that the rules of the route write for the backend. Their values may come from anything that is
/// known of the caller, so the backend may choose its answer by them.
fn made_fields(route: &config::Route) -> impl Iterator<Item = HeaderName> {
    let config::HeaderRules { rename, set, add, .. } = &route.headers.request;
    let written = set.iter().chain(add.iter());
    let filled = written.filter(|(_, value)| value.contains('{'));
    let filled = filled.filter_map(|(name, _)| HeaderName::from_bytes(name.as_bytes()).ok());
    filled.chain(rename.iter().map(|(_, name)| name.value.clone()))
}

/// Returns the fields of requests that an aggregate reads to make its calls.
fn read_fields(target: &Target) -> Vec<HeaderName> {
    let Target::Aggregate(aggregate) = target else {
        return Vec::new();
    };
    let used = aggregate.calls.iter().flat_map(|call| call.uses());
    let names = used.filter_map(|used| match used {
        Placeholder::Header(name) => Some(name.clone()),
        _ => None,
    });
    names.collect()
}
