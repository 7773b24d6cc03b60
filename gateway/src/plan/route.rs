//! A compiled route: who may use it, what it charges, and what answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, StatusCode};

use crate::aggregate;
use crate::auth::access::Access;
use crate::auth::credential_removal::Forward;
use crate::cache::responses::CacheTerms;
use crate::call::backend::Backend;
use crate::call::hedge::Hedge;
use crate::client::address_list::AddressList;
use crate::compression::Compression;
use crate::headers::response::ResponseHeaders;
use crate::headers::rules::HeaderRules;
use crate::headers::{AddedHeaders, MethodOverride};
use crate::idempotency::IdempotencyTerms;
use crate::message::FieldMap;
use crate::metering::Metering;
use crate::observe::{FallbackKind, RouteMetrics};
use crate::plan::mirror::RouteMirror;
use crate::plan::redirect::Redirect;
use crate::plan::route_limit::RouteLimit;
use crate::plan::split::Split;
use crate::request_key::RequestKey;
use crate::routing::PathPolicy;
use crate::setting::{Configured, SettingId};
use crate::template::Template;

/// A compiled route.
pub struct Route {
    pub name: Arc<str>,
    pub access: Access,
    pub limits: Vec<RouteLimit>,
    /// Tokens that a request takes from each limit without a cost of its own.
    pub cost: u64,
    /// Response field in which the backend states the actual cost of the request.
    pub cost_header: Option<Arc<HeaderName>>,
    /// How the cost of a request is measured; `None` if it is not.
    pub metering: Option<Arc<Metering>>,
    /// Maximum time of a request on this route: the route's own limit, or that of all requests.
    pub time_limit: Duration,
    pub stream: bool,
    /// Maximum size of a request body, in bytes.
    pub body_limit: Configured<u64>,
    pub forward_credential: Forward,
    pub edge: RouteEdge,
    /// Keys by which the route's backends choose their endpoints, each once.
    pub hash_keys: Vec<RequestKey>,
    /// Fallbacks if the backend gives no good response, in the order of trial.
    pub fallbacks: Vec<Fallback>,
    /// Terms of stored answers; `None` on routes without a cache.
    pub cache: Option<Arc<CacheTerms>>,
    /// Terms of requests that are done once; `None` on routes without `idempotency`.
    pub idempotency: Option<Arc<IdempotencyTerms>>,
    /// Terms of second attempts; `None` without them.
    pub hedge: Option<Arc<Hedge>>,
    /// Requests that another backend gets a copy of; boxed, because most routes have none.
    pub mirror: Option<Box<RouteMirror>>,
    pub target: Target,
    pub metrics: Arc<RouteMetrics>,
    pub ids: RouteSettingIds,
}

/// Ids of the settings that can decide on a request of a route and that nothing else of the route holds.
#[derive(Debug, Clone, Copy)]
pub struct RouteSettingIds {
    pub time_limit: SettingId,
    pub path_policy: SettingId,
    pub upgrade: SettingId,
}

/// Optional rules of a route for addresses, header fields, paths and connections. Most routes have none.
pub struct RouteEdge {
    pub addresses: Option<AddressList>,
    pub request_rules: Option<HeaderRules>,
    pub finish: Option<Arc<ResponseHeaders>>,
    pub compression: Option<Arc<Compression>>,
    pub added: AddedHeaders,
    /// Whether anything between the decision and the backend looks at the head of a request, the added fields included.
    pub is_head_read: bool,
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
    Split {
        split: Split,
        rewrite: Option<Template>,
    },
    Aggregate(aggregate::Aggregate),
    Respond {
        status: StatusCode,
        headers: FieldMap,
        body: Bytes,
        /// Whether the body is the caller's own plan.
        tells_limits: bool,
    },
    Redirect(Redirect),
}

/// What answers one request: its route's target, with the backend that was chosen.
#[derive(Clone, Copy)]
pub enum Destination<'r> {
    Backend {
        backend: &'r Arc<Backend>,
        rewrite: Option<&'r Template>,
    },
    Aggregate(&'r aggregate::Aggregate),
    Respond {
        status: StatusCode,
        headers: &'r FieldMap,
        body: &'r Bytes,
        tells_limits: bool,
    },
    Redirect(&'r Redirect),
}

impl Target {
    /// Returns what answers a request. `chosen` is the backend that [`Split::choose`] returned, if there are several.
    pub fn destination<'r>(&'r self, chosen: Option<&'r Arc<Backend>>) -> Destination<'r> {
        match self {
            Self::Backend { backend, rewrite } => Destination::Backend {
                backend,
                rewrite: rewrite.as_ref(),
            },
            Self::Split { split, rewrite } => Destination::Backend {
                backend: chosen.unwrap_or_else(|| split.last()),
                rewrite: rewrite.as_ref(),
            },
            Self::Aggregate(aggregate) => Destination::Aggregate(aggregate),
            Self::Respond {
                status,
                headers,
                body,
                tells_limits,
            } => Destination::Respond {
                status: *status,
                headers,
                body,
                tells_limits: *tells_limits,
            },
            Self::Redirect(redirect) => Destination::Redirect(redirect),
        }
    }
}
