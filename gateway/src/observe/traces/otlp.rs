//! Writes the records of requests as spans of OpenTelemetry, in the JSON form of its protocol (OTLP 1).
//!
//! A request is a SERVER span, a part of an aggregate an INTERNAL span in it, and an attempt a CLIENT span in one of them.
//! Names and attributes are those of the semantic conventions for HTTP (1.27); what these have no name for begins with
//! `gateway.`. The query of a URL and the addresses of parts are left out: they may hold secrets, and the record does not
//! keep them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use policies::Moment;
use serde_json::{Value, json};

use super::SpanContext;
use crate::observe::attempts::Attempt;
use crate::observe::labels::{AttemptOutcome, CallerKind};
use crate::observe::record::RequestRecord;

/// Kinds of spans (`opentelemetry.proto.trace.v1.Span.SpanKind`).
const INTERNAL: u8 = 1;
const SERVER: u8 = 2;
const CLIENT: u8 = 3;
/// Status of a failed span (`STATUS_CODE_ERROR`).
const ERROR: u8 = 2;

/// Facts of the config that records do not have, by name of the route.
#[derive(Debug, Default)]
pub struct RouteFacts(pub BTreeMap<Arc<str>, RouteFact>);

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct RouteFact {
    /// Path pattern, such as `/users/{id}`, if there is exactly one.
    pub pattern: Option<String>,
    /// Method of each part.
    pub methods: BTreeMap<Arc<str>, String>,
}

/// Returns the body of an export.
pub fn export(service: &str, records: &[RequestRecord], facts: &RouteFacts) -> Value {
    let spans: Vec<Value> = records.iter().flat_map(|record| spans(record, facts)).collect();
    let resource = attributes([
        ("service.name", service.into()),
        ("service.version", env!("CARGO_PKG_VERSION").into()),
        ("process.pid", std::process::id().into()),
        ("telemetry.sdk.name", "gateway".into()),
        ("telemetry.sdk.language", "rust".into()),
        ("telemetry.sdk.version", env!("CARGO_PKG_VERSION").into()),
    ]);
    json!({ "resourceSpans": [{
        "resource": { "attributes": resource },
        "scopeSpans": [{ "scope": { "name": "gateway", "version": env!("CARGO_PKG_VERSION") }, "spans": spans }],
    }] })
}

/// Returns the spans of a request: its own, then those of its parts and attempts.
fn spans(record: &RequestRecord, facts: &RouteFacts) -> Vec<Value> {
    let (Some(trace), Some(context)) = (&record.trace, &record.span) else {
        return Vec::new();
    };
    let clock = Clock {
        at: record.at.0,
        started: record.started,
    };
    let trace = trace.to_string();
    let fact = record.route.as_ref().and_then(|route| facts.0.get(&route.name));
    let mut spans = vec![server(record, context, &trace, fact, &clock)];
    let mut parts: Vec<(Arc<str>, Option<u32>, u64)> = Vec::new();
    for attempt in record.attempts.iter() {
        let parent = match &attempt.part {
            None => context.span,
            Some(part) => {
                let known = parts
                    .iter()
                    .find(|(name, element, _)| name == part && *element == attempt.element);
                match known {
                    Some((.., id)) => *id,
                    None => {
                        let id = fastrand::u64(1..);
                        parts.push((Arc::clone(part), attempt.element, id));
                        id
                    }
                }
            }
        };
        let method = match &attempt.part {
            None => record.method.as_str(),
            Some(part) => fact
                .and_then(|fact| fact.methods.get(part))
                .map_or("_OTHER", String::as_str),
        };
        spans.push(client(attempt, method, context, parent, &trace, &clock));
    }
    for (name, element, id) in &parts {
        let own = record.attempts.iter();
        let own = own.filter(|attempt| attempt.part.as_ref() == Some(name) && attempt.element == *element);
        spans.push(part(name, *element, own.collect(), context, *id, &trace, &clock));
    }
    spans
}

/// Turns moments of a request into the time of day.
struct Clock {
    at: Duration,
    started: Moment,
}

