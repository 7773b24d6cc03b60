//! The requests by which two configs are compared: for each route a request by each of its paths and methods, from
//! callers of every tier, of every tenant that is named, and without credentials.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::pipeline::explain::Described;
use crate::plan::Plan;
use crate::plan::outline::MatchOutline;

/// Most samples of one kind for a route.
const MOST: usize = 8;
/// Most callers that are tried.
const MOST_CALLERS: usize = 64;
/// Host of a request where the route names none.
const NO_HOST: &str = "localhost";

/// A request without a caller.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sample {
    /// Route that it is made for.
    pub(super) route: Arc<str>,
    pub(super) method: String,
    host: String,
    /// Path and query.
    pub(super) target: String,
    headers: Vec<String>,
}

/// Who sends a request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Caller {
    Nobody,
    /// Any tenant of a tier.
    Tier(String),
    Tenant(String),
}

impl Sample {
    /// Returns `GET /path`, with the host if the route has one.
    pub(super) fn label(&self) -> String {
        let host = if self.host == NO_HOST { "" } else { &self.host };
        format!("{} {host}{}", self.method, self.target)
    }

    pub(super) fn described(&self, caller: &Caller) -> Described {
        let (tenant, tier) = match caller {
            Caller::Nobody => (None, None),
            Caller::Tier(tier) => (Some("any-tenant".to_owned()), Some(tier.clone())),
            Caller::Tenant(tenant) => (Some(tenant.clone()), None),
        };
        Described {
            method: Some(self.method.clone()),
            url: format!("http://{}{}", self.host, self.target),
            headers: self.headers.clone(),
            tenant,
            tier,
            ..Described::default()
        }
    }
}

impl Caller {
    pub(super) fn label(&self) -> String {
        match self {
            Self::Nobody => "a caller without credentials".to_owned(),
            Self::Tier(tier) => format!("tenants of tier {tier}"),
            Self::Tenant(tenant) => format!("tenant {tenant}"),
        }
    }
}

/// Returns the samples of all routes of a plan.
pub(super) fn samples(plan: &Plan) -> BTreeSet<Sample> {
    let routes = plan.outline.routes.iter();
    routes.flat_map(|route| of_route(&route.name, &route.matches)).collect()
}

fn of_route(route: &Arc<str>, matches: &MatchOutline) -> Vec<Sample> {
    let some = |list: &[String], otherwise: &str| match list.is_empty() {
        true => vec![otherwise.to_owned()],
        false => list.iter().take(MOST).cloned().collect(),
    };
    let paths = matches.paths.iter().map(|path| filled(path, matches));
    let prefixes = matches
        .prefixes
        .iter()
        .map(|prefix| format!("{}/a", filled(prefix, matches).trim_end_matches('/')));
    let query: Vec<_> = matches
        .query
        .iter()
        .map(|one| wanted(one, '=').replace(' ', "%20"))
        .collect();
    let headers: Vec<_> = matches.headers.iter().map(|one| wanted(one, ':')).collect();
    let mut samples = Vec::new();
    for path in paths.chain(prefixes).take(MOST) {
        for host in some(&matches.hosts, NO_HOST) {
            for method in some(&matches.methods, "GET") {
                samples.push(Sample {
                    route: Arc::clone(route),
                    method,
                    host: host.replace('*', "a"),
                    target: match query.is_empty() {
                        true => path.clone(),
                        false => format!("{path}?{}", query.join("&")),
                    },
                    headers: headers.clone(),
                });
            }
        }
    }
    samples
}

/// Returns a path that fits the pattern.
fn filled(pattern: &str, matches: &MatchOutline) -> String {
    let mut path = String::new();
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('{') {
        path.push_str(before);
        let Some((name, after)) = after.split_once('}') else {
            break;
        };
        let name = name.trim_start_matches('*');
        let fixed = matches
            .parameters
            .iter()
            .find_map(|one| one.strip_prefix(name)?.strip_prefix('='));
        path.push_str(match fixed {
            Some(value) if !value.starts_with('/') && value != "*" => value,
            _ => "1",
        });
        rest = after;
    }
    path + rest
}

/// Returns a condition with a value that is likely to fit.
fn wanted(condition: &str, between: char) -> String {
    match condition.split_once(between) {
        Some((name, value)) if matches!(value.trim(), "*" | "") => format!("{name}{between}x"),
        Some(_) => condition.to_owned(),
        None => format!("{condition}{between}x"),
    }
}

/// Returns the callers that either plan tells apart.
pub(super) fn callers(plans: [&Plan; 2]) -> Vec<Caller> {
    let mut tiers = BTreeSet::new();
    let mut tenants = BTreeSet::new();
    for plan in plans {
        tiers.extend(plan.tiers.by_name.keys().map(|name| name.to_string()));
        tenants.extend(plan.tiers.tenants.keys().map(|name| name.to_string()));
        let keys = plan.authenticator.api_keys();
        let keys = keys.as_ref().map_or(&[][..], |keys| keys.all());
        tenants.extend(keys.iter().map(|key| key.tenant.to_string()));
    }
    let all = [Caller::Nobody].into_iter();
    let all = all.chain(tiers.into_iter().map(Caller::Tier));
    let all = all.chain(tenants.into_iter().map(Caller::Tenant));
    all.take(MOST_CALLERS).collect()
}
