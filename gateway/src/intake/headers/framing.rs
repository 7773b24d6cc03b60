//! Refuses a request whose body could be framed in two ways: request smuggling begins there.
//!
//! On HTTP/1 the bytes have been judged before hyper read them ([`crate::framing`]), which settles some of this out of
//! sight of the fields. Here it is said of the fields themselves, in every version.

use http::header::{CONNECTION, CONTENT_LENGTH, UPGRADE};
use http::{HeaderMap, Version};

use super::{Rejection, TE, TRANSFER_ENCODING, malformed};

/// Checks the number of fields and everything that says where the body ends.
///
/// `most` is the number of field lines.
///
/// # Errors
/// [`Rejection::HeadersTooLarge`] for too many fields; [`Rejection::MalformedRequest`] for a transfer coding other
/// than one `chunked` on HTTP/1.1 (hyper would decode the chunks and the rest would be lost), a `Content-Length` that
/// is not one plain number or stands beside a transfer coding, or a connection-specific field on HTTP/2
/// (RFC 9113 section 8.2.2).
pub fn check(version: Version, headers: &HeaderMap, most: usize) -> Result<(), Rejection> {
    if headers.len() > most {
        return Err(Rejection::HeadersTooLarge);
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

/// Whether the only transfer coding, if any, is `chunked`, once.
pub(super) fn is_chunked_or_absent(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(TRANSFER_ENCODING).iter();
    match (lines.next(), lines.next()) {
        (None, _) => true,
        (Some(line), None) => line.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{map, why};
    use super::*;

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
            Err(Rejection::HeadersTooLarge)
        ));
    }
}
