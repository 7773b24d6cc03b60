//! `GET /api/v1/events`: a snapshot of everything, once a second, as server-sent events; what the dashboard lives on.
//!
//! Bounded in streams and in what each snapshot lists. A stream ends when the drain begins, with a last snapshot that
//! says so; a client that does not read holds up nobody but itself.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, Sse};
use futures_util::Stream;
use futures_util::stream::unfold;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::list_query::{ListQuery, NoParameters};
use super::problem::Problem;
use super::status::Status;
use super::{Admin, backends, rejections, routes, tenants};
use crate::server::Phase;

/// Open at once.
pub(super) const MOST: usize = 32;
const EVERY: Duration = Duration::from_secs(1);

/// The places that streams can take.
pub(super) struct Streams(Arc<Semaphore>);

impl Default for Streams {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MOST)))
    }
}

pub(super) async fn stream(
    State(admin): State<Arc<Admin>>,
    _: NoParameters,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    if admin.gateway.lifecycle.phase() >= Phase::Draining {
        return Err(Problem::DRAINING);
    }
    let place = Arc::clone(&admin.streams.0)
        .try_acquire_owned()
        .map_err(|_| Problem::TOO_MANY_STREAMS)?;
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watcher = Watcher {
        admin,
        ticks,
        _place: place,
    };
    Ok(Sse::new(unfold(Some(watcher), next)))
}

struct Watcher {
    admin: Arc<Admin>,
    ticks: Interval,
    _place: OwnedSemaphorePermit,
}

/// The next snapshot; the one of a drain is the last.
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
        .data(snapshot(&watcher.admin).to_string());
    Some((Ok(event), (!is_last).then_some(watcher)))
}

fn snapshot(admin: &Admin) -> Value {
    json!({
        "status": Status::of(admin),
        "routes": routes::list(admin, &ListQuery::first(100)),
        "backends": backends::list(admin, &ListQuery::first(100)),
        "tenants": tenants::list(admin, &ListQuery::first(20)),
        "rejections": rejections::list(admin, &ListQuery::first(15))["rejections"],
    })
}
