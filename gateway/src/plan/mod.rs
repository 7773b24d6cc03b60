//! What the config means: names resolved, ranges proven, nothing left to check while a request runs.
//!
//! A plan never changes; a reload makes a new one. State that must outlive it (buckets, breakers, bulkheads, pools,
//! keys) is kept beside it, by name, in [`State`].

pub mod admin_token;
#[cfg(test)]
mod caller_pace;
pub mod calls;
pub mod compile;
mod decided;
mod live;
mod long_over;
pub mod outline;
pub mod revocation_store;
mod state;
pub mod time_budget;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

pub use self::decided::EdgePlaces;
pub use self::live::LivePlan;
use self::outline::Outline;
use self::revocation_store::RevocationFile;
pub use self::state::State;
use crate::aggregate;
use crate::auth::access::Access;
use crate::auth::api_key::places::KeyPlaces;
use crate::auth::authenticator::Authenticator;
use crate::auth::taken::Forward;
use crate::call::backend::Backend;
use crate::client::address::TrustedProxies;
use crate::client::address_list::AddressList;
use crate::files::FileSet;
use crate::headers::response::ResponseHeaders;
use crate::headers::rules::HeaderRules;
use crate::headers::{MethodOverride, Via};
use crate::json::Workspace;
use crate::limits::account::Terms;
use crate::limits::accounts::{Origin, TermsByOwner};
use crate::limits::owner::{Credential, Owner};
use crate::limits::rooms::AccountLimits;
use crate::limits::{self, Charge, Limit, LimitHandle, Per};
use crate::observe::{FallbackKind, Observer, RouteMetrics};
use crate::routing::{PathPolicy, Table};
use crate::stale_cache::StaleCache;
use crate::template::Template;
use crate::tenancy::{Principal, Tiers};
use crate::tls::client_authorities::ClientAuthorities;
use crate::tls::listener::Tls;
use crate::wire::parked::ParkedBytes;
use crate::wire::slow_caller::Rates;

/// Everything a request meets, in force at once.
pub struct Plan {
    /// Counts the plans of this process, from 1.
    pub generation: u64,
    pub edge: Edge,
    pub time: TimeLimits,
    pub routes: Table<Arc<Route>>,
    /// The same routes in declared order.
    pub listed: Vec<Arc<Route>>,
    /// Of all routes, in the order they are tried; none if what is odd is refused everywhere.
    pub path_policies: Vec<PathPolicy>,
    pub doorman: Authenticator<Principal>,
    pub tiers: Arc<Tiers>,
    /// Failed authentications per client address.
    pub failures: Option<RouteLimit>,
    pub backends: Vec<Arc<Backend>>,
    pub observer: Arc<Observer>,
    /// Good answers, for when backends fail.
    pub stale: Arc<StaleCache>,
    /// Where JSON is read.
    pub workspace: Arc<Workspace>,
    /// What callers have sent ahead of being read.
    pub parked: Arc<ParkedBytes>,
    pub via: Via,
    /// Where API keys may come, if not in their header alone.
    pub key_places: Option<KeyPlaces>,
    /// Keeps what is revoked, as it was read.
    pub revocations: Option<RevocationFile>,
    pub written: Written,
    /// How many accounts there may be of owners that nobody wrote down.
    pub account_limits: AccountLimits,
    /// What every limit grants, for the moment the plan takes effect.
    pub terms: Vec<(Arc<str>, TermsByOwner)>,
    /// What was written, for the admin API.
    pub outline: Arc<Outline>,
}

/// What the plan was made of, to be made again when a file changes.
pub struct Written {
    /// The config.
    pub text: Arc<str>,
    /// The files that it names, as they were read; empty if nobody is to look after them.
    pub files: FileSet,
    /// The file of revocations, which is looked after by itself.
    pub revocations: FileSet,
}

/// What holds for every connection and head.
pub struct Edge {
    /// In the same order as the sockets that are bound.
    pub listeners: Vec<Listener>,
    pub workers: usize,
    /// Keeps what calendar quotas have counted.
    pub state_file: Option<PathBuf>,
    pub admin: Option<AdminAddresses>,
    pub trusted: TrustedProxies,
    /// IPv6 callers are told apart by this many bits.
    pub ipv6_prefix: u8,
    /// Bytes of a request's target.
    pub uri_limit: usize,
    /// Bytes of a whole head.
    pub head_limit: usize,
    /// Field lines.
    pub header_limit: usize,
    /// Bytes of JSON that are held at once.
    pub json_total: u64,
    /// Bytes of HTTP/2 uploads that are held before they are read.
    pub parked_total: u64,
    /// Connections at once; of one client address; requests of one connection; of these at once, where they share it.
    pub most_connections: usize,
    pub most_per_address: Option<u32>,
    pub most_requests: Option<u32>,
    /// TLS handshakes of one client address at once.
    pub most_handshakes_per_address: u32,
    /// Of the time of each worker, for TLS handshakes; `None` is all of it.
    pub handshake_share: Option<policies::Share>,
    pub most_streams: u32,
    pub rates: Option<Rates>,
    /// The longest wait for a first byte, for a head, between requests, and for a caller that does not read.
    pub first_byte: Duration,
    pub head: Duration,
    pub idle: Duration,
    pub write: Duration,
    pub drain_notice: Duration,
    pub drain: Duration,
    /// Of answers that no route gives.
    pub finish: Option<Arc<ResponseHeaders>>,
    /// Where these limits stand.
    pub places: Arc<EdgePlaces>,
}

