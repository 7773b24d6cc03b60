//! Remembers what calendar quotas had counted in periods that the clock left by a jump, or that were over when the
//! process began.
//!
//! The wall clock may have been wrong before or after the jump, and may come back. Then the use of that period counts
//! again, as [`LeftPeriods`] describes. It is kept for a day after the last jump, in memory and in the state file.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use policies::Moment;
use policies::calendar::LeftPeriods;

use crate::limits::owner::{Owner, OwnerName};

/// Maximum number of remembered owners over all limits; addresses and networks are added only up to half of it.
const MOST: usize = 100_000;
/// Time after the last jump for which counts are kept.
pub(super) const KEPT: Duration = Duration::from_secs(24 * 3600);

#[derive(Default)]
pub struct LeftCounts(Mutex<Kept>);

#[derive(Default)]
pub(super) struct Kept {
    pub(super) by_limit: BTreeMap<Arc<str>, BTreeMap<Box<str>, LeftPeriods>>,
    owners: usize,
    pub(super) until: Moment,
}

impl LeftCounts {
    /// Forgets one owner, because its count is set by hand.
    pub fn forget(&self, limit: &str, owner: &str) {
        self.kept().take(limit, owner);
    }

    /// Adds what a state file has kept of an owner.
    pub(crate) fn restore(&self, limit: &Arc<str>, owner: &str, left: LeftPeriods, now: Moment) {
        let mut kept = self.kept();
        kept.until = now + KEPT;
        kept.put(limit, owner, left);
    }

    /// Calls `f` with everything that is kept, for a state file.
    pub(crate) fn each(&self, mut f: impl FnMut(&Arc<str>, &str, &LeftPeriods)) {
        for (limit, owners) in &self.kept().by_limit {
            for (owner, left) in owners {
                f(limit, owner, left);
            }
        }
    }

    /// Forgets everything once the last jump is a day ago.
    pub(crate) fn forget_old(&self, now: Moment) {
        let mut kept = self.kept();
        if kept.owners > 0 && now >= kept.until {
            *kept = Kept::default();
        }
    }

    pub(super) fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    pub(super) fn take(&mut self, limit: &str, owner: &str) -> Option<LeftPeriods> {
        let found = self.by_limit.get_mut(limit)?.remove(owner)?;
        self.owners -= 1;
        Some(found)
    }

    pub(super) fn put(&mut self, limit: &Arc<str>, owner: &str, left: LeftPeriods) {
        let name = OwnerName::read(owner);
        let is_address = matches!(
            name.as_ref().and_then(OwnerName::owner),
            Some(Owner::Address(_) | Owner::Network(_))
        );
        let most = if is_address { MOST / 2 } else { MOST };
        if !left.is_empty() && self.owners < most {
            let owners = self.by_limit.entry(Arc::clone(limit)).or_default();
            self.owners += usize::from(owners.insert(owner.into(), left).is_none());
        }
    }
}

#[cfg(test)]
mod tests {
    use policies::calendar::Saved;
    use policies::{CalendarQuota, Every, WallTime};

    use super::*;
    use crate::clock::Now;
    use crate::limits::kinds::Terms;
    use crate::limits::store::local::Accounts;
    use crate::limits::store::local::clock_jump::Carried;
    use crate::limits::store::{Origin, Table, TermsByOwner};

    /// Noon of 2026-11-24.
    const NOON: u64 = 1_795_521_600;
    const DAY: u64 = 24 * 3600;
    const YEAR: u64 = 365 * DAY;

    fn at(moment: u64, wall: u64) -> Now {
        Now {
            moment: Moment::ZERO + Duration::from_secs(moment),
            wall: WallTime::since_epoch(Duration::from_secs(wall)),
        }
    }

    fn by_the_month(limit: u64) -> TermsByOwner {
        TermsByOwner::for_all(Terms::Calendar(CalendarQuota::new(limit, Every::Month).unwrap()))
    }

    struct World {
        accounts: Accounts,
        table: Arc<dyn Table>,
        terms: TermsByOwner,
    }

    impl World {
        fn new() -> Self {
            let (accounts, terms) = (Accounts::new(10), by_the_month(100));
            Self {
                table: accounts.table(&"monthly".into(), &terms),
                accounts,
                terms,
            }
        }

        pub(super) fn take(&self, tenant: &str, cost: u64, now: Now) {
            let account = self
                .table
                .account(Owner::Tenant(tenant), self.terms.usual, Origin::Request);
            account.take(now, cost, Duration::ZERO).unwrap();
        }

        fn left(&self, tenant: &str, now: Now) -> u64 {
            self.table.balance(Owner::Tenant(tenant).key(), self.terms.usual, now)
        }

