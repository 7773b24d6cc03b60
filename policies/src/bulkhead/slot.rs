//! The right to one call, as a value: who holds it has it, and dropping it gives it back.

use super::{Bulkhead, Counted, Signal};
use crate::moment::Moment;
use std::sync::Arc;

/// To be kept until the last byte of the answer.
#[must_use = "a slot that is dropped is free again"]
pub struct Slot<S: Signal> {
    /// Until it is given back.
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

    /// Like dropping it, but tells the time, so that no one is served whose deadline has passed. After
    /// a mere drop such a waiter may be served, and hands on what it cannot use.
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
