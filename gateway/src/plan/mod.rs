//! The compiled config: names resolved and ranges checked, so that a request has nothing left to validate.
//!
//! A plan never changes; a reload makes a new one. State that must outlive a plan (buckets, breakers, bulkheads, pools,
//! keys) is kept by name in [`State`].

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

/// Everything that a request needs, in force as a whole.
pub struct Plan {
    /// Number of this plan in the process, from 1.
    pub generation: u64,
    pub edge: Edge,
    pub time: TimeLimits,
    pub routes: Table<Arc<Route>>,
    /// The same routes in the order of the config.
    pub listed: Vec<Arc<Route>>,
    /// Path policies of all routes, in the order of trial; empty if every route refuses ambiguous paths.
    pub path_policies: Vec<PathPolicy>,
    pub doorman: Authenticator<Principal>,
    pub tiers: Arc<Tiers>,
    /// Limit on failed authentications per client address.
    pub failures: Option<RouteLimit>,
    pub backends: Vec<Arc<Backend>>,
    pub observer: Arc<Observer>,
    /// Good responses, for routes with a stale fallback.
    pub stale: Arc<StaleCache>,
    /// Parses JSON bodies within a memory budget.
    pub workspace: Arc<Workspace>,
    /// HTTP/2 request bodies that have arrived but are not read yet.
    pub parked: Arc<ParkedBytes>,
    pub via: Via,
    /// Places where an API key may come; `None` if the config has no API keys.
    pub key_places: Option<KeyPlaces>,
    /// The revocation file, as it was read for this plan.
    pub revocations: Option<RevocationFile>,
    pub written: Written,
    /// Caps on the number of accounts whose owners the config does not name.
    pub account_limits: AccountLimits,
    /// Terms of every limit, applied when the plan takes effect.
    pub terms: Vec<(Arc<str>, TermsByOwner)>,
    /// The config as written, for the admin API.
    pub outline: Arc<Outline>,
}

/// The text and the files that the plan was compiled from. A change of one of them triggers a reload.
pub struct Written {
    /// Text of the config file.
    pub text: Arc<str>,
    /// Files named in the config, as they were read; empty if `watch` is off.
    pub files: FileSet,
    /// The revocation file. It is watched separately.
    pub revocations: FileSet,
}

/// Settings for all connections and request heads.
pub struct Edge {
    /// Listeners, in the order of the bound sockets.
    pub listeners: Vec<Listener>,
    pub workers: usize,
    /// File that keeps the counts of calendar quotas.
    pub state_file: Option<PathBuf>,
    pub admin: Option<AdminAddresses>,
    pub trusted: TrustedProxies,
    /// Prefix length in bits by which IPv6 callers are told apart.
    pub ipv6_prefix: u8,
    /// Maximum length of a request target, in bytes.
    pub uri_limit: usize,
    /// Maximum size of a request head, in bytes.
    pub head_limit: usize,
    /// Maximum number of field lines in a head.
    pub header_limit: usize,
    /// Maximum memory for JSON in all requests together, in bytes.
    pub json_total: u64,
    /// Maximum size of HTTP/2 request bodies that are held unread, in bytes.
    pub parked_total: u64,
    /// Maximum number of open connections.
    pub most_connections: usize,
    /// Maximum number of open connections per client address.
    pub most_per_address: Option<u32>,
    /// Maximum number of requests on one connection.
    pub most_requests: Option<u32>,
    /// Maximum number of concurrent TLS handshakes per client address.
    pub most_handshakes_per_address: u32,
    /// Share of each worker's time for TLS handshakes; `None` sets no limit.
    pub handshake_share: Option<policies::Share>,
    /// Maximum number of concurrent requests on one HTTP/2 connection.
    pub most_streams: u32,
    pub rates: Option<Rates>,
    /// Longest wait for the first byte of a connection.
    pub first_byte: Duration,
    /// Longest wait for a complete request head.
    pub head: Duration,
    /// Longest wait for the next request on a connection.
    pub idle: Duration,
    /// Longest wait for a caller that does not read its response.
    pub write: Duration,
    pub drain_notice: Duration,
    pub drain: Duration,
    /// Header fields for responses outside of any route.
    pub finish: Option<Arc<ResponseHeaders>>,
    /// Places of these settings in the config.
    pub places: Arc<EdgePlaces>,
}

