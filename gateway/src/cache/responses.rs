//! The response cache: finds stored answers, says what to do with a request, and stores what came (RFC 9111).
//!
//! Decides and stores, and never calls a backend. A request is described by a [`CacheRequest`]; [`ResponseCache::decide`]
//! says how it is answered; for what the backend says then, [`ResponseCache::judge`] says what becomes of it.
//!
//! Invariant: an answer is found only by callers of its audience. The key of what is not for everyone names the tenant,
//! its tier, the caller, and the credentials that the backend sees; the key of a `tenant` scope names tenant and tier.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{AGE, AUTHORIZATION, COOKIE, DATE, TRANSFER_ENCODING, VARY};
use http::{HeaderName, HeaderValue, StatusCode};
use policies::Moment;

use super::conditional;
use super::directives::{RequestDirectives, items};
use super::flights::{Flights, Joined};
use super::freshness::{self, Arrival, Audience, DefaultTimes, Storable, Use};
use super::reuse::{Reuse, UriHandle, UriTable};
use super::store::{AnswerStore, CachedAnswer, Held, Key, detached_headers};
use crate::message::FieldMap;

/// Largest number of field names that an answer may vary with.
const MOST_VARIED: usize = 16;

pub struct ResponseCache {
    store: Arc<AnswerStore>,
    uris: Arc<UriTable>,
    flights: Flights,
}

/// Cache settings of a route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheTerms {
    pub times: DefaultTimes,
    /// Whether the callers of one tenant share answers that do not say for whom they are.
    pub shares_with_tenant: bool,
    /// Whether callers may ask for newer answers than the stored ones, and forbid storing.
    pub heeds_callers: bool,
    /// Fields that all answers vary with, whether they say so or not.
    pub vary: Box<[HeaderName]>,
}

/// Identity of a caller, as far as the cache distinguishes callers.
#[derive(Debug, Clone)]
pub struct CacheCaller {
    pub tenant: Arc<str>,
    pub tier: Arc<str>,
    /// Kind of credential.
    pub kind: &'static str,
    /// Whether the caller has shown a credential.
    pub is_identified: bool,
    /// Issuer of a token; empty for other credentials.
    pub issuer: Arc<str>,
    /// Id within the tenant, or the address.
    pub id: Arc<str>,
    /// Claims of a token, where the backend gets them and not the token.
    pub claims: Bytes,
    /// Owner of what is stored, as numbered in the bulkhead's queue.
    pub owner: u64,
}

/// Facts of a GET or HEAD that the cache needs.
#[derive(Debug, Clone, Copy)]
pub struct CacheRequest<'a> {
    pub route: &'a Arc<str>,
    pub terms: &'a CacheTerms,
    pub tenant: &'a str,
    pub tier: &'a str,
    /// Whether the caller has shown a credential.
    pub is_identified: bool,
    /// Identity of the caller within its tenant: kind of credential, issuer and id, or its address.
    pub caller: [&'a str; 3],
    /// Claims of a token, where the backend gets them and not the token.
    pub claims: &'a [u8],
    /// Owner of what is stored, as numbered in the bulkhead's queue.
    pub owner: u64,
    pub scheme: &'a str,
    /// In lower case.
    pub host: &'a str,
    /// Path and query, as the caller sent them.
    pub target: &'a str,
    /// Further text by which the backend distinguishes requests: its name, and the rewritten target.
    pub destination: &'a [String],
    /// Fields as the backend gets them.
    pub headers: &'a FieldMap,
}

/// Keys of a request, for each audience.
#[derive(Debug, Clone)]
pub struct CacheKeys {
    caller: Key,
    /// `None` if the callers of a tenant share nothing.
    tenant: Option<Key>,
    all: Key,
}

