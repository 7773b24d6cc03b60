//! How many connections each client address holds, over all workers.
//!
//! Bounded by the connections themselves: an address without one is not in the table. Asked once a connection, and not
//! at all where addresses are not limited.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Default)]
pub(crate) struct PerAddress(Mutex<HashMap<IpAddr, u32>>);

/// One connection of an address; dropped, it leaves.
#[must_use]
pub(crate) struct AddressSlot {
    crowd: Arc<PerAddress>,
    address: IpAddr,
}

impl PerAddress {
    /// `None` if the address has `most` connections already.
    pub(crate) fn join(self: &Arc<Self>, address: IpAddr, most: u32) -> Option<AddressSlot> {
        self.with(|counts| {
            let count = counts.entry(address).or_default();
            // A place that is not given is not held either: there is an entry only if there are others.
            *count = (*count < most).then_some(*count + 1)?;
            Some(())
        })?;
        Some(AddressSlot {
            crowd: Arc::clone(self),
            address,
        })
    }

    fn with<T>(&self, change: impl FnOnce(&mut HashMap<IpAddr, u32>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for AddressSlot {
    fn drop(&mut self) {
        self.crowd.with(|counts| {
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
        let crowd = Arc::new(PerAddress::default());
        let (one, other) = (Ipv4Addr::new(192, 0, 2, 1).into(), Ipv4Addr::new(192, 0, 2, 2).into());
        let first = crowd.join(one, 2).expect("there is room");
        let second = crowd.join(one, 2).expect("there is room");
        assert!(crowd.join(one, 2).is_none());
        let third = crowd.join(other, 2).expect("another address has room of its own");
        drop(first);
        let fourth = crowd.join(one, 2).expect("there is room again");
        // A limit that has been lowered ends nobody, and admits nobody.
        assert!(crowd.join(one, 1).is_none());
        drop((second, third, fourth));
        assert_eq!(crowd.with(|counts| counts.len()), 0);
    }
}
