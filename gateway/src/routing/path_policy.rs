//! Rewrites or keeps ambiguous paths, for routes whose operator has decided how to read them.
//!
//! A path is odd if another server could read it differently. By default it is refused; a route may have it resolved,
//! or kept if its backend reads it as it is matched here. The policy depends on the route, and the route on the path.
//! So the policies of a plan are tried in order, and the first one under which the path leads to a route with the same
//! policy applies.
//!
//! Invariant: routes are matched against the bytes that are sent on. A policy changes the request target before any
//! decision depends on it, and the result is checked like any other path.

use std::borrow::Cow;

use http::uri::PathAndQuery;
use http::{Method, Uri, Version};

use super::path::{Keeps, NormalPath};
use super::table::{NotFound, Table};
use super::target::Target;
use crate::message::FieldMap;
use crate::setting::SettingId;
use crate::template::Query;
use crate::template::percent::decode_pair;

/// Actions for each kind of oddity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PathPolicy {
    pub dot_segments: DotSegments,
    pub double_slash: Action,
    pub encoded_slash: Action,
    /// A backslash, plain or percent-encoded.
    pub backslash: Action,
}

/// Actions for dot segments. These are never kept, because the backend would resolve a path that the route was not
/// chosen by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DotSegments {
    #[default]
    Reject,
    Decode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Action {
    #[default]
    Reject,
    /// Replaces each occurrence by one plain slash.
    Decode,
    Keep,
}

/// Returns the request target as rewritten by the policy of its own route, and that policy; `None` if no route takes
/// the request. A route that lacks only the method counts if no other route takes the request.
///
/// Only for an odd path; any other path is the same under every policy.
pub fn settle<T>(
    table: &Table<T>,
    policies: &[PathPolicy],
    policy_of: impl Fn(&T) -> PathPolicy,
    (method, version): (&Method, Version),
    uri: &Uri,
    headers: &FieldMap,
) -> Option<(Uri, PathPolicy)> {
    // The query is the same under every policy.
    let query = Query::new(uri.query());
    let settled_by = |policy: &PathPolicy, lacks_method: bool| {
        let uri = policy.applied_to(uri)?;
        let target = Target::read(method, version, &uri, headers, policy.keeps()).ok()?;
        let holds = match table.find(target.host, &target.path, method, headers, &query) {
            Ok(found) => !lacks_method && policy_of(found.target) == *policy,
            Err(NotFound::MethodNotAllowed { routes, .. }) => {
                lacks_method && routes.iter().any(|route| policy_of(route) == *policy)
            }
            Err(NotFound::NoRoute | NotFound::TwoRoutes | NotFound::TooManyParameters) => false,
        };
        holds.then_some((uri, *policy))
    };
    let taken = policies.iter().find_map(|policy| settled_by(policy, false));
    taken.or_else(|| policies.iter().find_map(|policy| settled_by(policy, true)))
}

/// Returns the `path_policy` key because of which the path was refused: with another action for this key, the path
/// would pass. If several keys would have to change, it is the first of them. `None` if every policy refuses the path.
pub fn key_that_refused(path: &str) -> Option<SettingId> {
    let reject = PathPolicy::default();
    let others = [
        (
            SettingId::DOT_SEGMENTS,
            PathPolicy {
                dot_segments: DotSegments::Decode,
                ..reject
            },
        ),
        (
            SettingId::DOUBLE_SLASH,
            PathPolicy {
                double_slash: Action::Decode,
                ..reject
            },
        ),
        (
            SettingId::ENCODED_SLASH,
            PathPolicy {
                encoded_slash: Action::Keep,
                ..reject
            },
        ),
        (
            SettingId::BACKSLASH,
            PathPolicy {
                backslash: Action::Keep,
                ..reject
            },
        ),
    ];
    let passes = |policy: PathPolicy| NormalPath::keeping(&policy.apply(path), policy.keeps()).is_ok();
    if let Some((key, _)) = others.into_iter().find(|(_, policy)| passes(*policy)) {
        return Some(key);
    }
    let decode = PathPolicy {
        dot_segments: DotSegments::Decode,
        double_slash: Action::Decode,
        encoded_slash: Action::Decode,
        backslash: Action::Decode,
    };
    let all = decode.apply(path);
    let one_less = |key: SettingId| {
        let mut policy = decode;
        match key {
            SettingId::DOT_SEGMENTS => policy.dot_segments = DotSegments::Reject,
            SettingId::DOUBLE_SLASH => policy.double_slash = Action::Reject,
            SettingId::ENCODED_SLASH => policy.encoded_slash = Action::Reject,
            _ => policy.backslash = Action::Reject,
        }
        policy
    };
    NormalPath::parse(&all).ok()?;
    others
        .into_iter()
        .map(|(key, _)| key)
        .find(|key| !passes(one_less(*key)))
}

