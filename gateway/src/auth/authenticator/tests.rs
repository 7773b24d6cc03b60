use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fixtures::{keys, tokens};
use futures_util::FutureExt;
use http::HeaderValue;
use policies::{Moment, Quota, Ratio, Share};
use serde_json::{Value, json};

use crate::auth::access::{Admitted, AdmittedIssuers, Requirements};
use crate::auth::api_key::keys::{ApiKey, digest_of};
use crate::auth::authenticator::*;
use crate::auth::jwt::issuer::IssuerSettings;
use crate::auth::jwt::jwk::Origin;
use crate::auth::jwt::jws::Algorithm;
use crate::auth::jwt::key_fetch::{Freshness, JwksUrl, Source};
use crate::auth::jwt::key_set::KeySet;
use crate::auth::jwt::live_keys::LiveKeys;
use crate::auth::verifications::{FailedChecks, VerificationWork};
use crate::limits::kinds::Terms;
use crate::limits::store::TermsByOwner;
use crate::limits::store::local::Accounts;
use crate::limits::{Limit, Mode, Per};
use crate::observe::{Registry, Verification};
use crate::rejection::Rejection;

const NOW: u64 = 1_000_000;
const KEY_HEADER: HeaderName = HeaderName::from_static("x-api-key");
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

/// An authenticator that keeps `kind tenant/id` of every caller, and the number of callers that were built.
struct Scene {
    authenticator: Authenticator<String>,
    built: Arc<AtomicUsize>,
    keys: Arc<LiveKeys>,
}

fn key_set(algorithm: Algorithm) -> KeySet {
    KeySet::from_jwks(keys::JWKS.as_bytes(), &[algorithm], Origin::File).unwrap()
}

fn issuer(name: &str, keys: Arc<LiveKeys>) -> Issuer {
    let settings = IssuerSettings {
        name: name.into(),
        issuer: format!("https://{name}.example"),
        audience: vec!["edge".into()],
        types: Vec::new(),
        required_claims: Vec::new(),
        caller: "/sub".into(),
        tenant: "/tenant".into(),
        tier: None,
        scopes: None,
        leeway: Duration::from_secs(30),
        max_age: None,
        setting: crate::setting::SettingId::URI,
    };
    Issuer::new(settings, keys).unwrap()
}

fn api_keys() -> ApiKeys {
    let key = |id: &str, tenant: &str, secret: &str| ApiKey {
        id: id.into(),
        tenant: tenant.into(),
        digest: digest_of(secret.as_bytes()),
        tier: None,
        scopes: Box::default(),
        label: None,
        not_before: None,
        expires: None,
        disabled: false,
    };
    let dated = ApiKey {
        expires: Some(NOW + 10),
        ..key("k2", "acme", "dated")
    };
    ApiKeys::new(
        KEY_HEADER,
        vec![key("k1", "acme", "good"), dated, key("k3", "other", "others")],
    )
    .unwrap()
}

fn scene() -> Scene {
    let built = Arc::new(AtomicUsize::new(0));
    let count = built.clone();
    let keys = LiveKeys::with(key_set(Algorithm::ES256));
    let issuers = vec![
        issuer("main", keys.clone()),
        issuer("second", LiveKeys::with(key_set(Algorithm::RS256))),
    ];
    let authenticator = Authenticator::new(
        Some(api_keys()),
        issuers,
        Some(AnonymousTier("free".into())),
        100,
        move |caller| {
            count.fetch_add(1, Ordering::Relaxed);
            format!("{} {}/{}", caller.kind.as_str(), caller.tenant, caller.id)
        },
    );
    Scene {
        authenticator: authenticator.unwrap(),
        built,
        keys,
    }
}

/// Makes a token of `main` (ES256) or `second` (RS256).
fn token_of(issuer: &str, changes: Value) -> String {
    let algorithm = if issuer == "main" {
        tokens::Algorithm::ES256
    } else {
        tokens::Algorithm::RS256
    };
    let mut claims = json!({
        "iss": format!("https://{issuer}.example"), "aud": "edge", "sub": "ada", "tenant": "acme", "exp": NOW + 100,
    });
    claims
        .as_object_mut()
        .unwrap()
        .extend(changes.as_object().unwrap().clone());
    tokens::mint(algorithm, &claims, Some(&tokens::kid(algorithm)))
}

fn forged() -> String {
    let good = token_of("main", json!({}));
    let (signed, _) = good.rsplit_once('.').unwrap();
    let other = token_of("main", json!({ "sub": "eve" }));
    let (_, signature) = other.rsplit_once('.').unwrap();
    format!("{signed}.{signature}")
}

fn access(kinds: &[&str]) -> Access {
    let named: Box<[Arc<str>]> = kinds
        .iter()
        .filter_map(|kind| kind.strip_prefix("jwt:"))
        .map(Arc::from)
        .collect();
    let jwt = match (kinds.contains(&"jwt"), named.is_empty()) {
        (true, _) => AdmittedIssuers::Any,
        (false, false) => AdmittedIssuers::These(named),
        (false, true) => AdmittedIssuers::None,
    };
    let admitted = Admitted {
        api_key: kinds.contains(&"api_key"),
        jwt,
        mtls: kinds.contains(&"mtls"),
        basic: kinds.contains(&"basic"),
        external: kinds.contains(&"external"),
        anonymous: kinds.contains(&"anonymous"),
        together: kinds.contains(&"together"),
    };
    Access::new(
        admitted,
        Requirements::default(),
        &KEY_HEADER,
        crate::setting::SettingId::URI,
    )
}