        fn jump(&self, from: Now, to: Now) -> Carried {
            self.accounts.set_aside.jump(&self.accounts, from, to, || {})
        }
    }

    #[test]
    fn what_a_jump_has_ended_counts_again_when_the_clock_comes_back() {
        let world = World::new();
        let (now, ahead) = (at(0, NOON), at(40, NOON + 68 * YEAR));
        world.take("acme", 90, now);
        world.take("zeta", 7, now);
        assert_eq!(world.jump(now, ahead), Carried::default());
        assert_eq!(world.left("acme", ahead), 100);
        world.take("acme", 5, ahead);
        // The accounts are not held, and nothing is counted in the current month.
        world.accounts.forget_idle(ahead);
        assert_eq!(world.table.owners(), 1);
        let back = at(80, NOON + 80);
        assert_eq!(world.jump(ahead, back), Carried { ahead: 1, again: 2 });
        assert_eq!((world.left("acme", back), world.left("zeta", back)), (5, 93));
    }

    #[test]
    fn a_clock_that_was_set_back_gives_nothing_away() {
        let world = World::new();
        let (now, back) = (at(0, NOON), at(40, 0));
        world.take("acme", 60, now);
        assert_eq!(world.jump(now, back), Carried { ahead: 1, again: 0 });
        assert_eq!(world.left("acme", back), 40);
        world.take("acme", 10, back);
        let then = at(80, NOON + 80);
        assert_eq!(world.jump(back, then), Carried { ahead: 0, again: 1 });
        assert_eq!(world.left("acme", then), 30);
    }

    #[test]
    fn after_a_day_a_jump_was_right() {
        let world = World::new();
        let (now, ahead) = (at(0, NOON), at(40, NOON + 68 * YEAR));
        world.take("acme", 90, now);
        world.jump(now, ahead);
        world.accounts.forget_idle(at(40 + DAY, NOON + 68 * YEAR + DAY));
        assert_eq!(world.jump(ahead, at(80, NOON + 80)), Carried::default());
        assert_eq!(world.left("acme", at(80, NOON + 80)), 100);
    }

    #[test]
    fn what_is_forgotten_does_not_come_back() {
        let world = World::new();
        let (now, ahead) = (at(0, NOON), at(40, NOON + 68 * YEAR));
        world.take("acme", 90, now);
        world.take("zeta", 90, now);
        world.jump(now, ahead);
        for tenant in ["acme", "zeta", "acme", "nobody"] {
            world.accounts.set_aside.forget("monthly", &format!("tenant {tenant}"));
        }
        assert_eq!(world.accounts.set_aside.kept().owners, 0);
        assert_eq!(world.jump(ahead, at(80, NOON + 80)), Carried::default());
    }

    #[test]
    fn what_is_counted_while_a_jump_is_followed_is_not_lost() {
        let world = World::new();
        let (now, back) = (at(0, NOON), at(40, 0));
        world.take("acme", 60, now);
        world.accounts.set_aside.jump(&world.accounts, now, back, || {
            world.take("acme", 3, now);
        });
        assert_eq!(world.left("acme", back), 37);
    }

    #[test]
    fn a_limit_that_is_no_quota_any_more_is_forgotten() {
        let world = World::new();
        world.take("acme", 60, at(0, NOON));
        let kept = &world.accounts.set_aside;
        kept.restore(&"gone".into(), "tenant acme", LeftPeriods::default(), Moment::ZERO);
        let left = || {
            LeftPeriods::restore(
                WallTime::default(),
                [Saved {
                    since: at(0, NOON).wall,
                    used: 5,
                }],
            )
        };
        kept.restore(&"gone".into(), "tenant acme", left(), Moment::ZERO);
        kept.restore(&"monthly".into(), "nobody", left(), Moment::ZERO);
        world.jump(at(0, NOON), at(0, NOON + YEAR));
        let mut found = Vec::new();
        kept.each(|limit, owner, _| found.push(format!("{limit} {owner}")));
        assert_eq!(found, ["monthly tenant acme"]);
    }

    #[test]
    fn memory_is_bounded_and_addresses_take_half() {
        let mut kept = Kept::default();
        let left = LeftPeriods::restore(
            WallTime::default(),
            [Saved {
                since: at(0, NOON).wall,
                used: 5,
            }],
        );
        for number in 0..MOST as u32 {
            let address = std::net::Ipv4Addr::from_bits(number);
            kept.put(&"limit".into(), &format!("address {address}"), left.clone());
        }
        assert_eq!(kept.owners, MOST / 2);
        for number in 0..MOST {
            kept.put(&"limit".into(), &format!("tenant {number}"), left.clone());
        }
        assert_eq!(kept.owners, MOST);
    }
}
