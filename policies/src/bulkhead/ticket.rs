//! Owns a place in the queue: the wait ends with a slot or without one, and dropping the ticket leaves the queue.
//!
//! Invariant: a slot that was handed to a ticket is claimed, or goes to the next in the queue.

use super::{Bulkhead, Counted, DISPLACED, LATE, SERVED, SERVED_OF_SHARE, SERVED_OF_SHARE_APART, Signal, Slot, count};
use crate::moment::Moment;
use crate::queue::QueuePosition;
use crate::sync::AtomicU8;
use std::sync::Arc;

/// Position in the queue. Dropping it means that the caller is gone, and leaves the queue.
#[must_use = "a ticket that is dropped leaves the queue"]
pub struct Ticket<S: Signal> {
    /// `None` once the ticket is claimed or has left.
    bulkhead: Option<Arc<Bulkhead<S>>>,
    place: QueuePosition,
    deadline: Moment,
    turn: Arc<AtomicU8>,
}

/// Reason why a ticket got no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unserved {
    /// The waiter made room for a tenant with less of the queue: the bulkhead is full.
    Displaced,
    /// No slot came by the deadline.
    TimedOut,
}

impl<S: Signal> Ticket<S> {
    pub(super) fn new(
        bulkhead: Arc<Bulkhead<S>>,
        place: QueuePosition,
        deadline: Moment,
        turn: Arc<AtomicU8>,
    ) -> Ticket<S> {
        Ticket {
            bulkhead: Some(bulkhead),
            place,
            deadline,
            turn,
        }
    }

    /// Returns the moment until which to wait for the signal.
    pub fn deadline(&self) -> Moment {
        self.deadline
    }

    /// Ends the wait, after the signal or at the deadline. A slot that came after the deadline goes to the next in the
    /// queue.
    pub fn claim(mut self, now: Moment) -> Result<Slot<S>, Unserved> {
        let bulkhead = self.bulkhead.take().expect("a ticket is claimed once");
        let stands = bulkhead.leave_queue(self.place, &self.turn);
        match stands {
            DISPLACED => Err(Unserved::Displaced),
            LATE => Err(Unserved::TimedOut),
            _ if is_served(stands) && now <= self.deadline => {
                count(&bulkhead.admitted);
                Ok(Slot::new(bulkhead, self.counted(stands)))
            }
            _ => {
                count(&bulkhead.timed_out);
                if is_served(stands) {
                    bulkhead.give_back(self.counted(stands), Some(now));
                }
                Err(Unserved::TimedOut)
            }
        }
    }

    fn counted(&self, stands: u8) -> Option<Counted> {
        (stands != SERVED).then_some(Counted {
            tenant: self.place.tenant,
            apart: stands == SERVED_OF_SHARE_APART,
        })
    }
}

/// Returns whether a ticket in this state has a slot.
const fn is_served(stands: u8) -> bool {
    matches!(stands, SERVED | SERVED_OF_SHARE | SERVED_OF_SHARE_APART)
}

impl<S: Signal> Drop for Ticket<S> {
    fn drop(&mut self) {
        let Some(bulkhead) = self.bulkhead.take() else { return };
        let stands = bulkhead.leave_queue(self.place, &self.turn);
        if stands != DISPLACED && stands != LATE {
            count(&bulkhead.left);
        }
        if is_served(stands) {
            bulkhead.give_back(self.counted(stands), None);
        }
    }
}
