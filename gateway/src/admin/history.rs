//! `GET /api/v1/history`: what was counted in the last hour, in points of ten seconds, of the whole gateway and of each
//! route, backend and tenant.
//!
//! The server keeps the hour, so that a dashboard shows trouble that began before it was opened. The memory is bounded:
//! 360 points of 16 bytes for at most 3 x 250 names, which is less than 4.5 MB. Of more names, those with the most
//! failures and requests are kept.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};

use super::list_query::only_parameter;
use super::problem::Problem;
use super::state::Admin;
use super::traffic::failures_and_requests;
use crate::call::backend::Backend;
use crate::clock;
use crate::observe::timestamp::Timestamp;
use crate::observe::{Family, Outcome, RouteMetrics, TenantMetrics};
use crate::rejection::Reason;

/// Time that one point covers.
pub(super) const EVERY: Duration = Duration::from_secs(10);
/// Number of points that are kept: an hour.
const POINTS: usize = 360;
/// Maximum number of routes, of backends and of tenants that have a history.
const MOST: usize = 250;
/// Number of points that count as recent: a minute.
const RECENT: usize = 6;

/// Total counts of the gateway, or of one route, backend or tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counted {
    /// Requests, or calls of a backend.
    pub(super) requests: u64,
    /// 5xx answers, failed calls of a backend, or requests of a tenant that a limit refused.
    pub(super) failed: u64,
    /// Refusals by the gateway.
    pub(super) refused: u64,
    /// Aggregates that were answered without all of their parts.
    pub(super) incomplete: u64,
}

/// Counts of the ten seconds of one point. A count that does not fit is shown as the largest one.
#[derive(Debug, Clone, Copy, Default)]
struct Point([u32; 4]);

#[derive(Debug, Default)]
struct Series {
    /// Totals at the end of the newest point.
    last: Counted,
    points: VecDeque<Point>,
}

/// Histories by name.
pub(super) type Names = BTreeMap<Arc<str>, Counted>;

/// The last hour. One lock, which only the control thread takes.
#[derive(Debug, Default)]
pub(super) struct History(Mutex<Hour>);

#[derive(Debug, Default)]
struct Hour {
    /// Number of points since the start; that of the newest one.
    newest: u64,
    newest_at: Timestamp,
    all: Series,
    /// The empty name is that of requests without a route.
    routes: BTreeMap<Arc<str>, Series>,
    backends: BTreeMap<Arc<str>, Series>,
    tenants: BTreeMap<Arc<str>, Series>,
}

/// Kind of a thing that has a history.
#[derive(Debug, Clone, Copy)]
pub(super) enum Of {
    Routes,
    Backends,
    Tenants,
}

/// Totals of everything at one time.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) all: Counted,
    pub(super) routes: Names,
    pub(super) backends: Names,
    pub(super) tenants: Names,
}

#[derive(Serialize)]
struct HourView {
    every_seconds: u64,
    most_points: usize,
    /// Number of the newest point, from 1; 0 before the first one.
    newest: u64,
    /// End of the newest point.
    newest_at: Timestamp,
    all: SeriesView,
    routes: BTreeMap<Arc<str>, SeriesView>,
    backends: BTreeMap<Arc<str>, SeriesView>,
    tenants: BTreeMap<Arc<str>, SeriesView>,
}

/// Numbers of one thing, one a point and the newest last. A list without any count is empty.
#[derive(Serialize)]
struct SeriesView {
    points: usize,
    requests: Vec<u32>,
    failed: Vec<u32>,
    refused: Vec<u32>,
    incomplete: Vec<u32>,
}

impl Counted {
    pub(super) fn of_route(route: &RouteMetrics) -> Self {
        let (failed, requests) = failures_and_requests(route);
        Self {
            requests,
            failed,
            refused: route.by::<Reason>(Family::Rejections).map(|(_, count)| count).sum(),
            incomplete: route.count(Family::PartialResponses, ()),
        }
    }

    pub(super) fn of_backend(backend: &Backend) -> Self {
        let calls = || backend.metrics.by::<Outcome>(Family::BackendCalls);
        let fails = |outcome: &Outcome| !matches!(outcome, Outcome::Answered | Outcome::Cancelled | Outcome::Refused);
        let rejections = backend.metrics.by::<Reason>(Family::BackendRejections);
        Self {
            requests: calls().map(|(_, count)| count).sum(),
            failed: calls()
                .filter(|(outcome, _)| fails(outcome))
                .map(|(_, count)| count)
                .sum(),
            refused: rejections.map(|(_, count)| count).sum(),
            incomplete: 0,
        }
    }

