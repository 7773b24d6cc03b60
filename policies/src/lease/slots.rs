//! Shares a cap on requests in flight between replicas: each holds some of the slots, and counts alone within them.
//!
//! Unlike tokens, slots come back. So a request states how many slots the replica wants to hold in all, and repeating
//! it changes nothing. A replica sends one each heartbeat, and sooner when it needs more. The store gives the slots
//! of a replica to others when it was silent for two heartbeats. The replica itself stops using them two heartbeats
//! after it *sent* its last answered request, so before that.
//!
//! Invariant: the slots of all replicas together are at most the cap. Requests in flight are at most the cap, and
//! those that a replica had when it lost the store. A replica gives up slots before it tells the store, and only if
//! no request is in them.

use crate::calendar::WallTime;
use crate::moment::Moment;
use crate::sync::{AtomicU64, Ordering::Relaxed};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Message of a replica to the store, for one cap of one owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotRequest {
    /// Random name of the process.
    pub replica: u64,
    /// Rises by one with each request.
    pub sequence: u64,
    /// Slots that the replica wants in all.
    pub wanted: u32,
}

/// Answer of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotReply {
    pub sequence: u64,
    /// Slots that the replica has in all.
    pub granted: u32,
}

/// Slots of one replica, as a cap for [`InFlight::enter`](crate::InFlight::enter).
#[derive(Default)]
pub struct HeldSlots {
    /// Layout: expiry in units of 4.2 ms (38 bits, 36 years) | slots (26 bits)
    word: AtomicU64,
}

impl HeldSlots {
    /// Most slots of one replica.
    pub const MOST: u32 = (1 << HeldSlots::SLOTS) - 1;
    const SLOTS: u32 = 26;
    /// Bits of a nanosecond count that the expiry leaves out.
    const UNIT: u32 = 22;

    pub fn new() -> HeldSlots {
        HeldSlots::default()
    }

    /// Returns the most requests that may be in flight; zero once the slots have expired.
    pub fn cap(&self, now: Moment) -> u32 {
        let (slots, expires) = HeldSlots::parts(self.word.load(Relaxed));
        if now < expires { slots } else { 0 }
    }

    const fn parts(word: u64) -> (u32, Moment) {
        let expires = Moment::from_nanos((word >> HeldSlots::SLOTS) << HeldSlots::UNIT);
        (word as u32 & HeldSlots::MOST, expires)
    }

    fn set(&self, slots: u32, expires: Moment) {
        let expiry = (expires.nanos() >> HeldSlots::UNIT).min(u64::MAX >> HeldSlots::SLOTS);
        let slots = u64::from(slots.min(HeldSlots::MOST));
        self.word.store(expiry << HeldSlots::SLOTS | slots, Relaxed);
    }

    /// Lowers the slots to at most this number.
    fn lower(&self, slots: u32) {
        let mut word = self.word.load(Relaxed);
        loop {
            let kept = (word & u64::from(HeldSlots::MOST)).min(u64::from(slots));
            let lowered = word & !u64::from(HeldSlots::MOST) | kept;
            match self.word.compare_exchange_weak(word, lowered, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(seen) => word = seen,
            }
        }
    }
}

impl Clone for HeldSlots {
    fn clone(&self) -> HeldSlots {
        HeldSlots {
            word: AtomicU64::new(self.word.load(Relaxed)),
        }
    }
}

impl fmt::Debug for HeldSlots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (slots, expires) = HeldSlots::parts(self.word.load(Relaxed));
        f.debug_struct("HeldSlots")
            .field("slots", &slots)
            .field("expires", &expires)
            .finish()
    }
}

/// State of the slots of one owner under one cap, changed by the one thread that talks to the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotLease {
    replica: u64,
    heartbeat: Duration,
    sequence: u64,
    sent: Moment,
    /// Slots of the last answer.
    granted: u32,
    /// Slots that the last request was to keep.
    target: u32,
    /// Whether the last request has no answer.
    awaited: bool,
}

impl SlotLease {
    /// Begins without slots. `replica` is a random name, new with each start of the process.
    pub const fn new(replica: u64, heartbeat: Duration) -> SlotLease {
        SlotLease {
            replica,
            heartbeat,
            sequence: 0,
            sent: Moment::ZERO,
            granted: 0,
            target: 0,
            awaited: false,
        }
    }

    /// Returns the request that keeps the slots of the requests in flight and `spare` more. Slots that are not needed
    /// stay unused for one heartbeat before the store is told, because a request may still enter under the cap before.
    /// An answer to an earlier request is ignored from now on.
    pub fn request(&mut self, slots: &HeldSlots, now: Moment, in_flight: u32, spare: u32) -> SlotRequest {
        let before = self.target.min(self.granted);
        self.target = in_flight.saturating_add(spare).min(HeldSlots::MOST);
        slots.lower(self.target);
        let wanted = self.target.max(before);
        (self.sequence, self.sent, self.awaited) = (self.sequence + 1, now, true);
        SlotRequest {
            replica: self.replica,
            sequence: self.sequence,
            wanted,
        }
    }

    /// Applies the answer to the last request; returns whether it was that one.
    pub fn apply(&mut self, slots: &HeldSlots, reply: &SlotReply) -> bool {
        if !self.awaited || reply.sequence != self.sequence {
            return false;
        }
        self.awaited = false;
        self.granted = reply.granted;
        slots.set(
            reply.granted.min(self.target),
            self.sent + self.heartbeat.saturating_mul(2),
        );
        true
    }

    /// Returns whether the last answer gave every slot that was wanted. If not, the store has no more.
    pub const fn is_satisfied(&self) -> bool {
        self.granted >= self.target
    }
}

/// Slots of all replicas: the rule that the script in the store follows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CentralSlots {
    cap: u32,
    heartbeat: Duration,
    replicas: BTreeMap<u64, Slots>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Slots {
    sequence: u64,
    slots: u32,
    at: WallTime,
}

impl CentralSlots {
    pub const fn new(cap: u32, heartbeat: Duration) -> CentralSlots {
        CentralSlots {
            cap,
            heartbeat,
            replicas: BTreeMap::new(),
        }
    }

    /// Executes a request. `None` if it is not newer than the last one of its replica; then nothing is changed.
    pub fn execute(&mut self, now: WallTime, request: &SlotRequest) -> Option<SlotReply> {
        self.forget(now);
        if let Some(mine) = self.replicas.get(&request.replica)
            && request.sequence <= mine.sequence
        {
            return None;
        }
        self.replicas.remove(&request.replica);
        let granted = request.wanted.min(self.cap.saturating_sub(self.taken()));
        let slots = Slots {
            sequence: request.sequence,
            slots: granted,
            at: now,
        };
        self.replicas.insert(request.replica, slots);
        Some(SlotReply {
            sequence: request.sequence,
            granted,
        })
    }

    /// Forgets the replicas that were silent for two heartbeats. A record of the future, from before the clock was set
    /// back, counts as one of now.
    fn forget(&mut self, now: WallTime) {
        let keep = self.heartbeat * 2;
        self.replicas.retain(|_, replica| {
            replica.at = replica.at.min(now);
            now.elapsed() < replica.at.elapsed() + keep
        });
    }

    fn taken(&self) -> u32 {
        let slots = self.replicas.values().map(|replica| replica.slots);
        slots.fold(0, u32::saturating_add)
    }

    /// Returns the slots that replicas hold at `now`.
    pub fn held(&mut self, now: WallTime) -> u32 {
        self.forget(now);
        self.taken()
    }
}

#[cfg(test)]
mod tests;
