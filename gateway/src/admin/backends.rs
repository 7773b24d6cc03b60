//! `GET /api/v1/backends`: the address of each backend, the state of its guards, and the outcomes of its calls.
//!
//! Backends in trouble come first, then those with the most failed calls in the last minute, then those with the most
//! calls in it.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use policies::balance::LoadSettings;
use policies::{AdaptiveSettings, RetryBudget, breaker, bulkhead, health};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::breaker::{BreakerView, EjectionView};
use super::history::{Counted, Of};
use super::list_query::{ListQuery, Page};
use super::numbers::{millis, share};
use super::state::Admin;
use super::traffic::{Times, counts, occurred};
use crate::call::backend::Backend;
use crate::call::endpoints::{BalanceSettings, Discovery, EndpointSet, Listed, Readiness, Written};
use crate::clock;
use crate::observe::timestamp::Timestamp;
use crate::observe::{Family, HedgeEvent, Outcome, RetryStop};
use crate::plan::outline::Outline;
use crate::rejection::Reason;
use crate::setting::Location;

#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    at: Option<&'a Location>,
    /// `http1`, `h2` or `h2c`.
    protocol: &'static str,
    /// Longest time of one call, including the queue and all attempts.
    time_limit_ms: u64,
    attempt_limit_ms: u64,
    endpoints: Vec<EndpointView>,
    /// Source of the endpoints; `null` if the config lists them.
    source: Option<SourceView>,
    /// True if no endpoint is up.
    degraded: bool,
    balance: BalanceView,
    balance_at: Option<&'a Location>,
    bulkhead: BulkheadView<'a>,
    /// `null` where the config turns the breaker off.
    breaker: Option<BreakerView>,
    breaker_at: Option<&'a Location>,
    /// Settings of endpoint ejection; `null` where the config turns it off.
    ejection: Option<EjectionView>,
    retry: RetryView,
    /// Calls by outcome; all attempts of a call count as one.
    calls: Map<String, Value>,
    attempts: Map<String, Value>,
    rejections: Map<String, Value>,
    /// Time from the start of a call, including the queue, to the head of its answer.
    duration: Times,
    /// The same to the last byte of its answer; streams and answers that broke off are left out.
    answer_duration: Times,
}

#[derive(Serialize)]
pub(super) struct EndpointView {
    url: Arc<str>,
    /// `null` until the name is resolved.
    address: Option<SocketAddr>,
    weight: u32,
    /// `ready`, or `serving` if the endpoint is about to end.
    readiness: &'static str,
    /// `up`, `warming`, `ejected`, `down` or `drained`; `null` until the name is resolved.
    state: Option<&'static str>,
    /// Time for which probes have failed; `null` unless the endpoint is down.
    down_for_ms: Option<u64>,
    /// Error of the last probe; `null` if it succeeded, or there was none.
    probe_error: Option<String>,
    /// Exchanges in flight, including those that wait for a connection.
    in_flight: u32,
    /// Latency that a call is to expect, failures and peaks included; `null` if nothing is known yet.
    latency_ms: Option<f64>,
    /// Share of the weight that is in force, below 1 while the endpoint warms up.
    warm: f64,
    /// Time until an ejected endpoint is used again; `null` while it is in use.
    returns_in_ms: Option<u64>,
    connections: Connections,
}

/// Source that tells where the endpoints are while the gateway runs.
#[derive(Serialize)]
pub(super) struct SourceView {
    /// `dns`, `srv`, `file` or `kubernetes`.
    kind: &'static str,
    /// Name, path or service that is looked up.
    name: String,
    /// Time of the last answer with endpoints; `null` if there was none yet.
    answered: Option<Timestamp>,
    /// Error of the last look; `null` if it found endpoints.
    error: Option<Arc<str>>,
    /// Time since which the source fails; `null` if it does not.
    failing_since: Option<Timestamp>,
    /// Time since which the endpoints are those of an earlier answer; `null` if they are not.
    kept_since: Option<Timestamp>,
    /// Longest time for which they are kept; `null` if there is none.
    keep_ms: Option<u64>,
    /// Number of looks by result.
    lookups: Map<String, Value>,
}

