//! Parses path patterns such as `/users/{id}` and `/files/{*rest}`.
//!
//! A segment is either a literal or a parameter, never both, so that precedence is decided segment by segment. Literals
//! are stored in the canonical spelling that paths are matched in.

use std::fmt;

use super::path::{NormalPath, canonical};
use crate::rejection::Rejection;

/// Maximum number of segments in a pattern. The tree of routes is as deep as its longest pattern, and a search visits it
/// by recursion.
pub const MOST_SEGMENTS: usize = 64;
/// Maximum number of bytes in a pattern.
pub const LONGEST: usize = 4096;
/// Name of the parameter that holds what follows a prefix.
pub const REST: &str = "rest";

/// A parsed path pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    pub(super) segments: Vec<Segment>,
    names: Box<[Box<str>]>,
}

/// A segment, ordered by precedence: a smaller one wins.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Segment {
    Literal(Box<str>),
    /// Any single segment that is not empty.
    Parameter,
    /// The rest of the path, which is not empty.
    Wildcard,
}

/// A reason why a path pattern cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PatternError {
    NotAbsolute,
    /// The pattern has more than [`LONGEST`] bytes.
    TooLong,
    /// The pattern has more than [`MOST_SEGMENTS`] segments.
    TooManySegments,
    /// The segment mixes a parameter with text, or a brace is left open.
    Segment(String),
    /// The name is not a letter or `_`, followed by letters, digits, `_` and `-`.
    Name(String),
    RepeatedName(String),
    /// A segment follows a wildcard.
    AfterWildcard,
    /// No request can have such a path, because it would be refused; holds the reason.
    Unmatchable(&'static str),
}

impl Pattern {
    /// Parses a pattern. Literals may be plain (`/café`) or percent-encoded (`/caf%C3%A9`).
    ///
    /// # Errors
    /// [`PatternError`], which prints as a sentence.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let relative = text.strip_prefix('/').ok_or(PatternError::NotAbsolute)?;
        // Checked before memory is allocated in proportion to the length.
        if text.len() > LONGEST {
            return Err(PatternError::TooLong);
        }
        if relative.split('/').nth(MOST_SEGMENTS).is_some() {
            return Err(PatternError::TooManySegments);
        }
        let mut rest = relative.split('/').peekable();
        let mut segments = Vec::new();
        let mut names: Vec<Box<str>> = Vec::new();
        let mut literals = String::new();
        while let Some(segment) = rest.next() {
            let Some(inner) = segment.strip_prefix('{') else {
                if segment.contains(['{', '}']) {
                    return Err(PatternError::Segment(segment.to_owned()));
                }
                let literal = encode_literal(segment);
                literals.extend(["/", &literal]);
                segments.push(Segment::Literal(canonical(&literal).into()));
                continue;
            };
            let name = inner
                .strip_suffix('}')
                .ok_or_else(|| PatternError::Segment(segment.to_owned()))?;
            let (name, kind) = match name.strip_prefix('*') {
                Some(name) => (name, Segment::Wildcard),
                None => (name, Segment::Parameter),
            };
            if !is_name(name) {
                return Err(PatternError::Name(name.to_owned()));
            }
            if names.iter().any(|known| **known == *name) {
                return Err(PatternError::RepeatedName(name.to_owned()));
            }
            if kind == Segment::Wildcard && rest.peek().is_some() {
                return Err(PatternError::AfterWildcard);
            }
            literals.push_str("/_");
            names.push(name.into());
            segments.push(kind);
        }
        match NormalPath::parse(&literals) {
            Err(Rejection::MalformedRequest { why, .. }) => Err(PatternError::Unmatchable(why)),
            _ => Ok(Self {
                segments,
                names: names.into(),
            }),
        }
    }

    /// Parses a prefix. Returns the patterns that together match it and all paths below: the prefix itself, with a slash
    /// at the end, and with more segments. A slash at the end of the prefix has no meaning. What follows the prefix is
    /// the last parameter, [`REST`].
    ///
    /// # Errors
    /// [`PatternError`], which prints as a sentence.
    pub fn of_prefix(text: &str) -> Result<Vec<Self>, PatternError> {
        let alone = text.strip_suffix('/').unwrap_or(text);
        let below = Self::parse(&format!("{alone}/{{*{REST}}}"))?;
        let mut patterns = vec![Self::parse(&format!("{alone}/"))?];
        if !alone.is_empty() {
            patterns.push(Self::parse(alone)?);
        }
        for pattern in &mut patterns {
            pattern.names = below.names.clone();
        }
        patterns.push(below);
        Ok(patterns)
    }

    /// Whether both patterns match the same paths; names of parameters are ignored.
    pub fn matches_as(&self, other: &Self) -> bool {
        self.segments == other.segments
    }

    /// Returns the names of the parameters, in order.
    pub fn names(&self) -> &[Box<str>] {
        &self.names
    }
}

