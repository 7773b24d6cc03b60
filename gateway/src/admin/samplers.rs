//! Samples metrics that mirror a state, from the plan in force, at each scrape.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use policies::breaker::State;
use policies::health;

use super::state::Admin;
use super::tenant_metrics;
use crate::auth::external::known_answers::KnownAnswers;
use crate::auth::jwt::issuer::Issuer;
use crate::auth::revocations::RevokedKind;
use crate::call::backend::Backend;
use crate::clock;
use crate::control::notices;
use crate::limits::owner_class::OwnerClass;
use crate::limits::store::local::Census;
use crate::observe::families::Family;
use crate::observe::log_sampler::LogSampler;
use crate::observe::{Admission, BreakerState, ConnectionState, Page};
use crate::plan::revocation_store::RevocationStoreStatus;

/// Adds these metrics to every later scrape.
pub(super) fn register(admin: &Arc<Admin>) {
    let registry = &admin.gateway.state.observer.registry;
    // The admin state refers to the registry. A strong reference back would be a cycle that is never freed.
    let admin = Arc::downgrade(admin);
    registry.on_scrape(
        "state",
        Box::new(move |page| {
            if let Some(admin) = admin.upgrade() {
                sample(&admin, page);
            }
        }),
    );
}

fn sample(admin: &Admin, page: &mut Page) {
    let gateway = &admin.gateway;
    let plan = gateway.live.load();
    for backend in &plan.backends {
        sample_backend(backend, page);
    }
    for route in &plan.listed {
        if let Some(mirror) = &route.mirror {
            page.put(
                Family::MirroredInFlight,
                &[&route.name],
                mirror.mirror.state.under_way(),
            );
        }
    }
    let has_tenants = plan
        .tiers
        .directory
        .is_some()
        .then(|| ("tenants", notices::tenants_fingerprint(&plan)));
    let has_keys = plan
        .key_file
        .is_some()
        .then(|| ("keys", notices::keys_fingerprint(&plan)));
    for (file, fingerprint) in has_tenants.into_iter().chain(has_keys) {
        page.put(Family::EntriesFingerprint, &[file], fingerprint);
    }
    if gateway.state.shared_store.get().is_some() {
        page.put(Family::EntryConflicts, &[], gateway.state.managed.conflicts().len());
    }
    tenant_metrics::sample(&plan, gateway.state.observer.registry.tenants.all(), page);
    page.put(Family::CompressionMemory, &[], crate::compression::memory_held());
    let stored = gateway.state.responses.store().size();
    page.put(Family::CacheBytes, &[], stored.bytes);
    page.put(Family::CacheEntries, &[], stored.entries);
    page.put(Family::CacheEvictions, &[], stored.evicted);
    let keys = gateway.state.idempotency.size();
    page.put(Family::IdempotencyBytes, &[], keys.bytes);
    for (state, count) in keys.counts {
        page.put(Family::IdempotencyKeys, &[state.as_str()], count);
    }
    page.put(Family::IdempotencyForgotten, &[], keys.forgotten);
    page.put(Family::MirroredBytes, &[], gateway.state.copied.held());
    for listener in &gateway.live.load().edge.listeners {
        let shown = listener.tls.iter().flat_map(|tls| tls.shown.iter());
        for (number, certificate) in (1_u32..).zip(shown) {
            let labels = [&*listener.name, &number.to_string()];
            page.put(Family::CertificateExpiry, &labels, certificate.expires);
        }
    }
    let accounts = &gateway.state.accounts;
    for Census {
        limit,
        owners,
        stood_in,
    } in accounts.census()
    {
        page.put(Family::LimitOwners, &[&limit], owners);
        page.put(Family::LimitWidened, &[&limit], stood_in.wider);
        page.put(Family::LimitOverflow, &[&limit], stood_in.others);
    }
    for room in OwnerClass::ALL {
        page.put(Family::LimitRoomInUse, &[room.as_str()], accounts.rooms.taken(room));
        page.put(Family::LimitRoom, &[room.as_str()], accounts.rooms.most(room));
    }
    let (revoked, unix_now) = (gateway.state.revocations.in_force().list(), clock::unix_seconds());
    for kind in RevokedKind::ALL {
        let holding = revoked.iter().filter(|(_, terms)| terms.hold(unix_now));
        let count = holding.filter(|(revoked, _)| revoked.kind() == kind).count();
        page.put(Family::Revocations, &[kind.as_str()], count);
    }
    let RevocationStoreStatus { file, unwritten, .. } = gateway.state.revocations.status();
    page.put(Family::RevocationsUnwritten, &[], file.map_or(0, |_| unwritten));
    if let Some(store) = gateway.state.shared_store.get() {
        store.sample(page);
        let leasing = &gateway.state.accounts.leasing;
        page.put(Family::StoreTokensOnLease, &[], leasing.held());
        for (family, count) in [
            (Family::StoreRenewals, &leasing.stats.commands),
            (Family::StoreWaited, &leasing.stats.waited),
            (Family::StoreRefusedAlone, &leasing.stats.refused_alone),
            (Family::StoreDecidedAlone, &leasing.stats.decided_alone),
        ] {
            page.put(family, &[], count.load(Relaxed));
        }
    }
    let clock = clock::WallClock::of_process();
    page.put(Family::LogLinesLeftOut, &[], LogSampler::of_process().left_out());
    page.put(Family::ClockJumps, &[], clock.jumps());
    page.put(Family::ClockAhead, &[], clock.ahead() as f64 / 1e9);
    for issuer in plan.authenticator.issuers() {
        sample_keys(issuer, page);
    }
    if let Some(external) = plan.authenticator.external() {
        sample_external(external.known(), page);
    }
    let work = &gateway.state.verification_work;
    for (outcome, count) in work.outcomes() {
        page.put(Family::Verifications, &[outcome.as_str()], count);
    }
    page.put(Family::VerificationSeconds, &[], work.spent().as_secs_f64());
    page.put(Family::JsonReserved, &[], plan.workspace.reserved());
    page.put(Family::JsonRefused, &[], plan.workspace.refused());
    page.put(Family::ParkedBytes, &[], plan.parked.held());
    page.put(Family::ParkedCounted, &[], plan.parked.counted());
    page.put(Family::ParkedRefused, &[], plan.parked.refusals());
    page.put(Family::ParkedPauses, &[], plan.parked.pauses());
    for (number, load) in gateway.state.loads.all().iter().enumerate() {
        let worker = number.to_string();
        page.put(Family::WorkerDelay, &[&worker], load.delay().as_secs_f64());
        page.put(Family::WorkerRefusedShare, &[&worker], load.share());
    }
    for (tier, count) in gateway.state.loads.refused() {
        page.put(Family::OverloadRefusals, &[&tier], count);
    }
    let lifecycle = &gateway.lifecycle;
    page.put(Family::RequestsInFlight, &[], lifecycle.requests());
    page.put(Family::Connections, &[], lifecycle.connections());
    page.put(Family::ConnectionsAccepted, &[], lifecycle.opened());
    page.put(Family::MalformedConnections, &[], lifecycle.malformed_connections());
    page.put(Family::Tunnels, &[], lifecycle.tunnels());
}

