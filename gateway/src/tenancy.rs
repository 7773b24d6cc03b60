//! From a verified caller to what it may have: its tier, and its hold on what the tier allows.
//!
//! An account belongs to a tenant and a limit, never to a tier: two tenants of one tier share nothing. The tier is
//! decided by the operator's table first, then by the credential, then by a signed claim; no header sets it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderValue;

use crate::auth::caller::{Caller, Kind};
use crate::auth::revocations::Seen;
use crate::identity;
use crate::limits::account::Terms;
use crate::limits::accounts::Origin;
use crate::limits::owner::{Owner, OwnerKey};
use crate::limits::{Limit, LimitHandle, Mode, Per};
use crate::observe::{Registry, TenantMetrics, UnknownTier};

/// A tier as meant.
pub struct Tier {
    pub name: Arc<str>,
    /// Tells it from the others in a queue.
    pub number: u32,
    /// Its share of a backend that has a queue.
    pub weight: u32,
    /// What each tenant in it may take: the tier's rate first.
    pub allowances: Vec<Allowance>,
    as_header: HeaderValue,
}

/// One limit of a tier.
pub struct Allowance {
    pub limit: Arc<Limit>,
    /// The same limit for callers that are known by address alone.
    by_address: Arc<Limit>,
    /// `None` limits only the tenants by name.
    pub usual: Option<Terms>,
    /// Tenants with terms of their own.
    pub named: HashMap<OwnerKey, (Terms, Mode)>,
}

impl Tier {
    pub fn new(name: Arc<str>, number: u32, weight: u32, allowances: Vec<Allowance>) -> Self {
        Self {
            number,
            weight,
            as_header: header(&name),
            name,
            allowances,
        }
    }
}

impl Allowance {
    pub fn new(limit: Limit, usual: Option<Terms>, named: HashMap<OwnerKey, (Terms, Mode)>) -> Self {
        let by_address = Limit {
            per: Per::ClientAddress,
            ..limit.clone()
        };
        Self {
            limit: Arc::new(limit),
            by_address: Arc::new(by_address),
            usual,
            named,
        }
    }

    /// What the owner may take, if it is limited.
    pub fn of(&self, owner: OwnerKey) -> Option<Terms> {
        self.named.get(&owner).map(|(terms, _)| *terms).or(self.usual)
    }

    fn hold(&self, owner: Owner<'_>, origin: Origin) -> Option<Arc<LimitHandle>> {
        let key = owner.key();
        let terms = self.of(key)?;
        let limit = match (owner, self.named.get(&key)) {
            (Owner::Address(_), _) => Arc::clone(&self.by_address),
            (_, Some((_, mode))) if *mode != self.limit.mode => Arc::new(Limit {
                mode: *mode,
                ..Limit::clone(&self.limit)
            }),
            _ => Arc::clone(&self.limit),
        };
        Some(Arc::new(LimitHandle::new(limit, owner, terms, origin)))
    }
}

type Holds = Box<[Arc<LimitHandle>]>;

/// All tiers, and what the operator decided for tenants by name.
pub struct Tiers {
    pub by_name: HashMap<Arc<str>, Arc<Tier>>,
    pub default: Arc<Tier>,
    pub tenants: HashMap<Arc<str>, Option<Arc<Tier>>>,
    registry: Arc<Registry>,
}

/// A caller with everything that its requests need: kept in the cache of verified credentials.
pub struct Principal {
    pub caller: Caller,
    pub tier: Arc<Tier>,
    /// What its credential calls its tier, if that was to decide and there is no such tier.
    pub unknown_tier: Option<Arc<UnknownTier>>,
    /// On everything that the tier allows.
    holds: Holds,
    /// One of them is on an account that it shares, for want of room.
    is_crowded: bool,
    /// The operator names the tenant: in the config, or in the key file.
    pub is_tenant_written: bool,
    /// Whom a queue takes it for; all anonymous callers are one.
    pub share: u64,
    pub metrics: Arc<TenantMetrics>,
    pub tenant_header: HeaderValue,
    pub tier_header: HeaderValue,
    pub caller_header: HeaderValue,
    pub seen: Seen,
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
        }
    }

    /// Decides a caller's tier and takes hold of its accounts.
    pub fn enroll(&self, caller: Caller) -> Principal {
        let written = self.tenants.get(&caller.tenant);
        let (tier, unknown_tier) = match (written, &caller.tier) {
            (Some(Some(tier)), _) => (tier, None),
            (_, Some(named)) => match self.by_name.get(named) {
                Some(tier) => (tier, None),
                None => {
                    let unknown = self.registry.unknown_tiers.find_or_add(named, &caller.tenant);
                    (&self.default, Some(unknown))
                }
            },
            (_, None) => (&self.default, None),
        };
        let tier = Arc::clone(tier);
        let is_tenant_written = caller.configured || written.is_some();
        let holds = holds(&tier, &caller, is_tenant_written);
        Principal {
            is_crowded: holds.iter().any(|hold| hold.is_shared),
            is_tenant_written,
            share: Owner::Tenant(&caller.tenant).key().short(),
            metrics: self.registry.tenants.find_or_add(&caller.tenant, &tier.name),
            tenant_header: header(&caller.tenant),
            tier_header: tier.as_header.clone(),
            caller_header: header(&caller.id),
            unknown_tier,
            seen: Seen::nothing(),
            holds,
            tier,
            caller,
        }
    }
}

/// Takes hold of a caller's accounts.
fn holds(tier: &Tier, caller: &Caller, is_tenant_written: bool) -> Holds {
    let (owner, origin) = match (&caller.kind, caller.id.parse::<IpAddr>()) {
        (Kind::Anonymous, Ok(address)) => (Owner::Address(address), Origin::Request),
        _ if is_tenant_written => (Owner::Tenant(&caller.tenant), Origin::Written),
        _ => (Owner::Tenant(&caller.tenant), Origin::Request),
    };
    let allowances = tier.allowances.iter();
    allowances
        .filter_map(|allowance| allowance.hold(owner, origin))
        .collect()
}

impl Principal {
    /// Its hold on everything that its tier allows. Whoever had to share an account has its own as soon as there is room.
    pub fn holds(&self) -> Cow<'_, [Arc<LimitHandle>]> {
        if self.is_crowded {
            Cow::Owned(holds(&self.tier, &self.caller, self.is_tenant_written).into_vec())
        } else {
            Cow::Borrowed(&self.holds)
        }
    }
}

/// As backends are told: percent-encoded where it is no visible ASCII.
fn header(name: &str) -> HeaderValue {
    HeaderValue::try_from(identity::encoded(name)).expect("visible ASCII is a header value")
}
