//! Copies the state of a backend's guards: a breaker that is not closed, and what calls and operators have made of its
//! endpoints.
//!
//! Counts of a closed breaker, the retry budget, the bulkhead and the results of probes are not copied. They begin anew,
//! as after a restart.

use std::net::SocketAddr;
use std::sync::Arc;

use policies::Moment;
use policies::breaker::{Cause, ForcedState, SavedBreaker, SavedState};
use policies::ejection::Ejection;
use serde::{Deserialize, Serialize};

use crate::call::backend::Backend;
use crate::plan::Plan;

/// Largest number of endpoints that are looked up of one backend.
const MOST: usize = 10_000;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedBackend {
    backend: String,
    breaker: Option<BreakerForm>,
    /// URL and address of the endpoints that an operator has drained.
    drained: Vec<(Arc<str>, SocketAddr)>,
    ejected: Vec<SavedEjection>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BreakerForm {
    state: Saved,
    /// Number of the cause; 0 if there is none.
    cause: u32,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Saved {
    /// Until this moment in nanoseconds, after so many failed probes in a row.
    Open(u64, u32),
    ForcedOpen,
    ForcedClosed,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedEjection {
    url: String,
    address: SocketAddr,
    /// Moments in nanoseconds.
    from: u64,
    until: u64,
    number: u32,
}

/// Returns the state of the guards of all backends where there is any.
pub(super) fn saved(plan: &Plan, now: Moment) -> Vec<SavedBackend> {
    let all = plan.backends.iter().map(|backend| SavedBackend::of(backend, now));
    all.filter(|saved| saved.breaker.is_some() || !saved.drained.is_empty() || !saved.ejected.is_empty())
        .collect()
}

impl SavedBackend {
    fn of(backend: &Backend, now: Moment) -> Self {
        let breaker = backend.guards.breaker.saved().filter(|_| backend.breaker_on);
        let endpoints = backend.endpoints.load();
        let ejected = endpoints.endpoints().filter_map(|endpoint| {
            let Ejection { from, until, number } = endpoint.standing.ejection(now)?;
            Some(SavedEjection {
                url: endpoint.url().to_string(),
                address: endpoint.address(),
                from: from.nanos(),
                until: until.nanos(),
                number,
            })
        });
        Self {
            backend: backend.name.to_string(),
            breaker: breaker.map(Into::into),
            drained: backend.endpoints.registry().drained(),
            ejected: ejected.take(MOST).collect(),
        }
    }

    /// Puts the state in force, as far as the plan has the backend and its endpoints.
    pub(super) fn restore(self, plan: &Plan, now: Moment) {
        let Some(backend) = plan.backends.iter().find(|backend| *backend.name == *self.backend) else {
            return;
        };
        if let Some(saved) = self.breaker.filter(|_| backend.breaker_on) {
            backend.guards.breaker.restore(saved.meant(), now);
        }
        backend.endpoints.registry().drain_again(&self.drained);
        let endpoints = backend.endpoints.load();
        for SavedEjection {
            url,
            address,
            from,
            until,
            number,
        } in self.ejected
        {
            let mut all = endpoints.endpoints();
            if let Some(endpoint) = all.find(|one| **one.url() == *url && one.address() == address) {
                let (from, until) = (Moment::from_nanos(from), Moment::from_nanos(until));
                endpoint.standing.restore(Ejection { from, until, number });
                endpoint.load.warm_up(until.max(now));
            }
        }
        // No endpoint stays ejected for longer, and no more of them, than the new settings allow.
        backend.take_effect(now);
    }
}

impl From<SavedBreaker> for BreakerForm {
    fn from(SavedBreaker { state, cause }: SavedBreaker) -> Self {
        Self {
            state: match state {
                SavedState::Open { until, reopenings } => Saved::Open(until.nanos(), reopenings),
                SavedState::Forced(ForcedState::Open) => Saved::ForcedOpen,
                SavedState::Forced(ForcedState::Closed) => Saved::ForcedClosed,
            },
            cause: cause.map_or(0, Cause::number),
        }
    }
}

impl BreakerForm {
    fn meant(self) -> SavedBreaker {
        SavedBreaker {
            state: match self.state {
                Saved::Open(until, reopenings) => SavedState::Open {
                    until: Moment::from_nanos(until),
                    reopenings,
                },
                Saved::ForcedOpen => SavedState::Forced(ForcedState::Open),
                Saved::ForcedClosed => SavedState::Forced(ForcedState::Closed),
            },
            cause: Cause::of_number(self.cause),
        }
    }
}
