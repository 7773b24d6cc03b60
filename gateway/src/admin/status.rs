//! `GET /api/v1/status`: version, start time, config and state of the gateway.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use policies::breaker;
use serde::Serialize;
use serde_json::{Map, Value};

use super::cache::StoredAnswers;
use super::external::ExternalView;
use super::idempotency::KeysInMemory;
use super::list_query::NoParameters;
use super::shared_store::StoreView;
use super::state::Admin;
use super::{health, revocations};
use crate::auth::jwt::issuer::Issuer;
use crate::clock::{self, WallClock};
use crate::control::reload::LastReload;
use crate::observe::timestamp::Timestamp;
use crate::observe::unknown_tiers;
use crate::overload::WorkerLoad;
use crate::plan::Plan;
use crate::server::Phase;
use crate::tenancy::Tiers;
use crate::tls::certificate;

#[derive(Serialize)]
pub(super) struct Status {
    version: &'static str,
    started: Timestamp,
    uptime_seconds: u64,
    clock: Clock,
    phase: &'static str,
    ready: bool,
    workers: usize,
    /// Delay of each worker, and the tiers that it refuses. Empty if the guard is off.
    overload: Vec<WorkerView>,
    listeners: Vec<Listener>,
    admin: AdminAddress,
    connections: Connections,
    requests_in_flight: usize,
    config: Config,
    breakers: Breakers,
    /// Backends none of whose endpoints is up, at most 100.
    degraded_backends: Vec<Arc<str>>,
    /// Backends whose endpoints are those of an earlier answer of their source, at most 100.
    kept_backends: Vec<Arc<str>>,
    issuers: Vec<Keys>,
    /// Service that knows the callers; `null` without one.
    external: Option<ExternalView>,
    unknown_tiers: UnknownTiers,
    revocations: Map<String, Value>,
    /// Store of answers: those of the response cache, and the last good ones of fallbacks.
    stored_answers: StoredAnswers,
    /// Idempotency keys in memory; none if they are in the shared store.
    idempotency: KeysInMemory,
    /// Store that replicas share; `null` without one.
    limits_store: Option<StoreView>,
    /// Number of access log lines that were dropped because the log could not keep up.
    access_log_dropped: u64,
}

/// Breakers that do not let all traffic through, of all backends.
#[derive(Serialize)]
struct Breakers {
    open: usize,
    half_open: usize,
    /// Backends whose breaker is open, at most 100.
    open_at: Vec<Arc<str>>,
}

/// State of one worker.
#[derive(Serialize)]
struct WorkerView {
    /// Least time that a ready task has waited in the last period.
    delay_ms: f64,
    /// Share of the newcomers that are refused now.
    refused_share: f64,
    /// Tiers that are refused now, the cheapest first. The last one may be refused in part.
    refused_tiers: Vec<Arc<str>>,
}

/// The time of day that all of the gateway uses.
#[derive(Serialize)]
struct Clock {
    time: Timestamp,
    /// Number of jumps of the wall clock, forward or back.
    jumps: u64,
    /// Lead of the wall clock over the gateway's time; negative if it is behind, and zero except shortly after a jump.
    wall_clock_ahead_seconds: f64,
}

#[derive(Serialize)]
struct Listener {
    name: String,
    address: SocketAddr,
    /// Certificates that TLS callers see; empty for plain HTTP.
    certificates: Vec<Certificate>,
}

/// Tier names in credentials that the config does not define.
#[derive(Serialize)]
struct UnknownTiers {
    /// Number of requests for all such names together.
    requests: u64,
    /// The first names that were seen, those with the most requests first.
    named: Vec<UnknownTier>,
}

#[derive(Serialize)]
struct UnknownTier {
    name: Arc<str>,
    /// Tenant whose credential was the first with this name.
    tenant: Arc<str>,
    requests: u64,
}

/// A certificate of the gateway.
#[derive(Serialize)]
struct Certificate {
    dns_names: Box<[Arc<str>]>,
    subject: Option<Arc<str>>,
    expires: Timestamp,
}

#[derive(Serialize)]
struct AdminAddress {
    address: SocketAddr,
    /// Address that answers only probes.
    health: Option<SocketAddr>,
    /// Whether a token for changes is configured.
    changes: bool,
    /// Whether reading needs a token.
    read_token: bool,
}

