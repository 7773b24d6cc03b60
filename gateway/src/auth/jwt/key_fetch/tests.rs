use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::http::{Response, StatusCode};
use fixtures::keys;
use fixtures::tokens::{self, Algorithm};
use serde_json::{Value, json};

use crate::auth::check::Check;
use crate::auth::jwt::fetch_state::FETCHES;
use crate::auth::jwt::jws::{self, Jws};
use crate::auth::jwt::key_fetch::*;
use crate::auth::jwt::key_wait::{KeyWait, Lacked};
use crate::auth::jwt::live_keys::KeysStatus;
use crate::message::FieldMap;
use crate::rejection::Rejection;
use crate::setting::SettingId;

type Answer = fn() -> Response<Body>;

/// Starts an identity provider whose n-th response is the n-th of a list; the last one repeats.
async fn provider(answers: Vec<Answer>) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = Arc::new(AtomicUsize::new(0));
    let count = served.clone();
    let handler = move || {
        let step = count.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
        std::future::ready(answers[step]())
    };
    let app = Router::new().fallback(handler);
    tokio::spawn(async move { axum::serve(listener, app).await });
    (address, served)
}

/// The public set with the keys of these algorithms only.
fn only(algorithms: &[Algorithm]) -> Response<Body> {
    let mut set: Value = serde_json::from_str(keys::JWKS).unwrap();
    let wanted = |key: &Value| algorithms.iter().any(|algorithm| key["kid"] == tokens::kid(*algorithm));
    set["keys"].as_array_mut().unwrap().retain(wanted);
    Response::new(Body::from(set.to_string()))
}

fn first() -> Response<Body> {
    only(&[Algorithm::ES256])
}

fn rotated() -> Response<Body> {
    only(&[Algorithm::EdDSA])
}

fn broken() -> Response<Body> {
    Response::builder()
        .status(StatusCode::INTERNAL_SERVER_ERROR)
        .body(Body::from("{}"))
        .unwrap()
}

/// Every wait is short, but a retry, a refresh and a withdrawal are still distinguishable.
const QUICK: Freshness = Freshness {
    refresh: Duration::from_millis(5),
    retry: Duration::from_millis(5),
    longest_retry: Duration::from_millis(5),
    max_age: Duration::from_secs(3600),
    cool_down: Duration::from_millis(1),
    timeout: Duration::from_secs(5),
};

/// No fetch happens unless a request asks for it.
const SLOW: Freshness = Freshness {
    refresh: Duration::from_secs(3600),
    retry: Duration::from_secs(3600),
    longest_retry: Duration::from_secs(3600),
    max_age: Duration::from_secs(7200),
    cool_down: Duration::from_millis(1),
    timeout: Duration::from_secs(5),
};

struct Kept {
    live: Arc<LiveKeys>,
}

fn source(address: SocketAddr, freshness: Freshness) -> Source {
    Source {
        url: JwksUrl::parse(&format!("http://{address}/jwks.json")).unwrap(),
        algorithms: jws::Algorithm::ALL.to_vec(),
        freshness,
    }
}

fn keep(address: SocketAddr, freshness: Freshness) -> Kept {
    let live = LiveKeys::awaited();
    let theirs = live.clone();
    let source = source(address, freshness);
    tokio::spawn(async move { keep_fresh(&theirs, &source, &client().unwrap()).await });
    Kept { live }
}

impl Kept {
    async fn until(&self, reason: &str, condition: impl FnMut(&KeysStatus) -> bool) -> KeysStatus {
        let mut status = self.live.watch();
        let waited = tokio::time::timeout(Duration::from_secs(20), status.wait_for(condition)).await;
        waited
            .unwrap_or_else(|_| panic!("waited for: {reason}"))
            .expect("the keys live on")
            .clone()
    }

    fn verifies(&self, algorithm: Algorithm) -> Result<(), Check> {
        let token = tokens::mint(algorithm, &json!({}), Some(&tokens::kid(algorithm)));
        self.live.current().verify(&Jws::parse(&token).unwrap())
    }
}

