//! Limits the requests in progress at the admin address, in total and per peer.
//!
//! A request without a slot waits for one for a while. Probes need no slot. Event streams have their own slots.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

/// Largest number of requests in progress, in total and per peer.
const MOST: u32 = 64;
const MOST_OF_PEER: u32 = 32;
/// Longest time that a request waits for a slot.
const WAIT: Duration = Duration::from_secs(10);

/// Slots of one admin address.
#[derive(Default)]
pub(super) struct RequestSlots {
    taken: Mutex<Taken>,
    freed: Notify,
}

#[derive(Default)]
struct Taken {
    all: u32,
    by_peer: HashMap<IpAddr, u32>,
}

/// Slot of one request; given back on drop.
#[must_use = "the slot is given back when this is dropped"]
pub(super) struct RequestSlot {
    slots: Arc<RequestSlots>,
    peer: IpAddr,
}

impl RequestSlots {
    fn try_take(self: &Arc<Self>, peer: IpAddr) -> Option<RequestSlot> {
        let mut taken = self.taken();
        let of_peer = taken.by_peer.get(&peer).copied().unwrap_or(0);
        if taken.all >= MOST || of_peer >= MOST_OF_PEER {
            return None;
        }
        taken.all += 1;
        taken.by_peer.insert(peer, of_peer + 1);
        Some(RequestSlot {
            slots: Arc::clone(self),
            peer,
        })
    }

    pub(super) async fn take(self: &Arc<Self>, peer: IpAddr) -> Option<RequestSlot> {
        let taken = async {
            loop {
                // Registers before it tries, so that a slot freed in between is not missed.
                let freed = self.freed.notified();
                let mut freed = std::pin::pin!(freed);
                freed.as_mut().enable();
                if let Some(slot) = self.try_take(peer) {
                    return slot;
                }
                freed.await;
            }
        };
        timeout(WAIT, taken).await.ok()
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RequestSlot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken();
        taken.all -= 1;
        if let Some(of_peer) = taken.by_peer.get_mut(&self.peer) {
            *of_peer -= 1;
            if *of_peer == 0 {
                taken.by_peer.remove(&self.peer);
            }
        }
        drop(taken);
        // Wakes all waiters, because the first one may be of a peer that already has too many slots.
        self.slots.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[tokio::test(start_paused = true)]
    async fn places_are_few_and_few_of_one_peer_and_come_back() {
        let slots = Arc::new(RequestSlots::default());
        let mut of_one: Vec<_> = (0..MOST_OF_PEER).map(|_| slots.try_take(peer(1)).unwrap()).collect();
        assert!(slots.try_take(peer(1)).is_none());
        let of_another: Vec<_> = (0..MOST_OF_PEER).map(|_| slots.try_take(peer(2)).unwrap()).collect();
        assert!(slots.try_take(peer(3)).is_none(), "all are taken");
        assert!(slots.take(peer(3)).await.is_none(), "and stay taken");
        let waits = tokio::spawn({
            let slots = Arc::clone(&slots);
            async move { slots.take(peer(3)).await.is_some() }
        });
        tokio::task::yield_now().await;
        of_one.pop();
        assert!(waits.await.unwrap());
        drop((of_one, of_another));
        let taken = slots.taken();
        assert_eq!((taken.all, taken.by_peer.len()), (0, 0));
    }
}
