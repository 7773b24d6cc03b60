//! Names of tenants and callers: which are valid, and how they are written where only ASCII is allowed.
//!
//! A name is Unicode text without control characters. Names are compared byte by byte, without folding case or
//! composing characters. Invariant: [`encode`] writes different names differently, and writes only visible ASCII
//! without spaces. So the result fits into a header field and between spaces, and decoding it gives the name back.

use crate::template::percent;

/// Maximum number of characters in a tenant's name.
pub const TENANT_LENGTH: usize = 128;

/// Maximum number of characters in a caller's name (OpenID Connect Core 1.0 section 2, `sub`).
pub const CALLER_LENGTH: usize = 255;

/// Whether `text` has 1 to `most` characters, none of them a control character.
pub fn is_name(text: &str, most: usize) -> bool {
    // A character has at most four bytes, so the characters of a text that is far too long are not counted.
    !text.is_empty() && text.len() <= 4 * most && text.chars().count() <= most && !text.chars().any(char::is_control)
}

/// Appends a name in UTF-8; percent-encodes `%` and every byte that is not visible ASCII.
pub fn encode(name: &str, out: &mut String) {
    for byte in name.bytes() {
        match byte {
            b'%' => percent::push_escaped(byte, out),
            b'!'..=b'~' => out.push(char::from(byte)),
            _ => percent::push_escaped(byte, out),
        }
    }
}

/// Returns the encoded name as a new string.
pub fn encoded(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    encode(name, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_any_unicode_but_control_characters() {
        let check = |text: &str, fits| assert_eq!(is_name(text, 4), fits, "{text:?}");
        for good in [
            "a",
            "acme",
            "us\u{e9}r",
            "\u{2603}",
            "\u{1f600}\u{1f600}\u{1f600}\u{1f600}",
            "a b",
            " ",
            "50%",
            "\u{202e}a",
            "\u{fffd}",
            "\u{10ffff}",
            "\u{5d0}\u{5d1}",
        ] {
            check(good, true);
        }
        for bad in [
            "",
            "acme5",
            "\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}",
            "a\n",
            "\r",
            "\0",
            "\u{7f}",
            "\u{85}",
            "\u{9b}",
        ] {
            check(bad, false);
        }
    }

    #[test]
    fn what_is_no_visible_ascii_is_encoded() {
        let check = |name: &str, expected: &str| assert_eq!(encoded(name), expected, "{name:?}");
        check("acme-1_a.b~c@d:e/f+g=\"h\\", "acme-1_a.b~c@d:e/f+g=\"h\\");
        check("us\u{e9}r-\u{2603}", "us%C3%A9r-%E2%98%83");
        check("a b", "a%20b");
        check("a%20b", "a%2520b");
        check("\u{1f600}", "%F0%9F%98%80");
        check("a\r\nb\0", "a%0D%0Ab%00");
        check("\u{7f}", "%7F");
    }

    proptest! {
        #![proptest_config(cases::counted())]

        #[test]
        fn encoding_loses_nothing_and_makes_one_word(name in any::<String>()) {
            let encoded = encoded(&name);
            prop_assert!(encoded.bytes().all(|byte| byte.is_ascii_graphic()));
            prop_assert_eq!(percent::decode(&encoded).expect("UTF-8"), name);
        }
    }
}
