//! Carries the counts of calendar quotas over a jump of the wall clock.
//!
//! Runs only during a jump. Tokens that are taken at the very moment of a jump may be missing from the period that is
//! left.

use std::sync::Arc;

use policies::CalendarQuota;
use policies::calendar::Saved;

use crate::clock::Now;
use crate::limits::kinds::{Account, Terms};
use crate::limits::owner::OwnerName;
use crate::limits::store::Origin;
use crate::limits::store::local::Accounts;
use crate::limits::store::local::set_aside::{KEPT, LeftCounts};

/// The effects of a clock jump on quotas.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Carried {
    /// Number of owners whose period now begins in the future; its count is carried into the current period.
    pub ahead: usize,
    /// Number of owners that are charged again for earlier use in the current period.
    pub again: usize,
}

impl LeftCounts {
    /// Handles a jump of the clock. Sets counts aside, calls `follow`, which puts the new time in force, and then
    /// charges again what counts at that time.
    pub fn jump(&self, accounts: &Accounts, from: Now, to: Now, follow: impl FnOnce()) -> Carried {
        let mut kept = self.kept();
        let mut before = std::mem::take(&mut *kept);
        let (mut done, mut again) = (Carried::default(), Vec::new());
        accounts.each(|limit, account| {
            let Some((count, quota)) = account.as_calendar() else {
                return;
            };
            let (counted, left) = (count.usage.saved(), before.take(limit, &count.owner));
            if counted.used == 0 && left.is_none() {
                return;
            }
            done.ahead += usize::from(counted.used > 0 && counted.is_ahead(to.wall));
            let mut left = left.unwrap_or_default();
            let add = left.jump(quota.every(), counted, from.wall, to.wall);
            kept.put(limit, &count.owner, left);
            if add > 0 {
                again.push((account, add));
            }
        });
        // Owners that have no count any more.
        for (limit, owners) in before.by_limit {
            for (name, mut left) in owners {
                if let Some((account, quota)) = account(accounts, &limit, &name) {
                    let (since, _) = left.saved();
                    let add = left.jump(quota.every(), Saved { since, used: 0 }, from.wall, to.wall);
                    kept.put(&limit, &name, left);
                    if add > 0 {
                        again.push((account, add));
                    }
                }
            }
        }
        kept.until = to.moment + KEPT;
        follow();
        done.again = again.len();
        for (account, add) in again {
            account.charge(to, add);
        }
        done
    }
}

/// Returns the named owner's account under the terms in force; `None` if the limit is no calendar quota any more.
fn account(accounts: &Accounts, limit: &Arc<str>, name: &str) -> Option<(Account, CalendarQuota)> {
    let (table, name) = (accounts.of_quota(limit)?, OwnerName::read(name)?);
    let owner = name.owner()?;
    match table.terms(owner.key()) {
        terms @ Terms::Calendar(quota) => Some((table.account(owner, terms, Origin::Restored), quota)),
        _ => None,
    }
}