fn headers(api_key: Option<&str>, token: Option<&str>) -> FieldMap {
    let mut headers = FieldMap::new();
    if let Some(key) = api_key {
        headers.insert(KEY_HEADER, HeaderValue::from_str(key).unwrap());
    }
    if let Some(token) = token {
        let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        headers.insert(http::header::AUTHORIZATION, value);
    }
    headers
}

impl Scene {
    fn ask(&self, headers: &FieldMap, kinds: &[&str], now: u64) -> Result<String, &'static str> {
        let answer = at_once(&self.authenticator, headers, kinds, CLIENT, now);
        answer.map(|kept| kept.to_string()).map_err(word)
    }

    fn built(&self) -> usize {
        self.built.load(Ordering::Relaxed)
    }
}

/// Identifies a caller whose check is not slow. A slow check is refused.
fn at_once<'a, K>(
    authenticator: &Authenticator<K>,
    headers: &FieldMap,
    kinds: &[&str],
    client: impl Into<Client<'a>>,
    now: u64,
) -> Result<Arc<K>, Refusal> {
    let refuse = || Err(Rejection::Internal);
    let access = access(kinds);
    let answer = authenticator.identify(headers, &access, client, now, refuse);
    answer.now_or_never().expect("nothing is awaited")
}

/// Log word of a failed check, or `awaits` if a slow check would have been next.
fn word(refusal: Refusal) -> &'static str {
    refusal.check.unwrap_or("awaits")
}

#[test]
fn what_is_presented_and_what_is_admitted_decide() {
    let scene = scene();
    let main = token_of("main", json!({}));
    let second = token_of("second", json!({}));
    let stranger_tenant = token_of("main", json!({ "tenant": "other" }));
    let forged = forged();
    let check = |key: Option<&str>, token: Option<&str>, kinds: &[&str], expected: Result<&str, &'static str>| {
        let answer = scene.ask(&headers(key, token), kinds, NOW);
        assert_eq!(
            answer.as_deref().map_err(|check| *check),
            expected,
            "{key:?} {token:?} {kinds:?}"
        );
    };
    const EVERY: &[&str] = &["api_key", "jwt", "anonymous"];

    check(Some("good"), None, &["api_key"], Ok("api_key acme/k1"));
    check(Some("good"), None, EVERY, Ok("api_key acme/k1"));
    check(Some("wrong"), None, &["api_key"], Err("key_unknown"));
    check(Some("wrong"), None, EVERY, Err("key_unknown"));
    check(Some("wrong"), None, &["anonymous"], Ok("anonymous anonymous/192.0.2.7"));
    check(Some("good"), None, &["jwt"], Err("wrong_kind"));
    check(Some("good"), None, &["anonymous"], Ok("anonymous anonymous/192.0.2.7"));

    check(None, Some(&main), &["jwt"], Ok("jwt acme/ada"));
    check(None, Some(&second), &["jwt"], Ok("jwt acme/ada"));
    check(None, Some(&main), &["jwt:main"], Ok("jwt acme/ada"));
    check(None, Some(&second), &["jwt:main"], Err("wrong_kind"));
    check(None, Some(&main), &["api_key"], Err("wrong_kind"));
    check(None, Some(&forged), EVERY, Err("signature"));
    check(None, Some("garbage"), EVERY, Err("token_malformed"));

    check(None, None, &["api_key", "jwt"], Err("absent"));
    check(None, None, &[], Err("absent"));
    check(None, None, EVERY, Ok("anonymous anonymous/192.0.2.7"));

    check(Some("good"), Some(&main), EVERY, Ok("jwt acme/ada"));
    check(Some("good"), Some(&main), &["api_key"], Ok("api_key acme/k1"));
    check(Some("others"), Some(&main), EVERY, Err("tenants_differ"));
    check(Some("good"), Some(&stranger_tenant), EVERY, Err("tenants_differ"));
    // Credentials of kinds that the route does not admit are left to the backend.
    check(Some("good"), Some(&forged), &["api_key"], Ok("api_key acme/k1"));
    check(Some("good"), Some("garbage"), &["api_key"], Ok("api_key acme/k1"));
    check(
        Some("good"),
        Some(&stranger_tenant),
        &["api_key"],
        Ok("api_key acme/k1"),
    );
    check(Some("wrong"), Some(&main), &["jwt"], Ok("jwt acme/ada"));
    check(Some("others"), Some(&main), &["jwt"], Ok("jwt acme/ada"));
    check(None, Some(&forged), &["anonymous"], Ok("anonymous anonymous/192.0.2.7"));
    check(Some("wrong"), None, &["jwt"], Err("wrong_kind"));
    check(None, Some(&forged), &["api_key"], Err("wrong_kind"));
    check(Some("good"), Some(&forged), EVERY, Err("signature"));
    check(Some("wrong"), Some(&main), EVERY, Err("key_unknown"));
    check(
        Some("good"),
        Some(&second),
        &["api_key", "jwt:main"],
        Ok("api_key acme/k1"),
    );
}

