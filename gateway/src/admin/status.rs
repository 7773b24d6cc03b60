//! `GET /api/v1/status`: what runs here, since when, by which config, and how it is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Map, Value};

use super::list_query::NoParameters;
use super::{Admin, health, revocations};
use crate::auth::jwt::issuer::Issuer;
use crate::clock::{self, WallClock};
use crate::control::reload::LastReload;
use crate::observe::timestamp::Timestamp;
use crate::observe::unknown_tiers;
use crate::server::Phase;
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
    listeners: Vec<Listener>,
    admin: AdminAddress,
    connections: Connections,
    requests_in_flight: usize,
    config: Config,
    issuers: Vec<Keys>,
    unknown_tiers: UnknownTiers,
    revocations: Map<String, Value>,
    /// Lines that are missing in the access log because it could not keep up.
    access_log_dropped: u64,
}

/// The time of day that everything goes by.
#[derive(Serialize)]
struct Clock {
    time: Timestamp,
    /// Times that the wall clock has jumped, there or back.
    jumps: u64,
    /// By how much it is ahead of that time; negative if behind, and zero unless it has jumped just now.
    wall_clock_ahead_seconds: f64,
}

#[derive(Serialize)]
struct Listener {
    name: String,
    address: SocketAddr,
    /// What it shows to callers who speak TLS; empty for plain HTTP.
    certificates: Vec<Certificate>,
}

/// What credentials call their tiers and the config does not have.
#[derive(Serialize)]
struct UnknownTiers {
    /// Of all names together.
    requests: u64,
    /// The first names that came, the busiest of them first.
    named: Vec<UnknownTier>,
}

#[derive(Serialize)]
struct UnknownTier {
    name: Arc<str>,
    /// Whose credential was the first to name it.
    tenant: Arc<str>,
    requests: u64,
}

/// A certificate of ours.
#[derive(Serialize)]
struct Certificate {
    dns_names: Box<[Arc<str>]>,
    subject: Option<Arc<str>>,
    expires: Timestamp,
}

#[derive(Serialize)]
struct AdminAddress {
    address: SocketAddr,
    /// Where probes are answered besides.
    health: Option<SocketAddr>,
    /// Whether there is a token with which something can be changed.
    changes: bool,
    /// Whether reading needs a token.
    read_token: bool,
}

/// Those of callers.
#[derive(Serialize)]
struct Connections {
    open: usize,
    accepted: usize,
    /// Ended because what came was not HTTP.
    malformed: usize,
}

#[derive(Serialize)]
struct Config {
    path: String,
    /// Counts the plans of this process, from 1.
    generation: u64,
    last_reload: Reload,
}

/// The latest attempt to put a config in force; the start is the first.
#[derive(Serialize)]
struct Reload {
    successful: bool,
    at: Timestamp,
    error: Option<String>,
}

/// The key set of an issuer of tokens.
#[derive(Serialize)]
struct Keys {
    name: Arc<str>,
    issuer: String,
    /// In use now; with none, every token of the issuer is refused.
    keys: Vec<Key>,
    /// The last attempt to fetch them failed: they are in use until `usable_until`.
    stale: bool,
    /// Where they are fetched from, if they are; else the rest is empty.
    url: Option<String>,
    last_ok: Option<Timestamp>,
    age_seconds: Option<u64>,
    /// Unless a fetch succeeds before, they are withdrawn then.
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
            listeners: gateway.listeners.iter().map(listener).collect(),
            admin: AdminAddress {
                address: admin.address,
                health: admin.health_address,
                changes: admin.tokens.change.is_some(),
                read_token: admin.tokens.read.is_some(),
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
            },
            issuers: plan.doorman.issuers().iter().map(keys).collect(),
            unknown_tiers: UnknownTiers::of(&observer.registry.unknown_tiers),
            revocations: revocations::summary(admin),
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
