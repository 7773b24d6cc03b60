//! The entity tag of a whole answer, and whether a request names it (RFC 9110 sections 8.8.3 and 13.1.2).
//!
//! Invariant: the same bytes have the same tag and others another one, whichever parts they came from. A tag of one part
//! would stand for many documents.

use aws_lc_rs::digest::{SHA256, digest};
use http::header::IF_NONE_MATCH;
use http::{HeaderMap, HeaderValue};

/// Bytes of the digest that go into a tag: enough that nobody finds two documents with the same.
const LENGTH: usize = 16;

/// A strong tag of exactly these bytes.
pub(super) fn of(body: &[u8]) -> HeaderValue {
    let digest = digest(&SHA256, body);
    let mut text = String::with_capacity(2 * LENGTH + 2);
    text.push('"');
    for byte in &digest.as_ref()[..LENGTH] {
        text.extend([byte >> 4, byte & 15].map(|half| char::from_digit(half.into(), 16).unwrap_or_default()));
    }
    text.push('"');
    HeaderValue::try_from(text).expect("quotes and digits")
}

/// Whether `If-None-Match` names `tag`, or anything at all. The comparison is weak, as the field asks for.
pub(super) fn is_named(tag: &HeaderValue, request: &HeaderMap) -> bool {
    let lines = request.get_all(IF_NONE_MATCH);
    lines.iter().any(|line| {
        let line = line.as_bytes().trim_ascii();
        line == b"*" || tags(line).any(|other| other == tag.as_bytes())
    })
}

/// The tags of a list, without the mark of weak ones. It ends where the text is no list any more.
fn tags(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = line;
    std::iter::from_fn(move || {
        let start = rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b','))?;
        let tag = &rest[start..];
        let tag = tag.strip_prefix(b"W/").unwrap_or(tag);
        let inside = tag.strip_prefix(b"\"")?;
        // A comma within quotes is part of a tag.
        let end = inside.iter().position(|byte| *byte == b'"')? + 2;
        rest = &tag[end..];
        let next = rest.trim_ascii_start().first();
        matches!(next, None | Some(b',')).then(|| &tag[..end])
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn other_bytes_have_another_tag() {
        let bodies: [&[u8]; 6] = [b"", b"{}", b"{} ", b"{\"a\":1}", b"{\"a\":1.0}", b"{\"b\":1}"];
        let found: HashSet<_> = bodies.iter().map(|body| of(body)).collect();
        assert_eq!(found.len(), bodies.len());
        for body in bodies {
            assert_eq!(of(body), of(&[body, b""].concat()));
            let tag = of(body);
            assert!(tag.len() == 34 && tag.as_bytes().starts_with(b"\""), "a strong tag");
        }
        // SHA-256 of nothing begins so (FIPS 180-4).
        assert_eq!(of(b""), "\"e3b0c44298fc1c149afbf4c8996fb924\"");
    }

    #[test]
    fn a_request_names_it_in_a_list_weak_or_strong() {
        let check = |lines: &[&str], expected: bool| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(IF_NONE_MATCH, HeaderValue::from_bytes(line.as_bytes()).unwrap());
            }
            let tag = HeaderValue::from_static("\"7a\"");
            assert_eq!(is_named(&tag, &headers), expected, "{lines:?}");
        };
        check(&[], false);
        for same in [
            "\"7a\"",
            "W/\"7a\"",
            "*",
            " * ",
            "\"x\", \"7a\"",
            "\"x\",W/\"7a\"",
            "\"x\"\t,\t\"7a\" ,",
            ",, \"7a\"",
            "\"a,b\", \"7a\"",
            "\"\", \"7a\"",
            "\"\u{e9}\", \"7a\"",
        ] {
            check(&[same], true);
            check(&["\"x\"", same], true);
            check(&[same, "\"x\""], true);
        }
        for other in [
            "",
            "7a",
            "\"7A\"",
            "\"7a",
            "7a\"",
            "w/\"7a\"",
            "\"x\" \"7a\"",
            "\"x\"\"7a\"",
            "\"x, \"7a\"",
            "x, \"7a\"",
            "*, \"x\"",
            "\"*\"",
            "W/*",
            "\"7a\"x",
            "\"7a, \"",
        ] {
            check(&[other], false);
        }
    }
}