#[test]
fn each_refusal_has_its_category_and_tells_whether_it_is_suspect() {
    let scene = scene();
    let check = |headers: &FieldMap, expected: (&str, bool)| {
        let refusal = at_once(&scene.authenticator, headers, &["api_key", "jwt"], CLIENT, NOW).unwrap_err();
        assert_eq!(
            (refusal.rejection.reason().as_str(), refusal.suspect),
            expected,
            "{:?}",
            refusal.check
        );
    };
    check(&FieldMap::new(), ("credentials_missing", false));
    check(&headers(Some("wrong"), None), ("credentials_invalid", true));
    check(&headers(None, Some(&forged())), ("credentials_invalid", true));
    check(
        &headers(None, Some(&token_of("main", json!({ "exp": NOW - 30 })))),
        ("credentials_expired", false),
    );
    check(
        &headers(None, Some(&token_of("nobody", json!({})))),
        ("credentials_invalid", true),
    );
    let mut twice = headers(Some("good"), None);
    twice.append(KEY_HEADER, HeaderValue::from_static("good"));
    check(&twice, ("credentials_invalid", true));
    scene.keys.withdraw();
    check(
        &headers(None, Some(&token_of("main", json!({})))),
        ("keys_unavailable", false),
    );
}

#[test]
fn a_known_credential_is_not_verified_again() {
    let scene = scene();
    let token = token_of("main", json!({}));
    for _ in 0..3 {
        assert!(scene.ask(&headers(None, Some(&token)), &["jwt"], NOW).is_ok());
        assert!(scene.ask(&headers(Some("good"), None), &["api_key"], NOW).is_ok());
        assert!(scene.ask(&FieldMap::new(), &["anonymous"], NOW).is_ok());
        assert_eq!(scene.built(), 3);
    }
}

