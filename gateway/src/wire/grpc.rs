//! Answers gRPC calls as gRPC expects: a rejection is a gRPC status in trailers, under HTTP status 200.
//!
//! A client library reads `grpc-status` and shows `grpc-message`; it would ignore a problem document. The fields that
//! other programs use (`x-gateway-reason`, `retry-after`, `ratelimit`) are kept.
//!
//! See PROTOCOL-HTTP2 of gRPC, *Responses* (Trailers-Only) and *Status message encoding*.

mod messages;

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};

pub use self::messages::Messages;
use crate::header_fields::{GRPC_RETRY_PUSHBACK_MS, GRPC_STATUS};
use crate::message::{FieldMap, Response};
use crate::problem;
use crate::rejection::{GrpcCode, Reason, Rejection};

static GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Whether a message is gRPC: `application/grpc`, with or without a suffix, but not gRPC-Web.
pub fn is_grpc(headers: &FieldMap) -> bool {
    const NAME: &[u8] = b"application/grpc";
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let parted = kind.and_then(|kind| kind.split_at_checked(NAME.len()));
    parted
        .is_some_and(|(name, rest)| name.eq_ignore_ascii_case(NAME) && matches!(rest.first(), None | Some(b'+' | b';')))
}

/// Builds the whole answer to a rejected call. Its head also serves as trailers (Trailers-Only).
pub fn refusal(rejection: &Rejection, request_id: &str) -> Response<Bytes> {
    let (mut head, _) = problem::answer(rejection, request_id).into_parts();
    head.status = StatusCode::OK;
    head.headers.remove(CONTENT_LENGTH);
    head.headers
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let wait = head
        .headers
        .get(RETRY_AFTER)
        .and_then(|wait| wait.to_str().ok()?.parse::<u32>().ok());
    if let Some(seconds) = wait {
        let milliseconds = HeaderValue::from(u64::from(seconds) * 1000);
        head.headers.insert(&GRPC_RETRY_PUSHBACK_MS, milliseconds);
    }
    head.headers
        .extend(status(rejection.reason().grpc_code(), &problem::detail(rejection)));
    Response::from_parts(head, Bytes::new())
}

/// Builds the trailers of an answer that has begun and cannot be completed.
pub fn broken_off(reason: Reason) -> FieldMap {
    let message = match reason {
        Reason::OutOfTime => "the time for this call was over before its answer was complete",
        Reason::Draining => "this instance is shutting down before the answer is complete; call again",
        Reason::RequestTimeout => "the request came too slowly for its answer to be completed",
        Reason::BodyTooLarge => "the request is longer than this route admits; its answer ends here",
        Reason::BulkheadFull => "all places for streams were taken, so this one has ended as a call does; call again",
        Reason::MalformedRequest | Reason::CallerGone => "the request broke off before its answer was complete",
        _ => "the backend broke off before its answer was complete",
    };
    status(reason.grpc_code(), message)
}

/// Builds the trailers of a stream that reached its maximum duration.
pub fn stream_limit_trailers() -> FieldMap {
    status(
        GrpcCode::Unavailable,
        "a stream may live no longer here; call again to go on",
    )
}

/// Returns the status that the field of a head or of trailers states; `None` if it states none.
pub fn stated(status: Option<&HeaderValue>) -> Option<u16> {
    status?.to_str().ok()?.parse().ok()
}

fn status(code: GrpcCode, message: &str) -> FieldMap {
    let mut fields = FieldMap::with_capacity(2);
    fields.insert(&GRPC_STATUS, HeaderValue::from(code as u16));
    fields.insert(&GRPC_MESSAGE, encoded(message));
    fields
}

/// Encodes a message: printable ASCII except `%` is unchanged, all other bytes of the UTF-8 text become `%XX`.
fn encoded(message: &str) -> HeaderValue {
    let mut text = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => text.push(char::from(byte)),
            // Writing to a string cannot fail.
            _ => drop(write!(text, "%{byte:02X}")),
        }
    }
    HeaderValue::try_from(text).expect("printable ASCII is a header value")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn grpc_is_told_by_its_content_type() {
        let check = |text: &'static str, expected| {
            let headers = FieldMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(text))]);
            assert_eq!(is_grpc(&headers), expected, "{text}");
        };
        check("application/grpc", true);
        check("application/grpc+proto", true);
        check("Application/gRPC;charset=utf-8", true);
        check("application/grpc-web", false);
        check("application/grp", false);
        check("application/json", false);
        assert!(!is_grpc(&FieldMap::new()));
    }

    #[test]
    fn a_refusal_is_trailers_alone() {
        let wait = Duration::from_millis(1500);
        let response = refusal(
            &Rejection::BreakerOpen {
                retry_after: wait,
                by: crate::setting::SettingId::URI,
            },
            "req-1",
        );
        assert_eq!(response.status(), StatusCode::OK);
        assert!(response.body().is_empty());
        let expected = [
            ("content-type", "application/grpc"),
            ("grpc-status", "14"),
            ("grpc-retry-pushback-ms", "2000"),
            ("retry-after", "2"),
            ("x-gateway-reason", "breaker_open"),
        ];
        for (name, value) in expected {
            assert_eq!(response.headers()[name], value, "{name}");
        }
        assert!(!response.headers().contains_key(CONTENT_LENGTH));
        let message = response.headers()["grpc-message"].to_str().unwrap();
        assert!(message.ends_with("send it again in 2 s."), "{message}");
    }

    #[test]
    fn a_message_is_printable_ascii() {
        assert_eq!(encoded("50 % of \u{e9}\n"), "50 %25 of %C3%A9%0A");
    }

    #[test]
    fn what_http_calls_502_or_503_is_unavailable() {
        for reason in Reason::ALL {
            let is_unavailable = reason.grpc_code() == GrpcCode::Unavailable;
            assert_eq!(
                is_unavailable,
                [502, 503].contains(&reason.status().as_u16()),
                "{}",
                reason.as_str()
            );
        }
    }
}
