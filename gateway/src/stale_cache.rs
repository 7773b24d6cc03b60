//! Keeps the last good answers of backends, for use when no fresh answer is available.
//!
//! Invariant: an answer is found only by an equal request. The key contains everything that a backend could use to
//! distinguish requests, including the caller's identity, so no caller sees another caller's answer. The store is
//! bounded in bytes, which the tenants share equally: no tenant evicts what another one holds within its share.

mod shares;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CACHE_CONTROL, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use policies::Moment;

use self::shares::{Shares, StoredEntry};

/// Longest body that is kept, in bytes.
pub const BODY_LIMIT: usize = 1 << 20;

/// Approximate memory of an entry in bytes beside its key, header fields and body, including the store's own indexes.
const OVERHEAD: u64 = 768;

/// Approximate memory of a header field line in bytes, beside its name and value.
const LINE_OVERHEAD: usize = 160;

pub struct StaleCache {
    shares: Mutex<Shares<Key, Arc<CachedAnswer>>>,
    /// Limit in bytes for all answers being received at once. Equal to the limit of the stored answers.
    most: u64,
    /// Bytes of the answers being received now.
    gathered: AtomicU64,
}

/// Received bytes of an answer that is to be kept. All such bytes together are limited, because slow callers could
/// otherwise keep any number of answers in memory.
pub struct PendingBody {
    store: Arc<StaleCache>,
    bytes: BytesMut,
}

/// Identifies everything that an answer may depend on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key(Arc<[u8]>);

/// Kept answer with its arrival time.
#[derive(Debug, Clone)]
pub struct CachedAnswer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub at: Moment,
}

/// Owner of a kept answer, and its useful lifetime.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Tenant that the answer was given to, as numbered in the bulkhead's queue.
    pub tenant: u64,
    pub within: Duration,
}

impl StaleCache {
    /// Makes a store for at most `bytes` bytes.
    pub fn new(bytes: u64) -> Self {
        Self {
            shares: Mutex::new(Shares::new(bytes)),
            most: bytes,
            gathered: AtomicU64::new(0),
        }
    }

    /// Keeps a good answer that [may be kept](may_be_kept), unless it is too long or the tenant has no room for it.
    ///
    /// Body and header fields are copied, because they may be small slices of a large buffer.
    pub fn keep(&self, key: Key, kept: CachedAnswer, Terms { tenant, within }: Terms) {
        if kept.body.len() > BODY_LIMIT {
            return;
        }
        let lot = StoredEntry {
            owner: tenant,
            weight: weight(&key, &kept),
            expires: kept.at + within,
        };
        let now = kept.at;
        let kept = Arc::new(kept.detached());
        // Evicted values are dropped after the lock is released.
        let _gone = self.shares().insert(now, key, kept, lot);
    }

    /// Returns the last good answer if it is at most `within` old.
    pub fn recall(&self, key: &Key, now: Moment, within: Duration) -> Option<CachedAnswer> {
        let kept = self.shares().get(key).cloned()?;
        (now.since(kept.at) <= within).then(|| CachedAnswer::clone(&kept))
    }

    fn shares(&self) -> MutexGuard<'_, Shares<Key, Arc<CachedAnswer>>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PendingBody {
    pub fn begin(store: Arc<StaleCache>) -> Self {
        let bytes = BytesMut::new();
        Self { store, bytes }
    }

    /// Adds a piece of the body. Returns false if the answer is too long to be kept, or the limit for all such answers
    /// is reached.
    #[must_use]
    pub fn add(&mut self, piece: &[u8]) -> bool {
        if self.bytes.len() + piece.len() > BODY_LIMIT {
            return false;
        }
        let more = piece.len() as u64;
        let fits = |gathered: u64| gathered.checked_add(more).filter(|all| *all <= self.store.most);
        let has_room = self.store.gathered.fetch_update(Relaxed, Relaxed, fits).is_ok();
        if has_room {
            self.bytes.extend_from_slice(piece);
        }
        has_room
    }

