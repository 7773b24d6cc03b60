//! The config as written, with defaults and line numbers, so that the admin API can show which setting is in force.
//!
//! Only the admin API reads it; requests do not.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use crate::plan::calls::FanOut;
use crate::plan::time_budget::TimeBudget;
use crate::setting::{self, Location};

/// The config that a plan was compiled from.
#[derive(Debug)]
pub struct Outline {
    /// Routes, in the order of the config.
    pub routes: Vec<RouteOutline>,
    /// Location of each written setting, by its path in the config.
    pub(super) places: HashMap<String, Location>,
}

/// A route as written, with defaults filled in.
#[derive(Debug, Serialize)]
pub struct RouteOutline {
    pub name: Arc<str>,
    #[serde(rename = "match")]
    pub matches: MatchOutline,
    pub access: AccessOutline,
    pub limits: Vec<LimitOutline>,
    /// Tokens that a request takes from each limit without a cost of its own.
    pub cost: u64,
    /// `null` where the cost is a number.
    pub measured_cost: Option<MeasuredCostOutline>,
    pub time_limit_ms: u64,
    /// Longest wait for the response head.
    pub worst_case_ms: u64,
    pub time_budget: TimeBudget,
    /// Calls of an aggregate; `null` for other routes.
    pub fan_out: Option<FanOut>,
    pub stream: bool,
    pub body_limit_bytes: u64,
    /// True if the route reads values from the JSON body.
    pub reads_json: bool,
    pub edge: EdgeOutline,
    pub target: TargetOutline,
    /// `null` without a mirror.
    pub mirror: Option<MirrorOutline>,
    /// `null` without a cache.
    pub cache: Option<CacheOutline>,
    /// `null` without `idempotency`.
    pub idempotency: Option<IdempotencyOutline>,
    /// When a second attempt is made because the first one is slow; `null` if never.
    pub hedge: Option<HedgeOutline>,
}

/// How requests of a route are done once.
#[derive(Debug, Serialize)]
pub struct IdempotencyOutline {
    pub required: bool,
    pub keep_for_ms: u64,
    pub scope: &'static str,
    pub max_answer_bytes: u64,
    pub headers: Vec<String>,
    pub release_on: Vec<u16>,
    /// `null` without a shared store.
    pub when_down: Option<&'static str>,
}

/// The cache of a route or part.
#[derive(Debug, Serialize)]
pub struct CacheOutline {
    /// Who shares answers that do not say so themselves.
    pub scope: &'static str,
    /// Lifetime of answers that state none; `null` stores none of them.
    pub ttl_ms: Option<u64>,
    pub stale_while_revalidate_ms: Option<u64>,
    pub stale_if_error_ms: Option<u64>,
    /// Header fields for whose values answers are stored apart.
    pub vary: Vec<String>,
    pub caller_directives: &'static str,
}

/// Rules of a route for addresses, header fields, paths and connections.
#[derive(Debug, Serialize)]
pub struct EdgeOutline {
    /// Allowed networks; `null` allows all that are not denied.
    pub allow: Option<Vec<String>>,
    pub deny: Vec<String>,
    /// Allowed CORS origins; `null` without CORS.
    pub origins: Option<Vec<String>>,
    /// What is compressed for callers that accept it; `null` compresses nothing.
    pub compression: Option<CompressionOutline>,
    pub security_headers: &'static str,
    /// Groups of header fields that the gateway adds.
    pub added_headers: Vec<&'static str>,
    /// Names of header fields that are changed on the way to the backend.
    pub request_fields: Vec<String>,
    /// Names of header fields that are changed on the way to the caller.
    pub response_fields: Vec<String>,
    pub method_override: &'static str,
    pub path_policy: PathPolicyOutline,
    pub upgrade: &'static str,
}

/// Answers that are compressed.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct CompressionOutline {
    /// Codings on offer, the preferred one first.
    pub codings: Vec<&'static str>,
    /// Media types.
    pub types: Vec<String>,
    /// Length from which on an answer is compressed, in bytes.
    pub minimum_bytes: u64,
}

#[derive(Debug, Serialize)]
pub struct PathPolicyOutline {
    pub dot_segments: &'static str,
    pub double_slash: &'static str,
    pub encoded_slash: &'static str,
    pub backslash: &'static str,
}

