//! Names of header fields, and values that tell a caller what is left of its limits and when to come back.
//!
//! `RateLimit-Policy` and `RateLimit` are lists of strings with parameters in the grammar of structured fields
//! (RFC 9651), as draft-ietf-httpapi-ratelimit-headers-11 defines them. Every answer to a charged request holds them,
//! so they are written into one buffer without formatting machinery.
//!
//! Invariant: every name of a limit gives a valid field value.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use smallvec::SmallVec;

/// Addresses that a request has come through.
pub static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Time for an answer in milliseconds. A caller asks for it; the gateway tells a backend what is left.
pub static X_REQUEST_TIMEOUT_MS: HeaderName = HeaderName::from_static("x-request-timeout-ms");
/// Time for an answer to a gRPC call (PROTOCOL-HTTP2, *Timeout*).
pub static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// Number of the attempt, counted from 1.
pub static X_ATTEMPT: HeaderName = HeaderName::from_static("x-attempt");
/// Mark of a copy of a request, whose answer nobody gets.
pub static X_GATEWAY_MIRROR: HeaderName = HeaderName::from_static("x-gateway-mirror");
/// Status with which a gRPC call ended.
pub static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// Time in milliseconds after which a backend may be tried again (gRFC A6, *Pushback*).
pub static GRPC_RETRY_PUSHBACK_MS: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// One item of `RateLimit-Policy`: the amount that a limit grants.
#[derive(Debug, Clone, Copy)]
pub struct Grant<'a> {
    pub limit: &'a str,
    /// Requests, or tokens of cost, in one window; where there is no window, requests at once.
    pub quota: u64,
    /// Window in seconds; written as at least 1.
    pub window: Option<u64>,
}

/// One item of `RateLimit`: the amount that is left of a limit.
#[derive(Debug, Clone, Copy)]
pub struct Balance<'a> {
    pub limit: &'a str,
    pub remaining: u64,
    /// Seconds until there is more.
    pub reset: u64,
}

/// Returns a value like `"free";q=20;w=2, "daily";q=1000;w=86400, "uploads";q=5;qu="concurrent-requests"`.
pub fn ratelimit_policy<'a>(grants: impl IntoIterator<Item = Grant<'a>>) -> HeaderValue {
    let mut out = Text::new();
    for Grant { limit, quota, window } in grants {
        put_name(&mut out, limit);
        put_parameter(&mut out, *b";q=", quota);
        match window {
            Some(window) => put_parameter(&mut out, *b";w=", window.max(1)),
            None => out.extend_from_slice(b";qu=\"concurrent-requests\""),
        }
    }
    into_value(&out)
}

/// Returns a value like `"free";r=7;t=1, "daily";r=800;t=3600`.
pub fn ratelimit<'a>(balances: impl IntoIterator<Item = Balance<'a>>) -> HeaderValue {
    let mut out = Text::new();
    for Balance {
        limit,
        remaining,
        reset,
    } in balances
    {
        put_name(&mut out, limit);
        put_parameter(&mut out, *b";r=", remaining);
        put_parameter(&mut out, *b";t=", reset);
    }
    let mut value = into_value(&out);
    // It hardly ever comes again, so HTTP/2 need not remember it.
    value.set_sensitive(true);
    value
}

/// Longest wait that a caller is told, except for a quota. A caller that has to wait longer is told the rest after
/// that.
pub const LONGEST_WAIT: Duration = Duration::from_secs(86_400);

/// Longest wait that a caller is told for a quota: the longest month, and a day for clocks that differ.
pub const LONGEST_RENEWAL: Duration = Duration::from_secs(32 * 86_400);

/// Returns `Retry-After` in seconds (RFC 9110 section 10.2.3): rounded up, at least 1, at most [`LONGEST_RENEWAL`].
pub fn retry_after(wait: Duration) -> HeaderValue {
    number(whole_seconds(wait.min(LONGEST_RENEWAL)))
}

/// Returns the whole seconds after which `wait` is over: rounded up, at least 1.
pub const fn whole_seconds(wait: Duration) -> u64 {
    let up = wait.as_secs().saturating_add((wait.subsec_nanos() > 0) as u64);
    if up == 0 { 1 } else { up }
}