    /// Keeps the whole answer. `kept` supplies its head.
    pub fn keep(mut self, key: Key, kept: CachedAnswer, terms: Terms) {
        let body = std::mem::take(&mut self.bytes).freeze();
        self.release(body.len());
        self.store.keep(key, CachedAnswer { body, ..kept }, terms);
    }

    fn release(&self, length: usize) {
        self.store.gathered.fetch_sub(length as u64, Relaxed);
    }
}

impl Drop for PendingBody {
    fn drop(&mut self) {
        self.release(self.bytes.len());
    }
}

impl CachedAnswer {
    /// Copies the answer into new memory, so that it no longer holds the buffer it was received in.
    fn detached(self) -> Self {
        let length = self.headers.values().map(HeaderValue::len).sum();
        let mut values = BytesMut::with_capacity(length);
        let mut headers = HeaderMap::with_capacity(self.headers.len());
        for (name, value) in &self.headers {
            values.extend_from_slice(value.as_bytes());
            let value = HeaderValue::from_maybe_shared(values.split().freeze());
            headers.append(name, value.expect("it was one before"));
        }
        let body = Bytes::copy_from_slice(&self.body);
        Self { headers, body, ..self }
    }
}

fn weight(key: &Key, kept: &CachedAnswer) -> u64 {
    let lines = kept.headers.iter();
    let headers: usize = lines
        .map(|(name, value)| LINE_OVERHEAD + name.as_str().len() + value.len())
        .sum();
    OVERHEAD + (key.0.len() + headers + kept.body.len()) as u64
}

