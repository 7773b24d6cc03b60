//! Computes the entity tag of a whole answer and checks whether a request names it (RFC 9110 sections 8.8.3 and
//! 13.1.2).
//!
//! Invariant: equal bytes have equal tags and different bytes have different tags, regardless of the parts they came
//! from. The tag of a single part would stand for many different answers.

use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderValue;
use http::header::IF_NONE_MATCH;

use crate::cache::conditional::entity_tags;
use crate::message::FieldMap;

/// Bytes of the digest that go into a tag. 16 bytes are enough to make collisions infeasible.
const LENGTH: usize = 16;

/// Returns a strong tag of exactly these bytes.
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

/// Returns whether `If-None-Match` names `tag` or is `*`. The comparison is weak, as the field requires.
pub(super) fn is_named(tag: &HeaderValue, request: &FieldMap) -> bool {
    let lines = request.get_all(IF_NONE_MATCH);
    lines.iter().any(|line| {
        let line = line.as_bytes().trim_ascii();
        line == b"*" || entity_tags(line).any(|other| other == tag.as_bytes())
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
        // SHA-256 of the empty input begins with these digits (FIPS 180-4).
        assert_eq!(of(b""), "\"e3b0c44298fc1c149afbf4c8996fb924\"");
    }

    #[test]
    fn a_request_names_it_in_a_list_weak_or_strong() {
        let check = |lines: &[&str], expected: bool| {
            let mut headers = FieldMap::new();
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
