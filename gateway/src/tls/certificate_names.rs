//! Valid names in a caller's certificate.
//!
//! An authority signs the names that it is given, and programs read an unusual name in different ways: some stop at a
//! NUL, some drop an empty label, some resolve dot segments. Names also go into log lines and header fields. Invariant:
//! a certificate with a name that has more than one reading identifies no caller.

/// Whether a text is a DNS name: labels of 1 to 63 letters, digits, `-` and `_`, at most 253 characters in all (RFC
/// 1123 section 2.1). The first label may be `*`.
pub(crate) fn is_dns_name(name: &str) -> bool {
    let rest = name.strip_prefix("*.").unwrap_or(name);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    name.len() <= 253 && rest.split('.').all(is_label)
}

/// Whether these can be all URIs of one certificate: all are valid, and a SPIFFE ID is alone (X.509-SVID section 2).
pub(crate) fn are_uris<'a>(all: impl IntoIterator<Item = &'a str> + Clone) -> bool {
    let is_spiffe = |uri: &str| {
        uri.split_once(':')
            .is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("spiffe"))
    };
    let several = all.clone().into_iter().nth(1).is_some();
    all.into_iter().all(|uri| match is_spiffe(uri) {
        true => !several && is_spiffe_id(uri),
        false => is_uri(uri),
    })
}

/// Whether a text is a URI (RFC 3986) with one reading: it has no dot segments and no encoded control characters.
fn is_uri(uri: &str) -> bool {
    let Some((scheme, rest)) = uri.split_once(':') else {
        return false;
    };
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    let is_of_uris = |byte: u8| byte.is_ascii_graphic() && !br#""<>\^`{|}"#.contains(&byte);
    if !is_scheme || rest.is_empty() || !rest.bytes().all(is_of_uris) {
        return false;
    }
    let Some(decoded) = decoded(rest.as_bytes()) else {
        return false;
    };
    let path = decoded
        .split(|byte| matches!(byte, b'?' | b'#'))
        .next()
        .unwrap_or_default();
    !decoded.iter().any(u8::is_ascii_control)
        && !path
            .split(|byte| matches!(byte, b'/' | b'\\'))
            .any(|segment| matches!(segment, b"." | b".."))
}

/// Undoes percent-encoding. `None` if a `%` is not followed by two hexadecimal digits.
fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let (mut decoded, mut left) = (Vec::with_capacity(text.len()), text);
    while let Some((first, rest)) = left.split_first() {
        left = rest;
        if *first != b'%' {
            decoded.push(*first);
            continue;
        }
        let (pair, rest) = left.split_first_chunk::<2>()?;
        let value = digit(&pair[0])? * 16 + digit(&pair[1])?;
        decoded.push(u8::try_from(value).ok()?);
        left = rest;
    }
    Some(decoded)
}

/// Whether a text is a SPIFFE ID (SPIFFE-ID section 2): a trust domain in lower case, then segments of letters, digits,
/// `.`, `-` and `_`, at most 2048 bytes. No segment is empty or a dot segment. No port, no query, nothing encoded.
fn is_spiffe_id(uri: &str) -> bool {
    let Some(rest) = uri.strip_prefix("spiffe://") else {
        return false;
    };
    let mut parts = rest.split('/');
    let domain = parts.next().unwrap_or_default();
    let is_domain = (1..=255).contains(&domain.len())
        && domain
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_'));
    let is_segment = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
    };
    uri.len() <= 2048 && is_domain && parts.all(is_segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dns_name_has_labels() {
        let check = |name: &str, fits| assert_eq!(is_dns_name(name), fits, "{name:?}");
        for good in [
            "a",
            "a.b",
            "A.b-c.d_e",
            "*.acme.internal",
            "1.2.3.4",
            &format!("{}.b", "a".repeat(63)),
        ] {
            check(good, true);
        }
        for bad in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "a\0.acme.internal",
            "a.acme.internal\0",
            "a\r\nx-tenant-id: root",
            "a b",
            "*",
            "*.",
            "*.*.a",
            "a.*.b",
            "a*.b",
            "caf\u{e9}.b",
            "a/b",
            "a:80",
            "a@b",
            "a\u{7f}",
            &"a".repeat(64),
            &"a.".repeat(127),
        ] {
            check(bad, false);
        }
        assert!(is_dns_name(&format!("{}a", "a.".repeat(126))));
    }

    #[test]
    fn a_uri_has_one_reading() {
        let check = |uri: &str, fits| assert_eq!(are_uris([uri]), fits, "{uri:?}");
        for good in [
            "urn:acme:billing",
            "https://acme.example/a/b?c=d#e",
            "https://acme.example/a%2fb%20c",
            "https://acme.example/a..b/.c/...",
            "https://acme.example/?../..",
            "tag:acme.example,2026:a",
            "spiffe://acme",
            "spiffe://acme/a/b.c/D_e-f",
            "spiffe://acme.example/...",
        ] {
            check(good, true);
        }
        for bad in [
            "",
            "acme",
            ":a",
            "1a:b",
            "urn:",
            "urn:a b",
            "urn:a\0",
            "urn:a\r\nb: c",
            "urn:caf\u{e9}",
            "urn:a%",
            "urn:a%0",
            "urn:a%zz",
            "urn:a%00",
            "urn:a%0d%0ab",
            "urn:a%7f",
            "urn:a\"b",
            "urn:a\\b",
            "https://acme.example/a/../b",
            "https://acme.example/a/./b",
            "https://acme.example/..",
            "https://acme.example/.",
            "https://acme.example/a/%2e%2E/b",
            "https://acme.example/a/.%2e/b",
            "https://acme.example/a/..%2fb",
            "https://acme.example/a%2f..%2fb",
            "https://acme.example/a%5c..%5cb",
            "https://acme.example/%2e?a",
        ] {
            check(bad, false);
        }
    }

    #[test]
    fn a_spiffe_id_is_strict_and_alone() {
        let check = |uris: &[&str], fits| assert_eq!(are_uris(uris.iter().copied()), fits, "{uris:?}");
        check(&[], true);
        check(&["urn:a", "urn:b"], true);
        check(&["spiffe://acme/a"], true);
        check(&["spiffe://acme/a", "spiffe://acme/b"], false);
        check(&["spiffe://acme/a", "spiffe://acme/a"], false);
        check(&["spiffe://acme/a", "urn:b"], false);
        check(&["urn:b", "spiffe://acme/a"], false);
        check(&["urn:b", "urn:a b"], false);
        for bad in [
            "spiffe:acme/a",
            "spiffe:/acme/a",
            "spiffe://",
            "spiffe:///a",
            "SPIFFE://acme/a",
            "Spiffe://acme/a",
            "spiffe://ACME/a",
            "spiffe://acme/",
            "spiffe://acme/a/",
            "spiffe://acme//a",
            "spiffe://acme/./a",
            "spiffe://acme/a/../b",
            "spiffe://acme/%61",
            "spiffe://acme/a%2e%2e",
            "spiffe://acme:80/a",
            "spiffe://user@acme/a",
            "spiffe://acme/a?b",
            "spiffe://acme/a#b",
            "spiffe://acme/a b",
            "spiffe://acme/a*",
            "spiffe://acme/caf\u{e9}",
            "spiffe://acme/a\0",
            &format!("spiffe://acme/{}", "a".repeat(2048)),
        ] {
            check(&[bad], false);
        }
    }
}
