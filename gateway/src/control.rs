//! Runs the periodic work beside requests: DNS, key sets, quota counts, idle state.
//!
//! Runs only on the control thread. Workers read finished values and never wait for it.

pub mod changes;
mod discovery;
mod health;
pub mod notices;
pub mod reload;
mod shared_store;
mod trace_export;
mod usage;
mod usage_push;
mod wall_clock;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

pub use self::shared_store::SharedStore;
pub use self::trace_export::export_traces;
pub use self::usage::UsageKeeper;
pub use self::usage_push::push_usage;
use crate::auth::jwt::key_fetch::{self, Source};
use crate::call::endpoints::Replaced;
use crate::clock;
use crate::control::reload::Reloader;
use crate::limits::store::local::state_file::StateFile;
use crate::observe::log_sampler::{DroppedLines, LogSampler};
use crate::plan::{LivePlan, Plan, State};

/// Interval of the general upkeep.
const ROUND: Duration = Duration::from_secs(1);
/// Interval between checks of the files that the config names. A change is read once it has been stable for one
/// interval, so a revoked credential is refused within half a second. A file that never becomes stable is read one
/// second after its change was seen.
const LOOK: Duration = Duration::from_millis(200);
/// Interval between connection attempts to an ejected endpoint that had refused connections.
const REACH: Duration = Duration::from_millis(500);
/// Time limit of such an attempt, including the TLS handshake.
const REACH_LIMIT: Duration = Duration::from_secs(1);
/// Number of rounds between DNS lookups.
const RESOLVE_EVERY: u32 = 30;

pub struct Control {
    live: Arc<LivePlan>,
    state: Arc<State>,
}

impl Control {
    pub fn new(live: Arc<LivePlan>, state: Arc<State>) -> Arc<Self> {
        Arc::new(Self { live, state })
    }

    /// Finds the endpoints of all backends: resolves the names that the config lists, and waits for the first results of
    /// the sources, which [`follow_sources`] asks.
    pub async fn find_endpoints(&self) {
        let plan = self.live.load();
        tokio::join!(self.resolve(), discovery::first_results(&plan));
    }

    /// Resolves the host names of all endpoints.
    pub async fn resolve(&self) {
        let plan = self.live.load();
        let named = plan.backends.iter().filter(|backend| backend.written.have_names());
        for backend in named {
            let (members, failed) = backend.written.resolve(backend.endpoints.registry(), addresses).await;
            for (origin, error) in failed {
                tracing::warn!(backend = %backend.name, endpoint = %origin.url, %error, "cannot resolve");
            }
            let Replaced {
                added,
                removed,
                left_out,
            } = backend.endpoints.replace(members);
            if left_out > 0 {
                tracing::warn!(backend = %backend.name, left_out, "too many endpoints");
            }
            if added + removed > 0 {
                tracing::info!(backend = %backend.name, added, removed, "endpoints changed");
            }
        }
    }

    /// Runs the general upkeep, forever.
    pub async fn upkeep(self: Arc<Self>) {
        let resolver = Arc::clone(&self);
        let mut fetchers = Fetchers::default();
        let mut generation = self.live.load().generation;
        let mut round = tokio::time::interval(ROUND);
        for count in 0u32.. {
            round.tick().await;
            let now = clock::Now::read();
            self.state.accounts.forget_idle(now);
            self.state.revocations.forget_ended(now);
            let plan = self.live.load();
            for backend in &plan.backends {
                for endpoint in backend.endpoints.load().endpoints() {
                    endpoint.sweep(&backend.settings.pool, now.moment);
                }
            }
            fetchers.follow(&plan);
            if let Some(DroppedLines { lines, most_of }) = LogSampler::of_process().report() {
                tracing::warn!(lines, most_of, "lines of this log were left out: too many of a kind");
            }
            // A plan that has taken effect may have names without an address.
            let is_new = std::mem::replace(&mut generation, plan.generation) != plan.generation;
            if is_new || count % RESOLVE_EVERY == RESOLVE_EVERY - 1 {
                let resolver = Arc::clone(&resolver);
                tokio::spawn(async move { resolver.resolve().await });
            }
        }
    }
}

