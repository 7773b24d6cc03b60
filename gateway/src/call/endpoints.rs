//! Chooses among the endpoints of one backend by weighted round robin and leaves out endpoints that keep failing.
//!
//! The control thread resolves names. A worker only reads the latest result.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use http::uri::Authority;
use policies::Moment;
use policies::ejection::Standing;
use tokio::net::TcpStream;

use super::http2::Shared;
use super::pool::{Pool, PoolSettings};
use super::tls::Tls;
use super::transport::Transport;

/// Endpoint of a backend, with each worker's pool of connections to it.
pub struct Endpoint {
    /// URL as written in the config; logs and the admin API name the endpoint by it.
    pub url: Arc<str>,
    /// Value of the Host field: `host[:port]`.
    pub(crate) authority: HeaderValue,
    /// TLS settings. `None` means plain text.
    pub(crate) tls: Option<Tls>,
    host: String,
    port: u16,
    resolved: ArcSwapOption<Vec<SocketAddr>>,
    turn: AtomicUsize,
    /// Ejection state: whether the endpoint is left out for now.
    pub standing: Standing,
    /// Whether the last failed attempt failed because no connection could be made.
    unreached: AtomicBool,
    pub(crate) pools: Pools,
}

/// Pools of connections to an endpoint, one for each worker, by protocol.
pub(crate) enum Pools {
    Http1(Box<[Arc<Pool>]>),
    Http2 {
        /// Authority of the request URI: `host[:port]`.
        authority: Authority,
        pools: Box<[Arc<Shared>]>,
    },
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
    /// Creates an endpoint. `host` is a name or an address (IPv6 without brackets); an address needs no resolving.
    pub fn new(url: Arc<str>, authority: HeaderValue, host: String, port: u16, workers: usize) -> Self {
        let fixed = host.parse().ok().map(|ip| Arc::new(vec![SocketAddr::new(ip, port)]));
        Self {
            url,
            authority,
            tls: None,
            host,
            port,
            resolved: ArcSwapOption::from(fixed),
            turn: AtomicUsize::new(0),
            standing: Standing::default(),
            unreached: AtomicBool::new(false),
            pools: Pools::Http1((0..workers).map(|_| Arc::new(Pool::new())).collect()),
        }
    }

    /// Speaks HTTP/2 instead of HTTP/1.1.
    #[must_use]
    pub fn in_http2(mut self, authority: Authority) -> Self {
        if let Pools::Http1(pools) = &self.pools {
            self.pools = Pools::Http2 {
                authority,
                pools: pools.iter().map(|_| Arc::default()).collect(),
            };
        }
        self
    }

    /// Speaks TLS instead of plain text.
    #[must_use]
    pub fn over(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    pub const fn speaks_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Returns the protocol, as named in the config.
    pub const fn protocol(&self) -> &'static str {
        match (&self.pools, &self.tls) {
            (Pools::Http1(_), _) => "http1",
            (Pools::Http2 { .. }, Some(_)) => "h2",
            (Pools::Http2 { .. }, None) => "h2c",
        }
    }