/// Addresses of the admin API and of the health probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdminAddresses {
    pub address: SocketAddr,
    /// Address that serves health probes only.
    pub health: Option<SocketAddr>,
}

/// An address where callers connect. The address is bound once; TLS and protocol settings are read for each connection.
pub struct Listener {
    pub name: String,
    pub address: SocketAddr,
    /// TLS settings; `None` is plain HTTP.
    pub tls: Option<Tls>,
    pub protocols: Protocols,
    /// True if each connection must start with a PROXY protocol header.
    pub proxy_protocol: bool,
}

/// HTTP versions that a listener accepts. Under TLS they are offered by ALPN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocols {
    Http1,
    Http2,
    Both,
}

impl Edge {
    /// Names and addresses that are bound at the start and then never change.
    pub fn addresses(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        self.listeners
            .iter()
            .map(|listener| (listener.name.as_str(), listener.address))
    }

    /// Returns the trusted certificate authorities for callers on the listener with this index.
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
    /// Maximum time of a request: `time_limits.request` minus the reserve.
    pub request: Duration,
    /// Minimum time that must be left for a step to start.
    pub minimum: Duration,
}

/// A compiled route.
pub struct Route {
    pub name: Arc<str>,
    pub access: Access,
    pub limits: Vec<RouteLimit>,
    /// Tokens that a request takes from each limit without a cost of its own.
    pub cost: u64,
    /// Response field in which the backend states the actual cost of the request.
    pub cost_header: Option<HeaderName>,
    /// Maximum time of a request on this route: the route's own limit, or that of all requests.
    pub time_limit: Duration,
    pub stream: bool,
    /// Maximum size of a request body, in bytes.
    pub body_limit: u64,
    pub forward_credential: Forward,
    pub edge: RouteEdge,
    /// Fallbacks if the backend gives no good response, in the order of trial.
    pub fallbacks: Vec<Fallback>,
    pub target: Target,
    pub metrics: Arc<RouteMetrics>,
}

/// Optional rules of a route for addresses, header fields, paths and connections. Most routes have none.
pub struct RouteEdge {
    pub addresses: Option<AddressList>,
    pub request_rules: Option<HeaderRules>,
    pub finish: Option<Arc<ResponseHeaders>>,
    pub path_policy: PathPolicy,
    pub method_override: MethodOverride,
    /// True if a caller may switch to a WebSocket.
    pub upgrades: bool,
}

/// A substitute for a failed response of a route's backend.
pub enum Fallback {
    /// A fixed JSON text.
    Value(Bytes),
    /// The last good response to the same request, up to this age.
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

/// A limit of a route or of failed authentications, in contrast to the limits of a tier.
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

    /// Returns the charge to the account of the caller. `cost` applies if the limit has no cost of its own.
    pub fn charge(&self, known: &Principal, address: IpAddr, route: &str, cost: u64) -> Charge {
        let caller = &known.caller;
        let written = |is_written: bool| if is_written { Origin::Written } else { Origin::Request };
        let (owner, origin) = match (self.limit.per, caller.kind.credential()) {
            (Per::Route, _) => (Owner::Route(route), Origin::Written),
            (Per::Global, _) => (Owner::Everyone, Origin::Written),
            // An anonymous caller has no tenant, so its address takes the tenant's place.
            (Per::ClientAddress, _) | (_, None) => (Owner::Address(address), Origin::Request),
            (Per::Tenant, _) => (Owner::Tenant(&caller.tenant), written(known.is_tenant_written)),
            (Per::Caller, Some(shown)) => {
                // Token subjects and certificate names are unbounded: the issuer chooses them.
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
