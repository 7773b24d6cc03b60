//! A pattern of media types: `application/json`, `text/*` or `application/*+json`.

use std::fmt;

use super::fields::is_stream;

/// Media types that have something in common, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaRange {
    kind: String,
    /// Subtype, or its end if `is_open`.
    subtype: String,
    is_open: bool,
}

impl MediaRange {
    /// Reads a range. `None` if it is not one; the type itself must be named.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, subtype) = text.split_once('/')?;
        let (subtype, is_open) = match subtype.strip_prefix('*') {
            Some("") => ("", true),
            Some(suffix) if suffix.len() > 1 && suffix.starts_with('+') => (suffix, true),
            Some(_) => return None,
            None => (subtype, false),
        };
        let is_token = |text: &str| {
            text.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte))
        };
        let is_good = !kind.is_empty() && is_token(kind) && is_token(subtype) && (is_open || !subtype.is_empty());
        is_good.then(|| Self {
            kind: kind.to_ascii_lowercase(),
            subtype: subtype.to_ascii_lowercase(),
            is_open,
        })
    }

    /// Whether it names messages that are never compressed: server-sent events, or gRPC.
    pub fn is_of_streams(&self) -> bool {
        !self.is_open && is_stream(self.to_string().as_bytes())
    }

    /// Returns whether the value of a `Content-Type` is in the range. Its parameters do not matter.
    pub fn contains(&self, content_type: &[u8]) -> bool {
        let (kind, subtype) = split(content_type);
        if !kind.eq_ignore_ascii_case(self.kind.as_bytes()) || subtype.is_empty() {
            return false;
        }
        let wanted = self.subtype.as_bytes();
        match subtype.len().checked_sub(wanted.len()) {
            Some(0) if !self.is_open => subtype.eq_ignore_ascii_case(wanted),
            // Something must stand before the suffix.
            Some(start @ 1..) if self.is_open => subtype[start..].eq_ignore_ascii_case(wanted),
            _ => false,
        }
    }
}

/// Splits a media type into type and subtype, without parameters.
pub(super) fn split(content_type: &[u8]) -> (&[u8], &[u8]) {
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    let slash = essence.iter().position(|byte| *byte == b'/').unwrap_or(essence.len());
    let (kind, subtype) = essence.split_at(slash);
    (
        kind.trim_ascii(),
        subtype.strip_prefix(b"/").unwrap_or_default().trim_ascii(),
    )
}

impl fmt::Display for MediaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.is_open { "*" } else { "" };
        write!(f, "{}/{star}{}", self.kind, self.subtype)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_contains_its_types() {
        let check = |range: &str, content_type: &str, expected: bool| {
            let range = MediaRange::parse(range).unwrap();
            assert_eq!(
                range.contains(content_type.as_bytes()),
                expected,
                "{range} {content_type}"
            );
        };
        check("application/json", "application/json", true);
        check("application/json", "Application/JSON; charset=utf-8", true);
        check("application/json", "application/json-seq", false);
        check("application/json", "application/problem+json", false);
        check("application/json", "text/json", false);
        check("text/*", "text/html", true);
        check("text/*", "text/html;charset=utf-8", true);
        check("text/*", "text", false);
        check("text/*", "text/", false);
        check("text/*", "textual/html", false);
        check("application/*+json", "application/problem+json ; a=b", true);
        check("application/*+json", "application/json", false);
        check("application/*+json", "application/+json", false);
        check("APPLICATION/*+JSON", "application/ld+json", true);
        check("image/svg+xml", "image/svg+xml", true);
        check("text/*", "", false);
        check("text/*", ";text/html", false);
    }

    #[test]
    fn only_a_type_with_its_name_is_a_range() {
        for text in [
            "",
            "text",
            "text/",
            "/html",
            "*/*",
            "*",
            "text/*html",
            "text/*+",
            "text/ht ml",
            "te xt/html",
            "text/a/b",
            "a;b/c",
        ] {
            assert_eq!(MediaRange::parse(text), None, "{text}");
        }
        for text in ["text/*", "application/*+json", "image/svg+xml", "application/vnd.a.b-c"] {
            assert_eq!(
                MediaRange::parse(text).map(|range| range.to_string()).as_deref(),
                Some(text)
            );
        }
    }
}