/// Next step of answering a request.
#[derive(Debug, Clone)]
pub enum Step {
    /// By the stored answer. If it is stale, its caller accepts that.
    Serve(Arc<CachedAnswer>),
    /// By the stored answer, which is stale, while the backend is asked for a newer one.
    ServeAndRefresh(Found),
    /// By the backend. A stored answer may be confirmed by it, or stand in if it fails.
    Ask(Option<Found>),
    /// Not at all: nothing is stored, and the caller wants nothing else.
    OnlyStored,
}

/// A stored answer and its key.
#[derive(Debug, Clone)]
pub struct Found {
    pub key: Key,
    pub answer: Arc<CachedAnswer>,
}

/// Judgement on a backend's answer.
#[derive(Debug)]
pub enum Verdict {
    /// The stored answer is still good, and has been renewed.
    Confirmed(Arc<CachedAnswer>),
    /// The backend failed, and the stored answer stands in.
    StandsIn(Arc<CachedAnswer>),
    /// The answer can be stored once its body is there.
    Store(Storable),
    /// The answer is for this request only.
    Pass,
}

impl CacheCaller {
    /// Identity within the tenant: kind of credential, issuer and id, or the address.
    pub fn identity(&self) -> [&str; 3] {
        [self.kind, &self.issuer, &self.id]
    }
}

impl ResponseCache {
    pub fn new(store: Arc<AnswerStore>) -> Self {
        Self {
            store,
            uris: Arc::default(),
            flights: Flights::default(),
        }
    }

    pub fn store(&self) -> &Arc<AnswerStore> {
        &self.store
    }

    pub fn uris(&self) -> &Arc<UriTable> {
        &self.uris
    }

    /// Says how a request is to be answered.
    pub fn decide(&self, request: &CacheRequest<'_>, keys: &CacheKeys, asked: &RequestDirectives, now: Moment) -> Step {
        let Some((found, reuse)) = self.find(request, keys) else {
            return if asked.only_if_cached {
                Step::OnlyStored
            } else {
                Step::Ask(None)
            };
        };
        match reuse.freshness.decide(asked, now) {
            Use::Fresh | Use::Accepted => Step::Serve(found.answer),
            _ if asked.only_if_cached => Step::OnlyStored,
            Use::WhileRevalidating => Step::ServeAndRefresh(found),
            Use::Validate => Step::Ask(Some(found)),
        }
    }

    /// Returns the newest stored answer for a request, whether it is fresh or not.
    fn find(&self, request: &CacheRequest<'_>, keys: &CacheKeys) -> Option<(Found, Reuse)> {
        let keys = [Some(&keys.caller), keys.tenant.as_ref(), Some(&keys.all)];
        let found = keys
            .into_iter()
            .flatten()
            .filter_map(|key| self.at(key, request.headers));
        let current = found.filter_map(|found| {
            let reuse = found.answer.reuse.clone()?;
            reuse.uri.is_current().then_some((found, reuse))
        });
        current.max_by_key(|(found, _)| found.answer.at)
    }

    fn at(&self, key: &Key, headers: &FieldMap) -> Option<Found> {
        match self.store.find(key)? {
            Held::Answer(answer) => Some(Found {
                key: key.clone(),
                answer,
            }),
            Held::Variants(names) => {
                let key = variant(key, &names, headers);
                match self.store.find(&key)? {
                    Held::Answer(answer) => Some(Found { key, answer }),
                    Held::Variants(_) => None,
                }
            }
        }
    }

    /// Joins the requests for the same thing that are under way, or begins one.
    pub fn join(&self, request: &CacheRequest<'_>, keys: &CacheKeys, found: Option<&Found>) -> Joined {
        // A stored answer is confirmed once for all of its audience.
        let key = found.map_or_else(|| keys.flight(), |found| &found.key);
        self.flights.join(key, || self.uris.enter(request.host, request.target))
    }

