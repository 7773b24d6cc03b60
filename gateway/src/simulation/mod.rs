//! Runs a plan on virtual time: callers send over connections in memory, backends answer by a script, and the clock
//! jumps to the next thing that happens.
//!
//! Everything between is what serves in production: HTTP/1.1 with its checks, the decision, limits, bulkheads, breakers,
//! retries, balancing, aggregates. Left out is what lies outside of a request: sockets, TLS, HTTP/2 and WebSockets of
//! callers, name resolution, health probes, fetched keys, the store of replicas, and the load of the machine.
//!
//! Invariant: one thread, seeded chance, and times in whole milliseconds, so that each run gives the same result.

mod backend;
mod client;
pub mod coverage;
pub mod policy_test;
pub mod replay;
pub mod report;
mod script;
mod seen;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use policies::clock_follower::Offset;
use policies::{Moment, WallTime};

pub use self::backend::Reply;
use self::backend::{Dialler, Replies, ScriptedEndpoint};
pub use self::client::{Answered, Message};
use self::script::{Script, Scripts};
use self::seen::SeenRequests;
pub use self::seen::{Seen, SeenAttempt};
use crate::call::backend::Backend;
use crate::call::endpoints::{Member, Origin};
use crate::clock::{self, WallClock};
use crate::config::policy_tests::BackendScript;
use crate::config::{Invalid, Loaded};
use crate::control::{self, reload};
use crate::observe::{Observer, Target};
use crate::plan::{LivePlan, Plan, State};
use crate::server::MemoryServer;

/// Seed of chance: every run draws the same.
const SEED: u64 = 18;

/// A plan on virtual time.
pub struct Simulation {
    pub plan: Arc<Plan>,
    /// Keeps alive what the plan uses.
    _state: Arc<State>,
    server: MemoryServer,
    began: Moment,
    backends: HashMap<Arc<str>, Vec<Arc<ScriptedEndpoint>>>,
    seen: Arc<SeenRequests>,
    replies: Arc<Replies>,
    sent: AtomicU64,
}

/// Runs a future on virtual time, which begins with its first poll.
///
/// # Errors
/// The runtime cannot be made.
pub fn on_virtual_time<F: Future>(future: F) -> io::Result<F::Output> {
    fastrand::seed(SEED);
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build()?;
    Ok(runtime.block_on(async {
        // Windows are cut at fixed times of the process's clock. From a whole hour on, they are cut alike in each run.
        let hours = clock::now().since(Moment::ZERO).as_secs() / 3600 + 1;
        clock::wait_until(Moment::ZERO + Duration::from_secs(hours * 3600)).await;
        future.await
    }))
}

/// Reads and compiles a config for virtual time. Limits that replicas would share are counted here alone.
///
/// # Errors
/// Every mistake in the config.
pub fn compile(path: &Path) -> Result<(Plan, Arc<State>, Loaded), Box<Invalid>> {
    let observer = Observer::start(&Target::Off).map_err(|error| unreadable(&error))?;
    let state = Arc::new(State::new(observer));
    let (compiled, loaded) = reload::read(path, &state, 1)?;
    Ok((compiled.plan, state, loaded))
}

fn unreadable(error: &io::Error) -> Box<Invalid> {
    use crate::config::{Code, Mistake, Sources};
    Box::new(Invalid {
        sources: Sources::default(),
        mistakes: Mistake::new(Code::Unreadable, None, format!("no thread can be started: {error}")).into(),
    })
}

impl Simulation {
    /// Puts a plan in force. `starts` is the time of day now, in seconds since 1970; the real one if it is `None`.
    pub fn begin(plan: Plan, state: Arc<State>, starts: Option<u64>) -> Self {
        let began = clock::now();
        let offset = match starts {
            Some(starts) => Offset::between(began, WallTime::since_epoch(Duration::from_secs(starts))),
            None => {
                let now = clock::read();
                Offset::between(now.moment, now.wall)
            }
        };
        WallClock::of_process().tell(offset);
        let seen = Arc::new(SeenRequests::default());
        let watcher = Arc::clone(&seen);
        state.observer.watch(move |record| watcher.note(record));
        let backends = plan.backends.iter();
        let replies = Arc::<Replies>::default();
        let backends = backends.map(|backend| (Arc::clone(&backend.name), scripted(backend, &replies)));
        let backends = backends.collect();
        reload::take_effect(&plan, &state);
        let live = Arc::new(LivePlan::new(Arc::new(plan)));
        Self {
            plan: live.load(),
            _state: state,
            server: MemoryServer::new(&live),
            began,
            backends,
            seen,
            replies,
            sent: AtomicU64::new(0),
        }
    }