/// Connections of callers.
#[derive(Serialize)]
struct Connections {
    open: usize,
    accepted: usize,
    /// Connections that ended because the caller did not send valid HTTP.
    malformed: usize,
}

#[derive(Serialize)]
struct Config {
    path: String,
    /// Number of the plan in this process, counted from 1.
    generation: u64,
    last_reload: Reload,
    /// Time for which the config is still watched, after which it stays; null if it is not watched.
    canary_seconds: Option<u64>,
}

/// Latest attempt to put a config in force; the start is the first attempt.
#[derive(Serialize)]
struct Reload {
    successful: bool,
    at: Timestamp,
    error: Option<String>,
}

/// Key set of a token issuer.
#[derive(Serialize)]
struct Keys {
    name: Arc<str>,
    issuer: String,
    /// Keys in use now; without any, every token of the issuer is rejected.
    keys: Vec<Key>,
    /// Whether the last fetch failed; the keys are then used until `usable_until`.
    stale: bool,
    /// URL that the keys are fetched from; without it, all following fields are empty.
    url: Option<String>,
    last_ok: Option<Timestamp>,
    age_seconds: Option<u64>,
    /// Time at which the keys are withdrawn unless a fetch succeeds before.
    usable_until: Option<Timestamp>,
    next_fetch: Option<Timestamp>,
    last_error: Option<KeysError>,
    attempts: u64,
}

#[derive(Serialize)]
struct Key {
    kid: Option<String>,
    algorithm: &'static str,
}

#[derive(Serialize)]
struct KeysError {
    at: Timestamp,
    error: String,
}

pub(super) async fn show(State(admin): State<Arc<Admin>>, _: NoParameters) -> Json<Status> {
    Json(Status::of(&admin))
}

impl Certificate {
    fn of(shown: &certificate::Certificate) -> Self {
        Self {
            dns_names: shown.dns_names.clone(),
            subject: shown.subject.clone(),
            expires: at_second(shown.expires),
        }
    }
}

impl Breakers {
    fn of(plan: &Plan) -> Self {
        let now = clock::now();
        let judging = plan.backends.iter().filter(|backend| backend.breaker_on);
        let states = judging.map(|backend| (&backend.name, backend.guards.breaker.state(now)));
        let (mut open, mut half_open) = (Vec::new(), 0);
        for (name, state) in states {
            match state {
                breaker::State::Open | breaker::State::ForcedOpen => open.push(name),
                breaker::State::HalfOpen => half_open += 1,
                breaker::State::Closed | breaker::State::ForcedClosed => {}
            }
        }
        Self {
            open: open.len(),
            half_open,
            open_at: open.into_iter().take(100).map(Arc::clone).collect(),
        }
    }
}

impl WorkerView {
    fn of(load: &WorkerLoad, tiers: &Tiers) -> Self {
        let ranks = load.admission.refused_ranks().ceil();
        let all = tiers.by_name.values();
        let mut refused: Vec<_> = all.filter(|tier| (tier.rank as f64) < ranks).collect();
        refused.sort_by_key(|tier| (tier.rank, tier.number));
        Self {
            delay_ms: (load.delay().as_secs_f64() * 1e5).round() / 100.0,
            refused_share: (load.share() * 1000.0).round() / 1000.0,
            refused_tiers: refused.into_iter().map(|tier| Arc::clone(&tier.name)).collect(),
        }
    }
}

impl UnknownTiers {
    fn of(all: &unknown_tiers::UnknownTiers) -> Self {
        let named = all.all().into_iter().map(|(tier, requests)| UnknownTier {
            name: Arc::clone(&tier.name),
            tenant: Arc::clone(&tier.tenant),
            requests,
        });
        Self {
            requests: all.requests(),
            named: named.collect(),
        }
    }
}

