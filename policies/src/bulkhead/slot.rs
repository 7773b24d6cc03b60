//! Owns the right to one call: the holder of the value has the slot, and dropping the value gives it back.

use super::{Bulkhead, Counted, Signal};
use crate::moment::Moment;
use std::sync::Arc;

/// Slot of a bulkhead, to be kept until the last byte of the answer.
#[must_use = "a slot that is dropped is free again"]
pub struct Slot<S: Signal> {
    /// `None` once the slot is given back.
    bulkhead: Option<Arc<Bulkhead<S>>>,
    counted: Option<Counted>,
}

impl<S: Signal> Slot<S> {
    pub(super) fn new(bulkhead: Arc<Bulkhead<S>>, counted: Option<Counted>) -> Slot<S> {
        Slot {
            bulkhead: Some(bulkhead),
            counted,
        }
    }

    /// Gives the slot back and tells the time, so that no waiter is served after its deadline. After a plain drop such
    /// a waiter may be served; it hands the slot on.
    pub fn release(mut self, now: Moment) {
        self.give_back(Some(now));
    }

    fn give_back(&mut self, now: Option<Moment>) {
        if let Some(bulkhead) = self.bulkhead.take() {
            bulkhead.give_back(self.counted, now);
        }
    }
}

impl<S: Signal> Drop for Slot<S> {
    fn drop(&mut self) {
        self.give_back(None);
    }
}
