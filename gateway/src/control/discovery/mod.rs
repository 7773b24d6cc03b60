//! Follows the sources of endpoints while the gateway runs.
//!
//! A source is a function `follow(&settings, &wake, report)` that runs forever. It reports each change of the endpoints
//! and each failed look, and looks at once when `wake` (a [`tokio::sync::Notify`]) is notified, because a connection to
//! one of its endpoints could not be made.
//!
//! Invariant: one task follows the source of a set of endpoints, for as long as the set is in force. A reload that does
//! not change the source keeps both.

mod dns;
mod file;
mod kubernetes;
mod look_pause;
mod name_server;
mod slow_lookup;
mod srv;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::MissedTickBehavior;

use crate::call::endpoints::Found;
use crate::call::endpoints::{Change, Discovery, Endpoint, EndpointSet, MOST_ENDPOINTS, Replaced, Source};
use crate::clock;
use crate::plan::{LivePlan, Plan};

/// Interval between looks for sources that a reload has added or taken out, and for endpoints that were kept for too
/// long.
const LOOK: Duration = Duration::from_millis(200);
/// Maximum number of endpoints that one line of the log names.
const MOST_NAMED: usize = 10;

/// Follows the sources of all backends, forever.
pub(super) async fn follow_sources(live: Arc<LivePlan>) {
    let mut followed = Followed::default();
    let mut round = tokio::time::interval(LOOK);
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        round.tick().await;
        let plan = live.load();
        followed.follow(&plan);
        for backend in &plan.backends {
            if let Some(discovery) = backend.endpoints.discovery()
                && let Some(error) = backend.endpoints.expire(clock::now())
            {
                tracing::error!(
                    backend = %backend.name, source = %discovery.source, %error,
                    "the endpoints were kept for long enough: there is none any more"
                );
            }
        }
    }
}

/// Waits until every source of a plan has given a first result.
pub(super) async fn first_results(plan: &Plan) {
    for backend in &plan.backends {
        if let Some(discovery) = backend.endpoints.discovery() {
            discovery.first_result().await;
        }
    }
}

/// One task for each source of the plan in force.
#[derive(Default)]
struct Followed {
    /// Tasks by the address of their set, which they hold.
    running: HashMap<usize, (Arc<EndpointSet>, AbortHandle)>,
    /// Ends the tasks when it is dropped.
    tasks: JoinSet<()>,
}

impl Followed {
    fn follow(&mut self, plan: &Plan) {
        let wanted = plan.backends.iter().filter_map(|backend| {
            let discovery = backend.endpoints.discovery()?;
            Some((Arc::as_ptr(&backend.endpoints) as usize, (backend, discovery)))
        });
        let mut wanted: HashMap<_, _> = wanted.collect();
        self.running.retain(|id, (_, task)| {
            // A task ends by itself only if it has panicked.
            let stays = wanted.contains_key(id) && !task.is_finished();
            if !stays {
                task.abort();
            }
            stays
        });
        while self.tasks.try_join_next().is_some() {}
        wanted.retain(|id, _| !self.running.contains_key(id));
        for (id, (backend, discovery)) in wanted {
            let (set, discovery) = (Arc::clone(&backend.endpoints), Arc::clone(discovery));
            let name = Arc::clone(&backend.name);
            let held = Arc::clone(&set);
            let task = self
                .tasks
                .spawn(async move { follow_one(&name, &set, &discovery).await });
            self.running.insert(id, (held, task));
        }
    }
}

/// Follows one source, forever.
async fn follow_one(backend: &str, set: &EndpointSet, discovery: &Discovery) {
    let report = |found| apply(backend, set, discovery, found);
    match &discovery.source {
        Source::Dns(settings) => dns::follow(settings, &discovery.wake, dns::of_system, report).await,
        Source::File(settings) => file::follow(settings, set.registry(), report).await,
        Source::Srv(settings) => srv::follow(settings, discovery.keep, &discovery.wake, report).await,
        Source::Kubernetes(settings) => kubernetes::follow(settings, &discovery.wake, report).await,
    }
}

/// Takes over a result of a source, and logs what it changes.
fn apply(backend: &str, set: &EndpointSet, discovery: &Discovery, found: Found) {
    let before = set.load_full();
    let change = set.take(discovery, found, clock::now());
    let source = &discovery.source;
    match change {
        Change::None => {}
        Change::Replaced { replaced, recovered } => {
            if recovered {
                tracing::info!(%backend, %source, "the source of the endpoints answers again");
            }
            let Replaced {
                added,
                removed,
                left_out,
            } = replaced;
            if left_out > 0 {
                tracing::warn!(%backend, %source, left_out, "too many endpoints: a backend has at most {MOST_ENDPOINTS}");
            }
            let now = set.load_full();
            let (old, new): (Vec<_>, Vec<_>) = (before.endpoints().collect(), now.endpoints().collect());
            if added > 0 {
                tracing::info!(%backend, %source, endpoints = %others(&new, &old), "endpoints added");
            }
            if removed > 0 {
                tracing::info!(%backend, %source, endpoints = %others(&old, &new), "endpoints removed");
            }
        }
        Change::Failed { error, keeps: true } => {
            let endpoints = set.load().all().len();
            tracing::error!(%backend, %source, endpoints, "the source of the endpoints fails, those in use are kept:\n{error}");
        }
        Change::Failed { error, keeps: false } => {
            tracing::error!(%backend, %source, "the source of the endpoints fails, and none is left:\n{error}");
        }
    }
}

/// Returns the names of the endpoints that are not in `known`.
fn others(all: &[&Arc<Endpoint>], known: &[&Arc<Endpoint>]) -> String {
    let known: std::collections::HashSet<_> = known.iter().map(|endpoint| endpoint.id()).collect();
    let others: Vec<_> = all
        .iter()
        .filter(|endpoint| !known.contains(&endpoint.id()))
        .map(|endpoint| &*endpoint.name)
        .collect();
    let mut text = others[..others.len().min(MOST_NAMED)].join(", ");
    if others.len() > MOST_NAMED {
        text.push_str(&format!(" and {} more", others.len() - MOST_NAMED));
    }
    text
}
