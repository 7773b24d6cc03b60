//! Who gets which stored answer, how much memory all of them take, and what ends their use.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use policies::Moment;
use proptest::prelude::*;

use super::directives::RequestDirectives;
use super::flights::{Joined, Landing};
use super::freshness::{Arrival, Audience};
use super::responses::{CacheKeys, CacheRequest, CacheTerms, Found, ResponseCache, Step, Verdict};
use super::store::AnswerStore;
use crate::message::FieldMap;

const START: Moment = Moment::from_nanos(1 << 42);

fn headers(lines: &[(&str, &str)]) -> FieldMap {
    let mut headers = FieldMap::new();
    for (name, value) in lines {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        headers.append(name, HeaderValue::from_str(value).expect("a value"));
    }
    headers
}

fn arrival() -> Arrival {
    Arrival {
        moment: START,
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_780_000_000),
        delay: Duration::ZERO,
    }
}

fn cache(bytes: u64) -> ResponseCache {
    ResponseCache::new(Arc::new(AnswerStore::new(bytes)))
}

/// A caller, and what it asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Caller {
    tenant: u64,
    id: u64,
    is_identified: bool,
    cookie: Option<u64>,
    target: u64,
}

impl Caller {
    fn of(tenant: u64, id: u64) -> Self {
        Self {
            tenant,
            id,
            is_identified: true,
            cookie: None,
            target: 0,
        }
    }

