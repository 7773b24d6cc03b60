//! The last good answers of backends, for when there is no fresh one.
//!
//! Invariant: an answer is found only by the request that it was given to, in everything that a backend could have told
//! requests apart by, its caller among it; so nobody is shown what was said to another. The store is bounded in bytes,
//! and what does not fit pushes out what has not been asked for.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, VARY};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use policies::Moment;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

/// A longer body is not kept.
pub const BODY_LIMIT: usize = 1 << 20;

/// What an answer takes beside its key and its body, about.
const OVERHEAD: u64 = 512;

pub struct Store {
    cache: Cache<Key, Kept, Weigh>,
}

/// Everything that an answer may depend on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key(Box<[u8]>);

/// An answer as it was given.
#[derive(Debug, Clone)]
pub struct Kept {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub at: Moment,
}

#[derive(Debug, Clone)]
struct Weigh;

impl Weighter<Key, Kept> for Weigh {
    fn weight(&self, key: &Key, kept: &Kept) -> u64 {
        let headers: usize = kept
            .headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len())
            .sum();
        OVERHEAD + (key.0.len() + headers + kept.body.len()) as u64
    }
}

impl Store {
    /// For so many bytes in all.
    pub fn new(bytes: u64) -> Self {
        // So many answers of a few kilobytes; it decides how the store is divided, not what goes in.
        let answers = usize::try_from(bytes / 4096).unwrap_or(usize::MAX).max(1);
        Self {
            cache: Cache::with_weighter(answers, bytes, Weigh),
        }
    }

    /// Keeps a good answer that [may be kept](may_be_kept), unless it is too long.
    ///
    /// The body is copied, since it may be a small piece of a large buffer.
    pub fn keep(&self, key: Key, kept: Kept) {
        if kept.body.len() <= BODY_LIMIT {
            let body = Bytes::copy_from_slice(&kept.body);
            self.cache.insert(key, Kept { body, ..kept });
        }
    }

    /// The last good answer, if it is no older than `within`.
    pub fn recall(&self, key: &Key, now: Moment, within: Duration) -> Option<Kept> {
        self.cache.get(key).filter(|kept| now.since(kept.at) <= within)
    }
}

