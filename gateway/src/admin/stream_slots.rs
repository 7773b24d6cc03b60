//! Slots of event streams: a bounded number in total and for each peer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Largest number of open streams, in total and per peer.
pub(super) const MOST: usize = 32;
pub(super) const MOST_OF_PEER: usize = 16;

/// Number of open streams by peer.
#[derive(Default)]
pub(super) struct Streams(Mutex<HashMap<IpAddr, usize>>);

impl Streams {
    pub(super) fn taken(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn try_take(&self, peer: IpAddr) -> bool {
        let mut taken = self.taken();
        let of_peer = taken.get(&peer).copied().unwrap_or(0);
        let has_room = taken.values().sum::<usize>() < MOST && of_peer < MOST_OF_PEER;
        if has_room {
            taken.insert(peer, of_peer + 1);
        }
        has_room
    }
}
