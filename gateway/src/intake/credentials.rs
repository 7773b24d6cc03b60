//! What the headers of a request present as credentials, unverified.
//!
//! A field that comes twice is refused rather than one of the two chosen: whoever reads the request next may
//! choose the other. `Authorization` with another scheme than `Bearer` is not ours and stays unread.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::check::Check;

/// The credentials of one request, borrowed from its headers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Presented<'a> {
    pub api_key: Option<&'a [u8]>,
    pub token: Option<&'a str>,
}

impl<'a> Presented<'a> {
    /// Looks where credentials of the configured kinds are carried.
    pub(super) fn read(headers: &'a HeaderMap, api_key: Option<&HeaderName>, tokens: bool) -> Result<Self, Check> {
        let mut presented = Self::default();
        if let Some(name) = api_key
            && let Some(value) = only(headers, name)?
        {
            if value.is_empty() {
                return Err(Check::HeaderMalformed);
            }
            presented.api_key = Some(value.as_bytes());
        }
        if tokens && let Some(value) = only(headers, &AUTHORIZATION)? {
            presented.token = bearer(value)?;
        }
        Ok(presented)
    }
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Check> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => Err(Check::HeaderRepeated),
    }
}

/// RFC 6750 section 2.1 and RFC 9110 section 11.4: the scheme is case-insensitive, spaces follow, then one token.
fn bearer(value: &HeaderValue) -> Result<Option<&str>, Check> {
    let bytes = value.as_bytes();
    let (scheme, rest) = bytes.split_at(bytes.iter().position(|byte| *byte == b' ').unwrap_or(bytes.len()));
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Ok(None);
    }
    let token = std::str::from_utf8(rest)
        .map_err(|_| Check::HeaderMalformed)?
        .trim_start_matches(' ');
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
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
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, HeaderValue::from_bytes(value).unwrap());
            }
            assert_eq!(Presented::read(&headers, Some(&KEY), true), expected, "{headers:?}");
        };
        let nothing = || Ok(Presented::default());
        let token = |token| {
            Ok(Presented {
                api_key: None,
                token: Some(token),
            })
        };
        check(&[], nothing());
        check(
            &[("x-api-key", b"k")],
            Ok(Presented {
                api_key: Some(b"k"),
                token: None,
            }),
        );
        check(
            &[("x-api-key", b"\xff")],
            Ok(Presented {
                api_key: Some(b"\xff"),
                token: None,
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
        check(&[("authorization", b"Basic YTpi")], nothing());
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
            }),
        );
    }

    #[test]
    fn kinds_that_are_not_configured_are_not_read() {
        let mut headers = HeaderMap::new();
        headers.append("x-api-key", HeaderValue::from_static("k"));
        headers.append("x-api-key", HeaderValue::from_static("k"));
        headers.append(AUTHORIZATION, HeaderValue::from_static("Bearer"));
        assert_eq!(Presented::read(&headers, None, false), Ok(Presented::default()));
    }
}
