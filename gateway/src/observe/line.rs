//! A line of the access log: the decision on a request and its reasons.
//!
//! The log's own thread builds it from the record, never a worker. Fields that do not apply are left out, so a missing
//! field means "no" and not "unknown".

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::ops::Not;

use serde::{Serialize, Serializer};

use super::attempt_line;
use super::labels::CallerKind;
use super::record::RequestRecord;
use super::timestamp::{Timestamp, millis};

#[derive(Serialize)]
pub(super) struct Line<'a> {
    time: Timestamp,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<IpAddr>,
    #[serde(skip_serializing_if = "str::is_empty")]
    protocol: &'static str,
    method: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown_tier: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc_status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<&'a str>,
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    budget_ms: Option<f64>,
    used_ms: f64,
    queue_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_byte_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reserved: Option<NonZeroU32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_by: Option<&'static str>,
    bytes_in: u64,
    bytes_out: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    coding: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_plain: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    complete: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fallback: Option<&'static str>,
    #[serde(skip_serializing_if = "Not::not")]
    aborted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt_details: Option<AttemptDetails<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    attempts_left_out: u32,
}

/// Attempts of a request in JSON.
struct AttemptDetails<'a>(&'a RequestRecord);

impl Serialize for AttemptDetails<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        attempt_line::list(self.0.attempts.iter(), self.0.started, serializer)
    }
}

