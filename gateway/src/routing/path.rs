//! Normalises a path before any decision depends on it, or refuses it.
//!
//! A path with two readings lets a caller bypass access rules: the gateway matches `/users/me`, and a backend resolves
//! `/users/x/..%2fme`. So a path that another server might resolve, decode or cut is refused. All others have one
//! canonical spelling, which patterns are matched against.
//!
//! Invariant: the raw bytes never change; what was authorised is what is sent. The canonical form is only for matching.
//! It has as many slashes and as many characters as the raw path.

use std::borrow::Cow;

use crate::rejection::Rejection;
use crate::template::percent::{decode_pair, is_dot_segment, is_segment_byte, push_escaped};

/// Ambiguities that may stay in a path, for backends that are known to read it as it is matched here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keeps {
    pub double_slash: bool,
    pub encoded_slash: bool,
    pub backslash: bool,
}

/// A path with exactly one reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NormalPath<'a> {
    raw: &'a str,
    canonical: Cow<'a, str>,
}

impl<'a> NormalPath<'a> {
    /// Reads the path of a request target, without its query. Allocates only if the path has a percent-encoding, or a
    /// character that should have been encoded.
    ///
    /// # Errors
    /// [`Rejection::MalformedRequest`] if the path does not begin with `/`, or has an empty segment, a dot segment
    /// (encoded or with path parameters as well), an encoded slash, a backslash, a control character, a malformed
    /// percent-encoding, a raw byte outside ASCII, or is not UTF-8 once decoded (overlong forms are not).
    pub fn parse(raw: &'a str) -> Result<Self, Rejection> {
        Self::keeping(raw, Keeps::default())
    }

    /// Reads a path like [`Self::parse`], but admits what `keeps` allows. Even then, decoding the path gives no dot
    /// segment.
    pub fn keeping(raw: &'a str, keeps: Keeps) -> Result<Self, Rejection> {
        let segments = raw
            .strip_prefix('/')
            .ok_or(malformed("the request target must be a path that begins with '/'"))?;
        let mut spelt = Spelling {
            keeps,
            ..Spelling::default()
        };
        let mut rest = segments.split('/').peekable();
        while let Some(segment) = rest.next() {
            if segment.is_empty() && rest.peek().is_some() && !keeps.double_slash {
                return Err(malformed("the path has an empty segment ('//')"));
            }
            spelt.read(segment)?;
        }
        let canonical = if spelt.differs {
            Cow::Owned(canonical(raw))
        } else {
            Cow::Borrowed(raw)
        };
        Ok(Self { raw, canonical })
    }

    /// Returns the bytes as received; they are sent on unchanged.
    pub fn raw(&self) -> &'a str {
        self.raw
    }

    /// Returns the canonical spelling: characters that need no encoding are plain, all others are `%XX` in upper case.
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    /// Returns the offset in the raw path of the character at byte `at` of the canonical path.
    pub(super) fn raw_offset(&self, at: usize) -> usize {
        match &self.canonical {
            Cow::Borrowed(_) => at,
            Cow::Owned(canonical) => {
                let units = Units(&canonical.as_bytes()[..at]).count();
                Units(self.raw.as_bytes()).take(units).map(|unit| unit.width).sum()
            }
        }
    }
}

const fn malformed(why: &'static str) -> Rejection {
    Rejection::malformed(why)
}

/// State of the check, segment by segment.
#[derive(Default)]
struct Spelling {
    keeps: Keeps,
    /// Whether the canonical form differs from the raw one.
    differs: bool,
    /// The last segment that had to be decoded; one buffer for all segments.
    decoded: Vec<u8>,
}

impl Spelling {
    fn read(&mut self, segment: &str) -> Result<(), Rejection> {
        if segment.bytes().all(is_segment_byte) {
            return if is_dot_segment(segment.as_bytes()) {
                Err(malformed(DOT_SEGMENT))
            } else {
                Ok(())
            };
        }
        self.differs = true;
        self.decoded.clear();
        for unit in Units(segment.as_bytes()) {
            let byte = unit
                .byte
                .ok_or(malformed("the path has a malformed percent-encoding"))?;
            match byte {
                b'/' if !self.keeps.encoded_slash => return Err(malformed("the path has an encoded slash ('%2F')")),
                b'\\' if !self.keeps.backslash => return Err(malformed("the path has a backslash")),
                0..0x20 | 0x7f => return Err(malformed("the path has a control character")),
                0x80.. if unit.width == 1 => {
                    return Err(malformed("the path has a character that must be percent-encoded"));
                }
                b' ' | b'?' | b'#' if unit.width == 1 => {
                    return Err(malformed("the path has a character that must be percent-encoded"));
                }
                _ => self.decoded.push(byte),
            }
        }
        // A backend may read a kept encoded slash or backslash as a slash, and must not find a dot segment then.
        let mut parts = self.decoded.split(|byte| matches!(byte, b'/' | b'\\'));
        if parts.any(is_dot_segment) {
            return Err(malformed(DOT_SEGMENT));
        }
        std::str::from_utf8(&self.decoded).map_err(|_| malformed("the path is not UTF-8 once decoded"))?;
        Ok(())
    }
}

