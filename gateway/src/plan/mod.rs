//! The compiled config: names resolved and ranges checked, so that a request has nothing left to validate.
//!
//! A plan never changes; a reload makes a new one. State that must outlive a plan (buckets, breakers, bulkheads, pools,
//! keys) is kept by name in [`State`].

#[cfg(test)]
mod adaptive_slots;
pub mod admin_token;
#[cfg(test)]
mod attempt_entries;
#[cfg(test)]
mod cached_parts;
#[cfg(test)]
mod caller_pace;
pub mod calls;
pub mod compile;
#[cfg(test)]
mod deciding_settings;
pub mod endpoint_file;
mod external_service;
mod file_turn;
#[cfg(test)]
mod hedged_calls;
mod live;
pub mod managed_files;
pub mod mirror;
pub mod outline;
pub mod own_settings;
pub mod redirect;
mod request_key;
mod revocation_expiry;
pub mod revocation_store;
mod route;
mod route_limit;
pub mod split;
mod state;
pub mod time_budget;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use policies::overload::OverloadSettings;

use self::admin_token::{AdminToken, NamedToken};
pub use self::live::LivePlan;
use self::managed_files::TenantsRead;
use self::outline::Outline;
pub use self::request_key::KeySources;
use self::revocation_store::RevocationFile;
pub use self::route::{Destination, Fallback, Route, RouteEdge, RouteSettingIds, Target};
pub use self::route_limit::RouteLimit;
pub use self::state::State;
use crate::auth::api_key::places::KeyPlaces;
use crate::auth::authenticator::Authenticator;
use crate::auth::credential_removal::CredentialFields;
use crate::auth::external::question::QuestionField;
use crate::cache::AnswerStore;
use crate::cache::responses::ResponseCache;
use crate::call::backend::Backend;
use crate::client::address::TrustedProxies;
use crate::compression::Compression;
use crate::files::{FileSet, Stamp};
use crate::headers::Via;
use crate::headers::response::ResponseHeaders;
use crate::idempotency::Records;
use crate::json::Workspace;
use crate::limits::store::TermsByOwner;
use crate::limits::store::local::account_caps::AccountLimits;
use crate::observe::Observer;
use crate::observe::tenants::Shown;
use crate::observe::traces::TraceSettings;
use crate::overload::WorkerLoads;
use crate::routing::{PathPolicy, Table};
use crate::setting::Settings;
use crate::store::StoreSettings;
use crate::tenancy::{Principal, Tiers};
use crate::tls::client_authorities::ClientAuthorities;
use crate::tls::listener::Tls;
use crate::usage::UsageSettings;
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
    pub authenticator: Authenticator<Principal>,
    pub tiers: Arc<Tiers>,
    /// Limit on failed authentications per client address.
    pub failures: Option<RouteLimit>,
    /// Backends, in the order of the config. The last one may be the external service that knows the callers.
    pub backends: Vec<Arc<Backend>>,
    pub observer: Arc<Observer>,
    /// Good responses, for routes with a stale fallback.
    pub stale: Arc<AnswerStore>,
    /// The response cache.
    pub responses: Arc<ResponseCache>,
    /// Whether any route or part uses the response cache.
    pub has_cache: bool,
    /// Memory for all stored answers, in bytes.
    pub stored_bytes: u64,
    /// Records of idempotency keys.
    pub idempotency: Arc<Records>,
    /// Memory for these in bytes, and whether answered keys make room for new ones.
    pub idempotency_room: (u64, bool),
    /// Parses JSON bodies within a memory budget.
    pub workspace: Arc<Workspace>,
    /// HTTP/2 request bodies that have arrived but are not read yet.
    pub parked: Arc<ParkedBytes>,
    /// How late the workers are.
    pub loads: Arc<WorkerLoads>,
    pub via: Via,
    /// The key file and the version that was read, if the config has API keys.
    pub key_file: Option<(PathBuf, Option<Stamp>)>,
    /// Places where an API key may come; `None` if the config has no API keys.
    pub key_places: Option<KeyPlaces>,
    /// Fields of a request that the external service gets.
    pub external_fields: Box<[QuestionField]>,
    /// Tokens of the admin API; `None` if the config names no file of them.
    pub admin_tokens: Option<Vec<NamedToken>>,
    /// The file of tenants, as it was read for this plan.
    pub tenants: Option<TenantsRead>,
    /// The revocation file, as it was read for this plan.
    pub revocations: Option<RevocationFile>,
    pub written: Written,
    /// Caps on the number of accounts whose owners the config does not name.
    pub account_limits: AccountLimits,
    /// Terms of every limit, applied when the plan takes effect.
    pub terms: Vec<(Arc<str>, TermsByOwner)>,
    /// The settings that can decide on a request.
    pub settings: Arc<Settings>,
    /// The config as written, for the admin API.
    /// Tenants that have metrics of their own; `None` shows none.
    pub metric_tenants: Option<Shown>,
    pub outline: Arc<Outline>,
}

impl Plan {
    /// Returns the fields that can carry credentials.
    pub fn credential_fields(&self) -> CredentialFields<'_> {
        CredentialFields {
            places: self.key_places.as_ref(),
            external: &self.external_fields,
        }
    }
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
    /// Connection to the store in which processes count limits together.
    pub store: Option<StoreSettings>,
    /// Export of traces; `None` exports none.
    pub tracing: Option<Arc<TraceSettings>>,
    /// What tenants use is counted; `None` counts nothing.
    pub usage: Option<Arc<UsageSettings>>,
    /// File that keeps the counts of calendar quotas.
    pub state_file: Option<PathBuf>,
    pub admin: Option<AdminAddresses>,
    /// Token of the operator, with which a request is explained in place of being served.
    pub operator_token: Option<AdminToken>,
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
    /// Maximum memory for request bodies that are held to be mirrored, in bytes.
    pub mirrored_total: u64,
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
    /// When a worker refuses newcomers; `None` is never.
    pub overload: Option<OverloadSettings>,
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
    /// Whether answers also have the fields of limits that older clients read.
    pub legacy_limit_fields: bool,
    /// Header fields for responses outside of any route.
    pub finish: Option<Arc<ResponseHeaders>>,
    /// Compression of answers that have no route.
    pub compression: Option<Arc<Compression>>,
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