#[test]
fn a_time_that_was_wrong_leaves_no_verdict_behind() {
    const HOUR: u64 = 3600;
    let check = |changes: Value, steps: &[(u64, Result<&str, &'static str>)]| {
        let scene = scene();
        let token = headers(None, Some(&token_of("main", changes.clone())));
        for (now, expected) in steps {
            let answer = scene.ask(&token, &["jwt"], *now);
            assert_eq!(
                answer.as_deref().map_err(|check| *check),
                *expected,
                "{changes} at {now}"
            );
        }
    };
    let ada = Ok("jwt acme/ada");
    // The clock is ahead for a while, before and after the token was cached.
    check(json!({}), &[(NOW + HOUR, Err("expired")), (NOW, ada), (NOW + 99, ada)]);
    check(
        json!({}),
        &[
            (NOW, ada),
            (NOW + HOUR, Err("expired")),
            (NOW + 2 * HOUR, Err("expired")),
            (NOW + HOUR, Err("expired")),
            (NOW, ada),
            (NOW + HOUR, Err("expired")),
            (NOW + 130, Err("expired")),
            (NOW + 129, ada),
        ],
    );
    // A clock that was ahead admitted the token; the token is early once the clock is right.
    let later = json!({ "nbf": NOW + HOUR, "exp": NOW + 2 * HOUR });
    check(
        later,
        &[
            (NOW + HOUR, ada),
            (NOW, Err("nbf")),
            (NOW + HOUR - 31, Err("nbf")),
            (NOW + HOUR - 30, ada),
            (NOW, Err("nbf")),
        ],
    );
    check(
        json!({ "iat": NOW + HOUR, "exp": NOW + 2 * HOUR }),
        &[(NOW + HOUR, ada), (NOW, Err("iat")), (NOW + HOUR, ada)],
    );
    // A verdict that does not depend on the time stays.
    check(
        json!({ "aud": "others" }),
        &[(NOW, Err("aud")), (0, Err("aud")), (NOW, Err("aud"))],
    );
}

#[test]
fn what_is_remembered_expires_when_the_credential_does() {
    let scene = scene();
    let token = headers(None, Some(&token_of("main", json!({}))));
    let key = headers(Some("dated"), None);
    let check = |headers: &FieldMap, now, expected: Result<&str, &str>| {
        assert_eq!(
            scene
                .ask(headers, &["jwt", "api_key"], now)
                .as_deref()
                .map_err(|check| *check),
            expected
        );
    };
    check(&token, NOW, Ok("jwt acme/ada"));
    check(&token, NOW + 129, Ok("jwt acme/ada"));
    check(&token, NOW + 130, Err("expired"));
    check(&token, NOW + 1000, Err("expired"));
    check(&key, NOW + 9, Ok("api_key acme/k2"));
    check(&key, NOW + 10, Err("key_expired"));
}

#[test]
fn a_removed_key_stops_verifying_at_once_and_a_new_one_starts() {
    let scene = scene();
    let token = headers(None, Some(&token_of("main", json!({}))));
    let forged = headers(None, Some(&forged()));
    assert!(scene.ask(&token, &["jwt"], NOW).is_ok());
    assert_eq!(scene.ask(&forged, &["jwt"], NOW), Err("signature"));

    scene.keys.replace(key_set(Algorithm::EdDSA), Moment::ZERO, NOW);
    assert_eq!(scene.ask(&token, &["jwt"], NOW), Err("kid_unknown"));
    assert_eq!(scene.ask(&forged, &["jwt"], NOW), Err("kid_unknown"));

    scene.keys.replace(key_set(Algorithm::ES256), Moment::ZERO, NOW);
    assert!(scene.ask(&token, &["jwt"], NOW).is_ok());
    scene.keys.withdraw();
    assert_eq!(scene.ask(&token, &["jwt"], NOW), Err("keys_unavailable"));
}

#[test]
fn a_forged_token_is_remembered_apart_from_the_good() {
    let scene = scene();
    let forged = forged();
    for _ in 0..3 {
        assert_eq!(
            scene.ask(&headers(None, Some(&forged)), &["jwt"], NOW),
            Err("signature")
        );
        assert_eq!(scene.authenticator.tokens.len(), (0, 1));
    }
    // A failure that ends with time, or costs no signature check, is not cached.
    let early = token_of("main", json!({ "nbf": NOW + 50 }));
    assert_eq!(scene.ask(&headers(None, Some(&early)), &["jwt"], NOW), Err("nbf"));
    assert_eq!(
        scene.ask(&headers(None, Some("a.b.c")), &["jwt"], NOW),
        Err("token_malformed")
    );
    assert_eq!(scene.authenticator.tokens.len(), (0, 1));
    assert!(scene.ask(&headers(None, Some(&early)), &["jwt"], NOW + 20).is_ok());
    assert_eq!(scene.authenticator.tokens.len(), (1, 1));
}

#[test]
fn memory_is_bounded_and_a_flood_costs_no_key_its_place() {
    let scene = scene();
    assert!(scene.ask(&headers(Some("good"), None), &["api_key"], NOW).is_ok());
    for n in 0..500_u32 {
        let token = token_of("main", json!({ "sub": format!("user-{n}") }));
        assert!(scene.ask(&headers(None, Some(&token)), &["jwt"], NOW).is_ok());
        let _ = scene.ask(&headers(None, Some(&token[..token.len() - 2])), &["jwt"], NOW);
        let client = IpAddr::V4(Ipv4Addr::from_bits(n));
        assert!(at_once(&scene.authenticator, &FieldMap::new(), &["anonymous"], client, NOW).is_ok());
    }
    let (admitted, refused) = scene.authenticator.tokens.len();
    assert!(admitted <= 100 && refused <= 100 && scene.authenticator.strangers.len() <= 100);
    let before = scene.built();
    assert!(scene.ask(&headers(Some("good"), None), &["api_key"], NOW).is_ok());
    assert_eq!(scene.built(), before);
}

#[test]
fn issuers_that_cannot_be_told_apart_are_a_mistake() {
    let keys = || LiveKeys::with(key_set(Algorithm::ES256));
    let twice = vec![issuer("main", keys()), issuer("main", keys())];
    assert!(Authenticator::new(None, twice, None, 10, |_| ()).is_err());
}

#[test]
fn a_token_waits_for_a_key_only_where_one_can_come() {
    let source = || Source {
        url: JwksUrl::parse("https://id.example/jwks.json").unwrap(),
        algorithms: vec![Algorithm::ES256],
        freshness: Freshness::default(),
    };
    let of_file = || LiveKeys::with(key_set(Algorithm::ES256));
    let issuers = vec![
        issuer("local", of_file()),
        issuer("fetched", of_file()).fetched_from(Some(source())),
        issuer("awaited", LiveKeys::awaited()).fetched_from(Some(source())),
    ];
    let authenticator = Authenticator::new(None, issuers, None, 10, |_| ()).unwrap();
    let check = |issuer: &str, kid: Option<&str>, changes: Value, has_waited: bool, expected: &str| {
        let mut claims = json!({
            "iss": format!("https://{issuer}.example"), "aud": "edge", "sub": "ada", "tenant": "acme", "exp": NOW + 100,
        });
        let all = claims.as_object_mut().unwrap();
        all.extend(changes.as_object().unwrap().clone());
        let token = tokens::mint(tokens::Algorithm::ES256, &claims, kid);
        let client = Client {
            has_waited,
            ..CLIENT.into()
        };
        let answer = at_once(&authenticator, &headers(None, Some(&token)), &["jwt"], client, NOW);
        let refusal = answer.expect_err("nobody has such a key");
        let suspect = refusal.suspect;
        assert_eq!(word(refusal), expected, "{issuer} {kid:?} {changes}");
        suspect
    };
    let (new, none) = (Some("new"), || json!({}));
    assert!(check("local", new, none(), false, "kid_unknown"));
    assert!(!check("fetched", new, none(), false, "awaits"));
    assert!(check("fetched", new, none(), true, "kid_unknown"));
    for kid in [new, None] {
        assert!(!check("awaited", kid, none(), false, "awaits"));
        assert!(!check("awaited", kid, none(), true, "keys_unavailable"));
    }
    // A token that is wrong in any case is refused at once.
    for (changes, word) in [
        (json!({ "exp": NOW - 100 }), "expired"),
        (json!({ "nbf": NOW + 100 }), "nbf"),
        (json!({ "aud": "others" }), "aud"),
        (json!({ "sub": null }), "caller"),
        (json!({ "tenant": "" }), "tenant"),
    ] {
        check("fetched", new, changes.clone(), false, word);
        check("awaited", new, changes, false, word);
    }
    check("fetched", new, json!({ "iss": "https://x" }), false, "iss");
}

/// Keys without names, or tokens that name none: the issuer may have made new keys.
#[test]
fn a_signature_that_fits_no_key_may_be_of_one_that_has_still_to_come() {
    let set = |named: bool, algorithm| {
        let mut set: Value = serde_json::from_str(keys::JWKS).unwrap();
        if !named {
            let all = set["keys"].as_array_mut().unwrap();
            all.iter_mut()
                .for_each(|key| drop(key.as_object_mut().unwrap().remove("kid")));
        }
        LiveKeys::with(KeySet::from_jwks(set.to_string().as_bytes(), &[algorithm], Origin::File).unwrap())
    };
    let source = || Source {
        url: JwksUrl::parse("https://id.example/jwks.json").unwrap(),
        algorithms: vec![Algorithm::ES256, Algorithm::EdDSA],
        freshness: Freshness::default(),
    };
    let (good, other) = (
        |kid: Option<&str>| tokens::mint(tokens::Algorithm::ES256, &of("main"), kid),
        of("other"),
    );
    fn of(issuer: &str) -> Value {
        json!({ "iss": format!("https://{issuer}.example"), "aud": "edge", "sub": "ada", "tenant": "acme", "exp": NOW + 100 })
    }
    let forged = |kid: Option<&str>| {
        let (token, other) = (good(kid), tokens::mint(tokens::Algorithm::ES256, &other, kid));
        let (signed, signature) = (token.rsplit_once('.').unwrap().0, other.rsplit_once('.').unwrap().1);
        format!("{signed}.{signature}")
    };
    let es256 = tokens::kid(tokens::Algorithm::ES256);
    let name = Some(es256.as_str());
    let check = |keys: Arc<LiveKeys>, fetched: bool, token: &str, expected: &str| {
        let issuer = issuer("main", keys).fetched_from(fetched.then(source));
        let authenticator = Authenticator::new(None, vec![issuer], None, 10, |_| ()).unwrap();
        let answer = at_once(&authenticator, &headers(None, Some(token)), &["jwt"], CLIENT, NOW);
        assert_eq!(word(answer.expect_err("no key has signed it")), expected);
    };
    let (waits, not_taken) = ("awaits", "signature");
    check(set(false, Algorithm::ES256), true, &forged(None), waits);
    check(set(false, Algorithm::ES256), true, &forged(name), waits);
    check(set(true, Algorithm::ES256), true, &forged(None), waits);
    check(set(true, Algorithm::ES256), true, &forged(name), not_taken);
    check(set(false, Algorithm::ES256), false, &forged(None), not_taken);
    // The new key may have another of the issuer's algorithms.
    check(set(true, Algorithm::EdDSA), true, &good(None), waits);
    check(set(false, Algorithm::EdDSA), true, &good(name), waits);
    check(set(true, Algorithm::EdDSA), false, &good(None), "alg");
    let rs256 = tokens::mint(tokens::Algorithm::RS256, &of("main"), None);
    check(set(true, Algorithm::EdDSA), true, &rs256, "alg");
}

const NEIGHBOUR: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 8));

