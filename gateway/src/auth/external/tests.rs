use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use policies::Moment;

use super::known_answers::{KnownAnswers, Lifetimes};
use super::question::{Question, QuestionField, QuestionForm, RequestFacts};
use super::{Asked, ExternalCallers, ExternalSettings, Service, ServiceAnswer, Unavailable};
use crate::auth::access::{Access, Admitted, Requirements};
use crate::auth::api_key::keys::{ApiKey, ApiKeys, digest_of};
use crate::auth::authenticator::{AnonymousTier, Authenticator, Client, WaitTerms};
use crate::clock;
use crate::message::FieldMap;
use crate::observe::ExternalOutcome;
use crate::setting::SettingId;

const KEY_HEADER: HeaderName = HeaderName::from_static("x-api-key");
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Service that knows the caller NAME of `good-TENANT/NAME`, and takes 10 ms for an answer.
#[derive(Default)]
struct Scripted {
    asked: AtomicUsize,
    is_down: AtomicBool,
}

impl Service for Arc<Scripted> {
    fn ask(&self, question: Question, _: usize, _: IpAddr) -> Pin<Box<dyn Future<Output = Asked> + Send>> {
        self.asked.fetch_add(1, Relaxed);
        let is_down = self.is_down.load(Relaxed);
        Box::pin(async move {
            clock::wait_until(clock::now() + Duration::from_millis(10)).await;
            if is_down {
                return Err(Unavailable {
                    outcome: ExternalOutcome::Unreached,
                    detail: "down".into(),
                    retry_after: Duration::from_secs(1),
                    by: SettingId::URI,
                });
            }
            let presented = question
                .headers
                .get(AUTHORIZATION)
                .and_then(|value| value.to_str().ok());
            let named = presented.and_then(|value| value.strip_prefix("good-")?.split_once('/'));
            let (status, body) = match named {
                Some((tenant, name)) => (200, format!(r#"{{"tenant":"{tenant}","subject":"{name}"}}"#)),
                None => (401, String::new()),
            };
            Ok(ServiceAnswer {
                status: StatusCode::from_u16(status).unwrap(),
                headers: FieldMap::new(),
                body: Bytes::from(body),
            })
        })
    }
}

struct Scene {
    authenticator: Authenticator<String>,
    service: Arc<Scripted>,
    known: Arc<KnownAnswers>,
}

fn scene(lifetimes: Option<Lifetimes>) -> Scene {
    let (service, known) = (Arc::new(Scripted::default()), Arc::new(KnownAnswers::new(100)));
    let settings = ExternalSettings {
        form: QuestionForm {
            fields: Box::new([QuestionField::Header(AUTHORIZATION)]),
            method: false,
            host: false,
            path: false,
            client_address: false,
        },
        lifetimes,
        entries: 100,
        tiers: Box::default(),
        setting: SettingId::URI,
    };
    let key = ApiKey {
        id: "k1".into(),
        tenant: "acme".into(),
        digest: digest_of(b"key"),
        tier: None,
        scopes: Box::default(),
        label: None,
        not_before: None,
        expires: None,
        disabled: false,
    };
    let keys = ApiKeys::new(KEY_HEADER, vec![key]).unwrap();
    let anonymous = AnonymousTier("free".into());
    let name =
        |caller: crate::auth::caller::Caller| format!("{} {}/{}", caller.kind.as_str(), caller.tenant, caller.id);
    let authenticator = Authenticator::new(Some(keys), Vec::new(), Some(anonymous), 100, name).unwrap();
    let callers = ExternalCallers::new(settings, Arc::clone(&known), Arc::new(Arc::clone(&service)));
    Scene {
        authenticator: authenticator.with_external(Some(callers)),
        service,
        known,
    }
}

const SECONDS: fn(u64) -> Duration = Duration::from_secs;

fn lifetimes(stale_if_error: u64) -> Option<Lifetimes> {
    Some(Lifetimes {
        good: SECONDS(30),
        refused: SECONDS(5),
        stale_if_error: SECONDS(stale_if_error),
    })
}

impl Scene {
    /// Returns the caller, or the reason and the failed check of a refusal. `kinds` are those that the route admits.
    async fn identify(&self, kinds: &str, credential: Option<&str>, key: Option<&str>) -> String {
        let has = |kind: &str| kinds.split(' ').any(|listed| listed == kind);
        let admitted = Admitted {
            api_key: has("api_key"),
            external: has("external"),
            anonymous: has("anonymous"),
            together: has("together"),
            ..Admitted::default()
        };
        let access = Access::new(admitted, Requirements::default(), &KEY_HEADER, SettingId::URI);
        let mut headers = FieldMap::new();
        for (name, value) in [(AUTHORIZATION, credential), (KEY_HEADER, key)] {
            if let Some(value) = value {
                headers.insert(name, HeaderValue::from_str(value).unwrap());
            }
        }
        let client = Client::new(CLIENT, None).with_facts(RequestFacts {
            method: &Method::GET,
            path: "/",
            client: CLIENT,
            worker: 0,
        });
        let begin_wait = || {
            Ok(WaitTerms {
                keys_until: Moment::MAX,
                keys_until_by: None,
                comparison_until: Moment::MAX,
                failure: Box::new(|| None),
            })
        };
        let now = clock::unix_seconds();
        match self
            .authenticator
            .identify(&headers, &access, client, now, begin_wait)
            .await
        {
            Ok(caller) => caller.to_string(),
            Err(refusal) => format!(
                "{} {}",
                refusal.rejection.reason().as_str(),
                refusal.check.unwrap_or_default()
            ),
        }
    }

    #[track_caller]
    fn has_asked(&self, times: usize) {
        assert_eq!(self.service.asked.swap(0, Relaxed), times);
    }
}

#[tokio::test(start_paused = true)]
async fn the_service_is_asked_last() {
    let scene = scene(lifetimes(0));
    let check = async |kinds: &str, credential: Option<&str>, key: Option<&str>, expected: &str, asked: usize| {
        assert_eq!(
            scene.identify(kinds, credential, key).await,
            expected,
            "{kinds} {credential:?}"
        );
        scene.has_asked(asked);
    };
    let ada = Some("good-acme/ada");
    check("external", None, None, "credentials_missing absent", 0).await;
    check("external", None, Some("key"), "credentials_missing wrong_kind", 0).await;
    check("api_key external", ada, Some("key"), "api_key acme/k1", 0).await;
    check(
        "api_key external",
        ada,
        Some("bad"),
        "credentials_invalid key_unknown",
        0,
    )
    .await;
    check("external anonymous", None, None, "anonymous anonymous/127.0.0.1", 0).await;
    check(
        "external anonymous",
        Some("bad"),
        None,
        "credentials_invalid external_refused",
        1,
    )
    .await;
    check("api_key", ada, None, "credentials_missing wrong_kind", 0).await;
    check("api_key external", ada, None, "external acme/ada", 1).await;
    check("external", ada, None, "external acme/ada", 0).await;
    // Together.
    check("api_key external together", ada, None, "credentials_missing absent", 0).await;
    check(
        "api_key external together",
        None,
        Some("key"),
        "credentials_missing incomplete",
        0,
    )
    .await;
    check("api_key external together", ada, Some("key"), "external acme/ada", 0).await;
    let stranger = Some("good-other/ada");
    let differ = "credentials_invalid tenants_differ";
    check("api_key external together", stranger, Some("key"), differ, 1).await;
}

#[tokio::test(start_paused = true)]
async fn answers_hold_for_their_time() {
    let scene = scene(lifetimes(0));
    let ask = async |credential: &str| scene.identify("external", Some(credential), None).await;
    for (wait, good, refused) in [(0, 1, 1), (4, 0, 0), (2, 0, 1), (23, 0, 1), (2, 1, 0)] {
        tokio::time::advance(SECONDS(wait)).await;
        assert_eq!(ask("good-acme/ada").await, "external acme/ada");
        scene.has_asked(good);
        assert_eq!(ask("bad").await, "credentials_invalid external_refused");
        scene.has_asked(refused);
    }
    assert_eq!(scene.known.purge(), 2);
    ask("good-acme/ada").await;
    scene.has_asked(1);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_down_lets_nobody_in_but_whom_the_operator_wants() {
    for (stale, after) in [
        (0, "identity_unavailable external_unreached"),
        (60, "external acme/ada"),
    ] {
        let scene = scene(lifetimes(stale));
        let ask = async |credential: &str| scene.identify("external anonymous", Some(credential), None).await;
        assert_eq!(ask("good-acme/ada").await, "external acme/ada");
        scene.service.is_down.store(true, Relaxed);
        assert_eq!(ask("good-acme/ada").await, "external acme/ada");
        assert_eq!(ask("good-acme/eve").await, "identity_unavailable external_unreached");
        tokio::time::advance(SECONDS(31)).await;
        assert_eq!(ask("good-acme/ada").await, after, "{stale}");
        tokio::time::advance(SECONDS(60)).await;
        assert_eq!(ask("good-acme/ada").await, "identity_unavailable external_unreached");
    }
    // A purge and a refusal end it too.
    let scene = scene(lifetimes(60));
    let ask = async |credential: &str| scene.identify("external", Some(credential), None).await;
    ask("good-acme/ada").await;
    scene.service.is_down.store(true, Relaxed);
    tokio::time::advance(SECONDS(31)).await;
    scene.known.purge();
    assert_eq!(ask("good-acme/ada").await, "identity_unavailable external_unreached");
}

#[tokio::test(start_paused = true)]
async fn requests_with_one_question_wait_for_one_answer() {
    for times in [lifetimes(0), None] {
        let scene = scene(times);
        let crowd = (0..50).map(|number| {
            let scene = &scene;
            let credential = format!("good-acme/{}", number % 5);
            async move { scene.identify("external", Some(&credential), None).await }
        });
        let told = join_all(crowd).await;
        for (number, told) in told.iter().enumerate() {
            assert_eq!(*told, format!("external acme/{}", number % 5));
        }
        scene.has_asked(5);
    }
    // Without lifetimes nothing is stored.
    let scene = scene(None);
    for _ in 0..2 {
        scene.identify("external", Some("good-acme/ada"), None).await;
        scene.has_asked(1);
        assert_eq!(scene.known.sizes(), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_before_a_purge_is_not_used_after_it() {
    let scene = scene(lifetimes(0));
    let before = scene.identify("external", Some("good-acme/ada"), None);
    let after = async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        scene.known.purge();
        scene.identify("external", Some("good-acme/ada"), None).await
    };
    let (before, after) = tokio::join!(before, after);
    assert_eq!(
        (before.as_str(), after.as_str()),
        ("external acme/ada", "external acme/ada")
    );
    scene.has_asked(2);
    scene.identify("external", Some("good-acme/ada"), None).await;
    scene.has_asked(0);
}
