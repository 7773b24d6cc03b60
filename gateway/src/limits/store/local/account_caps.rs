//! Caps the number of accounts that requests open, with a separate cap for each kind of owner.
//!
//! Invariant: no kind of owner uses up the room of another. Anyone can send requests from many addresses, so these
//! never keep out a tenant with a valid token, an account from before a restart, or an owner that the config names.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::limits::owner_class::OwnerClass;

/// Number of accounts that each kind of owner may have, over all limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountLimits {
    pub addresses: usize,
    pub networks: usize,
    /// Also the number of tenants whose callers may share an account.
    pub tenants: usize,
    pub callers: usize,
}

/// Number of accounts in each room, and the cap on it.
#[derive(Debug, Default)]
pub struct AccountCaps([Cap; OwnerClass::ALL.len()]);

#[derive(Debug, Default)]
struct Cap {
    most: AtomicUsize,
    taken: AtomicUsize,
}

impl AccountLimits {
    /// Returns the same cap for each kind of owner.
    pub const fn all(most: usize) -> Self {
        Self {
            addresses: most,
            networks: most,
            tenants: most,
            callers: most,
        }
    }

    /// Returns the cap on restored accounts: the most that the last process can have had, and half as many again.
    const fn restored(self) -> usize {
        let all = self.addresses + self.networks + 2 * self.tenants + self.callers;
        all + all / 2
    }
}

impl AccountCaps {
    pub fn new(limits: AccountLimits) -> Self {
        let rooms = Self::default();
        rooms.resize(limits);
        rooms
    }

    /// Changes the caps. Accounts above a lower cap stay.
    pub fn resize(&self, limits: AccountLimits) {
        for room in OwnerClass::ALL {
            let most = match room {
                OwnerClass::Addresses => limits.addresses,
                OwnerClass::Networks => limits.networks,
                OwnerClass::Tenants | OwnerClass::CallersOfTenants => limits.tenants,
                OwnerClass::Callers => limits.callers,
                OwnerClass::Restored => limits.restored(),
            };
            self.cap(room).most.store(most, Relaxed);
        }
    }

    /// Takes a place in the room; returns whether there was one.
    pub(crate) fn enter(&self, room: OwnerClass) -> bool {
        let Cap { most, taken } = self.cap(room);
        let most = most.load(Relaxed);
        let more = |taken: usize| (taken < most).then_some(taken + 1);
        taken.fetch_update(Relaxed, Relaxed, more).is_ok()
    }

    pub(crate) fn leave(&self, room: OwnerClass) {
        let before = self.cap(room).taken.fetch_sub(1, Relaxed);
        debug_assert!(before > 0, "who leaves has a place");
    }

    pub(crate) fn is_full(&self, room: OwnerClass) -> bool {
        self.taken(room) >= self.most(room)
    }

    pub fn taken(&self, room: OwnerClass) -> usize {
        self.cap(room).taken.load(Relaxed)
    }

    pub fn most(&self, room: OwnerClass) -> usize {
        self.cap(room).most.load(Relaxed)
    }

    const fn cap(&self, room: OwnerClass) -> &Cap {
        &self.0[room as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_places_for_itself() {
        let rooms = AccountCaps::new(AccountLimits {
            addresses: 3,
            networks: 2,
            tenants: 0,
            callers: 1,
        });
        let fill = |room| (0..10).filter(|_| rooms.enter(room)).count();
        assert_eq!(OwnerClass::ALL.map(fill), [3, 2, 0, 1, 0, 9]);
        assert_eq!(OwnerClass::ALL.map(|room| rooms.taken(room)), [3, 2, 0, 1, 0, 9]);
        assert!(OwnerClass::ALL.iter().all(|room| rooms.is_full(*room)));
        rooms.leave(OwnerClass::Addresses);
        assert!(
            !rooms.is_full(OwnerClass::Addresses)
                && rooms.enter(OwnerClass::Addresses)
                && !rooms.enter(OwnerClass::Addresses)
        );
    }

    #[test]
    fn whoever_is_there_stays_when_there_is_less_room() {
        let rooms = AccountCaps::new(AccountLimits::all(2));
        assert!(rooms.enter(OwnerClass::Tenants) && rooms.enter(OwnerClass::Tenants));
        rooms.resize(AccountLimits::all(1));
        assert_eq!(rooms.taken(OwnerClass::Tenants), 2);
        rooms.leave(OwnerClass::Tenants);
        assert!(!rooms.enter(OwnerClass::Tenants));
        rooms.resize(AccountLimits::all(2));
        assert!(rooms.enter(OwnerClass::Tenants));
    }
}
