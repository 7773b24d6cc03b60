//! Limits the signature checks that unknown tokens cause.
//!
//! A flood of different forged tokens bypasses every cache of verdicts. Two budgets bound its cost: first a number of
//! failed checks per client address, then a share of the workers' time for all addresses together. Half of the share's
//! backlog is reserved for addresses without failures. Invariant: if a budget is used up, the request is refused with
//! the time of a retry, never admitted.
//!
//! API keys and tokens with a cached verdict do not use the budgets. A token that was valid under an earlier plan does
//! not wait either, because a reload discards all verdicts at once.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use policies::{Moment, Share, TimeShare};
use quick_cache::sync::Cache;

use crate::auth::api_key::keys::digest_of;
use crate::auth::check::Check;
use crate::clock::{self, Now};
use crate::limits::Limit;
use crate::limits::kinds::Terms;
use crate::limits::owner::Owner;
use crate::limits::store::Origin;
use crate::observe::{CounterVec, Decision, Family, Verification};

/// Unpaid work that the share allows for addresses without failures. Other addresses may use half of it.
const BACKLOG: Duration = Duration::from_secs(1);

/// Longest time that one signature check counts for. In a longer measurement, the thread did not run all the time.
const LONGEST: Duration = Duration::from_millis(2);

/// Both budgets in compiled form.
pub struct Verifications {
    pub per_address: FailedChecks,
    /// Share of the workers' time. `None` is unlimited.
    pub share: Option<Share>,
    pub work: Arc<VerificationWork>,
}

/// Number of failed checks that each client address may cause.
#[derive(Clone)]
pub struct FailedChecks {
    pub limit: Arc<Limit>,
    pub terms: Terms,
}

/// Record of past checks. It outlives reloads.
pub struct VerificationWork {
    /// Digests of tokens that have been fully valid.
    good: Cache<[u8; 32], ()>,
    unpaid: TimeShare,
    spent: AtomicU64,
    outcomes: CounterVec<Verification>,
}

/// Permission for one signature check.
#[must_use = "its cost has to be told"]
pub(crate) struct VerificationPermit<'a> {
    budget: &'a Verifications,
    client: IpAddr,
    began: Moment,
}

impl Verifications {
    /// Grants a check of the token's signature for this client address, within the budgets.
    ///
    /// # Errors
    /// The exhausted budget, with the time until the next try.
    pub(crate) fn begin(&self, token: &str, client: IpAddr) -> Result<VerificationPermit<'_>, Check> {
        if self.work.good.get(&digest_of(token.as_bytes())).is_none() {
            self.ask(client, Now::read())?;
        }
        Ok(VerificationPermit {
            budget: self,
            client,
            began: clock::read_anew(),
        })
    }

    /// Exempts a valid token from the budgets if its signature has to be checked again.
    pub(crate) fn remember(&self, token: &str) {
        self.work.good.insert(digest_of(token.as_bytes()), ());
    }

    fn ask(&self, client: IpAddr, now: Now) -> Result<(), Check> {
        let FailedChecks { limit, terms } = &self.per_address;
        let left = limit.table.available(Owner::Address(client), *terms, now);
        if left == 0 {
            self.work.outcomes.add(Verification::AddressOverBudget);
            limit.metrics.add(Family::LimitDecisions, Decision::Refused);
            let account = limit.table.account(Owner::Address(client), *terms, Origin::Request);
            return Err(Check::AddressOverBudget {
                retry_after: account.wait_for(now, 1),
            });
        }
        let backlog = if left < terms.most() { BACKLOG / 2 } else { BACKLOG };
        if self.share.is_some()
            && let Err(retry_after) = self.work.unpaid.begin(now.moment, backlog)
        {
            self.work.outcomes.add(Verification::OverBudget);
            return Err(Check::OverBudget { retry_after });
        }
        Ok(())
    }
}

impl VerificationPermit<'_> {
    /// Charges the check's time to the share, and a failed check to the client address.
    pub(crate) fn end(self, verified: bool) {
        let now = Now::at(clock::read_anew());
        let Verifications {
            per_address,
            share,
            work,
        } = self.budget;
        let took = now.moment.since(self.began).min(LONGEST);
        work.spent.fetch_add(took.as_nanos() as u64, Relaxed);
        if let Some(share) = share {
            work.unpaid.spend(*share, now.moment, took);
        }
        if verified {
            work.outcomes.add(Verification::Verified);
            return;
        }
        work.outcomes.add(Verification::Failed);
        let FailedChecks { limit, terms } = per_address;
        limit.charge_at_once(Owner::Address(self.client), *terms, now, 1);
        limit.metrics.add(Family::LimitDecisions, Decision::Admitted);
    }
}

impl VerificationWork {
    /// Remembers at most `capacity` valid tokens.
    pub fn new(capacity: usize) -> Self {
        Self {
            good: Cache::new(capacity),
            unpaid: TimeShare::default(),
            spent: AtomicU64::new(0),
            outcomes: CounterVec::default(),
        }
    }

    /// Total time spent on signature checks.
    pub fn spent(&self) -> Duration {
        Duration::from_nanos(self.spent.load(Relaxed))
    }

    pub fn outcomes(&self) -> impl Iterator<Item = (Verification, u64)> {
        self.outcomes.iter()
    }

    #[cfg(test)]
    pub(crate) fn add_for_test(&self, share: Share, work: Duration) {
        self.unpaid.spend(share, clock::now(), work);
    }
}
