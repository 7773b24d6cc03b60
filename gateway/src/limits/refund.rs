//! Decides whether a request's charge is given back once the request is over.
//!
//! The charge is given back where nothing was sent to any backend and the caller is not the cause. A caller that gives
//! its request too little time, or sends a request that cannot be served, gets nothing back, because else such requests
//! would not be limited at all.

use crate::rejection::Reason;

/// Facts about the end of a charged request that decide on its refund.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RefundFacts {
    /// Number of attempts at any backend, over all calls and parts.
    pub attempts: u32,
    /// Whether a call ran out of time because the caller set a shorter deadline than the operator or sent its request
    /// slowly.
    pub by_callers_time: bool,
    has_failed: bool,
    has_timed_out: bool,
}

impl RefundFacts {
    /// Records why the request, or a call or part of it, failed, even if something else was answered in its place.
    pub fn fail(&mut self, reason: Reason) {
        self.has_failed |= !is_callers_doing(reason);
        self.has_timed_out |= matches!(reason, Reason::OutOfTime | Reason::BackendTimeout);
    }

    /// Whether a call ran out of time.
    pub const fn has_timed_out(&self) -> bool {
        self.has_timed_out
    }

    /// Whether the request's charge is given back.
    pub const fn is_refunded(&self) -> bool {
        self.attempts == 0 && self.has_failed && !self.by_callers_time
    }
}

/// Whether the reason blames the request or its caller, that is, has a 4xx status.
fn is_callers_doing(reason: Reason) -> bool {
    reason.status().is_client_error()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending(attempts: u32, by_callers_time: bool, failures: &[Reason]) -> RefundFacts {
        let mut ending = RefundFacts {
            attempts,
            by_callers_time,
            ..RefundFacts::default()
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
        // Served by a backend, or without one.
        check(1, false, &[], false);
        check(0, false, &[], false);
        // Refused on the operator's terms before anything was sent.
        check(0, false, &[BreakerOpen], true);
        check(0, false, &[BulkheadFull], true);
        check(0, false, &[OutOfTime], true);
        // One of several calls or parts was sent.
        check(1, false, &[BreakerOpen], false);
        check(3, false, &[BreakerOpen, OutOfTime], false);
        // The caller set a deadline that was over at once, or before the request had its turn.
        check(0, true, &[OutOfTime], false);
        check(0, true, &[BreakerOpen, OutOfTime], false);
        check(1, true, &[OutOfTime], false);
        // The request could not be served.
        check(0, false, &[MalformedRequest], false);
        check(0, false, &[RequestTimeout], false);
        check(0, false, &[MalformedRequest, MalformedRequest], false);
        // One part could not be requested, and another part's backend was not available.
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
