//! A request that is under way counts until its last byte.
//!
//! Invariant: who came in leaves exactly once, whether the answer ends, breaks off, or was never begun.

use std::sync::Arc;

use policies::InFlight;
use smallvec::SmallVec;

use crate::limits::account::Account;

/// Where one request is counted as being in flight; dropped when it is over.
#[must_use]
#[derive(Debug, Default)]
pub struct InFlightGuard(SmallVec<[Arc<InFlight>; 1]>);

impl InFlightGuard {
    /// Notes that the request has entered, if the account counts who is in flight.
    pub(crate) fn enter(&mut self, account: &Account) {
        if let Account::InFlight(count, _) = account {
            self.0.push(Arc::clone(count));
        }
    }

    /// Enters past the cap.
    pub(crate) fn enter_anyway(&mut self, account: &Account) {
        if let Account::InFlight(count, _) = account {
            count.enter_anyway();
            self.0.push(Arc::clone(count));
        }
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        for count in &self.0 {
            count.leave();
        }
    }
}
