//! Counts the connections of each client address, over all workers.
//!
//! The table is bounded by the number of connections, because an address without a connection has no entry. It is used
//! once per connection, and not at all where connections per address are not limited.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Default)]
pub(crate) struct PerAddress(Mutex<HashMap<IpAddr, u32>>);

/// Slot of one connection of an address; given back on drop.
#[must_use]
pub(crate) struct AddressSlot {
    per_address: Arc<PerAddress>,
    address: IpAddr,
}

impl PerAddress {
    /// Takes a slot. Returns `None` if the address already has `most` connections.
    pub(crate) fn join(self: &Arc<Self>, address: IpAddr, most: u32) -> Option<AddressSlot> {
        self.with(|counts| {
            let count = counts.entry(address).or_default();
            // A refused connection leaves no empty entry, because the address then has other connections.
            *count = (*count < most).then_some(*count + 1)?;
            Some(())
        })?;
        Some(AddressSlot {
            per_address: Arc::clone(self),
            address,
        })
    }

    fn with<T>(&self, change: impl FnOnce(&mut HashMap<IpAddr, u32>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for AddressSlot {
    fn drop(&mut self) {
        self.per_address.with(|counts| {
            if let Some(count) = counts.get_mut(&self.address) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&self.address);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_place_that_is_left_can_be_taken_again_and_nobody_stays_behind() {
        let per_address = Arc::new(PerAddress::default());
        let (one, other) = (Ipv4Addr::new(192, 0, 2, 1).into(), Ipv4Addr::new(192, 0, 2, 2).into());
        let first = per_address.join(one, 2).expect("there is room");
        let second = per_address.join(one, 2).expect("there is room");
        assert!(per_address.join(one, 2).is_none());
        let third = per_address.join(other, 2).expect("another address has room of its own");
        drop(first);
        let fourth = per_address.join(one, 2).expect("there is room again");
        // A lowered limit ends no connection and admits no new one.
        assert!(per_address.join(one, 1).is_none());
        drop((second, third, fourth));
        assert_eq!(per_address.with(|counts| counts.len()), 0);
    }
}