impl Clock {
    /// Returns the time since 1970 in nanoseconds, as text: JSON numbers would lose digits.
    fn nanos(&self, moment: Moment) -> String {
        let moment = moment.max(self.started);
        (self.at + moment.since(self.started)).as_nanos().to_string()
    }
}

struct Span<'s> {
    name: String,
    kind: u8,
    id: u64,
    parent: Option<u64>,
    began: Moment,
    ended: Moment,
    trace: &'s str,
    flags: u8,
    attributes: Vec<Value>,
    /// Text of the error; `None` if the span did not fail.
    error: Option<String>,
}

impl Span<'_> {
    fn value(self, clock: &Clock) -> Value {
        let mut span = json!({
            "traceId": self.trace,
            "spanId": hex(self.id),
            "flags": self.flags,
            "name": self.name,
            "kind": self.kind,
            "startTimeUnixNano": clock.nanos(self.began),
            "endTimeUnixNano": clock.nanos(self.ended.max(self.began)),
            "attributes": self.attributes,
            "status": match self.error {
                Some(message) => json!({ "code": ERROR, "message": message }),
                None => json!({}),
            },
        });
        if let Some(parent) = self.parent {
            span["parentSpanId"] = hex(parent).into();
        }
        span
    }
}

fn server(
    record: &RequestRecord,
    context: &SpanContext,
    trace: &str,
    fact: Option<&RouteFact>,
    clock: &Clock,
) -> Value {
    let (method, original) = method(record.method.as_str());
    let route = record
        .route
        .as_ref()
        .map(|route| &*route.name)
        .filter(|name| !name.is_empty());
    let pattern = fact.and_then(|fact| fact.pattern.as_deref());
    let reason = record.reason.map(|reason| reason.as_str());
    let is_error = record.status >= 500 || record.aborted;
    let error_type = reason
        .map(str::to_owned)
        .or_else(|| is_error.then(|| record.status.to_string()));
    let text = |text: Option<&str>| text.map(Value::from);
    let attributes = attributes_of([
        ("http.request.method", Some(method.into())),
        ("http.request.method_original", text(original)),
        ("url.scheme", Some(context.scheme.into())),
        ("url.path", Some(record.path.as_str().into())),
        ("http.route", text(pattern)),
        (
            "http.response.status_code",
            (record.status != 0).then(|| record.status.into()),
        ),
        ("error.type", error_type.map(Value::from)),
        (
            "network.protocol.name",
            (!record.protocol().is_empty()).then(|| "http".into()),
        ),
        (
            "network.protocol.version",
            text(record.protocol().strip_prefix("HTTP/")),
        ),
        ("client.address", record.client.map(|client| client.to_string().into())),
        ("http.request.body.size", Some(record.bytes_in.into())),
        ("http.response.body.size", Some(record.bytes_out.into())),
        ("gateway.request_id", Some(record.request_id.as_str().into())),
        ("gateway.route", text(route)),
        (
            "gateway.tenant",
            text(record.tenant.as_ref().map(|tenant| &*tenant.name)),
        ),
        ("gateway.tier", text(record.tier.as_deref())),
        ("gateway.limit", text(record.limit.as_deref())),
        ("gateway.reason", text(reason)),
        (
            "gateway.credential",
            (record.caller_kind != CallerKind::Nobody).then(|| record.caller_kind.as_str().into()),
        ),
        ("gateway.complete", record.complete.map(Value::from)),
        ("gateway.budget_ms", record.budget.map(|budget| millis(budget).into())),
        (
            "gateway.attempts_left_out",
            Some(record.attempts.left_out())
                .filter(|count| *count > 0)
                .map(Value::from),
        ),
    ]);
    let ended = record.started + record.used;
    Span {
        name: format!("{method} {}", pattern.or(route).unwrap_or_default())
            .trim_end()
            .to_owned(),
        kind: SERVER,
        id: context.span,
        parent: context.parent,
        began: record.started,
        ended,
        trace,
        flags: context.flags,
        attributes,
        error: is_error.then(|| record.fault().or(reason).unwrap_or_default().to_owned()),
    }
    .value(clock)
}

