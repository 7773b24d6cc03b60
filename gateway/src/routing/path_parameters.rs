//! Reads a path as servers do that cut off path parameters, such as Java's: `/users;v=1/7` is `/users/7` to them.
//!
//! The standards give `;` no meaning (RFC 3986 section 3.3), so it stays and is matched like any character. But if the
//! path without parameters leads to another route, a caller could use them to bypass that route's rules. So the table
//! looks up both paths.

use std::ops::Range;

/// Returns the path without its parameters; `None` if it has none. A segment that only has parameters is dropped.
///
/// Only a `;` inside a capture begins a parameter. Any other `;` is in the pattern, whose author knows how the backend
/// reads it.
pub(super) fn cut(path: &str, captures: &[Range<usize>]) -> Option<String> {
    let is_parameter = |at: usize| path.as_bytes()[at] == b';' && captures.iter().any(|range| range.contains(&at));
    if !(0..path.len()).any(is_parameter) {
        return None;
    }
    let mut cut = String::with_capacity(path.len());
    let mut begin = 1;
    for segment in path.strip_prefix('/').unwrap_or(path).split('/') {
        let end = begin + segment.len();
        let kept = (begin..end).find(|at| is_parameter(*at)).unwrap_or(end) - begin;
        if kept > 0 || segment.is_empty() {
            cut.push('/');
            cut.push_str(&segment[..kept]);
        }
        begin = end + 1;
    }
    if cut.is_empty() {
        cut.push('/');
    }
    Some(cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_cut_segment_by_segment() {
        let check = |path: &str, expected: Option<&str>| {
            let all = 1..path.len();
            assert_eq!(cut(path, &[all]).as_deref(), expected, "{path}");
        };
        check("/a/b", None);
        check("/a;x", Some("/a"));
        check("/a;x/b", Some("/a/b"));
        check("/a;x=1;y=2/b;", Some("/a/b"));
        check("/;x/a", Some("/a"));
        check("/a/;x", Some("/a"));
        check("/a;x/", Some("/a/"));
        check("/;", Some("/"));
        check("/;;/;x", Some("/"));
    }

    #[test]
    fn what_a_pattern_has_is_no_parameter() {
        let check = |path: &str, captured: Option<Range<usize>>, expected: Option<&str>| {
            assert_eq!(cut(path, captured.as_slice()).as_deref(), expected, "{path}");
        };
        check("/a;x/b", Some(5..6), None);
        check("/a;x/b", None, None);
        check("/a;x/b;y", Some(5..8), Some("/a;x/b"));
    }
}