/// Match conditions of a route. An empty list sets no condition.
#[derive(Debug, Serialize)]
pub struct MatchOutline {
    pub hosts: Vec<String>,
    pub paths: Vec<String>,
    /// Paths that are taken with all paths below.
    pub prefixes: Vec<String>,
    pub methods: Vec<String>,
    /// Required header fields, as `name: value`; a regular expression stands between slashes.
    pub headers: Vec<String>,
    /// Required query parameters, as `name=value`.
    pub query: Vec<String>,
    /// Required parameters of the path, as `name=value`.
    pub parameters: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct AccessOutline {
    pub any_of: Vec<String>,
    /// Credentials that are required together; excludes `any_of`.
    pub all_of: Vec<String>,
    pub scopes: Vec<String>,
    pub tiers: Vec<String>,
    pub tenants: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct LimitOutline {
    pub name: Arc<str>,
    /// Terms as text: `5/s, burst 10`, `1000 every day` or `5 in flight`.
    pub terms: String,
    pub per: &'static str,
    pub mode: &'static str,
    pub cost: u64,
    /// Whether it counts units that answers say.
    pub counts_units: bool,
}

/// Cost of a route that is read from its answers.
#[derive(Debug, Serialize)]
pub struct MeasuredCostOutline {
    /// Paths of the numbers that are added up.
    pub body: Vec<String>,
    pub text: Vec<String>,
    pub bytes_per_unit: u64,
    /// Paths in the request's body that say how much may be generated.
    pub max: Vec<String>,
    pub default: Option<u64>,
    pub most: Option<u64>,
    pub times: Vec<String>,
    /// Quotas that count the units.
    pub quotas: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetOutline {
    Backend {
        name: String,
        rewrite: Option<String>,
    },
    Split {
        entries: Vec<SplitOutline>,
        rewrite: Option<String>,
    },
    Aggregate {
        partial: &'static str,
        /// Part that is the whole answer; `null` if the answers are merged.
        document: Option<String>,
        /// Fields that callers may choose; `null` if they get all.
        fields: Option<FieldsOutline>,
        parts: Vec<PartOutline>,
    },
    Respond {
        status: u16,
    },
    Redirect {
        to: String,
        status: u16,
    },
}

/// Fields of a document that callers may choose.
#[derive(Debug, Serialize)]
pub struct FieldsOutline {
    /// Parameter of the query.
    pub parameter: String,
    pub allow: Vec<String>,
}

/// A backend that takes some of a route's requests.
#[derive(Debug, Serialize)]
pub struct SplitOutline {
    pub backend: String,
    /// `null` for the rest.
    pub percent: Option<f64>,
    /// What requests have in common that go to one backend; `null` where the entry does not write it.
    pub key: Option<String>,
    /// Conditions that must all hold, as `tier free or basic` or `header x-canary: 1`.
    pub when: Vec<String>,
}

/// Copies of a route's requests for another backend.
#[derive(Debug, Serialize)]
pub struct MirrorOutline {
    pub to: String,
    pub percent: f64,
    /// What requests have in common that are copied alike; `none` lets chance decide.
    pub key: String,
    pub methods: Vec<String>,
    pub body_limit_bytes: u64,
    pub limit: u32,
    pub compare: &'static str,
}

#[derive(Debug, Serialize)]
pub struct PartOutline {
    pub name: Arc<str>,
    pub backend: String,
    pub path: String,
    pub required: bool,
    pub time_limit_ms: Option<u64>,
    pub needs: Vec<String>,
    pub method: String,
    /// The caller's header fields that the part gets.
    pub forward: ForwardedOutline,
    /// True if a `when` condition can skip the part.
    pub conditional: bool,
    pub for_each: Option<ForEachOutline>,
    /// `null` without a cache.
    pub cache: Option<CacheOutline>,
    /// When a second attempt is made because the first one is slow; `null` if never.
    pub hedge: Option<HedgeOutline>,
}

/// Second attempts of a route or part.
#[derive(Debug, Serialize)]
pub struct HedgeOutline {
    /// `p95`, or a time such as `50ms`.
    pub after: String,
    /// Bounds of `p95`.
    pub at_least_ms: u64,
    pub at_most_ms: u64,
}

/// The caller's header fields that a part gets: `all`, `all_but_credentials`, or their names.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ForwardedOutline {
    Word(&'static str),
    Names(Vec<String>),
}

/// Settings of a part that makes one call per element of an array.
#[derive(Debug, Serialize)]
pub struct ForEachOutline {
    pub over: String,
    /// Path in the elements of the list that the answers are put at; `null` if they are an array of their own.
    pub into: Option<String>,
    pub limit: u32,
    pub at_once: u32,
    pub on_failure: &'static str,
}

impl Outline {
    pub(super) fn new(routes: Vec<RouteOutline>, places: HashMap<String, Location>) -> Self {
        Self { routes, places }
    }

    /// Returns the location of `setting`, or of the nearest section around it; `None` if neither is written.
    ///
    /// `setting` is a path like `backends.users.breaker`. `keys.acme` is the first key of a tenant in the key file.
    pub fn place(&self, setting: &str) -> Option<&Location> {
        setting::nearest(&self.places, setting)
    }

    /// Returns true if the config itself writes this setting.
    pub fn is_written(&self, setting: &str) -> bool {
        self.places.contains_key(setting)
    }
}
