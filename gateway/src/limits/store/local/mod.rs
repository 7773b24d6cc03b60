//! Keeps the tables of all limits in memory, one for each limit and kind, over every reload.

pub mod account_caps;
pub mod clock_jump;
mod rows;
pub mod set_aside;
pub mod snapshot;
pub mod state_file;

use std::sync::Arc;

use dashmap::DashMap;
use policies::CalendarQuota;

use self::account_caps::{AccountCaps, AccountLimits};
use self::rows::Rows;
use self::set_aside::LeftCounts;
use crate::clock::Now;
use crate::limits::charge_log::ChargeLog;
use crate::limits::kinds::{Account, ByCounter, IntoAccount, Kind, QuotaCount};
use crate::limits::leased::{LeasedCount, LeasedTerms, Leasing};
use crate::limits::owner::Owner;
use crate::limits::store::{Origin, SharedCounts, Table, TermsByOwner};

/// All tables, by the name of the limit and its kind. They outlive every plan.
pub struct Accounts {
    tables: DashMap<(Arc<str>, Kind), Arc<dyn Table>>,
    /// The kind of each limit in force.
    in_force: DashMap<Arc<str>, Kind>,
    /// Caps on the number of accounts that requests open, over all tables.
    pub rooms: Arc<AccountCaps>,
    /// Counts that quotas had when the clock jumped.
    pub set_aside: LeftCounts,
    /// Charges since a snapshot, for a process that takes over.
    pub log: Arc<ChargeLog>,
    /// Link of the accounts that share the store to their renewer.
    pub leasing: Arc<Leasing>,
}

/// Numbers of one limit for metrics.
pub struct Census {
    pub limit: Arc<str>,
    /// Number of accounts that are kept.
    pub owners: usize,
    pub stood_in: SharedCounts,
}

/// A table to be made, once the counter of its kind is known.
struct NewTable {
    limit: Arc<str>,
    terms: TermsByOwner,
    rooms: Arc<AccountCaps>,
    leasing: Arc<Leasing>,
}

/// Count of a calendar quota that replicas share, with its terms.
pub type LeasedQuota = (Arc<LeasedCount<QuotaCount>>, LeasedTerms<CalendarQuota>);

impl ByCounter for NewTable {
    type Output = Arc<dyn Table>;

    fn build<C: IntoAccount>(self) -> Arc<dyn Table> {
        Arc::new(Rows::<C>::new(self.limit, self.terms, self.rooms, self.leasing))
    }
}

impl Accounts {
    /// Creates the tables with room for `most` accounts of each kind of owner.
    pub fn new(most: usize) -> Self {
        Self::with(AccountLimits::all(most))
    }

    pub fn with(limits: AccountLimits) -> Self {
        Self {
            tables: DashMap::new(),
            in_force: DashMap::new(),
            set_aside: LeftCounts::default(),
            log: Arc::default(),
            leasing: Arc::default(),
            rooms: Arc::new(AccountCaps::new(limits)),
        }
    }

    /// Returns the table of a limit. A new table gets `terms`; an existing one keeps its own until
    /// [`Self::take_effect`]. A limit that changes its kind gets another table.
    pub fn table(&self, limit: &Arc<str>, terms: &TermsByOwner) -> Arc<dyn Table> {
        let kind = terms.usual.kind();
        let table = self.tables.entry((Arc::clone(limit), kind)).or_insert_with(|| {
            kind.build(NewTable {
                limit: Arc::clone(limit),
                terms: terms.clone(),
                rooms: Arc::clone(&self.rooms),
                leasing: Arc::clone(&self.leasing),
            })
        });
        Arc::clone(&table)
    }

    /// Returns the calendar quota's table of a limit, if there is one.
    pub fn of_quota(&self, limit: &Arc<str>) -> Option<Arc<dyn Table>> {
        self.of(limit, Kind::Calendar)
    }