    pub(super) fn of_tenant(tenant: &TenantMetrics) -> Self {
        Self {
            requests: tenant.requests(),
            failed: tenant.limited(),
            refused: tenant.limited() + tenant.rejected(),
            incomplete: 0,
        }
    }

    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.refused += other.refused;
        self.incomplete += other.incomplete;
    }

    /// Returns what has been counted since `earlier`.
    fn since(self, earlier: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(earlier.requests),
            failed: self.failed.saturating_sub(earlier.failed),
            refused: self.refused.saturating_sub(earlier.refused),
            incomplete: self.incomplete.saturating_sub(earlier.incomplete),
        }
    }

    /// Returns a key by which the sick come before the busy. Counts of one order of magnitude are equal, so that a list
    /// does not change its order at every look.
    pub(super) fn urgency(self) -> (u32, u32) {
        let magnitude = |count: u64| count.checked_ilog2().map_or(0, |log| log + 1);
        (magnitude(self.failed), magnitude(self.requests))
    }
}

impl Totals {
    fn of(admin: &Admin) -> Self {
        let (plan, registry) = (admin.gateway.live.load(), &admin.gateway.state.observer.registry);
        let mut all = Counted::of_route(&registry.unrouted());
        let mut routes = Names::from([(Arc::from(""), all)]);
        for route in &plan.listed {
            let counted = Counted::of_route(&route.metrics);
            all.add(counted);
            routes.insert(Arc::clone(&route.name), counted);
        }
        let backends = plan.backends.iter();
        let tenants = registry.tenants.all();
        Self {
            all,
            routes,
            backends: backends
                .map(|backend| (Arc::clone(&backend.name), Counted::of_backend(backend)))
                .collect(),
            tenants: tenants
                .iter()
                .map(|tenant| (Arc::clone(&tenant.name), Counted::of_tenant(tenant)))
                .collect(),
        }
    }
}

impl Series {
    fn add(&mut self, totals: Counted) {
        let grown = totals.since(self.last);
        self.last = totals;
        if self.points.len() == POINTS {
            self.points.pop_front();
        }
        let counts = [grown.requests, grown.failed, grown.refused, grown.incomplete];
        self.points
            .push_back(Point(counts.map(|count| u32::try_from(count).unwrap_or(u32::MAX))));
    }

    /// Returns what was counted in the last minute, and since the newest point until now.
    fn recent(&self, now: Counted) -> Counted {
        let mut recent = now.since(self.last);
        for Point([requests, failed, refused, incomplete]) in self.points.iter().rev().take(RECENT) {
            recent.add(Counted {
                requests: u64::from(*requests),
                failed: u64::from(*failed),
                refused: u64::from(*refused),
                incomplete: u64::from(*incomplete),
            });
        }
        recent
    }

    /// Returns the newest `most` points.
    fn view(&self, most: usize) -> SeriesView {
        let shown = self.points.len().min(most);
        let column = |at: usize| {
            let newest = self.points.iter().skip(self.points.len() - shown);
            let column: Vec<u32> = newest.map(|Point(counts)| counts[at]).collect();
            if column.iter().all(|count| *count == 0) {
                Vec::new()
            } else {
                column
            }
        };
        SeriesView {
            points: shown,
            requests: column(0),
            failed: column(1),
            refused: column(2),
            incomplete: column(3),
        }
    }
}

impl History {
    /// Ends a point at `now`. The first call only begins the first point.
    pub(super) fn add(&self, totals: &Totals, now: Timestamp) {
        let mut hour = self.hour();
        let hour = &mut *hour;
        let is_first = hour.newest_at == Timestamp::default();
        hour.newest_at = now;
        let lists = [
            (&mut hour.routes, &totals.routes),
            (&mut hour.backends, &totals.backends),
            (&mut hour.tenants, &totals.tenants),
        ];
        if is_first {
            hour.all.last = totals.all;
        } else {
            hour.newest += 1;
            hour.all.add(totals.all);
        }
        for (kept, totals) in lists {
            keep(kept, totals, is_first);
        }
    }

    /// Returns what was counted of a thing in the last minute; all that was ever counted until there is a history.
    pub(super) fn recent(&self, of: Of, name: &str, now: Counted) -> Counted {
        let hour = self.hour();
        if hour.newest == 0 {
            return now;
        }
        let list = match of {
            Of::Routes => &hour.routes,
            Of::Backends => &hour.backends,
            Of::Tenants => &hour.tenants,
        };
        list.get(name)
            .map_or_else(Counted::default, |series| series.recent(now))
    }

    /// Ignores poisoning: a half-added point shows wrong numbers for an hour at worst.
    fn hour(&self) -> MutexGuard<'_, Hour> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds a point for each thing, and forgets those that are no longer there.
fn keep(kept: &mut BTreeMap<Arc<str>, Series>, totals: &Names, is_first: bool) {
    let mut chosen: Vec<_> = totals.iter().collect();
    if chosen.len() > MOST {
        chosen.sort_by_key(|(_, counted)| std::cmp::Reverse((counted.failed, counted.requests)));
        chosen.truncate(MOST);
    }
    let chosen: HashMap<&str, Counted> = chosen.into_iter().map(|(name, counted)| (&**name, *counted)).collect();
    kept.retain(|name, _| chosen.contains_key(&**name));
    for (name, counted) in totals {
        if !chosen.contains_key(&**name) {
            continue;
        }
        match kept.get_mut(name) {
            Some(series) => series.add(*counted),
            // What was counted before the start of its history has no point.
            None if is_first => {
                kept.insert(
                    Arc::clone(name),
                    Series {
                        last: *counted,
                        ..Series::default()
                    },
                );
            }
            // A thing that appeared within the point was not there before.
            None => {
                let mut series = Series::default();
                if totals.len() > MOST {
                    series.last = *counted;
                }
                series.add(*counted);
                kept.insert(Arc::clone(name), series);
            }
        }
    }
}

/// Adds a point every ten seconds until the future is dropped.
pub(super) async fn keep_up(admin: &Admin) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        admin.history.add(&Totals::of(admin), Timestamp(clock::unix_time()));
    }
}

