//! One comparison of a password with a hash, which a request waits for.
//!
//! Invariant: every comparison that fails takes the work of the most expensive hash, and its verdict is visible only
//! then.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use policies::Moment;

use crate::auth::basic::checks::{PasswordChecks, RETRY_AFTER};
use crate::auth::basic::password_cache::{KnownPasswords, Line, Tag};
use crate::auth::basic::password_hash::{cost, decoy};
use crate::clock::{self, Now};
use crate::limits::Charge;
use crate::limits::reserved::Reserved;
use crate::rejection::Rejection;
use crate::setting::SettingId;

/// A credential that has not been compared yet.
pub struct PasswordCheck {
    /// Cache key of the whole credential.
    pub(super) tag: Tag,
    pub(super) password: Box<[u8]>,
    pub(super) hash: Arc<str>,
    pub(super) highest_cost: u32,
    /// The named user, if it exists.
    pub(super) user: Option<NamedUser>,
    pub(super) known: Arc<KnownPasswords>,
    pub(super) checks: Arc<PasswordChecks>,
}

/// The user that a credential names.
pub(super) struct NamedUser {
    /// Index in the table of users.
    pub(super) row: usize,
    pub(super) line: Arc<Line>,
    pub(super) is_enabled: bool,
}

/// Outcome of a comparison, as one of the requests that waited for it sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compared {
    /// Whether the password is that of the named user; `None` if the comparison was broken off.
    pub is_right: Option<bool>,
    /// Whether this request was charged for a failure. Of the requests that share a comparison, only one is charged.
    pub is_charged: bool,
}

impl PasswordCheck {
    /// Index of the named user in the table of users, if the user exists.
    pub(crate) fn row(&self) -> Option<usize> {
        self.user.as_ref().map(|user| user.row)
    }

    /// Compares the credential and returns the verdict, which is also cached for later requests.
    ///
    /// `failure` is charged before the comparison. If the credential is refused, the charge stays, even if the caller
    /// has left by then; else it is given back.
    ///
    /// # Errors
    /// The rejection of the limit that refuses `failure`; [`Rejection::Overloaded`] if too many others wait;
    /// [`Rejection::OutOfTime`] if the verdict does not come by `until`.
    pub async fn compare(
        self,
        client: IpAddr,
        until: Moment,
        failure: impl FnOnce() -> Option<Charge>,
    ) -> Result<Compared, Rejection> {
        let compared = self.compare_once(client, until, failure);
        tokio::time::timeout_at(clock::instant(until), compared)
            .await
            .unwrap_or(Err(Rejection::OutOfTime(Some(SettingId::REQUEST_TIME))))
    }

    async fn compare_once(
        self,
        client: IpAddr,
        until: Moment,
        failure: impl FnOnce() -> Option<Charge>,
    ) -> Result<Compared, Rejection> {
        let overloaded = || Rejection::Overloaded {
            retry_after: RETRY_AFTER,
            by: None,
        };
        let checks = Arc::clone(&self.checks);
        let share = checks.enter(self.tag, client).ok_or_else(overloaded)?;
        let (checks, mut is_charged) = (&checks, false);
        let compare = async {
            let reserved = failure()
                .map(|charge| Reserved::take(charge, Now::read()))
                .transpose()?;
            let core = checks.core(client, until).await.ok_or_else(overloaded)?;
            let checks = Arc::clone(checks);
            let compared = tokio::task::spawn_blocking(move || {
                let is_right = self.run();
                drop(core);
                if self.admits(is_right) {
                    return (is_right, false);
                }
                checks.failed.insert(client, clock::now());
                (is_right, reserved.is_some_and(Reserved::keep))
            });
            // If the comparison panics, the credential has no verdict and is refused.
            let (is_right, is_kept) = compared.await.ok().unzip();
            is_charged = is_kept.unwrap_or(false);
            Ok::<_, Rejection>(is_right)
        };
        let is_right = *share.outcome.get_or_try_init(|| compare).await?;
        Ok(Compared { is_right, is_charged })
    }

    /// Compares for about a tenth of a second and caches the verdict. Returns whether the password is the named user's.
    pub(super) fn run(&self) -> bool {
        if let Some(user) = &self.user
            && user.line.is_right(&self.tag)
        {
            // A request from another address has had the same credential compared meanwhile.
            return true;
        }
        let fits = bcrypt::verify(&*self.password, &self.hash).unwrap_or(false);
        let right = self.user.as_ref().filter(|_| fits);
        if !self.admits(right.is_some()) {
            // The verdict must not be visible before it has taken as long as any other.
            for cost in rest_of_the_work(cost(&self.hash).unwrap_or(0), self.highest_cost) {
                let _ = bcrypt::verify(&*self.password, &decoy(cost));
            }
        }
        match right {
            Some(user) => user.line.note_right(self.tag),
            None => self.known.note_wrong(self.tag),
        }
        right.is_some()
    }

    fn admits(&self, is_right: bool) -> bool {
        is_right && self.user.as_ref().is_some_and(|user| user.is_enabled)
    }
}

/// Costs of the comparisons whose work, added to one of cost `done`, equals one of cost `highest_cost`.
pub(super) fn rest_of_the_work(done: u32, highest_cost: u32) -> Range<u32> {
    // 2^done + (2^done + 2^(done + 1) + ... + 2^(dearest - 1)) = 2^dearest
    done..highest_cost
}

impl std::fmt::Debug for PasswordCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PasswordCheck").finish_non_exhaustive()
    }
}
