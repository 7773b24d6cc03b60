//! Whether the charge of a request is given back once the request is over.
//!
//! It is where nothing was sent to any backend, and not by the caller's doing. A caller that gives its request no time,
//! or sends one that cannot be served, has asked all the same: given back, such requests would not be limited at all.

use crate::rejection::Reason;

/// How a charged request has ended, as far as its charge depends on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ending {
    /// Attempts that were begun at any backend, by all calls and parts together.
    pub attempts: u32,
    /// A call had no more time because the caller gave it less than the operator would have, or was slow itself.
    pub by_callers_time: bool,
    has_failed: bool,
}

impl Ending {
    /// Notes why the request, a call of it or a part of it failed, even if something else was answered in its place.
    pub fn fail(&mut self, reason: Reason) {
        self.has_failed |= !is_callers_doing(reason);
    }

    /// Whether what the request was charged is given back.
    pub const fn is_refunded(&self) -> bool {
        self.attempts == 0 && self.has_failed && !self.by_callers_time
    }
}

/// Whether a refusal says that the request, or whoever sent it, could not be served at all.
fn is_callers_doing(reason: Reason) -> bool {
    reason.status().is_client_error()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending(attempts: u32, by_callers_time: bool, failures: &[Reason]) -> Ending {
        let mut ending = Ending {
            attempts,
            by_callers_time,
            ..Ending::default()
        };
        for reason in failures {
            ending.fail(*reason);
        }
        ending
    }

    #[test]
    fn what_was_not_sent_is_given_back_unless_its_caller_kept_it_from_being_sent() {
        use Reason::{BreakerOpen, BulkheadFull, MalformedRequest, OutOfTime, RequestTimeout};
        let check = |attempts, by_callers_time, failures: &[Reason], expected| {
            let ending = ending(attempts, by_callers_time, failures);
            assert_eq!(ending.is_refunded(), expected, "{ending:?} {failures:?}");
        };
        // Served, or served without anyone being asked.
        check(1, false, &[], false);
        check(0, false, &[], false);
        // Kept from the backend by what its operator decided.
        check(0, false, &[BreakerOpen], true);
        check(0, false, &[BulkheadFull], true);
        check(0, false, &[OutOfTime], true);
        // One of several calls or parts was sent.
        check(1, false, &[BreakerOpen], false);
        check(3, false, &[BreakerOpen, OutOfTime], false);
        // The caller gave it no time, or not enough to wait for its turn.
        check(0, true, &[OutOfTime], false);
        check(0, true, &[BreakerOpen, OutOfTime], false);
        check(1, true, &[OutOfTime], false);
        // It asked for what cannot be.
        check(0, false, &[MalformedRequest], false);
        check(0, false, &[RequestTimeout], false);
        check(0, false, &[MalformedRequest, MalformedRequest], false);
        // One part could not be asked for, and another could not be had.
        check(0, false, &[MalformedRequest, BreakerOpen], true);
        check(0, false, &[BreakerOpen, MalformedRequest], true);
    }

    #[test]
    fn every_reason_is_somebodys_doing() {
        for reason in Reason::ALL {
            let is_callers = reason.status().is_client_error();
            assert_eq!(ending(0, false, &[reason]).is_refunded(), !is_callers, "{reason:?}");
            assert!(!ending(0, true, &[reason]).is_refunded() && !ending(1, false, &[reason]).is_refunded());
        }
    }
}
