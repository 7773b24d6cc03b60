//! Keeps the latest rejections in detail, so that a rejected request can be explained without a search in the logs.
//!
//! Invariant: during a flood, a rejection that is not kept costs one relaxed load. Only the first few per reason and
//! second are kept, so a flood of one reason does not push out the others. If the list is locked, the
//! request does not wait and its rejection is not kept.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use http::Method;
use policies::Moment;
use serde::Serialize;

use super::attempt_line;
use super::attempts::Attempt;
use super::decided::{Decided, SettingPlace};
use super::labels::Label;
use super::record::{RequestRecord, Text};
use super::timestamp::Timestamp;
use crate::rejection::Reason;

/// Maximum number of rejections in the list.
const CAPACITY: usize = 1000;
/// Maximum number of rejections kept per reason and second.
const PER_SECOND: u64 = 20;
/// Maximum number of attempts shown for a rejection.
const ATTEMPTS: usize = 16;

/// One rejection, as `/api/v1/rejections` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct Recent {
    pub time: Timestamp,
    #[serde(serialize_with = "reason_word")]
    pub reason: Reason,
    pub status: u16,
    #[serde(serialize_with = "method_word")]
    pub method: Method,
    /// Path without the query, which may hold secrets.
    pub path: Text,
    /// Client address, for the link to the explanation.
    #[serde(skip)]
    pub client: Option<IpAddr>,
    pub route: Option<Arc<str>>,
    pub tenant: Option<Arc<str>>,
    pub tier: Option<Arc<str>>,
    /// The limit that rejected the request.
    pub limit: Option<Arc<str>>,
    /// The backend that was called; absent for an aggregate.
    pub backend: Option<Arc<str>>,
    pub request_id: Text,
    /// The internal fault, if any.
    pub detail: Option<Cow<'static, str>>,
    /// The setting that led to the rejection; `null` if no setting would change the response.
    pub decided_by: Option<SettingPlace>,
    /// Backends that were asked, when, and with what result; at most `ATTEMPTS`.
    #[serde(serialize_with = "attempt_list")]
    pub attempt_details: RecentAttempts,
    /// Number of attempts that are not shown.
    pub attempts_left_out: u32,
}

/// Attempts of a rejected request, and the start of the request.
pub type RecentAttempts = (Moment, Box<[Attempt]>);

#[derive(Debug)]
pub struct Rejections {
    ring: Mutex<VecDeque<Recent>>,
    /// One gate per reason: the second of the last kept rejection in the upper 32 bits, and how many were kept in it in
    /// the lower 32.
    gates: [AtomicU64; Reason::ALL.len()],
}

