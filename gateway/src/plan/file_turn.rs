//! Lets one thread at a time read or write a file. Every wait for it has a limit.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

#[derive(Default)]
pub(in crate::plan) struct FileTurn {
    taken: Mutex<bool>,
    free: Condvar,
}

#[must_use = "the turn ends when this is dropped"]
pub(in crate::plan) struct HeldTurn<'a>(&'a FileTurn);

impl FileTurn {
    /// Waits for the turn; `None` if another thread still has it after `limit`.
    pub(in crate::plan) fn take(&self, limit: Duration) -> Option<HeldTurn<'_>> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut taken, _) = self
            .free
            .wait_timeout_while(taken, limit, |taken| *taken)
            .unwrap_or_else(PoisonError::into_inner);
        let free = !std::mem::replace(&mut *taken, true);
        drop(taken);
        // Not `then_some`: it would make and drop a `HeldTurn`, and so end the turn of another thread.
        free.then(|| HeldTurn(self))
    }
}

impl Drop for HeldTurn<'_> {
    fn drop(&mut self) {
        *self.0.taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.0.free.notify_one();
    }
}
