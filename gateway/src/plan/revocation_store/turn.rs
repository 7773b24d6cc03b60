//! One at a time reads or writes the file of revocations, and nobody waits for that without a limit.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

#[derive(Default)]
pub(super) struct FileTurn {
    taken: Mutex<bool>,
    free: Condvar,
}

#[must_use = "the turn ends when this is dropped"]
pub(super) struct HeldTurn<'a>(&'a FileTurn);

impl FileTurn {
    /// `None` if another still has it when the limit is over.
    pub(super) fn take(&self, limit: Duration) -> Option<HeldTurn<'_>> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut taken, _) = self
            .free
            .wait_timeout_while(taken, limit, |taken| *taken)
            .unwrap_or_else(PoisonError::into_inner);
        let free = !std::mem::replace(&mut *taken, true);
        drop(taken);
        // Not `then_some`: a turn that is not ours must not end.
        free.then(|| HeldTurn(self))
    }
}

impl Drop for HeldTurn<'_> {
    fn drop(&mut self) {
        *self.0.taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.0.free.notify_one();
    }
}
