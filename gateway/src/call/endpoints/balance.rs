//! Shows the endpoints of a set to the policy that chooses one of them.
//!
//! Invariant: knows no policy by name. A new policy needs a file in `policies/src/balance`, its row and its arm in
//! `Choice` there, and its word in `config/model/balance.rs`.

use policies::Moment;
use policies::balance::{Availability, Candidate, Choice, LoadSettings, Policy, Tried};
use policies::health::WhenNoneIsUp;

use super::endpoint::EndpointId;
use super::member::Readiness;
use super::set::{Listed, Snapshot};
use crate::request_key::RequestKey;

/// Settings of the choice among the endpoints of a backend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BalanceSettings {
    pub policy: Policy,
    /// Key of the policy `hash`.
    pub key: Option<RequestKey>,
    pub load: LoadSettings,
}

/// Terms by which the endpoint of one attempt is chosen.
pub(crate) struct Pick<'a> {
    pub(crate) settings: &'a BalanceSettings,
    /// Endpoints that failed within the call, the latest of them at the end.
    pub(crate) tried: &'a [EndpointId],
    /// Hash of the call's key.
    pub(crate) key: Option<u64>,
    /// Whether an endpoint that is not up may be chosen if none is up. One that is drained never is.
    pub(crate) none_up: WhenNoneIsUp,
}

impl Pick<'_> {
    pub(super) fn choose<'a>(&self, among: &'a Snapshot, now: Moment) -> Option<&'a Listed> {
        let all = &among.all;
        if let [only] = &**all {
            let availability = only.endpoint.state(now).availability(self.none_up);
            return Some(only).filter(|_| availability != Availability::Out);
        }
        let take_floor = |index: usize| all[index].endpoint.load.take_floor(now);
        let candidate = |index: usize| self.candidate(&all[index], now);
        let chosen = self.choice(among).make(all.len(), candidate, take_floor)?;
        all.get(chosen)
    }

    /// Chooses for a copy of a request, without leaving a trace in what the endpoints of calls are chosen by.
    pub(super) fn choose_aside<'a>(&self, among: &'a Snapshot, now: Moment) -> Option<&'a Listed> {
        let all = &among.all;
        let chosen = self
            .choice(among)
            .make_aside(all.len(), |index| self.candidate(&all[index], now))?;
        all.get(chosen)
    }

    fn choice<'a>(&self, among: &'a Snapshot) -> Choice<'a> {
        Choice {
            policy: self.settings.policy,
            turns: &among.turns,
            key: self.key,
            random: fastrand::u64(..),
        }
    }

    fn candidate(&self, listed: &Listed, now: Moment) -> Candidate {
        let endpoint = &listed.endpoint;
        let id = endpoint.id();
        Candidate {
            availability: match endpoint.state(now).availability(self.none_up) {
                Availability::Up if listed.readiness == Readiness::Serving => Availability::Leaving,
                availability => availability,
            },
            tried: match self.tried {
                [.., latest] if *latest == id => Tried::Latest,
                tried if tried.contains(&id) => Tried::Before,
                _ => Tried::No,
            },
            ..endpoint
                .load
                .candidate(listed.weight, endpoint.name_hash(), &self.settings.load, now)
        }
    }
}

#[cfg(test)]
mod tests;
