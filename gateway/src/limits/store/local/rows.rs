//! The accounts under one limit in memory, one for each owner.
//!
//! Invariant: memory is bounded, and no debt is forgotten. An account from which nothing is taken equals a new one, so
//! it is dropped once nothing holds it. An owner that only requests name has its own account while its
//! [room](crate::limits::store::local::account_caps) lasts. After that it shares the account of its network or tenant, and where there is no
//! room for that, the account of all owners of its kind.

use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::clock::Now;
use crate::limits::kinds::{Account, IntoAccount, NewAccount, Terms};
use crate::limits::leased::Leasing;
use crate::limits::owner::{IdentityHasher, Others, Owner, OwnerKey};
use crate::limits::owner_class::OwnerClass;
use crate::limits::store::local::account_caps::AccountCaps;
use crate::limits::store::{Opened, Origin, SharedCounts, Table, TermsByOwner};

pub(super) struct Rows<C> {
    limit: Arc<str>,
    by_owner: DashMap<OwnerKey, Arc<C>, BuildHasherDefault<IdentityHasher>>,
    /// The accounts of whole kinds of owners. They are among the rows too; because they are held here, they are never
    /// dropped.
    others: [Arc<C>; Others::ALL.len()],
    wider: AtomicU64,
    overflowed: AtomicU64,
    terms: ArcSwap<TermsByOwner>,
    /// Terms of owners that no plan names. Each has an account.
    own: DashMap<OwnerKey, Terms, BuildHasherDefault<IdentityHasher>>,
    /// Whether there have been any.
    has_own: AtomicBool,
    before: ArcSwap<Before>,
    rooms: Arc<AccountCaps>,
    leasing: Arc<Leasing>,
}

impl<C: IntoAccount> Rows<C> {
    pub(super) fn new(limit: Arc<str>, terms: TermsByOwner, rooms: Arc<AccountCaps>, leasing: Arc<Leasing>) -> Self {
        let by_owner = DashMap::default();
        let others = Others::ALL.map(|others| {
            let owner = Owner::Others(others);
            let row = C::new(&NewAccount {
                owner,
                limit: &limit,
                leasing: &leasing,
            });
            by_owner.insert(owner.key(), Arc::clone(&row));
            row
        });
        Self {
            limit,
            by_owner,
            others,
            wider: AtomicU64::new(0),
            overflowed: AtomicU64::new(0),
            terms: ArcSwap::from_pointee(terms),
            own: DashMap::default(),
            has_own: AtomicBool::new(false),
            before: ArcSwap::default(),
            rooms,
            leasing,
        }
    }

    fn make(&self, owner: Owner<'_>) -> Arc<C> {
        C::new(&NewAccount {
            owner,
            limit: &self.limit,
            leasing: &self.leasing,
        })
    }

    fn found(&self, owner: OwnerKey) -> Option<Arc<C>> {
        self.by_owner.get(&owner).map(|found| Arc::clone(&found))
    }

    /// Returns the owner's own row; makes one if there is room.
    fn own(&self, owner: Owner<'_>, origin: Origin) -> Option<Arc<C>> {
        let key = owner.key();
        if let Some(found) = self.found(key) {
            return Some(found);
        }
        let room = match origin {
            Origin::Written => None,
            Origin::Request => owner.room(),
            Origin::Restored => Some(OwnerClass::Restored),
        };
        if room.is_some_and(|room| !self.rooms.enter(room)) {
            return None;
        }
        // Other tables are read before a row of this one is locked.
        let before = self.before.load();
        let taken = before.taken(key);
        Some(match self.by_owner.entry(key.in_room(room)) {
            Entry::Vacant(vacant) => {
                let row = self.make(owner);
                before.carry_over(taken, &self.account_of(&row, key));
                Arc::clone(&vacant.insert(row))
            }
            Entry::Occupied(occupied) => {
                // Another task was faster.
                self.leave(room);
                Arc::clone(occupied.get())
            }
        })
    }

