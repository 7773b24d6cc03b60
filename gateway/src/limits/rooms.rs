//! How many accounts there may be for owners that nobody wrote down, each kind of owner by itself.
//!
//! Invariant: no kind of owner takes the room of another. Addresses are there for anyone to come from, so they never
//! keep out a tenant with a valid token; nor do accounts that were there before a restart, or that the config names.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Who shares the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    Addresses,
    /// Addresses that are counted together.
    Networks,
    /// Known from claims alone.
    Tenants,
    Callers,
    /// Callers that are counted together, by tenant.
    CallersOfTenants,
    /// From a state file, whoever they are.
    Restored,
}

/// How many accounts each kind of owner may have, over all limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountLimits {
    pub addresses: usize,
    pub networks: usize,
    /// And as many whose callers are counted together.
    pub tenants: usize,
    pub callers: usize,
}

/// The accounts that there are, and how many there may be.
#[derive(Debug, Default)]
pub struct Rooms([Places; Room::ALL.len()]);

#[derive(Debug, Default)]
struct Places {
    most: AtomicUsize,
    taken: AtomicUsize,
}

impl Room {
    pub const ALL: [Self; 6] = [
        Self::Addresses,
        Self::Networks,
        Self::Tenants,
        Self::Callers,
        Self::CallersOfTenants,
        Self::Restored,
    ];

    /// The word that metrics use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Addresses => "addresses",
            Self::Networks => "networks",
            Self::Tenants => "tenants",
            Self::Callers => "callers",
            Self::CallersOfTenants => "callers_of_tenants",
            Self::Restored => "restored",
        }
    }
}

impl AccountLimits {
    /// The same number for each.
    pub const fn all(most: usize) -> Self {
        Self {
            addresses: most,
            networks: most,
            tenants: most,
            callers: most,
        }
    }

    /// As many as there can have been in the process before, and half as many again.
    const fn restored(self) -> usize {
        let all = self.addresses + self.networks + 2 * self.tenants + self.callers;
        all + all / 2
    }
}

impl Rooms {
    pub fn new(limits: AccountLimits) -> Self {
        let rooms = Self::default();
        rooms.resize(limits);
        rooms
    }

    /// Whoever has a place keeps it.
    pub fn resize(&self, limits: AccountLimits) {
        for room in Room::ALL {
            let most = match room {
                Room::Addresses => limits.addresses,
                Room::Networks => limits.networks,
                Room::Tenants | Room::CallersOfTenants => limits.tenants,
                Room::Callers => limits.callers,
                Room::Restored => limits.restored(),
            };
            self.places(room).most.store(most, Relaxed);
        }
    }

    /// Takes a place, if there is one.
    pub(crate) fn enter(&self, room: Room) -> bool {
        let Places { most, taken } = self.places(room);
        let most = most.load(Relaxed);
        let more = |taken: usize| (taken < most).then_some(taken + 1);
        taken.fetch_update(Relaxed, Relaxed, more).is_ok()
    }

    pub(crate) fn leave(&self, room: Room) {
        let before = self.places(room).taken.fetch_sub(1, Relaxed);
        debug_assert!(before > 0, "who leaves has a place");
    }

    pub(crate) fn is_full(&self, room: Room) -> bool {
        self.taken(room) >= self.most(room)
    }

    pub fn taken(&self, room: Room) -> usize {
        self.places(room).taken.load(Relaxed)
    }

    pub fn most(&self, room: Room) -> usize {
        self.places(room).most.load(Relaxed)
    }

    const fn places(&self, room: Room) -> &Places {
        &self.0[room as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_places_for_itself() {
        let rooms = Rooms::new(AccountLimits {
            addresses: 3,
            networks: 2,
            tenants: 0,
            callers: 1,
        });
        let fill = |room| (0..10).filter(|_| rooms.enter(room)).count();
        assert_eq!(Room::ALL.map(fill), [3, 2, 0, 1, 0, 9]);
        assert_eq!(Room::ALL.map(|room| rooms.taken(room)), [3, 2, 0, 1, 0, 9]);
        assert!(Room::ALL.iter().all(|room| rooms.is_full(*room)));
        rooms.leave(Room::Addresses);
        assert!(!rooms.is_full(Room::Addresses) && rooms.enter(Room::Addresses) && !rooms.enter(Room::Addresses));
    }

    #[test]
    fn whoever_is_there_stays_when_there_is_less_room() {
        let rooms = Rooms::new(AccountLimits::all(2));
        assert!(rooms.enter(Room::Tenants) && rooms.enter(Room::Tenants));
        rooms.resize(AccountLimits::all(1));
        assert_eq!(rooms.taken(Room::Tenants), 2);
        rooms.leave(Room::Tenants);
        assert!(!rooms.enter(Room::Tenants));
        rooms.resize(AccountLimits::all(2));
        assert!(rooms.enter(Room::Tenants));
    }

    #[test]
    fn rooms_are_found_by_their_number() {
        for (number, room) in Room::ALL.into_iter().enumerate() {
            assert_eq!(room as usize, number, "{}", room.as_str());
        }
    }
}
