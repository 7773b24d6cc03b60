//! Where the buckets live: one table per limit, one bucket per owner, kept across reloads.
//!
//! Memory is bounded without ever forgetting a debt: a full bucket equals an absent one and is dropped once nobody
//! holds it; past the cap, owners that anyone can invent (addresses, tenants known only from claims) share one
//! overflow bucket per limit, which is counted. Owners that an operator wrote down always have their own.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use policies::{Bucket, Moment, Quota};

/// Whom a bucket belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Owner<'a> {
    Tenant(&'a str),
    /// A caller of a tenant: key id or subject.
    Caller(&'a str, &'a str),
    /// Masked, without port.
    Address(IpAddr),
    Route(&'a str),
    Everyone,
}

/// An owner's name in a table: 128 keyed bits, so that two owners never share and none can be aimed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnerKey(u128);

impl Owner<'_> {
    pub fn key(&self) -> OwnerKey {
        static KEYS: LazyLock<[RandomState; 2]> = LazyLock::new(|| [RandomState::new(), RandomState::new()]);
        let [high, low] = KEYS.each_ref().map(|state| u128::from(state.hash_one(self)));
        OwnerKey(high << 64 | low)
    }
}

impl OwnerKey {
    /// Enough of the key to tell tenants apart in a queue.
    pub fn short(self) -> u64 {
        self.0 as u64
    }
}

impl Hash for OwnerKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.short());
    }
}

/// The key is a hash already.
#[derive(Default)]
pub struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// What the owners of one limit may take: most of them the same, some by name.
#[derive(Debug, Clone, PartialEq)]
pub struct Quotas {
    pub usual: Quota,
    pub named: HashMap<u128, Quota>,
}

impl Quotas {
    pub fn of(&self, owner: OwnerKey) -> Quota {
        self.named.get(&owner.0).copied().unwrap_or(self.usual)
    }

    /// Whether the owner is one of those by name.
    pub fn has_own(&self, owner: OwnerKey) -> bool {
        self.named.contains_key(&owner.0)
    }

    pub fn name(&mut self, owner: OwnerKey, quota: Quota) {
        self.named.insert(owner.0, quota);
    }
}

/// The buckets of one limit.
pub struct Table {
    buckets: DashMap<OwnerKey, Arc<Bucket>, BuildHasherDefault<AsIs>>,
    overflow: Arc<Bucket>,
    overflowed: AtomicU64,
    quotas: ArcSwap<Quotas>,
    room: Arc<Room>,
}

/// How many buckets all tables together may hold for owners that nobody wrote down.
#[derive(Debug)]
struct Room {
    cap: usize,
    used: AtomicUsize,
}

impl Table {
    fn new(quotas: Quotas, room: Arc<Room>) -> Self {
        Self {
            buckets: DashMap::default(),
            overflow: Arc::new(Bucket::full()),
            overflowed: AtomicU64::new(0),
            quotas: ArcSwap::from_pointee(quotas),
            room,
        }
    }

    /// The owner's bucket. `configured` owners are never sent to the overflow bucket.
    pub fn bucket(&self, owner: OwnerKey, configured: bool) -> Arc<Bucket> {
        if let Some(bucket) = self.buckets.get(&owner) {
            return Arc::clone(&bucket);
        }
        if !configured && self.room.used.load(Relaxed) >= self.room.cap {
            self.overflowed.fetch_add(1, Relaxed);
            return Arc::clone(&self.overflow);
        }
        let bucket = self.buckets.entry(owner).or_insert_with(|| {
            self.room.used.fetch_add(1, Relaxed);
            Arc::new(Bucket::full())
        });
        Arc::clone(&bucket)
    }

    /// How often the overflow bucket had to stand in.
    pub fn overflowed(&self) -> u64 {
        self.overflowed.load(Relaxed)
    }

    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// What the owner has left, without making a bucket for it.
    pub fn balance(&self, owner: OwnerKey, now: Moment) -> u64 {
        let quota = self.quotas.load().of(owner);
        self.buckets
            .get(&owner)
            .map_or(quota.burst(), |bucket| bucket.balance(&quota, now))
    }

    /// Puts new quotas in force: every bucket keeps its share of fullness, none is refilled.
    fn requota(&self, quotas: &Quotas, now: Moment) {
        let old = self.quotas.load_full();
        if *old == *quotas {
            return;
        }
        for entry in &self.buckets {
            let (was, is) = (old.of(*entry.key()), quotas.of(*entry.key()));
            if was != is {
                entry.value().rescale(&was, &is, now);
            }
        }
        self.overflow.rescale(&old.usual, &quotas.usual, now);
        self.quotas.store(Arc::new(quotas.clone()));
    }

    fn forget_full(&self, now: Moment) {
        self.buckets.retain(|_, bucket| {
            let keep = Arc::strong_count(bucket) > 1 || !bucket.is_full(now);
            if !keep {
                self.room.used.fetch_sub(1, Relaxed);
            }
            keep
        });
    }
}