    /// Waits until this time from the start.
    pub async fn wait_until(&self, time: Duration) {
        clock::wait_until(self.began + time).await;
    }

    /// Returns the time from the start.
    pub fn now(&self) -> Duration {
        clock::now().since(self.began)
    }

    /// Has an endpoint of a backend answer by `written` from now on; all of its endpoints if `endpoint` is `None`. Returns
    /// false if there is no such backend or endpoint.
    pub fn script(&self, backend: &str, endpoint: Option<usize>, written: &BackendScript) -> bool {
        let Some(endpoints) = self.backends.get(backend) else {
            return false;
        };
        let chosen = match endpoint {
            Some(number) => endpoints.get(number..=number),
            None => Some(&endpoints[..]),
        };
        let Some(chosen) = chosen else { return false };
        for endpoint in chosen {
            let now = clock::now();
            let script = |phases: &[_]| Script::new(phases.into(), now);
            let by_path = written.by_path.iter();
            endpoint.play(Scripts {
                all: script(&written.phases),
                by_path: by_path
                    .map(|(pattern, phases)| (pattern.clone(), script(phases)))
                    .collect(),
            });
        }
        true
    }

    /// Tries twice a second to reach ejected endpoints, as the control thread does, for as long as the future is polled.
    pub async fn bring_back(&self) {
        control::bring_back(Arc::new(LivePlan::new(Arc::clone(&self.plan)))).await;
    }

    /// Sends a request from a connection of its own, and waits for the last byte of its answer.
    pub async fn send(&self, message: Message) -> Answered {
        self.send_with(message, Vec::new()).await
    }

    /// Sends a request whose attempts are answered by `replies`, each a backend and what it does. Further attempts are
    /// answered by the script.
    pub async fn send_with(&self, message: Message, replies: Vec<(Arc<str>, Reply)>) -> Answered {
        let number = self.sent.fetch_add(1, Relaxed);
        let at = self.now();
        let has_replies = !replies.is_empty();
        if has_replies {
            self.replies.add(number, replies);
        }
        let client = SocketAddr::new(message.from.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), 40_000);
        let stream = self.server.connect(client, message.scheme, message.assumed.clone());
        let answer = client::exchange(stream, message, number).await;
        if has_replies {
            self.replies.remove(number);
        }
        let seen = self.seen.take(number);
        Answered::of(answer, seen, at)
    }

    /// Returns the largest number of calls that an endpoint of the backend had at once, and its calls in all, by endpoint.
    pub fn load_of(&self, backend: &str) -> Vec<(usize, u64)> {
        let endpoints = self.backends.get(backend).into_iter().flatten();
        endpoints.map(|endpoint| endpoint.load()).collect()
    }
}

/// Replaces the endpoints of a backend by scripted ones. A name has one address, and a backend whose endpoints are found
/// at run time has one endpoint.
fn scripted(backend: &Backend, replies: &Arc<Replies>) -> Vec<Arc<ScriptedEndpoint>> {
    let written = backend.written.all();
    let mut origins: Vec<(Arc<Origin>, SocketAddr, u32)> = written
        .iter()
        .map(|written| {
            let ip = written.host.parse().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
            let address = SocketAddr::new(ip, written.port);
            (Arc::clone(&written.origin), address, written.weight)
        })
        .collect();
    if origins.is_empty() {
        let url: Arc<str> = format!("http://{}", backend.name).into();
        let origin =
            Origin::new(url, &backend.name, None).or_else(|| Origin::new("http://backend".into(), "backend", None));
        let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);
        origins.extend(origin.map(|origin| (Arc::new(origin), nowhere, 1)));
    }
    let in_http2 = backend.endpoints.settings().in_http2;
    let endpoints: Vec<_> = origins
        .iter()
        .map(|_| Arc::new(ScriptedEndpoint::new(&backend.name, in_http2, replies)))
        .collect();
    let members = origins
        .into_iter()
        .zip(&endpoints)
        .map(|((origin, address, weight), endpoint)| {
            let dial = Arc::new(Dialler(Arc::clone(endpoint)));
            Member::new(Arc::new(origin.dialled_by(dial)), address, weight)
        });
    // The old ones go first: an endpoint that stays would keep its own way to connect.
    backend.endpoints.replace(Vec::new());
    backend.endpoints.replace(members.collect());
    endpoints
}
