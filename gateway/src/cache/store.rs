//! Holds answers of backends: those that may be used again, and the last good ones, for use when no fresh answer is
//! available.
//!
//! Invariant: an answer is found only by its whole key. The store is bounded in bytes, which the tenants share equally:
//! no tenant evicts what another one holds within its share.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CACHE_CONTROL, VARY};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use policies::Moment;

use super::reuse::Reuse;
use super::shares::{Shares, StoredEntry};
use crate::message::FieldMap;

/// Longest body that is kept, in bytes.
pub const BODY_LIMIT: usize = 1 << 20;

/// Approximate memory of an entry in bytes beside its key, header fields and body, including the store's own indexes.
const OVERHEAD: u64 = 768;

/// Approximate memory of a header field line in bytes, beside its name and value.
const LINE_OVERHEAD: usize = 160;

pub struct AnswerStore {
    shares: RwLock<Shares<Key, Held>>,
    /// Limit in bytes for all answers being received at once. Equal to the limit of the stored answers.
    most: AtomicU64,
    /// Bytes of the answers being received now.
    gathered: AtomicU64,
    /// Bytes of the bodies that were stored and still exist: what was evicted may still be on its way to a slow caller.
    alive: Arc<AtomicU64>,
    /// Values that were removed to make room.
    evicted: AtomicU64,
}

/// Value of a key.
#[derive(Debug, Clone)]
pub enum Held {
    Answer(Arc<CachedAnswer>),
    /// Names of the fields that the answers to this request vary with. Each answer is stored under a key that has their
    /// values too.
    Variants(Arc<[HeaderName]>),
}

/// Size of the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreSize {
    /// Approximate memory in bytes.
    pub bytes: u64,
    pub most: u64,
    pub entries: usize,
    pub tenants: usize,
    /// Values removed to make room since the start.
    pub evicted: u64,
}

/// Received bytes of an answer that is to be kept. All such bytes together are limited, because slow callers could
/// otherwise keep any number of answers in memory.
pub struct PendingBody {
    store: Arc<AnswerStore>,
    bytes: BytesMut,
    /// Longest body, in bytes.
    longest: usize,
}

/// Identifies everything that an answer may depend on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key(Arc<[u8]>);

/// Kept answer with its arrival time.
#[derive(Debug, Clone)]
pub struct CachedAnswer {
    pub status: StatusCode,
    pub headers: FieldMap,
    pub body: Bytes,
    pub at: Moment,
    /// Terms on which the answer may be used again; `None` for a last good answer, which only covers failures.
    pub reuse: Option<Reuse>,
}

/// Owner of a kept answer, and its useful lifetime.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Tenant that the answer was given to, as numbered in the bulkhead's queue.
    pub tenant: u64,
    pub within: Duration,
}

impl AnswerStore {
    /// Makes a store for at most `bytes` bytes.
    pub fn new(bytes: u64) -> Self {
        Self {
            shares: RwLock::new(Shares::new(bytes)),
            most: AtomicU64::new(bytes),
            gathered: AtomicU64::new(0),
            alive: Arc::default(),
            evicted: AtomicU64::new(0),
        }
    }

    /// Sets the limit in bytes. What is above it is removed.
    pub fn resize(&self, bytes: u64, now: Moment) {
        if self.most.swap(bytes, Relaxed) != bytes {
            let gone = self.write().resize(now, bytes);
            self.evicted.fetch_add(gone.len() as u64, Relaxed);
        }
    }

    /// Keeps a good answer that [may be kept](may_be_kept), unless it is too long or the tenant has no room for it.
    ///
    /// Body and header fields are copied, because they may be small slices of a large buffer.
    pub fn keep(&self, key: Key, kept: CachedAnswer, Terms { tenant, within }: Terms) {
        if kept.body.len() > BODY_LIMIT {
            return;
        }
        let (now, expires) = (kept.at, kept.at + within);
        if let Ok(kept) = self.detached(kept) {
            self.insert(key, Held::Answer(Arc::new(kept)), tenant, now, expires);
        }
    }

    /// Copies an answer into new memory, so that it no longer holds the buffer it was received in. Returns it as it is if
    /// too many bodies that were stored are still being sent.
    pub(super) fn detached(&self, answer: CachedAnswer) -> Result<CachedAnswer, Box<CachedAnswer>> {
        let length = answer.body.len() as u64;
        let most = self.most.load(Relaxed).saturating_mul(2);
        let fits = |alive: u64| alive.checked_add(length).filter(|all| *all <= most);
        if self.alive.fetch_update(Relaxed, Relaxed, fits).is_err() {
            return Err(Box::new(answer));
        }
        let body = CountedBytes {
            bytes: Bytes::copy_from_slice(&answer.body),
            count: Arc::clone(&self.alive),
        };
        Ok(CachedAnswer {
            body: Bytes::from_owner(body),
            headers: detached_headers(&answer.headers),
            ..answer
        })
    }

