//! `GET /api/v1/routes`: every route in force, its place in the config, and the outcomes of its requests.
//!
//! Routes to a backend in trouble come first, then routes with the most failed answers in the last minute, then routes
//! with the most requests in it.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Value, json};

use super::backends::Trouble;
use super::cache::Cached;
use super::history::{Counted, History, Of};
use super::list_query::{ListQuery, Page};
use super::mirrored::Mirrored;
use super::state::Admin;
use super::traffic::{Totals, Traffic};
use crate::clock;
use crate::observe::Family;
use crate::plan::outline::{RouteOutline, TargetOutline};
use crate::plan::{Plan, Route, Target};
use crate::setting::Location;

#[derive(Serialize)]
struct Entry<'a> {
    #[serde(flatten)]
    route: &'a RouteOutline,
    at: Option<&'a Location>,
    #[serde(flatten)]
    traffic: Traffic,
    /// Absent without a mirror.
    #[serde(skip_serializing_if = "Option::is_none")]
    mirrored: Option<Mirrored>,
    /// Absent without a cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    cached: Option<Cached>,
    /// Absent unless a part has a cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    cached_parts: Option<Cached>,
}

fn has_cached_part(route: &Route) -> bool {
    matches!(&route.target, Target::Aggregate(aggregate) if aggregate.has_cache())
}

pub(super) async fn show(State(admin): State<Arc<Admin>>, query: ListQuery) -> Json<Value> {
    Json(list(&admin, &query))
}

/// Lists routes. `unrouted` counts requests that matched no route; `totals` counts all requests.
pub(super) fn list(admin: &Admin, query: &ListQuery) -> Value {
    let (plan, registry) = (admin.gateway.live.load(), &admin.gateway.state.observer.registry);
    let outline = &plan.outline;
    let unrouted = registry.unrouted();
    let mut totals = Totals::of(&unrouted);
    plan.listed.iter().for_each(|route| totals.add(&route.metrics));
    let Page {
        entries,
        total,
        next_offset,
    } = query.page(found(&plan, &admin.history, query));
    let now = clock::now();
    let entry = |(route, meant): (&RouteOutline, &Route)| {
        let at = outline.place(&format!("routes.{}", route.name));
        json!(Entry {
            route,
            at,
            traffic: Traffic::of(&meant.metrics),
            cached: meant
                .cache
                .as_ref()
                .map(|_| Cached::of(&meant.metrics, Family::CacheRequests)),
            cached_parts: has_cached_part(meant).then(|| Cached::of(&meant.metrics, Family::CachePartRequests)),
            mirrored: meant.mirror.as_ref().map(|mirror| Mirrored::of(&mirror.mirror, now)),
        })
    };
    json!({
        "routes": entries.into_iter().map(entry).collect::<Vec<_>>(),
        "total": total,
        "next_offset": next_offset,
        "unrouted": Traffic::of(&unrouted),
        "totals": totals,
    })
}

/// Returns the matching routes, the most troubled first; equal ones in the order of the config.
fn found<'p>(plan: &'p Plan, history: &History, query: &ListQuery) -> Vec<(&'p RouteOutline, &'p Route)> {
    let troubled: HashMap<&str, Trouble> = plan
        .backends
        .iter()
        .map(|backend| (&*backend.name, Trouble::of(backend)))
        .filter(|(_, trouble)| *trouble > Trouble::None)
        .collect();
    let trouble = |route: &RouteOutline| {
        let of_backends = route.target.backends().filter_map(|name| troubled.get(name));
        of_backends.max().copied().unwrap_or(Trouble::None)
    };
    let mut found: Vec<_> = plan
        .outline
        .routes
        .iter()
        .zip(&plan.listed)
        .filter(|(route, _)| query.finds(texts(route)))
        .map(|(route, meant)| (route, &**meant))
        .collect();
    found.sort_by_cached_key(|(route, meant)| {
        let recent = history.recent(Of::Routes, &route.name, Counted::of_route(&meant.metrics));
        Reverse((trouble(route), recent.urgency()))
    });
    found
}

/// Returns the texts that a search looks at.
fn texts(route: &RouteOutline) -> impl Iterator<Item = &str> {
    let matches = &route.matches;
    let written = [&matches.hosts, &matches.paths, &matches.prefixes]
        .into_iter()
        .flatten();
    std::iter::once(&*route.name)
        .chain(written.map(String::as_str))
        .chain(route.target.backends())
}

impl TargetOutline {
    /// Returns the names of the backends that the route calls.
    fn backends(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match self {
            Self::Backend { name, .. } => Box::new(std::iter::once(name.as_str())),
            Self::Split { entries, .. } => Box::new(entries.iter().map(|entry| entry.backend.as_str())),
            Self::Aggregate { parts, .. } => Box::new(parts.iter().map(|part| part.backend.as_str())),
            Self::Respond { .. } | Self::Redirect { .. } => Box::new(std::iter::empty()),
        }
    }
}

#[cfg(test)]
mod tests;
