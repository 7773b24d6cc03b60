//! Writes the answer to a refused request: a problem document (RFC 9457), and header fields that a program can act on.
//!
//! Invariant: the document tells what the caller may know and can do next, never what happened inside. Every 429 and
//! every 503 says when to come back.
//!
//! Answering a flood of 429s must cost less than serving the requests. So the document is put together from fixed
//! pieces in one buffer; only text that may need escaping goes through the JSON writer.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE,
    WWW_AUTHENTICATE,
};
use http::{HeaderName, HeaderValue, StatusCode};

use crate::header_fields::{self, Digits, LONGEST_RENEWAL, LONGEST_WAIT};
use crate::json::{self, Document};
use crate::message::{FieldMap, Response};
use crate::rejection::{Reason, Rejection, Violation};
use crate::setting::Configured;

pub const X_GATEWAY_REASON: HeaderName = HeaderName::from_static("x-gateway-reason");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Problem type registered for every 429 (draft-ietf-httpapi-ratelimit-headers-11, section "Problem Types").
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";
/// Prefix of all other problem types. A URN is a name without a location, so it is the same wherever the gateway runs.
/// With `about:blank` a program could not tell two kinds of 503 apart.
const OWN_TYPE: &str = "urn:problem-type:gateway:";

/// Returns the whole answer to a refused request.
///
/// For a HEAD request the server drops the body and keeps its length (RFC 9110 section 9.3.2).
pub fn answer(rejection: &Rejection, request_id: &str) -> Response<Bytes> {
    let reason = rejection.reason();
    let advice = advice(rejection);
    let body = document(reason, &advice, request_id);

    let mut response = Response::new(Bytes::new());
    *response.status_mut() = reason.status();
    let headers = response.headers_mut();
    headers.reserve(12);
    headers.append(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.append(CONTENT_LENGTH, header_fields::number(body.len() as u64));
    headers.append(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.append(X_GATEWAY_REASON, HeaderValue::from_static(reason.as_str()));
    if let Some(wait) = advice.wait {
        headers.append(RETRY_AFTER, header_fields::retry_after(wait));
    }
    insert_fields(headers, advice.fields);
    *response.body_mut() = body;
    response
}

/// Returns the document's `detail`: what the caller should do.
pub fn detail(rejection: &Rejection) -> String {
    let advice = advice(rejection);
    match advice.variable {
        Variable::Nothing => format!("{}{}", advice.before, advice.after),
        Variable::Text(text) => format!("{}{text}{}", advice.before, advice.after),
        Variable::Number(number) => format!("{}{number}{}", advice.before, advice.after),
    }
}

/// A failed part that its aggregate cannot do without.
#[derive(Debug, Clone, Copy)]
pub struct FailedPart<'a> {
    /// Status of the aggregate's answer.
    pub status: StatusCode,
    /// Stable word for the part's failure.
    pub reason: &'static str,
    pub part: &'a str,
    /// Whether the part's backend answered, so that `status` follows from the backend's status.
    pub refused: bool,
    /// Time to wait, if it is known.
    pub wait: Option<Duration>,
    /// Methods for the `Allow` of a 405.
    pub allow: Option<&'a HeaderValue>,
    /// Details that the part's backend gives.
    pub details: Option<&'a Document>,
}

/// Returns the answer of an aggregate of which a required part failed.
pub fn part_failed(failed: &FailedPart<'_>, request_id: &str) -> Response<Bytes> {
    let status = failed.status;
    let wait = match status {
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Some(failed.wait.unwrap_or_default()),
        // A 413 with a wait is temporary (RFC 9110 section 15.5.14).
        StatusCode::PAYLOAD_TOO_LARGE => failed.wait,
        _ => None,
    };
    let wait = wait.map(|wait| wait.min(LONGEST_WAIT));
    let body = serde_json::json!({
        "type": format!("{OWN_TYPE}{}", failed.reason),
        "title": if failed.refused && status.is_client_error() {
            "A part of the answer was refused"
        } else {
            "A part of the answer failed"
        },
        "status": status.as_u16(),
        "detail": part_advice(failed, wait),
        "reason": failed.reason,
        "part": failed.part,
        "request_id": request_id,
    });
    let mut body = body.to_string().into_bytes();
    if let Some(details) = failed.details {
        json::add_member(&mut body, "details", details.value());
    }
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    headers.insert(X_GATEWAY_REASON, HeaderValue::from_static(failed.reason));
    if let Some(wait) = wait {
        headers.insert(RETRY_AFTER, header_fields::retry_after(wait));
    }
    if let (StatusCode::METHOD_NOT_ALLOWED, Some(allow)) = (status, failed.allow) {
        headers.insert(ALLOW, allow.clone());
    }
    *response.body_mut() = body.into();
    response
}

/// Returns the advice for a failed part. The status decides, because it tells whether the caller has to act.
fn part_advice(failed: &FailedPart<'_>, wait: Option<Duration>) -> String {
    let part = failed.part;
    let again = match wait {
        Some(wait) => format!("Send it again in {} s.", header_fields::whole_seconds(wait)),
        None => String::new(),
    };
    let advice = match failed.status.as_u16() {
        400 if !failed.refused => {
            return format!(
                "The part \"{part}\" takes values from the request, and one is missing or cannot be used. Mend the request."
            );
        }
        429 => format!("its backend takes no more requests for now. {again}"),
        503 => format!("its backend cannot answer for now. {again}"),
        413 if wait.is_some() => format!("its backend takes nothing of this size for now. {again}"),
        400 | 411 | 413..=417 | 422 => {
            "its backend cannot use what it was asked. Mend the request before sending it again.".to_owned()
        }
        402 => "its backend wants a payment, or another means of it, first. Settle that before sending it again."
            .to_owned(),
        409 | 412 => {
            "what it asks for does not fit the present state. Look at that before sending another request.".to_owned()
        }
        423 | 424 => {
            "what it asks for is locked, or waits for something else. Release or finish that before sending it again."
                .to_owned()
        }
        428 => "its backend wants a condition, such as If-Match. Send the request with one.".to_owned(),
        400..=499 => "its backend refuses what it was asked. Sending the same again does not help.".to_owned(),
        _ => {
            return format!(
                "Without the part \"{part}\" there is no answer. Try again later if repeating it does no harm, and quote \
                 the request id if it goes on."
            );
        }
    };
    format!("Without the part \"{part}\" there is no answer, and {advice}")
}

fn document(reason: Reason, advice: &Advice<'_>, request_id: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(512);
    out.put_slice(br#"{"type":""#);
    if reason.status() == StatusCode::TOO_MANY_REQUESTS {
        out.put_slice(QUOTA_EXCEEDED.as_bytes());
    } else {
        out.put_slice(OWN_TYPE.as_bytes());
        out.put_slice(reason.as_str().as_bytes());
    }
    out.put_slice(br#"","title":""#);
    out.put_slice(reason.title().as_bytes());
    out.put_slice(br#"","status":"#);
    out.put_slice(Digits::of(reason.status().as_u16().into()).as_bytes());
    out.put_slice(br#","detail":""#);
    out.put_slice(advice.before.as_bytes());
    match advice.variable {
        Variable::Nothing => {}
        Variable::Text(text) => put_escaped(&mut out, text),
        Variable::Number(number) => out.put_slice(Digits::of(number).as_bytes()),
    }
    out.put_slice(advice.after.as_bytes());
    out.put_slice(br#"","reason":""#);
    out.put_slice(reason.as_str().as_bytes());
    out.put_slice(br#"","request_id":""#);
    put_escaped(&mut out, request_id);
    out.put_u8(b'"');
    if let Fields::Limits(violation) = advice.fields {
        out.put_slice(br#","violated-policies":["#);
        for (index, limit) in violation.limits.iter().enumerate() {
            out.put_slice(if index == 0 { b"\"" } else { b",\"" });
            put_escaped(&mut out, limit);
            out.put_u8(b'"');
        }
        out.put_u8(b']');
    }
    out.put_u8(b'}');
    out.freeze()
}

/// The advice for one rejection. `before` and `after` are fixed text without quotes or backslashes.
struct Advice<'a> {
    before: &'static str,
    variable: Variable<'a>,
    after: &'static str,
    wait: Option<Duration>,
    fields: Fields<'a>,
}

#[derive(Clone, Copy)]
enum Variable<'a> {
    Nothing,
    Text(&'a str),
    Number(u64),
}

/// Header fields that belong to one status.
#[derive(Clone, Copy)]
enum Fields<'a> {
    None,
    Challenge(&'a HeaderValue),
    Allow(&'a HeaderValue),
    WebSocketVersion,
    Limits(&'a Violation),
}

impl<'a> Advice<'a> {
    const fn say(before: &'static str) -> Self {
        Self {
            before,
            variable: Variable::Nothing,
            after: "",
            wait: None,
            fields: Fields::None,
        }
    }

    const fn text(before: &'static str, text: &'a str) -> Self {
        Self {
            variable: Variable::Text(text),
            ..Self::say(before)
        }
    }

    /// Advises to wait, at most [`LONGEST_WAIT`]. The seconds follow `before`.
    fn wait(before: &'static str, wait: Duration) -> Self {
        Self::wait_within(before, wait, LONGEST_WAIT)
    }

    fn wait_within(before: &'static str, wait: Duration, longest: Duration) -> Self {
        let wait = wait.min(longest);
        Self {
            variable: Variable::Number(header_fields::whole_seconds(wait)),
            after: " s.",
            wait: Some(wait),
            ..Self::say(before)
        }
    }

    const fn with(self, fields: Fields<'a>) -> Self {
        Self { fields, ..self }
    }
}

fn advice(rejection: &Rejection) -> Advice<'_> {
    // A draining instance is replaced or taken out of rotation within moments.
    const DRAINING: Duration = Duration::from_secs(1);
    // Nothing says when the store can be reached again; the gateway tries several times a second.
    const UNCOUNTED: Duration = Duration::from_secs(1);
    // Nothing says when the answer comes.
    const IN_USE: Duration = Duration::from_secs(1);
    match rejection {
        Rejection::MalformedRequest { why, .. } => Advice::text("Mend the request before sending it again: ", why),
        Rejection::FieldNotOffered { why, .. } => {
            Advice::text("Name fields that are offered, or none to get all: ", why)
        }
        Rejection::CredentialsMissing { challenge } => Advice::text(
            "This route needs a credential and none that it takes was presented. ",
            &challenge.hint,
        )
        .with(Fields::Challenge(&challenge.www_authenticate)),
        Rejection::CredentialsInvalid { challenge } => Advice::text(
            "The presented credential is not valid; sending it again will not help. ",
            &challenge.hint,
        )
        .with(Fields::Challenge(&challenge.www_authenticate)),
        Rejection::CredentialsExpired { challenge } => Advice::text(
            "The presented credential is no longer valid; send a fresh one. ",
            &challenge.hint,
        )
        .with(Fields::Challenge(&challenge.www_authenticate)),
        Rejection::NotAllowed { why, .. } => Advice::text("The credential is valid, but not for this route: ", why),
        Rejection::CostUnknown { what, .. } => Advice::text("Mend the body before sending it again: ", what),
        Rejection::CostTooHigh { most, .. } => Advice {
            variable: Variable::Number(*most),
            after: " at once. Sending the same again does not help.",
            ..Advice::say("Ask for less: a limit of this caller never holds more than ")
        },
        Rejection::TenantDisabled(_) => Advice::say(
            "The credential is valid, but everything of its tenant is refused; those who run the service can enable it.",
        ),
        Rejection::AddressNotAllowed(_) => Advice::say(
            "This route is not open to the address that the request comes from; no credential changes that.",
        ),
        Rejection::OriginNotAllowed(_) => Advice::say(
            "This route is not open to pages of that origin; those who run it can add it to the origins of its cors.",
        ),
        Rejection::IdempotencyKeyMissing(_) => Advice::say(
            "This route does each request once, by the field Idempotency-Key: send a new random value such as a UUID for \
             each request, and the same one when a request is sent again.",
        ),
        Rejection::IdempotencyKeyInvalid { why, .. } => Advice::text(
            "Send one Idempotency-Key, a string of 1 to 255 characters such as a quoted UUID: ",
            why,
        ),
        Rejection::IdempotencyKeyInUse(_) => Advice::wait(
            "A request with this Idempotency-Key is under way. Its answer is had by sending the same request again in ",
            IN_USE,
        ),
        Rejection::OutcomeUnknown { kept_for, .. } => Advice {
            variable: Variable::Number(header_fields::whole_seconds(*kept_for)),
            after: " s. Find out by other means what became of it, or ask those who run the service, before the same is \
                    sent with a new key.",
            ..Advice::say(
                "A request with this Idempotency-Key was sent, no whole answer came, and it may have been done. So it is \
                 not sent again while the key is remembered, which is for ",
            )
        },
        Rejection::AnswerNotKept { status, .. } => Advice {
            variable: Variable::Number(u64::from(*status)),
            after: ". That answer was too long to be kept. The request is not sent again: look up what it has done.",
            ..Advice::say("The request with this Idempotency-Key was answered with the status ")
        },
        Rejection::IdempotencyKeyReused(_) => Advice::say(
            "This Idempotency-Key belongs to a request with another method, path, query, content type or body: send a new \
             key for each request, and exactly the same request with a key that was sent before.",
        ),
        Rejection::IdempotencyUnavailable(_) => Advice::wait(
            "The gateway cannot look up now whether the request was sent before. Nothing was sent; send it again with the \
             same Idempotency-Key in ",
            UNCOUNTED,
        ),
        Rejection::IdempotencyFull { retry_after, .. } => Advice::wait(
            "There is no room for another Idempotency-Key of this tenant. Nothing was sent; send it again with the same \
             key in ",
            *retry_after,
        ),
        Rejection::NoRoute => {
            Advice::say("Nothing is served here; check host, path and the fields that select a route.")
        }
        Rejection::MethodNotAllowed { allow, .. } => {
            Advice::say("This path is served, but not for this method; the allow field lists those that are.")
                .with(Fields::Allow(allow))
        }
        Rejection::RequestTimeout(_) => {
            Advice::say("The request took too long to arrive; send it again, without pauses.")
        }
        Rejection::BodyTooLarge(Configured { value: limit, .. }) => Advice {
            variable: Variable::Number(*limit),
            after: " bytes.",
            ..Advice::say("Send a smaller body: this route takes at most ")
        },
        Rejection::UriTooLong => Advice::say("Send a shorter path and query, or move data into the body."),
        Rejection::WebSocketVersion => {
            Advice::say("Open the WebSocket with version 13 of the protocol, the only one that is spoken here.")
                .with(Fields::WebSocketVersion)
        }
        Rejection::RateLimited(violation) => Advice::wait(
            "More requests than the limits named in violated-policies allow; send it again in ",
            violation.wait,
        )
        .with(Fields::Limits(violation)),
        Rejection::QuotaExhausted(violation) => Advice::wait_within(
            "The quota named in violated-policies is used up; it is renewed in ",
            violation.wait,
            LONGEST_RENEWAL,
        )
        .with(Fields::Limits(violation)),
        Rejection::TooManyInFlight(violation) => Advice::wait(
            "Too many requests are being served at once; let some finish, or send it again in ",
            violation.wait,
        )
        .with(Fields::Limits(violation)),
        Rejection::HeadersTooLarge(_) => Advice::say("Send fewer or shorter header fields."),
        Rejection::Internal => Advice::say("The gateway failed; report the request_id to those who run it."),
        Rejection::BackendUnreached(_) => {
            Advice::say("No connection to the backend could be made. Nothing was sent: the request may be sent again.")
        }
        Rejection::BackendBroken(_) => Advice::say(
            "The backend broke off before its answer was complete. It may have acted on the request: send it again \
             only if repeating it does no harm.",
        ),
        Rejection::BackendInvalid(_) => Advice::say(
            "The backend sent something that is not a valid answer. It may have acted on the request: send it again \
             only if repeating it does no harm.",
        ),
        Rejection::BulkheadFull { retry_after, .. } => Advice::wait(
            "The backend already serves as many requests as it may. Nothing was sent; send it again in ",
            *retry_after,
        ),
        Rejection::BulkheadTimeout { retry_after, .. } => Advice::wait(
            "The request waited for its turn at the backend and did not get it. Nothing was sent; send it again in ",
            *retry_after,
        ),
        Rejection::BreakerOpen { retry_after, .. } => Advice::wait(
            "The backend has been failing and is given time to recover. Nothing was sent; send it again in ",
            *retry_after,
        ),
        Rejection::NoEndpoint { retry_after, .. } => Advice::wait(
            "The backend has no endpoint in service. Nothing was sent; send it again in ",
            *retry_after,
        ),
        Rejection::Overloaded { retry_after, .. } => Advice::wait(
            "The gateway has more work than it can do in time. Nothing was sent; send it again in ",
            *retry_after,
        ),
        Rejection::IdentityUnavailable { retry_after, .. } => Advice::wait(
            "Who the caller is could not be found out now, which says nothing against the credential; send it again in ",
            *retry_after,
        ),
        Rejection::KeysUnavailable { retry_after, .. } => Advice::wait(
            "The keys that the token is checked with could not be fetched from its issuer yet. Nothing is known against \
             the token; send the request again in ",
            *retry_after,
        ),
        Rejection::LimitsUnavailable(_) => Advice::wait(
            "The gateway cannot count the request now. Nothing was sent; send it again in ",
            UNCOUNTED,
        ),
        Rejection::Draining => Advice::wait(
            "This instance is shutting down; send the request again on a new connection in ",
            DRAINING,
        ),
        Rejection::OutOfTime(_) => {
            Advice::say("The time for this request was over before it could be answered; allow it more time.")
        }
        Rejection::BackendTimeout(_) => Advice::say(
            "The backend did not answer in the time it is given. It may have acted on the request: send it again only \
             if repeating it does no harm.",
        ),
        Rejection::CallerGone => Advice::say("The connection was closed before there was an answer."),
    }
}

fn insert_fields(headers: &mut FieldMap, fields: Fields<'_>) {
    match fields {
        Fields::None => {}
        Fields::Challenge(challenge) => drop(headers.insert(WWW_AUTHENTICATE, challenge.clone())),
        Fields::Allow(allow) => drop(headers.insert(ALLOW, allow.clone())),
        Fields::WebSocketVersion => {
            // RFC 6455 section 4.4 and RFC 9110 section 15.5.22.
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
        Fields::Limits(violation) => {
            headers.insert(RATELIMIT_POLICY, violation.policy.clone());
            headers.insert(RATELIMIT, violation.state.clone());
        }
    }
}

/// Writes `text` escaped as the inside of a JSON string.
fn put_escaped(out: &mut BytesMut, text: &str) {
    if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        return out.put_slice(text.as_bytes());
    }
    let quoted = serde_json::to_string(text).expect("a string can be written as JSON");
    out.put_slice(&quoted.as_bytes()[1..quoted.len() - 1]);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::rejection::Challenge;
    use crate::setting::SettingId;

    #[test]
    fn a_429_names_the_limits_and_when_to_come_back() {
        let response = answer(&Rejection::RateLimited(violation()), "req-1");
        assert_eq!(
            parsed(&response),
            json!({
                "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
                "title": "Rate limit exceeded",
                "status": 429,
                "detail": "More requests than the limits named in violated-policies allow; send it again in 3 s.",
                "reason": "rate_limited",
                "request_id": "req-1",
                "violated-policies": ["free", "a \"quoted\" one"],
            })
        );
        for (name, value) in [
            ("content-type", "application/problem+json"),
            ("cache-control", "no-store"),
            ("x-gateway-reason", "rate_limited"),
            ("retry-after", "3"),
            ("ratelimit-policy", r#""free";q=20;w=2"#),
            ("ratelimit", r#""free";r=0;t=3"#),
        ] {
            assert_eq!(field(&response, name), Some(value), "{name}");
        }
    }

    #[test]
    fn every_rejection_becomes_a_valid_problem() {
        let mut reasons = Vec::new();
        for rejection in one_of_each() {
            let (reason, response) = (rejection.reason(), answer(&rejection, "id"));
            let (status, document) = (response.status().as_u16(), parsed(&response));
            assert!(is_problem(&document, status), "{document}");
            assert_eq!(
                (document["status"].as_u64(), &document["reason"]),
                (Some(status.into()), &reason.as_str().into())
            );
            assert_eq!(document["title"], reason.title());
            assert!(document["detail"].as_str().unwrap().len() > 20, "{document}");
            assert_eq!(document.get("violated-policies").is_some(), status == 429, "{reason:?}");
            assert_eq!(
                field(&response, "retry-after").is_some(),
                matches!(status, 429 | 503) || reason == Reason::IdempotencyKeyInUse,
                "{reason:?}"
            );
            assert_eq!(field(&response, "ratelimit").is_some(), status == 429, "{reason:?}");
            assert_eq!(
                field(&response, "www-authenticate").is_some(),
                status == 401,
                "{reason:?}"
            );
            assert_eq!(field(&response, "allow").is_some(), status == 405, "{reason:?}");
            assert_eq!(
                field(&response, "content-length"),
                Some(response.body().len().to_string().as_str())
            );
            reasons.push(reason);
        }
        assert_eq!(reasons, Reason::ALL);
    }

    #[test]
    fn nobody_is_told_to_wait_for_longer_than_a_day_but_for_a_quota() {
        for rejection in one_of_each() {
            let reason = rejection.reason();
            let rejection = match rejection {
                Rejection::RateLimited(_) => Rejection::RateLimited(endless()),
                Rejection::QuotaExhausted(_) => Rejection::QuotaExhausted(endless()),
                Rejection::TooManyInFlight(_) => Rejection::TooManyInFlight(endless()),
                Rejection::BulkheadFull { by, .. } => Rejection::BulkheadFull { retry_after: MAX, by },
                Rejection::BulkheadTimeout { by, .. } => Rejection::BulkheadTimeout { retry_after: MAX, by },
                Rejection::BreakerOpen { by, .. } => Rejection::BreakerOpen { retry_after: MAX, by },
                Rejection::NoEndpoint { by, .. } => Rejection::NoEndpoint { retry_after: MAX, by },
                Rejection::Overloaded { by, .. } => Rejection::Overloaded { retry_after: MAX, by },
                Rejection::KeysUnavailable { by, .. } => Rejection::KeysUnavailable { retry_after: MAX, by },
                Rejection::IdempotencyFull { by, .. } => Rejection::IdempotencyFull { retry_after: MAX, by },
                Rejection::IdentityUnavailable { by, .. } => Rejection::IdentityUnavailable { retry_after: MAX, by },
                other => other,
            };
            let response = answer(&rejection, "id");
            let Some(wait) = field(&response, "retry-after") else {
                continue;
            };
            let expected = match reason {
                Reason::QuotaExhausted => "2764800",
                Reason::Draining
                | Reason::LimitsUnavailable
                | Reason::IdempotencyUnavailable
                | Reason::IdempotencyKeyInUse => "1",
                _ => "86400",
            };
            assert_eq!(wait, expected, "{reason:?}");
            let document = parsed(&response);
            assert!(
                document["detail"].as_str().unwrap().contains(&format!(" {wait} s.")),
                "{document}"
            );
        }
        let failed = FailedPart {
            wait: Some(MAX),
            ..part(503, false)
        };
        let answer = part_failed(&failed, "id");
        assert_eq!(field(&answer, "retry-after"), Some("86400"));
        assert!(answer.body().ends_with(b"\"id\"}"));
    }

    fn part(status: u16, refused: bool) -> FailedPart<'static> {
        FailedPart {
            status: StatusCode::from_u16(status).unwrap(),
            reason: "backend_status",
            part: "a \"quoted\" one",
            refused,
            wait: None,
            allow: None,
            details: None,
        }
    }

    #[test]
    fn the_advice_on_a_failed_part_fits_its_status() {
        let allow = HeaderValue::from_static("GET");
        let details = Document::of(&json!({ "code": "declined" }));
        for status in (400..500).chain([502, 503, 504]) {
            for wait in [None, Some(Duration::from_secs(9))] {
                let failed = FailedPart {
                    wait,
                    allow: Some(&allow),
                    details: Some(&details),
                    ..part(status, true)
                };
                let response = part_failed(&failed, "id");
                let document = parsed(&response);
                assert!(is_problem(&document, status), "{document}");
                assert_eq!(document["part"], "a \"quoted\" one");
                assert_eq!(document["details"], json!({ "code": "declined" }));
                let detail = document["detail"].as_str().unwrap();
                let waits = matches!(status, 429 | 503) || status == 413 && wait.is_some();
                assert_eq!(detail.contains(" s."), waits, "{status}: {detail}");
                let after = waits.then_some(if wait.is_some() { "9" } else { "1" });
                assert_eq!(field(&response, "retry-after"), after, "{status}");
                assert_eq!(
                    detail.contains("ry again later"),
                    status >= 500 && status != 503,
                    "{status}: {detail}"
                );
                assert_eq!(field(&response, "allow"), (status == 405).then_some("GET"), "{status}");
            }
        }
        let detail = |status, refused| parsed(&part_failed(&part(status, refused), "id"))["detail"].to_string();
        for (status, word) in [
            (400, "Mend"),
            (402, "payment"),
            (404, "does not help"),
            (409, "present state"),
            (412, "present state"),
            (422, "Mend"),
            (423, "locked"),
            (428, "If-Match"),
            (451, "does not help"),
        ] {
            assert!(
                detail(status, true).contains(word),
                "{status}: {}",
                detail(status, true)
            );
        }
        assert!(detail(400, false).contains("takes values from the request"));
    }

    const MAX: Duration = Duration::MAX;

    fn endless() -> Box<Violation> {
        Box::new(Violation {
            most: 20,
            wait: MAX,
            ..*violation()
        })
    }

    #[test]
    fn types_tell_reasons_apart_outside_of_429() {
        let kind = |rejection| parsed(&answer(&rejection, "id"))["type"].clone();
        let (retry_after, by) = (Duration::ZERO, SettingId::URI);
        assert_eq!(kind(Rejection::NoRoute), "urn:problem-type:gateway:no_route");
        assert_ne!(
            kind(Rejection::BreakerOpen { retry_after, by }),
            kind(Rejection::BulkheadFull { retry_after, by })
        );
    }

    #[test]
    fn hostile_text_stays_inside_its_string() {
        for id in ["", "a\"b", "a\\", "a\u{0}b\nc", "ünï", "\",\"status\":200,\"x\":\""] {
            let document = parsed(&answer(&Rejection::NoRoute, id));
            assert_eq!(
                (&document["request_id"], &document["status"]),
                (&id.into(), &404.into()),
                "{id:?}"
            );
        }
    }

    #[test]
    fn problems_follow_the_published_vectors() {
        let text = include_str!("../../fixtures/vectors/headers.json");
        let file: Value = serde_json::from_str(text).expect("the vectors are JSON");
        let (mut lints, mut emits) = (0, 0);
        for case in file["cases"].as_array().unwrap() {
            if case["class"] == "lint_problem" {
                let status = case["http_status"].as_u64().unwrap() as u16;
                assert_eq!(
                    case["expect"]["valid"],
                    is_problem(&case["value"], status),
                    "{}",
                    case["id"]
                );
                lints += 1;
            }
            if case["class"] == "emit" && case["kind"] == "problem" && case["input"]["status"] == 429 {
                let mut violation = violation();
                violation.limits.truncate(1);
                let ours = parsed(&answer(&Rejection::RateLimited(violation), "id"));
                for key in ["type", "status", "violated-policies"] {
                    assert_eq!(ours[key], case["expect"]["value"][key], "{}", case["id"]);
                }
                emits += 1;
            }
        }
        assert_eq!((lints, emits), (7, 1));
    }

    /// Checks RFC 9457 section 3.1: the types of the members, and that `status` is the answer's own.
    fn is_problem(document: &Value, status: u16) -> bool {
        let Value::Object(members) = document else { return false };
        members.iter().all(|(name, value)| match name.as_str() {
            "type" | "title" | "detail" | "instance" => value.is_string(),
            "status" => value.as_u64() == Some(status.into()),
            "violated-policies" => value.as_array().is_some_and(|names| names.iter().all(Value::is_string)),
            _ => true,
        })
    }

    fn one_of_each() -> Vec<Rejection> {
        let (retry_after, why) = (Duration::from_millis(1), "it does not \"fit\"");
        let by = SettingId::URI;
        let challenge = Arc::new(Challenge {
            www_authenticate: HeaderValue::from_static("Bearer"),
            hint: "Send an API key in x-api-key.".into(),
            by,
        });
        vec![
            Rejection::malformed(why),
            Rejection::FieldNotOffered { why: why.into(), by },
            Rejection::CredentialsMissing {
                challenge: Arc::clone(&challenge),
            },
            Rejection::CredentialsInvalid {
                challenge: Arc::clone(&challenge),
            },
            Rejection::CredentialsExpired { challenge },
            Rejection::NotAllowed { why, by },
            Rejection::TenantDisabled(by),
            Rejection::AddressNotAllowed(by),
            Rejection::OriginNotAllowed(by),
            Rejection::IdempotencyKeyMissing(by),
            Rejection::IdempotencyKeyInvalid { why, by },
            Rejection::CostUnknown { what: why.into(), by },
            Rejection::CostTooHigh { most: 1000, by },
            Rejection::NoRoute,
            Rejection::MethodNotAllowed {
                allow: HeaderValue::from_static("GET, HEAD"),
                by: None,
            },
            Rejection::RequestTimeout(Some(by)),
            Rejection::IdempotencyKeyInUse(by),
            Rejection::OutcomeUnknown {
                kept_for: Duration::from_secs(60),
                by,
            },
            Rejection::AnswerNotKept { status: 201, by },
            Rejection::BodyTooLarge(Configured { value: 1024, by }),
            Rejection::UriTooLong,
            Rejection::IdempotencyKeyReused(by),
            Rejection::WebSocketVersion,
            Rejection::RateLimited(violation()),
            Rejection::QuotaExhausted(violation()),
            Rejection::TooManyInFlight(violation()),
            Rejection::HeadersTooLarge(by),
            Rejection::Internal,
            Rejection::BackendUnreached(by),
            Rejection::BackendBroken(by),
            Rejection::BackendInvalid(by),
            Rejection::BulkheadFull { retry_after, by },
            Rejection::BulkheadTimeout { retry_after, by },
            Rejection::BreakerOpen { retry_after, by },
            Rejection::NoEndpoint { retry_after, by },
            Rejection::Overloaded { retry_after, by: None },
            Rejection::KeysUnavailable { retry_after, by: None },
            Rejection::IdentityUnavailable {
                retry_after,
                by: SettingId::URI,
            },
            Rejection::LimitsUnavailable(by),
            Rejection::IdempotencyUnavailable(by),
            Rejection::IdempotencyFull { retry_after, by },
            Rejection::Draining,
            Rejection::OutOfTime(None),
            Rejection::BackendTimeout(by),
            Rejection::CallerGone,
        ]
    }

    fn violation() -> Box<Violation> {
        Box::new(Violation {
            most: 20,
            limits: vec!["free".into(), "a \"quoted\" one".into()],
            by: SettingId::HEAD_BYTES,
            wait: Duration::from_millis(2001),
            policy: HeaderValue::from_static(r#""free";q=20;w=2"#),
            state: HeaderValue::from_static(r#""free";r=0;t=3"#),
        })
    }

    fn parsed(response: &Response<Bytes>) -> Value {
        serde_json::from_slice(response.body()).expect("the body is JSON")
    }

    fn field<'a>(response: &'a Response<Bytes>, name: &str) -> Option<&'a str> {
        response.headers().get(name).map(|value| value.to_str().unwrap())
    }
}