    /// Returns a tenant's count of a calendar quota that replicas share, with the terms in force; `None` if the limit is no
    /// such quota.
    pub fn leased_quota(&self, limit: &Arc<str>, tenant: &str) -> Option<LeasedQuota> {
        let (table, owner) = (self.of(limit, Kind::LeasedCalendar)?, Owner::Tenant(tenant));
        match table.account(owner, table.terms(owner.key()), Origin::Restored) {
            Account::LeasedCalendar(count, terms) => Some((count, terms)),
            _ => None,
        }
    }

    /// Returns the table of a limit and kind, if there is one.
    fn of(&self, limit: &Arc<str>, kind: Kind) -> Option<Arc<dyn Table>> {
        let found = self.tables.get(&(Arc::clone(limit), kind));
        found.map(|table| Arc::clone(&table))
    }

    fn all(&self) -> Vec<Arc<dyn Table>> {
        self.tables.iter().map(|table| Arc::clone(&table)).collect()
    }

    /// Returns the tables whose counts are in this process alone.
    fn kept_here(&self) -> impl Iterator<Item = Arc<dyn Table>> {
        let all = self.all().into_iter();
        all.filter(|table| !table.all_terms().usual.kind().is_shared())
    }

    fn kind_in_force(&self, limit: &Arc<str>) -> Option<Kind> {
        self.in_force.get(limit).map(|kind| *kind)
    }

    /// Puts the terms of a new plan in force. Requests under the old plan go on meanwhile; they are charged to the same
    /// accounts, so a reload admits nothing twice.
    pub fn take_effect(&self, limits: &[(Arc<str>, TermsByOwner)], now: Now) {
        for (name, terms) in limits {
            let (table, kind) = (self.table(name, terms), terms.usual.kind());
            table.change_terms(terms, now);
            let before = self.in_force.insert(Arc::clone(name), kind);
            if before.is_some_and(|before| before != kind) {
                self.change_kind(name, kind, &*table, now);
            }
        }
    }

    /// Replaces the tables of a limit's other kinds by `table`: what was taken under the last kind counts under the new
    /// one.
    fn change_kind(&self, limit: &Arc<str>, kind: Kind, table: &dyn Table, now: Now) {
        let others = Kind::ALL.iter().filter(|other| **other != kind);
        let others: Vec<_> = others
            .filter_map(|other| {
                self.tables
                    .get(&(Arc::clone(limit), *other))
                    .map(|found| Arc::clone(&found))
            })
            .collect();
        for other in &others {
            other.succeed(Vec::new(), now);
        }
        table.succeed(others, now);
        let counts = kind.as_str();
        if kind.carries_over() {
            tracing::info!(%limit, counts, "a limit counts something else: what its owners have taken is carried over");
        } else {
            tracing::warn!(%limit, counts, "a limit counts something else: requests under way are not counted in it");
        }
    }

    /// Drops accounts that nothing holds and from which nothing is taken.
    pub fn forget_idle(&self, now: Now) {
        self.set_aside.forget_old(now.moment);
        for table in &self.tables {
            table.forget_idle(now);
        }
    }

    /// Calls `f` with every account and the name of its limit.
    pub fn each(&self, mut f: impl FnMut(&Arc<str>, Account)) {
        for table in &self.tables {
            table.each(&mut |_, account| f(&table.key().0, account));
        }
    }

    /// Returns the numbers of each limit by name, summed over its kinds.
    pub fn census(&self) -> Vec<Census> {
        let mut all: Vec<Census> = Vec::new();
        for table in &self.tables {
            let (limit, owners, stood_in) = (&table.key().0, table.owners(), table.stood_in());
            match all.iter_mut().find(|found| found.limit == *limit) {
                Some(found) => {
                    found.owners += owners;
                    found.stood_in.wider += stood_in.wider;
                    found.stood_in.others += stood_in.others;
                }
                None => all.push(Census {
                    limit: Arc::clone(limit),
                    owners,
                    stood_in,
                }),
            }
        }
        all
    }
}

#[cfg(test)]
mod tests;