/// Whether a policy could change the path.
pub fn is_odd(path: &str) -> bool {
    let mut last = 0;
    path.bytes().any(|byte| {
        let odd = matches!(byte, b'%' | b'\\') || last == b'/' && matches!(byte, b'/' | b'.');
        last = byte;
        odd
    })
}

impl PathPolicy {
    pub const fn keeps(self) -> Keeps {
        Keeps {
            double_slash: matches!(self.double_slash, Action::Keep),
            encoded_slash: matches!(self.encoded_slash, Action::Keep),
            backslash: matches!(self.backslash, Action::Keep),
        }
    }

    /// Returns the target with the rewritten path; `None` if the result is no valid target.
    fn applied_to(self, uri: &Uri) -> Option<Uri> {
        let path = match self.apply(uri.path()) {
            Cow::Borrowed(_) => return Some(uri.clone()),
            Cow::Owned(path) => path,
        };
        let target = match uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(PathAndQuery::try_from(target).ok()?);
        Uri::from_parts(parts).ok()
    }

    /// Decodes in the path what the policy decodes. Parts that are to be refused stay in it.
    pub fn apply(self, raw: &str) -> Cow<'_, str> {
        let mut path = self.with_plain_slashes(raw);
        if self.double_slash == Action::Decode && path.contains("//") {
            path = Cow::Owned(merged(&path));
        }
        if self.dot_segments == DotSegments::Decode
            && let Some(resolved) = resolved(&path)
        {
            path = Cow::Owned(resolved);
        }
        path
    }

    fn with_plain_slashes(self, raw: &str) -> Cow<'_, str> {
        let decodes = |byte| match byte {
            b'/' => self.encoded_slash == Action::Decode,
            b'\\' => self.backslash == Action::Decode,
            _ => false,
        };
        let mut out = String::new();
        let mut copied = 0;
        for (at, byte) in raw.bytes().enumerate() {
            let (byte, width) = match byte {
                b'%' => match decode_pair(&raw.as_bytes()[at + 1..]) {
                    Some(byte) => (byte, 3),
                    None => continue,
                },
                b'\\' => (byte, 1),
                _ => continue,
            };
            if decodes(byte) {
                out.push_str(&raw[copied..at]);
                out.push('/');
                copied = at + width;
            }
        }
        if copied == 0 {
            return Cow::Borrowed(raw);
        }
        out.push_str(&raw[copied..]);
        Cow::Owned(out)
    }
}

fn merged(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !out.ends_with('/') {
            out.push(character);
        }
    }
    out
}

/// Removes dot segments (RFC 3986 section 5.2.4). Returns `None` if there are none, or if they lead above the root.
/// Dots with a path parameter (`..;x`) have no standard meaning; they stay and are refused later.
fn resolved(path: &str) -> Option<String> {
    let mut changed = false;
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.strip_prefix('/')?.split('/').peekable();
    while let Some(segment) = segments.next() {
        let dots = dots(segment);
        match dots {
            Some(1) => {}
            Some(2) => drop(kept.pop()?),
            _ => {
                kept.push(segment);
                continue;
            }
        }
        changed = true;
        if segments.peek().is_none() {
            kept.push("");
        }
    }
    changed.then(|| format!("/{}", kept.join("/")))
}

