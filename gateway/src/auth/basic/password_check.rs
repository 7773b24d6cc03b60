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
use crate::clock;
use crate::limits::reserved::Reserved;
use crate::rejection::Rejection;

/// A credential that has not been compared yet.
pub struct PasswordCheck {
    /// Cache key of the whole credential.
    pub(super) tag: Tag,
    pub(super) password: Box<[u8]>,
    pub(super) hash: Arc<str>,
    pub(super) highest_cost: u32,
    /// Line of the named user, if it exists, and whether the user is enabled.
    pub(super) user: Option<(Arc<Line>, bool)>,
    pub(super) known: Arc<KnownPasswords>,
    pub(super) checks: Arc<PasswordChecks>,
}

impl PasswordCheck {
    /// Waits until the credential has been compared. The verdict is cached in the
    /// [`Passwords`](super::users::Passwords) that issued this check.
    ///
    /// `reserve` charges the client for a failure before the comparison. If the credential is refused, the charge
    /// stays, even if the caller has left by then. Returns whether this request was charged. Of the requests that share
    /// a comparison, only one is charged.
    ///
    /// # Errors
    /// The error of `reserve`, or [`Rejection::Overloaded`] if too many others wait.
    pub async fn done(
        self,
        client: IpAddr,
        until: Moment,
        reserve: impl FnOnce() -> Result<Option<Reserved>, Rejection>,
    ) -> Result<bool, Rejection> {
        let overloaded = || Rejection::Overloaded {
            retry_after: RETRY_AFTER,
            by: None,
        };
        let checks = Arc::clone(&self.checks);
        let share = checks.enter(self.tag, client).ok_or_else(overloaded)?;
        let (checks, mut charged) = (&checks, false);
        let compare = async {
            let reserved = reserve()?;
            let core = checks.core(client, until).await.ok_or_else(overloaded)?;
            let checks = Arc::clone(checks);
            let compared = tokio::task::spawn_blocking(move || {
                let admits = self.run();
                drop(core);
                if !admits {
                    checks.failed.insert(client, clock::now());
                    return reserved.is_some_and(Reserved::keep);
                }
                false
            });
            // If the comparison panics, the credential has no verdict and is refused.
            charged = compared.await.unwrap_or(false);
            Ok::<_, Rejection>(())
        };
        share.outcome.get_or_try_init(|| compare).await?;
        Ok(charged)
    }

    /// Compares for about a tenth of a second and caches the verdict. Returns whether the user is admitted.
    pub(super) fn run(&self) -> bool {
        if let Some((line, admits)) = &self.user
            && line.is_right(&self.tag)
        {
            // A request from another address has had the same credential compared meanwhile.
            return *admits;
        }
        let fits = bcrypt::verify(&*self.password, &self.hash).unwrap_or(false);
        let right = self.user.as_ref().filter(|_| fits);
        let admits = right.is_some_and(|(_, admits)| *admits);
        if !admits {
            // The verdict must not be visible before it has taken as long as any other.
            for cost in rest_of_the_work(cost(&self.hash).unwrap_or(0), self.highest_cost) {
                let _ = bcrypt::verify(&*self.password, &decoy(cost));
            }
        }
        match right {
            Some((line, _)) => line.note_right(self.tag),
            None => self.known.note_wrong(self.tag),
        }
        admits
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