/// Returns the addresses of a host by the system's resolver.
async fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((host, port)).await?.collect())
}

/// Follows the sources of the endpoints of all backends that have one, forever.
pub async fn follow_sources(live: Arc<LivePlan>) {
    discovery::follow_sources(live).await;
}

/// Probes the endpoints of all backends that have a health check, forever.
pub async fn probe_endpoints(live: Arc<LivePlan>) {
    health::probe_endpoints(live).await;
}

/// Follows jumps of the wall clock, forever.
pub async fn follow_wall_clock(state: Arc<State>) {
    wall_clock::follow(state).await;
}

/// Tries to reach ejected endpoints that had refused connections, forever. A restarted endpoint is back long before its
/// ejection would end.
pub async fn bring_back(live: Arc<LivePlan>) {
    let mut round = tokio::time::interval(REACH);
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        round.tick().await;
        let plan = live.load();
        let tries = plan.backends.iter().map(|backend| backend.bring_back(REACH_LIMIT));
        futures_util::future::join_all(tries).await;
    }
}

/// Checks the files that the config names, forever.
pub async fn follow_files(reloader: Arc<Reloader>) {
    let mut round = tokio::time::interval(LOOK);
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        round.tick().await;
        reloader.tend(clock::now());
    }
}

/// Writes the quota counts to the state file, forever: at most once a second, and for at most a twentieth of the time.
///
/// Counts since the last write are lost if the process is killed. A clean shutdown calls [`keep_counts_once`].
pub async fn keep_counts(file: Arc<Mutex<StateFile>>, state: Arc<State>) {
    loop {
        let began = clock::now();
        keep_counts_once(&file, &state).await;
        let took = clock::now().since(began);
        tokio::time::sleep(ROUND.max(took * 20)).await;
    }
}

/// Writes the quota counts to the state file once. A failure is logged; the next write includes these counts.
pub async fn keep_counts_once(file: &Arc<Mutex<StateFile>>, state: &Arc<State>) {
    let (file, state) = (Arc::clone(file), Arc::clone(state));
    let write = move || {
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_and_tell(&state.accounts);
    };
    let _ = tokio::task::spawn_blocking(write).await;
}

/// One task per key set that is fetched from a URL, as long as the plan in force uses it.
#[derive(Default)]
struct Fetchers {
    /// Tasks by the address of their key set, with the source that they fetch from.
    running: HashMap<usize, (Source, JoinHandle<()>)>,
    client: Option<reqwest::Client>,
}

impl Fetchers {
    fn follow(&mut self, plan: &Plan) {
        let wanted = plan.authenticator.issuers().iter();
        let wanted: HashMap<usize, _> = wanted
            .filter_map(|issuer| Some((Arc::as_ptr(issuer.keys()) as usize, (issuer.keys(), issuer.source()?))))
            .collect();
        self.running.retain(|id, (source, task)| {
            let keep = wanted.get(id).is_some_and(|(_, wanted)| *wanted == source);
            if !keep {
                task.abort();
            }
            keep
        });
        for (id, (live, source)) in wanted {
            if self.running.contains_key(&id) {
                continue;
            }
            let client = match &self.client {
                Some(client) => client.clone(),
                None => match key_fetch::client() {
                    Ok(client) => self.client.insert(client).clone(),
                    Err(error) => {
                        tracing::error!(%error, "key sets cannot be fetched");
                        return;
                    }
                },
            };
            let (live, theirs) = (Arc::clone(live), source.clone());
            let task = tokio::spawn(async move { key_fetch::keep_fresh(&live, &theirs, &client).await });
            self.running.insert(id, (source.clone(), task));
        }
    }
}
