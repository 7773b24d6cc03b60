//! Writes `Proxy-Status` (RFC 9209): one list member for each failed part, for troubleshooting.

use http::{HeaderValue, StatusCode};

use super::fault::{Cause, Missing, PartFault};
use crate::rejection::Reason;

/// List member that describes a request which the gateway forwarded or could not forward.
#[derive(Debug, Clone, Copy, Default)]
pub struct Member<'a> {
    /// Registered error type (RFC 9209 section 2.3).
    pub error: Option<&'a str>,
    pub received_status: Option<StatusCode>,
    /// Free text. Bytes other than printable ASCII become `?`.
    pub details: Option<&'a str>,
}

/// Name of this gateway in the list. The machine's own name stays private.
pub const NAME: &str = "gateway";

impl Member<'_> {
    /// Writes the member, for example `gateway;error=http_response_timeout;details="orders: backend_timeout"`.
    ///
    /// # Panics
    /// If `error` is not a token.
    pub fn to_value(&self) -> HeaderValue {
        let mut text = String::from(NAME);
        if let Some(error) = self.error {
            text.push_str(";error=");
            text.push_str(error);
        }
        if let Some(status) = self.received_status {
            text.push_str(";received-status=");
            text.push_str(status.as_str());
        }
        if let Some(details) = self.details {
            text.push_str(";details=\"");
            push_string(&mut text, details);
            text.push('"');
        }
        HeaderValue::try_from(text).expect("only printable ASCII was written")
    }
}

/// Makes the list member of a failed part.
pub(super) fn entry(part: &str, fault: &PartFault) -> HeaderValue {
    let mut details = format!("{part}: {}", fault.reason());
    if let Some(served) = &fault.served {
        details.push_str(&format!("; served {served}"));
    }
    Member {
        error: error_type(&fault.cause),
        received_status: fault.backend_status(),
        details: Some(&details),
    }
    .to_value()
}

/// Appends the inside of a structured-field string (RFC 9651 section 3.3.3), which allows only printable ASCII.
fn push_string(out: &mut String, text: &str) {
    for char in text.chars() {
        match char {
            '"' | '\\' => out.extend(['\\', char]),
            ' '..='~' => out.push(char),
            _ => out.push('?'),
        }
    }
}

/// Returns the registered error type (RFC 9209 section 2.3). A status outside 2xx is not an error there, because the
/// answer was received.
fn error_type(cause: &Cause) -> Option<&'static str> {
    Some(match cause {
        Cause::Status(_) | Cause::Incomplete => return None,
        Cause::Call(reason) => error_of(*reason),
        Cause::InvalidJson | Cause::TargetMissing => "http_protocol_error",
        Cause::UnsupportedEncoding => "http_response_content_coding",
        Cause::TooLarge => "http_response_body_size",
        Cause::Elements { first, .. } => return error_type(&first.cause),
        Cause::NotAnArray(Missing::InAnswer) => "http_protocol_error",
        Cause::TooManyElements(Missing::InAnswer) => "http_response_body_size",
        // No backend was called, and the caller's request is at fault (RFC 9209 section 2.3.29).
        Cause::NotAnArray(Missing::InRequest) | Cause::TooManyElements(Missing::InRequest) => "http_request_error",
        Cause::ValueMissing(_) | Cause::NeedFailed(..) => "proxy_internal_response",
        Cause::NotMergeable | Cause::Conflict => "proxy_configuration_error",
    })
}

/// Registered error type of a call that gave no answer.
pub const fn error_of(reason: Reason) -> &'static str {
    match reason {
        Reason::BackendUnreached | Reason::BreakerOpen | Reason::NoEndpoint => "destination_unavailable",
        Reason::BackendBroken => "connection_terminated",
        Reason::BackendInvalid => "http_protocol_error",
        Reason::BackendTimeout | Reason::OutOfTime => "http_response_timeout",
        Reason::BulkheadFull | Reason::BulkheadTimeout => "connection_limit_reached",
        Reason::Internal => "proxy_internal_error",
        _ => "proxy_internal_response",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_structured_fields() {
        let check = |part: &str, cause, expected: &str| assert_eq!(entry(part, &PartFault::new(cause)), expected);
        check(
            "orders",
            Cause::Call(Reason::BackendTimeout),
            r#"gateway;error=http_response_timeout;details="orders: backend_timeout""#,
        );
        check(
            "orders",
            Cause::Status(StatusCode::SERVICE_UNAVAILABLE),
            r#"gateway;received-status=503;details="orders: backend_status""#,
        );
        check(
            "a\"b\\c\u{e9}\n",
            Cause::TooLarge,
            r#"gateway;error=http_response_body_size;details="a\"b\\c??: too_large""#,
        );
    }

    #[test]
    fn every_error_type_is_registered() {
        const REGISTERED: [&str; 7] = [
            "connection_limit_reached",
            "connection_terminated",
            "destination_unavailable",
            "http_protocol_error",
            "http_response_timeout",
            "proxy_internal_error",
            "proxy_internal_response",
        ];
        for reason in Reason::ALL {
            assert!(
                REGISTERED.contains(&error_type(&Cause::Call(reason)).unwrap()),
                "{reason:?}"
            );
        }
    }
}
