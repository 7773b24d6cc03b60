//! The config language: one struct a section, its keys in the order one would write them, defaults in the doc lines.
//!
//! Says only what was *written*: names are not resolved here, and limits are not held against each other. What a
//! value can be on its own account (its kind, its range) has been proven by the time it is in one of these.

mod account_limits;
mod aggregate;
mod backend;
mod backend_tls;
mod breaker;
mod callers;
mod connection_limits;
mod cors;
mod fallback;
mod header_rules;
mod limit;
mod listener;
mod mtls;
mod part;
mod path_policy;
mod retry;
mod route;
mod tier;
mod tls;

pub use account_limits::AccountLimits;
pub use aggregate::{Aggregate, Conflict, Errors, Partial};
pub use backend::{Backend, Bulkhead, Connections, Endpoint, EndpointUrl, Protocol};
pub use backend_tls::BackendTls;
pub use breaker::{Adaptive, Breaker, Ejection, Slow};
pub use callers::{
    Algorithm, Anonymous, AnonymousBy, ApiKeys, Basic, Callers, Failures, Jwt, JwtKeys, KeyPlace, KeysUrl, Pointer,
    Revocations, Secret, TokenType, Verifications,
};
pub use connection_limits::{ConnectionLimits, MinimumRates};
pub use cors::{Cors, Origin, OwnCors};
pub use fallback::Fallback;
pub use header_rules::{HeaderRules, Headers, SecurityHeaders};
pub use limit::{Every, Kind, Limit, Measure, Mode, Per, Quota, RateLimit};
pub use listener::{
    AccessLog, Admin, ClientAddress, HttpVersion, Listener, ProxyProtocol, RequestLimits, TimeLimits, Workers,
};
pub use mtls::{CertificateName, DnsName, Identity, Mtls, UriName};
pub use part::{ForEach, OnFailure, OnMissing, Part, Subject, Test, When};
pub use path_policy::{DotSegments, PathAction, PathPolicy};
pub use retry::{Jitter, Retry, RetryOn};
pub use route::{Access, Addresses, Body, Credential, Match, MethodOverride, Respond, Route, Target, Upgrade};
pub(super) use tier::check_tenant;
pub use tier::{Tenant, Tier};
pub use tls::{CertificateFiles, ClientCertificates, Tls, TlsVersion};

use std::path::PathBuf;

use super::named::NamedMap;
use super::reader::{Read, Value};
use super::span::At;

/// A whole config file.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Threads that serve requests; default `auto`, one per core.
    pub workers: At<Workers>,
    /// At least one.
    pub listeners: NamedMap<Listener>,
    pub client_address: ClientAddress,
    /// Default 127.0.0.1:9900; `None` is `off`.
    pub admin: Option<Admin>,
    pub time_limits: TimeLimits,
    pub request_limits: RequestLimits,
    pub connection_limits: ConnectionLimits,
    pub account_limits: AccountLimits,
    /// `None` is `off`.
    pub minimum_rates: Option<MinimumRates>,
    /// For routes that have no section of their own.
    pub cors: Option<Cors>,
    /// For routes that do not say otherwise; default `off`.
    pub security_headers: At<SecurityHeaders>,
    pub path_policy: PathPolicy,
    pub access_log: AccessLog,
    pub callers: Callers,
    /// The four built-in tiers first, then the others in the order written.
    pub tiers: NamedMap<Tier>,
    /// The tier of whoever has no other; default `free`.
    pub default_tier: At<String>,
    pub tenants: NamedMap<Tenant>,
    /// Whether files that the config names (keys, secrets, certificates) are read again when they change; default true.
    /// The config itself is read again when it is told to.
    pub watch: At<bool>,
    /// Keeps the counts of calendar quotas over a restart; left out, they begin anew with each start.
    pub state_file: Option<At<PathBuf>>,
    pub backends: NamedMap<Backend>,
    /// At least one.
    pub routes: NamedMap<Route>,
}

impl Read for Config {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            f.not_built(&["store", "tracing", "tls", "plugins"]);
            let listeners = f.required_map("listeners");
            let client_address = f.section("client_address");
            let admin = f.section_or_off("admin");
            let time_limits = f.section("time_limits");
            let request_limits = f.section("request_limits");
            let connection_limits = f.section("connection_limits");
            let account_limits = f.section("account_limits");
            let minimum_rates = f.section_or_off("minimum_rates");
            let cors = f.optional("cors");
            let security_headers = f.or("security_headers", SecurityHeaders::Off);
            let path_policy = f.section("path_policy");
            let access_log = f.optional("access_log").unwrap_or(AccessLog::Stdout);
            let callers = f.section("callers");
            let tiers = tier::tiers(f);
            let tenants = tier::tenants(f);
            let state_file = f.path("state_file");
            let backends = f.optional("backends").unwrap_or_default();
            let routes = f.required_map("routes");
            Some(Self {
                workers: f.or("workers", Workers::Auto),
                watch: f.or("watch", true),
                default_tier: f.or("default_tier", "free".to_owned()),
                listeners: listeners?,
                client_address: client_address?,
                admin,
                time_limits: time_limits?,
                request_limits: request_limits?,
                connection_limits: connection_limits?,
                account_limits: account_limits?,
                minimum_rates,
                cors,
                security_headers,
                path_policy: path_policy?,
                access_log,
                callers: callers?,
                tiers,
                tenants,
                state_file,
                backends,
                routes: routes?,
            })
        })?
    }
}
