//! Encodes and decodes URL text in one canonical form, so that the matched path and the sent path cannot differ in
//! meaning.
//!
//! A byte outside the unreserved set is data only while it is percent-encoded (RFC 3986 section 2). Every value that is
//! spliced into a URL, except a capture of its path, passes through [`encode`]. It encodes everything except unreserved
//! characters, so a value cannot add a segment, a parameter or a line.

use std::borrow::Cow;

/// Returns whether a byte never needs an encoding (RFC 3986 section 2.3).
pub const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Returns whether a byte may appear unencoded in a path segment: `pchar` of RFC 3986 section 3.3 without `%`.
pub const fn is_segment_byte(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(
            byte,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@'
        )
}

/// Decodes the two hexadecimal digits of a `%XX`, without the `%`. `None` if there are fewer than two digits.
pub fn decode_pair(escape: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match escape {
        [high, low, ..] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}

/// Appends `byte` as `%XX` with upper-case digits (RFC 3986 section 2.1).
pub fn push_escaped(byte: u8, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 0x0f)]));
}

/// Appends `text` with everything except unreserved characters encoded.
pub fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if is_unreserved(byte) {
            out.push(char::from(byte))
        } else {
            push_escaped(byte, out)
        }
    }
}

/// Appends `text` for a header field. Encodes `%`, everything except printable ASCII, and whitespace at either end,
/// which a reader of the field would strip. Decoding returns the original text.
pub fn encode_field(text: &str, out: &mut String) {
    let inner = text.trim_matches([' ', '\t']);
    let start = text.len() - text.trim_start_matches([' ', '\t']).len();
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b' ' | b'\t' if (start..start + inner.len()).contains(&at) => out.push(char::from(byte)),
            b'%' => push_escaped(byte, out),
            b'!'..=b'~' => out.push(char::from(byte)),
            _ => push_escaped(byte, out),
        }
    }
}

/// Decodes every `%XX` in `text` once. `None` if the result is not UTF-8.
pub fn decode(text: &str) -> Option<Cow<'_, str>> {
    percent_encoding::percent_decode_str(text).decode_utf8().ok()
}

/// Returns whether a backend would resolve this segment: `.` or `..`, also with path parameters after it.
///
/// `..;x` counts, because servlet containers first remove the parameter and then resolve.
pub fn is_dot_segment(decoded: &[u8]) -> bool {
    let name = decoded.split(|&byte| byte == b';').next().unwrap_or_default();
    matches!(name, b"." | b"..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unreserved_characters_survive_encoding() {
        let check = |text: &str, expected: &str| {
            let mut out = String::new();
            encode(text, &mut out);
            assert_eq!(out, expected, "{text:?}");
        };
        check("a-b_c.d~9", "a-b_c.d~9");
        check("a/b?c#d%e", "a%2Fb%3Fc%23d%25e");
        check("x y&z=1", "x%20y%26z%3D1");
        check("é\r\n", "%C3%A9%0D%0A");
    }

    #[test]
    fn a_field_keeps_printable_ascii() {
        let check = |text: &str, expected: &str| {
            let mut out = String::new();
            encode_field(text, &mut out);
            assert_eq!(out, expected, "{text:?}");
            assert_eq!(decode(&out).as_deref(), Some(text));
        };
        check("", "");
        check("ada/a b\tc, \"d\"", "ada/a b\tc, \"d\"");
        check("us\u{e9}r-\u{2603}", "us%C3%A9r-%E2%98%83");
        check("100%", "100%25");
        check("%41", "%2541");
        check(" a b\t", "%20a b%09");
        check("  ", "%20%20");
        check("\u{a0}a", "%C2%A0a");
    }

    #[test]
    fn dot_segments_are_known_with_their_parameters() {
        for dots in [".", "..", "..;x", ".;", "..;a=b;c"] {
            assert!(is_dot_segment(dots.as_bytes()), "{dots}");
        }
        for plain in ["", "...", ".a", "a..", ";..", "a;..", "..a;"] {
            assert!(!is_dot_segment(plain.as_bytes()), "{plain}");
        }
    }
}
