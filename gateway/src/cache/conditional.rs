//! Answers conditional requests from a stored answer (RFC 9110 section 13), and asks the backend whether a stored answer
//! is still good (RFC 9111 section 4.3).

use http::header::{
    AGE, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG,
    EXPIRES, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, LOCATION, RANGE,
    VARY,
};
use http::{HeaderName, HeaderValue};

use super::freshness::date;
use crate::message::FieldMap;

/// Whether the request asks for something that a stored answer does not decide: a part of the answer, or a condition
/// that only the backend can check.
pub fn is_for_backend_alone(headers: &FieldMap) -> bool {
    let names = [RANGE, IF_RANGE, IF_MATCH, IF_UNMODIFIED_SINCE];
    names.iter().any(|name| headers.contains_key(name))
}

/// Conditions of a caller, taken out of its request, so that the backend sends the whole answer.
#[derive(Debug, Clone, Default)]
pub struct Conditions {
    none_match: Vec<HeaderValue>,
    modified_since: Option<HeaderValue>,
}

impl Conditions {
    /// Takes the conditions out of a request.
    pub fn take(headers: &mut FieldMap) -> Self {
        let none_match = headers.get_all(IF_NONE_MATCH).iter().cloned().collect();
        headers.remove(IF_NONE_MATCH);
        Self {
            none_match,
            modified_since: headers.remove(IF_MODIFIED_SINCE),
        }
    }

    /// Whether the caller has the answer with these fields already. `If-None-Match` counts alone where it is present.
    pub fn are_met_by(&self, answer: &FieldMap) -> bool {
        if !self.none_match.is_empty() {
            let tag = answer.get(ETAG);
            return self.none_match.iter().any(|line| {
                line.as_bytes().trim_ascii() == b"*"
                    || tag.is_some_and(|tag| entity_tags(line.as_bytes()).any(|other| other == opaque(tag)))
            });
        }
        let since = self.modified_since.as_ref().and_then(date);
        let modified = answer.get(LAST_MODIFIED).and_then(date);
        matches!((since, modified), (Some(since), Some(modified)) if modified <= since)
    }
}

/// Returns a tag without the mark of weak tags: the comparison is weak.
fn opaque(tag: &HeaderValue) -> &[u8] {
    let tag = tag.as_bytes();
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// Returns the entity tags of a list (RFC 9110 section 13.1.2), without the `W/` prefix. Stops at the first byte that does not fit the list syntax.
pub fn entity_tags(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = line;
    std::iter::from_fn(move || {
        let start = rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b','))?;
        let tag = &rest[start..];
        let tag = tag.strip_prefix(b"W/").unwrap_or(tag);
        let inside = tag.strip_prefix(b"\"")?;
        // A comma within quotes belongs to the tag.
        let end = inside.iter().position(|byte| *byte == b'"')? + 2;
        rest = &tag[end..];
        let next = rest.trim_ascii_start().first();
        matches!(next, None | Some(b',')).then(|| &tag[..end])
    })
}

/// Writes the conditions by which the backend tells whether a stored answer is still good.
pub fn ask_again(stored: &FieldMap, request: &mut FieldMap) {
    if let Some(tag) = stored.get(ETAG) {
        request.insert(IF_NONE_MATCH, tag.clone());
    }
    if let Some(modified) = stored.get(LAST_MODIFIED) {
        request.insert(IF_MODIFIED_SINCE, modified.clone());
    }
}

/// Removes these conditions, so that a backend sends the whole answer.
pub fn ask_for_the_whole(request: &mut FieldMap) {
    request.remove(IF_NONE_MATCH);
    request.remove(IF_MODIFIED_SINCE);
}

/// Returns the fields of a stored answer that the backend has confirmed with a 304 (RFC 9111 section 3.2), or `None` if
/// the 304 is about another answer.
pub fn confirmed(stored: &FieldMap, news: &FieldMap) -> Option<FieldMap> {
    // These describe the body, which stays.
    static OF_BODY: [HeaderName; 4] = [CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE];
    if let (Some(old), Some(new)) = (stored.get(ETAG), news.get(ETAG))
        && opaque(old) != opaque(new)
    {
        return None;
    }
    let is_new = |name: &HeaderName| !OF_BODY.contains(name) && news.contains_key(name);
    // The age is that of the new answer.
    let old = stored.iter().filter(|(name, _)| **name != AGE && !is_new(name));
    let new = news.iter().filter(|(name, _)| !OF_BODY.contains(name));
    Some(
        old.chain(new)
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
    )
}

