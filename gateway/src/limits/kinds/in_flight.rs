//! A limit on the number of an owner's requests at once, from their admission to their last byte.
//!
//! Invariant: a request that was counted is discounted exactly once, whether its answer ends, breaks off or never
//! begins.

use std::sync::Arc;
use std::time::Duration;

use policies::InFlight;
use smallvec::SmallVec;

use super::{Account, LimitCounter, NewAccount, SavedCount, Taken};
use crate::clock::Now;
use crate::rejection::{Rejection, Violation};

/// Wait that is told where the cap refuses. It is a guess, because nothing says when another request ends.
const COME_BACK: Duration = Duration::from_secs(1);

/// The terms are the number of requests at once.
impl LimitCounter for InFlight {
    type Terms = u32;

    const WORD: &'static str = "in_flight";
    /// The number would be out of date when it is read.
    const IS_TOLD: bool = false;
    const COUNTS_TOKENS: bool = false;
    /// Requests under way under another kind have no guard that would leave again.
    const CARRIES_OVER: bool = false;

    fn new(_: &NewAccount<'_>) -> Arc<Self> {
        Arc::new(Self::new())
    }

    fn most(cap: &u32) -> u64 {
        (*cap).into()
    }

    fn period(_: &u32) -> Option<Duration> {
        None
    }

    fn rejection(violation: Box<Violation>) -> Rejection {
        Rejection::TooManyInFlight(violation)
    }

    /// Enters, whatever the cost.
    fn take(&self, cap: &u32, _: Now, _cost: u64, _longest: Duration) -> Result<Duration, Duration> {
        self.enter(*cap).map(|_| Duration::ZERO).map_err(|_| COME_BACK)
    }

    /// Does nothing: requests are counted, not tokens.
    fn charge(&self, _: &u32, _: Now, _cost: u64) {}

    /// Does nothing: the guard leaves.
    fn refund(&self, _: &u32, _: &u32, _: Now, _: Taken) {}

    fn balance(&self, cap: &u32, _: Now) -> u64 {
        cap.saturating_sub(self.count()).into()
    }

    fn taken(&self, _: &u32, _: Now) -> u64 {
        0
    }

    fn wait_for(&self, cap: &u32, _: Now, _cost: u64) -> Duration {
        if self.count() < *cap { Duration::ZERO } else { COME_BACK }
    }

    fn reset_in(&self, _: &u32, _: Now, _remaining: u64) -> Duration {
        COME_BACK
    }

    fn is_idle(&self, _: &u32, _: Now) -> bool {
        self.count() == 0
    }

    /// Returns `None`: the other process learns each time how many requests are under way here.
    fn saved(&self) -> Option<SavedCount> {
        None
    }

    fn restore(&self, _: &u32, _: Now, _: &SavedCount) -> bool {
        false
    }

    fn add(&self, _: &u32, _: Taken) {}
}

impl Account {
    /// Returns the counter of the owner's requests in flight; `None` for other kinds.
    pub(in crate::limits) fn in_flight(&self) -> Option<&Arc<InFlight>> {
        match self {
            Self::InFlight(count, _) => Some(count),
            Self::LeasedSlots(slots, _) => Some(slots.count()),
            _ => None,
        }
    }
}

/// The counters of requests in flight that include one request. Dropping the guard leaves them.
#[must_use]
#[derive(Debug, Default)]
pub struct InFlightGuard(SmallVec<[Arc<InFlight>; 1]>);

impl InFlightGuard {
    /// Records that the request has entered, if the account counts requests in flight. The account has been charged
    /// already.
    pub(crate) fn enter(&mut self, account: &Account) {
        if let Some(count) = account.in_flight() {
            self.0.push(Arc::clone(count));
        }
    }

    /// Enters even if the cap is reached, for a limit that only counts.
    pub(crate) fn enter_anyway(&mut self, account: &Account) {
        if let Some(count) = account.in_flight() {
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
