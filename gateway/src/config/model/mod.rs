//! The config language: one struct a section, its keys in the order one would write them, defaults in the doc lines.
//!
//! Says only what was *written*: names are not resolved here, and limits are not held against each other. What a
//! value can be on its own account (its kind, its range) has been proven by the time it is in one of these. An entry
//! with a mistake is left out, so that the rest can be checked.

mod account_limits;
mod added_headers;
mod aggregate;
mod backend;
mod backend_tls;
mod balance;
mod breaker;
mod cache;
mod callers;
mod compression;
mod connection_limits;
mod cors;
mod cost;
mod endpoint;
mod endpoints;
mod external;
mod fallback;
mod forward;
mod header_rules;
mod health;
mod hedge;
mod http_values;
mod idempotency;
mod limit;
mod limits_store;
mod listener;
mod matches;
mod metrics;
mod mirror;
mod mtls;
mod overload;
mod part;
mod path_policy;
mod ranges;
mod redirect;
mod request_key;
mod retry;
mod route;
mod shape;
mod split;
mod tier;
mod tls;
mod tracing;
mod usage;

pub use account_limits::AccountLimits;
pub use added_headers::AddedHeaders;
pub use aggregate::{Aggregate, Conflict, Errors, Partial};
pub use backend::{Backend, Bulkhead, Connections, Informational, Protocol, SlotLimit};
pub use backend_tls::BackendTls;
pub use balance::Balance;
pub use breaker::{Adaptive, Breaker, Ejection, Slow};
pub use cache::{Cache, CacheScope, CallerDirectives, RouteCache};
pub use callers::{
    Algorithm, Anonymous, AnonymousBy, ApiKeys, Basic, Callers, Failures, ISSUERS, Jwt, JwtKeys, KeyPlace, KeysUrl,
    Pointer, Revocations, Secret, TokenType, Verifications,
};
pub use compression::{Compression, CompressionLevels, OwnCompression};
pub use connection_limits::{ConnectionLimits, MinimumRates};
pub use cors::{Cors, Origin, OwnCors};
pub use cost::{MeasuredCost, ReservedCost, UsagePath};
pub use endpoint::{Endpoint, EndpointUrl};
pub use endpoints::{EndpointSource, Endpoints, HostName, KubernetesService, Scheme, SlicePort};
pub use external::{External, ExternalCache, ExternalField, RequestFact, ServiceUrl};
pub use fallback::Fallback;
pub use forward::ForwardedField;
pub use header_rules::{HeaderRules, Headers, SecurityHeaders};
pub use health::{Health, ProbePath, StatusRange, WhenNoneIsUp};
pub use hedge::{Hedge, HedgeAfter};
pub use idempotency::{Idempotency, IdempotencyScope, IdempotencyWhenDown, RouteIdempotency, WhenFull};
pub use limit::{Every, Kind, Limit, Measure, Mode, Per, Quota, RateLimit};
pub use limits_store::{Counted, LimitsStore, Redis, StoreTls, WhenDown};
pub use listener::{
    AccessLog, Admin, ClientAddress, HttpVersion, Listener, ProxyProtocol, RequestLimits, TimeLimits, Workers,
};
pub use matches::{Match, Wanted};
pub use metrics::{MetricTenants, Metrics};
pub use mirror::{Compare, Mirror, MirroredBody};
pub use mtls::{CertificateName, DnsName, Identity, Mtls, UriName};
pub use overload::Overload;
pub use part::{ForEach, OnFailure, OnMissing, Part, Subject, Test, When};
pub use path_policy::{DotSegments, PathAction, PathPolicy};
pub use redirect::Redirect;
pub use retry::{Jitter, Retry, RetryOn};
pub use route::{Access, Addresses, Body, Credential, MethodOverride, Respond, Route, Target, Upgrade};
pub use shape::{CallersFields, ElementShape};
pub use split::{SplitEntry, SplitWhen};
pub(super) use tier::check_tenant;
pub use tier::{Tenant, Tier};
pub use tls::{CertificateFiles, ClientCertificates, Tls, TlsVersion};
pub use tracing::{Otlp, Tracing};
pub use usage::{PushToken, Usage, UsagePush};

use std::path::PathBuf;

use super::named::NamedMap;
use super::reader::Read;
use super::span::At;
use super::value::Value;

