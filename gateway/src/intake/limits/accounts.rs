//! Where the accounts are kept: one table per limit, one account per owner, through every reload.
//!
//! Memory is bounded without ever forgetting a debt: an account from which nothing is taken equals an absent one and is
//! dropped once nobody holds it; past the cap, owners that anyone can invent (addresses, tenants known only from
//! claims) share one overflow account per limit, which is counted. Owners that an operator wrote down always have
//! their own.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use policies::{Bucket, InFlight, SlidingWindow};

use super::account::{Account, Kind, Measure, Meter, Terms};
use super::owner::{AsIs, Owner, OwnerKey};
use super::set_aside::SetAside;
use crate::clock::Now;

/// What the owners under one limit may take: most of them the same, some by name; all of one kind.
#[derive(Debug, Clone, PartialEq)]
pub struct TermsByOwner {
    pub usual: Terms,
    pub named: HashMap<OwnerKey, Terms>,
}

impl TermsByOwner {
    pub fn for_all(usual: Terms) -> Self {
        Self {
            usual,
            named: HashMap::new(),
        }
    }

    pub fn of(&self, owner: OwnerKey) -> Terms {
        self.named.get(&owner).copied().unwrap_or(self.usual)
    }
}

/// The accounts under one limit.
pub trait Table: Send + Sync {
    /// What the owner may take, as far as it is in force.
    fn terms(&self, owner: OwnerKey) -> Terms;
    /// The owner's account, under `terms` of the table's kind. `configured` owners never share one.
    fn account(&self, owner: Owner<'_>, terms: Terms, configured: bool) -> Account;
    /// What the owner has left, without making an account for it.
    fn balance(&self, owner: OwnerKey, terms: Terms, now: Now) -> u64;
    /// Accounts that are kept.
    fn owners(&self) -> usize;
    /// How often the overflow account had to stand in.
    fn overflowed(&self) -> u64;
    /// Puts new terms in force for what has been taken; nothing is refilled.
    fn change_terms(&self, terms: &TermsByOwner, now: Now);
    /// Drops what nobody holds and nothing is taken from.
    fn forget_idle(&self, now: Now);
    /// Hands over every account, the shared one included.
    fn each(&self, f: &mut dyn FnMut(Account));
}

struct Rows<M> {
    by_owner: DashMap<OwnerKey, Arc<M>, BuildHasherDefault<AsIs>>,
    overflow: Arc<M>,
    overflowed: AtomicU64,
    terms: ArcSwap<TermsByOwner>,
    room: Arc<Room>,
}

/// How many accounts all tables together may hold for owners that nobody wrote down.
#[derive(Debug)]
struct Room {
    cap: usize,
    used: AtomicUsize,
}

impl<M: Measure> Rows<M> {
    fn new(terms: TermsByOwner, room: Arc<Room>) -> Self {
        Self {
            by_owner: DashMap::default(),
            overflow: Arc::new(M::new(Owner::Everyone)),
            overflowed: AtomicU64::new(0),
            terms: ArcSwap::from_pointee(terms),
            room,
        }
    }

    fn find(&self, owner: Owner<'_>, configured: bool) -> Arc<M> {
        let key = owner.key();
        if let Some(found) = self.by_owner.get(&key) {
            return Arc::clone(&found);
        }
        if !configured && self.room.used.load(Relaxed) >= self.room.cap {
            self.overflowed.fetch_add(1, Relaxed);
            return Arc::clone(&self.overflow);
        }
        let made = self.by_owner.entry(key).or_insert_with(|| {
            self.room.used.fetch_add(1, Relaxed);
            Arc::new(M::new(owner))
        });
        Arc::clone(&made)
    }
}

impl<M: Measure> Table for Rows<M> {
    fn terms(&self, owner: OwnerKey) -> Terms {
        self.terms.load().of(owner)
    }

    fn account(&self, owner: Owner<'_>, terms: Terms, configured: bool) -> Account {
        M::account(self.find(owner, configured), terms)
    }

    fn balance(&self, owner: OwnerKey, terms: Terms, now: Now) -> u64 {
        let found = self.by_owner.get(&owner).map(|found| Arc::clone(&found));
        found.map_or(terms.most(), |found| M::account(found, terms).balance(now))
    }

    fn owners(&self) -> usize {
        self.by_owner.len()
    }

    fn overflowed(&self) -> u64 {
        self.overflowed.load(Relaxed)
    }

    fn change_terms(&self, terms: &TermsByOwner, now: Now) {
        let old = self.terms.load_full();
        if *old == *terms {
            return;
        }
        for row in &self.by_owner {
            M::account(Arc::clone(row.value()), old.of(*row.key())).change_terms(terms.of(*row.key()), now);
        }
        M::account(Arc::clone(&self.overflow), old.usual).change_terms(terms.usual, now);
        self.terms.store(Arc::new(terms.clone()));
    }