impl Status {
    pub(super) fn of(admin: &Admin) -> Self {
        let gateway = &admin.gateway;
        let (plan, lifecycle, observer) = (gateway.live.load(), &gateway.lifecycle, &gateway.state.observer);
        let (started, wall_clock) = (observer.registry.started_at(), WallClock::of_process());
        let LastReload {
            successful, at, error, ..
        } = gateway.reloader.last();
        let certificates = |name: &str| {
            let listener = plan.edge.listeners.iter().find(|listener| listener.name == name);
            let shown = listener
                .and_then(|listener| listener.tls.as_ref())
                .map(|tls| &tls.shown);
            shown
                .into_iter()
                .flat_map(|shown| shown.iter())
                .map(Certificate::of)
                .collect()
        };
        let listener = |(name, address): &(String, SocketAddr)| Listener {
            name: name.clone(),
            address: *address,
            certificates: certificates(name),
        };
        Self {
            version: env!("CARGO_PKG_VERSION"),
            started: Timestamp(started),
            uptime_seconds: observer.registry.uptime(clock::now()).as_secs(),
            clock: Clock {
                time: Timestamp(clock::unix_time()),
                jumps: wall_clock.jumps(),
                wall_clock_ahead_seconds: wall_clock.ahead() as f64 / 1e9,
            },
            phase: lifecycle.phase().as_str(),
            ready: lifecycle.phase() == Phase::Serving && health::awaited_issuer(admin).is_none(),
            workers: plan.edge.workers,
            overload: plan
                .edge
                .overload
                .iter()
                .flat_map(|_| plan.loads.all())
                .map(|load| WorkerView::of(&load, &plan.tiers))
                .collect(),
            listeners: gateway.listeners.iter().map(listener).collect(),
            admin: AdminAddress {
                address: admin.address,
                health: admin.health_address,
                changes: admin.tokens.change.is_some() || plan.admin_tokens.is_some(),
                read_token: admin.tokens.read.is_some() || plan.admin_tokens.is_some(),
            },
            connections: Connections {
                open: lifecycle.connections(),
                accepted: lifecycle.opened(),
                malformed: lifecycle.malformed_connections(),
            },
            requests_in_flight: lifecycle.requests(),
            config: Config {
                path: gateway.reloader.path().display().to_string(),
                generation: plan.generation,
                last_reload: Reload {
                    successful,
                    at: at_second(at),
                    error,
                },
                canary_seconds: gateway.reloader.watched_for().map(|left| left.as_secs() + 1),
            },
            breakers: Breakers::of(&plan),
            degraded_backends: plan
                .backends
                .iter()
                .filter(|backend| backend.endpoints.load().is_degraded(clock::now()))
                .take(100)
                .map(|backend| Arc::clone(&backend.name))
                .collect(),
            kept_backends: plan
                .backends
                .iter()
                .filter(|backend| backend.endpoints.kept_since().is_some())
                .take(100)
                .map(|backend| Arc::clone(&backend.name))
                .collect(),
            issuers: plan.authenticator.issuers().iter().map(keys).collect(),
            external: ExternalView::of(&plan),
            unknown_tiers: UnknownTiers::of(&observer.registry.unknown_tiers),
            revocations: revocations::summary(admin),
            limits_store: gateway.state.shared_store.get().map(|store| StoreView::of(store)),
            stored_answers: StoredAnswers::of(gateway.state.responses.store()),
            idempotency: KeysInMemory::of(&gateway.state.idempotency),
            access_log_dropped: observer.access_log.dropped(),
        }
    }
}

fn keys(issuer: &Issuer) -> Keys {
    let (live, source) = (issuer.keys(), issuer.source());
    let status = live.status();
    let listed = live.current();
    let listed = listed.listed().map(|(kid, algorithm)| Key {
        kid: kid.map(str::to_owned),
        algorithm: algorithm.as_str(),
    });
    let until = |at: u64| source.map(|source| at_second(at + source.freshness.max_age.as_secs()));
    Keys {
        name: Arc::clone(issuer.name()),
        issuer: issuer.issuer().to_owned(),
        keys: listed.collect(),
        stale: status.is_stale(),
        url: source.map(|source| source.url.as_str().to_owned()),
        last_ok: status.last_ok.map(at_second),
        age_seconds: status.age(clock::now()).map(|age| age.as_secs()),
        usable_until: status.last_ok.filter(|_| status.keys > 0).and_then(until),
        next_fetch: status.next_fetch.map(at_second),
        last_error: status.last_error.map(|(at, error)| KeysError {
            at: at_second(at),
            error,
        }),
        attempts: status.attempts,
    }
}

fn at_second(unix: u64) -> Timestamp {
    Timestamp(Duration::from_secs(unix))
}

#[cfg(test)]
mod tests;
