//! Reads what a request's fields ask of the gateway itself, before they are removed.

use std::time::Duration;

use http::HeaderName;
use http::header::EXPECT;

use crate::header_fields::{GRPC_TIMEOUT, X_ATTEMPT, X_REQUEST_TIMEOUT_MS};
use crate::headers::{Rejection, TE, lists, malformed};
use crate::message::FieldMap;

/// Wishes of a caller that are for the gateway, not for the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestHints {
    /// Time that the caller will wait for the answer.
    pub deadline: Option<Duration>,
    /// Whether a trusted hop says that the request is a retry. Such a request is not retried, because retries of
    /// retries multiply.
    pub is_retry: bool,
    /// Whether the caller reads trailers (`TE: trailers`).
    pub trailers: bool,
    /// Whether the caller waits for `100 Continue` before it sends its body.
    pub expects: bool,
}

impl RequestHints {
    pub(crate) fn read(headers: &FieldMap, trusted_peer: bool) -> Result<Self, Rejection> {
        let attempt = || headers.get(&X_ATTEMPT)?.to_str().ok()?.parse::<u32>().ok();
        Ok(Self {
            deadline: wanted_deadline(headers)?,
            is_retry: trusted_peer && attempt().is_some_and(|attempt| attempt > 1),
            trailers: lists(headers, &TE, "trailers"),
            expects: headers.contains_key(EXPECT),
        })
    }
}

/// Returns the shortest wait that the caller names in `x-request-timeout-ms` (milliseconds) or `grpc-timeout`.
///
/// # Errors
/// [`Rejection::MalformedRequest`] for a field that is repeated or not a number; a gRPC timeout is at most eight digits
/// and a unit (PROTOCOL-HTTP2, *Timeout*). An unreadable deadline must not count as none.
pub fn wanted_deadline(headers: &FieldMap) -> Result<Option<Duration>, Rejection> {
    let timeout = only(headers, &X_REQUEST_TIMEOUT_MS, milliseconds)?;
    let grpc = only(headers, &GRPC_TIMEOUT, grpc_timeout)?;
    Ok(timeout.into_iter().chain(grpc).min())
}

fn only(
    headers: &FieldMap,
    name: &HeaderName,
    read: impl Fn(&[u8]) -> Option<Duration>,
) -> Result<Option<Duration>, Rejection> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => match read(value.as_bytes()) {
            Some(wish) => Ok(Some(wish)),
            None => Err(malformed(
                "a deadline is a whole number of milliseconds, or a gRPC timeout",
            )),
        },
        (Some(_), Some(_)) => Err(malformed("a deadline is given more than once")),
    }
}

fn milliseconds(text: &[u8]) -> Option<Duration> {
    number(text).map(Duration::from_millis)
}

fn grpc_timeout(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.len() > 8 {
        return None;
    }
    let amount = number(digits)?;
    Some(match unit {
        b'H' => Duration::from_secs(amount * 3600),
        b'M' => Duration::from_secs(amount * 60),
        b'S' => Duration::from_secs(amount),
        b'm' => Duration::from_millis(amount),
        b'u' => Duration::from_micros(amount),
        b'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// Reads digits only: no sign, no space.
fn number(digits: &[u8]) -> Option<u64> {
    let plain = digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::tests::{map, why};

    #[test]
    fn the_shortest_wish_wins_and_garbage_is_refused() {
        let check = |given: &[(&str, &str)], expected: Duration| {
            assert_eq!(
                wanted_deadline(&map(given)).expect("well formed"),
                Some(expected),
                "{given:?}"
            );
        };
        assert!(matches!(wanted_deadline(&map(&[])), Ok(None)));
        check(&[("x-request-timeout-ms", "250")], Duration::from_millis(250));
        check(&[("x-request-timeout-ms", "0")], Duration::ZERO);
        check(&[("grpc-timeout", "1H")], Duration::from_secs(3600));
        check(&[("grpc-timeout", "2M")], Duration::from_secs(120));
        check(&[("grpc-timeout", "3S")], Duration::from_secs(3));
        check(&[("grpc-timeout", "99999999m")], Duration::from_millis(99_999_999));
        check(&[("grpc-timeout", "5u")], Duration::from_micros(5));
        check(&[("grpc-timeout", "6n")], Duration::from_nanos(6));
        check(
            &[("grpc-timeout", "1S"), ("x-request-timeout-ms", "900")],
            Duration::from_millis(900),
        );
        for bad in [
            "",
            "-1",
            "+1",
            "1.5",
            "1s",
            " 1",
            "1,2",
            "18446744073709551616",
            "\u{661}",
        ] {
            assert!(
                why(wanted_deadline(&map(&[("x-request-timeout-ms", bad)]))).contains("deadline"),
                "{bad}"
            );
        }
        for bad in ["", "S", "1", "1s", "1.5S", "100000000m", "-1S", "1SS"] {
            assert!(
                why(wanted_deadline(&map(&[("grpc-timeout", bad)]))).contains("deadline"),
                "{bad}"
            );
        }
        let twice = map(&[("x-request-timeout-ms", "1"), ("x-request-timeout-ms", "2")]);
        assert!(why(wanted_deadline(&twice)).contains("more than once"));
    }
}
