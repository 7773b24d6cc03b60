//! A value that returns to its lender when the borrower drops it.
//!
//! hyper takes ownership of a stream. A lent stream can be taken back by dropping hyper while no request is under way.
//! hyper and its buffers are then made again for the next request.

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

    /// Returns the value if it has come back.
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
