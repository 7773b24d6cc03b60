//! Reads and compares the host of a request.
//!
//! Invariant: an accepted host has one reading, so no server behind the gateway can read it differently. Routes are
//! compared with it without case, port and trailing dot (RFC 3986 section 3.2.2, RFC 1034 section 3.1).

use std::borrow::Cow;

use crate::rejection::Rejection;

/// Checks that `text` is `host [ ":" port ]` (RFC 9110 section 7.2) of at most 255 bytes. The host is an address, or a
/// name of letters, digits, `-`, `_` and single dots; userinfo and percent-encodings are not allowed.
///
/// # Errors
/// [`Rejection::MalformedRequest`] for any other text.
pub fn check(text: &str) -> Result<(), Rejection> {
    const WHY: Rejection = Rejection::malformed("the host is not a valid host name or address");
    let (name, port) = split(text).ok_or(WHY)?;
    let port_fits = port.is_empty() || (port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok());
    let name_fits = match name.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')
            .is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok()),
        None => is_name(name.strip_suffix('.').unwrap_or(name)),
    };
    if text.len() <= 255 && port_fits && name_fits {
        Ok(())
    } else {
        Err(WHY)
    }
}

/// Returns the form in which hosts are compared. Allocates only if `text` has upper-case letters.
pub fn normalise(text: &str) -> Cow<'_, str> {
    let name = split(text).map_or(text, |(name, _)| name);
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Cow::Owned(name.to_ascii_lowercase());
    }
    Cow::Borrowed(name)
}

/// Whether two authorities have the same host and port; an absent port is `default_port`.
pub(super) fn same_authority(one: &str, other: &str, default_port: &str) -> bool {
    let port = |text| split(text).map(|(_, port)| if port.is_empty() { default_port } else { port });
    normalise(one) == normalise(other) && port(one) == port(other)
}

/// Whether `text` consists of labels of letters, digits, `-` and `_`, joined by single dots.
pub(super) fn is_name(text: &str) -> bool {
    let is_label_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let mut is_empty_label = true;
    for byte in text.bytes() {
        let is_dot = byte == b'.';
        if is_dot && is_empty_label || !is_dot && !is_label_byte(byte) {
            return false;
        }
        is_empty_label = is_dot;
    }
    !is_empty_label
}

/// Splits into name and port; the port is empty if there is none.
fn split(text: &str) -> Option<(&str, &str)> {
    let name_end = if text.starts_with('[') {
        text.find(']')? + 1
    } else {
        // A host is short, so this loop costs less than the search of the standard library.
        text.bytes().position(|byte| byte == b':').unwrap_or(text.len())
    };
    let (name, rest) = text.split_at(name_end);
    if rest.is_empty() {
        return Some((name, ""));
    }
    Some((name, rest.strip_prefix(':')?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_strictly() {
        for good in [
            "example.com",
            "EXAMPLE.com.",
            "example.com:8080",
            "example.com:",
            "a_b-c",
            "10.0.0.1:80",
            "[::1]",
            "[2001:db8::1]:443",
            "localhost",
            "xn--caf-dma.example",
        ] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "..examp-LE.com",
            "a..b",
            ".a",
            "a..",
            "a b",
            "a@b",
            "user:pw@b",
            "a/b",
            "a?b",
            "a%2eb",
            "a,b",
            "a:b",
            "a:80:90",
            "123.40.56.78:9000:80",
            "a:65536",
            "a:+8",
            "[::1",
            "::1",
            "[::1]x",
            "[]",
            "[a]",
            "é.com",
            "a\0b",
            ":80",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert!(check(&"a".repeat(255)).is_ok() && check(&"a".repeat(256)).is_err());
    }

    #[test]
    fn hosts_are_compared_loosely() {
        for text in [
            "api.example.com",
            "API.Example.COM",
            "api.example.com.",
            "api.example.com:8080",
            "Api.example.com.:1",
        ] {
            assert_eq!(normalise(text), "api.example.com", "{text}");
        }
        assert_eq!(normalise("[::1]:80"), "[::1]");
        assert!(matches!(normalise("api.example.com:80"), Cow::Borrowed(_)));
    }

    #[test]
    fn authorities_agree_with_or_without_the_default_port() {
        assert!(same_authority("a.b", "A.b.:80", "80"));
        assert!(same_authority("a.b:8080", "a.b:8080", "80"));
        assert!(!same_authority("a.b", "a.b:443", "80"));
        assert!(!same_authority("a.b", "c.b", "80"));
    }
}