impl SourceView {
    fn of(endpoints: &EndpointSet, discovery: &Discovery) -> Self {
        let state = discovery.status();
        let time = |moment| Timestamp(clock::Now::at(moment).wall.elapsed());
        Self {
            kind: discovery.source.kind(),
            name: discovery.source.to_string(),
            answered: state.answered.map(time),
            kept_since: endpoints.kept_since().map(time),
            failing_since: state.failing.as_ref().map(|failing| time(failing.since)),
            error: state.failing.map(|failing| failing.error),
            keep_ms: discovery.keep.map(millis),
            lookups: counts(discovery.looks().into_iter()),
        }
    }
}

/// Settings of the choice among the endpoints.
#[derive(Serialize)]
struct BalanceView {
    by: &'static str,
    /// Key of the policy `hash`.
    key: Option<String>,
    failure_costs_ms: u64,
    warm_up_ms: u64,
}

impl BalanceView {
    fn of(settings: &BalanceSettings) -> Self {
        Self {
            by: settings.policy.as_str(),
            key: settings.key.as_ref().map(ToString::to_string),
            failure_costs_ms: millis(settings.load.failure_costs),
            warm_up_ms: millis(settings.load.warm_up),
        }
    }
}

#[derive(Serialize)]
struct Connections {
    active: usize,
    idle: usize,
    /// Exchanges under way; on HTTP/2 one connection carries several.
    exchanges: usize,
}

#[derive(Serialize)]
struct BulkheadView<'a> {
    at: Option<&'a Location>,
    in_use: u32,
    /// Number of slots in force.
    limit: u32,
    /// Bounds between which the limit is found; `null` if it is written.
    adaptive: Option<AdaptiveView>,
    /// Slots that one tenant may hold; `null` if it may hold all.
    tenant_cap: Option<NonZeroU32>,
    waiting: u32,
    /// Number of calls that may wait.
    queue: u32,
    /// Longest time that a call may wait.
    wait_ms: u64,
    outcomes: Outcomes,
    streams: StreamSlotsView,
}

/// Lowest and highest limit that may be found.
#[derive(Serialize)]
struct AdaptiveView {
    from: NonZeroU32,
    to: NonZeroU32,
}

/// Slots for streams and tunnels, separate from those for calls.
#[derive(Serialize)]
struct StreamSlotsView {
    in_use: u32,
    limit: u32,
    tenant_cap: Option<NonZeroU32>,
    waiting: u32,
    outcomes: Outcomes,
}

/// Calls that asked for a slot, each counted once, by outcome.
#[derive(Serialize)]
struct Outcomes {
    admitted: u64,
    full: u64,
    timeout: u64,
    left: u64,
}

impl From<bulkhead::Outcomes> for Outcomes {
    fn from(outcomes: bulkhead::Outcomes) -> Self {
        Self {
            admitted: outcomes.admitted,
            full: outcomes.full,
            timeout: outcomes.timed_out,
            left: outcomes.left,
        }
    }
}

#[derive(Serialize)]
struct RetryView {
    /// Number of attempts including the first; 1 means no retry.
    attempts: u32,
    budget: Budget,
    /// Calls that were not retried although their outcome allowed it, by the reason that prevented it.
    stopped: Map<String, Value>,
    /// Second attempts beside slow first ones, which the budget pays for, too.
    hedges: Map<String, Value>,
}

/// Number of retries that can be paid for now, at most `cap`, and how they are earned.
#[derive(Serialize)]
struct Budget {
    balance: u64,
    cap: u64,
    /// Earned by each first attempt.
    share: f64,
    floor_per_second: f64,
}