const DOT_SEGMENT: &str = "the path has a dot segment ('.' or '..')";

/// Returns the canonical spelling of a well-formed path, or of a literal in a pattern.
pub(super) fn canonical(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    for unit in Units(raw.as_bytes()) {
        match unit.byte {
            Some(b'/') if unit.width == 1 => out.push('/'),
            Some(byte) if is_segment_byte(byte) => out.push(char::from(byte)),
            Some(byte) => push_escaped(byte, &mut out),
            None => out.push('%'),
        }
    }
    out
}

/// One character of a path: a byte, or the three bytes that encode it.
struct Unit {
    /// The decoded byte; absent if a `%` is not followed by two hexadecimal digits.
    byte: Option<u8>,
    width: usize,
}

struct Units<'a>(&'a [u8]);

impl Iterator for Units<'_> {
    type Item = Unit;

    fn next(&mut self) -> Option<Unit> {
        let (&first, rest) = self.0.split_first()?;
        let (byte, width) = match (first, decode_pair(rest)) {
            (b'%', Some(byte)) => (Some(byte), 3),
            (b'%', None) => (None, 1),
            _ => (Some(first), 1),
        };
        self.0 = &self.0[width..];
        Some(Unit { byte, width })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn why(raw: &str) -> &'static str {
        match NormalPath::parse(raw) {
            Err(Rejection::MalformedRequest { why, .. }) => why,
            other => panic!("{raw:?} gave {other:?}"),
        }
    }

    #[test]
    fn a_path_has_one_spelling() {
        let check = |raw: &str, canonical: &str| {
            let path = NormalPath::parse(raw).expect(raw);
            assert_eq!((path.raw(), path.canonical()), (raw, canonical));
        };
        check("/", "/");
        check("/users/17", "/users/17");
        check("/users/", "/users/");
        check("/a.b/..c/...", "/a.b/..c/...");
        check("/%75sers/%7Eme", "/users/~me");
        check("/a%40b/%3a%2B", "/a@b/:+");
        check("/caf%c3%a9", "/caf%C3%A9");
        check("/100%25/%252e%252e", "/100%25/%252e%252e");
        check("/a%20b|c\"", "/a%20b%7Cc%22");
        check("/what%3fnow%23", "/what%3Fnow%23");
        check("/a;v=1/b", "/a;v=1/b");
    }

    #[test]
    fn plain_paths_are_borrowed() {
        for raw in ["/", "/users/17/orders", "/files/a,b;c=d@e"] {
            assert!(
                matches!(NormalPath::parse(raw).expect(raw).canonical, Cow::Borrowed(_)),
                "{raw}"
            );
        }
    }

    #[test]
    fn what_others_would_read_differently_is_refused() {
        for raw in ["", "*", "users", "*/users", "http://h/users", "//"] {
            assert!(NormalPath::parse(raw).is_err(), "{raw}");
        }
        for raw in [
            "/..",
            "/.",
            "/a/../b",
            "/a/./b",
            "/a/..",
            "/a/.",
            "/%2e%2e/b",
            "/a/.%2E/b",
            "/%2E",
            "/a/..;/b",
            "/a/..;x=y/b",
            "/a/%2e%2e;/b",
            "/a/..%3b/b",
            "/.;/b",
        ] {
            assert_eq!(why(raw), DOT_SEGMENT, "{raw}");
        }
        for raw in ["//a", "/a//b", "/a//", "///"] {
            assert!(why(raw).contains("empty segment"), "{raw}");
        }
        for raw in ["/a%2fb", "/a%2Fb", "/..%2f..%2fetc", "/%2F"] {
            assert!(why(raw).contains("encoded slash"), "{raw}");
        }
        for raw in ["/a\\b", "/..\\b", "/a%5cb", "/a%5C..%5Cb"] {
            assert!(why(raw).contains("backslash"), "{raw}");
        }
        for raw in ["/a%00", "/a%0d%0aX:y", "/a\0", "/a\tb", "/a%7f", "/a%1F"] {
            assert!(why(raw).contains("control"), "{raw}");
        }
        for raw in ["/%", "/%2", "/a%zz", "/%+2", "/a%2/b", "/%u002e"] {
            assert!(why(raw).contains("malformed percent-encoding"), "{raw}");
        }
        for raw in ["/é", "/a b", "/a?b", "/a#b"] {
            assert!(why(raw).contains("must be percent-encoded"), "{raw}");
        }
        // Overlong forms of '.' and '/', a lone Latin-1 byte, a surrogate.
        for raw in ["/%c0%ae%c0%ae", "/a%c0%afb", "/%e0%80%af", "/caf%e9", "/%ed%a0%80"] {
            assert!(why(raw).contains("UTF-8"), "{raw}");
        }
    }

    #[test]
    fn what_is_kept_is_part_of_its_segment() {
        let all = Keeps {
            double_slash: true,
            encoded_slash: true,
            backslash: true,
        };
        let check = |raw: &str, canonical: &str| {
            let path = NormalPath::keeping(raw, all).expect(raw);
            assert_eq!((path.raw(), path.canonical()), (raw, canonical));
        };
        check("/a%2fb/c", "/a%2Fb/c");
        check("//a//b//", "//a//b//");
        check("/a\\b%5cc", "/a%5Cb%5Cc");
        for raw in [
            "/a%2f..%2fb",
            "/..%2fb",
            "/a%2f.",
            "/a\\..\\b",
            "/a%5c%2e%2e",
            "/a/%2e%2e;x%2fb",
            "/a//../b",
        ] {
            assert!(
                matches!(NormalPath::keeping(raw, all), Err(Rejection::MalformedRequest { why, .. }) if why == DOT_SEGMENT),
                "{raw}"
            );
        }
        for raw in ["/a%00", "/a%", "/%c0%ae"] {
            assert!(NormalPath::keeping(raw, all).is_err(), "{raw}");
        }
        let one = |keeps| NormalPath::keeping("/a%2Fb", keeps).is_ok();
        assert!(!one(Keeps {
            encoded_slash: false,
            ..all
        }));
    }

    #[test]
    fn canonical_offsets_lead_back_to_the_raw_path() {
        let path = NormalPath::parse("/%61%20b/c%7C|/d").expect("well formed");
        assert_eq!(path.canonical(), "/a%20b/c%7C%7C/d");
        for (canonical, raw) in [
            (0, 0),
            (1, 1),
            (2, 4),
            (5, 7),
            (6, 8),
            (7, 9),
            (8, 10),
            (11, 13),
            (14, 14),
            (15, 15),
            (16, 16),
        ] {
            assert_eq!(path.raw_offset(canonical), raw, "{canonical}");
        }
    }

    fn path() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            "[a-z/.%;\\\\|]",
            "%[0-9a-fA-F]{2}",
            "%(2e|2f|5c|41|c3|a9)",
            any::<char>().prop_map(String::from)
        ];
        prop::collection::vec(piece, 0..24).prop_map(|pieces| format!("/{}", pieces.concat()))
    }

    proptest! {
        #![proptest_config(cases::counted())]

        #[test]
        fn parsing_never_panics_and_is_idempotent(raw in path()) {
            if let Ok(path) = NormalPath::parse(&raw) {
                let again = NormalPath::parse(path.canonical()).expect("a canonical path is well formed");
                prop_assert_eq!(again.canonical(), path.canonical());
                prop_assert!(matches!(again.canonical, Cow::Borrowed(_)) || path.canonical().contains('%'));
            }
        }

        #[test]
        fn an_accepted_path_says_the_same_to_a_lenient_reader(raw in path()) {
            if let Ok(path) = NormalPath::parse(&raw) {
                // A reader that decodes first, takes backslashes for slashes, cuts parameters off, and resolves dot
                // segments last.
                let decoded = percent_encoding::percent_decode_str(path.raw()).decode_utf8().expect("UTF-8");
                let lenient: Vec<_> = decoded.split(['/', '\\']).map(|s| s.split(';').next().unwrap_or_default()).collect();
                prop_assert_eq!(lenient.len(), path.raw().split('/').count());
                prop_assert!(!lenient.iter().any(|segment| [".", ".."].contains(segment)));
            }
        }
    }
}
