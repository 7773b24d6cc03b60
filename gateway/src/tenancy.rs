//! Gives a verified caller its tier and the accounts of the tier's limits.
//!
//! An account belongs to a tenant and a limit, never to a tier: two tenants of one tier share nothing. The operator's
//! table of tenants decides the tier first, then the credential (its entry in a file, or a signed claim), then the
//! default. No header field sets it.
//!
//! The operator's table has two parts: the tenants of the config, which a plan holds, and those of the file of tenants,
//! which change while the gateway runs. A remembered caller notices a change of its tenant at the next request.

pub mod directory;
pub mod own_terms;
pub mod record;

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use policies::CalendarQuota;

use self::directory::TenantDirectory;
pub use self::own_terms::NoTerms;
use self::own_terms::OwnRule;
use self::record::{Counted, TenantRecord};

use crate::auth::caller::{Caller, Kind};
use crate::auth::revocations::Seen;
use crate::clock::Now;
use crate::headers::IdentityLines;
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
    /// Tenants of the config that have their own terms.
    pub named: HashMap<OwnerKey, OwnTerms>,
    /// Makes the terms of tenants of the file.
    pub rule: OwnRule,
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
    pub fn new(limit: Limit, usual: Option<Terms>, named: HashMap<OwnerKey, OwnTerms>, rule: OwnRule) -> Self {
        let by_address = Limit {
            per: Per::ClientAddress,
            ..limit.clone()
        };
        Self {
            limit: Arc::new(limit),
            by_address: Arc::new(by_address),
            usual,
            named,
            rule,
        }
    }

    /// Returns the terms that a tenant has of its own, by the config or by its record.
    fn own(&self, owner: OwnerKey, record: Option<&TenantRecord>) -> Option<OwnTerms> {
        // What cannot be counted is refused before it becomes a record; a record of an earlier plan may not fit this one.
        let of_record = record.and_then(|record| self.rule.terms(record).ok()?);
        of_record.or_else(|| self.named.get(&owner).copied())
    }

    /// Returns the owner's terms, or `None` if it is not limited.
    pub fn of(&self, owner: OwnerKey, record: Option<&TenantRecord>) -> Option<Terms> {
        self.own(owner, record).map(|own| own.terms).or(self.usual)
    }

    /// Returns the setting that the owner's terms come from.
    pub fn setting_of(&self, owner: OwnerKey, record: Option<&TenantRecord>) -> SettingId {
        self.own(owner, record).map_or(self.limit.setting, |own| own.setting)
    }

    fn hold(&self, owner: Owner<'_>, origin: Origin, record: Option<&TenantRecord>) -> Option<Arc<LimitHandle>> {
        let key = owner.key();
        let own = self.own(key, record);
        if let Owner::Tenant(_) = owner {
            let of_record = record.and(own).filter(|_| !self.named.contains_key(&key));
            self.limit
                .table
                .set_own_terms(key, of_record.map(|own| own.terms), Now::read());
        }
        let terms = own.map(|own| own.terms).or(self.usual)?;
        let limit = match (owner, own) {
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

/// Fault of a quota that no limit of the plan counts.
pub const UNKNOWN_QUOTA: &str = "no tier and no tenant has a quota of this name yet";

fn too_small(largest: u64) -> String {
    format!("a request costs up to {largest}, more than it ever holds")
}

type Holds = Box<[Arc<LimitHandle>]>;

/// All tiers, and the tiers that the operator has set for tenants by name.
pub struct Tiers {
    pub by_name: HashMap<Arc<str>, Arc<Tier>>,
    pub default: Arc<Tier>,
    /// Tenants of the config.
    pub tenants: HashMap<Arc<str>, WrittenTenant>,
    /// Tenants of the file, if the config names one.
    pub directory: Option<DirectoryPart>,
    registry: Arc<Registry>,
}

/// A tenant of the config.
pub struct WrittenTenant {
    /// `None` leaves the tier to the credential.
    pub tier: Option<Arc<Tier>>,
    /// The setting that refuses every request of the tenant.
    pub disabled: Option<SettingId>,
}

/// Tenants of the file.
#[derive(Clone)]
pub struct DirectoryPart {
    pub tenants: Arc<TenantDirectory>,
    /// The setting that refuses every request of a tenant.
    pub disabled: SettingId,
    /// Whether there is a store in which limits are counted.
    pub has_store: bool,
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
    /// Field lines that tell a backend who the caller is.
    pub identity: IdentityLines,
    pub seen: Seen,
    /// The setting that refuses every request of the tenant.
    pub disabled: Option<SettingId>,
    /// The tenant's entry in the file of tenants.
    pub record: Option<Arc<TenantRecord>>,
    /// Number of changes of the file's tenants up to which `record` is known to be in force.
    directory_seen: AtomicU64,
    /// The same caller under a newer record.
    successor: ArcSwapOption<Self>,
}

impl Tiers {
    pub fn new(
        by_name: HashMap<Arc<str>, Arc<Tier>>,
        default: Arc<Tier>,
        tenants: HashMap<Arc<str>, WrittenTenant>,
        directory: Option<DirectoryPart>,
        registry: Arc<Registry>,
    ) -> Self {
        Self {
            by_name,
            default,
            tenants,
            directory,
            registry,
        }
    }

    /// Returns what the file of tenants says of a tenant.
    pub fn record(&self, tenant: &str) -> Option<Arc<TenantRecord>> {
        self.directory.as_ref()?.tenants.get(tenant)
    }

    /// Returns the tier that the operator has set for a tenant.
    pub fn tier_of(&self, tenant: &str, record: Option<&TenantRecord>) -> Option<&Arc<Tier>> {
        let of_record = record.and_then(|record| self.by_name.get(record.tier.as_ref()?));
        of_record.or_else(|| self.tenants.get(tenant)?.tier.as_ref())
    }

    /// Checks that a record can be in force under this plan: that its tier exists, and that every limit can be counted.
    /// `largest` is the cost of the dearest request.
    ///
    /// # Errors
    /// Every reason.
    pub fn check(&self, record: &TenantRecord, largest: u64) -> Result<(), Vec<NoTerms>> {
        let mut wrong = Vec::new();
        let mut add = |no: NoTerms| {
            if !wrong.contains(&no) {
                wrong.push(no);
            }
        };
        let tiers: Vec<_> = match &record.tier {
            None => self.by_name.values().collect(),
            Some(name) => match self.by_name.get(name) {
                Some(tier) => vec![tier],
                None => {
                    let why = format!("there is no tier `{name}`");
                    add(NoTerms {
                        field: "tier".to_owned(),
                        why,
                    });
                    self.by_name.values().collect()
                }
            },
        };
        for allowance in tiers.iter().flat_map(|tier| &tier.allowances) {
            match allowance.rule.terms(record) {
                Err(no) => add(no),
                Ok(Some(own)) if own.terms.most() < largest && !matches!(own.terms.kind().as_str(), "in_flight") => {
                    let field = match &allowance.rule.part {
                        own_terms::OwnPart::Quota(name, _) => format!("quotas.{name}"),
                        _ if record.burst.is_some() => "burst".to_owned(),
                        _ => "rate".to_owned(),
                    };
                    add(NoTerms {
                        field,
                        why: too_small(largest),
                    });
                }
                Ok(_) => {}
            }
        }
        for (name, quota) in &record.quotas {
            let no = |why: String| NoTerms {
                field: format!("quotas.{name}"),
                why,
            };
            if let Err(error) = CalendarQuota::new(quota.limit.get(), quota.every) {
                add(no(error.to_string()));
            }
            if quota.limit.get() < largest {
                add(no(too_small(largest)));
            }
            let has_store = self.directory.as_ref().is_some_and(|part| part.has_store);
            if !has_store && matches!(quota.counted, Some(Counted::Leased | Counted::Exact)) {
                add(no("there is no `limits_store` in which it could be counted".to_owned()));
                continue;
            }
            let is_known = |tier: &&Arc<Tier>| tier.allowances.iter().any(|allowance| allowance.limit.name == *name);
            if !tiers.iter().any(is_known) {
                add(no(UNKNOWN_QUOTA.to_owned()));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// Returns the caller as its tenant's record is now, if it has changed since `known` was built.
    pub fn renewed(&self, known: &Arc<Principal>) -> Option<Arc<Principal>> {
        let directory = &self.directory.as_ref()?.tenants;
        let changes = directory.changes();
        if known.directory_seen.load(Relaxed) == changes {
            return None;
        }
        self.renew(known, directory, changes)
    }

    #[cold]
    fn renew(&self, known: &Arc<Principal>, directory: &TenantDirectory, changes: u64) -> Option<Arc<Principal>> {
        let successor = known.successor.load_full();
        let newest = successor.as_ref().unwrap_or(known);
        if newest.directory_seen.load(Relaxed) != changes {
            let record = match newest.caller.kind {
                Kind::Anonymous => None,
                _ => directory.get(&newest.caller.tenant),
            };
            if record != newest.record {
                let renewed = Arc::new(self.build_principal(known.caller.clone()));
                known.successor.store(Some(Arc::clone(&renewed)));
                return Some(renewed);
            }
            newest.directory_seen.store(changes, Relaxed);
        }
        successor
    }

    /// Decides a caller's tier and opens its accounts.
    pub fn build_principal(&self, caller: Caller) -> Principal {
        let written = self.tenants.get(&caller.tenant);
        let directory = self
            .directory
            .as_ref()
            .filter(|_| !matches!(caller.kind, Kind::Anonymous));
        // The number comes first: a change in between is then noticed later.
        let directory_seen = directory.map_or(0, |part| part.tenants.changes());
        let record = directory.and_then(|part| part.tenants.get(&caller.tenant));
        let (tier, unknown_tier) = match (self.tier_of(&caller.tenant, record.as_deref()), &caller.tier) {
            (Some(tier), _) => (tier, None),
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
        let is_tenant_written = caller.configured || written.is_some() || record.is_some();
        let holds = holds(&tier, &caller, is_tenant_written, record.as_deref());
        let by_record = record.as_ref().is_some_and(|record| record.disabled);
        let disabled = match directory {
            Some(part) if by_record => Some(part.disabled),
            _ => written.and_then(|written| written.disabled),
        };
        Principal {
            disabled,
            record,
            directory_seen: AtomicU64::new(directory_seen),
            successor: ArcSwapOption::empty(),
            is_crowded: holds.iter().any(|hold| hold.is_shared),
            is_tenant_written,
            share: Owner::Tenant(&caller.tenant).key().short(),
            metrics: self.registry.tenants.find_or_add(&caller.tenant, &tier.name),
            identity: IdentityLines::of(&header(&caller.tenant), &tier.as_header, &header(&caller.id)),
            unknown_tier,
            seen: Seen::nothing(),
            holds,
            tier,
            caller,
        }
    }
}

/// Opens the accounts of a caller.
fn holds(tier: &Tier, caller: &Caller, is_tenant_written: bool, record: Option<&TenantRecord>) -> Holds {
    let (owner, origin) = match (&caller.kind, caller.id.parse::<IpAddr>()) {
        (Kind::Anonymous, Ok(address)) => (Owner::Address(address), Origin::Request),
        _ if is_tenant_written => (Owner::Tenant(&caller.tenant), Origin::Written),
        _ => (Owner::Tenant(&caller.tenant), Origin::Request),
    };
    let allowances = tier.allowances.iter();
    allowances
        .filter_map(|allowance| allowance.hold(owner, origin, record))
        .collect()
}

impl Principal {
    /// Returns the accounts of all limits of the tier. A shared account is replaced by the caller's own once there is
    /// room.
    pub fn holds(&self) -> Cow<'_, [Arc<LimitHandle>]> {
        if self.is_crowded {
            Cow::Owned(holds(&self.tier, &self.caller, self.is_tenant_written, self.record.as_deref()).into_vec())
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