    fn with<T>(&self, terms: &CacheTerms, run: impl FnOnce(&CacheRequest<'_>, &CacheKeys) -> T) -> T {
        let (tenant, id) = (format!("t{}", self.tenant), format!("c{}", self.id));
        let cookie = self.cookie.map(|cookie| cookie.to_string());
        let headers = headers(&cookie.iter().map(|cookie| ("cookie", &**cookie)).collect::<Vec<_>>());
        let target = format!("/{}", self.target);
        let request = CacheRequest {
            route: &"route".into(),
            terms,
            tenant: &tenant,
            tier: "free",
            is_identified: self.is_identified,
            caller: [if self.is_identified { "api_key" } else { "anonymous" }, "", &id],
            claims: b"",
            owner: self.tenant,
            scheme: "https",
            host: "h",
            target: &target,
            destination: &[],
            headers: &headers,
        };
        run(&request, &CacheKeys::of_request(&request))
    }

    /// Returns the body of the stored answer that this caller gets.
    fn get(&self, cache: &ResponseCache, terms: &CacheTerms) -> Option<Bytes> {
        self.with(terms, |request, keys| {
            match cache.decide(request, keys, &RequestDirectives::default(), START) {
                Step::Serve(answer) => Some(answer.body.clone()),
                _ => None,
            }
        })
    }

    /// Stores an answer to this caller, if that is allowed.
    fn put(&self, cache: &ResponseCache, terms: &CacheTerms, answer: &[(&str, &str)], body: &str) -> Option<Found> {
        self.with(terms, |request, keys| {
            let answer = headers(answer);
            let asked = RequestDirectives::default();
            match cache.judge(request, &asked, None, (StatusCode::OK, &answer), arrival()) {
                Verdict::Store(storable) => {
                    let uri = cache.uris().enter(request.host, request.target);
                    let whole = (StatusCode::OK, &answer, Bytes::copy_from_slice(body.as_bytes()));
                    Some(cache.keep(request, keys, whole, &storable, (uri, arrival())).0)
                }
                _ => None,
            }
        })
    }
}

#[test]
fn an_answer_is_found_by_its_audience_alone() {
    const PLAIN: &[(&str, &str)] = &[("cache-control", "max-age=60")];
    const PRIVATE: &[(&str, &str)] = &[("cache-control", "private, max-age=60")];
    const PUBLIC: &[(&str, &str)] = &[("cache-control", "public, max-age=60")];
    let check = |of_tenant: bool, answer: &[(&str, &str)], other: Caller, expected: bool| {
        let cache = cache(1 << 20);
        let terms = CacheTerms {
            shares_with_tenant: of_tenant,
            ..CacheTerms::default()
        };
        let own = Caller::of(1, 1);
        own.put(&cache, &terms, answer, "x").expect("it is stored");
        assert!(own.get(&cache, &terms).is_some());
        let found = other.get(&cache, &terms).is_some();
        assert_eq!(found, expected, "tenant: {of_tenant}, {answer:?}, {other:?}");
    };
    let (colleague, stranger) = (Caller::of(1, 2), Caller::of(2, 1));
    let with_cookie = Caller {
        cookie: Some(1),
        ..Caller::of(1, 1)
    };
    for (answer, of_tenant, to_colleague, to_stranger, to_cookie) in [
        (PLAIN, false, false, false, false),
        (PLAIN, true, true, false, true),
        (PRIVATE, true, false, false, false),
        (PUBLIC, false, true, true, true),
    ] {
        check(of_tenant, answer, colleague.clone(), to_colleague);
        check(of_tenant, answer, stranger.clone(), to_stranger);
        check(of_tenant, answer, with_cookie.clone(), to_cookie);
    }
}

#[test]
fn what_is_private_is_not_stored_for_an_address() {
    let (cache, terms) = (cache(1 << 20), CacheTerms::default());
    let anonymous = Caller {
        is_identified: false,
        ..Caller::of(0, 1)
    };
    assert!(
        anonymous
            .put(&cache, &terms, &[("cache-control", "private, max-age=60")], "x")
            .is_none()
    );
    assert!(
        anonymous
            .put(&cache, &terms, &[("cache-control", "max-age=60")], "x")
            .is_some()
    );
}

#[test]
fn a_hundred_thousand_keys_stay_within_the_bytes() {
    const BYTES: u64 = 16 << 20;
    let (cache, terms) = (cache(BYTES), CacheTerms::default());
    let body = "x".repeat(1000);
    for key in 0..100_000 {
        let caller = Caller {
            target: key,
            ..Caller::of(key % 7, key % 100)
        };
        caller.put(
            &cache,
            &terms,
            &[("cache-control", "max-age=60"), ("content-type", "text/plain")],
            &body,
        );
        let size = cache.store().size();
        assert!(size.bytes <= BYTES, "{size:?}");
    }
    let size = cache.store().size();
    assert!(
        size.entries > 5_000 && size.evicted > 80_000 && size.tenants == 7,
        "{size:?}"
    );
    assert_eq!(cache.uris().len(), size.entries, "what is gone leaves nothing behind");
    assert_eq!(cache.purge_all(), size.entries);
    let size = cache.store().size();
    assert_eq!((size.bytes, size.entries, cache.uris().len()), (0, 0, 0));
}

#[test]
fn a_tenant_that_stores_much_takes_nothing_from_another() {
    let (cache, terms) = (cache(1 << 20), CacheTerms::default());
    let small = Caller::of(1, 1);
    small.put(&cache, &terms, &[("cache-control", "max-age=60")], "small");
    for target in 1..5_000 {
        let large = Caller {
            target,
            ..Caller::of(2, 1)
        };
        large.put(&cache, &terms, &[("cache-control", "max-age=60")], "large");
    }
    assert_eq!(small.get(&cache, &terms).as_deref(), Some(&b"small"[..]));
}

#[test]
fn a_change_and_a_purge_end_the_use_of_what_is_stored() {
    const ANSWER: &[(&str, &str)] = &[("cache-control", "public, max-age=60")];
    let (cache, terms) = (cache(1 << 20), CacheTerms::default());
    let (one, other) = (
        Caller::of(1, 1),
        Caller {
            target: 1,
            ..Caller::of(1, 1)
        },
    );
    for end in [
        (|cache: &ResponseCache| cache.invalidate("h", "/0")) as fn(&ResponseCache),
        |cache| assert_eq!(cache.purge_uri(None, "/0"), 1),
        |cache| assert_eq!(cache.purge_uri(Some("h"), "/0"), 1),
    ] {
        one.put(&cache, &terms, ANSWER, "x");
        other.put(&cache, &terms, ANSWER, "x");
        end(&cache);
        assert!(one.get(&cache, &terms).is_none() && other.get(&cache, &terms).is_some());
    }
    assert_eq!(cache.purge_uri(Some("i"), "/1"), 0);
    assert_eq!(cache.purge_route("other"), 0);
    assert!(other.get(&cache, &terms).is_some());
    assert!(cache.purge_route("route") >= 1);
    assert!(other.get(&cache, &terms).is_none());
}

#[test]
fn an_answer_that_was_asked_for_before_a_change_is_not_stored() {
    let (cache, terms) = (cache(1 << 20), CacheTerms::default());
    let caller = Caller::of(1, 1);
    caller.with(&terms, |request, keys| {
        let Joined::Leader(leader) = cache.join(request, keys, None) else {
            panic!("nothing is under way")
        };
        cache.invalidate("h", "/0");
        assert!(
            matches!(cache.join(request, keys, None), Joined::Leader(_)),
            "an older request is not joined"
        );
        let answer = headers(&[("cache-control", "max-age=60")]);
        let Verdict::Store(storable) = cache.judge(
            request,
            &RequestDirectives::default(),
            None,
            (StatusCode::OK, &answer),
            arrival(),
        ) else {
            panic!("it may be stored")
        };
        let whole = (StatusCode::OK, &answer, Bytes::from_static(b"old"));
        let (_, stored) = cache.keep(request, keys, whole, &storable, (leader.uri(), arrival()));
        assert!(!stored);
    });
    assert!(caller.get(&cache, &terms).is_none());
}

#[tokio::test]
async fn those_who_wait_get_the_answer_or_learn_that_there_is_none() {
    let (cache, terms) = (cache(1 << 20), CacheTerms::default());
    let join = |caller: &Caller| caller.with(&terms, |request, keys| cache.join(request, keys, None));
    let follow = |caller: &Caller| match join(caller) {
        Joined::Follower(follower) => follower,
        Joined::Leader(_) => panic!("a request is under way"),
    };
    let lead = |caller: &Caller| match join(caller) {
        Joined::Leader(leader) => leader,
        Joined::Follower(_) => panic!("nothing is under way"),
    };
    let caller = Caller::of(1, 1);
    let leader = lead(&caller);
    let (first, second) = (follow(&caller), follow(&caller));
    let stranger = lead(&Caller::of(2, 1));
    let found = caller
        .put(&cache, &terms, &[], "x")
        .expect("it is shared, though it states no lifetime");
    assert_eq!(cache.store().size().entries, 0);
    leader.land(Landing::Answer(found));
    for follower in [first, second] {
        let Some(Landing::Answer(found)) = follower.wait().await else {
            panic!("there is an answer")
        };
        assert!(caller.with(&terms, |request, keys| cache.is_for(&found, request, keys)));
        assert!(!Caller::of(2, 1).with(&terms, |request, keys| cache.is_for(&found, request, keys)));
    }
    // A leader that leaves lets the others go, and another leads.
    let follower = follow(&Caller::of(2, 1));
    drop(stranger);
    assert!(follower.wait().await.is_none());
    let leader = lead(&Caller::of(2, 1));
    let follower = follow(&Caller::of(2, 1));
    leader.land(Landing::Nothing);
    assert!(matches!(follower.wait().await, Some(Landing::Nothing)));
}

#[derive(Debug, Clone)]
enum Act {
    Put { by: Caller, audience: u8 },
    Get(Caller),
}

fn callers() -> impl Strategy<Value = Caller> {
    let cookie = prop::option::of(0..2_u64);
    (0..3_u64, 0..3_u64, any::<bool>(), cookie, 0..2_u64).prop_map(|(tenant, id, is_identified, cookie, target)| {
        Caller {
            tenant,
            id,
            is_identified,
            cookie,
            target,
        }
    })
}

proptest! {
    #![proptest_config(cases::counted())]

    /// Compares what callers get with who may get it, by a model that knows nothing of keys.
    #[test]
    fn nobody_sees_what_was_answered_to_another(
        acts in prop::collection::vec(
            prop_oneof![
                (callers(), 0..4_u8).prop_map(|(by, audience)| Act::Put { by, audience }),
                callers().prop_map(Act::Get),
            ],
            1..80,
        ),
        of_tenant in any::<bool>(),
    ) {
        let cache = cache(1 << 20);
        let terms = CacheTerms { shares_with_tenant: of_tenant, ..CacheTerms::default() };
        let mut written: HashMap<String, (Caller, Audience)> = HashMap::new();
        for (number, act) in acts.into_iter().enumerate() {
            match act {
                Act::Put { by, audience } => {
                    let (said, audience) = match audience {
                        0 => ("max-age=60", Audience::Usual),
                        1 => ("private, max-age=60", Audience::Caller),
                        2 => ("s-maxage=60", Audience::All),
                        _ => ("max-age=60, must-revalidate", Audience::Usual),
                    };
                    let body = number.to_string();
                    by.put(&cache, &terms, &[("cache-control", said)], &body);
                    written.insert(body, (by, audience));
                }
                Act::Get(by) => {
                    let Some(body) = by.get(&cache, &terms) else { continue };
                    let (writer, audience) = &written[&String::from_utf8_lossy(&body).into_owned()];
                    prop_assert_eq!(writer.target, by.target);
                    let is_same = *writer == by;
                    let shares = of_tenant && writer.tenant == by.tenant && writer.is_identified && by.is_identified;
                    let may = match audience {
                        Audience::All => true,
                        Audience::Usual => is_same || shares,
                        Audience::Caller => is_same,
                    };
                    prop_assert!(may, "{by:?} got the answer to {writer:?}");
                }
            }
        }
    }
}