/// A scene in which `failures` checks may fail per address during a test.
fn thrifty(failures: u64) -> (Scene, Arc<VerificationWork>, Share) {
    thrifty_after(Arc::new(VerificationWork::new(100)), failures)
}

/// The same scene after a reload.
fn thrifty_after(work: Arc<VerificationWork>, failures: u64) -> (Scene, Arc<VerificationWork>, Share) {
    let terms = Terms::Bucket(Quota::new(1, Duration::from_secs(3600), failures).unwrap());
    let limit = Limit {
        name: "verifications".into(),
        per: Per::ClientAddress,
        mode: Mode::Enforce,
        cost: Some(1),
        wait: Duration::ZERO,
        table: Accounts::new(100).table(&"callers.verifications".into(), &TermsByOwner::for_all(terms)),
        metrics: Registry::default().limit("callers.verifications"),
        setting: crate::setting::SettingId::HEAD_BYTES,
        counts_units: false,
        log: Arc::default(),
    };
    let share = Share::new(Ratio::new(0.25).unwrap(), 2).unwrap();
    let budget = Verifications {
        per_address: FailedChecks {
            limit: Arc::new(limit),
            terms,
        },
        share: Some(share),
        work: Arc::clone(&work),
    };
    let scene = scene();
    let authenticator = scene.authenticator.within(Some(budget));
    (Scene { authenticator, ..scene }, work, share)
}

impl Scene {
    /// Asks as [`Self::ask`] does, from another address. An error has the reason that the caller is told.
    fn ask_from(&self, client: IpAddr, token: &str) -> Result<(), (&'static str, &'static str)> {
        let answer = at_once(&self.authenticator, &headers(None, Some(token)), &["jwt"], client, NOW);
        let told = |refusal: Refusal| (refusal.rejection.reason().as_str(), word(refusal));
        answer.map(drop).map_err(told)
    }
}

