//! Refuses a request whose body could be framed in two ways, which request smuggling needs.
//!
//! For HTTP/1, [`crate::wire::http1`] has read the raw bytes and refused what is ambiguous. This file checks the fields
//! themselves in every HTTP version.

use http::header::{CONNECTION, CONTENT_LENGTH, UPGRADE};
use http::{Method, Uri, Version};

use crate::headers::{Rejection, TE, TRANSFER_ENCODING, malformed};
use crate::message::FieldMap;
use crate::setting::SettingId;

/// Checks the number of field lines, at most `most`, and every field that says where the body ends.
///
/// # Errors
/// [`Rejection::HeadersTooLarge`] for too many field lines. [`Rejection::MalformedRequest`] for a transfer coding other
/// than one `chunked` on HTTP/1.1 (the chunks were decoded, and the other codings would be lost), for a
/// `Content-Length` that is not one plain number or stands beside a transfer coding, and for a connection-specific
/// field on HTTP/2 (RFC 9113 section 8.2.2).
pub fn check(version: Version, headers: &FieldMap, most: usize) -> Result<(), Rejection> {
    if headers.len() > most {
        return Err(Rejection::HeadersTooLarge(SettingId::HEAD_FIELDS));
    }
    let coded = headers.contains_key(TRANSFER_ENCODING);
    if coded && (version != Version::HTTP_11 || !is_chunked_or_absent(headers)) {
        return Err(malformed("the only transfer coding is one 'chunked', on HTTP/1.1"));
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if let Some(length) = lengths.next() {
        if coded {
            return Err(malformed("Content-Length and Transfer-Encoding exclude each other"));
        }
        let is_number = !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit);
        if !is_number || lengths.next().is_some() {
            return Err(malformed("Content-Length is not one number"));
        }
    }
    if version >= Version::HTTP_2 {
        let of_connection = [CONNECTION.as_str(), UPGRADE.as_str(), "keep-alive", "proxy-connection"];
        if of_connection.into_iter().any(|name| headers.contains_key(name)) {
            return Err(malformed("HTTP/2 has no connection-specific fields"));
        }
        if !headers.get_all(TE).iter().all(|value| value == "trailers") {
            return Err(malformed("TE on HTTP/2 is 'trailers' or absent"));
        }
    }
    Ok(())
}

/// Checks that the head of an HTTP/2 request has at most `most` bytes. HTTP/1 heads are checked before they are read.
///
/// The size is counted as in RFC 9113 section 6.5.2: names, values, and 32 bytes for each field, pseudo-fields
/// included. These are computed from `method` and `target`.
///
/// # Errors
/// [`Rejection::HeadersTooLarge`].
pub fn check_size(
    version: Version,
    method: &Method,
    target: &Uri,
    headers: &FieldMap,
    most: usize,
) -> Result<(), Rejection> {
    const OF_FIELD: usize = 32;
    const PSEUDO_NAMES: usize = ":method:scheme:authority:path".len() + 4 * OF_FIELD;
    if version < Version::HTTP_2 {
        return Ok(());
    }
    let values = method.as_str().len()
        + target.scheme_str().map_or(0, str::len)
        + target.authority().map_or(0, |authority| authority.as_str().len())
        + target.path_and_query().map_or(0, |path| path.as_str().len());
    let fields = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + OF_FIELD);
    if PSEUDO_NAMES + values + fields.sum::<usize>() > most {
        return Err(Rejection::HeadersTooLarge(SettingId::HEAD_BYTES));
    }
    Ok(())
}

/// Whether there is no transfer coding, or exactly one `chunked`.
pub(crate) fn is_chunked_or_absent(headers: &FieldMap) -> bool {
    let mut lines = headers.get_all(TRANSFER_ENCODING).iter();
    match (lines.next(), lines.next()) {
        (None, _) => true,
        (Some(line), None) => line.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::tests::{map, why};

    #[test]
    fn a_head_of_http2_is_counted_field_by_field() {
        let uri = Uri::from_static("https://a.example/x?y");
        let fields = map(&[("name", "value"), ("name", "other")]);
        let size = 29 + 4 * 32 + "GEThttpsa.example/x?y".len() + 2 * (4 + 5 + 32);
        let check = |version, most| check_size(version, &Method::GET, &uri, &fields, most);
        assert!(check(Version::HTTP_2, size).is_ok());
        assert!(matches!(
            check(Version::HTTP_2, size - 1),
            Err(Rejection::HeadersTooLarge(SettingId::HEAD_BYTES))
        ));
        assert!(check(Version::HTTP_11, 0).is_ok());
    }

    #[test]
    fn a_body_has_one_framing() {
        let check = |version, given: &[(&str, &str)]| super::check(version, &map(given), 100);
        let (h1, h2) = (Version::HTTP_11, Version::HTTP_2);
        for fine in [
            &[][..],
            &[("content-length", "010")],
            &[("transfer-encoding", "Chunked")],
            &[("te", "gzip")],
        ] {
            assert!(check(h1, fine).is_ok(), "{fine:?}");
        }
        for coding in [
            "xchunked",
            "gzip, chunked",
            "chunked, chunked",
            "\"chunked\"",
            "identity",
            "",
        ] {
            assert!(
                why(check(h1, &[("transfer-encoding", coding)])).contains("coding"),
                "{coding}"
            );
        }
        assert!(
            why(check(
                h1,
                &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")]
            ))
            .contains("coding")
        );
        assert!(why(check(Version::HTTP_10, &[("transfer-encoding", "chunked")])).contains("coding"));
        assert!(why(check(h2, &[("transfer-encoding", "chunked")])).contains("coding"));
        assert!(why(check(h1, &[("transfer-encoding", "chunked"), ("content-length", "3")])).contains("exclude"));
        for length in ["", "+5", "5, 5", "0x5", "5.0", "-1", "5 5"] {
            assert!(
                why(check(h1, &[("content-length", length)])).contains("one number"),
                "{length}"
            );
        }
        assert!(why(check(h2, &[("content-length", "5"), ("content-length", "5")])).contains("one number"));
        for name in ["connection", "upgrade", "keep-alive", "proxy-connection"] {
            assert!(why(check(h2, &[(name, "x")])).contains("HTTP/2"), "{name}");
        }
        assert!(check(h2, &[("te", "trailers")]).is_ok() && check(h2, &[("te", "trailers, gzip")]).is_err());
        assert!(super::check(h1, &map(&[("a", "1"), ("a", "2")]), 2).is_ok());
        assert!(matches!(
            super::check(h1, &map(&[("a", "1"), ("a", "2")]), 1),
            Err(Rejection::HeadersTooLarge(SettingId::HEAD_FIELDS))
        ));
    }
}