    /// Says what becomes of an answer to a request, by its head.
    pub fn judge(
        &self,
        request: &CacheRequest<'_>,
        asked: &RequestDirectives,
        found: Option<&Found>,
        (status, headers): (StatusCode, &FieldMap),
        arrival: Arrival,
    ) -> Verdict {
        if let Some(found) = found {
            if status == StatusCode::NOT_MODIFIED {
                return self.confirm(request, found, headers, arrival);
            }
            if is_failure(status) && found.stands_in(arrival.moment) {
                return Verdict::StandsIn(Arc::clone(&found.answer));
            }
        }
        let storable = freshness::storable(status, headers, arrival, &request.terms.times);
        let varied = varied(headers);
        match storable {
            // Callers without a credential are told apart by their address, which several persons may share.
            Some(Storable {
                audience: Audience::Caller,
                ..
            }) if !request.is_identified => Verdict::Pass,
            Some(storable) if !asked.no_store && varied.is_some() => Verdict::Store(storable),
            _ => Verdict::Pass,
        }
    }

    /// Renews a stored answer that the backend has confirmed.
    fn confirm(&self, request: &CacheRequest<'_>, found: &Found, news: &FieldMap, arrival: Arrival) -> Verdict {
        let old = &found.answer;
        let (Some(headers), Some(reuse)) = (conditional::confirmed(&old.headers, news), &old.reuse) else {
            // The backend contradicts itself. The stored answer is what the caller can be given.
            return Verdict::Confirmed(Arc::clone(old));
        };
        let headers = with_date(headers, arrival);
        let Some(storable) = freshness::storable(old.status, &headers, arrival, &request.terms.times) else {
            self.store.remove(&found.key);
            return Verdict::Confirmed(Arc::new(CachedAnswer {
                headers,
                at: arrival.moment,
                ..CachedAnswer::clone(old)
            }));
        };
        let renewed = CachedAnswer {
            headers: detached_headers(&headers),
            at: arrival.moment,
            reuse: Some(Reuse {
                freshness: storable.freshness,
                ..reuse.clone()
            }),
            ..CachedAnswer::clone(old)
        };
        let renewed = Arc::new(renewed);
        if reuse.uri.is_current() {
            let until = storable
                .freshness
                .useful_until(freshness::can_be_confirmed(&renewed.headers));
            let held = Held::Answer(Arc::clone(&renewed));
            self.store
                .insert(found.key.clone(), held, request.owner, arrival.moment, until);
        }
        Verdict::Confirmed(renewed)
    }

    /// Stores an answer whose body is whole. Returns it with its key, for the requests that wait for it, and whether it
    /// was given to the store.
    pub fn keep(
        &self,
        request: &CacheRequest<'_>,
        keys: &CacheKeys,
        (status, headers, body): (StatusCode, &FieldMap, Bytes),
        storable: &Storable,
        (uri, arrival): (UriHandle, Arrival),
    ) -> (Found, bool) {
        let headers = with_date(headers.clone(), arrival);
        let is_current = uri.is_current();
        let can_be_confirmed = freshness::can_be_confirmed(&headers);
        let names = varied(&headers).unwrap_or_default();
        let answer = CachedAnswer {
            status,
            headers,
            body,
            at: arrival.moment,
            reuse: Some(Reuse {
                freshness: storable.freshness,
                route: Arc::clone(request.route),
                uri,
            }),
        };
        let (answer, has_room) = match self.store.detached(answer) {
            Ok(answer) => (Arc::new(answer), true),
            Err(answer) => (Arc::from(answer), false),
        };
        let (now, until) = (arrival.moment, storable.freshness.useful_until(can_be_confirmed));
        let base = keys.of(storable.audience);
        let key = variant(base, &names, request.headers);
        let is_stored = storable.is_reusable && is_current && has_room;
        if is_stored {
            // Earlier answers for other audiences are older than this one, and would only take room.
            for other in keys.others(storable.audience) {
                self.store.remove(other);
            }
            if !names.is_empty() {
                self.store
                    .insert(base.clone(), Held::Variants(names.into()), request.owner, now, until);
            }
            self.store.insert(
                key.clone(),
                Held::Answer(Arc::clone(&answer)),
                request.owner,
                now,
                until,
            );
        }
        (Found { key, answer }, is_stored)
    }