fn sample_external(known: &KnownAnswers, page: &mut Page) {
    for (result, count) in known.lookups() {
        page.put(Family::ExternalLookups, &[result.as_str()], count);
    }
    for (outcome, count) in known.outcomes() {
        page.put(Family::ExternalQuestions, &[outcome.as_str()], count);
    }
    let (callers, refusals) = known.sizes();
    page.put(Family::ExternalEntries, &["callers"], callers);
    page.put(Family::ExternalEntries, &["refusals"], refusals);
}

fn sample_keys(issuer: &Issuer, page: &mut Page) {
    let (name, live) = (&**issuer.name(), issuer.keys());
    let status = live.status();
    page.put(Family::JwksKeys, &[name], status.keys);
    if issuer.source().is_none() {
        return;
    }
    page.put(Family::JwksStale, &[name], u8::from(status.is_stale()));
    page.put(Family::JwksWaiting, &[name], live.waiting());
    if let Some(age) = status.age(clock::now()) {
        page.put(Family::JwksAge, &[name], age.as_secs_f64());
    }
    for (outcome, count) in live.fetches() {
        page.put_count(Family::JwksFetches, name, outcome.as_str(), count);
    }
}

fn sample_backend(backend: &Backend, page: &mut Page) {
    let (name, now) = (&*backend.name, clock::now());
    let guards = &backend.guards;
    page.put(Family::BulkheadInUse, &[name], guards.bulkhead.in_use());
    page.put(Family::BulkheadWaiting, &[name], guards.bulkhead.waiting());
    page.put(Family::BulkheadLimit, &[name], guards.bulkhead.limit());
    page.put(Family::StreamSlotsInUse, &[name], guards.streams.in_use());
    page.put(Family::StreamSlotsWaiting, &[name], guards.streams.waiting());
    page.put(Family::StreamSlotsLimit, &[name], guards.streams.limit());
    for (family, slots) in [
        (Family::BulkheadOutcomes, &guards.bulkhead),
        (Family::StreamSlotsOutcomes, &guards.streams),
    ] {
        let outcomes = slots.outcomes();
        for (admission, count) in [
            (Admission::Admitted, outcomes.admitted),
            (Admission::Full, outcomes.full),
            (Admission::TimedOut, outcomes.timed_out),
            (Admission::Left, outcomes.left),
        ] {
            page.put_count(family, name, admission.as_str(), count);
        }
    }
    page.put(
        Family::BreakerState,
        &[name],
        breaker_state(guards.breaker.state(now)) as u8,
    );
    page.put(Family::RetryBudgetBalance, &[name], guards.retry_budget.balance(now));
    let endpoints = backend.endpoints.load();
    page.put(
        Family::EndpointsEjected,
        &[name],
        endpoints
            .standings()
            .filter(|standing| standing.is_ejected(now))
            .count(),
    );
    page.put(Family::BackendEndpoints, &[name], endpoints.all().len());
    if let Some(discovery) = backend.endpoints.discovery() {
        let state = discovery.status();
        page.put(
            Family::EndpointsKept,
            &[name],
            u8::from(backend.endpoints.kept_since().is_some()),
        );
        if let Some(answered) = state.answered {
            page.put(Family::EndpointsAge, &[name], now.since(answered).as_secs_f64());
        }
        for (outcome, count) in discovery.looks() {
            page.put_count(Family::EndpointLookups, name, outcome.as_str(), count);
        }
    }
    page.put(Family::BackendDegraded, &[name], u8::from(endpoints.is_degraded(now)));
    if backend.health_check.is_some() {
        let states = endpoints.endpoints().map(|endpoint| endpoint.state(now));
        let down = states.filter(|state| matches!(state, health::State::Down { .. }));
        page.put(Family::EndpointsDown, &[name], down.count());
        for (outcome, count) in guards.probes.all() {
            page.put_count(Family::HealthChecks, name, outcome.as_str(), count);
        }
    }
    let (mut active, mut idle, mut exchanges) = (0, 0, 0);
    for endpoint in endpoints.endpoints() {
        let count = endpoint.connections();
        active += count.active;
        idle += count.idle;
        exchanges += count.exchanges;
    }
    if let Some(expires) = backend.certificate_expires {
        page.put(Family::BackendCertificateExpiry, &[name], expires);
    }
    for (state, count) in [(ConnectionState::Active, active), (ConnectionState::Idle, idle)] {
        page.put(Family::BackendConnections, &[name, state.as_str()], count);
    }
    page.put(Family::BackendExchanges, &[name], exchanges);
}

/// Maps a state by its effect on traffic, whether it is forced or not.
const fn breaker_state(state: State) -> BreakerState {
    match state {
        State::Closed | State::ForcedClosed => BreakerState::Closed,
        State::HalfOpen => BreakerState::HalfOpen,
        State::Open | State::ForcedOpen => BreakerState::Open,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metric_says_whether_traffic_flows() {
        for (state, number) in [
            (State::Closed, 0),
            (State::ForcedClosed, 0),
            (State::HalfOpen, 1),
            (State::Open, 2),
            (State::ForcedOpen, 2),
        ] {
            assert_eq!(breaker_state(state) as u8, number, "{state:?}");
        }
    }
}

#[cfg(test)]
mod api_tests;