#[tokio::test]
async fn keys_arrive_rotate_and_the_old_ones_stop() {
    let (address, _) = provider(vec![first, first, rotated]).await;
    let kept = keep(address, QUICK);
    assert_eq!(kept.verifies(Algorithm::ES256), Err(Check::KeysUnavailable));
    kept.until("the first keys", |status| status.keys == 1).await;
    kept.until("the rotation", |status| status.attempts >= 3).await;
    assert_eq!(kept.verifies(Algorithm::EdDSA), Ok(()));
    assert_eq!(kept.verifies(Algorithm::ES256), Err(Check::KeyIdUnknown));
}

fn named(kid: &str) -> Lacked {
    Lacked::Named(Some(kid.into()))
}

/// Returns the result of a request that lacks this key.
async fn waits(live: &Arc<LiveKeys>, kid: &str, freshness: Freshness) -> Result<(), Rejection> {
    let wait = KeyWait::new(live, named(kid), freshness, Check::KeyIdUnknown, SettingId::URI);
    wait.done(clock::now() + Duration::from_secs(20)).await
}

#[tokio::test]
async fn requests_that_lack_a_key_wait_for_one_fetch_together() {
    let (address, served) = provider(vec![first, rotated]).await;
    let kept = keep(address, SLOW);
    kept.until("the first keys", |status| status.keys == 1).await;
    let new = tokens::kid(Algorithm::EdDSA);
    let all = (0..100).map(|_| waits(&kept.live, &new, SLOW));
    let waited = futures_util::future::join_all(all).await;
    assert!(waited.iter().all(Result::is_ok), "{waited:?}");
    assert_eq!(kept.verifies(Algorithm::EdDSA), Ok(()));
    assert_eq!(served.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn requests_without_any_keys_wait_for_the_first() {
    let (address, served) = provider(vec![first]).await;
    let live = LiveKeys::awaited();
    let (kid, theirs) = (tokens::kid(Algorithm::ES256), live.clone());
    let early = waits(&live, &kid, SLOW);
    let source = source(address, SLOW);
    tokio::spawn(async move { keep_fresh(&theirs, &source, &client().unwrap()).await });
    assert!(early.await.is_ok());
    assert_eq!(live.status().keys, 1);
    assert!(served.load(Ordering::SeqCst) <= 2);
}

#[tokio::test]
async fn names_of_keys_that_nobody_has_bring_few_fetches_and_hide_no_rotation() {
    const FEW: Freshness = Freshness {
        cool_down: Duration::from_secs(3600),
        ..SLOW
    };
    let (address, served) = provider(vec![first, first, rotated]).await;
    let kept = keep(address, FEW);
    kept.until("the first keys", |status| status.keys == 1).await;
    assert!(
        waits(&kept.live, "nobody's", FEW).await.is_ok(),
        "it is told that there is none"
    );
    assert_eq!(kept.verifies(Algorithm::EdDSA), Err(Check::KeyIdUnknown));
    assert!(waits(&kept.live, &tokens::kid(Algorithm::EdDSA), FEW).await.is_ok());
    assert_eq!(kept.verifies(Algorithm::EdDSA), Ok(()), "the rotation is found at once");
    let mut put_off = 0;
    for number in 0..100 {
        if let Err(rejection) = waits(&kept.live, &format!("nobody's-{number}"), FEW).await {
            assert!(matches!(rejection, Rejection::KeysUnavailable { .. }), "{rejection:?}");
            put_off += 1;
        }
    }
    let fetches = usize::try_from(FETCHES).unwrap();
    assert_eq!(served.load(Ordering::SeqCst), 1 + fetches);
    assert_eq!(put_off, 100 - (fetches - 2));
}

#[tokio::test]
async fn whoever_names_no_key_waits_for_another_key_set() {
    let (address, served) = provider(vec![first, first, rotated]).await;
    let kept = keep(address, SLOW);
    kept.until("the first keys", |status| status.keys == 1).await;
    let before = kept.live.current().fingerprint();
    let unnamed = || {
        KeyWait::new(
            &kept.live,
            Lacked::NotOf(before),
            SLOW,
            Check::Signature,
            SettingId::URI,
        )
    };
    let later = || clock::now() + Duration::from_secs(20);
    assert!(unnamed().done(later()).await.is_ok(), "they are the same");
    assert_eq!(kept.live.current().fingerprint(), before);
    assert!(unnamed().done(later()).await.is_ok());
    assert_ne!(kept.live.current().fingerprint(), before);
    assert_eq!(served.load(Ordering::SeqCst), 3);
    assert!(unnamed().done(later()).await.is_ok(), "another set has come already");
    assert_eq!(served.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn requests_wait_no_longer_than_they_may() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let kept = keep(address, SLOW);
    let wait = KeyWait::new(&kept.live, named("new"), SLOW, Check::KeysUnavailable, SettingId::URI);
    let refused = wait.done(clock::now() + Duration::from_millis(20)).await;
    assert!(matches!(refused, Err(Rejection::KeysUnavailable { .. })), "{refused:?}");
    let hurried = Freshness {
        timeout: Duration::from_millis(20),
        ..SLOW
    };
    let refused = waits(&kept.live, "new", hurried).await;
    assert!(matches!(refused, Err(Rejection::KeysUnavailable { .. })), "{refused:?}");
    drop(listener);
}

#[tokio::test]
async fn nothing_that_is_no_key_set_gets_in_and_the_keys_in_use_stay() {
    let answers: [(Answer, &str); 6] = [
        (broken, "status 500"),
        (|| Response::new(Body::from("<html>")), "not a JWKS"),
        (|| Response::new(Body::from(r#"{"keys":[]}"#)), "empty"),
        (|| Response::new(Body::from(vec![b' '; 10 << 20])), "longer than"),
        (|| Response::new(Body::from(keys::OCT_JWKS)), "published"),
        (
            || {
                Response::builder()
                    .status(302)
                    .header("location", "/elsewhere")
                    .body(Body::empty())
                    .unwrap()
            },
            "status 302",
        ),
    ];
    for (bad, why) in answers {
        let (address, _) = provider(vec![first, bad]).await;
        let kept = keep(address, QUICK);
        let status = kept.until(why, |status| status.last_error.is_some()).await;
        assert!(
            status.last_error.as_ref().is_some_and(|(_, text)| text.contains(why)),
            "{status:?}"
        );
        assert_eq!((status.keys, status.last_ok.is_some()), (1, true));
        assert_eq!(kept.verifies(Algorithm::ES256), Ok(()));
    }
}

#[tokio::test]
async fn a_dead_provider_blocks_nothing_and_is_asked_again() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let kept = keep(address, QUICK);
    let status = kept.until("three attempts", |status| status.attempts >= 3).await;
    assert!(status.last_error.is_some() && status.last_ok.is_none());
    assert_eq!(kept.verifies(Algorithm::ES256), Err(Check::KeysUnavailable));
}

#[tokio::test]
async fn a_provider_that_accepts_and_says_nothing_is_given_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let kept = keep(
        address,
        Freshness {
            timeout: Duration::from_millis(20),
            ..QUICK
        },
    );
    let status = kept.until("two attempts", |status| status.attempts >= 2).await;
    assert!(status.last_error.is_some_and(|(_, text)| text.contains("time limit")));
    drop(listener);
}

#[tokio::test]
async fn a_provider_that_comes_up_late_is_found() {
    let (address, _) = provider(vec![broken, broken, first]).await;
    let kept = keep(
        address,
        Freshness {
            retry: QUICK.retry,
            longest_retry: QUICK.longest_retry,
            ..SLOW
        },
    );
    let status = kept.until("the keys", |status| status.keys == 1).await;
    assert_eq!((status.attempts, status.last_error), (3, None));
}

#[tokio::test]
async fn keys_that_nobody_confirms_are_withdrawn_at_their_greatest_age() {
    let (address, _) = provider(vec![first, broken]).await;
    let kept = keep(
        address,
        Freshness {
            max_age: Duration::from_millis(50),
            ..QUICK
        },
    );
    let status = kept
        .until("the withdrawal", |status| status.keys == 0 && status.last_ok.is_some())
        .await;
    assert!(status.last_error.is_some());
    assert_eq!(kept.verifies(Algorithm::ES256), Err(Check::KeysUnavailable));
}

#[test]
fn the_schedule_grows_its_pauses_and_forgets_them_after_a_success() {
    let at = |seconds: u64| Moment::from_nanos(seconds * 1_000_000_000);
    let mut schedule = Schedule::new(Freshness::default(), at(1000), None);
    let mut now = 1000;
    for pause in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
        schedule.failed(at(now));
        assert_eq!(schedule.due(), at(now + pause));
        now += pause;
    }
    assert_eq!(schedule.too_old(), at(1000 + 24 * 3600));
    schedule.succeeded(at(now), None);
    assert_eq!(schedule.due(), at(now + 300));
    schedule.failed(at(now + 300));
    assert_eq!(schedule.due(), at(now + 301));
    assert_eq!(schedule.too_old(), at(now + 24 * 3600));
    // `max-age` brings the next fetch forward, within bounds.
    for (told, pause) in [(0, 30), (29, 30), (120, 120), (300, 300), (86_400, 300)] {
        schedule.succeeded(at(now), Some(Duration::from_secs(told)));
        assert_eq!(schedule.due(), at(now + pause), "{told}");
    }
    schedule.failed(at(now + 300));
    // A clock that runs backwards only brings the next fetch forward.
    schedule.failed(at(5));
    assert_eq!(schedule.due(), at(7));
    for _ in 0..100 {
        schedule.failed(at(5));
    }
    assert_eq!(schedule.due(), at(65));
}

#[test]
fn keys_come_over_https_or_from_this_machine() {
    let check = |url: &str, accepted| assert_eq!(JwksUrl::parse(url).is_ok(), accepted, "{url}");
    check("https://id.example/jwks.json", true);
    check("http://127.0.0.1:8080/jwks.json", true);
    check("http://127.1.2.3/", true);
    check("http://[::1]/", true);
    check("http://localhost:9000/", true);
    check("http://id.example/jwks.json", false);
    check("http://localhost.example/", false);
    check("http://10.0.0.1/", false);
    check("https://user:secret@id.example/", false);
    check("file:///etc/passwd", false);
    check("jwks.json", false);
}

#[test]
fn an_answer_says_for_how_long_it_is_fresh() {
    let check = |fields: &[(&'static str, &'static str)], expected: Option<u64>| {
        let mut headers = FieldMap::new();
        for (name, value) in fields {
            headers.append(*name, http::HeaderValue::from_static(value));
        }
        assert_eq!(fresh_for(&headers), expected.map(Duration::from_secs), "{fields:?}");
    };
    check(&[], None);
    check(&[("cache-control", "public")], None);
    check(&[("cache-control", "public, max-age=600")], Some(600));
    check(&[("cache-control", "MAX-AGE=\"600\"")], Some(600));
    check(&[("cache-control", "max-age=600"), ("age", "100")], Some(500));
    check(&[("cache-control", "max-age=600"), ("age", "1000")], Some(0));
    check(&[("cache-control", "max-age=600, no-cache")], Some(0));
    check(&[("cache-control", "no-store")], Some(0));
    check(
        &[("cache-control", "max-age=60"), ("cache-control", "max-age=30")],
        Some(30),
    );
    check(&[("cache-control", "max-age=soon")], None);
    check(&[("cache-control", "s-maxage=5")], None);
}