    /// Whether an answer that another request of the same flight got is for this request too.
    pub fn is_for(&self, found: &Found, request: &CacheRequest<'_>, keys: &CacheKeys) -> bool {
        let names = varied(&found.answer.headers).unwrap_or_default();
        let all = [Some(&keys.caller), keys.tenant.as_ref(), Some(&keys.all)];
        let is_current = found.answer.reuse.as_ref().is_some_and(|reuse| reuse.uri.is_current());
        is_current
            && all
                .into_iter()
                .flatten()
                .any(|key| variant(key, &names, request.headers) == found.key)
    }

    /// Removes a stored answer.
    pub fn forget(&self, found: &Found) {
        self.store.remove(&found.key);
    }

    /// Ends the use of all stored answers of a backend's URI, because a request has changed its resource.
    pub fn invalidate_part(&self, backend: &str, target: &str) {
        self.uris.change(&host_of_backend(backend), target);
    }

    /// Ends the use of all stored answers of a URI, because a request has changed its resource (RFC 9111 section 4.4).
    pub fn invalidate(&self, host: &str, target: &str) {
        self.uris.change(host, target);
    }

    /// Removes the answers of a route. Returns their number.
    pub fn purge_route(&self, route: &str) -> usize {
        self.purge(|reuse| *reuse.route == *route)
    }

    /// Removes the answers to a path and query, of any host or of one. Returns their number.
    pub fn purge_uri(&self, host: Option<&str>, target: &str) -> usize {
        self.purge(|reuse| reuse.uri.is(host, target))
    }

    pub fn purge_all(&self) -> usize {
        self.purge(|_| true)
    }

    fn purge(&self, is: impl Fn(&Reuse) -> bool) -> usize {
        // What is on its way to the store is not stored either, because its URI has changed.
        self.store.remove_where(|reuse| {
            let is_gone = is(reuse);
            if is_gone {
                reuse.uri.change();
            }
            is_gone
        })
    }
}

impl Found {
    /// Whether the answer may be used because the backend fails.
    pub fn stands_in(&self, now: Moment) -> bool {
        let reuse = self.answer.reuse.as_ref();
        reuse.is_some_and(|reuse| reuse.uri.is_current() && reuse.freshness.stands_in_for_error(now))
    }
}

impl CachedAnswer {
    /// Returns the fields of the answer with its age.
    pub fn aged_headers(&self, now: Moment) -> FieldMap {
        let mut headers = self.headers.clone();
        if let Some(reuse) = &self.reuse {
            headers.insert(AGE, reuse.freshness.age(now).as_secs().into());
        }
        headers
    }
}

impl CacheKeys {
    pub fn of_request(request: &CacheRequest<'_>) -> Self {
        let mut bytes = Vec::with_capacity(256);
        let put = |bytes: &mut Vec<u8>, text: &[u8]| {
            // Each text is preceded by its length, so that different lists of texts give different keys.
            bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
            bytes.extend_from_slice(text);
        };
        let what = |bytes: &mut Vec<u8>| {
            for text in [&**request.route, request.scheme, request.host, request.target] {
                put(bytes, text.as_bytes());
            }
            for text in request.destination {
                put(bytes, text.as_bytes());
            }
            for name in &request.terms.vary {
                put(bytes, &joined(request.headers, name));
            }
        };
        // The first byte tells these keys from those of last good answers, which begin with the length of a name.
        bytes.extend_from_slice(b"\xff\xff\xff\xff\xff\xff\xff\xffC");
        for text in [request.tenant, request.tier].into_iter().chain(request.caller) {
            put(&mut bytes, text.as_bytes());
        }
        put(&mut bytes, request.claims);
        for name in [AUTHORIZATION, COOKIE] {
            put(&mut bytes, &joined(request.headers, &name));
        }
        what(&mut bytes);
        let caller = Key::of_bytes(&bytes);
        let is_shared = request.terms.shares_with_tenant && request.is_identified;
        let tenant = is_shared.then(|| {
            bytes.clear();
            bytes.extend_from_slice(b"\xff\xff\xff\xff\xff\xff\xff\xffT");
            for text in [request.tenant, request.tier] {
                put(&mut bytes, text.as_bytes());
            }
            what(&mut bytes);
            Key::of_bytes(&bytes)
        });
        bytes.clear();
        bytes.extend_from_slice(b"\xff\xff\xff\xff\xff\xff\xff\xffA");
        what(&mut bytes);
        Self {
            caller,
            tenant,
            all: Key::of_bytes(&bytes),
        }
    }

