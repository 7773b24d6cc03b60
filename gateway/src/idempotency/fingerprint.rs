//! Digest of a request: equal requests have equal ones, and no caller can make two requests with the same.

use aws_lc_rs::digest::{Context, SHA256};
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, COOKIE};
use http::{HeaderName, Method};

use super::Fingerprint;
use crate::message::FieldMap;

/// What of a request counts.
pub struct FingerprintInput<'a> {
    pub method: &'a Method,
    /// Path and query as sent.
    pub target: &'a str,
    pub headers: &'a FieldMap,
    /// Fields that count beside `Content-Type` and `Content-Encoding`.
    pub named: &'a [HeaderName],
    /// Whether the caller has no credential of the gateway. What the backend may know it by then counts too.
    pub is_anonymous: bool,
    pub body: &'a [u8],
}

/// Returns the digest of a request.
pub fn fingerprint(input: &FingerprintInput<'_>) -> Fingerprint {
    let mut names = vec![&CONTENT_TYPE, &CONTENT_ENCODING];
    if input.is_anonymous {
        names.extend([&AUTHORIZATION, &COOKIE]);
    }
    names.extend(input.named);
    let mut context = Context::new(&SHA256);
    put(&mut context, input.method.as_str().as_bytes());
    put(&mut context, input.target.as_bytes());
    for name in names {
        let lines = input.headers.get_all(name);
        context.update(&(lines.iter().count() as u64).to_le_bytes());
        for line in lines {
            put(&mut context, line.as_bytes());
        }
    }
    put(&mut context, input.body);
    Fingerprint(finish(context))
}

/// Returns the digest of a list of texts.
pub(super) fn digest<const N: usize>(texts: [&[u8]; N]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for text in texts {
        put(&mut context, text);
    }
    finish(context)
}

/// Adds a text with its length before it, so that different lists of texts have different digests.
fn put(context: &mut Context, text: &[u8]) {
    context.update(&(text.len() as u64).to_le_bytes());
    context.update(text);
}

fn finish(context: Context) -> [u8; 32] {
    let digest = context.finish();
    digest.as_ref().try_into().expect("a SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(
        method: &Method,
        target: &str,
        fields: &[(&'static str, &'static str)],
        body: &[u8],
        is_anonymous: bool,
    ) -> Fingerprint {
        let mut headers = FieldMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        fingerprint(&FingerprintInput {
            method,
            target,
            headers: &headers,
            named: &[HeaderName::from_static("x-account")],
            is_anonymous,
            body,
        })
    }

    #[test]
    fn what_counts_and_what_does_not() {
        let usual = &[("content-type", "application/json"), ("cookie", "a=1")];
        let own = of(&Method::POST, "/checkout?x=1", usual, b"{}", false);
        let same = [
            ("x-request-id", "7"),
            ("content-type", "application/json"),
            ("cookie", "a=2"),
        ];
        assert_eq!(own, of(&Method::POST, "/checkout?x=1", &same, b"{}", false));
        for other in [
            of(&Method::PATCH, "/checkout?x=1", usual, b"{}", false),
            of(&Method::POST, "/checkout?x=2", usual, b"{}", false),
            of(&Method::POST, "/checkout", usual, b"{}", false),
            of(&Method::POST, "/checkout?x=1", usual, b"{ }", false),
            of(&Method::POST, "/checkout?x=1", &[], b"{}", false),
            of(
                &Method::POST,
                "/checkout?x=1",
                &[("content-type", "text/plain")],
                b"{}",
                false,
            ),
            of(
                &Method::POST,
                "/checkout?x=1",
                &[("content-type", "application/json"), ("x-account", "7")],
                b"{}",
                false,
            ),
        ] {
            assert_ne!(own, other);
        }
        let of_nobody = of(&Method::POST, "/checkout?x=1", usual, b"{}", true);
        assert_ne!(
            of_nobody,
            of(&Method::POST, "/checkout?x=1", &same, b"{}", true),
            "another cookie"
        );
    }

    #[test]
    fn texts_do_not_run_together() {
        assert_ne!(digest([b"ab", b"c"]), digest([b"a", b"bc"]));
        assert_ne!(digest([b"a", b""]), digest([b"", b"a"]));
    }
}
