//! Adds fields that tell browsers to handle an answer restrictively.
//!
//! The values are those of the OWASP REST Security and HTTP Headers cheat sheets. A field that the answer has already
//! stays, because its author knows the content better. `Strict-Transport-Security` is sent only over TLS (RFC 6797
//! section 7.2).

use http::header::{
    CONTENT_SECURITY_POLICY, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderName, HeaderValue};

use crate::headers::Scheme;
use crate::message::FieldMap;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecurityHeaders {
    /// Fields for answers that a browser does not display.
    Api,
    /// Fields for pages: their own origin may frame them, and they may load resources.
    Page,
}

impl SecurityHeaders {
    pub fn stamp(self, scheme: Scheme, headers: &mut FieldMap) {
        for (name, value) in self.fields() {
            headers.insert_missing(name, || HeaderValue::from_static(value));
        }
        if scheme == Scheme::Https {
            headers.insert_missing(STRICT_TRANSPORT_SECURITY, || {
                HeaderValue::from_static("max-age=31536000")
            });
        }
    }

    fn fields(self) -> [(HeaderName, &'static str); 5] {
        let (policy, frame, referrer) = match self {
            Self::Api => ("default-src 'none'; frame-ancestors 'none'", "DENY", "no-referrer"),
            Self::Page => (
                "frame-ancestors 'self'; base-uri 'self'; object-src 'none'",
                "SAMEORIGIN",
                "strict-origin-when-cross-origin",
            ),
        };
        [
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (CONTENT_SECURITY_POLICY, policy),
            (X_FRAME_OPTIONS, frame),
            (REFERRER_POLICY, referrer),
            (HeaderName::from_static("x-permitted-cross-domain-policies"), "none"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_keeps_its_own_word() {
        let mut headers = FieldMap::new();
        headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN"));
        SecurityHeaders::Api.stamp(Scheme::Http, &mut headers);
        assert_eq!(headers[X_FRAME_OPTIONS], "SAMEORIGIN");
        assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert!(!headers.contains_key(STRICT_TRANSPORT_SECURITY));
        SecurityHeaders::Page.stamp(Scheme::Https, &mut headers);
        assert_eq!(
            headers[CONTENT_SECURITY_POLICY],
            "default-src 'none'; frame-ancestors 'none'"
        );
        assert!(headers.contains_key(STRICT_TRANSPORT_SECURITY));
        assert_eq!(headers.len(), 6);
    }
}
