//! Knows the endpoints of a backend that are in use, so that an address that stays, or returns while it still has an
//! exchange, keeps its pools, its count and its ejection state.
//!
//! Invariant: the registry keeps no endpoint alive. The pools of an endpoint are open exactly while a set in force holds
//! it.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use policies::Moment;

use super::MOST_ENDPOINTS;
use super::endpoint::Endpoint;
use super::endpoint_settings::EndpointSettings;
use super::member::Member;
use crate::call::tls::TlsTerms;

/// Identity of an endpoint. Other TLS settings make another endpoint, because pooled connections use the old settings.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    url: Arc<str>,
    address: SocketAddr,
    tls: Option<TlsTerms>,
    in_http2: bool,
}

/// Endpoints of one backend that are in use, in whatever set.
#[derive(Default)]
pub struct Registry {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    endpoints: HashMap<Key, Weak<Endpoint>>,
    /// URL and address of the endpoints that an operator has drained, also of those that are not in use now.
    drained: HashSet<(Arc<str>, SocketAddr)>,
}

impl Registry {
    /// Returns the addresses by which a URL is reached now, in order.
    pub fn addresses(&self, url: &str) -> Vec<SocketAddr> {
        let known = self.lock();
        let members = known.endpoints.iter().filter(|(key, endpoint)| {
            *key.url == *url && endpoint.upgrade().is_some_and(|endpoint| endpoint.is_member())
        });
        let mut found: Vec<_> = members.map(|(key, _)| key.address).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Adds and removes members of a set. An endpoint that joins others begins to warm up. Returns the endpoints of `added`, in its order.
    pub(super) fn change(
        &self,
        settings: &EndpointSettings,
        added: &[&Member],
        removed: &[Arc<Endpoint>],
        now: Moment,
    ) -> Vec<Arc<Endpoint>> {
        let mut known = self.lock();
        let Known { endpoints, drained } = &mut *known;
        // The endpoints of a backend that had none are all new, and none of them has to spare the others.
        let is_first = !endpoints
            .values()
            .any(|known| known.upgrade().is_some_and(|known| known.is_member()));
        let joined = added.iter().map(|member| {
            let is_secure = member.origin.server_name.is_some();
            let key = Key {
                url: Arc::clone(&member.origin.url),
                address: member.address,
                tls: settings.tls.as_ref().filter(|_| is_secure).map(|tls| tls.terms.clone()),
                in_http2: settings.in_http2,
            };
            let is_drained = drained.contains(&(Arc::clone(&key.url), key.address));
            let slot = endpoints.entry(key).or_default();
            let endpoint = slot.upgrade().unwrap_or_else(|| {
                let made = Arc::new(Endpoint::new(Arc::clone(&member.origin), member.address, settings));
                made.health.drain(is_drained);
                *slot = Arc::downgrade(&made);
                made
            });
            if !endpoint.is_member() && !is_first {
                endpoint.load.warm_up(now);
            }
            endpoint.join();
            endpoint
        });
        let joined = joined.collect();
        removed.iter().for_each(|endpoint| endpoint.leave());
        endpoints.retain(|_, endpoint| endpoint.strong_count() > 0);
        joined
    }

    /// Drains the endpoints with this address, or takes the drain back. A drained endpoint gets no new exchange, whatever
    /// plan uses it, until the drain is taken back. Returns the endpoints in use, each with whether that changed
    /// anything; `None` if nothing has this address.
    pub fn drain(&self, address: SocketAddr, is_drained: bool) -> Option<Vec<(Arc<Endpoint>, bool)>> {
        let mut known = self.lock();
        let Known { endpoints, drained } = &mut *known;
        let had = drained.len();
        if !is_drained {
            drained.retain(|(_, other)| *other != address);
        }
        let was_drained = drained.len() < had;
        let mut found = Vec::new();
        for (key, endpoint) in endpoints.iter().filter(|(key, _)| key.address == address) {
            let Some(endpoint) = endpoint.upgrade() else { continue };
            let is_member = endpoint.is_member();
            if is_drained && is_member && drained.len() < MOST_ENDPOINTS {
                drained.insert((Arc::clone(&key.url), address));
            }
            if is_member || !is_drained {
                let has_changed = endpoint.health.drain(is_drained);
                found.push((endpoint, has_changed));
            }
        }
        (was_drained || !found.is_empty()).then_some(found)
    }

    /// Returns URL and address of the endpoints that an operator has drained.
    pub fn drained(&self) -> Vec<(Arc<str>, SocketAddr)> {
        self.lock().drained.iter().cloned().collect()
    }

    /// Drains the endpoints that an operator had drained in the process before this one, in use now or later.
    pub fn drain_again(&self, all: &[(Arc<str>, SocketAddr)]) {
        let mut known = self.lock();
        let Known { endpoints, drained } = &mut *known;
        for one in all {
            if drained.len() < MOST_ENDPOINTS {
                drained.insert(one.clone());
            }
        }
        for (key, endpoint) in endpoints {
            if drained.contains(&(Arc::clone(&key.url), key.address))
                && let Some(endpoint) = endpoint.upgrade()
            {
                endpoint.health.drain(true);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
