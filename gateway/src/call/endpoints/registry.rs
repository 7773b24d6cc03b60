//! Knows the endpoints of a backend that are in use, so that an address that stays, or returns while it still has an
//! exchange, keeps its pools, its count and its ejection state.
//!
//! Invariant: the registry keeps no endpoint alive. The pools of an endpoint are open exactly while a set in force holds
//! it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::endpoint::Endpoint;
use super::member::Member;
use crate::call::tls::{EndpointTls, TlsTerms};

/// Settings that all endpoints of a set share.
pub struct EndpointSettings {
    /// TLS settings, for the endpoints whose URL asks for TLS.
    pub tls: Option<EndpointTls>,
    /// Whether HTTP/2 is spoken in place of HTTP/1.1.
    pub in_http2: bool,
    /// Number of workers, each of which has its own pools.
    pub workers: usize,
}

impl EndpointSettings {
    /// Returns the protocol, as named in the config.
    pub const fn protocol(&self) -> &'static str {
        match (self.in_http2, &self.tls) {
            (false, _) => "http1",
            (true, Some(_)) => "h2",
            (true, None) => "h2c",
        }
    }
}

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
    known: Mutex<HashMap<Key, Weak<Endpoint>>>,
}

impl Registry {
    /// Returns the addresses by which a URL is reached now, in order.
    pub fn addresses(&self, url: &str) -> Vec<SocketAddr> {
        let known = self.lock();
        let members = known.iter().filter(|(key, endpoint)| {
            *key.url == *url && endpoint.upgrade().is_some_and(|endpoint| endpoint.is_member())
        });
        let mut found: Vec<_> = members.map(|(key, _)| key.address).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Adds and removes members of a set. Returns the endpoints of `added`, in its order.
    pub(super) fn change(
        &self,
        settings: &EndpointSettings,
        added: &[&Member],
        removed: &[Arc<Endpoint>],
    ) -> Vec<Arc<Endpoint>> {
        let mut known = self.lock();
        let joined = added.iter().map(|member| {
            let is_secure = member.origin.server_name.is_some();
            let key = Key {
                url: Arc::clone(&member.origin.url),
                address: member.address,
                tls: settings.tls.as_ref().filter(|_| is_secure).map(|tls| tls.terms.clone()),
                in_http2: settings.in_http2,
            };
            let slot = known.entry(key).or_default();
            let endpoint = slot.upgrade().unwrap_or_else(|| {
                let made = Arc::new(Endpoint::new(Arc::clone(&member.origin), member.address, settings));
                *slot = Arc::downgrade(&made);
                made
            });
            endpoint.join();
            endpoint
        });
        let joined = joined.collect();
        removed.iter().for_each(|endpoint| endpoint.leave());
        known.retain(|_, endpoint| endpoint.strong_count() > 0);
        joined
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Weak<Endpoint>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