/// Makes different forged tokens. The same number twice gives two of them.
fn forgery(n: usize) -> String {
    let forged = forged();
    let (signed, signature) = forged.rsplit_once('.').unwrap();
    let (head, _) = signed.split_once('.').unwrap();
    let genuine = token_of("main", json!({ "sub": format!("eve-{n}") }));
    let payload = genuine.split('.').nth(1).unwrap();
    format!("{head}.{payload}.{signature}")
}

#[test]
fn an_address_that_forges_is_put_off_and_nobody_else_is() {
    let (scene, work, _) = thrifty(5);
    let known = token_of("main", json!({ "sub": "known" }));
    assert_eq!(scene.ask_from(CLIENT, &known), Ok(()));
    let forgeries: Vec<String> = (0..6).map(forgery).collect();
    for forged in &forgeries[..5] {
        assert_eq!(
            scene.ask_from(CLIENT, forged),
            Err(("credentials_invalid", "signature"))
        );
    }
    // A token that was not checked has no verdict, so none is cached.
    let fresh = token_of("main", json!({}));
    for token in [&forgeries[5], &fresh] {
        assert_eq!(
            scene.ask_from(CLIENT, token),
            Err(("overloaded", "verifications_of_address"))
        );
    }
    assert_eq!(scene.authenticator.tokens.len(), (1, 5));
    // A token with a cached verdict costs nothing, good or bad.
    assert_eq!(scene.ask_from(CLIENT, &known), Ok(()));
    assert_eq!(
        scene.ask_from(CLIENT, &forgeries[0]),
        Err(("credentials_invalid", "signature"))
    );
    // API keys are looked up from every address.
    assert!(scene.ask(&headers(Some("good"), None), &["api_key"], NOW).is_ok());
    // Another address has the token verified, and then it is cached for all.
    assert_eq!(scene.ask_from(NEIGHBOUR, &fresh), Ok(()));
    assert_eq!(scene.ask_from(CLIENT, &fresh), Ok(()));

    let counts: Vec<_> = work.outcomes().collect();
    assert_eq!(
        counts,
        [
            (Verification::Verified, 2),
            (Verification::Failed, 5),
            (Verification::AddressOverBudget, 2),
            (Verification::OverBudget, 0)
        ]
    );
    assert!(!work.spent().is_zero());
}

#[test]
fn genuine_tokens_cost_their_address_nothing() {
    let (scene, ..) = thrifty(1);
    for n in 0..20 {
        let token = token_of("main", json!({ "sub": format!("user-{n}") }));
        assert_eq!(scene.ask_from(CLIENT, &token), Ok(()));
    }
}

#[test]
fn when_the_share_is_used_up_strangers_wait_and_the_known_do_not() {
    let (scene, work, share) = thrifty(100);
    let known = token_of("main", json!({ "sub": "known" }));
    assert_eq!(scene.ask_from(CLIENT, &known), Ok(()));
    assert_eq!(
        scene.ask_from(NEIGHBOUR, &forgery(0)),
        Err(("credentials_invalid", "signature"))
    );

    // Half of the backlog is reserved for addresses without failures.
    work.add_for_test(share, Duration::from_millis(375));
    assert_eq!(
        scene.ask_from(NEIGHBOUR, &forgery(1)),
        Err(("overloaded", "verifications"))
    );
    assert_eq!(
        scene.ask_from(CLIENT, &token_of("main", json!({ "sub": "new" }))),
        Ok(())
    );

    work.add_for_test(share, Duration::from_secs(1000));
    let fresh = token_of("main", json!({ "sub": "newer" }));
    let refusal = at_once(
        &scene.authenticator,
        &headers(None, Some(&fresh)),
        &["jwt"],
        CLIENT,
        NOW,
    )
    .unwrap_err();
    assert!(
        matches!(refusal.rejection, Rejection::Overloaded { retry_after, .. } if retry_after > Duration::from_secs(1000)),
        "{refusal:?}"
    );
    assert!(!refusal.suspect, "it is not the caller's fault");
    assert_eq!(scene.ask_from(CLIENT, &known), Ok(()));
}

#[test]
fn a_reload_makes_nobody_wait_whose_token_was_good() {
    let (before, work, share) = thrifty(100);
    let (known, fresh) = (token_of("main", json!({ "sub": "known" })), token_of("main", json!({})));
    assert_eq!(before.ask_from(CLIENT, &known), Ok(()));
    work.add_for_test(share, Duration::from_secs(1000));

    let (after, ..) = thrifty_after(work, 100);
    assert_eq!(after.ask_from(CLIENT, &known), Ok(()));
    assert_eq!(after.ask_from(CLIENT, &fresh), Err(("overloaded", "verifications")));
    // A token that was valid once is verified with the current keys.
    after.keys.replace(key_set(Algorithm::EdDSA), Moment::ZERO, NOW);
    assert_eq!(
        after.ask_from(CLIENT, &known),
        Err(("credentials_invalid", "kid_unknown"))
    );
}

