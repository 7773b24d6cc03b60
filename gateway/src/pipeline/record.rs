//! Writes the record of a request: from the decision, from the facts of its calls, and from a rejection.

use std::sync::Arc;

use super::decision::{Budget, Findings};
use super::exchange::Exchange;
use crate::auth::caller::Kind;
use crate::call::Facts;
use crate::limits::Receipt;
use crate::observe::{CallerKind, Decided};
use crate::plan::Route;
use crate::rejection::Rejection;
use crate::setting::SettingId;

impl Exchange<'_> {
    /// Writes what is known of the request: client, route and caller.
    pub(super) fn note_findings(&mut self, found: &Findings<'_>) {
        let record = &mut self.record;
        record.client = Some(found.client.ip);
        if let Some(route) = found.route {
            record.route = Some(Arc::clone(&route.metrics));
        }
        if let Some(principal) = &found.principal {
            record.tenant = Some(Arc::clone(&principal.metrics));
            record.tier = Some(Arc::clone(&principal.tier.name));
            record.unknown_tier.clone_from(&principal.unknown_tier);
            record.caller = Some(Arc::clone(&principal.caller.id));
            record.caller_kind = caller_kind(&principal.caller.kind);
        }
        if let Some(check) = found.failed_check {
            record.note_fault(check);
        }
    }

    /// Keeps the receipt, and writes the time limit of the request.
    pub(super) fn note_charge(&mut self, receipt: Receipt, route: &Route, budget: Budget) {
        self.receipt = Some(receipt);
        self.tells_limits = route.edge.added.ratelimit;
        self.record.budget = Some(budget.limit);
    }

    /// Copies the facts of all calls into the record and the state of the charge.
    pub(super) fn note_calls(&mut self, facts: Facts) {
        self.refund.attempts = facts.attempts;
        self.refund.by_callers_time |= facts.by_callers_time;
        self.stated_cost = facts.cost;
        if self.measured.is_none() {
            self.record.bytes_in = facts.bytes_in;
        }
        if let Some(detail) = facts.detail {
            self.record.note_fault(detail);
        }
    }

    /// Writes the reason of a rejection, and the setting that decided.
    pub(super) fn note_refusal(&mut self, rejection: &Rejection) {
        self.record.refused(rejection.reason());
        if let Some(violation) = rejection.violation() {
            self.record.limit = violation.limits.first().cloned();
        }
        self.record.decided = self.decided_by(rejection.setting());
    }

    /// Returns the setting that led to the result, located in the config of this request.
    pub(super) fn decided_by(&self, setting: Option<SettingId>) -> Option<Box<Decided>> {
        let settings = Arc::clone(&self.plan.settings);
        setting.map(|setting| Box::new(Decided { setting, settings }))
    }
}

const fn caller_kind(kind: &Kind) -> CallerKind {
    match kind {
        Kind::ApiKey => CallerKind::ApiKey,
        Kind::Jwt(_) => CallerKind::Jwt,
        Kind::Mtls => CallerKind::Mtls,
        Kind::Basic => CallerKind::Basic,
        Kind::External => CallerKind::External,
        Kind::Anonymous => CallerKind::Anonymous,
    }
}