    fn forget_idle(&self, now: Now) {
        let terms = self.terms.load();
        self.by_owner.retain(|owner, row| {
            let is_held = Arc::strong_count(row) > 1;
            let keep = is_held || !M::account(Arc::clone(row), terms.of(*owner)).is_idle(now);
            if !keep {
                self.room.used.fetch_sub(1, Relaxed);
            }
            keep
        });
    }

    fn each(&self, f: &mut dyn FnMut(Account)) {
        let terms = self.terms.load();
        for row in &self.by_owner {
            f(M::account(Arc::clone(row.value()), terms.of(*row.key())));
        }
        f(M::account(Arc::clone(&self.overflow), terms.usual));
    }
}

/// All tables, by the name of their limit and what they count. They outlive every plan.
pub struct Accounts {
    tables: DashMap<(Arc<str>, Kind), Arc<dyn Table>>,
    room: Arc<Room>,
    /// What quotas had counted when the clock jumped.
    pub set_aside: SetAside,
}

impl Accounts {
    /// `cap` bounds the accounts of owners that nobody wrote down, over all tables.
    pub fn new(cap: usize) -> Self {
        Self {
            tables: DashMap::new(),
            set_aside: SetAside::default(),
            room: Arc::new(Room {
                cap,
                used: AtomicUsize::new(0),
            }),
        }
    }

    /// The table of a limit; made with `terms` if it is new, else left as it runs until [`Self::take_effect`]. A limit
    /// that comes to count something else begins anew.
    pub fn table(&self, limit: &Arc<str>, terms: &TermsByOwner) -> Arc<dyn Table> {
        let kind = terms.usual.kind();
        let table = self.tables.entry((Arc::clone(limit), kind)).or_insert_with(|| {
            let (terms, room) = (terms.clone(), Arc::clone(&self.room));
            match kind {
                Kind::Bucket => Arc::new(Rows::<Bucket>::new(terms, room)),
                Kind::Window => Arc::new(Rows::<SlidingWindow>::new(terms, room)),
                Kind::Calendar => Arc::new(Rows::<Meter>::new(terms, room)),
                Kind::InFlight => Arc::new(Rows::<InFlight>::new(terms, room)),
            }
        });
        Arc::clone(&table)
    }

    /// The table of a limit that is a quota.
    pub fn of_quota(&self, limit: &Arc<str>) -> Option<Arc<dyn Table>> {
        let found = self.tables.get(&(Arc::clone(limit), Kind::Calendar));
        found.map(|table| Arc::clone(&table))
    }

    /// For the moment a plan takes effect. Takings under the old plan may go on beside it; each is charged to the
    /// same account, so a reload admits nothing twice.
    pub fn take_effect(&self, limits: &[(Arc<str>, TermsByOwner)], now: Now) {
        for (name, terms) in limits {
            self.table(name, terms).change_terms(terms, now);
        }
    }

    /// Drops what nobody holds and nothing is taken from.
    pub fn forget_idle(&self, now: Now) {
        self.set_aside.forget_old(now.moment);
        for table in &self.tables {
            table.forget_idle(now);
        }
    }

    /// Hands over every account, with the name of its limit.
    pub fn each(&self, mut f: impl FnMut(&Arc<str>, Account)) {
        for table in &self.tables {
            table.each(&mut |account| f(&table.key().0, account));
        }
    }

