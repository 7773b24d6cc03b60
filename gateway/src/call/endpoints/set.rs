//! The endpoints of a backend that are in force. Sources of endpoints replace them as a whole.
//!
//! Invariant: a reader sees either the old endpoints or the new ones. An endpoint that stays keeps its state. A set that
//! is closed, because no plan in force uses it, changes no more.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};
use policies::Moment;
use policies::balance::{Availability, Turns};
use policies::ejection::Standing;
use policies::health::WhenNoneIsUp;

use super::MOST_ENDPOINTS;
use super::balance::Pick;
use super::discovery::Discovery;
use super::endpoint::{Endpoint, EndpointGuard, EndpointId};
use super::endpoint_settings::EndpointSettings;
use super::member::{Member, Readiness};
use super::registry::Registry;
use crate::clock;

/// Endpoints of a backend, behind a swap.
pub struct EndpointSet {
    registry: Arc<Registry>,
    settings: EndpointSettings,
    /// Source of the endpoints; `None` if the config lists them.
    discovery: Option<Arc<Discovery>>,
    current: ArcSwap<Snapshot>,
    /// Held by writers. Whether the set is closed.
    is_closed: Mutex<bool>,
}

/// Endpoints in force at one moment.
#[derive(Default)]
pub struct Snapshot {
    pub(super) all: Box<[Listed]>,
    pub(super) turns: Turns,
}

/// Endpoint with what its source says about it.
#[derive(Clone)]
pub struct Listed {
    pub endpoint: Arc<Endpoint>,
    pub weight: u32,
    pub readiness: Readiness,
}

/// Result of a replacement.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Replaced {
    /// Number of endpoints that were not in the set before.
    pub added: usize,
    pub removed: usize,
    /// Number of members that are left out, because a backend has at most [`MOST_ENDPOINTS`] endpoints.
    pub left_out: usize,
}

impl EndpointSet {
    pub fn new(registry: Arc<Registry>, settings: EndpointSettings, members: Vec<Member>) -> Self {
        let set = Self {
            registry,
            settings,
            discovery: None,
            current: ArcSwap::default(),
            is_closed: Mutex::new(false),
        };
        set.replace(members);
        set
    }

    /// Notes the source that replaces the endpoints.
    #[must_use]
    pub fn found_by(mut self, discovery: Option<Discovery>) -> Self {
        self.discovery = discovery.map(Arc::new);
        self
    }

    /// Returns the source of the endpoints; `None` if the config lists them.
    pub const fn discovery(&self) -> Option<&Arc<Discovery>> {
        self.discovery.as_ref()
    }

    /// Has the source asked at once, because an endpoint could not be reached.
    pub(crate) fn note_unreached(&self) {
        if let Some(discovery) = &self.discovery {
            discovery.wake.notify_one();
        }
    }

    /// Replaces all endpoints. A member with the URL and the address of an endpoint is that endpoint, and it keeps its
    /// state. A member that is listed twice counts once.
    pub fn replace(&self, members: Vec<Member>) -> Replaced {
        let is_closed = self.is_closed.lock().unwrap_or_else(PoisonError::into_inner);
        if *is_closed {
            return Replaced::default();
        }
        self.put(members)
    }

