//! What the gateway has recorded of each request on virtual time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::observe::{Decided, RequestRecord, SettingPlace};
use crate::rejection::Reason;

/// Begin of the request ids on virtual time; a number follows.
pub(super) const ID: &str = "virtual-";

/// The record of one request, as far as a test looks at it.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub reason: Option<Reason>,
    /// The strictest of the limits that refused.
    pub limit: Option<Arc<str>>,
    /// Setting that refused, with its place.
    pub decided: Option<SettingPlace>,
    pub route: Option<Arc<str>>,
    pub tenant: Option<Arc<str>>,
    pub tier: Option<Arc<str>>,
    pub attempts: Vec<SeenAttempt>,
    /// Time from the head of the request to the last byte of its answer.
    pub took: Duration,
    pub complete: Option<bool>,
    /// Whether the answer broke off.
    pub aborted: bool,
    /// Internal fault, for people.
    pub fault: Option<String>,
}

/// One attempt, or a call for which none was made.
#[derive(Debug, Clone)]
pub struct SeenAttempt {
    pub backend: Arc<str>,
    /// URL of the endpoint; `None` if none was asked.
    pub endpoint: Option<Arc<str>>,
    /// Word of the refusal.
    pub reason: Option<&'static str>,
}

/// Records of finished requests, by number.
#[derive(Debug, Default)]
pub(super) struct SeenRequests(Mutex<HashMap<u64, Seen>>);

impl SeenRequests {
    pub(super) fn note(&self, record: &RequestRecord) {
        let id = record.request_id.as_str().strip_prefix(ID);
        let Some(number) = id.and_then(|number| number.parse().ok()) else {
            return;
        };
        let attempts = record.attempts.iter().map(|attempt| SeenAttempt {
            backend: Arc::clone(&attempt.backend),
            endpoint: attempt.endpoint.clone(),
            reason: attempt.reason,
        });
        let seen = Seen {
            reason: record.reason,
            limit: record.limit.clone(),
            decided: record.decided.as_deref().and_then(Decided::place),
            route: record.route.as_ref().map(|route| Arc::clone(&route.name)),
            tenant: record.tenant.as_ref().map(|tenant| Arc::clone(&tenant.name)),
            tier: record.tier.clone(),
            attempts: attempts.collect(),
            took: record.used,
            complete: record.complete,
            aborted: record.aborted,
            fault: record.fault().map(str::to_owned),
        };
        self.lock().insert(number, seen);
    }

    /// Removes and returns a record.
    pub(super) fn take(&self, number: u64) -> Option<Seen> {
        self.lock().remove(&number)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
