//! Says which failures of an attempt may be retried, for which requests, and how long to wait before.
//!
//! `judge` decides which side caused the end of an attempt.

use std::collections::BTreeSet;
use std::time::Duration;

use http::{Method, StatusCode, header};

use super::fault::Fault;
use crate::clock;
use crate::header_fields::GRPC_RETRY_PUSHBACK_MS;
use crate::message::FieldMap;

/// Failures after which a call is retried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryOn {
    pub unreached: bool,
    pub broken: bool,
    pub timed_out: bool,
    pub statuses: BTreeSet<u16>,
}

/// Rules for which requests may be sent twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeatable {
    pub methods: Vec<Method>,
    /// Whether an `Idempotency-Key` field admits any method (draft-ietf-httpapi-idempotency-key-header).
    pub with_idempotency_key: bool,
}

impl Repeatable {
    pub fn admits(&self, method: &Method, headers: &FieldMap) -> bool {
        self.methods.contains(method) || self.with_idempotency_key && headers.contains_key("idempotency-key")
    }
}

impl RetryOn {
    /// Whether a fault may be retried. `repeatable` says whether the request may be sent twice; an unsent request
    /// always may.
    pub fn admits_fault(&self, fault: Fault, repeatable: bool) -> bool {
        match fault {
            Fault::Unreached => self.unreached,
            Fault::TimedOut { sent: false } => self.timed_out,
            Fault::TimedOut { sent: true } => self.timed_out && repeatable,
            Fault::Broken | Fault::Invalid => self.broken && repeatable,
            Fault::BodyGone | Fault::Upload(_) => false,
        }
    }

    pub fn admits_status(&self, status: StatusCode, repeatable: bool) -> bool {
        repeatable && self.statuses.contains(&status.as_u16())
    }
}

/// Backend's request to wait before a retry, or not to retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushback {
    After(Duration),
    Never,
}

/// Returns the pushback of an answer: gRPC's field if there is one, because it is meant for retries; else
/// `Retry-After`.
pub(crate) fn pushback(headers: &FieldMap) -> Option<Pushback> {
    let mut grpc = headers.get_all(&GRPC_RETRY_PUSHBACK_MS);
    if let Some(value) = grpc.next() {
        return Some(match grpc_wait(value.as_bytes()) {
            Some(wait) if grpc.next().is_none() => Pushback::After(wait),
            _ => Pushback::Never,
        });
    }
    retry_after(headers).map(Pushback::After)
}

/// Returns the wait in the answer's `Retry-After`.
pub(crate) fn retry_after(headers: &FieldMap) -> Option<Duration> {
    wait_of(headers.get(header::RETRY_AFTER)?.to_str().ok()?, clock::unix_time())
}

/// Parses the digits of a signed 32-bit number, in milliseconds. Any other value, also a negative one, forbids a retry
/// (gRFC A6).
fn grpc_wait(value: &[u8]) -> Option<Duration> {
    let digits = std::str::from_utf8(value).ok()?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let millis = digits.parse::<i32>().ok().filter(|_| is_number)?;
    Some(Duration::from_millis(millis.unsigned_abs().into()))
}

/// Parses a `Retry-After` into a wait: seconds, or a date in any of HTTP's three formats (RFC 9110 sections 10.2.3 and
/// 5.6.7). Returns `None` for any other value. `now` is the gateway's own time since 1970; the answer's `Date` is not
/// used, because it may come from a wrong clock or from a cache. White space around a value is not part of it (section
/// 5.5), so a value with white space is invalid.
pub fn wait_of(value: &str, now: Duration) -> Option<Duration> {
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(std::time::UNIX_EPOCH).ok()?.saturating_sub(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::fault::Upload;

    #[test]
    fn what_may_be_sent_again() {
        let on = RetryOn {
            unreached: true,
            broken: true,
            timed_out: true,
            statuses: [503].into(),
        };
        let check = |fault, repeatable, again| assert_eq!(on.admits_fault(fault, repeatable), again, "{fault:?}");
        check(Fault::Unreached, false, true);
        check(Fault::TimedOut { sent: false }, false, true);
        check(Fault::TimedOut { sent: true }, false, false);
        check(Fault::Broken, false, false);
        check(Fault::Broken, true, true);
        check(Fault::Upload(Upload::TooSlow), true, false);
        assert!(on.admits_status(StatusCode::SERVICE_UNAVAILABLE, true));
        assert!(!on.admits_status(StatusCode::SERVICE_UNAVAILABLE, false));
        assert!(!on.admits_status(StatusCode::INTERNAL_SERVER_ERROR, true));
    }

    #[test]
    fn retry_after_in_both_forms() {
        let now = Duration::from_secs(784_111_777);
        let check = |value, seconds: Option<u64>| {
            assert_eq!(wait_of(value, now), seconds.map(Duration::from_secs), "{value:?}");
        };
        check("120", Some(120));
        check("5", Some(5));
        check(" 5", None);
        check("Sun, 06 Nov 1994 08:49:47 GMT", Some(10));
        check("Sunday, 06-Nov-94 08:49:47 GMT", Some(10));
        check("Sun Nov  6 08:49:47 1994", Some(10));
        check("Sun, 06 Nov 1994 08:49:07 GMT", Some(0));
        check("0", Some(0));
        check("99999999999999999999999", Some(u64::MAX));
        check("-1", None);
        check("1.5", None);
        check("", None);
        check("soon", None);
        check("+5", None);
        check("Sun, 06 Nov 1994 08:49:47 CET", None);
        check("Sun, 31 Feb 1994 08:49:47 GMT", None);
    }

    #[test]
    fn a_backend_may_ask_for_time_or_for_good() {
        fn check(fields: &[(&'static str, &'static str)], expected: Option<Pushback>) {
            let fields = fields.iter().map(|(name, value)| {
                let name = http::HeaderName::from_static(name);
                (name, http::HeaderValue::from_static(value))
            });
            let mut headers = FieldMap::new();
            for (name, value) in fields {
                headers.append(name, value);
            }
            assert_eq!(pushback(&headers), expected, "{headers:?}");
        }
        const GRPC: &str = "grpc-retry-pushback-ms";
        let after = |millis| Some(Pushback::After(Duration::from_millis(millis)));
        check(&[], None);
        check(&[("retry-after", "2")], after(2_000));
        check(&[("retry-after", "soon")], None);
        check(&[(GRPC, "250")], after(250));
        check(&[(GRPC, "0")], after(0));
        check(&[(GRPC, "2147483647")], after(2_147_483_647));
        check(&[(GRPC, "250"), ("retry-after", "2")], after(250));
        for never in ["-1", "", "+5", "soon", "1.5", "2147483648"] {
            check(&[(GRPC, never)], Some(Pushback::Never));
        }
        check(&[(GRPC, "250"), (GRPC, "250")], Some(Pushback::Never));
    }
}
