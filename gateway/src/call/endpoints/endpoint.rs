//! One address of a backend, with each worker's pool of connections to it.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use http::uri::Authority;
use policies::balance::{Answer, EndpointLoad, LoadSettings, hash};
use policies::ejection::Standing;
use policies::health::State;
use policies::{Health, Moment};
use tokio::net::TcpStream;

use super::endpoint_settings::EndpointSettings;
use super::member::Origin;
use crate::call::http2::Shared;
use crate::call::pool::{Pool, PoolSettings};
use crate::call::tls::Tls;
use crate::call::transport::Transport;
use crate::clock;

/// Number of an endpoint, unique within the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(u64);

/// Address of a backend, with each worker's pool of connections to it.
pub struct Endpoint {
    id: EndpointId,
    /// URL as written, followed by the address if the URL does not contain it. Logs name the endpoint by it.
    pub name: Arc<str>,
    origin: Arc<Origin>,
    address: SocketAddr,
    /// TLS settings. `None` means plain text.
    pub(crate) tls: Option<Tls>,
    /// Ejection state: whether the endpoint is left out for now.
    pub standing: Standing,
    /// Results of the endpoint's probes.
    pub health: Health,
    /// Error of the last probe; `None` if it succeeded, or there was none.
    probe_error: ArcSwapOption<String>,
    /// Whether the last failed attempt failed because no connection could be made.
    unreached: AtomicBool,
    /// Number of sets in force that hold the endpoint. Changed only by the registry.
    memberships: AtomicUsize,
    /// Hash of the name, by which the policy `hash` knows the endpoint on every replica.
    name_hash: u64,
    /// Exchanges in flight over all workers, and how the endpoint copes with them.
    pub(crate) load: EndpointLoad,
    pub(crate) pools: Pools,
}

/// Pools of connections to an endpoint, one for each worker, by protocol.
pub(crate) enum Pools {
    Http1(Box<[Arc<Pool>]>),
    Http2(Box<[Arc<Shared>]>),
}

/// Number of connections to an endpoint, over all workers.
#[derive(Debug, Default, Clone, Copy)]
pub struct ConnectionCount {
    /// Number of connections that carry an exchange.
    pub active: usize,
    pub idle: usize,
    /// Number of exchanges. An HTTP/2 connection can carry several.
    pub exchanges: usize,
}