/// Returns whether a method is safe, so that one answer can stand for another (RFC 9110 section 9.2.1).
pub fn is_repeatable(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Returns whether neither the request nor the answer forbids storing (RFC 9111 section 5.2), and the answer does not
/// vary with a field that [`Key`] leaves out.
pub fn may_be_kept(asked: &HeaderMap, answered: &HeaderMap) -> bool {
    let no_store = |headers| any_token(headers, &CACHE_CONTROL, |directive| directive == "no-store");
    let varies = any_token(answered, &VARY, |name| name == "*" || is_noise(name));
    !no_store(asked) && !no_store(answered) && !varies
}

/// Returns whether `is` is true for any token of a list field. Tokens are passed in lower case.
fn any_token(headers: &HeaderMap, name: &HeaderName, is: impl Fn(&str) -> bool) -> bool {
    headers.get_all(name).iter().any(|line| {
        let text = String::from_utf8_lossy(line.as_bytes()).to_ascii_lowercase();
        text.split(',').any(|token| is(token.trim()))
    })
}

impl Key {
    /// Makes the key of a request without a body, as its backend would receive it. `place` names the route and, in an
    /// aggregate, the part.
    ///
    /// All header fields count, except those by which no backend chooses an answer: fields that differ between retries,
    /// and fields that describe how the request travelled.
    pub fn of(place: &[&str], method: &Method, target: &str, headers: &HeaderMap) -> Self {
        let mut fields: Vec<(&HeaderName, &[u8])> = headers
            .iter()
            .filter(|(name, _)| !is_noise(name.as_str()))
            .map(|(name, value)| (name, value.as_bytes()))
            .collect();
        // Sorted by name only, because the order of lines with the same name has a meaning.
        fields.sort_by(|one, other| one.0.as_str().cmp(other.0.as_str()));
        let mut key = Vec::with_capacity(256);
        // Each text is preceded by its length, so that different lists of texts give different keys.
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
    // `X-Forwarded-Host` names the requested site when the gateway sets its own `Host`.
    let is_account = name.starts_with("x-forwarded-") && name != "x-forwarded-host";
    NOISE.contains(&name) || is_account || name.starts_with("sec-")
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn what_is_on_its_way_is_bounded_over_all_answers() {
        let store = Arc::new(StaleCache::new(10_000));
        let begin = || PendingBody::begin(Arc::clone(&store));
        let (mut one, mut other) = (begin(), begin());
        assert!(one.add(&[0; 6_000]) && other.add(&[0; 4_000]));
        assert!(!one.add(&[0]) && !other.add(&[0]), "all the room is taken");
        drop(other);
        let mut third = begin();
        assert!(third.add(&[1; 3_000]) && !third.add(&[1; 1_001]) && third.add(&[1; 1_000]));
        third.keep(key(&[]), kept(Moment::ZERO, b""), HOUR);
        let found = store.recall(&key(&[]), Moment::ZERO, HOUR.within).expect("it is kept");
        assert_eq!(found.body, vec![1; 4_000]);
        drop(one);
        assert_eq!(store.gathered.load(Relaxed), 0);
        let large = Arc::new(StaleCache::new(1 << 30));
        let mut long = PendingBody::begin(large);
        assert!(long.add(&vec![0; BODY_LIMIT]) && !long.add(&[0]));
    }

    #[test]
    fn what_is_kept_holds_nothing_of_what_it_came_in() {
        let buffer = Bytes::from(vec![b'a'; 1 << 20]);
        let value = |range| HeaderValue::from_maybe_shared(buffer.slice(range)).expect("a value");
        let mut fields = HeaderMap::new();
        fields.append("etag", value(0..10));
        fields.append("x-one", value(20..21));
        fields.append("x-one", value(30..40));
        fields.append("x-none", HeaderValue::from_static(""));
        let store = StaleCache::new(1 << 16);
        let given = CachedAnswer {
            status: StatusCode::OK,
            headers: fields.clone(),
            body: buffer.slice(100..103),
            at: Moment::ZERO,
        };
        store.keep(key(&[]), given, HOUR);
        let kept = store.recall(&key(&[]), Moment::ZERO, HOUR.within).expect("it is kept");
        assert_eq!((&kept.headers, &*kept.body), (&fields, &b"aaa"[..]));
        drop(fields);
        assert!(buffer.is_unique());
    }

    const HOUR: Terms = Terms {
        tenant: 1,
        within: Duration::from_secs(3_600),
    };

    fn kept(at: Moment, body: &'static [u8]) -> CachedAnswer {
        CachedAnswer {
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
        let store = StaleCache::new(1 << 20);
        let start = Moment::ZERO;
        store.keep(key(&[]), kept(start, b"{}"), HOUR);
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
        let store = StaleCache::new(8 << 20);
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
        store.keep(key(&[]), kept(start, &[b' '; BODY_LIMIT + 1]), HOUR);
        assert!(store.recall(&key(&[]), start, Duration::MAX).is_none());
    }

    #[test]
    fn one_tenant_pushes_out_nobody_elses() {
        let store = StaleCache::new(64 << 10);
        let start = Moment::ZERO;
        let of = |tenant| Terms { tenant, ..HOUR };
        let key = |tenant: u64, number: u32| {
            let target = format!("/{tenant}/{number}");
            Key::of(&["r"], &Method::GET, &target, &HeaderMap::new())
        };
        store.keep(key(2, 0), kept(start, b"theirs"), of(2));
        for number in 0..10_000 {
            store.keep(key(1, number), kept(start, &[b' '; 4096]), of(1));
        }
        let found = store.recall(&key(2, 0), start, Duration::MAX);
        assert_eq!(found.expect("within its share").body, "theirs");
        assert!(store.recall(&key(1, 9_999), start, Duration::MAX).is_some());
        assert!(store.recall(&key(1, 0), start, Duration::MAX).is_none());
    }

    #[test]
    fn memory_is_bounded() {
        let store = StaleCache::new(64 << 10);
        let start = Moment::ZERO;
        let targets: Vec<String> = (0..1000).map(|n| format!("/{n}")).collect();
        let key = |target: &str| Key::of(&["r"], &Method::GET, target, &HeaderMap::new());
        for target in &targets {
            store.keep(key(target), kept(start, &[b' '; 4096]), HOUR);
        }
        let found = targets
            .iter()
            .filter(|target| store.recall(&key(target), start, Duration::MAX).is_some());
        assert!((1..=16).contains(&found.count()));
    }
}