/// The whole file. Everything but `listeners` and `routes` may be left out.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Threads that serve requests; `auto` is one per core that the process may use.
    pub workers: At<Workers>,
    /// Addresses that callers connect to; at least one.
    pub listeners: NamedMap<Listener>,
    /// How the address of a caller is found behind proxies.
    pub client_address: ClientAddress,
    /// Address of the admin API, the metrics and the dashboard.
    pub admin: Option<Admin>,
    /// Time limits that hold for every request.
    pub time_limits: TimeLimits,
    /// How large a request may be.
    pub request_limits: RequestLimits,
    /// How many connections callers may open.
    pub connection_limits: ConnectionLimits,
    /// How many tenants, callers and addresses the limits count one by one.
    pub account_limits: AccountLimits,
    /// How slowly a caller may send and read.
    pub minimum_rates: Option<MinimumRates>,
    /// When a worker refuses newcomers because it cannot keep up.
    pub overload: Option<Overload>,
    /// Cross-origin rules (CORS) of every route that has no `cors` of its own.
    pub cors: Option<Cors>,
    /// Answers that are compressed, on every route that has no `compression` of its own. Left out, none are.
    pub compression: Option<Compression>,
    /// Security header fields of every answer whose route does not say otherwise. `api`: for answers that no browser
    /// shows. `page`: for pages.
    pub security_headers: At<SecurityHeaders>,
    /// Header fields that the gateway adds.
    pub added_headers: AddedHeaders,
    /// What happens to a path that another server could read differently.
    pub path_policy: PathPolicy,
    /// Where a line for each request is written.
    pub access_log: AccessLog,
    /// Which traces are sent to a collector. Left out, none are.
    pub tracing: Option<Tracing>,
    /// Metrics beside those of the config's own names.
    pub metrics: Metrics,
    /// Whether answers also have `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset`, which older
    /// clients read, beside `RateLimit`.
    pub legacy_limit_fields: At<bool>,
    /// What tenants use, counted by route, key and minute. Left out, or `off`, it is not counted.
    pub usage: Option<Usage>,
    /// Which credentials are taken, and what they stand for.
    pub callers: Callers,
    /// Limits by tier. `free`, `basic`, `premium` and `enterprise` exist already; what is written here overrides them
    /// or adds others.
    pub tiers: NamedMap<Tier>,
    /// Tier of a caller for whom nothing else names one.
    pub default_tier: At<String>,
    /// Tenants whose terms differ from those of their tier, by name. `file: tenants.yaml` names a file with more of
    /// them, under its own key `tenants`; the admin API changes those, and a change of the file needs no reload.
    pub tenants: NamedMap<Tenant>,
    /// File with more tenants, written as `file` within `tenants`.
    pub tenants_file: Option<At<PathBuf>>,
    /// Whether the files that the config names (keys, secrets, certificates) are read again when they change. The
    /// config itself is read again by `SIGHUP` or the admin API.
    pub watch: At<bool>,
    /// File that keeps the counts of calendar quotas over a restart. Left out, they begin at 0 with each start.
    pub state_file: Option<At<PathBuf>>,
    /// Store in which several processes count limits together. Left out, each process counts alone.
    pub limits_store: Option<LimitsStore>,
    /// Services behind the gateway, by the name that routes use.
    pub backends: NamedMap<Backend>,
    /// What callers can ask for; at least one.
    pub routes: NamedMap<Route>,
    /// The store of answers.
    pub cache: Cache,
    /// The store of idempotency keys.
    pub idempotency: Idempotency,
}

impl Read for Config {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            f.not_built(&["store", "tls", "plugins"]);
            let listeners = f.required_map("listeners");
            let client_address = f.section_anyway("client_address");
            let admin = f.sound(|f| f.section_or_off("admin"));
            let time_limits = f.section_anyway("time_limits");
            let request_limits = f.section_anyway("request_limits");
            let connection_limits = f.section_anyway("connection_limits");
            let account_limits = f.section_anyway("account_limits");
            let minimum_rates = f.sound(|f| f.section_or_off("minimum_rates"));
            let overload = f.sound(|f| f.section_or_off("overload"));
            let cors = f.sound(|f| f.optional("cors"));
            let compression = f.sound(|f| f.optional("compression"));
            let security_headers = f.or("security_headers", SecurityHeaders::Off);
            let added_headers = f.section_anyway("added_headers");
            let path_policy = f.section_anyway("path_policy");
            let access_log = f.sound(|f| f.optional("access_log")).unwrap_or(AccessLog::Stdout);
            let tracing = f.sound(|f| f.optional("tracing"));
            let metrics = f.section_anyway("metrics");
            let usage = f.sound(|f| f.optional("usage"));
            let callers = f.section("callers").or_else(|| f.default_section("callers"));
            let tiers = tier::tiers(f);
            let (tenants, tenants_file) = tier::tenants(f);
            let state_file = f.other_path("state_file");
            let limits_store = f.sound(|f| f.optional("limits_store"));
            let backends = f.named("backends");
            let routes = f.required_map("routes");
            let cache = f.section_anyway("cache");
            let idempotency = f.section_anyway("idempotency");
            Some(Self {
                callers: callers?,
                workers: f.or("workers", Workers::Auto),
                watch: f.or("watch", true),
                legacy_limit_fields: f.or("legacy_limit_fields", false),
                default_tier: f.or("default_tier", "free".to_owned()),
                listeners: listeners.unwrap_or_else(NamedMap::unreadable),
                client_address: client_address?,
                admin,
                time_limits: time_limits?,
                request_limits: request_limits?,
                connection_limits: connection_limits?,
                account_limits: account_limits?,
                minimum_rates,
                cache: cache?,
                idempotency: idempotency?,
                overload,
                cors,
                compression,
                security_headers,
                added_headers: added_headers?,
                path_policy: path_policy?,
                access_log,
                tracing,
                metrics: metrics?,
                usage,
                tiers,
                tenants,
                tenants_file,
                state_file,
                limits_store,
                backends,
                routes: routes.unwrap_or_else(NamedMap::unreadable),
            })
        })?
    }
}