    /// Opens a byte stream to the endpoint, with TLS if it is configured.
    pub(crate) async fn reach(&self, address: SocketAddr) -> std::io::Result<Transport> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(match &self.tls {
            None => Transport::Plain(stream),
            Some(tls) => Transport::Tls(Box::new(tls.shake(stream).await?)),
        })
    }

    /// Resolves the name again. A failure keeps the last good result.
    ///
    /// # Errors
    /// Returns the resolver's error.
    pub async fn resolve(&self) -> std::io::Result<()> {
        if self.host.parse::<std::net::IpAddr>().is_ok() {
            return Ok(());
        }
        let found: Vec<SocketAddr> = tokio::net::lookup_host((self.host.as_str(), self.port))
            .await?
            .take(16)
            .collect();
        if !found.is_empty() {
            self.resolved.store(Some(Arc::new(found)));
        }
        Ok(())
    }

    /// Returns an address to connect to. Several addresses are used in turn.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        let addresses = self.resolved.load();
        let addresses = addresses.as_ref()?;
        match addresses.as_slice() {
            [one] => Some(*one),
            several => several
                .get(self.turn.fetch_add(1, Relaxed) % several.len().max(1))
                .copied(),
        }
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

    /// Closes connections that have been idle for too long.
    pub fn sweep(&self, settings: &PoolSettings, now: Moment) {
        match &self.pools {
            Pools::Http1(pools) => pools.iter().for_each(|pool| pool.sweep(settings, now)),
            Pools::Http2 { pools, .. } => pools.iter().for_each(|pool| pool.sweep(settings, now)),
        }
    }

    /// Returns the addresses from the last successful resolution, at most 16; empty if there was none.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.resolved
            .load()
            .as_ref()
            .map(|found| found.to_vec())
            .unwrap_or_default()
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
            Pools::Http2 { pools, .. } => {
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

/// Endpoints of a backend, chosen in turn according to their weights.
pub struct Endpoints {
    all: Vec<Arc<Endpoint>>,
    /// Indexes into `all`, spread so that the turns of a heavy endpoint do not follow each other.
    turns: Box<[u16]>,
    next: AtomicUsize,
    /// Number of choices for which no turn gave a usable endpoint.
    out_of_turn: AtomicUsize,
}

impl Endpoints {
    /// Creates the turns. Weights count from 1; the config bounds their sum.
    pub fn new(weighted: Vec<(Arc<Endpoint>, u32)>) -> Self {
        let turns = spread(&weighted.iter().map(|(_, weight)| *weight).collect::<Vec<_>>());
        Self {
            all: weighted.into_iter().map(|(endpoint, _)| endpoint).collect(),
            turns,
            next: AtomicUsize::new(0),
            out_of_turn: AtomicUsize::new(0),
        }
    }

    pub fn all(&self) -> &[Arc<Endpoint>] {
        &self.all
    }

    pub fn standings(&self) -> impl Iterator<Item = &Standing> {
        self.all.iter().map(|endpoint| &endpoint.standing)
    }

    /// Chooses the endpoint of an attempt, where the endpoints in `tried` have failed, the latest of them at the end.
    /// Prefers the next in turn that is neither ejected nor tried, then an ejected one that was not tried, then a tried
    /// one that is not ejected and, if possible, not the latest.
    pub(crate) fn choose(&self, tried: &[&Arc<Endpoint>], now: Moment) -> Option<&Arc<Endpoint>> {
        if let [only] = self.all.as_slice() {
            return Some(only);
        }
        let is_in = |endpoint: &&Arc<Endpoint>| !endpoint.standing.is_ejected(now);
        let is_untried = |endpoint: &&Arc<Endpoint>| !tried.iter().any(|tried| Arc::ptr_eq(tried, endpoint));
        let fits = |endpoint: &&Arc<Endpoint>| is_in(endpoint) && is_untried(endpoint);
        // A turn of an unusable endpoint is used up. Otherwise the next endpoint in the list would get all of those
        // turns.
        let in_turn = (0..self.all.len())
            .map(|_| self.next.fetch_add(1, Relaxed) % self.turns.len())
            .map(|turn| &self.all[usize::from(self.turns[turn])])
            .find(fits);
        in_turn.or_else(|| {
            // The turns of an ejected heavy endpoint can fill the whole window. The other endpoints then take equal
            // shares.
            let number = self.out_of_turn.fetch_add(1, Relaxed);
            let one_of = |wanted: &dyn Fn(&&Arc<Endpoint>) -> bool| {
                let count = self.all.iter().filter(wanted).count();
                self.all.iter().filter(wanted).nth(number % count.max(1))
            };
            let is_another = |endpoint: &&Arc<Endpoint>| tried.last().is_none_or(|last| !Arc::ptr_eq(last, endpoint));
            one_of(&fits)
                .or_else(|| one_of(&is_untried))
                .or_else(|| one_of(&|endpoint| is_in(endpoint) && is_another(endpoint)))
                .or_else(|| one_of(&is_in))
                .or_else(|| one_of(&|_| true))
        })
    }

    /// Whether an endpoint is not in `tried`. `tried` names no endpoint twice.
    pub(crate) fn has_another(&self, tried: &[&Arc<Endpoint>]) -> bool {
        tried.len() < self.all.len()
    }
}

/// Spreads turns by smooth weighted round robin, as nginx does. In each turn every endpoint gains its weight as credit;
/// the endpoint with the most credit is chosen and pays the total weight.
fn spread(weights: &[u32]) -> Box<[u16]> {
    let total: i64 = weights.iter().map(|weight| i64::from(*weight)).sum();
    let mut credit = vec![0i64; weights.len()];
    let mut turns = Vec::new();
    for _ in 0..total {
        for (credit, weight) in credit.iter_mut().zip(weights) {
            *credit += i64::from(*weight);
        }
        let Some(richest) = (0..credit.len()).rev().max_by_key(|index| credit[*index]) else {
            break;
        };
        credit[richest] -= total;
        turns.push(u16::try_from(richest).expect("the config bounds the number of endpoints"));
    }
    turns.into()
}

#[cfg(test)]
mod tests {
    use policies::{EjectionSettings, Ejector};

    use super::*;

    #[test]
    fn heavy_endpoints_are_spread() {
        let cases: [(&[u32], &[u16]); 4] = [
            (&[1], &[0]),
            (&[1, 1], &[0, 1]),
            (&[5, 1, 1], &[0, 0, 1, 0, 2, 0, 0]),
            (&[2, 1], &[0, 1, 0]),
        ];
        for (weights, turns) in cases {
            assert_eq!(*spread(weights), *turns, "{weights:?}");
        }
    }

    fn endpoint(n: u16) -> Arc<Endpoint> {
        let url = format!("http://127.0.0.1:{n}");
        Arc::new(Endpoint::new(
            url.into(),
            HeaderValue::from_static("h"),
            "127.0.0.1".into(),
            n,
            1,
        ))
    }

    #[test]
    fn another_endpoint_is_preferred_after_a_failure() {
        let endpoints = Endpoints::new(vec![(endpoint(1), 3), (endpoint(2), 1)]);
        let first = Arc::clone(&endpoints.all()[0]);
        for _ in 0..8 {
            let chosen = endpoints.choose(&[&first], Moment::ZERO).expect("two endpoints");
            assert_eq!(chosen.url.as_ref(), "http://127.0.0.1:2");
        }
    }

    /// Ejects the first endpoint of a backend with these weights, and counts how often each endpoint is chosen.
    fn chosen_without_the_first<const N: usize>(weights: [u32; N], tried: &[usize]) -> [usize; N] {
        let weighted = (1..).zip(weights).map(|(n, weight)| (endpoint(n), weight)).collect();
        let endpoints = Endpoints::new(weighted);
        let ejector = Ejector::new(Some(EjectionSettings::default()));
        for _ in 0..5 {
            let first = &endpoints.all()[0].standing;
            ejector.record(first, endpoints.standings(), Moment::ZERO, true, Moment::ZERO);
        }
        let mut chosen = [0; N];
        for _ in 0..600 {
            let tried: Vec<_> = tried.iter().map(|index| &endpoints.all()[*index]).collect();
            let endpoint = endpoints.choose(&tried, Moment::ZERO).expect("one is always in");
            chosen[usize::from(endpoint.port) - 1] += 1;
        }
        chosen
    }

    #[test]
    fn the_turns_of_an_ejected_endpoint_are_shared_by_the_others() {
        assert_eq!(chosen_without_the_first([1, 1], &[]), [0, 600]);
        assert_eq!(chosen_without_the_first([1, 1, 1, 1], &[]), [0, 200, 200, 200]);
        assert_eq!(chosen_without_the_first([1, 2, 1], &[]), [0, 400, 200]);
        let heavy = chosen_without_the_first([100, 1, 1], &[]);
        assert!(heavy[0] == 0 && heavy[1].abs_diff(heavy[2]) < 20, "{heavy:?}");
    }

    #[test]
    fn an_endpoint_that_is_out_is_tried_when_all_that_are_in_have_failed() {
        assert_eq!(chosen_without_the_first([1, 1, 1], &[1]), [0, 0, 600]);
        assert_eq!(chosen_without_the_first([1, 1, 1], &[1, 2]), [600, 0, 0]);
        assert_eq!(chosen_without_the_first([1, 1], &[1]), [600, 0]);
        // After all have been tried, the choice is not the latest and not ejected, where possible.
        assert_eq!(chosen_without_the_first([1, 1, 1], &[0, 1, 2]), [0, 600, 0]);
        assert_eq!(chosen_without_the_first([1, 1], &[0, 1]), [0, 600]);
        assert!(Endpoints::new(vec![]).choose(&[], Moment::ZERO).is_none());
    }
}
