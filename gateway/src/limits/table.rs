//! The accounts under one limit, one for each owner.
//!
//! Invariant: memory is bounded, and no debt is forgotten. An account from which nothing is taken equals a new one, so
//! it is dropped once nothing holds it. An owner that only requests name has its own account while its
//! [room](crate::limits::rooms) lasts. After that it shares the account of its network or tenant, and where there is no
//! room for that, the account of all owners of its kind.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::clock::Now;
use crate::limits::account::{Account, Measure, Terms};
use crate::limits::owner::{IdentityHasher, Others, Owner, OwnerKey};
use crate::limits::rooms::{AccountCaps, OwnerClass};

/// The terms of all owners under one limit, all of one kind: the usual terms, and those of owners with terms of their
/// own.
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

/// The source that names an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The config, the key file or the operator. Such an owner always has its own account.
    Written,
    /// Only a request.
    Request,
    /// A state file: the owner had an account before a restart.
    Restored,
}

/// An account that a table has opened.
pub struct Opened {
    pub account: Account,
    /// Whether other owners use the account too, because there was no room for one of the owner's own.
    pub is_shared: bool,
}

/// The accounts under one limit and kind.
pub trait Table: Send + Sync {
    /// Returns the owner's terms in force.
    fn terms(&self, owner: OwnerKey) -> Terms;
    /// Returns the owner's own account or the one that it shares, under `terms`, which are of the table's kind.
    fn open(&self, owner: Owner<'_>, terms: Terms, origin: Origin) -> Opened;
    /// Returns the owner's balance without opening an account.
    fn balance(&self, owner: OwnerKey, terms: Terms, now: Now) -> u64;
    /// Returns the balance that a new request of the owner would find, which may be that of a shared account.
    fn available(&self, owner: Owner<'_>, terms: Terms, now: Now) -> u64;
    /// Returns what counts as taken from the owner's own account under the terms in force; 0 if it has none.
    fn taken(&self, owner: OwnerKey, now: Now) -> u64;
    /// Returns the number of accounts, without the shared accounts of whole kinds of owners.
    fn owners(&self) -> usize;
    /// Returns how often owners had to share an account.
    fn stood_in(&self) -> SharedCounts;
    /// Puts new terms in force for all accounts. Nothing is refilled.
    fn change_terms(&self, terms: &TermsByOwner, now: Now);
    /// Takes over what was taken in other tables of the same limit: now for existing accounts, and later for each new
    /// one.
    fn succeed(&self, others: Vec<Arc<dyn Table>>, now: Now);
    /// Drops accounts that nothing holds and from which nothing is taken.
    fn forget_idle(&self, now: Now);
    /// Calls `f` with every account, shared ones included.
    fn each(&self, f: &mut dyn FnMut(Account));

    /// [Opens](Self::open) an account and returns it without saying whether it is shared.
    fn account(&self, owner: Owner<'_>, terms: Terms, origin: Origin) -> Account {
        self.open(owner, terms, origin).account
    }
}

/// Number of times that owners had to share an account.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct SharedCounts {
    /// Times that the shared account was that of a network or tenant.
    pub wider: u64,
    pub others: u64,
}

pub(crate) struct Rows<M> {
    by_owner: DashMap<OwnerKey, Arc<M>, BuildHasherDefault<IdentityHasher>>,
    /// The accounts of whole kinds of owners. They are among the rows too; because they are held here, they are never
    /// dropped.
    others: [Arc<M>; Others::ALL.len()],
    wider: AtomicU64,
    overflowed: AtomicU64,
    terms: ArcSwap<TermsByOwner>,
    before: ArcSwap<Before>,
    rooms: Arc<AccountCaps>,
}

impl<M: Measure> Rows<M> {
    pub(crate) fn new(terms: TermsByOwner, rooms: Arc<AccountCaps>) -> Self {
        let by_owner = DashMap::default();
        let others = Others::ALL.map(|others| {
            let owner = Owner::Others(others);
            let row = Arc::new(M::new(owner));
            by_owner.insert(owner.key(), Arc::clone(&row));
            row
        });
        Self {
            by_owner,
            others,
            wider: AtomicU64::new(0),
            overflowed: AtomicU64::new(0),
            terms: ArcSwap::from_pointee(terms),
            before: ArcSwap::default(),
            rooms,
        }
    }

    fn found(&self, owner: OwnerKey) -> Option<Arc<M>> {
        self.by_owner.get(&owner).map(|found| Arc::clone(&found))
    }

    /// Returns the owner's own row; makes one if there is room.
    fn own(&self, owner: Owner<'_>, origin: Origin) -> Option<Arc<M>> {
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
                let row = Arc::new(M::new(owner));
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
    fn account_of(&self, row: &Arc<M>, owner: OwnerKey) -> Account {
        M::account(Arc::clone(row), self.terms.load().of(owner))
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

impl<M: Measure> Table for Rows<M> {
    fn terms(&self, owner: OwnerKey) -> Terms {
        self.terms.load().of(owner)
    }

    fn open(&self, owner: Owner<'_>, terms: Terms, origin: Origin) -> Opened {
        let (row, is_shared) = match self.own(owner, origin) {
            Some(own) => (own, false),
            None => {
                let wider = owner.wider().and_then(|wider| self.own(wider, Origin::Request));
                let (count, row) = match wider {
                    Some(wider) => (&self.wider, wider),
                    None => (&self.overflowed, Arc::clone(&self.others[owner.others() as usize])),
                };
                count.fetch_add(1, Relaxed);
                (row, true)
            }
        };
        Opened {
            account: M::account(row, terms),
            is_shared,
        }
    }

    fn balance(&self, owner: OwnerKey, terms: Terms, now: Now) -> u64 {
        let found = self.found(owner);
        found.map_or(terms.most(), |found| M::account(found, terms).balance(now))
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
        M::account(row, terms).balance(now)
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
            M::account(Arc::clone(row.value()), old.of(*row.key())).change_terms(terms.of(*row.key()), now);
        }
        self.terms.store(Arc::new(terms.clone()));
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
        let terms = self.terms.load();
        self.by_owner.retain(|owner, row| {
            let is_held = Arc::strong_count(row) > 1;
            let keep = is_held || !M::account(Arc::clone(row), terms.of(*owner)).is_idle(now);
            if !keep {
                self.leave(owner.room());
            }
            keep
        });
    }

    fn each(&self, f: &mut dyn FnMut(Account)) {
        for row in &self.by_owner {
            f(self.account_of(row.value(), *row.key()));
        }
    }
}
