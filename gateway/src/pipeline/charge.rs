//! Charges a request to its limits, waits for tokens that were taken in advance, and corrects the charge at the end.

use std::time::Duration;

use crate::message::Response;

use super::decision::{AuthorizedRequest, Decision};
use super::exchange::Exchange;
use crate::clock::{self, Now};
use crate::limits::{self, Receipt, Unfinished};
use crate::plan::Plan;
use crate::rejection::Rejection;
use crate::response::Content;

/// Takes the charges of a decision, at the time of this call: after a slow authentication, a quota is charged to the
/// period that has begun meanwhile. Ready at once, unless the store has to be asked for tokens that replicas share.
///
/// # Errors
/// A 429 with the limits that refused. It takes precedence over the decision's own rejection.
pub(super) async fn charge(plan: &Plan, decision: &mut Decision<'_>) -> Result<Receipt, Rejection> {
    let now = Now::read();
    let longest_wait = match &decision.outcome {
        Ok(request) => longest_wait(plan, request, now),
        Err(_) => Duration::ZERO,
    };
    match limits::begin(std::mem::take(&mut decision.charges), now, longest_wait) {
        Ok(receipt) => Ok(receipt),
        Err(Unfinished::Refused(rejection)) => Err(rejection),
        Err(Unfinished::Short(taking)) => {
            let deadline = now.moment + longest_wait;
            // Apart from the request's future, which would else be larger for all.
            Box::pin(taking.finish(deadline)).await
        }
    }
}

/// Returns the longest time for which a request may wait for tokens.
pub(super) fn longest_wait(plan: &Plan, request: &AuthorizedRequest<'_>, now: Now) -> Duration {
    let left = request.budget.deadline.remaining(now.moment);
    left.saturating_sub(plan.time.minimum)
}

impl Exchange<'_> {
    /// Waits until the tokens that were charged in advance are there.
    pub(super) async fn wait_for_tokens(&mut self) {
        let Some(receipt) = self.receipt.as_ref().filter(|receipt| !receipt.delay.is_zero()) else {
            return;
        };
        let until = receipt.tokens_are_there_at();
        self.record.delayed = receipt.delay;
        clock::wait_until(until).await;
    }

    /// Refunds the charge if none is owed, or corrects it to the cost that the backends stated. `own` is the route's
    /// cost. Called once per request, after the last call has ended.
    pub(super) fn settle(&mut self, answered: &Result<Response<Content>, Rejection>, own: u64) {
        if let Err(rejection) = answered {
            self.refund.fail(rejection.reason());
        }
        if self.stated_cost.is_partly_unreadable() {
            self.record
                .note_fault("a backend's cost is not a number: the route's own holds");
        }
        let stated = self.stated_cost.total(own);
        let is_refunded = self.refund.is_refunded();
        if self.measured.is_some() {
            self.settle_reserved(answered);
            if let (true, Some(receipt)) = (is_refunded, &self.receipt) {
                receipt.refund(Now::read());
            }
            return;
        }
        let cost = if is_refunded { 0 } else { stated.unwrap_or(own) };
        self.record.cost = u32::try_from(cost).unwrap_or(u32::MAX);
        let Some(receipt) = &mut self.receipt else { return };
        if is_refunded {
            receipt.refund(Now::read());
        } else if let Some(cost) = stated {
            receipt.settle(Now::read(), cost);
        }
    }

    /// Tells the caller in the response what its limits have left.
    pub(super) fn with_limits_told(&self, mut response: Response<Content>) -> Response<Content> {
        if let (Some(receipt), true) = (&self.receipt, self.tells_limits) {
            let now = Now::read();
            receipt.tell(response.headers_mut(), now);
            if self.plan.edge.legacy_limit_fields {
                receipt.tell_legacy(response.headers_mut(), now);
            }
        }
        response
    }
}
