//! A thing that comes back by itself, whoever has it and drops it.
//!
//! hyper takes a stream for good. What is lent to it can be had again while nothing is under way, and hyper with its
//! buffers made anew when there is something to do.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) struct Lender<T>(Arc<Mutex<Option<T>>>);

pub(crate) struct Loan<T> {
    thing: Option<T>,
    lender: Lender<T>,
}

impl<T> Lender<T> {
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    pub(crate) fn lend(&self, thing: T) -> Loan<T> {
        Loan {
            thing: Some(thing),
            lender: Self(Arc::clone(&self.0)),
        }
    }

    /// What has come back.
    pub(crate) fn take(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

const LENT: &str = "a loan holds its thing until it is dropped";

impl<T> Deref for Loan<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.thing.as_ref().expect(LENT)
    }
}

impl<T> DerefMut for Loan<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.thing.as_mut().expect(LENT)
    }
}

impl<T> Drop for Loan<T> {
    fn drop(&mut self) {
        *self.lender.0.lock().unwrap_or_else(PoisonError::into_inner) = self.thing.take();
    }
}