/// All tables, by the name of their limit. It outlives every plan.
pub struct Buckets {
    tables: DashMap<Arc<str>, Arc<Table>>,
    room: Arc<Room>,
}

impl Buckets {
    /// `cap` bounds the buckets of owners that nobody wrote down, over all tables.
    pub fn new(cap: usize) -> Self {
        Self {
            tables: DashMap::new(),
            room: Arc::new(Room {
                cap,
                used: AtomicUsize::new(0),
            }),
        }
    }

    /// The table of a limit; made with `quotas` if it is new, else left as it runs until [`Self::requota`].
    pub fn table(&self, limit: &Arc<str>, quotas: &Quotas) -> Arc<Table> {
        let table = self
            .tables
            .entry(Arc::clone(limit))
            .or_insert_with(|| Arc::new(Table::new(quotas.clone(), Arc::clone(&self.room))));
        Arc::clone(&table)
    }

    /// For the moment a plan takes effect. Takings under the old plan may go on beside it; each is charged to the
    /// same bucket, so a reload admits nothing twice.
    pub fn requota<'a>(&self, limits: impl IntoIterator<Item = (&'a Arc<str>, &'a Quotas)>, now: Moment) {
        for (name, quotas) in limits {
            if let Some(table) = self.tables.get(name) {
                table.requota(quotas, now);
            }
        }
    }

    /// Drops what is full and held by nobody.
    pub fn forget_full(&self, now: Moment) {
        for table in &self.tables {
            table.forget_full(now);
        }
    }

    /// Name, buckets held and times overflowed of every limit.
    pub fn census(&self) -> Vec<(Arc<str>, usize, u64)> {
        self.tables
            .iter()
            .map(|table| (Arc::clone(table.key()), table.len(), table.overflowed()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Moment = Moment::from_nanos(1_000_000_000_000);

    fn quotas(rate: u64, burst: u64) -> Quotas {
        Quotas {
            usual: Quota::new(rate, Duration::from_secs(1), burst).unwrap(),
            named: HashMap::new(),
        }
    }

    #[test]
    fn two_owners_never_share_and_one_owner_has_one_bucket() {
        let table = Buckets::new(10).table(&"free".into(), &quotas(10, 20));
        let [a, b, address] = [
            Owner::Tenant("a"),
            Owner::Tenant("b"),
            Owner::Address([127, 0, 0, 1].into()),
        ]
        .map(|owner| owner.key());
        assert!(Arc::ptr_eq(&table.bucket(a, false), &table.bucket(a, true)));
        assert!(!Arc::ptr_eq(&table.bucket(a, false), &table.bucket(b, false)));
        assert!(!Arc::ptr_eq(&table.bucket(a, false), &table.bucket(address, false)));
        assert_ne!(Owner::Caller("ab", "c").key(), Owner::Caller("a", "bc").key());
    }

    #[test]
    fn past_the_cap_strangers_share_and_the_configured_do_not() {
        let buckets = Buckets::new(2);
        let table = buckets.table(&"free".into(), &quotas(10, 20));
        let stranger = |n: u8| Owner::Address([10, 0, 0, n].into()).key();
        let (_held, _held_too) = (table.bucket(stranger(1), false), table.bucket(stranger(2), false));
        let (third, fourth) = (table.bucket(stranger(3), false), table.bucket(stranger(4), false));
        assert!(Arc::ptr_eq(&third, &fourth));
        assert_eq!(table.overflowed(), 2);
        assert!(!Arc::ptr_eq(&table.bucket(Owner::Tenant("acme").key(), true), &third));
    }

    #[test]
    fn a_drained_bucket_is_never_forgotten_and_a_full_one_is() {
        let buckets = Buckets::new(10);
        let quotas = quotas(1, 5);
        let table = buckets.table(&"free".into(), &quotas);
        let [drained, full] = ["drained", "full"].map(|name| Owner::Tenant(name).key());
        table.bucket(drained, false).take(&quotas.usual, NOW, 5).unwrap();
        table.bucket(full, false);
        buckets.forget_full(NOW);
        assert_eq!((table.len(), table.balance(drained, NOW)), (1, 0));
        buckets.forget_full(NOW + Duration::from_secs(5));
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn a_reload_scales_what_is_left_and_refills_nothing() {
        let buckets = Buckets::new(10);
        let name: Arc<str> = "free".into();
        let (old, new) = (quotas(10, 20), quotas(10, 200));
        let table = buckets.table(&name, &old);
        let [drained, half] = ["drained", "half"].map(|name| Owner::Tenant(name).key());
        table.bucket(drained, false).take(&old.usual, NOW, 20).unwrap();
        table.bucket(half, false).take(&old.usual, NOW, 10).unwrap();
        buckets.requota([(&name, &new)], NOW);
        assert_eq!((table.balance(drained, NOW), table.balance(half, NOW)), (0, 100));
        buckets.requota([(&name, &old)], NOW);
        assert_eq!((table.balance(drained, NOW), table.balance(half, NOW)), (0, 10));
    }
}