/// Returns the number of dots in a segment of dots only, plain or percent-encoded.
fn dots(segment: &str) -> Option<usize> {
    let mut rest = segment;
    let mut count = 0;
    while !rest.is_empty() {
        let dot = rest.strip_prefix('.').or_else(|| {
            let escape = rest.get(..3)?;
            escape.eq_ignore_ascii_case("%2e").then(|| &rest[3..])
        });
        rest = dot?;
        count += 1;
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::routing::{NormalPath, Spec};

    const DECODES: PathPolicy = PathPolicy {
        dot_segments: DotSegments::Decode,
        double_slash: Action::Decode,
        encoded_slash: Action::Decode,
        backslash: Action::Decode,
    };

    const KEEPS: PathPolicy = PathPolicy {
        dot_segments: DotSegments::Reject,
        double_slash: Action::Keep,
        encoded_slash: Action::Keep,
        backslash: Action::Keep,
    };

    #[test]
    fn a_refused_path_names_the_key_that_refused_it() {
        let check = |path: &str, expected: Option<SettingId>| {
            assert!(NormalPath::parse(path).is_err(), "{path}");
            assert_eq!(key_that_refused(path), expected, "{path}");
        };
        check("/a/../b", Some(SettingId::DOT_SEGMENTS));
        check("/a/%2e%2e/b", Some(SettingId::DOT_SEGMENTS));
        check("/a//b", Some(SettingId::DOUBLE_SLASH));
        check("/a%2Fb", Some(SettingId::ENCODED_SLASH));
        check("/a\\b", Some(SettingId::BACKSLASH));
        check("/a%5Cb", Some(SettingId::BACKSLASH));
        check("/a//../b", Some(SettingId::DOT_SEGMENTS));
        check("/a%2Fb//c", Some(SettingId::DOUBLE_SLASH));
        check("/../a", None);
        check("/a%zz", None);
        check("/a%00", None);
        check("a", None);
    }

    #[test]
    fn decoding_leaves_one_plain_path() {
        let check = |raw: &str, expected: &str| {
            assert_eq!(DECODES.apply(raw), expected, "{raw}");
            assert!(NormalPath::parse(&DECODES.apply(raw)).is_ok(), "{raw}");
        };
        check("/", "/");
        check("/a/b", "/a/b");
        check("/a//b///c//", "/a/b/c/");
        check("/a%2Fb%2fc", "/a/b/c");
        check("/a\\b%5Cc", "/a/b/c");
        check("/a/./b/../c", "/a/c");
        check("/a/%2e%2E/b/.%2e/c", "/c");
        check("/a/..", "/");
        check("/a/b/.", "/a/b/");
        check("/x/a%2f..%5C..//b", "/b");
        check("/a%252e%2e/b", "/a%252e%2e/b");
        check("/...", "/...");
        check("/a%20b", "/a%20b");
    }

    #[test]
    fn what_cannot_be_decoded_is_still_refused() {
        for raw in [
            "/..",
            "/../a",
            "/a/../../b",
            "/%2e%2e%2fa",
            "/a/..;/b",
            "/a/..;x=y",
            "/a%00",
            "/a%0d",
            "/a%zz",
            "/%c0%ae%c0%ae/a",
            "",
            "a/../b",
        ] {
            let path = DECODES.apply(raw);
            assert!(NormalPath::parse(&path).is_err(), "{raw} became {path}");
        }
    }

    #[test]
    fn each_kind_is_decided_alone() {
        let strict = PathPolicy::default();
        for raw in ["/a//b", "/a%2Fb", "/a\\b", "/a/../b", "/%2e"] {
            assert_eq!(strict.apply(raw), raw);
            assert!(
                NormalPath::keeping(&strict.apply(raw), strict.keeps()).is_err(),
                "{raw}"
            );
        }
        let merges = PathPolicy {
            double_slash: Action::Decode,
            ..strict
        };
        assert_eq!(merges.apply("/a//b%2Fc"), "/a/b%2Fc");
        let resolves = PathPolicy {
            dot_segments: DotSegments::Decode,
            double_slash: Action::Keep,
            ..strict
        };
        assert_eq!(resolves.apply("/a//../b"), "/a/b");
    }

    #[test]
    fn the_policy_of_the_route_that_is_found_holds() {
        let spec = |name: &str, path: &str, policy: PathPolicy| Spec {
            name: name.into(),
            hosts: Vec::new(),
            paths: vec![path.to_owned()],
            prefixes: Vec::new(),
            methods: Vec::new(),
            conditions: Vec::new(),
            target: policy,
        };
        let strict = PathPolicy::default();
        let table = Table::build(vec![
            spec("projects", "/projects/{id}", KEEPS),
            spec("pages", "/pages/{*rest}", DECODES),
            spec("admin", "/admin/{*rest}", strict),
        ])
        .expect("no mistakes");
        let check = |raw: &str, expected: Option<&str>| {
            let uri: Uri = raw.parse().expect("a target");
            let mut headers = FieldMap::new();
            headers.insert("host", http::HeaderValue::from_static("a"));
            let request = (&Method::GET, Version::HTTP_11);
            let settled = settle(
                &table,
                &[strict, KEEPS, DECODES],
                |policy| *policy,
                request,
                &uri,
                &headers,
            );
            assert_eq!(settled.map(|(uri, _)| uri.to_string()).as_deref(), expected, "{raw}");
        };
        check("/projects/a%2Fb?x=%2F", Some("/projects/a%2Fb?x=%2F"));
        check("/pages/a%2Fb//c/../d?x=//", Some("/pages/a/b/d?x=//"));
        check("/admin/%61", Some("/admin/%61"));
        check("/admin/a%2Fb", None);
        check("/admin//b", None);
        // No policy may lead to a route that has another policy.
        check("/pages/../admin/x", None);
        check("/pages/..%2Fprojects/x", None);
        check("/nowhere/%61", None);
    }

    fn path() -> impl Strategy<Value = String> {
        let piece = prop_oneof!["[a-z/.%;\\\\]", "%(2e|2E|2f|2F|5c|5C|41|25)", "\\.\\./|/\\./|//"];
        prop::collection::vec(piece, 0..20).prop_map(|pieces| format!("/{}", pieces.concat()))
    }

    fn policy() -> impl Strategy<Value = PathPolicy> {
        let action = || prop::sample::select(vec![Action::Reject, Action::Decode, Action::Keep]);
        let dots = prop::sample::select(vec![DotSegments::Reject, DotSegments::Decode]);
        (dots, action(), action(), action()).prop_map(|(dot_segments, double_slash, encoded_slash, backslash)| {
            PathPolicy {
                dot_segments,
                double_slash,
                encoded_slash,
                backslash,
            }
        })
    }

    proptest! {
        #![proptest_config(cases::counted())]

        #[test]
        fn what_a_policy_accepts_is_settled_and_hides_no_dot_segment(raw in path(), policy in policy()) {
            let once = policy.apply(&raw).into_owned();
            if let Ok(path) = NormalPath::keeping(&once, policy.keeps()) {
                prop_assert_eq!(policy.apply(&once), once.as_str());
                let decoded = percent_encoding::percent_decode_str(path.raw()).decode_utf8().expect("UTF-8");
                prop_assert!(!decoded.split(['/', '\\']).any(|segment| [".", ".."].contains(&segment)), "{}", decoded);
            }
        }

        #[test]
        fn a_path_that_is_not_odd_is_the_same_under_every_policy(raw in path(), policy in policy()) {
            if !is_odd(&raw) {
                prop_assert_eq!(policy.apply(&raw), raw.as_str());
                prop_assert_eq!(NormalPath::parse(&raw).is_ok(), NormalPath::keeping(&raw, policy.keeps()).is_ok());
            }
        }
    }
}
