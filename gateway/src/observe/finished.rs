//! Counts a finished request by its record.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::counters::{Counters, RouteMetrics};
use super::families::Family;
use super::labels::{CallerKind, CallerOutcome, Class};
use super::page::Page;
use super::record::RequestRecord;
use super::tenants::TenantMetrics;
use crate::rejection::Reason;
use crate::usage::{Usage, Used};

impl RouteMetrics {
    /// Counts the request. `took` is the time from its head to the last byte of its response.
    pub(super) fn count_request(&self, record: &RequestRecord, took: Duration) {
        self.add(Family::Requests, Class::of(record.status));
        self.duration.observe(took);
        if let Some(reason) = record.reason {
            self.add(Family::Rejections, reason);
        }
        if record.aborted {
            self.add(Family::AbortedResponses, ());
        }
        for kind in &record.fallbacks {
            self.add(Family::Fallbacks, *kind);
        }
        if let Some(result) = record.cache {
            self.add(Family::CacheRequests, result);
        }
        if let Some(result) = record.idempotency {
            self.add(Family::IdempotencyRequests, result);
        }
        if record.complete == Some(false) {
            self.add(Family::PartialResponses, ());
        }
    }
}

impl Counters {
    /// Counts the caller of a request by the result of authentication.
    pub(super) fn count_caller(&self, record: &RequestRecord) {
        let outcome = match record.reason {
            Some(Reason::CredentialsMissing) => CallerOutcome::Missing,
            Some(Reason::CredentialsInvalid) => CallerOutcome::Invalid,
            Some(Reason::CredentialsExpired) => CallerOutcome::Expired,
            Some(Reason::NotAllowed | Reason::TenantDisabled) => CallerOutcome::NotAllowed,
            // The request was rejected before authentication.
            _ if record.caller_kind == CallerKind::Nobody => return,
            _ => CallerOutcome::Admitted,
        };
        self.add(Family::Callers, (record.caller_kind, outcome));
    }
}

impl Counters {
    /// Counts the response of a request, if it was compressed.
    pub(super) fn count_compression(&self, record: &RequestRecord) {
        if let Some(coding) = record.coding {
            self.add(Family::CompressedResponses, coding);
            self.add_all(Family::CompressedFrom, coding, record.bytes_plain);
            self.add_all(Family::CompressedTo, coding, record.bytes_out);
        }
    }
}

impl TenantMetrics {
    pub(crate) fn count(&self, record: &RequestRecord) {
        self.requests.fetch_add(1, Relaxed);
        if let Some(reason) = record.reason {
            self.count_refused(reason);
        }
        match record.reason {
            None | Some(Reason::CallerGone) => {}
            Some(Reason::RateLimited | Reason::QuotaExhausted | Reason::TooManyInFlight) => {
                self.limited.fetch_add(1, Relaxed);
                if let Some(limit) = &record.limit {
                    self.count_limit(limit);
                }
            }
            Some(_) => {
                self.rejected.fetch_add(1, Relaxed);
            }
        }
    }
}

impl RequestRecord {
    /// Returns what the request has used. A token's subject is a person and not a key, so its tenant stands for it.
    pub(super) fn used(&self) -> Used<'_> {
        let has_key = matches!(
            self.caller_kind,
            CallerKind::ApiKey | CallerKind::Basic | CallerKind::Mtls
        );
        Used {
            tenant: self.tenant.as_ref().map(|tenant| &tenant.name),
            route: self.route.as_ref().map(|route| &route.name),
            key: self.caller.as_ref().filter(|_| has_key),
            status: self.status,
            reason: self.reason,
            cost: u64::from(self.cost),
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
        }
    }
}

/// Adds the metrics of usage to the page, if it is on.
pub(super) fn put_usage(usage: &Usage, page: &mut Page) {
    if !usage.is_on() {
        return;
    }
    let ledger = usage.ledger();
    page.put(Family::UsageRecords, &[], ledger.records());
    page.put(Family::UsageWaiting, &[], ledger.waiting_count());
    page.put(Family::UsageDelivered, &[], ledger.delivered());
    page.put(Family::UsageDropped, &[], ledger.dropped());
}
