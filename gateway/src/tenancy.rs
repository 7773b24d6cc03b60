//! Gives a verified caller its tier and the accounts of the tier's limits.
//!
//! An account belongs to a tenant and a limit, never to a tier: two tenants of one tier share nothing. The operator's
//! table of tenants decides the tier first, then the credential (its entry in a file, or a signed claim), then the
//! default. No header field sets it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use http::HeaderValue;

use crate::auth::caller::{Caller, Kind};
use crate::auth::revocations::Seen;
use crate::identity;
use crate::limits::kinds::Terms;
use crate::limits::owner::{Owner, OwnerKey};
use crate::limits::store::Origin;
use crate::limits::{Limit, LimitHandle, Mode, Per};
use crate::observe::{Registry, TenantMetrics, UnknownTier};
use crate::setting::SettingId;

/// Compiled form of a tier.
pub struct Tier {
    pub name: Arc<str>,
    /// Number that identifies the tier in a backend's queue.
    pub number: u32,
    /// Relative share of a backend's queue.
    pub weight: u32,
    /// Number of lower weights that other tiers have. Newcomers of the lowest rank are refused first by an overloaded
    /// worker.
    pub rank: usize,
    /// The largest rank of a tier.
    top_rank: usize,
    /// Requests that overloaded workers have refused.
    pub refused: Arc<AtomicU64>,
    /// Limits of each tenant in the tier, the tier's rate first.
    pub allowances: Vec<Allowance>,
    as_header: HeaderValue,
}

/// What a tier is among the others.
pub struct TierRank {
    pub number: u32,
    pub weight: u32,
    pub rank: usize,
    pub top_rank: usize,
    pub refused: Arc<AtomicU64>,
}

/// One limit of a tier.
pub struct Allowance {
    pub limit: Arc<Limit>,
    /// The same limit for callers that are identified only by client address.
    by_address: Arc<Limit>,
    /// Terms of tenants that are not in `named`. `None` leaves them unlimited.
    pub usual: Option<Terms>,
    /// Tenants that have their own terms.
    pub named: HashMap<OwnerKey, OwnTerms>,
}

/// Terms that the config writes for one tenant, in place of those of its tier.
#[derive(Debug, Clone, Copy)]
pub struct OwnTerms {
    pub terms: Terms,
    pub mode: Mode,
    pub setting: SettingId,
}

impl Tier {
    pub fn new(name: Arc<str>, order: TierRank, allowances: Vec<Allowance>) -> Self {
        let TierRank {
            number,
            weight,
            rank,
            top_rank,
            refused,
        } = order;
        Self {
            number,
            weight,
            rank,
            top_rank,
            refused,
            as_header: header(&name),
            name,
            allowances,
        }
    }

    /// Returns the part of a memory budget, in bytes, that requests of the tier and of cheaper ones may fill: three
    /// quarters for the cheapest tier, all of it for the dearest. So when memory runs out, a dear request still finds
    /// room.
    pub const fn room(&self, budget: u64) -> u64 {
        let (above, top) = (self.top_rank - self.rank, self.top_rank);
        match top {
            0 => budget,
            _ => budget - budget / 4 / top as u64 * above as u64,
        }
    }
}

impl Allowance {
    pub fn new(limit: Limit, usual: Option<Terms>, named: HashMap<OwnerKey, OwnTerms>) -> Self {
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

    /// Returns the owner's terms, or `None` if it is not limited.
    pub fn of(&self, owner: OwnerKey) -> Option<Terms> {
        self.named.get(&owner).map(|own| own.terms).or(self.usual)
    }

    /// Returns the setting that the owner's terms come from.
    pub fn setting_of(&self, owner: OwnerKey) -> SettingId {
        self.named.get(&owner).map_or(self.limit.setting, |own| own.setting)
    }

    fn hold(&self, owner: Owner<'_>, origin: Origin) -> Option<Arc<LimitHandle>> {
        let key = owner.key();
        let terms = self.of(key)?;
        let limit = match (owner, self.named.get(&key)) {
            (Owner::Address(_), _) => Arc::clone(&self.by_address),
            (_, Some(own)) => Arc::new(Limit {
                mode: own.mode,
                setting: own.setting,
                ..Limit::clone(&self.limit)
            }),
            (_, None) => Arc::clone(&self.limit),
        };
        Some(Arc::new(LimitHandle::new(limit, owner, terms, origin)))
    }
}

type Holds = Box<[Arc<LimitHandle>]>;

/// All tiers, and the tiers that the operator has set for tenants by name.
pub struct Tiers {
    pub by_name: HashMap<Arc<str>, Arc<Tier>>,
    pub default: Arc<Tier>,
    pub tenants: HashMap<Arc<str>, Option<Arc<Tier>>>,
    registry: Arc<Registry>,
}

/// A caller with everything that its requests need. Kept in the cache of verified credentials.
pub struct Principal {
    pub caller: Caller,
    pub tier: Arc<Tier>,
    /// Tier that the credential names, if that name was to decide and is unknown.
    pub unknown_tier: Option<Arc<UnknownTier>>,
    /// Handles of the accounts of all limits of the tier.
    holds: Holds,
    /// Whether a table was full, so that one of the accounts is shared with other callers.
    is_crowded: bool,
    /// Whether the operator names the tenant, in the config or in a file of credentials.
    pub is_tenant_written: bool,
    /// Queue key of the tenant. All anonymous callers have the same.
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

    /// Decides a caller's tier and opens its accounts.
    pub fn build_principal(&self, caller: Caller) -> Principal {
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

/// Opens the accounts of a caller.
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
    /// Returns the accounts of all limits of the tier. A shared account is replaced by the caller's own once there is
    /// room.
    pub fn holds(&self) -> Cow<'_, [Arc<LimitHandle>]> {
        if self.is_crowded {
            Cow::Owned(holds(&self.tier, &self.caller, self.is_tenant_written).into_vec())
        } else {
            Cow::Borrowed(&self.holds)
        }
    }
}

/// Makes a field value for backends. Bytes that are not visible ASCII are percent-encoded.
fn header(name: &str) -> HeaderValue {
    HeaderValue::try_from(identity::encoded(name)).expect("visible ASCII is a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dear_tier_has_more_room_than_a_cheap_one() {
        let check = |rank: usize, top_rank: usize, expected: u64| {
            let rank = TierRank {
                number: 0,
                weight: 1,
                rank,
                top_rank,
                refused: Arc::default(),
            };
            assert_eq!(Tier::new("any".into(), rank, Vec::new()).room(1200), expected);
        };
        check(0, 0, 1200);
        check(0, 1, 900);
        check(1, 1, 1200);
        for (rank, expected) in [900, 1000, 1100, 1200].into_iter().enumerate() {
            check(rank, 3, expected);
        }
        let most = TierRank {
            number: 0,
            weight: 1,
            rank: 0,
            top_rank: 15,
            refused: Arc::default(),
        };
        assert_eq!(
            Tier::new("any".into(), most, Vec::new()).room(u64::MAX),
            u64::MAX - u64::MAX / 4 / 15 * 15
        );
    }
}
