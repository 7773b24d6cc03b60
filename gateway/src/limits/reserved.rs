//! A charge that is made before it is known whether it applies.

use std::time::Duration;

use crate::clock::Now;
use crate::limits::{Charge, refusal};
use crate::observe::{Decision, Family};
use crate::rejection::Rejection;

/// Tokens taken from an account. They are given back on drop, unless [`keep`](Self::keep) was called.
#[must_use = "what is dropped is given back"]
pub struct Reserved {
    held: Charge,
    taken_at: Now,
    kept: bool,
}

impl Reserved {
    /// Takes the charge's tokens, without waiting.
    ///
    /// # Errors
    /// The limit's rejection if there are not enough tokens.
    pub fn take(held: Charge, now: Now) -> Result<Self, Rejection> {
        if held.account.take(now, held.cost, Duration::ZERO).is_err() {
            held.limit.metrics.add(Family::LimitDecisions, Decision::Refused);
            return Err(refusal(&[held], 0, Duration::ZERO, now));
        }
        Ok(Self {
            held,
            taken_at: now,
            kept: false,
        })
    }

    /// Keeps the charge, because it applies. Always returns true.
    pub fn keep(mut self) -> bool {
        self.held.limit.metrics.add(Family::LimitDecisions, Decision::Admitted);
        self.kept = true;
        true
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.kept {
            self.held.give_back(Now::read(), self.taken_at, self.held.cost);
        }
    }
}