/// Buffer for a field value; few values are longer.
type Text = SmallVec<[u8; 128]>;

/// Decimal digits of a number.
pub(crate) struct Digits {
    digits: [u8; 20],
    start: usize,
}

impl Digits {
    pub(crate) fn of(mut number: u64) -> Self {
        let mut digits = [0; 20];
        let mut start = digits.len();
        loop {
            start -= 1;
            digits[start] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return Self { digits, start };
            }
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.digits[self.start..]
    }
}

/// Returns a number as a value, in one allocation. The conversion of `http` makes two.
pub(crate) fn number(number: u64) -> HeaderValue {
    HeaderValue::from_bytes(Digits::of(number).as_bytes()).expect("digits")
}

fn put_name(out: &mut Text, name: &str) {
    if !out.is_empty() {
        out.extend_from_slice(b", ");
    }
    put_string(out, name);
}

fn put_parameter(out: &mut Text, key: [u8; 3], number: u64) {
    // RFC 9651 section 3.3.1: an Integer has at most 15 digits.
    const MAX: u64 = 999_999_999_999_999;
    let Digits { mut digits, start } = Digits::of(number.min(MAX));
    // In one piece, which costs less than two.
    let start = start - key.len();
    digits[start..start + key.len()].copy_from_slice(&key);
    out.extend_from_slice(&digits[start..]);
}

/// Writes a String of RFC 9651 section 3.3.3. Such a string holds printable ASCII only, so any other byte is
/// percent-encoded.
fn put_string(out: &mut Text, text: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.push(b'"');
    for &byte in text.as_bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b' '..=b'~' => out.push(byte),
            _ => out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
        }
    }
    out.push(b'"');
}

fn into_value(out: &Text) -> HeaderValue {
    HeaderValue::from_bytes(out).expect("only printable ASCII was written")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_makes_a_valid_field() {
        fn check(name: &str, expected: &str) {
            let written = ratelimit([Balance {
                limit: name,
                remaining: 1,
                reset: 2,
            }]);
            assert_eq!(written.to_str().unwrap(), expected);
        }
        check("free", r#""free";r=1;t=2"#);
        check("a b", r#""a b";r=1;t=2"#);
        check(r#"a"b\c"#, r#""a\"b\\c";r=1;t=2"#);
        check("grün", r#""gr%C3%BCn";r=1;t=2"#);
        check("two\r\nlines", r#""two%0D%0Alines";r=1;t=2"#);
        check("", r#""";r=1;t=2"#);
    }

    #[test]
    fn numbers_stay_within_the_grammar() {
        let written = ratelimit_policy([Grant {
            limit: "a",
            quota: u64::MAX,
            window: Some(0),
        }]);
        assert_eq!(written.to_str().unwrap(), r#""a";q=999999999999999;w=1"#);
        assert_eq!(ratelimit([]), "");
    }

    #[test]
    fn decimal_digits_are_those_of_the_standard_library() {
        for number in [0, 1, 9, 10, 99, 100, 1_234_567_890, u64::MAX] {
            assert_eq!(Digits::of(number).as_bytes(), number.to_string().as_bytes());
        }
    }

    #[test]
    fn a_wait_is_rounded_up_and_never_zero() {
        for (nanos, seconds) in [
            (0, 1),
            (1, 1),
            (999_999_999, 1),
            (1_000_000_000, 1),
            (1_000_000_001, 2),
            (29_500_000_000, 30),
        ] {
            assert_eq!(whole_seconds(Duration::from_nanos(nanos)), seconds, "{nanos} ns");
        }
        assert_eq!(whole_seconds(Duration::MAX), u64::MAX);
    }

    #[test]
    fn nobody_is_told_to_come_back_in_another_life() {
        let check = |wait, expected: &str| assert_eq!(retry_after(wait), expected, "{wait:?}");
        check(Duration::from_secs(31 * 86_400), "2678400");
        check(Duration::from_secs(33 * 86_400), "2764800");
        check(Duration::MAX, "2764800");
        check(Duration::ZERO, "1");
    }
}
