//! Removes spellings of a field name that some backends read as the same name.
//!
//! CGI, and WSGI after it, write every hyphen as an underscore (RFC 3875 section 4.1.18). Some servers do the same with
//! any byte that is not a letter or digit: they read `x.tenant~id` as `HTTP_X_TENANT_ID`.
//!
//! Invariant: a field that is withheld from a backend, or set by the gateway, does not reach it under another spelling.

use http::{HeaderName, HeaderValue};

use crate::message::FieldMap;

/// Removes a field under all its spellings.
pub fn remove_all(headers: &mut FieldMap, name: &HeaderName) {
    headers.remove(name);
    remove_others(headers, name);
}

/// Sets a field and removes its other spellings.
pub fn set_alone(headers: &mut FieldMap, name: &HeaderName, value: HeaderValue) {
    remove_others(headers, name);
    headers.insert(name, value);
}

/// Removes all spellings of a field except this one.
pub fn remove_others(headers: &mut FieldMap, name: &HeaderName) {
    if name.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return;
    }
    headers.retain(|found, _| found == name || !is_same(found.as_str(), name.as_str()));
}

/// Maps a byte of a name as the least exact server reads it: anything but a letter or digit becomes a hyphen.
pub const fn fold(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() { byte } else { b'-' }
}

/// Whether a name has bytes other than letters, digits and hyphens.
pub fn is_odd(name: &str) -> bool {
    name.bytes().any(|byte| fold(byte) != byte)
}

/// Whether two names in lower case are spellings of the same name.
fn is_same(one: &str, other: &str) -> bool {
    one.len() == other.len() && one.bytes().map(fold).eq(other.bytes().map(fold))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: HeaderName = HeaderName::from_static("x-api-key");

    fn headers() -> FieldMap {
        let names = [
            "x-api-key",
            "x_api_key",
            "x-api_key",
            "x_api-key",
            "xapikey",
            "x-api-keys",
            "x.api~key",
            "y-api-key",
        ];
        let line = |name| (HeaderName::from_static(name), HeaderValue::from_static("theirs"));
        names.into_iter().map(line).collect()
    }

    #[test]
    fn names_are_spelled_with_anything_between_the_words() {
        let check = |one, other, expected| assert_eq!(is_same(one, other), expected, "{one} {other}");
        for spelling in [
            "x-api-key",
            "x_api_key",
            "x-api_key",
            "x.api~key",
            "x!api'key",
            "x|api^key",
        ] {
            check("x-api-key", spelling, true);
            check("x_api_key", spelling, true);
        }
        for other in ["xapikey", "x-api-keys", "y-api-key", "x--api-key", "x-api-ke-", ""] {
            check("x-api-key", other, false);
        }
    }

    #[test]
    fn no_spelling_is_left() {
        let mut all = headers();
        remove_all(&mut all, &KEY);
        assert_eq!(all.len(), 3, "{all:?}");
        let mut all = headers();
        set_alone(&mut all, &KEY, HeaderValue::from_static("ours"));
        assert_eq!((all.len(), all.get(&KEY)), (4, Some(&HeaderValue::from_static("ours"))));
        // The name that is kept may itself be an unusual spelling.
        let mut all = headers();
        remove_others(&mut all, &HeaderName::from_static("x_api_key"));
        assert!(all.len() == 4 && all.contains_key("x_api_key"), "{all:?}");
    }

    #[test]
    fn a_name_without_either_has_one_spelling() {
        let mut headers = headers();
        remove_others(&mut headers, &HeaderName::from_static("xapikey"));
        assert_eq!(headers.len(), 8);
    }
}