fn part(
    name: &str,
    element: Option<u32>,
    attempts: Vec<&Attempt>,
    context: &SpanContext,
    id: u64,
    trace: &str,
    clock: &Clock,
) -> Value {
    let began = attempts
        .iter()
        .filter_map(|attempt| attempt.entered())
        .min()
        .unwrap_or(clock.started);
    let ended = attempts
        .iter()
        .filter_map(|attempt| attempt.ended())
        .max()
        .unwrap_or(began);
    let last = attempts.last();
    let failed = last.filter(|last| last.outcome != AttemptOutcome::Answered || last.reason.is_some());
    let failed = failed.filter(|last| !matches!(last.outcome, AttemptOutcome::Skipped | AttemptOutcome::Cached));
    Span {
        name: format!("part {name}"),
        kind: INTERNAL,
        id,
        parent: Some(context.span),
        began,
        ended,
        trace,
        flags: context.flags,
        attributes: attributes_of([
            ("gateway.part", Some(name.into())),
            ("gateway.element", element.map(Value::from)),
            ("gateway.outcome", last.map(|last| last.outcome.as_str().into())),
            ("gateway.reason", last.and_then(|last| last.reason).map(Value::from)),
        ]),
        error: failed.map(|failed| failed.reason.unwrap_or(failed.outcome.as_str()).to_owned()),
    }
    .value(clock)
}

fn client(attempt: &Attempt, method: &str, context: &SpanContext, parent: u64, trace: &str, clock: &Clock) -> Value {
    let (method, original) = self::method(method);
    let is_answered = attempt.outcome == AttemptOutcome::Answered;
    let is_skipped = matches!(attempt.outcome, AttemptOutcome::Skipped | AttemptOutcome::Cached);
    // Client errors are errors of a CLIENT span.
    let is_error = !is_skipped && !attempt.is_lost() && (!is_answered || attempt.status >= 400);
    let error_type = || match (attempt.reason, attempt.status) {
        (Some(reason), _) => reason.to_owned(),
        (None, status @ 400..) => status.to_string(),
        (None, _) => attempt.outcome.as_str().to_owned(),
    };
    let (scheme, address, port) = attempt.endpoint.as_deref().map(place).unwrap_or_default();
    let resent = attempt.number().saturating_sub(1);
    let time = |time: Duration| (!time.is_zero()).then(|| millis(time).into());
    let began = attempt.started().unwrap_or(clock.started);
    Span {
        name: method.to_owned(),
        kind: CLIENT,
        id: match attempt.span {
            0 => fastrand::u64(1..),
            id => id,
        },
        parent: Some(parent),
        began,
        ended: attempt.ended().unwrap_or(began),
        trace,
        flags: context.flags,
        attributes: attributes_of([
            ("http.request.method", Some(method.into())),
            ("http.request.method_original", original.map(Value::from)),
            ("url.scheme", scheme.map(Value::from)),
            ("server.address", address.map(Value::from)),
            ("server.port", port.map(Value::from)),
            (
                "http.response.status_code",
                (attempt.status != 0).then(|| attempt.status.into()),
            ),
            ("error.type", is_error.then(|| error_type().into())),
            ("http.request.resend_count", (resent > 0).then(|| resent.into())),
            ("gateway.backend", Some((*attempt.backend).into())),
            ("gateway.part", attempt.part.as_deref().map(Value::from)),
            ("gateway.element", attempt.element.map(Value::from)),
            ("gateway.outcome", Some(attempt.outcome.as_str().into())),
            ("gateway.queue_ms", time(attempt.queued())),
            ("gateway.backoff_ms", time(attempt.backoff())),
            ("gateway.connect_ms", time(attempt.connecting())),
            (
                "gateway.first_byte_ms",
                attempt.first_byte().map(|time| millis(time).into()),
            ),
        ]),
        error: is_error.then(error_type),
    }
    .value(clock)
}

/// Returns the name for the attribute, and the method itself if the conventions have no name for it.
fn method(method: &str) -> (&str, Option<&str>) {
    let known = [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::HEAD,
        Method::OPTIONS,
        Method::PATCH,
        Method::TRACE,
        Method::CONNECT,
    ];
    match known.iter().any(|known| known == method) {
        true => (method, None),
        false => ("_OTHER", (method != "_OTHER").then_some(method)),
    }
}

