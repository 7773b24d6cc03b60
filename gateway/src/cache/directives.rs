//! Reads `Cache-Control` (RFC 9111 sections 5.2.1 and 5.2.2), of requests and of answers.
//!
//! Invariant: a directive that cannot be read never makes an answer usable for longer. A lifetime that is no number
//! counts as zero; of a repeated directive, the first one counts (section 4.2.1). Directives that name fields
//! (`private="a"`) count for the whole answer, which is stricter.

use http::HeaderValue;
use http::header::{CACHE_CONTROL, PRAGMA};

use crate::message::FieldMap;

/// Longest lifetime in seconds: larger numbers count as this (RFC 9111 section 1.2.2).
const LONGEST: u64 = 1 << 31;

/// Directives of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AnswerDirectives {
    pub no_store: bool,
    pub no_cache: bool,
    pub private: bool,
    pub public: bool,
    /// `must-revalidate`, or `proxy-revalidate`, which says the same to a gateway.
    pub must_revalidate: bool,
    pub must_understand: bool,
    /// Times in seconds.
    pub max_age: Option<u64>,
    pub s_maxage: Option<u64>,
    /// Seconds (RFC 5861), as is `stale_if_error`.
    pub stale_while_revalidate: Option<u64>,
    pub stale_if_error: Option<u64>,
}

/// Directives of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    pub no_store: bool,
    pub no_cache: bool,
    pub only_if_cached: bool,
    /// Times in seconds.
    pub max_age: Option<u64>,
    pub min_fresh: Option<u64>,
    /// Staleness that the caller accepts; `u64::MAX` is any.
    pub max_stale: Option<u64>,
}

impl AnswerDirectives {
    pub fn read(headers: &FieldMap) -> Self {
        let mut read = Self::default();
        each(headers, |name, value| {
            let seconds = || value.and_then(seconds).unwrap_or(0);
            if is(name, "no-store") {
                read.no_store = true;
            } else if is(name, "no-cache") {
                read.no_cache = true;
            } else if is(name, "private") {
                read.private = true;
            } else if is(name, "public") {
                read.public = true;
            } else if is(name, "must-revalidate") || is(name, "proxy-revalidate") {
                read.must_revalidate = true;
            } else if is(name, "must-understand") {
                read.must_understand = true;
            } else if is(name, "max-age") {
                read.max_age.get_or_insert_with(seconds);
            } else if is(name, "s-maxage") {
                read.s_maxage.get_or_insert_with(seconds);
            } else if is(name, "stale-while-revalidate") {
                read.stale_while_revalidate.get_or_insert_with(seconds);
            } else if is(name, "stale-if-error") {
                read.stale_if_error.get_or_insert_with(seconds);
            }
        });
        read
    }
}

impl RequestDirectives {
    /// Reads `Cache-Control`, or without it `Pragma: no-cache` (RFC 9111 section 5.4).
    pub fn read(headers: &FieldMap) -> Self {
        let mut read = Self::default();
        each(headers, |name, value| {
            if is(name, "no-store") {
                read.no_store = true;
            } else if is(name, "no-cache") {
                read.no_cache = true;
            } else if is(name, "only-if-cached") {
                read.only_if_cached = true;
            } else if is(name, "max-age") {
                read.max_age.get_or_insert_with(|| value.and_then(seconds).unwrap_or(0));
            } else if is(name, "min-fresh") {
                read.min_fresh
                    .get_or_insert_with(|| value.and_then(seconds).unwrap_or(LONGEST));
            } else if is(name, "max-stale") {
                read.max_stale.get_or_insert_with(|| match value {
                    None => u64::MAX,
                    Some(value) => seconds(value).unwrap_or(0),
                });
            }
        });
        if !headers.contains_key(CACHE_CONTROL) {
            let pragmas = headers.get_all(PRAGMA);
            read.no_cache = pragmas
                .iter()
                .any(|line| line.as_bytes().trim_ascii().eq_ignore_ascii_case(b"no-cache"));
        }
        read
    }
}

fn is(name: &[u8], wanted: &str) -> bool {
    name.eq_ignore_ascii_case(wanted.as_bytes())
}

