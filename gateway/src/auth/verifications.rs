//! How much work strangers may cause: a token that nobody has seen yet costs a signature check.
//!
//! A flood of forged tokens, each of them new, passes by every memory of verdicts. It meets two budgets instead, the
//! client address's own first: so many checks that failed, and then a share of the workers' time that all addresses
//! have together, half of which is kept for addresses without failures. What is over is put off, never let in.
//! Tokens that are known by then, and API keys, are not asked about here; nor does anyone wait whose token was good under
//! an earlier plan, since a reload forgets all verdicts at once.

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
use crate::limits::account::Terms;
use crate::limits::accounts::Origin;
use crate::limits::owner::Owner;
use crate::observe::{CounterVec, Decision, Verification};

/// Work that may be waiting to be paid for by the share, from addresses without failures; others have half of it.
const BACKLOG: Duration = Duration::from_secs(1);

/// No signature check takes longer. What is measured beyond that is time in which the thread did not run.
const LONGEST: Duration = Duration::from_millis(2);

/// Both budgets, as meant.
pub struct Verifications {
    pub per_address: FailedChecks,
    /// `None` is all the time there is.
    pub share: Option<Share>,
    pub work: Arc<VerificationWork>,
}

/// Checks that may fail, per client address.
#[derive(Clone)]
pub struct FailedChecks {
    pub limit: Arc<Limit>,
    pub terms: Terms,
}

/// What has been done so far, through every reload.
pub struct VerificationWork {
    /// Tokens that were good in every way, by their digest.
    good: Cache<[u8; 32], ()>,
    unpaid: TimeShare,
    spent: AtomicU64,
    outcomes: CounterVec<Verification>,
}

/// Leave for one check.
#[must_use = "its cost has to be told"]
pub(crate) struct VerificationPermit<'a> {
    budget: &'a Verifications,
    client: IpAddr,
    began: Moment,
}

impl Verifications {
    /// Asks for leave to check the token's signature for this client address.
    ///
    /// # Errors
    /// The budget that is used up, and for how long.
    pub(crate) fn begin(&self, token: &str, client: IpAddr) -> Result<VerificationPermit<'_>, Check> {
        if self.work.good.get(&digest_of(token.as_bytes())).is_none() {
            self.ask(client, Now::read())?;
        }
        Ok(VerificationPermit {
            budget: self,
            client,
            began: clock::now(),
        })
    }

    /// Spares a token the question, should it have to be checked again.
    pub(crate) fn remember(&self, token: &str) {
        self.work.good.insert(digest_of(token.as_bytes()), ());
    }

    fn ask(&self, client: IpAddr, now: Now) -> Result<(), Check> {
        let FailedChecks { limit, terms } = &self.per_address;
        let left = limit.table.available(Owner::Address(client), *terms, now);
        if left == 0 {
            self.work.outcomes.add(Verification::AddressOverBudget);
            limit.metrics.decisions.add(Decision::Refused);
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
    /// Tells what came of the check.
    pub(crate) fn end(self, verified: bool) {
        let now = Now::read();
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
        let account = limit
            .table
            .account(Owner::Address(self.client), *terms, Origin::Request);
        account.charge(now, 1);
        limit.metrics.decisions.add(Decision::Admitted);
    }
}

impl VerificationWork {
    /// Remembers at most `capacity` tokens that were good.
    pub fn new(capacity: usize) -> Self {
        Self {
            good: Cache::new(capacity),
            unpaid: TimeShare::default(),
            spent: AtomicU64::new(0),
            outcomes: CounterVec::default(),
        }
    }

    /// Time spent on signature checks.
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