/// Where operators and probes connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdminAddresses {
    pub address: SocketAddr,
    /// For probes alone.
    pub health: Option<SocketAddr>,
}

/// Where callers connect. The address is taken once; how it is spoken there is looked up for each connection.
pub struct Listener {
    pub name: String,
    pub address: SocketAddr,
    /// Plain HTTP without.
    pub tls: Option<Tls>,
    pub protocols: Protocols,
    /// Whether each connection must say first for whom it was opened.
    pub proxy_protocol: bool,
}

/// What callers may speak. Under TLS it is what they are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocols {
    Http1,
    Http2,
    Both,
}

impl Edge {
    /// What is bound at the start and stays.
    pub fn addresses(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        self.listeners
            .iter()
            .map(|listener| (listener.name.as_str(), listener.address))
    }

    /// Who vouches for the certificates of callers on the listener at this place.
    pub fn client_authorities(&self, listener: usize) -> Option<&ClientAuthorities> {
        self.listeners
            .get(listener)?
            .tls
            .as_ref()?
            .client_authorities
            .as_deref()
    }
}

pub struct TimeLimits {
    /// The most a request may take: what the config calls request, less the reserve.
    pub request: Duration,
    /// Nothing starts that would leave less.
    pub minimum: Duration,
}

/// A route as meant.
pub struct Route {
    pub name: Arc<str>,
    pub access: Access,
    pub limits: Vec<RouteLimit>,
    /// Tokens a request takes from each of its limits that does not say otherwise.
    pub cost: u64,
    /// Where the backend's answer says what the request cost after all.
    pub cost_header: Option<HeaderName>,
    /// The smallest limit written for it.
    pub time_limit: Duration,
    pub stream: bool,
    /// Bytes.
    pub body_limit: u64,
    pub forward_credential: Forward,
    pub edge: RouteEdge,
    /// What is answered when its backend gives no good answer, tried in order.
    pub fallbacks: Vec<Fallback>,
    pub target: Target,
    pub metrics: Arc<RouteMetrics>,
}

/// What a route asks for beyond being found and used; most ask for nothing.
pub struct RouteEdge {
    pub addresses: Option<AddressList>,
    pub request_rules: Option<HeaderRules>,
    pub finish: Option<Arc<ResponseHeaders>>,
    pub path_policy: PathPolicy,
    pub method_override: MethodOverride,
    /// Whether a caller may turn its connection into a WebSocket.
    pub upgrades: bool,
}

/// What stands in for the answer of a route's backend.
pub enum Fallback {
    /// A JSON text.
    Value(Bytes),
    /// The last good answer to the same request, if it is no older.
    Stale(Duration),
    Backend(Arc<Backend>),
}

impl Fallback {
    pub const fn kind(&self) -> FallbackKind {
        match self {
            Self::Value(_) => FallbackKind::Value,
            Self::Stale(_) => FallbackKind::Stale,
            Self::Backend(_) => FallbackKind::Backend,
        }
    }
}

pub enum Target {
    Backend {
        backend: Arc<Backend>,
        rewrite: Option<Template>,
    },
    Aggregate(aggregate::Aggregate),
    Respond {
        status: StatusCode,
        headers: HeaderMap,
        body: Bytes,
    },
}

/// A limit that is not a tier's.
pub struct RouteLimit {
    pub limit: Arc<Limit>,
    pub terms: Terms,
    policy: HeaderValue,
}

impl RouteLimit {
    pub fn new(limit: Arc<Limit>, terms: Terms) -> Self {
        Self {
            policy: limits::granted(&limit.name, &terms),
            limit,
            terms,
        }
    }

    /// The charge to the caller's account, for a request that costs `cost` where the limit does not say otherwise.
    pub fn charge(&self, known: &Principal, address: IpAddr, route: &str, cost: u64) -> Charge {
        let caller = &known.caller;
        let written = |is_written: bool| if is_written { Origin::Written } else { Origin::Request };
        let (owner, origin) = match (self.limit.per, caller.kind.credential()) {
            (Per::Route, _) => (Owner::Route(route), Origin::Written),
            (Per::Global, _) => (Owner::Everyone, Origin::Written),
            // Anonymous callers have no tenant of their own; each address is one.
            (Per::ClientAddress, _) | (_, None) => (Owner::Address(address), Origin::Request),
            (Per::Tenant, _) => (Owner::Tenant(&caller.tenant), written(known.is_tenant_written)),
            (Per::Caller, Some(shown)) => {
                // Subjects and names in certificates are whatever their issuers sign.
                let is_listed = matches!(shown, Credential::ApiKey | Credential::Password);
                (Owner::Caller(&caller.tenant, shown, &caller.id), written(is_listed))
            }
        };
        self.hold(owner, origin).charge(cost)
    }

    pub fn hold(&self, owner: Owner<'_>, origin: Origin) -> Arc<LimitHandle> {
        let (limit, policy) = (Arc::clone(&self.limit), self.policy.clone());
        Arc::new(LimitHandle::with(limit, owner, self.terms, origin, policy))
    }
}