mod of_connections_and_passwords {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::auth::basic::checks::PasswordChecks;
    use crate::auth::basic::password_cache::KnownPasswords;
    use crate::auth::basic::users::User;
    use crate::auth::mtls::holders::{Holder as Named, HolderName};
    use crate::tls::certificate::tests::made;

    fn holders() -> CertificateHolders {
        let holder = |name: &str, tenant: &str| Named {
            name: HolderName::Uri(name.into()),
            tenant: tenant.into(),
            id: None,
            tier: None,
            scopes: Box::default(),
        };
        CertificateHolders::new(vec![
            holder("spiffe://acme/a", "acme"),
            holder("spiffe://other/a", "other"),
        ])
        .unwrap()
    }

    fn passwords() -> Passwords {
        let user = User {
            id: "ada".into(),
            tenant: "acme".into(),
            hash: bcrypt::hash("lovelace", 4).unwrap().into(),
            tier: None,
            scopes: Box::default(),
            disabled: false,
        };
        Passwords::new(
            vec![user],
            Arc::new(KnownPasswords::new(10)),
            Arc::new(PasswordChecks::new(1)),
        )
    }

    fn scene_of_all() -> Scene {
        let scene = scene();
        Scene {
            authenticator: scene
                .authenticator
                .with_certificates(Some(holders()))
                .with_passwords(Some(passwords())),
            ..scene
        }
    }

    fn certificate(name: &str) -> Certificate {
        let mut read = Certificate::read(&made(&[name], None)).unwrap();
        (read.not_before, read.expires) = (NOW - 50, NOW + 50);
        read
    }

    impl Scene {
        fn meet(
            &self,
            headers: &FieldMap,
            certificate: Option<&Certificate>,
            kinds: &[&str],
            now: u64,
        ) -> Result<String, Refusal> {
            self.meet_with(headers, certificate.map(Ok), kinds, now)
        }

        fn meet_with(
            &self,
            headers: &FieldMap,
            certificate: Option<Result<&Certificate, Check>>,
            kinds: &[&str],
            now: u64,
        ) -> Result<String, Refusal> {
            let client = Client {
                certificate,
                ..CLIENT.into()
            };
            at_once(&self.authenticator, headers, kinds, client, now).map(|kept| kept.to_string())
        }
    }

    #[test]
    fn a_certificate_counts_where_the_route_admits_certificates() {
        let scene = scene_of_all();
        let (acme, other, nobody) = (
            certificate("spiffe://acme/a"),
            certificate("spiffe://other/a"),
            certificate("spiffe://nobody/a"),
        );
        let key = headers(Some("good"), None);
        let none = FieldMap::new();
        let check = |headers: &FieldMap, shown: &Certificate, kinds: &[&str], expected: Result<&str, &str>| {
            for _ in 0..2 {
                let answer = scene.meet(headers, Some(shown), kinds, NOW);
                assert_eq!(
                    answer.as_deref().map_err(|refusal| refusal.check),
                    expected.map_err(Some),
                    "{headers:?} {kinds:?}"
                );
            }
        };
        const STRANGER: &str = "anonymous anonymous/192.0.2.7";
        check(&none, &acme, &["mtls"], Ok("mtls acme/spiffe://acme/a"));
        check(&none, &acme, &["mtls", "anonymous"], Ok("mtls acme/spiffe://acme/a"));
        check(&none, &acme, &["anonymous"], Ok(STRANGER));
        check(&none, &acme, &["api_key"], Err("absent"));
        check(&none, &nobody, &["mtls", "anonymous"], Err("certificate_unknown"));
        check(&none, &nobody, &["anonymous"], Ok(STRANGER));
        check(&key, &nobody, &["mtls", "api_key"], Ok("api_key acme/k1"));
        check(&key, &acme, &["mtls", "api_key"], Ok("api_key acme/k1"));
        check(&key, &acme, &["mtls"], Ok("mtls acme/spiffe://acme/a"));
        check(&key, &other, &["mtls", "api_key"], Err("tenants_differ"));
        check(&key, &other, &["api_key"], Ok("api_key acme/k1"));
        let token = headers(None, Some(&token_of("main", json!({}))));
        check(&token, &acme, &["mtls", "jwt"], Ok("jwt acme/ada"));

        const PAIR: &[&str] = &["mtls", "api_key", "together"];
        check(&key, &acme, PAIR, Ok("api_key acme/k1"));
        check(&none, &acme, PAIR, Err("incomplete"));
        check(&key, &nobody, PAIR, Err("certificate_unknown"));
        check(&key, &other, PAIR, Err("tenants_differ"));
        check(&headers(Some("wrong"), None), &acme, PAIR, Err("key_unknown"));
        check(&token, &acme, PAIR, Err("incomplete"));
        let bare = |headers: &FieldMap| word(scene.meet(headers, None, PAIR, NOW).unwrap_err());
        assert_eq!((bare(&key), bare(&none)), ("incomplete", "absent"));
        check(&token, &acme, &["mtls", "jwt:second", "together"], Err("incomplete"));
    }