    /// Stores a value until it expires, unless its owner has no room for it.
    pub(super) fn insert(&self, key: Key, value: Held, owner: u64, now: Moment, expires: Moment) {
        let weight = weight(&key, &value);
        let lot = StoredEntry { owner, weight, expires };
        // Evicted values are dropped after the lock is released.
        let (gone, evicted) = self.write().insert(now, key, value, lot);
        self.evicted.fetch_add(evicted, Relaxed);
        drop(gone);
    }

    /// Returns the value of a key, and notes that it was used.
    pub(super) fn find(&self, key: &Key) -> Option<Held> {
        let shares = self.shares.read().unwrap_or_else(PoisonError::into_inner);
        shares.get(key).cloned()
    }

    pub(super) fn remove(&self, key: &Key) {
        let gone = self.write().remove(key);
        drop(gone);
    }

    /// Removes the answers for which `is` is true. Returns their number. The lock is held for a few at a time.
    pub fn remove_where(&self, is: impl Fn(&Reuse) -> bool) -> usize {
        let keys: Vec<Key> = {
            let shares = self.shares.read().unwrap_or_else(PoisonError::into_inner);
            let is_wanted = |value: &Held| match value {
                Held::Answer(answer) => answer.reuse.as_ref().is_some_and(&is),
                Held::Variants(_) => false,
            };
            shares.keys_where(is_wanted).cloned().collect()
        };
        for some in keys.chunks(256) {
            let mut gone = Vec::with_capacity(some.len());
            let mut shares = self.write();
            gone.extend(some.iter().filter_map(|key| shares.remove(key)));
            drop(shares);
        }
        keys.len()
    }

    pub fn size(&self) -> StoreSize {
        let shares = self.shares.read().unwrap_or_else(PoisonError::into_inner);
        StoreSize {
            bytes: shares.weight(),
            most: self.most.load(Relaxed),
            entries: shares.len(),
            tenants: shares.owners(),
            evicted: self.evicted.load(Relaxed),
        }
    }

    /// Returns the last good answer if it is at most `within` old.
    pub fn recall(&self, key: &Key, now: Moment, within: Duration) -> Option<CachedAnswer> {
        let Held::Answer(kept) = self.find(key)? else {
            return None;
        };
        (now.since(kept.at) <= within).then(|| CachedAnswer::clone(&kept))
    }

