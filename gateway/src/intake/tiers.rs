//! From a verified caller to what it may have: its tier, and its hold on the tier's bucket.
//!
//! A bucket belongs to a tenant and a limit, never to a tier: two tenants of one tier share nothing. The tier is
//! decided by the operator's table first, then by the credential, then by a signed claim; no header sets it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use http::HeaderValue;

use super::buckets::{Owner, Quotas};
use super::caller::{Caller, Kind};
use super::limits::{Hold, Limit, Per};
use crate::observe::{Registry, TenantMetrics};

/// A tier as meant.
pub struct Tier {
    pub name: Arc<str>,
    /// Tells it from the others in a queue.
    pub number: u32,
    /// Its share of a backend that has a queue.
    pub weight: u32,
    /// One bucket for each tenant.
    pub limit: Arc<Limit>,
    /// The same limit for callers that are known by address alone.
    pub by_address: Arc<Limit>,
    pub quotas: Quotas,
    as_header: HeaderValue,
}

impl Tier {
    /// Both limits count in the same table.
    pub fn new(limit: Limit, number: u32, weight: u32, quotas: Quotas) -> Self {
        let by_address = Limit {
            per: Per::ClientAddress,
            ..limit.clone()
        };
        Self {
            name: Arc::clone(&limit.name),
            number,
            weight,
            as_header: header(&limit.name),
            limit: Arc::new(limit),
            by_address: Arc::new(by_address),
            quotas,
        }
    }

    /// Whether the operator gave this tenant a rate or burst of its own.
    pub fn has_terms_for(&self, tenant: &str) -> bool {
        self.quotas.has_own(Owner::Tenant(tenant).key())
    }
}

/// All tiers, and what the operator decided for tenants by name.
pub struct Tiers {
    pub by_name: HashMap<Arc<str>, Arc<Tier>>,
    pub default: Arc<Tier>,
    pub tenants: HashMap<Arc<str>, Option<Arc<Tier>>>,
    registry: Arc<Registry>,
    unknown: AtomicU64,
}

/// A caller with everything that its requests need: kept in the cache of verified credentials.
pub struct Known {
    pub caller: Caller,
    pub tier: Arc<Tier>,
    /// On the tier's bucket.
    pub hold: Arc<Hold>,
    /// Whom a queue takes it for; all anonymous callers are one.
    pub share: u64,
    pub metrics: Arc<TenantMetrics>,
    pub tenant_header: HeaderValue,
    pub tier_header: HeaderValue,
    pub caller_header: HeaderValue,
}

impl Tiers {
    pub fn new(
        by_name: HashMap<Arc<str>, Arc<Tier>>,
        default: Arc<Tier>,
        tenants: HashMap<Arc<str>, Option<Arc<Tier>>>,
        registry: Arc<Registry>,
    ) -> Self {
        Self {
            by_name,
            default,
            tenants,
            registry,
            unknown: AtomicU64::new(0),
        }
    }

    /// Decides a caller's tier and takes hold of its bucket.
    pub fn enroll(&self, caller: Caller) -> Known {
        let written = self.tenants.get(&caller.tenant);
        let tier = match (written, &caller.tier) {
            (Some(Some(tier)), _) => Arc::clone(tier),
            (_, Some(named)) => self.by_name.get(named).map_or_else(
                || {
                    self.unknown.fetch_add(1, Relaxed);
                    Arc::clone(&self.default)
                },
                Arc::clone,
            ),
            (_, None) => Arc::clone(&self.default),
        };
        let (owner, limit) = match (&caller.kind, caller.id.parse::<IpAddr>()) {
            (Kind::Anonymous, Ok(address)) => (Owner::Address(address).key(), &tier.by_address),
            _ => (Owner::Tenant(&caller.tenant).key(), &tier.limit),
        };
        let configured = caller.configured || written.is_some();
        let bucket = limit.table.bucket(owner, configured);
        let hold = Arc::new(Hold::new(Arc::clone(limit), tier.quotas.of(owner), bucket));
        Known {
            share: Owner::Tenant(&caller.tenant).key().short(),
            metrics: self.registry.tenants.find_or_add(&caller.tenant, &tier.name),
            tenant_header: header(&caller.tenant),
            tier_header: tier.as_header.clone(),
            caller_header: header(&caller.id),
            hold,
            tier,
            caller,
        }
    }

    /// How often a credential named a tier that does not exist.
    pub fn unknown(&self) -> u64 {
        self.unknown.load(Relaxed)
    }
}

/// Names of tenants, tiers and callers fit into a field; that is checked where they come in.
fn header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("invalid"))
}