    /// An invalid certificate is not treated as a missing one.
    #[test]
    fn a_certificate_that_does_not_count_fails_where_certificates_do() {
        let scene = scene_of_all();
        let (none, key, both) = (
            FieldMap::new(),
            headers(Some("good"), None),
            ["mtls", "api_key", "anonymous"],
        );
        for check in [Check::CertificateMalformed, Check::CertificateUntrusted] {
            let met = |headers: &FieldMap, kinds: &[&str]| {
                let answer = scene.meet_with(headers, Some(Err(check)), kinds, NOW);
                answer.map_err(|refusal| {
                    assert!(!refusal.suspect, "an authority has signed it");
                    (refusal.rejection.reason().as_str(), word(refusal))
                })
            };
            let failed = Err(("credentials_invalid", check.as_str()));
            for kinds in [
                &["mtls"][..],
                &["mtls", "anonymous"],
                &both,
                &["mtls", "api_key", "together"],
            ] {
                assert_eq!(met(&none, kinds), failed, "{kinds:?}");
                assert_eq!(met(&key, kinds), failed, "{kinds:?}");
            }
            assert_eq!(met(&key, &["api_key"]), Ok("api_key acme/k1".to_owned()));
            assert!(met(&none, &["anonymous"]).is_ok());
        }
    }

    #[test]
    fn a_certificate_is_valid_at_some_times_on_an_open_connection() {
        let scene = scene_of_all();
        let acme = certificate("spiffe://acme/a");
        let early = Err(("certificate_not_before", "credentials_invalid", false));
        let late = Err(("certificate_expired", "credentials_expired", false));
        // The clock may also be corrected backwards.
        for (now, expected) in [
            (NOW, Ok(())),
            (NOW + 49, Ok(())),
            (NOW + 50, late),
            (u64::MAX, late),
            (NOW - 50, Ok(())),
            (NOW - 51, early),
            (0, early),
            (NOW, Ok(())),
        ] {
            let answer = scene.meet(&FieldMap::new(), Some(&acme), &["mtls"], now);
            let told = |refusal: Refusal| {
                let (reason, suspect) = (refusal.rejection.reason().as_str(), refusal.suspect);
                (word(refusal), reason, suspect)
            };
            assert_eq!(answer.map(drop).map_err(told), expected, "at {now}");
        }
    }

    #[tokio::test]
    async fn a_password_is_compared_once_and_its_verdict_is_told_at_once() {
        let scene = scene_of_all();
        let waits = std::cell::Cell::new(0);
        let ask = async |credential: &str| {
            let mut headers = FieldMap::new();
            let value = format!("Basic {}", STANDARD.encode(credential));
            headers.insert(http::header::AUTHORIZATION, value.parse().unwrap());
            let begin_wait = || {
                waits.set(waits.get() + 1);
                Ok(WaitTerms {
                    keys_until: Moment::MAX,
                    keys_until_by: None,
                    comparison_until: Moment::MAX,
                    failure: Box::new(|| None),
                })
            };
            let access = access(&["basic"]);
            let answer = scene.authenticator.identify(&headers, &access, CLIENT, NOW, begin_wait);
            answer.await.map(|kept| kept.to_string())
        };
        for (count, (credential, expected)) in [
            ("ada:lovelace", Ok("basic acme/ada")),
            ("ada:byron", Err("password")),
            ("eve:lovelace", Err("user_unknown")),
        ]
        .into_iter()
        .enumerate()
        {
            for _ in 0..2 {
                let answer = ask(credential).await;
                assert_eq!(
                    answer.as_deref().map_err(|refusal| refusal.check),
                    expected.map_err(Some)
                );
                assert!(answer.err().is_none_or(|refusal| refusal.suspect));
                assert_eq!(waits.get(), count + 1, "{credential}");
            }
        }
        assert_eq!(scene.built(), 1);
    }

    /// The cache of wrong passwords has room for one, so each verdict displaces the one before.
    #[tokio::test]
    async fn a_verdict_reaches_its_request_even_if_the_cache_has_no_room_for_it() {
        let known = Arc::new(KnownPasswords::new(1));
        let user = |id: &str| User {
            id: id.into(),
            tenant: "acme".into(),
            hash: bcrypt::hash("right", 4).unwrap().into(),
            tier: None,
            scopes: Box::default(),
            disabled: false,
        };
        let passwords = Passwords::new(vec![user("ada")], known, Arc::new(PasswordChecks::new(2)));
        let scene = scene();
        let authenticator = scene.authenticator.with_passwords(Some(passwords));
        let ask = async |guess: usize| {
            let mut headers = FieldMap::new();
            let value = format!("Basic {}", STANDARD.encode(format!("ada:{guess}")));
            headers.insert(http::header::AUTHORIZATION, value.parse().unwrap());
            let begin_wait = || {
                Ok(WaitTerms {
                    keys_until: Moment::MAX,
                    keys_until_by: None,
                    comparison_until: Moment::MAX,
                    failure: Box::new(|| None),
                })
            };
            let client = IpAddr::V4(Ipv4Addr::from_bits(guess as u32));
            let access = access(&["basic"]);
            let answer = authenticator.identify(&headers, &access, client, NOW, begin_wait);
            answer.await.map(drop).map_err(word)
        };
        let answers = futures_util::future::join_all((0..40).map(ask)).await;
        assert!(answers.iter().all(|answer| *answer == Err("password")), "{answers:?}");
    }
}