/// Percent-encodes spaces and bytes outside ASCII in a literal.
fn encode_literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, 0x80.. | b' ') {
            crate::template::percent::push_escaped(byte, &mut out);
        } else {
            out.push(char::from(byte));
        }
    }
    out
}

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAbsolute => write!(f, "a path pattern begins with `/`"),
            Self::TooLong => write!(f, "a path pattern has at most {LONGEST} bytes"),
            Self::TooManySegments => write!(
                f,
                "a path pattern has at most {MOST_SEGMENTS} segments; a wildcard at its end, as in `\"/a/{{*rest}}\"`, takes any number"
            ),
            Self::Segment(segment) => {
                write!(f, "a segment is text or one whole `{{name}}`, which `{segment}` is not")
            }
            Self::Name(name) => write!(f, "`{name}` is not a name: a letter, then letters, digits, `_` and `-`"),
            Self::RepeatedName(name) => write!(f, "the name `{name}` is used twice"),
            Self::AfterWildcard => write!(f, "a wildcard takes all that is left, so nothing can follow it"),
            Self::Unmatchable(why) => write!(f, "no request can have this path: {why}"),
        }
    }
}

impl std::error::Error for PatternError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_read_segment_by_segment() {
        let pattern = Pattern::parse("/caf\u{e9}/%7e%3a/{id}/{*rest}").expect("well formed");
        let literal = |text: &str| Segment::Literal(text.into());
        assert_eq!(
            pattern.segments,
            [
                literal("caf%C3%A9"),
                literal("~:"),
                Segment::Parameter,
                Segment::Wildcard
            ]
        );
        assert_eq!(pattern.names(), ["id", "rest"].map(Box::<str>::from));
        assert_eq!(Pattern::parse("/").expect("the root").segments, [literal("")]);
    }

    #[test]
    fn mistakes_are_named() {
        let check = |text: &str, expected: PatternError| assert_eq!(Pattern::parse(text), Err(expected), "{text}");
        let segments = |count: usize| "/a".repeat(count);
        assert_eq!(
            Pattern::parse(&segments(64)).map(|pattern| pattern.segments.len()),
            Ok(64)
        );
        for too_many in [
            segments(65),
            segments(2048),
            "/".repeat(100),
            format!("{}/{{*rest}}", segments(64)),
        ] {
            check(&too_many, PatternError::TooManySegments);
        }
        assert!(Pattern::parse(&format!("/{}", "a".repeat(4095))).is_ok());
        for too_long in [
            format!("/{}", "a".repeat(4096)),
            segments(100_000),
            format!("/{{{}}}", "a".repeat(1 << 20)),
        ] {
            check(&too_long, PatternError::TooLong);
        }
        check("", PatternError::NotAbsolute);
        check("users", PatternError::NotAbsolute);
        check("/a-{id}", PatternError::Segment("a-{id}".into()));
        check("/{id}.json", PatternError::Segment("{id}.json".into()));
        check("/{id", PatternError::Segment("{id".into()));
        check("/id}", PatternError::Segment("id}".into()));
        check("/{}", PatternError::Name(String::new()));
        check("/{*}", PatternError::Name(String::new()));
        check("/{a b}", PatternError::Name("a b".into()));
        check("/{a}{b}", PatternError::Name("a}{b".into()));
        check("/{a}/{a}", PatternError::RepeatedName("a".into()));
        check("/{*a}/b", PatternError::AfterWildcard);
        for unmatchable in ["/a//b", "/a/../b", "/%2e%2e", "/a%2Fb", "/a\\b", "/a%", "/a?b=c"] {
            let found = Pattern::parse(unmatchable);
            assert!(
                matches!(found, Err(PatternError::Unmatchable(_))),
                "{unmatchable}: {found:?}"
            );
        }
    }
}
