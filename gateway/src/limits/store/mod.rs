//! The seam behind which limits are counted: a table of accounts for each limit.
//!
//! [`local`] counts in this process's memory, and is the only store. A decision does not go through the seam: a request
//! opens an account once, and then takes from it by an atomic operation.

pub mod local;

use std::collections::HashMap;
use std::sync::Arc;

use crate::clock::Now;
use crate::limits::kinds::{Account, Terms};
use crate::limits::owner::{Owner, OwnerKey};

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
    /// Owner by which the table holds the account.
    pub held_by: OwnerKey,
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
    /// Puts new terms in force for all accounts but those with [own](Self::set_own_terms) terms. Nothing is refilled.
    fn change_terms(&self, terms: &TermsByOwner, now: Now);
    /// Puts terms in force for one owner that no plan names, over every plan; `None` puts those of the plan in force.
    /// Nothing is refilled.
    fn set_own_terms(&self, owner: OwnerKey, terms: Option<Terms>, now: Now);
    /// Takes over what was taken in other tables of the same limit: now for existing accounts, and later for each new
    /// one.
    fn succeed(&self, others: Vec<Arc<dyn Table>>, now: Now);
    /// Drops accounts that nothing holds and from which nothing is taken.
    fn forget_idle(&self, now: Now);
    /// Calls `f` with every account, shared ones included, and the key of its owner.
    fn each(&self, f: &mut dyn FnMut(OwnerKey, Account));
    /// Returns the name of the limit.
    fn limit(&self) -> &Arc<str>;
    /// Returns all terms in force.
    fn all_terms(&self) -> Arc<TermsByOwner>;
    /// Returns the account that another process held by this key, in the room that it had there. Without room, it is the
    /// shared account of its kind. `name` is the owner where the kind of limit keeps names.
    fn adopt(&self, owner: OwnerKey, name: Option<Owner<'_>>) -> Account;

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
