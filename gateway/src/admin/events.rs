//! `GET /api/v1/events`: a snapshot of everything, once a second, as server-sent events. The dashboard uses it.
//!
//! `?q=` selects entries by a text, and `?routes=`, `?backends=`, `?tenants=`, `?rejections=` and `?groups=` say how many
//! entries of a list to skip.
//!
//! The number of streams and the entries of each snapshot are bounded. A stream ends when the drain begins, with a last
//! snapshot that says so. A client that does not read delays only itself.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Query, State};
use axum::http::Uri;
use axum::response::sse::{Event, Sse};
use futures_util::Stream;
use futures_util::stream::unfold;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::connections::Connection;
use super::list_query::ListQuery;
use super::problem::Problem;
use super::state::Admin;
use super::status::Status;
use super::{backends, refusal_groups, rejections, routes, tenants};
use crate::server::Phase;

/// Path of the stream.
pub(super) const PATH: &str = "/api/v1/events";
const EVERY: Duration = Duration::from_secs(1);

/// Slot of one stream; given back on drop.
struct StreamSlot {
    admin: Arc<Admin>,
    peer: IpAddr,
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        let mut taken = self.admin.streams.taken();
        match taken.get_mut(&self.peer) {
            Some(of_peer) if *of_peer > 1 => *of_peer -= 1,
            _ => drop(taken.remove(&self.peer)),
        }
    }
}

pub(super) async fn stream(
    State(admin): State<Arc<Admin>>,
    Extension(connection): Extension<Arc<Connection>>,
    uri: Uri,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let shown = Shown::read(&uri)?;
    if admin.gateway.lifecycle.phase() >= Phase::Draining {
        return Err(Problem::DRAINING);
    }
    let peer = connection.peer();
    if !admin.streams.try_take(peer) {
        return Err(Problem::TOO_MANY_STREAMS);
    }
    let slot = StreamSlot {
        admin: Arc::clone(&admin),
        peer,
    };
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watcher = Watcher {
        admin,
        shown,
        ticks,
        _slot: slot,
    };
    Ok(Sse::new(unfold(Some(watcher), next)))
}

struct Watcher {
    admin: Arc<Admin>,
    shown: Shown,
    ticks: Interval,
    _slot: StreamSlot,
}

/// Returns the next snapshot; the snapshot of a drain is the last.
async fn next(watcher: Option<Watcher>) -> Option<(Result<Event, Infallible>, Option<Watcher>)> {
    let mut watcher = watcher?;
    let lifecycle = &watcher.admin.gateway.lifecycle;
    tokio::select! {
        _ = watcher.ticks.tick() => {}
        () = lifecycle.reached(Phase::Draining) => {}
    }
    let is_last = lifecycle.phase() >= Phase::Draining;
    let event = Event::default()
        .event("snapshot")
        .data(snapshot(&watcher.admin, &watcher.shown).to_string());
    Some((Ok(event), (!is_last).then_some(watcher)))
}

fn snapshot(admin: &Admin, shown: &Shown) -> Value {
    let rejections = rejections::list(admin, &shown.page(shown.rejections, 15));
    json!({
        "status": Status::of(admin),
        "routes": routes::list(admin, &shown.page(shown.routes, 25)),
        "backends": backends::list(admin, &shown.page(shown.backends, 24)),
        "tenants": tenants::list(admin, &shown.page(shown.tenants, 20)),
        "rejections": rejections["rejections"],
        "rejections_total": rejections["total"],
        "refusal_groups": refusal_groups::list(admin, &shown.page(shown.groups, 15)),
    })
}

/// Query of a stream: which entries the snapshots show. A number is how many entries of a list to skip.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Shown {
    q: String,
    routes: usize,
    backends: usize,
    tenants: usize,
    rejections: usize,
    groups: usize,
}

impl Shown {
    fn read(uri: &Uri) -> Result<Self, Problem> {
        let read = Query::<Self>::try_from_uri(uri);
        read.map(|Query(shown)| shown)
            .map_err(|error| Problem::bad_value(error.to_string()))
    }

    fn page(&self, offset: usize, limit: usize) -> ListQuery {
        ListQuery::page_of(&self.q, offset, limit)
    }
}

#[cfg(test)]
mod tests;