impl<'a> Line<'a> {
    pub(super) fn of(record: &'a RequestRecord) -> Self {
        let connecting = record.attempts.connecting();
        let is_attempted = record.attempts.iter().next().is_some();
        Self {
            time: record.at,
            request_id: record.request_id.as_str(),
            trace_id: record.trace.map(|trace| trace.to_string()),
            client: record.client,
            protocol: record.protocol(),
            method: record.method.as_str(),
            path: record.path.as_str(),
            route: record.route.as_ref().map(|route| &*route.name),
            tenant: record.tenant.as_ref().map(|tenant| &*tenant.name),
            tier: record.tier.as_deref(),
            unknown_tier: record.unknown_tier.as_ref().map(|tier| &*tier.name),
            caller: record.caller.as_deref(),
            kind: (record.caller_kind != CallerKind::Nobody).then(|| record.caller_kind.as_str()),
            status: record.status,
            grpc_status: record.grpc_status,
            reason: record.reason.map(|reason| reason.as_str()),
            limit: record.limit.as_deref(),
            delay_ms: (!record.delayed.is_zero()).then(|| millis(record.delayed)),
            backend: record.backend.as_deref(),
            attempts: record.attempts.count(),
            budget_ms: record.budget.map(millis),
            used_ms: millis(record.used),
            queue_ms: millis(record.attempts.queued()),
            connect_ms: (!connecting.is_zero()).then(|| millis(connecting)),
            first_byte_ms: record.attempts.head().map(|head| millis(head.since(record.started))),
            reserved: record.reserved,
            cost: record.cost_by.map(|_| record.cost),
            cost_by: record.cost_by.map(|by| by.as_str()),
            bytes_in: record.bytes_in,
            bytes_out: record.bytes_out,
            coding: record.coding.map(|coding| coding.as_str()),
            bytes_plain: record.coding.map(|_| record.bytes_plain),
            complete: record.complete,
            cache: record.cache.map(|result| result.as_str()),
            idempotency: record.idempotency.map(|result| result.as_str()),
            fallback: record.fallbacks.first().map(|kind| kind.as_str()),
            aborted: record.aborted,
            fault: record.fault(),
            attempt_details: is_attempted.then_some(AttemptDetails(record)),
            attempts_left_out: record.attempts.left_out(),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_zero(count: &u32) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Method;
    use policies::Moment;
    use serde_json::json;

    use super::*;
    use crate::headers;
    use crate::observe::labels::Outcome;
    use crate::observe::metrics::Registry;
    use crate::observe::tenants::Tenants;
    use crate::observe::unknown_tiers::UnknownTiers;
    use crate::rejection::Reason;

    #[test]
    fn a_line_holds_the_decision() {
        let unix = Duration::from_millis(1_709_210_096_007);
        let mut record = RequestRecord::begin(Moment::ZERO, unix, "req \"1\"", Method::PUT, "/users/1");
        record.version = Some(http::Version::HTTP_2);
        record.client = Some([10, 0, 0, 9].into());
        record.route = Some(Registry::default().route("users"));
        record.tenant = Some(Tenants::default().find_or_add("acme", "free"));
        record.tier = Some("free".into());
        record.unknown_tier = Some(UnknownTiers::default().find_or_add("gold", &"acme".into()));
        record.caller = Some("key-1".into());
        record.caller_kind = CallerKind::ApiKey;
        record.refused(Reason::BackendTimeout);
        record.limit = Some("free".into());
        record.backend = Some("users".into());
        record.budget = Some(Duration::from_secs(5));
        let at = |micros| Moment::ZERO + Duration::from_micros(micros);
        let (backend, endpoint) = ("users".into(), "http://10.0.0.1:80".into());
        record.attempts.begin(&backend, 1, at(100));
        record.attempts.end_wait(at(110));
        record.attempts.ask(&endpoint, at(120));
        record.attempts.note_connecting(Duration::from_micros(300));
        record.attempts.end(at(1_000), Some(Outcome::Broken), None);
        record.attempts.begin(&backend, 2, at(1_000));
        record.attempts.end_wait(at(1_500));
        record.attempts.ask(&endpoint, at(1_500));
        record.attempts.answer(at(2_000), 200, Outcome::Answered);
        let mut headers = crate::message::FieldMap::new();
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        headers.insert("traceparent", http::HeaderValue::from_static(parent));
        record.trace = Some(headers::Trace::read_or_start(&headers, false).id);
        (record.bytes_in, record.bytes_out) = (10, 20);
        record.complete = Some(false);
        record.aborted = true;
        record.note_fault("reset by peer");
        record.end(Moment::from_nanos(2_345_678));
        assert_eq!(
            serde_json::to_value(Line::of(&record)).unwrap(),
            json!({
                "time": "2024-02-29T12:34:56.007Z", "request_id": "req \"1\"", "trace_id": "0af7651916cd43dd8448eb211c80319c", "client": "10.0.0.9",
                "protocol": "HTTP/2", "method": "PUT", "path": "/users/1", "route": "users", "tenant": "acme", "tier": "free", "unknown_tier": "gold", "caller": "key-1",
                "kind": "api_key", "status": 504, "reason": "backend_timeout", "limit": "free", "backend": "users", "attempts": 2,
                "budget_ms": 5000.0, "used_ms": 2.345, "queue_ms": 0.01, "connect_ms": 0.3, "first_byte_ms": 2.0,
                "bytes_in": 10, "bytes_out": 20, "complete": false, "aborted": true, "fault": "reset by peer",
                "attempt_details": [
                    { "backend": "users", "endpoint": "http://10.0.0.1:80", "outcome": "broken", "start_ms": 0.12,
                      "queue_ms": 0.01, "connect_ms": 0.3, "took_ms": 0.88 },
                    { "backend": "users", "endpoint": "http://10.0.0.1:80", "outcome": "cancelled", "status": 200,
                      "start_ms": 1.5, "backoff_ms": 0.5, "first_byte_ms": 0.5, "took_ms": 0.845 },
                ],
            })
        );
        let bare = serde_json::to_value(Line::of(&RequestRecord::default())).unwrap();
        let names: Vec<_> = bare.as_object().unwrap().keys().map(String::as_str).collect();
        let always = [
            "time",
            "request_id",
            "method",
            "path",
            "status",
            "attempts",
            "used_ms",
            "queue_ms",
            "bytes_in",
            "bytes_out",
        ];
        assert_eq!(names, always);
    }
}