    /// Ends the set: its endpoints close their idle connections, unless another set holds them. Calls that still use the
    /// set find its endpoints.
    pub fn close(&self) {
        let mut is_closed = self.is_closed.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut *is_closed, true) {
            let removed: Vec<_> = self
                .load()
                .all
                .iter()
                .map(|listed| Arc::clone(&listed.endpoint))
                .collect();
            self.registry.change(&self.settings, &[], &removed, clock::now());
        }
    }

    pub fn is_closed(&self) -> bool {
        *self.is_closed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the endpoints in force now.
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// Returns the endpoints in force now, to be held over an `.await`.
    pub fn load_full(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    pub fn settings(&self) -> &EndpointSettings {
        &self.settings
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    fn put(&self, mut members: Vec<Member>) -> Replaced {
        let mut seen = HashSet::new();
        members.retain(|member| seen.insert((Arc::clone(&member.origin.url), member.address)));
        let left_out = members.len().saturating_sub(MOST_ENDPOINTS);
        members.truncate(MOST_ENDPOINTS);

        let old = self.current.load_full();
        let mut before: HashMap<_, _> = old
            .all
            .iter()
            .map(|Listed { endpoint, .. }| ((&**endpoint.url(), endpoint.address()), endpoint))
            .collect();
        let stays: Vec<_> = members
            .iter()
            .map(|member| before.remove(&(&*member.origin.url, member.address)))
            .collect();
        let added: Vec<_> = members
            .iter()
            .zip(&stays)
            .filter(|(_, stays)| stays.is_none())
            .map(|(member, _)| member)
            .collect();
        let removed: Vec<_> = before.into_values().map(Arc::clone).collect();
        let replaced = Replaced {
            added: added.len(),
            removed: removed.len(),
            left_out,
        };
        // The new ones join before the old ones leave, and both before a worker can choose one.
        let mut joined = self
            .registry
            .change(&self.settings, &added, &removed, clock::now())
            .into_iter();
        let all: Box<[_]> = members
            .iter()
            .zip(stays)
            .filter_map(|(member, stays)| {
                Some(Listed {
                    endpoint: stays.map(Arc::clone).or_else(|| joined.next())?,
                    weight: member.weight.max(1),
                    readiness: member.readiness,
                })
            })
            .collect();
        let is_same = |(new, old): (&Listed, &Listed)| {
            new.endpoint.id() == old.endpoint.id() && (new.weight, new.readiness) == (old.weight, old.readiness)
        };
        if all.len() != old.all.len() || !all.iter().zip(&old.all).all(is_same) {
            let weights: Vec<_> = all.iter().map(|listed| listed.weight).collect();
            let turns = Turns::new(&weights, fastrand::u64(..));
            self.current.store(Arc::new(Snapshot { all, turns }));
        }
        replaced
    }
}

impl Drop for EndpointSet {
    fn drop(&mut self) {
        self.close();
    }
}

impl Snapshot {
    pub fn all(&self) -> &[Listed] {
        &self.all
    }

    pub fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.all.iter().map(|listed| &listed.endpoint)
    }

    /// Returns the endpoints as members of another set.
    pub fn members(&self) -> impl Iterator<Item = Member> {
        self.all.iter().map(|listed| Member {
            origin: Arc::clone(listed.endpoint.origin()),
            address: listed.endpoint.address(),
            weight: listed.weight,
            readiness: listed.readiness,
        })
    }

    pub fn standings(&self) -> impl Iterator<Item = &Standing> {
        self.all.iter().map(|listed| &listed.endpoint.standing)
    }

    /// Chooses the endpoint of an attempt. The attempt counts as in flight from now on.
    pub(crate) fn choose(&self, pick: &Pick<'_>, now: Moment) -> Option<EndpointGuard> {
        let chosen = pick.choose(self, now)?;
        Some(EndpointGuard::new(Arc::clone(&chosen.endpoint), now))
    }

    /// Chooses the endpoint of a copy of a request. The copy does not count as in flight, and the choice changes nothing
    /// that the endpoint of a call is chosen by.
    pub(crate) fn choose_aside(&self, pick: &Pick<'_>, now: Moment) -> Option<Arc<Endpoint>> {
        pick.choose_aside(self, now).map(|chosen| Arc::clone(&chosen.endpoint))
    }

    /// Whether no endpoint is up.
    pub fn is_degraded(&self, now: Moment) -> bool {
        !self.endpoints().any(|endpoint| endpoint.state(now).is_up())
    }

    /// Whether an endpoint that may get a call is not in `tried`.
    pub(crate) fn has_another(&self, tried: &[EndpointId], none_up: WhenNoneIsUp, now: Moment) -> bool {
        let may_get_calls = |endpoint: &Endpoint| endpoint.state(now).availability(none_up) != Availability::Out;
        self.endpoints()
            .any(|endpoint| !tried.contains(&endpoint.id()) && may_get_calls(endpoint))
    }
}

#[cfg(test)]
mod tests;