/// State of a backend by which lists are sorted: later variants are worse and come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trouble {
    None,
    /// All slots are in use, or calls wait for one.
    Crowded,
    /// An endpoint is down or ejected.
    Ejected,
    /// Probes are allowed, or an operator forces the breaker closed.
    HalfOpen,
    /// The breaker rejects all calls.
    Open,
}

impl Trouble {
    pub(super) fn of(backend: &Backend) -> Self {
        let (now, guards) = (clock::now(), &backend.guards);
        let breaker = if backend.breaker_on {
            match backend.guards.breaker.state(now) {
                breaker::State::Open | breaker::State::ForcedOpen => Self::Open,
                breaker::State::HalfOpen | breaker::State::ForcedClosed => Self::HalfOpen,
                breaker::State::Closed => Self::None,
            }
        } else {
            Self::None
        };
        let is_crowded = [&guards.bulkhead, &guards.streams]
            .into_iter()
            .any(|slots| slots.waiting() > 0 || slots.in_use() >= slots.limit());
        if breaker > Self::None {
            breaker
        } else if backend
            .endpoints
            .load()
            .endpoints()
            .any(|endpoint| !endpoint.state(now).is_up())
        {
            Self::Ejected
        } else if is_crowded {
            Self::Crowded
        } else {
            Self::None
        }
    }
}

pub(super) async fn show(State(admin): State<Arc<Admin>>, query: ListQuery) -> Json<Value> {
    Json(list(&admin, &query))
}

/// Lists backends, the most troubled first; equal ones in the order of the config.
pub(super) fn list(admin: &Admin, query: &ListQuery) -> Value {
    let plan = admin.gateway.live.load();
    let mut found: Vec<_> = plan
        .backends
        .iter()
        .filter(|backend| {
            let endpoints = backend.endpoints.load();
            let names = endpoints.endpoints().map(|endpoint| &*endpoint.name);
            let urls = backend.written.all().iter().map(|written| &*written.origin.url);
            let source = backend
                .endpoints
                .discovery()
                .map(|discovery| discovery.source.to_string());
            query.finds(names.chain(urls).chain([&*backend.name]).chain(source.as_deref()))
        })
        .collect();
    found.sort_by_cached_key(|backend| {
        let recent = admin
            .history
            .recent(Of::Backends, &backend.name, Counted::of_backend(backend));
        Reverse((Trouble::of(backend), recent.urgency()))
    });
    let Page {
        entries,
        total,
        next_offset,
    } = query.page(found);
    let entries: Vec<_> = entries
        .into_iter()
        .map(|backend| entry(backend, &plan.outline))
        .collect();
    json!({ "backends": entries, "total": total, "next_offset": next_offset })
}