    fn leave(&self, room: Option<OwnerClass>) {
        if let Some(room) = room {
            self.rooms.leave(room);
        }
    }

    /// Returns the account under the terms in force.
    fn account_of(&self, row: &Arc<C>, owner: OwnerKey) -> Account {
        C::into_account(Arc::clone(row), self.terms_of(owner))
    }

    fn terms_of(&self, owner: OwnerKey) -> Terms {
        self.own_of(owner).unwrap_or_else(|| self.terms.load().of(owner))
    }

    fn own_of(&self, owner: OwnerKey) -> Option<Terms> {
        let own = self.has_own.load(Relaxed).then(|| self.own.get(&owner))?;
        own.map(|terms| *terms)
    }
}

/// Tables of the same limit that counted before it changed its kind.
#[derive(Default)]
struct Before {
    tables: Vec<Arc<dyn Table>>,
    changed: Now,
}

impl Before {
    /// Returns the most that the owner had taken in any of them when the limit changed.
    fn taken(&self, owner: OwnerKey) -> u64 {
        let taken = self.tables.iter().map(|table| table.taken(owner, self.changed));
        taken.max().unwrap_or_default()
    }

    /// Charges what was taken before, as far as it exceeds what is taken here, so that a second call charges nothing.
    /// The charge has the time of the change, which is before every request that is charged here.
    fn carry_over(&self, taken: u64, account: &Account) {
        if taken > 0 {
            let taken = taken.min(account.terms().most());
            account.charge(self.changed, taken.saturating_sub(account.taken(self.changed)));
        }
    }
}

impl<C: IntoAccount> Table for Rows<C> {
    fn terms(&self, owner: OwnerKey) -> Terms {
        self.terms_of(owner)
    }

    fn open(&self, owner: Owner<'_>, terms: Terms, origin: Origin) -> Opened {
        let (row, is_shared, held_by) = match self.own(owner, origin) {
            Some(own) => (own, false, owner),
            None => {
                let wider = owner.wider();
                let row = wider.and_then(|wider| Some((wider, self.own(wider, Origin::Request)?)));
                let (count, held_by, row) = match row {
                    Some((wider, row)) => (&self.wider, wider, row),
                    None => {
                        let others = owner.others();
                        let row = Arc::clone(&self.others[others as usize]);
                        (&self.overflowed, Owner::Others(others), row)
                    }
                };
                count.fetch_add(1, Relaxed);
                (row, true, held_by)
            }
        };
        Opened {
            account: C::into_account(row, terms),
            is_shared,
            held_by: held_by.key(),
        }
    }

    fn balance(&self, owner: OwnerKey, terms: Terms, now: Now) -> u64 {
        let found = self.found(owner);
        found.map_or(terms.most(), |found| C::into_account(found, terms).balance(now))
    }

    fn available(&self, owner: Owner<'_>, terms: Terms, now: Now) -> u64 {
        let has_room = |owner: &Owner<'_>| owner.room().is_none_or(|room| !self.rooms.is_full(room));
        let own = |owner: &Owner<'_>| self.found(owner.key());
        let row = match own(&owner) {
            None if has_room(&owner) => return terms.most(),
            None => match owner.wider().map(|wider| (own(&wider), has_room(&wider))) {
                Some((None, true)) => return terms.most(),
                Some((Some(wider), _)) => wider,
                Some((None, false)) | None => Arc::clone(&self.others[owner.others() as usize]),
            },
            Some(own) => own,
        };
        C::into_account(row, terms).balance(now)
    }

    fn taken(&self, owner: OwnerKey, now: Now) -> u64 {
        let found = self.found(owner);
        found.map_or(0, |row| self.account_of(&row, owner).taken(now))
    }

    fn owners(&self) -> usize {
        self.by_owner.len() - self.others.len()
    }

