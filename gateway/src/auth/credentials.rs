//! Reads the credentials that a request's header fields present, without verifying them.
//!
//! A field that appears twice is refused: another reader of the request might use the other value. Only the requested
//! kinds are read. An `Authorization` field with another scheme belongs to the backend and stays unread.

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};

use crate::auth::check::Check;
use crate::message::FieldMap;

/// Credentials of one request, borrowed from its header fields.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Presented<'a> {
    pub api_key: Option<&'a [u8]>,
    pub token: Option<&'a str>,
    /// User name and password in base64.
    pub password: Option<&'a str>,
}

impl<'a> Presented<'a> {
    /// Reads the credentials of the requested kinds. `api_key` is the header field of API keys, if those are requested.
    pub(crate) fn read(
        headers: &'a FieldMap,
        api_key: Option<&HeaderName>,
        tokens: bool,
        passwords: bool,
    ) -> Result<Self, Check> {
        let mut presented = Self::default();
        if let Some(name) = api_key
            && let Some(value) = only(headers, name)?
        {
            if value.is_empty() {
                return Err(Check::HeaderMalformed);
            }
            presented.api_key = Some(value.as_bytes());
        }
        if (tokens || passwords)
            && let Some(value) = only(headers, &AUTHORIZATION)?
        {
            if tokens {
                presented.token = after(b"bearer", value)?;
            }
            if passwords {
                presented.password = after(b"basic", value)?;
            }
        }
        Ok(presented)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.api_key.is_none() && self.token.is_none() && self.password.is_none()
    }
}

/// Whether `Authorization` has the scheme `Basic`.
pub(crate) fn has_password(headers: &FieldMap) -> bool {
    let value = headers.get(AUTHORIZATION);
    value.is_some_and(|value| !matches!(after(b"basic", value), Ok(None)))
}

fn only<'a>(headers: &'a FieldMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Check> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => Err(Check::HeaderRepeated),
    }
}

/// Returns the credential after the scheme `wanted` (in lower case). The scheme is case-insensitive, and is followed by
/// spaces and one token (RFC 6750 section 2.1, RFC 7617 section 2, RFC 9110 section 11.4).
fn after<'a>(wanted: &[u8], value: &'a HeaderValue) -> Result<Option<&'a str>, Check> {
    let bytes = value.as_bytes();
    let (scheme, rest) = bytes.split_at(bytes.iter().position(|byte| *byte == b' ').unwrap_or(bytes.len()));
    if !scheme.eq_ignore_ascii_case(wanted) {
        return Ok(None);
    }
    let token = std::str::from_utf8(rest)
        .map_err(|_| Check::HeaderMalformed)?
        .trim_start_matches(' ');
    // Looks at every byte: without an early end, the loop takes several at a time.
    let is_graphic = token
        .bytes()
        .fold(true, |so_far, byte| so_far & byte.is_ascii_graphic());
    if token.is_empty() || !is_graphic {
        return Err(Check::HeaderMalformed);
    }
    Ok(Some(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: HeaderName = HeaderName::from_static("x-api-key");

    #[test]
    fn headers_carry_what_they_may() {
        let check = |fields: &[(&'static str, &[u8])], expected: Result<Presented<'_>, Check>| {
            let mut headers = FieldMap::new();
            for (name, value) in fields {
                headers.append(*name, HeaderValue::from_bytes(value).unwrap());
            }
            let read = Presented::read(&headers, Some(&KEY), true, true);
            assert_eq!(read, expected, "{headers:?}");
        };
        let nothing = || Ok(Presented::default());
        let token = |token| {
            Ok(Presented {
                token: Some(token),
                ..Presented::default()
            })
        };
        check(&[], nothing());
        check(
            &[("x-api-key", b"k")],
            Ok(Presented {
                api_key: Some(b"k"),
                ..Presented::default()
            }),
        );
        check(
            &[("x-api-key", b"\xff")],
            Ok(Presented {
                api_key: Some(b"\xff"),
                ..Presented::default()
            }),
        );
        check(&[("x-api-key", b"")], Err(Check::HeaderMalformed));
        check(&[("x-api-key", b"k"), ("x-api-key", b"k")], Err(Check::HeaderRepeated));
        check(&[("authorization", b"Bearer a.b.c")], token("a.b.c"));
        check(&[("authorization", b"bEARER a.b.c")], token("a.b.c"));
        check(&[("authorization", b"Bearer   a.b.c")], token("a.b.c"));
        check(&[("authorization", b"Bearer\ta.b.c")], nothing());
        check(&[("authorization", b"Bearer")], Err(Check::HeaderMalformed));
        check(&[("authorization", b"Bearer a.b.c junk")], Err(Check::HeaderMalformed));
        check(
            &[("authorization", b"Bearer a.\xc3\xa9.c")],
            Err(Check::HeaderMalformed),
        );
        check(&[("authorization", b"Bearer \xff")], Err(Check::HeaderMalformed));
        check(&[("authorization", b"a.b.c")], nothing());
        check(
            &[("authorization", b"basic YTpi")],
            Ok(Presented {
                password: Some("YTpi"),
                ..Presented::default()
            }),
        );
        check(&[("authorization", b"Basic")], Err(Check::HeaderMalformed));
        check(&[("authorization", b"Basic YTpi YTpi")], Err(Check::HeaderMalformed));
        check(&[("authorization", b"Digest YTpi")], nothing());
        check(
            &[("authorization", b"Bearer a"), ("authorization", b"Bearer a")],
            Err(Check::HeaderRepeated),
        );
        check(
            &[("authorization", b"Basic a"), ("authorization", b"Bearer a")],
            Err(Check::HeaderRepeated),
        );
        check(
            &[
                ("cookie", b"authorization=Bearer a"),
                ("x-forwarded-authorization", b"Bearer a"),
            ],
            nothing(),
        );
        check(
            &[("x-api-key", b"k"), ("authorization", b"Bearer a")],
            Ok(Presented {
                api_key: Some(b"k"),
                token: Some("a"),
                password: None,
            }),
        );
    }

    #[test]
    fn kinds_that_are_not_wanted_are_not_read() {
        let mut headers = FieldMap::new();
        headers.append("x-api-key", HeaderValue::from_static("k"));
        headers.append("x-api-key", HeaderValue::from_static("k"));
        headers.append(AUTHORIZATION, HeaderValue::from_static("Bearer"));
        assert_eq!(Presented::read(&headers, None, false, false), Ok(Presented::default()));
        let mut headers = FieldMap::new();
        headers.append(AUTHORIZATION, HeaderValue::from_static("Basic YTpi"));
        assert_eq!(Presented::read(&headers, None, true, false), Ok(Presented::default()));
    }
}
