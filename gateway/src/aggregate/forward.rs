//! Which of the caller's header fields a part gets.
//!
//! Invariant: unless the config says so, no backend of a part gets a cookie, or a credential that the gateway did not
//! take: it may be meant for another backend.

use std::sync::Arc;

use http::{HeaderName, header};

use crate::headers::rules::why_kept;

pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The caller's header fields that a part gets, beside those that the gateway writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forwarded {
    /// All but cookies, and credentials that were not taken.
    AllButCredentials,
    All,
    Named(Arc<[HeaderName]>),
}

impl Forwarded {
    /// Whether the part gets a field. `not_taken` are fields with credentials that the gateway did not take.
    ///
    /// A list does not concern the idempotency key: each part gets one of its own, which keeps retries safe.
    pub(super) fn has(&self, name: &HeaderName, not_taken: &[HeaderName]) -> bool {
        match self {
            Self::All => true,
            Self::AllButCredentials => *name != header::COOKIE && !not_taken.contains(name),
            Self::Named(names) => names.contains(name) || *name == IDEMPOTENCY_KEY || why_kept(name).is_some(),
        }
    }

    /// Returns why no part gets a field of the caller's, whatever is written.
    pub fn why_never(name: &HeaderName) -> Option<&'static str> {
        if is_callers_alone(name) {
            return Some("it is about the caller's own body, or about the form of the answer");
        }
        match name.as_str() {
            "accept" | "accept-encoding" => Some("parts are asked for plain JSON"),
            "idempotency-key" => Some("each part gets a key of its own"),
            _ => why_kept(name),
        }
    }
}

/// Returns whether a field concerns the caller's own body, its framing, or the form of the answer that the caller
/// wants.
pub(super) fn is_callers_alone(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("content-")
        || name.starts_with("if-")
        || matches!(
            name,
            "digest" | "range" | "repr-digest" | "trailer" | "transfer-encoding"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_gets_what_is_written() {
        let not_taken = [header::AUTHORIZATION, HeaderName::from_static("x-api-key")];
        let named = Forwarded::Named([header::ACCEPT_LANGUAGE, header::COOKIE].into());
        let check = |name: &'static str, expected: [bool; 3]| {
            let name = HeaderName::from_static(name);
            let has = [&Forwarded::AllButCredentials, &Forwarded::All, &named]
                .map(|forwarded| forwarded.has(&name, &not_taken));
            assert_eq!(has, expected, "{name}");
        };
        check("accept-language", [true, true, true]);
        check("user-agent", [true, true, false]);
        check("cookie", [false, true, true]);
        check("authorization", [false, true, false]);
        check("x-api-key", [false, true, false]);
        check("x-other", [true, true, false]);
        // What the gateway writes, and the key that becomes one for the part.
        for name in [
            "x-request-id",
            "traceparent",
            "via",
            "host",
            "x-tenant-id",
            "idempotency-key",
        ] {
            check(name, [true, true, true]);
        }
        assert!(Forwarded::AllButCredentials.has(&header::AUTHORIZATION, &[]));
    }

    #[test]
    fn some_fields_no_part_gets_as_they_are() {
        let is_never = |name: &'static str| Forwarded::why_never(&HeaderName::from_static(name)).is_some();
        for name in [
            "content-type",
            "if-none-match",
            "range",
            "accept",
            "accept-encoding",
            "host",
            "x-tenant-id",
            "idempotency-key",
        ] {
            assert!(is_never(name), "{name}");
        }
        for name in ["cookie", "authorization", "accept-language", "x-anything"] {
            assert!(!is_never(name), "{name}");
        }
    }
}