    /// Returns the key of requests that may wait for one answer together.
    fn flight(&self) -> &Key {
        self.tenant.as_ref().unwrap_or(&self.caller)
    }

    fn of(&self, audience: Audience) -> &Key {
        match audience {
            Audience::All => &self.all,
            Audience::Usual => self.tenant.as_ref().unwrap_or(&self.caller),
            Audience::Caller => &self.caller,
        }
    }

    fn others(&self, audience: Audience) -> impl Iterator<Item = &Key> {
        let own = self.of(audience);
        let private = [Some(&self.caller), self.tenant.as_ref()];
        private.into_iter().flatten().filter(move |key| *key != own)
    }
}

/// Returns what stands for the host in the URIs of a backend's own answers. No caller can name it in `Host`.
pub fn host_of_backend(name: &str) -> String {
    format!("\0{name}")
}

/// Statuses in place of which a stored answer may be used (RFC 5861 section 4).
pub fn is_failure(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

/// Returns the key of the answer to a request, among those that vary with these fields.
fn variant(key: &Key, names: &[HeaderName], headers: &FieldMap) -> Key {
    if names.is_empty() {
        return key.clone();
    }
    let mut bytes = Vec::with_capacity(key.as_bytes().len() + 64);
    bytes.extend_from_slice(key.as_bytes());
    for name in names {
        for text in [name.as_str().as_bytes(), &joined(headers, name)] {
            bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
            bytes.extend_from_slice(text);
        }
    }
    Key::of_bytes(&bytes)
}

/// Returns the value of a field without what has no meaning: lines and items are joined by single commas. An absent field
/// differs from an empty one.
fn joined(headers: &FieldMap, name: &HeaderName) -> Vec<u8> {
    let mut value = Vec::new();
    for line in headers.get_all(name) {
        for item in items(line) {
            value.push(b',');
            value.extend_from_slice(item);
        }
    }
    if value.is_empty() && headers.contains_key(name) {
        value.push(b',');
    }
    value
}

/// Returns the names of the fields that an answer varies with, each once and in order. `None` if they are too many, or
/// cannot be read.
fn varied(headers: &FieldMap) -> Option<Vec<HeaderName>> {
    let mut names = Vec::new();
    for name in headers.get_all(VARY).iter().flat_map(items) {
        let name = HeaderName::from_bytes(name).ok()?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.sort_by(|one, other| one.as_str().cmp(other.as_str()));
    (names.len() <= MOST_VARIED).then_some(names)
}

/// Adds the date to an answer that has none (RFC 9110 section 6.6.1), and removes what belongs to its message.
fn with_date(mut headers: FieldMap, arrival: Arrival) -> FieldMap {
    headers.remove(TRANSFER_ENCODING);
    headers.insert_missing(DATE, || {
        let date = httpdate::fmt_http_date(arrival.wall);
        HeaderValue::try_from(date).expect("a date is visible text")
    });
    headers
}