/// Returns scheme, host and port of an endpoint.
fn place(endpoint: &str) -> (Option<String>, Option<String>, Option<u16>) {
    let Ok(url) = reqwest::Url::parse(endpoint) else {
        return (None, None, None);
    };
    let host = url.host_str().map(|host| host.trim_matches(['[', ']']).to_owned());
    (Some(url.scheme().to_owned()), host, url.port_or_known_default())
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn hex(id: u64) -> String {
    let mut text = String::with_capacity(16);
    let _ = write!(text, "{id:016x}");
    text
}

fn attributes<const N: usize>(all: [(&str, Value); N]) -> Vec<Value> {
    all.into_iter().map(|(key, value)| attribute(key, &value)).collect()
}

/// Returns the attributes that have a value.
fn attributes_of<const N: usize>(all: [(&str, Option<Value>); N]) -> Vec<Value> {
    let present = all.into_iter().filter_map(|(key, value)| Some((key, value?)));
    present.map(|(key, value)| attribute(key, &value)).collect()
}

fn attribute(key: &str, value: &Value) -> Value {
    let typed = match value {
        Value::Bool(value) => json!({ "boolValue": value }),
        // Whole numbers have 64 bits, which JSON numbers have not.
        Value::Number(number) if number.is_u64() || number.is_i64() => json!({ "intValue": number.to_string() }),
        Value::Number(number) => json!({ "doubleValue": number }),
        Value::String(text) => json!({ "stringValue": text }),
        other => json!({ "stringValue": other.to_string() }),
    };
    json!({ "key": key, "value": typed })
}

#[cfg(test)]
mod tests {
    use crate::message::FieldMap;

    use super::*;
    use crate::headers::Trace;
    use crate::observe::labels::Outcome;
    use crate::observe::metrics::Registry;
    use crate::observe::tenants::Tenants;
    use crate::rejection::Reason;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn at(millis: u64) -> Moment {
        Moment::ZERO + Duration::from_millis(1000 + millis)
    }

    fn record() -> RequestRecord {
        let unix = Duration::from_secs(1_700_000_000);
        let mut record = RequestRecord::begin(at(0), unix, "id-1", Method::GET, "/home/7");
        let mut headers = FieldMap::new();
        let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
        headers.insert("traceparent", parent.parse().unwrap());
        record.trace = Some(Trace::read_or_start(&headers, false).id);
        record.span = Some(Box::new(SpanContext {
            span: 0xabc,
            parent: Trace::parent(&headers),
            flags: 1,
            tail: true,
            scheme: "https",
        }));
        record.route = Some(Registry::default().route("home"));
        record.tenant = Some(Tenants::default().find_or_add("acme", "free"));
        record.version = Some(http::Version::HTTP_2);
        record.status = 200;
        record.used = Duration::from_millis(50);
        record
    }

    fn facts() -> RouteFacts {
        let fact = RouteFact {
            pattern: Some("/home/{id}".to_owned()),
            methods: BTreeMap::from([("orders".into(), "POST".to_owned())]),
        };
        RouteFacts(BTreeMap::from([("home".into(), fact)]))
    }

    fn attribute(span: &Value, key: &str) -> Value {
        let all = span["attributes"].as_array().unwrap();
        let found = all.iter().find(|attribute| attribute["key"] == key);
        found.map_or(Value::Null, |found| {
            found["value"].as_object().unwrap().values().next().unwrap().clone()
        })
    }

    #[test]
    fn a_request_is_a_server_span_in_the_callers_trace() {
        let mut record = record();
        record.refused(Reason::BreakerOpen);
        let exported = export("edge", &[record], &facts());
        let of_resource = &exported["resourceSpans"][0];
        assert_eq!(attribute(&of_resource["resource"], "service.name"), "edge");
        let span = &of_resource["scopeSpans"][0]["spans"][0];
        for (key, expected) in [
            ("traceId", json!(TRACE)),
            ("spanId", json!("0000000000000abc")),
            ("parentSpanId", json!("00f067aa0ba902b7")),
            ("name", json!("GET /home/{id}")),
            ("kind", json!(SERVER)),
            ("flags", json!(1)),
            ("startTimeUnixNano", json!("1700000000000000000")),
            ("endTimeUnixNano", json!("1700000000050000000")),
            ("status", json!({ "code": ERROR, "message": "breaker_open" })),
        ] {
            assert_eq!(span[key], expected, "{key}");
        }
        for (key, expected) in [
            ("http.request.method", json!("GET")),
            ("url.scheme", json!("https")),
            ("url.path", json!("/home/7")),
            ("http.route", json!("/home/{id}")),
            ("http.response.status_code", json!("503")),
            ("error.type", json!("breaker_open")),
            ("network.protocol.version", json!("2")),
            ("gateway.tenant", json!("acme")),
        ] {
            assert_eq!(attribute(span, key), expected, "{key}");
        }
    }

    #[test]
    fn attempts_are_client_spans_in_their_part() {
        let mut record = record();
        let (users, orders, endpoint) = (Arc::from("users"), Arc::from("orders"), Arc::from("https://[::1]:8443"));
        let mut part = crate::observe::Attempts::default();
        part.begin(&orders, 1, at(5));
        part.end_wait(at(8));
        part.ask(&endpoint, at(8));
        part.note_span(0x51);
        part.end(at(20), Some(Outcome::TimedOut), None);
        part.begin(&orders, 2, at(20));
        part.end_wait(at(30));
        part.ask(&endpoint, at(30));
        part.note_span(0x52);
        part.answer(at(40), 201, Outcome::Answered);
        part.end(at(45), None, None);
        part.set_part(&"orders".into(), None);
        record.attempts.merge(part);
        let mut refused = crate::observe::Attempts::default();
        refused.begin(&users, 1, at(6));
        refused.refuse(at(7), Reason::BulkheadFull);
        refused.set_part(&"user".into(), None);
        record.attempts.merge(refused);
        let spans = spans(&record, &facts());
        let named = |name: &str| spans.iter().filter(|span| span["name"] == name).collect::<Vec<_>>();
        assert_eq!(spans.len(), 1 + 3 + 2);
        let (of_orders, of_user) = (named("part orders")[0], named("part user")[0]);
        assert_eq!(
            (&of_orders["kind"], &of_orders["parentSpanId"]),
            (&json!(INTERNAL), &json!("0000000000000abc"))
        );
        assert_eq!(of_orders["startTimeUnixNano"], "1700000000005000000");
        assert_eq!(of_orders["endTimeUnixNano"], "1700000000045000000");
        assert_eq!(
            (&of_orders["status"], &of_user["status"]["code"]),
            (&json!({}), &json!(ERROR))
        );
        let posts = named("POST");
        for (span, id, resent, error) in [
            (posts[0], "0000000000000051", Value::Null, json!("timed_out")),
            (posts[1], "0000000000000052", json!("1"), Value::Null),
        ] {
            assert_eq!(
                (&span["kind"], &span["spanId"], &span["parentSpanId"]),
                (&json!(CLIENT), &json!(id), &of_orders["spanId"])
            );
            assert_eq!(attribute(span, "http.request.resend_count"), resent);
            assert_eq!(attribute(span, "error.type"), error);
            assert_eq!(
                (attribute(span, "server.address"), attribute(span, "server.port")),
                (json!("::1"), json!("8443"))
            );
        }
        assert_eq!(attribute(posts[0], "gateway.queue_ms"), 3.0);
        assert_eq!(attribute(posts[1], "http.response.status_code"), "201");
        let refused = named("_OTHER")[0];
        assert_eq!(
            refused["startTimeUnixNano"], refused["endTimeUnixNano"],
            "nothing was sent"
        );
        assert_eq!(
            (attribute(refused, "error.type"), &refused["parentSpanId"]),
            (json!("bulkhead_full"), &of_user["spanId"])
        );
    }

    #[test]
    fn unusual_methods_have_one_name() {
        assert_eq!(method("GET"), ("GET", None));
        assert_eq!(method("PURGE"), ("_OTHER", Some("PURGE")));
        assert_eq!(place("http://a.example").2, Some(80));
        assert_eq!(place("nonsense"), (None, None, None));
    }
}