/// Shows the points after the one that `?after=` names; without it, all that are kept.
pub(super) async fn show(State(admin): State<Arc<Admin>>, uri: Uri) -> Result<Response, Problem> {
    let after = only_parameter(&uri, "after")?;
    let after = after.map(|text| text.parse::<u64>()).transpose();
    let after = after.map_err(|_| Problem::bad_value("after is the number of a point, from 0.".to_owned()))?;
    let hour = admin.history.hour();
    // A number from before a restart is of another history.
    let after = after.filter(|after| *after <= hour.newest).unwrap_or(0);
    let most = usize::try_from(hour.newest - after).unwrap_or(usize::MAX);
    let views = |list: &BTreeMap<Arc<str>, Series>| -> BTreeMap<Arc<str>, SeriesView> {
        list.iter()
            .map(|(name, series)| (Arc::clone(name), series.view(most)))
            .collect()
    };
    Ok(Json(HourView {
        every_seconds: EVERY.as_secs(),
        most_points: POINTS,
        newest: hour.newest,
        newest_at: hour.newest_at,
        all: hour.all.view(most),
        routes: views(&hour.routes),
        backends: views(&hour.backends),
        tenants: views(&hour.tenants),
    })
    .into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(route: &str, requests: u64, failed: u64) -> Totals {
        let counted = Counted {
            requests,
            failed,
            ..Counted::default()
        };
        Totals {
            all: counted,
            routes: Names::from([(route.into(), counted)]),
            ..Totals::default()
        }
    }

    fn at(second: u64) -> Timestamp {
        Timestamp(Duration::from_secs(second))
    }

    fn requests(history: &History, route: &str) -> Vec<u32> {
        history.hour().routes[route].view(POINTS).requests
    }

    #[test]
    fn a_point_is_the_growth_since_the_one_before() {
        let history = History::default();
        for (second, total) in [(10, 100), (20, 105), (30, 105), (40, 125)] {
            history.add(&totals("users", total, 0), at(second));
        }
        assert_eq!(requests(&history, "users"), [5, 0, 20], "what was before has no point");
        let view = history.hour().all.view(2);
        assert_eq!((view.points, view.requests, view.failed), (2, vec![0, 20], Vec::new()));
    }

    #[test]
    fn the_recent_is_a_minute_and_what_came_since() {
        let history = History::default();
        let now = totals("users", 700, 7).all;
        assert_eq!(history.recent(Of::Routes, "users", now), now, "without a history, all");
        for point in 0..=20 {
            history.add(&totals("users", point * 10, 0), at(10 + point * 10));
        }
        let now = totals("users", 203, 1).all;
        let recent = history.recent(Of::Routes, "users", now);
        assert_eq!((recent.requests, recent.failed), (63, 1));
        assert_eq!(recent.urgency(), (1, 6));
        assert_eq!(history.recent(Of::Routes, "other", now), Counted::default());
    }

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let history = History::default();
        for point in 0..POINTS as u64 + 10 {
            history.add(&totals("users", point * point, 0), at(10 + point * 10));
        }
        assert_eq!(requests(&history, "users").len(), POINTS);
        history.add(&totals("orders", 4, 0), at(10_000));
        assert!(!history.hour().routes.contains_key("users"), "it is no longer there");
        assert_eq!(requests(&history, "orders"), [4]);
    }

    #[test]
    fn of_too_many_names_the_sick_and_busy_are_kept() {
        let history = History::default();
        let routes = (0..2 * MOST as u64).map(|number| {
            let counted = Counted {
                requests: number,
                failed: u64::from(number == 3),
                ..Counted::default()
            };
            (Arc::from(format!("route-{number}")), counted)
        });
        let totals = Totals {
            routes: routes.collect(),
            ..Totals::default()
        };
        for second in [10, 20] {
            history.add(&totals, at(second));
        }
        let hour = history.hour();
        assert_eq!(hour.routes.len(), MOST);
        assert!(hour.routes.contains_key("route-3") && hour.routes.contains_key("route-499"));
        assert!(!hour.routes.contains_key("route-4"));
        let size = size_of::<Point>() * POINTS * MOST * 3;
        assert!(size < 4_500_000, "{size} bytes");
    }
}

#[cfg(test)]
mod api_tests;