fn entry<'a>(backend: &'a Backend, outline: &'a Outline) -> Entry<'a> {
    let Backend {
        name,
        settings,
        guards,
        guard_settings,
        metrics,
        ..
    } = backend;
    let place = |of: &str| outline.place(&format!("backends.{name}{of}"));
    let (bulkhead, streams) = (&guards.bulkhead, &guards.streams);
    Entry {
        name,
        at: place(""),
        protocol: backend.protocol(),
        time_limit_ms: millis(settings.time_limit),
        attempt_limit_ms: millis(settings.attempt_limit),
        endpoints: endpoint_views(backend),
        source: backend
            .endpoints
            .discovery()
            .map(|discovery| SourceView::of(&backend.endpoints, discovery)),
        degraded: backend.endpoints.load().is_degraded(clock::now()),
        balance: BalanceView::of(&settings.balance),
        balance_at: place(".balance"),
        bulkhead: BulkheadView {
            at: place(".bulkhead"),
            in_use: bulkhead.in_use(),
            limit: bulkhead.limit(),
            adaptive: guard_settings
                .slots
                .adaptive()
                .map(|AdaptiveSettings { from, to }| AdaptiveView { from, to }),
            tenant_cap: bulkhead.tenant_cap(),
            waiting: bulkhead.waiting(),
            queue: bulkhead.queue_limit(),
            wait_ms: millis(settings.queue_wait),
            outcomes: bulkhead.outcomes().into(),
            streams: StreamSlotsView {
                in_use: streams.in_use(),
                limit: streams.limit(),
                tenant_cap: streams.tenant_cap(),
                waiting: streams.waiting(),
                outcomes: streams.outcomes().into(),
            },
        },
        breaker: BreakerView::of(backend),
        breaker_at: place(".breaker"),
        ejection: guard_settings.ejection.as_ref().map(EjectionView::of),
        retry: RetryView {
            attempts: settings.retry.attempts,
            budget: Budget {
                balance: guards.retry_budget.balance(clock::now()),
                cap: RetryBudget::CAP,
                share: share(guard_settings.retry_budget.share),
                floor_per_second: guard_settings.retry_budget.floor,
            },
            stopped: counts(metrics.by::<RetryStop>(Family::RetriesStopped)),
            hedges: occurred(metrics.by::<HedgeEvent>(Family::Hedges)),
        },
        calls: counts(metrics.by::<Outcome>(Family::BackendCalls)),
        attempts: counts(metrics.by::<Outcome>(Family::BackendAttempts)),
        rejections: occurred(metrics.by::<Reason>(Family::BackendRejections)),
        duration: Times::of(&metrics.duration),
        answer_duration: Times::of(&metrics.whole),
    }
}

/// Returns the endpoints, followed by the URLs that have no address.
pub(super) fn endpoint_views(backend: &Backend) -> Vec<EndpointView> {
    let in_force = backend.endpoints.load();
    let mut views: Vec<_> = in_force
        .all()
        .iter()
        .map(|listed| EndpointView::of(listed, &backend.settings.balance.load))
        .collect();
    let has_address = |url: &str| in_force.endpoints().any(|endpoint| **endpoint.url() == *url);
    let unresolved = backend.written.all().iter();
    let unresolved = unresolved.filter(|written| !has_address(&written.origin.url));
    views.extend(unresolved.map(EndpointView::of_unresolved));
    views
}

impl EndpointView {
    fn of(listed: &Listed, settings: &LoadSettings) -> Self {
        let (endpoint, now) = (&listed.endpoint, clock::now());
        let (latency, warm) = (endpoint.load().latency(), endpoint.load().warm(settings, now));
        let connections = endpoint.connections();
        let state = endpoint.health.state(endpoint.standing.ejection(now), warm);
        Self {
            url: Arc::clone(endpoint.url()),
            address: Some(endpoint.address()),
            weight: listed.weight,
            readiness: listed.readiness.as_str(),
            state: Some(state.word()),
            down_for_ms: match state {
                health::State::Down { since } => Some(millis(now.since(since))),
                _ => None,
            },
            probe_error: endpoint.probe_error().map(|error| error.to_string()),
            in_flight: endpoint.load().in_flight(),
            latency_ms: (!latency.is_zero()).then(|| latency.as_micros() as f64 / 1e3),
            warm: (f64::from(warm) * 100.0).round() / 100.0,
            returns_in_ms: endpoint.standing.left(now).map(millis),
            connections: Connections {
                active: connections.active,
                idle: connections.idle,
                exchanges: connections.exchanges,
            },
        }
    }

    fn of_unresolved(written: &Written) -> Self {
        Self {
            url: Arc::clone(&written.origin.url),
            address: None,
            weight: written.weight,
            readiness: Readiness::Ready.as_str(),
            state: None,
            down_for_ms: None,
            probe_error: None,
            in_flight: 0,
            latency_ms: None,
            warm: 1.0,
            returns_in_ms: None,
            connections: Connections {
                active: 0,
                idle: 0,
                exchanges: 0,
            },
        }
    }
}

#[cfg(test)]
mod tests;
