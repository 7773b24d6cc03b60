//! Counts a request as being in flight until its last byte.
//!
//! Invariant: a request that was counted is discounted exactly once, whether its answer ends, breaks off or never
//! begins.

use std::sync::Arc;

use policies::InFlight;
use smallvec::SmallVec;

use crate::limits::account::Account;

/// The counters of requests in flight that include one request. Dropping the guard leaves them.
#[must_use]
#[derive(Debug, Default)]
pub struct InFlightGuard(SmallVec<[Arc<InFlight>; 1]>);

impl InFlightGuard {
    /// Records that the request has entered, if the account counts requests in flight. The account has been charged
    /// already.
    pub(crate) fn enter(&mut self, account: &Account) {
        if let Account::InFlight(count, _) = account {
            self.0.push(Arc::clone(count));
        }
    }

    /// Enters even if the cap is reached, for a limit that only counts.
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
