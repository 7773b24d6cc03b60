//! The accounts under one limit, one for each owner.
//!
//! Memory is bounded without ever forgetting a debt: an account from which nothing is taken equals an absent one and is
//! dropped once nobody holds it. Owners that nobody wrote down have an account of their own while their
//! [room](crate::limits::rooms) lasts; then they are counted with their network or tenant, and when there is no room for that,
//! with all of their kind.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::clock::Now;
use crate::limits::account::{Account, Measure, Terms};
use crate::limits::owner::{AsIs, Others, Owner, OwnerKey};
use crate::limits::rooms::{Room, Rooms};

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

/// Where an owner is known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The config, the key file or whoever runs the gateway names it: it always has an account of its own.
    Written,
    /// A request: nobody wrote it down.
    Request,
    /// It had an account before a restart.
    Restored,
}

/// An owner's account, as a table hands it out.
pub struct Opened {
    pub account: Account,
    /// It is not the owner's own: there is no room for that now.
    pub is_shared: bool,
}

/// The accounts under one limit.
pub trait Table: Send + Sync {
    /// What the owner may take, as far as it is in force.
    fn terms(&self, owner: OwnerKey) -> Terms;
    /// The owner's account, or the one that it shares, under `terms` of the table's kind.
    fn open(&self, owner: Owner<'_>, terms: Terms, origin: Origin) -> Opened;
    /// What the owner has left, without making an account for it.
    fn balance(&self, owner: OwnerKey, terms: Terms, now: Now) -> u64;
    /// The same for an owner that nobody wrote down, which may have to share.
    fn available(&self, owner: Owner<'_>, terms: Terms, now: Now) -> u64;
    /// What the owner has taken of what it may take, if the table knows it.
    fn taken(&self, owner: OwnerKey, now: Now) -> u64;
    /// Accounts that are kept.
    fn owners(&self) -> usize;
    /// How often a network or tenant had to stand in for an owner, and how often all of a kind had to.
    fn stood_in(&self) -> StoodIn;
    /// Puts new terms in force for what has been taken; nothing is refilled.
    fn change_terms(&self, terms: &TermsByOwner, now: Now);
    /// Takes over, from other tables of the same limit, what has been taken there: now, and whenever an account is made.
    fn succeed(&self, others: Vec<Arc<dyn Table>>, now: Now);
    /// Drops what nobody holds and nothing is taken from.
    fn forget_idle(&self, now: Now);
    /// Hands over every account, the shared ones included.
    fn each(&self, f: &mut dyn FnMut(Account));

    /// [Opens](Self::open) an account, whether or not it is shared.
    fn account(&self, owner: Owner<'_>, terms: Terms, origin: Origin) -> Account {
        self.open(owner, terms, origin).account
    }
}

/// How often owners had to share.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct StoodIn {
    /// By network, or by tenant.
    pub wider: u64,
    pub others: u64,
}

pub(crate) struct Rows<M> {
    by_owner: DashMap<OwnerKey, Arc<M>, BuildHasherDefault<AsIs>>,
    /// They are among the rows; held here, they stay.
    others: [Arc<M>; Others::ALL.len()],
    wider: AtomicU64,
    overflowed: AtomicU64,
    terms: ArcSwap<TermsByOwner>,
    before: ArcSwap<Before>,
    rooms: Arc<Rooms>,
}

impl<M: Measure> Rows<M> {
    pub(crate) fn new(terms: TermsByOwner, rooms: Arc<Rooms>) -> Self {
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

    /// The owner's own row, made if there is room.
    fn own(&self, owner: Owner<'_>, origin: Origin) -> Option<Arc<M>> {
        let key = owner.key();
        if let Some(found) = self.found(key) {
            return Some(found);
        }
        let room = match origin {
            Origin::Written => None,
            Origin::Request => owner.room(),
            Origin::Restored => Some(Room::Restored),
        };
        if room.is_some_and(|room| !self.rooms.enter(room)) {
            return None;
        }
        // Before anything is locked: other tables are asked.
        let before = self.before.load();
        let taken = before.taken(key);
        Some(match self.by_owner.entry(key.in_room(room)) {
            Entry::Vacant(vacant) => {
                let row = Arc::new(M::new(owner));
                before.carry_over(taken, &self.account_of(&row, key));
                Arc::clone(&vacant.insert(row))
            }
            Entry::Occupied(occupied) => {
                // Somebody else was faster.
                self.leave(room);
                Arc::clone(occupied.get())
            }
        })
    }

    fn leave(&self, room: Option<Room>) {
        if let Some(room) = room {
            self.rooms.leave(room);
        }
    }

    /// Under the terms in force.
    fn account_of(&self, row: &Arc<M>, owner: OwnerKey) -> Account {
        M::account(Arc::clone(row), self.terms.load().of(owner))
    }
}

/// Other tables of the same limit, which counted something else until it changed.
#[derive(Default)]
struct Before {
    tables: Vec<Arc<dyn Table>>,
    changed: Now,
}

impl Before {
    /// The most that the owner had taken in one of them when the limit changed.
    fn taken(&self, owner: OwnerKey) -> u64 {
        let taken = self.tables.iter().map(|table| table.taken(owner, self.changed));
        taken.max().unwrap_or_default()
    }

    /// Charges what was taken before, as far as it is more than what was taken here; so it may be done twice. As of the
    /// change, which every request that is charged here came after.
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

    fn stood_in(&self) -> StoodIn {
        StoodIn {
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
        // No row is locked while other tables are asked.
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