    fn write(&self) -> RwLockWriteGuard<'_, Shares<Key, Held>> {
        self.shares.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PendingBody {
    pub fn begin(store: Arc<AnswerStore>) -> Self {
        Self {
            store,
            bytes: BytesMut::new(),
            longest: BODY_LIMIT,
        }
    }

    /// Lowers the length of the longest body that is gathered.
    #[must_use]
    pub fn up_to(mut self, longest: usize) -> Self {
        self.longest = self.longest.min(longest);
        self
    }

    /// Returns whether a body of at least this length in bytes is too long.
    pub fn is_too_long(&self, length: u64) -> bool {
        length > self.longest as u64
    }

    /// Adds a piece of the body. Returns false if the answer is too long to be kept, or the limit for all such answers
    /// is reached.
    #[must_use]
    pub fn add(&mut self, piece: &[u8]) -> bool {
        if self.bytes.len() + piece.len() > self.longest {
            return false;
        }
        let more = piece.len() as u64;
        let fits = |gathered: u64| {
            gathered
                .checked_add(more)
                .filter(|all| *all <= self.store.most.load(Relaxed))
        };
        let has_room = self.store.gathered.fetch_update(Relaxed, Relaxed, fits).is_ok();
        if has_room {
            self.bytes.extend_from_slice(piece);
        }
        has_room
    }

    /// Keeps the whole answer. `kept` supplies its head.
    pub fn keep(self, key: Key, kept: CachedAnswer, terms: Terms) {
        let store = Arc::clone(&self.store);
        let body = self.whole();
        store.keep(key, CachedAnswer { body, ..kept }, terms);
    }

    /// Returns the bytes gathered. They count as long as they are held.
    pub fn whole(mut self) -> Bytes {
        Bytes::from_owner(GatheredBytes {
            bytes: std::mem::take(&mut self.bytes).freeze(),
            store: Arc::clone(&self.store),
        })
    }
}

impl Drop for PendingBody {
    fn drop(&mut self) {
        self.store.gathered.fetch_sub(self.bytes.len() as u64, Relaxed);
    }
}

/// Bytes that count in the memory of received answers until they are dropped.
struct GatheredBytes {
    bytes: Bytes,
    store: Arc<AnswerStore>,
}

impl AsRef<[u8]> for GatheredBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for GatheredBytes {
    fn drop(&mut self) {
        self.store.gathered.fetch_sub(self.bytes.len() as u64, Relaxed);
    }
}

/// Body of a stored answer. It counts in the memory of stored bodies until it is dropped.
struct CountedBytes {
    bytes: Bytes,
    count: Arc<AtomicU64>,
}

impl AsRef<[u8]> for CountedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for CountedBytes {
    fn drop(&mut self) {
        self.count.fetch_sub(self.bytes.len() as u64, Relaxed);
    }
}

/// Copies header fields into new memory.
pub(super) fn detached_headers(headers: &FieldMap) -> FieldMap {
    let length = headers.values().map(HeaderValue::len).sum();
    let mut values = BytesMut::with_capacity(length);
    let mut copy = FieldMap::with_capacity(headers.len());
    for (name, value) in headers {
        values.extend_from_slice(value.as_bytes());
        let value = HeaderValue::from_maybe_shared(values.split().freeze());
        copy.append(name, value.expect("it was one before"));
    }
    copy
}

impl Key {
    /// Makes a key of its bytes.
    pub(super) fn of_bytes(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

fn weight(key: &Key, value: &Held) -> u64 {
    let own = match value {
        Held::Answer(kept) => {
            let lines = kept.headers.iter();
            let headers: usize = lines
                .map(|(name, value)| LINE_OVERHEAD + name.as_str().len() + value.len())
                .sum();
            headers + kept.body.len() + kept.reuse.as_ref().map_or(0, Reuse::weight)
        }
        Held::Variants(names) => names.iter().map(|name| LINE_OVERHEAD + name.as_str().len()).sum(),
    };
    OVERHEAD + (key.0.len() + own) as u64
}

/// Returns whether a method is safe, so that one answer can stand for another (RFC 9110 section 9.2.1).
pub fn is_repeatable(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Returns whether neither the request nor the answer forbids storing (RFC 9111 section 5.2), and the answer does not
/// vary with a field that [`Key`] leaves out.
pub fn may_be_kept(asked: &FieldMap, answered: &FieldMap) -> bool {
    let no_store = |headers| any_token(headers, &CACHE_CONTROL, |directive| directive == "no-store");
    let varies = any_token(answered, &VARY, |name| name == "*" || is_noise(name));
    !no_store(asked) && !no_store(answered) && !varies
}

/// Returns whether `is` is true for any token of a list field. Tokens are passed in lower case.
fn any_token(headers: &FieldMap, name: &HeaderName, is: impl Fn(&str) -> bool) -> bool {
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
    pub fn of(place: &[&str], method: &Method, target: &str, headers: &FieldMap) -> Self {
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

    fn headers(lines: &[(&'static str, &'static str)]) -> FieldMap {
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
        let store = Arc::new(AnswerStore::new(10_000));
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
        let large = Arc::new(AnswerStore::new(1 << 30));
        let mut long = PendingBody::begin(large);
        assert!(long.add(&vec![0; BODY_LIMIT]) && !long.add(&[0]));
    }

    #[test]
    fn what_is_kept_holds_nothing_of_what_it_came_in() {
        let buffer = Bytes::from(vec![b'a'; 1 << 20]);
        let value = |range| HeaderValue::from_maybe_shared(buffer.slice(range)).expect("a value");
        let mut fields = FieldMap::new();
        fields.append("etag", value(0..10));
        fields.append("x-one", value(20..21));
        fields.append("x-one", value(30..40));
        fields.append("x-none", HeaderValue::from_static(""));
        let store = AnswerStore::new(1 << 16);
        let given = CachedAnswer {
            status: StatusCode::OK,
            headers: fields.clone(),
            body: buffer.slice(100..103),
            at: Moment::ZERO,
            reuse: None,
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
            headers: FieldMap::new(),
            body: Bytes::from_static(body),
            at,
            reuse: None,
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
        let store = AnswerStore::new(1 << 20);
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
        let store = AnswerStore::new(8 << 20);
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
        let store = AnswerStore::new(64 << 10);
        let start = Moment::ZERO;
        let of = |tenant| Terms { tenant, ..HOUR };
        let key = |tenant: u64, number: u32| {
            let target = format!("/{tenant}/{number}");
            Key::of(&["r"], &Method::GET, &target, &FieldMap::new())
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
        let store = AnswerStore::new(64 << 10);
        let start = Moment::ZERO;
        let targets: Vec<String> = (0..1000).map(|n| format!("/{n}")).collect();
        let key = |target: &str| Key::of(&["r"], &Method::GET, target, &FieldMap::new());
        for target in &targets {
            store.keep(key(target), kept(start, &[b' '; 4096]), HOUR);
        }
        let found = targets
            .iter()
            .filter(|target| store.recall(&key(target), start, Duration::MAX).is_some());
        assert!((1..=16).contains(&found.count()));
    }
}