/// Whether an answer to this method says nothing about what it did, and so can stand for another (RFC 9110 section 9.2.1).
pub fn is_repeatable(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Whether neither the request nor its answer forbids to keep it (RFC 9111 section 5.2), and the answer was chosen by
/// nothing that [`Key`] leaves out.
pub fn may_be_kept(asked: &HeaderMap, answered: &HeaderMap) -> bool {
    let no_store = |headers| any_token(headers, &CACHE_CONTROL, |directive| directive == "no-store");
    let varies = any_token(answered, &VARY, |name| name == "*" || is_noise(name));
    !no_store(asked) && !no_store(answered) && !varies
}

/// `is` is asked of each token of a list, in lower case.
fn any_token(headers: &HeaderMap, name: &HeaderName, is: impl Fn(&str) -> bool) -> bool {
    headers.get_all(name).iter().any(|line| {
        let text = String::from_utf8_lossy(line.as_bytes()).to_ascii_lowercase();
        text.split(',').any(|token| is(token.trim()))
    })
}

impl Key {
    /// Of a request without a body, as its backend would get it. `place` says by which route, and part of it, it is sent.
    ///
    /// Every field counts but those that no backend chooses an answer by: what tells one try from another, and what says
    /// how the request travelled.
    pub fn of(place: &[&str], method: &Method, target: &str, headers: &HeaderMap) -> Self {
        let mut fields: Vec<(&HeaderName, &[u8])> = headers
            .iter()
            .filter(|(name, _)| !is_noise(name.as_str()))
            .map(|(name, value)| (name, value.as_bytes()))
            .collect();
        // By name alone: of lines with the same name the order means something.
        fields.sort_by(|one, other| one.0.as_str().cmp(other.0.as_str()));
        let mut key = Vec::with_capacity(256);
        // With its length, so that no two lists of texts run together the same way.
        let mut push = |text: &[u8]| {
            key.extend_from_slice(&(text.len() as u64).to_le_bytes());
            key.extend_from_slice(text);
        };
        for name in place {
            push(name.as_bytes());
        }
        push(method.as_str().as_bytes());
        push(target.as_bytes());
        for (name, value) in fields {
            push(name.as_str().as_bytes());
            push(value);
        }
        Self(key.into())
    }
}

fn is_noise(name: &str) -> bool {
    const NOISE: [&str; 21] = [
        "cache-control",
        "connection",
        "content-length",
        "content-type",
        "forwarded",
        "grpc-timeout",
        "idempotency-key",
        "if-modified-since",
        "if-none-match",
        "pragma",
        "priority",
        "referer",
        "traceparent",
        "tracestate",
        "user-agent",
        "via",
        "x-real-ip",
        "x-request-id",
        "x-request-timeout-ms",
        "x-attempt",
        "dnt",
    ];
    // Whose site was asked for is said there, where `Host` is ours.
    let is_account = name.starts_with("x-forwarded-") && name != "x-forwarded-host";
    NOISE.contains(&name) || is_account || name.starts_with("sec-")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn key(lines: &[(&'static str, &'static str)]) -> Key {
        Key::of(&["route"], &Method::GET, "/a", &headers(lines))
    }

    fn kept(at: Moment, body: &'static [u8]) -> Kept {
        Kept {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Bytes::from_static(body),
            at,
        }
    }

    #[test]
    fn requests_that_a_backend_could_tell_apart_have_different_keys() {
        let one = key(&[("authorization", "a"), ("accept", "x")]);
        assert_eq!(
            one,
            key(&[
                ("accept", "x"),
                ("authorization", "a"),
                ("x-request-id", "7"),
                ("via", "p")
            ])
        );
        for other in [
            key(&[("authorization", "b"), ("accept", "x")]),
            key(&[("authorization", "a")]),
            key(&[("authorization", "a"), ("accept", "x"), ("x-tenant-id", "acme")]),
            key(&[("authorization", "a"), ("accept", "x"), ("cookie", "s=1")]),
            key(&[("authorization", "a"), ("accept", "x"), ("accept-encoding", "gzip")]),
            key(&[
                ("authorization", "a"),
                ("accept", "x"),
                ("x-forwarded-host", "b.example"),
            ]),
            Key::of(
                &["route", "part"],
                &Method::GET,
                "/a",
                &headers(&[("authorization", "a"), ("accept", "x")]),
            ),
            Key::of(
                &["route"],
                &Method::GET,
                "/a?x",
                &headers(&[("authorization", "a"), ("accept", "x")]),
            ),
        ] {
            assert_ne!(one, other);
        }
        assert_ne!(key(&[("a", "b"), ("c", "")]), key(&[("a", "bc")]));
    }

    #[test]
    fn an_answer_is_found_until_it_is_too_old() {
        let store = Store::new(1 << 20);
        let start = Moment::ZERO;
        store.keep(key(&[]), kept(start, b"{}"));
        let after = |seconds| start + Duration::from_secs(seconds);
        let recall = |seconds| store.recall(&key(&[]), after(seconds), Duration::from_secs(10));
        assert_eq!(recall(10).expect("young enough").body, "{}");
        assert!(recall(11).is_none());
        assert!(
            store
                .recall(&key(&[("cookie", "s")]), after(1), Duration::from_secs(10))
                .is_none()
        );
    }

    #[test]
    fn what_may_not_be_kept_is_not() {
        let store = Store::new(8 << 20);
        let start = Moment::ZERO;
        type Lines<'a> = &'a [(&'static str, &'static str)];
        fn check(asked: Lines<'_>, answered: Lines<'_>, expected: bool) {
            let found = may_be_kept(&headers(asked), &headers(answered));
            assert_eq!(found, expected, "{asked:?} {answered:?}");
        }
        check(&[], &[("cache-control", "private, max-age=0")], true);
        check(&[], &[("cache-control", "private, No-Store")], false);
        check(&[("cache-control", "no-cache")], &[], true);
        check(&[("cache-control", "no-store")], &[], false);
        check(
            &[],
            &[("vary", "Accept-Language, cookie"), ("vary", "accept-encoding")],
            true,
        );
        for vary in ["*", "cookie, User-Agent", "x-forwarded-for", "sec-ch-ua"] {
            check(&[], &[("vary", vary)], false);
        }
        store.keep(key(&[]), kept(start, &[b' '; BODY_LIMIT + 1]));
        assert!(store.recall(&key(&[]), start, Duration::MAX).is_none());
    }

    #[test]
    fn memory_is_bounded() {
        let store = Store::new(64 << 10);
        let start = Moment::ZERO;
        let targets: Vec<String> = (0..1000).map(|n| format!("/{n}")).collect();
        let key = |target: &str| Key::of(&["r"], &Method::GET, target, &HeaderMap::new());
        for target in &targets {
            store.keep(key(target), kept(start, &[b' '; 4096]));
        }
        let found = targets
            .iter()
            .filter(|target| store.recall(&key(target), start, Duration::MAX).is_some());
        assert!((1..=16).contains(&found.count()));
    }
}