    /// Name, accounts held and times overflowed of every limit.
    pub fn census(&self) -> Vec<(Arc<str>, usize, u64)> {
        self.tables
            .iter()
            .map(|table| (Arc::clone(&table.key().0), table.owners(), table.overflowed()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use policies::{CalendarQuota, Every, Moment, Quota, WallTime};

    use super::*;

    fn at(seconds: u64) -> Now {
        Now {
            moment: Moment::from_nanos((1_000 + seconds) * 1_000_000_000),
            wall: WallTime::since_epoch(Duration::from_secs(1_795_521_600 + seconds)),
        }
    }

    fn bucket(rate: u64, burst: u64) -> TermsByOwner {
        TermsByOwner::for_all(Terms::Bucket(Quota::new(rate, Duration::from_secs(1), burst).unwrap()))
    }

    fn every(every: Every) -> TermsByOwner {
        TermsByOwner::for_all(Terms::Calendar(CalendarQuota::new(10, every).unwrap()))
    }

    fn take(table: &dyn Table, owner: Owner<'_>, terms: &TermsByOwner, cost: u64) {
        let account = table.account(owner, terms.of(owner.key()), false);
        account.take(at(0), cost, Duration::ZERO).unwrap();
    }

    fn left(table: &dyn Table, owner: Owner<'_>, terms: &TermsByOwner) -> u64 {
        table.balance(owner.key(), terms.of(owner.key()), at(0))
    }

    #[test]
    fn two_owners_never_share_and_one_owner_has_one_account() {
        let terms = bucket(10, 20);
        let table = Accounts::new(10).table(&"free".into(), &terms);
        let [a, b] = [Owner::Tenant("a"), Owner::Tenant("b")];
        take(&*table, a, &terms, 3);
        take(&*table, a, &terms, 4);
        assert_eq!((left(&*table, a, &terms), left(&*table, b, &terms)), (13, 20));
    }

    #[test]
    fn past_the_cap_strangers_share_and_the_configured_do_not() {
        let (accounts, terms) = (Accounts::new(2), bucket(10, 20));
        let table = accounts.table(&"free".into(), &terms);
        let stranger = |n: u8| Owner::Address([10, 0, 0, n].into());
        for n in 1..=4 {
            take(&*table, stranger(n), &terms, 5);
        }
        assert_eq!((table.owners(), table.overflowed()), (2, 2));
        let shared = table.account(stranger(5), terms.usual, false);
        assert_eq!(shared.balance(at(0)), 10, "the third and the fourth have taken from it");
        let own = table.account(Owner::Tenant("acme"), terms.usual, true);
        assert_eq!(own.balance(at(0)), 20);
    }

    #[test]
    fn what_is_taken_is_never_forgotten_and_what_is_not_is() {
        let (accounts, terms) = (Accounts::new(10), bucket(1, 5));
        let table = accounts.table(&"free".into(), &terms);
        let [drained, full] = [Owner::Tenant("drained"), Owner::Tenant("full")];
        take(&*table, drained, &terms, 5);
        table.account(full, terms.usual, false);
        accounts.forget_idle(at(0));
        assert_eq!((table.owners(), left(&*table, drained, &terms)), (1, 0));
        accounts.forget_idle(at(5));
        assert_eq!(table.owners(), 0);
    }

    #[test]
    fn what_is_held_is_kept() {
        let (accounts, terms) = (Accounts::new(10), TermsByOwner::for_all(Terms::InFlight(3)));
        let table = accounts.table(&"in_flight".into(), &terms);
        let held = table.account(Owner::Tenant("acme"), terms.usual, false);
        accounts.forget_idle(at(0));
        held.take(at(0), 1, Duration::ZERO).unwrap();
        drop(held);
        accounts.forget_idle(at(0));
        assert_eq!(left(&*table, Owner::Tenant("acme"), &terms), 2, "it is in flight");
    }

    #[test]
    fn a_reload_scales_what_is_left_and_refills_nothing() {
        let accounts = Accounts::new(10);
        let name: Arc<str> = "free".into();
        let (old, new) = (bucket(10, 20), bucket(10, 200));
        let table = accounts.table(&name, &old);
        let [drained, half] = [Owner::Tenant("drained"), Owner::Tenant("half")];
        take(&*table, drained, &old, 20);
        take(&*table, half, &old, 10);
        accounts.take_effect(&[(Arc::clone(&name), new.clone())], at(0));
        assert_eq!((left(&*table, drained, &new), left(&*table, half, &new)), (0, 100));
        accounts.take_effect(&[(name, old.clone())], at(0));
        assert_eq!((left(&*table, drained, &old), left(&*table, half, &old)), (0, 10));
    }

    #[test]
    fn a_quota_that_is_counted_by_another_period_keeps_what_was_used() {
        let accounts = Accounts::new(10);
        let name: Arc<str> = "fair_use".into();
        let (day, month) = (every(Every::Day), every(Every::Month));
        let table = accounts.table(&name, &day);
        take(&*table, Owner::Tenant("acme"), &day, 7);
        accounts.take_effect(&[(name, month.clone())], at(0));
        assert_eq!(left(&*table, Owner::Tenant("acme"), &month), 3);
    }

    #[test]
    fn a_limit_that_counts_something_else_has_a_table_of_its_own() {
        let accounts = Accounts::new(10);
        let name: Arc<str> = "free".into();
        let (bucket, quota) = (bucket(1, 5), every(Every::Day));
        take(&*accounts.table(&name, &bucket), Owner::Everyone, &bucket, 5);
        let table = accounts.table(&name, &quota);
        assert_eq!(left(&*table, Owner::Everyone, &quota), 10);
        assert_eq!(
            left(&*accounts.table(&name, &bucket), Owner::Everyone, &bucket),
            0,
            "the old plan still runs"
        );
    }
}
