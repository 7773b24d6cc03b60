//! What has become of requests that were sent on virtual time, added up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::{Answered, Simulation};
use crate::observe::{BreakerState, Family};
use crate::rejection::Reason;
use crate::setting::Location;

/// A request with its answer.
pub struct Sent {
    pub answered: Answered,
    /// Status and word of the refusal that a log tells of it.
    pub logged: Option<(u16, Option<String>)>,
}

/// What has become of all requests.
#[derive(Debug, Serialize)]
pub struct Outcome {
    pub requests: u64,
    /// Virtual time until the last request ended, in milliseconds.
    pub virtual_ms: u64,
    /// Numbers of requests by the word of their refusal, `answered` for the others.
    pub here: BTreeMap<String, u64>,
    /// The same by the log.
    pub logged: Option<BTreeMap<String, u64>>,
    /// Callers that were limited, those with most refusals first.
    pub limited: Vec<Limited>,
    pub backends: Vec<BackendLoad>,
}

/// Refusals of one tenant by one setting.
#[derive(Debug, Clone, Serialize)]
pub struct Limited {
    pub tenant: Option<Arc<str>>,
    pub tier: Option<Arc<str>>,
    pub reason: &'static str,
    pub setting: Option<String>,
    pub at: Option<Location>,
    pub refused: u64,
    /// All requests of the tenant.
    pub of: u64,
    /// Time of the first refusal, in milliseconds from the start.
    pub first_ms: u64,
}

/// Load of one backend.
#[derive(Debug, Clone, Serialize)]
pub struct BackendLoad {
    pub backend: Arc<str>,
    pub calls: u64,
    /// Most calls at once at one endpoint.
    pub most_at_once: usize,
    /// Number of times that the breaker has opened.
    pub breaker_opened: u64,
    /// Requests that the breaker refused, and the time of the first one in milliseconds from the start.
    pub breaker_refused: u64,
    pub breaker_first_ms: Option<u64>,
    /// Requests that the bulkhead refused.
    pub bulkhead_refused: u64,
}

impl Outcome {
    pub(super) fn of(simulation: &Simulation, sent: Vec<Sent>) -> Self {
        let mut here = BTreeMap::new();
        let mut logged = BTreeMap::new();
        let mut of_tenant = BTreeMap::<Option<Arc<str>>, u64>::new();
        let mut limited = BTreeMap::<_, Limited>::new();
        let word = |reason: Option<&str>| reason.unwrap_or("answered").to_owned();
        for Sent { answered, logged: told } in &sent {
            let seen = &answered.seen;
            *here.entry(word(seen.reason.map(Reason::as_str))).or_default() += 1;
            if let Some((_, reason)) = told {
                *logged.entry(word(reason.as_deref())).or_default() += 1;
            }
            *of_tenant.entry(seen.tenant.clone()).or_default() += 1;
            let Some(reason) = seen.reason.filter(|reason| reason.status() == 429) else {
                continue;
            };
            let setting = seen.decided.as_ref().map(|decided| decided.setting.clone());
            let key = (seen.tenant.clone(), setting.clone(), reason.as_str());
            let entry = limited.entry(key).or_insert_with(|| Limited {
                tenant: seen.tenant.clone(),
                tier: seen.tier.clone(),
                reason: reason.as_str(),
                setting,
                at: seen.decided.as_ref().and_then(|decided| decided.at.clone()),
                refused: 0,
                of: 0,
                first_ms: millis(answered.at),
            });
            entry.refused += 1;
            entry.first_ms = entry.first_ms.min(millis(answered.at));
        }
        let mut limited: Vec<_> = limited.into_values().collect();
        for entry in &mut limited {
            entry.of = of_tenant.get(&entry.tenant).copied().unwrap_or_default();
        }
        limited.sort_by_key(|entry| std::cmp::Reverse(entry.refused));
        Self {
            requests: sent.len() as u64,
            virtual_ms: millis(simulation.now()),
            here,
            logged: sent.iter().any(|sent| sent.logged.is_some()).then_some(logged),
            limited,
            backends: backends(simulation, &sent),
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn backends(simulation: &Simulation, sent: &[Sent]) -> Vec<BackendLoad> {
    let refused = |backend: &str, reasons: &[Reason]| {
        let by = |answered: &&Answered| {
            let mut attempts = answered.seen.attempts.iter();
            attempts.any(|attempt| {
                *attempt.backend == *backend && reasons.iter().any(|reason| attempt.reason == Some(reason.as_str()))
            })
        };
        let all = sent.iter().map(|sent| &sent.answered).filter(by);
        all.map(|answered| millis(answered.at))
            .fold((0, None), |(count, first), at| {
                (count + 1, Some(first.map_or(at, |first: u64| first.min(at))))
            })
    };
    let backends = simulation.plan.backends.iter().map(|backend| {
        let load = simulation.load_of(&backend.name);
        let (breaker_refused, breaker_first_ms) = refused(&backend.name, &[Reason::BreakerOpen]);
        let (bulkhead_refused, _) = refused(&backend.name, &[Reason::BulkheadFull, Reason::BulkheadTimeout]);
        BackendLoad {
            backend: Arc::clone(&backend.name),
            calls: load.iter().map(|(_, calls)| calls).sum(),
            most_at_once: load.iter().map(|(peak, _)| *peak).max().unwrap_or_default(),
            breaker_opened: backend.metrics.count(Family::BreakerTransitions, BreakerState::Open),
            breaker_refused,
            breaker_first_ms,
            bulkhead_refused,
        }
    });
    backends.collect()
}