    fn stood_in(&self) -> SharedCounts {
        SharedCounts {
            wider: self.wider.load(Relaxed),
            others: self.overflowed.load(Relaxed),
        }
    }

    fn change_terms(&self, terms: &TermsByOwner, now: Now) {
        let old = self.terms.load_full();
        if *old == *terms {
            return;
        }
        for row in &self.by_owner {
            if self.own_of(*row.key()).is_none() {
                C::into_account(Arc::clone(row.value()), old.of(*row.key())).change_terms(terms.of(*row.key()), now);
            }
        }
        self.terms.store(Arc::new(terms.clone()));
    }

    fn set_own_terms(&self, owner: OwnerKey, terms: Option<Terms>, now: Now) {
        if terms.is_none() && !self.has_own.load(Relaxed) {
            return;
        }
        let old = self.terms_of(owner);
        let new = match terms {
            // The count cannot be kept here: the plan that gives terms of another kind uses another table.
            Some(terms) if terms.kind() != old.kind() => return,
            Some(terms) => {
                self.has_own.store(true, Relaxed);
                self.own.insert(owner, terms);
                terms
            }
            None if self.own_of(owner).is_none() => return,
            None => {
                self.own.remove(&owner);
                self.terms.load().of(owner)
            }
        };
        if let Some(row) = self.found(owner).filter(|_| new != old) {
            C::into_account(row, old).change_terms(new, now);
        }
    }

    fn succeed(&self, others: Vec<Arc<dyn Table>>, now: Now) {
        let before = Arc::new(Before {
            tables: others,
            changed: now,
        });
        self.before.store(Arc::clone(&before));
        if before.tables.is_empty() {
            return;
        }
        // No row is locked while other tables are read.
        let rows: Vec<_> = self
            .by_owner
            .iter()
            .map(|row| (*row.key(), Arc::clone(row.value())))
            .collect();
        for (owner, row) in rows {
            before.carry_over(before.taken(owner), &self.account_of(&row, owner));
        }
    }

    fn forget_idle(&self, now: Now) {
        self.by_owner.retain(|owner, row| {
            let is_held = Arc::strong_count(row) > 1;
            let keep = is_held || !C::into_account(Arc::clone(row), self.terms_of(*owner)).is_idle(now);
            if !keep {
                self.own.remove(owner);
                self.leave(owner.room());
            }
            keep
        });
    }

    fn each(&self, f: &mut dyn FnMut(OwnerKey, Account)) {
        for row in &self.by_owner {
            f(*row.key(), self.account_of(row.value(), *row.key()));
        }
    }

    fn limit(&self) -> &Arc<str> {
        &self.limit
    }

    fn all_terms(&self) -> Arc<TermsByOwner> {
        let terms = self.terms.load_full();
        if !self.has_own.load(Relaxed) {
            return terms;
        }
        let mut terms = TermsByOwner::clone(&terms);
        terms
            .named
            .extend(self.own.iter().map(|own| (*own.key(), *own.value())));
        Arc::new(terms)
    }

    fn adopt(&self, owner: OwnerKey, name: Option<Owner<'_>>) -> Account {
        if let Some(found) = self.found(owner) {
            return self.account_of(&found, owner);
        }
        let room = match owner.room() {
            None => None,
            Some(room) if self.rooms.enter(room) => Some(room),
            Some(_) if self.rooms.enter(OwnerClass::Restored) => Some(OwnerClass::Restored),
            Some(room) => {
                self.overflowed.fetch_add(1, Relaxed);
                return self.account_of(&self.others[Others::of(room) as usize], owner);
            }
        };
        // Only a kind that keeps names reads the owner.
        let row = match self.by_owner.entry(owner.in_room(room)) {
            Entry::Vacant(vacant) => Arc::clone(&vacant.insert(self.make(name.unwrap_or(Owner::Everyone)))),
            Entry::Occupied(occupied) => {
                self.leave(room);
                Arc::clone(occupied.get())
            }
        };
        self.account_of(&row, owner)
    }
}