impl Endpoint {
    pub(super) fn new(origin: Arc<Origin>, address: SocketAddr, settings: &EndpointSettings) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let workers = 0..settings.workers;
        let is_in_url = origin.authority.host().trim_matches(['[', ']']) == address.ip().to_string();
        let name = if is_in_url {
            Arc::clone(&origin.url)
        } else {
            format!("{} ({address})", origin.url).into()
        };
        let tls = settings.tls.as_ref().zip(origin.server_name.as_ref());
        Self {
            id: EndpointId(NEXT.fetch_add(1, Relaxed)),
            name_hash: hash::of(name.as_bytes()),
            name,
            address,
            tls: tls.map(|(tls, name)| Tls::new(&tls.config, name.clone(), Arc::clone(&tls.metrics))),
            origin,
            standing: Standing::default(),
            health: Health::default(),
            probe_error: ArcSwapOption::empty(),
            unreached: AtomicBool::new(false),
            memberships: AtomicUsize::new(0),
            load: EndpointLoad::default(),
            pools: if settings.in_http2 {
                Pools::Http2(workers.map(|_| Arc::default()).collect())
            } else {
                Pools::Http1(workers.map(|_| Arc::new(Pool::new())).collect())
            },
        }
    }

    pub const fn id(&self) -> EndpointId {
        self.id
    }

    pub(super) const fn name_hash(&self) -> u64 {
        self.name_hash
    }

    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) const fn origin(&self) -> &Arc<Origin> {
        &self.origin
    }

    /// Returns the URL as written, by which the address was found.
    pub fn url(&self) -> &Arc<str> {
        &self.origin.url
    }

    /// Returns the value of the Host field: `host[:port]`.
    pub(crate) fn host(&self) -> &HeaderValue {
        &self.origin.host
    }

    /// Returns the authority of the request URI in HTTP/2: `host[:port]`.
    pub(crate) fn authority(&self) -> &Authority {
        &self.origin.authority
    }

    pub const fn speaks_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Opens a byte stream to the endpoint, with TLS if it is configured.
    pub(crate) async fn reach(&self) -> std::io::Result<Transport> {
        if let Some(dial) = &self.origin.dial {
            return match dial.dial()? {
                Some(pipe) => Ok(Transport::Memory(pipe)),
                None => std::future::pending().await,
            };
        }
        if self.address.port() == 0 {
            return Err(std::io::Error::other("port 0 takes no connections"));
        }
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(match &self.tls {
            None => Transport::Plain(stream),
            Some(tls) => Transport::Tls(Box::new(tls.shake(stream).await?)),
        })
    }

    /// Returns the state of the endpoint, from its probes and its calls.
    pub fn state(&self, now: Moment) -> State {
        self.health.state(self.standing.ejection(now), 1.0)
    }

    /// Returns the error of the last probe; `None` if it succeeded, or there was none.
    pub fn probe_error(&self) -> Option<Arc<String>> {
        self.probe_error.load_full()
    }

    /// Notes the error of the last probe.
    pub(crate) fn note_probe(&self, error: Option<String>) {
        if error.is_some() || self.probe_error.load().is_some() {
            self.probe_error.store(error.map(Arc::new));
        }
    }

    /// Forgets all probes, because the endpoint is not probed any more.
    pub fn forget_probes(&self) {
        self.health.forget_probes();
        self.note_probe(None);
    }

    /// Whether the last failed attempt failed because no connection could be made.
    pub(crate) fn is_unreached(&self) -> bool {
        self.unreached.load(Relaxed)
    }

    pub(crate) fn note_failure(&self, unreached: bool) {
        if self.unreached.load(Relaxed) != unreached {
            self.unreached.store(unreached, Relaxed);
        }
    }

    /// Counts a set in force that holds the endpoint.
    pub(super) fn join(&self) {
        if self.memberships.fetch_add(1, Relaxed) == 0 {
            self.set_open(true);
        }
    }

    /// Removes a set from the count. After the last one, the pools close their idle connections and keep no others.
    pub(super) fn leave(&self) {
        if self.memberships.fetch_sub(1, Relaxed) == 1 {
            self.set_open(false);
        }
    }

    /// Whether a set in force holds the endpoint.
    pub(super) fn is_member(&self) -> bool {
        self.memberships.load(Relaxed) > 0
    }

    fn set_open(&self, is_open: bool) {
        match &self.pools {
            Pools::Http1(pools) => pools.iter().for_each(|pool| pool.set_open(is_open)),
            Pools::Http2(pools) => pools.iter().for_each(|pool| pool.set_open(is_open)),
        }
    }

    /// Closes connections that have been idle for too long.
    pub fn sweep(&self, settings: &PoolSettings, now: Moment) {
        match &self.pools {
            Pools::Http1(pools) => pools.iter().for_each(|pool| pool.sweep(settings, now)),
            Pools::Http2(pools) => pools.iter().for_each(|pool| pool.sweep(settings, now)),
        }
    }

    /// Returns the exchanges in flight over all workers and how the endpoint copes with them. An exchange that waits for
    /// a connection counts.
    pub const fn load(&self) -> &EndpointLoad {
        &self.load
    }

    pub fn connections(&self) -> ConnectionCount {
        let mut count = ConnectionCount::default();
        match &self.pools {
            Pools::Http1(pools) => {
                for pool in pools {
                    count.active += pool.leased();
                    count.idle += pool.idle();
                }
                count.exchanges = count.active;
            }
            Pools::Http2(pools) => {
                for pool in pools {
                    let (active, idle, exchanges) = pool.count();
                    count.active += active;
                    count.idle += idle;
                    count.exchanges += exchanges;
                }
            }
        }
        count
    }
}

/// Endpoint of an exchange. The exchange counts as in flight until this value is dropped.
#[must_use]
pub struct EndpointGuard {
    endpoint: Arc<Endpoint>,
    began: Moment,
    progress: Progress,
}

/// Progress of an exchange, as far as it concerns the endpoint's load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// The endpoint owes an answer.
    Owed,
    /// The answer depends on a caller that still sends its request.
    Excused,
    Answered,
}

impl EndpointGuard {
    pub(super) fn new(endpoint: Arc<Endpoint>, now: Moment) -> Self {
        endpoint.load.begin(now);
        Self {
            endpoint,
            began: now,
            progress: Progress::Owed,
        }
    }

    /// Keeps the endpoint's silence from counting against it, because the caller still sends the request.
    pub(crate) fn excuse(&mut self) {
        if self.progress == Progress::Owed {
            self.progress = Progress::Excused;
            self.endpoint.load.excuse();
        }
    }

    /// Records the answer or the failure of the exchange, once.
    pub(crate) fn answer(&mut self, answer: Answer, settings: &LoadSettings, now: Moment) {
        match std::mem::replace(&mut self.progress, Progress::Answered) {
            Progress::Owed => self.endpoint.load.answer(answer, settings, now),
            Progress::Excused => self.endpoint.load.answer_excused(answer, settings, now),
            Progress::Answered => {}
        }
    }
}

impl Deref for EndpointGuard {
    type Target = Arc<Endpoint>;

    fn deref(&self) -> &Self::Target {
        &self.endpoint
    }
}

impl Drop for EndpointGuard {
    fn drop(&mut self) {
        match self.progress {
            Progress::Owed => {
                let now = clock::now();
                self.endpoint.load.abandon(now.since(self.began), now);
            }
            Progress::Excused | Progress::Answered => self.endpoint.load.end(),
        }
    }
}
