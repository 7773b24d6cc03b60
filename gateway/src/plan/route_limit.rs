//! A limit of a route or of failed authentications, with the terms that the config gives it.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderValue;

use crate::limits::kinds::Terms;
use crate::limits::owner::{Credential, Owner};
use crate::limits::store::Origin;
use crate::limits::{self, Charge, Limit, LimitHandle, Per};
use crate::tenancy::Principal;

/// A limit of a route or of failed authentications, in contrast to the limits of a tier.
pub struct RouteLimit {
    pub limit: Arc<Limit>,
    pub terms: Terms,
    policy: HeaderValue,
}

impl RouteLimit {
    pub fn new(limit: Arc<Limit>, terms: Terms) -> Self {
        Self {
            policy: limits::granted(&limit.name, &terms),
            limit,
            terms,
        }
    }

    /// Returns the charge to the account of the caller. `cost` applies if the limit has no cost of its own.
    pub fn charge(&self, known: &Principal, address: IpAddr, route: &str, cost: u64) -> Charge {
        let caller = &known.caller;
        let written = |is_written: bool| if is_written { Origin::Written } else { Origin::Request };
        let (owner, origin) = match (self.limit.per, caller.kind.credential()) {
            (Per::Route, _) => (Owner::Route(route), Origin::Written),
            (Per::Global, _) => (Owner::Everyone, Origin::Written),
            // An anonymous caller has no tenant, so its address takes the tenant's place.
            (Per::ClientAddress, _) | (_, None) => (Owner::Address(address), Origin::Request),
            (Per::Tenant, _) => (Owner::Tenant(&caller.tenant), written(known.is_tenant_written)),
            (Per::Caller, Some(shown)) => {
                // Token subjects and certificate names are unbounded: the issuer chooses them.
                let is_listed = matches!(shown, Credential::ApiKey | Credential::Password);
                (Owner::Caller(&caller.tenant, shown, &caller.id), written(is_listed))
            }
        };
        self.hold(owner, origin).charge(cost)
    }

    pub fn hold(&self, owner: Owner<'_>, origin: Origin) -> Arc<LimitHandle> {
        let (limit, policy) = (Arc::clone(&self.limit), self.policy.clone());
        Arc::new(LimitHandle::with(limit, owner, self.terms, origin, policy))
    }
}