impl Default for Rejections {
    fn default() -> Self {
        Self {
            ring: Mutex::default(),
            gates: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl Rejections {
    /// Keeps the rejection of `record`, if there is one and its reason has room in this second. A caller that left was
    /// not rejected.
    #[inline]
    pub(super) fn note(&self, record: &RequestRecord) {
        if let Some(reason) = record.reason
            && reason != Reason::CallerGone
            && self.admits(reason, record.at.0.as_secs())
        {
            self.keep(reason, record);
        }
    }

    /// Returns at most `most` rejections, the newest first.
    pub fn newest(&self, most: usize) -> Vec<Recent> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.iter().rev().take(most).cloned().collect()
    }

    fn admits(&self, reason: Reason, second: u64) -> bool {
        let (gate, second) = (&self.gates[reason.index()], second << 32);
        let seen = gate.load(Relaxed);
        let kept = if seen >> 32 == second >> 32 {
            seen & 0xffff_ffff
        } else {
            0
        };
        // A lost race drops one rejection of many, which is acceptable.
        kept < PER_SECOND
            && gate
                .compare_exchange(seen, second | (kept + 1), Relaxed, Relaxed)
                .is_ok()
    }

    #[cold]
    fn keep(&self, reason: Reason, record: &RequestRecord) {
        let attempts: Box<[_]> = record.attempts.iter().take(ATTEMPTS).cloned().collect();
        let not_shown = record.attempts.iter().count() - attempts.len();
        let recent = Recent {
            time: record.at,
            reason,
            status: record.status,
            method: record.method.clone(),
            path: record.path.clone(),
            client: record.client,
            route: record.route.as_ref().map(|route| Arc::clone(&route.name)),
            tenant: record.tenant.as_ref().map(|tenant| Arc::clone(&tenant.name)),
            tier: record.tier.clone(),
            limit: record.limit.clone(),
            backend: record.backend.clone(),
            request_id: record.request_id.clone(),
            detail: record.fault().map(|fault| Cow::Owned(fault.to_owned())),
            decided_by: record.decided.as_deref().and_then(Decided::place),
            attempt_details: (record.started, attempts),
            attempts_left_out: record.attempts.left_out() + not_shown as u32,
        };
        let mut ring = match self.ring.try_lock() {
            Ok(ring) => ring,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if ring.len() == CAPACITY {
            ring.pop_front();
        }
        ring.push_back(recent);
    }
}

fn reason_word<S: serde::Serializer>(reason: &Reason, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(reason.as_str())
}

fn attempt_list<S: serde::Serializer>(attempts: &RecentAttempts, serializer: S) -> Result<S::Ok, S::Error> {
    attempt_line::list(attempts.1.iter(), attempts.0, serializer)
}

fn method_word<S: serde::Serializer>(method: &Method, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(method.as_str())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::observe::tenants::Tenants;

    #[test]
    fn a_refusal_is_shown_newest_first() {
        let rejections = Rejections::default();
        rejections.note(&refusal(1, "one", Reason::NoRoute));
        let mut second = refusal(2, "two", Reason::BackendBroken);
        second.tenant = Some(Tenants::default().find_or_add("acme", "free"));
        second.backend = Some("users".into());
        second.note_fault("reset by peer");
        let began = Moment::from_nanos(1_000_000);
        second.attempts.begin(&"users".into(), 1, began);
        second.attempts.refuse(began, Reason::BreakerOpen);
        rejections.note(&second);
        let mut answered = RequestRecord::default();
        answered.status = 500;
        rejections.note(&answered);
        rejections.note(&refusal(3, "three", Reason::CallerGone));
        assert_eq!(
            serde_json::to_value(rejections.newest(10)).unwrap(),
            json!([
                { "time": "1970-01-01T00:00:02.000Z", "reason": "backend_broken", "status": 502, "method": "GET",
                  "path": "/", "route": null, "tenant": "acme", "tier": null, "limit": null, "backend": "users",
                  "request_id": "two", "detail": "reset by peer", "decided_by": null, "attempts_left_out": 0, "attempt_details": [
                      { "backend": "users", "outcome": "refused", "reason": "breaker_open", "start_ms": 1.0, "took_ms": 0.0 },
                  ] },
                { "time": "1970-01-01T00:00:01.000Z", "reason": "no_route", "status": 404, "method": "GET",
                  "path": "/", "route": null, "tenant": null, "tier": null, "limit": null, "backend": null,
                  "request_id": "one", "detail": null, "decided_by": null, "attempts_left_out": 0, "attempt_details": [] },
            ])
        );
        assert_eq!(rejections.newest(1).len(), 1);
    }

    #[test]
    fn a_flood_of_one_reason_leaves_room_for_others() {
        let rejections = Rejections::default();
        for number in 0..10_000 {
            rejections.note(&refusal(7, &number.to_string(), Reason::RateLimited));
        }
        rejections.note(&refusal(7, "rare", Reason::BreakerOpen));
        let newest = rejections.newest(CAPACITY);
        assert_eq!(newest.len() as u64, PER_SECOND + 1);
        assert_eq!(newest[0].reason, Reason::BreakerOpen);
    }

    #[test]
    fn the_ring_is_bounded_and_the_oldest_go() {
        let rejections = Rejections::default();
        for second in 0..2 * CAPACITY as u64 {
            rejections.note(&refusal(second, &second.to_string(), Reason::NoRoute));
        }
        let newest = rejections.newest(usize::MAX);
        assert_eq!(newest.len(), CAPACITY);
        assert_eq!(newest[CAPACITY - 1].request_id.as_str(), CAPACITY.to_string());
    }

    #[test]
    fn a_clock_that_steps_back_only_opens_the_gate_anew() {
        let rejections = Rejections::default();
        for second in [9, 8, 9] {
            rejections.note(&refusal(second, "id", Reason::NoRoute));
        }
        assert_eq!(rejections.newest(10).len(), 3);
    }

    #[test]
    fn whoever_finds_the_ring_busy_goes_on() {
        let rejections = Rejections::default();
        let busy = rejections.ring.lock().unwrap();
        rejections.note(&refusal(1, "id", Reason::NoRoute));
        drop(busy);
        assert!(rejections.newest(10).is_empty());
    }

    fn refusal(second: u64, id: &str, reason: Reason) -> RequestRecord {
        let mut record = RequestRecord::begin(Moment::ZERO, Duration::from_secs(second), id, Method::GET, "/");
        record.refused(reason);
        record
    }
}