/// Returns the targets that the answer to an unsafe request names as changed too, on the same host (RFC 9111 section 4.4).
pub fn changed_targets(answer: &FieldMap, host: &str, target: &str) -> Vec<String> {
    let names = [LOCATION, CONTENT_LOCATION];
    let values = names.iter().filter_map(|name| answer.get(name)?.to_str().ok());
    values.filter_map(|value| target_of(value, host, target)).collect()
}

/// Returns the path and query of a URI reference, if it is on this host.
fn target_of(reference: &str, host: &str, base: &str) -> Option<String> {
    let reference = reference.split('#').next().unwrap_or_default();
    if let Some((scheme, rest)) = reference.split_once("://") {
        let is_http = ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
        let (authority, target) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let is_own = is_http && authority.eq_ignore_ascii_case(host);
        return is_own.then(|| if target.is_empty() { "/" } else { target }.to_owned());
    }
    if reference.is_empty() || reference.starts_with("//") {
        return None;
    }
    if reference.starts_with('/') {
        return Some(reference.to_owned());
    }
    let path = base.split('?').next().unwrap_or_default();
    let folder = &path[..=path.rfind('/')?];
    Some(format!("{folder}{}", reference.strip_prefix("./").unwrap_or(reference)))
}

/// Returns the fields of a 304 in place of an answer with these fields (RFC 9110 section 15.4.5).
pub fn unchanged(answer: &FieldMap) -> FieldMap {
    const KEPT: [HeaderName; 6] = [CACHE_CONTROL, CONTENT_LOCATION, DATE, ETAG, EXPIRES, VARY];
    let mut headers = FieldMap::with_capacity(8);
    let modified = (!answer.contains_key(ETAG)).then_some(LAST_MODIFIED);
    for name in KEPT.into_iter().chain(modified) {
        for value in answer.get_all(&name) {
            headers.append(&name, value.clone());
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> FieldMap {
        let mut headers = FieldMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_caller_that_has_the_answer_is_told_so() {
        fn check(asked: &[(&'static str, &'static str)], answer: &[(&'static str, &'static str)], expected: bool) {
            let mut request = headers(asked);
            let conditions = Conditions::take(&mut request);
            assert!(request.is_empty());
            assert_eq!(
                conditions.are_met_by(&headers(answer)),
                expected,
                "{asked:?} {answer:?}"
            );
        }
        const TAGGED: &[(&str, &str)] = &[("etag", "\"a\""), ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")];
        check(&[], TAGGED, false);
        check(&[("if-none-match", "\"b\", W/\"a\"")], TAGGED, true);
        check(&[("if-none-match", "\"b\""), ("if-none-match", "\"a\"")], TAGGED, true);
        check(&[("if-none-match", "\"a\"")], &[("etag", "W/\"a\"")], true);
        check(&[("if-none-match", "*")], &[], true);
        check(&[("if-none-match", "\"b\"")], TAGGED, false);
        check(&[("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT")], TAGGED, true);
        check(&[("if-modified-since", "Sunday, 06-Nov-94 08:49:38 GMT")], TAGGED, true);
        check(&[("if-modified-since", "Sun, 06 Nov 1994 08:49:36 GMT")], TAGGED, false);
        check(&[("if-modified-since", "soon")], TAGGED, false);
        // The tag decides alone.
        check(
            &[
                ("if-none-match", "\"b\""),
                ("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ],
            TAGGED,
            false,
        );
    }

    #[test]
    fn changed_targets_are_those_of_the_same_host() {
        let check = |value: &str, expected: Option<&str>| {
            assert_eq!(target_of(value, "h:80", "/a/b?c").as_deref(), expected, "{value}");
        };
        check("/x?y#z", Some("/x?y"));
        check("x", Some("/a/x"));
        check("./x", Some("/a/x"));
        check("http://H:80/x", Some("/x"));
        check("https://h:80", Some("/"));
        for other in ["http://h/x", "//i/x", "", "#a", "ftp://h:80/x"] {
            check(other, None);
        }
    }

    #[test]
    fn a_304_renews_all_but_what_describes_the_body() {
        let stored = headers(&[
            ("etag", "\"a\""),
            ("content-type", "text/plain"),
            ("content-length", "3"),
            ("a", "1"),
            ("age", "7"),
        ]);
        let news = headers(&[
            ("etag", "W/\"a\""),
            ("content-type", "x/y"),
            ("content-length", "0"),
            ("a", "2"),
            ("a", "3"),
        ]);
        let found = confirmed(&stored, &news).expect("the same answer");
        assert_eq!(
            found,
            headers(&[
                ("etag", "W/\"a\""),
                ("content-type", "text/plain"),
                ("content-length", "3"),
                ("a", "2"),
                ("a", "3")
            ])
        );
        assert!(confirmed(&stored, &headers(&[("etag", "\"b\"")])).is_none());
    }
}