/// Calls `found` with each directive, and with its value where it has one, without quotes.
fn each<'h>(headers: &'h FieldMap, mut found: impl FnMut(&'h [u8], Option<&'h [u8]>)) {
    for line in headers.get_all(CACHE_CONTROL) {
        for item in items(line) {
            let equals = item.iter().position(|byte| *byte == b'=');
            let (name, value) = match equals {
                None => (item, None),
                Some(at) => (&item[..at], Some(unquoted(&item[at + 1..]))),
            };
            found(name, value);
        }
    }
}

/// Returns the items of a list. A comma within quotes belongs to its item.
pub(super) fn items(line: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line.as_bytes());
    std::iter::from_fn(move || {
        loop {
            let line = rest?;
            let (mut quoted, mut escaped) = (false, false);
            let end = line.iter().position(|byte| {
                let was_escaped = std::mem::take(&mut escaped);
                match byte {
                    b'"' if !was_escaped => quoted = !quoted,
                    b'\\' if quoted && !was_escaped => escaped = true,
                    b',' if !quoted => return true,
                    _ => {}
                }
                false
            });
            let item = &line[..end.unwrap_or(line.len())];
            rest = end.map(|end| &line[end + 1..]);
            let item = item.trim_ascii();
            if !item.is_empty() {
                return Some(item);
            }
        }
    })
}

fn unquoted(value: &[u8]) -> &[u8] {
    let inside = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    inside.unwrap_or(value)
}

/// Reads a number of seconds, at most [`LONGEST`]. `None` if the text is no number.
pub(super) fn seconds(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = text.iter().map(|digit| u64::from(digit - b'0'));
    Some(digits.fold(0, |sum: u64, digit| (sum * 10 + digit).min(LONGEST)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[&'static str]) -> FieldMap {
        let mut headers = FieldMap::new();
        for line in lines {
            headers.append(CACHE_CONTROL, HeaderValue::from_static(line));
        }
        headers
    }

    #[test]
    fn lifetimes_are_read_strictly() {
        fn check(lines: &[&'static str], max_age: Option<u64>) {
            let read = AnswerDirectives::read(&headers(lines));
            assert_eq!(read.max_age, max_age, "{lines:?}");
        }
        check(&[], None);
        check(&["max-age=60"], Some(60));
        check(&["MAX-AGE=\"60\""], Some(60));
        check(&["a, ,max-age=007 , b"], Some(7));
        check(&["max-age=1800, max-age=1"], Some(1800));
        check(&["max-age=1", "max-age=1800"], Some(1));
        check(&["max-age=99999999999999999999999"], Some(LONGEST));
        check(&["other=\"max-age=60, b\", max-age=1"], Some(1));
        check(&["other=\"\\\", max-age=60\""], None);
        for unreadable in [
            "max-age",
            "max-age=",
            "max-age=-1",
            "max-age=6.0",
            "max-age= 60",
            "max-age='60'",
            "max-age=6a",
        ] {
            check(&[unreadable], Some(0));
        }
        // A name is a token, so this is another directive.
        check(&["max-age =60"], None);
    }

    #[test]
    fn directives_with_fields_count_for_the_whole_answer() {
        let read = AnswerDirectives::read(&headers(&["private=\"a, b\", No-Cache=\"set-cookie\", public"]));
        assert!(read.private && read.no_cache && read.public && !read.no_store);
        let read = AnswerDirectives::read(&headers(&[
            "proxy-revalidate, stale-if-error=5",
            "stale-while-revalidate=x",
        ]));
        assert!(read.must_revalidate);
        assert_eq!((read.stale_if_error, read.stale_while_revalidate), (Some(5), Some(0)));
    }

    #[test]
    fn requests_say_what_they_accept() {
        let read = RequestDirectives::read(&headers(&["max-stale, min-fresh=x, max-age=3"]));
        assert_eq!(
            (read.max_stale, read.min_fresh, read.max_age),
            (Some(u64::MAX), Some(LONGEST), Some(3))
        );
        assert_eq!(RequestDirectives::read(&headers(&["max-stale=x"])).max_stale, Some(0));
        let mut pragma = FieldMap::new();
        pragma.insert(PRAGMA, HeaderValue::from_static("No-Cache"));
        assert!(RequestDirectives::read(&pragma).no_cache);
        pragma.insert(CACHE_CONTROL, HeaderValue::from_static("a"));
        assert!(
            !RequestDirectives::read(&pragma).no_cache,
            "`Pragma` counts without `Cache-Control` only"
        );
    }
}
