//! Published signature and token attacks (`fixtures/vectors`), replayed against the verifier.
//!
//! What is left out is listed by id with its reason, and a case that passes all the same fails the test: the
//! lists cannot go stale.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gateway::intake::access::{Access, Admitted, AdmittedIssuers, Demands};
use gateway::intake::caller::Caller;
use gateway::intake::doorman::Doorman;
use gateway::intake::jwks::{KeySet, Origin};
use gateway::intake::jws::{Algorithm, Jws};
use gateway::intake::jwt::{Issuer, IssuerSettings};
use gateway::intake::live_keys::LiveKeys;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

const JWS: &str = include_str!("../../fixtures/vectors/jws_vectors.json");
const JWT: &str = include_str!("../../fixtures/vectors/jwt_cases.json");
const KEYS: &str = include_str!("../../fixtures/vectors/jwt_keys.json");

/// Valid signatures that we refuse on purpose.
const REFUSED: [(&str, &str); 2] = [
    ("wy-347", "ES512 is not supported"),
    (
        "wy-350",
        "the key is pinned to PS256 and the token is signed with PS384 (RFC 8725 section 3.1)",
    ),
];

const EVERY_ALGORITHM: [Algorithm; 12] = [
    Algorithm::HS256,
    Algorithm::HS384,
    Algorithm::HS512,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// The moment that tokens of the set are looked at: 2027-01-15, between their `iat` and their `exp`.
const NOW: u64 = 1_800_000_000;

const LEEWAY: u64 = 60;

fn cases(text: &str) -> Vec<Value> {
    let document: Value = serde_json::from_str(text).expect("the vectors are JSON");
    let cases = document["cases"].as_array().expect("a list of cases").clone();
    assert_eq!(Some(cases.len() as u64), document["count"].as_u64());
    cases
}

fn text<'a>(case: &'a Value, name: &str) -> &'a str {
    case[name].as_str().unwrap_or_else(|| panic!("`{name}` in {case}"))
}

#[test]
fn every_signature_is_judged_as_published() {
    let mut wrong = Vec::new();
    let mut refused = BTreeSet::new();
    for case in cases(JWS) {
        let jwks = json!({ "keys": [case["key"]] }).to_string();
        let valid = KeySet::from_jwks(jwks.as_bytes(), &EVERY_ALGORITHM, Origin::File).is_ok_and(|keys| {
            Jws::parse(text(&case, "token")).is_ok_and(|jws| jws.payload().is_ok() && keys.verify(&jws).is_ok())
        });
        if Some(valid) != case["valid"].as_bool() {
            if !valid && REFUSED.iter().any(|(id, _)| *id == text(&case, "id")) {
                refused.insert(text(&case, "id").to_owned());
            } else {
                wrong.push(format!("{} {}: valid is {valid}", case["id"], case["why"]));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(refused, REFUSED.map(|(id, _)| id.to_owned()).into());
}

/// A doorman of the vectors' one issuer, whose callers are known by their tenant.
fn doorman() -> Doorman<String> {
    let document: Value = serde_json::from_str(KEYS).expect("the keys are JSON");
    let mut jwks = document["jwks"].clone();
    jwks["keys"]
        .as_array_mut()
        .expect("a list of keys")
        .push(document["hmac"].clone());
    let algorithms = [Algorithm::HS256, Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];
    let keys = KeySet::from_jwks(jwks.to_string().as_bytes(), &algorithms, Origin::File).expect("usable keys");
    assert_eq!(keys.len(), 4);
    let settings = IssuerSettings {
        name: "main".into(),
        issuer: text(&document["verifier"], "issuer").into(),
        audience: vec![text(&document["verifier"], "audience").into()],
        tenant: "/tenant".into(),
        tier: Some("/tier".into()),
        scopes: None,
        leeway: Duration::from_secs(LEEWAY),
    };
    let issuer = Issuer::new(settings, LiveKeys::with(keys)).expect("sane settings");
    Doorman::new(None, vec![issuer], None, 1000, |caller: Caller| {
        caller.tenant.to_string()
    })
    .expect("one issuer")
}

/// Signed with the set's HMAC key; `exp` and `nbf` are relative to `NOW`.
fn build(spec: &Value) -> String {
    let document: Value = serde_json::from_str(KEYS).expect("the keys are JSON");
    let secret = URL_SAFE_NO_PAD.decode(text(&document["hmac"], "k")).expect("base64url");
    let mut claims = spec["claims"].clone();
    for (_, value) in claims.as_object_mut().expect("claims") {
        if let Some(offset) = value.as_str().and_then(|text| text.parse::<i64>().ok()) {
            *value = NOW.saturating_add_signed(offset).into();
        }
    }
    let mut header = jsonwebtoken::Header::new(Algorithm::HS256);
    header.kid = Some(text(spec, "kid").into());
    jsonwebtoken::encode(&header, &claims, &jsonwebtoken::EncodingKey::from_secret(&secret)).expect("it can be signed")
}

#[test]
fn no_attack_gets_in_and_no_valid_token_is_refused() {
    let admitted = Admitted {
        jwt: AdmittedIssuers::Any,
        ..Admitted::default()
    };
    let access = Access::new(admitted, Demands::default(), &HeaderName::from_static("x-api-key"));
    let doorman = doorman();
    let ask = |headers: &HeaderMap, now| {
        // Twice, since what is remembered must be what was found.
        let first = doorman
            .identify(headers, &access, IpAddr::V4(Ipv4Addr::LOCALHOST), now)
            .map_err(|r| r.check);
        let again = doorman
            .identify(headers, &access, IpAddr::V4(Ipv4Addr::LOCALHOST), now)
            .map_err(|r| r.check);
        assert_eq!(first, again);
        first
    };
    // A field value that HTTP itself does not allow never arrives.
    let bearer = |token: &str| {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_str(&format!("Bearer {token}")) {
            headers.insert(http::header::AUTHORIZATION, value);
        }
        headers
    };

    let mut wrong = Vec::new();
    for case in cases(JWT) {
        let mut expect = |answer: Result<Arc<String>, &str>, expected: &Value| {
            let got = if answer.is_ok() { "accept" } else { "reject" };
            if *expected != got && *expected != "either" {
                wrong.push(format!("{}: {answer:?}", case["id"]));
            }
        };
        if let Some(steps) = case.get("steps").and_then(Value::as_array) {
            let mut last = String::new();
            let mut now = NOW;
            for step in steps {
                if !step["wait_ms"].is_null() {
                    now += LEEWAY + 5;
                }
                match step {
                    _ if step["token"].is_string() => last = text(step, "token").to_owned(),
                    _ if step["build"].is_object() => last = build(&step["build"]),
                    _ => assert!(step["reuse"].is_string()),
                }
                expect(ask(&bearer(&last), now), &step["expect"]);
            }
        } else if let Some(fields) = case.get("headers").and_then(Value::as_array) {
            let mut headers = HeaderMap::new();
            for field in fields {
                let name: HeaderName = field[0].as_str().expect("a name").parse().expect("a field name");
                headers.append(
                    name,
                    HeaderValue::from_str(field[1].as_str().expect("a value")).expect("a value"),
                );
            }
            expect(ask(&headers, NOW), &case["expect"]);
        } else if case["build"].is_object() {
            expect(ask(&bearer(&build(&case["build"])), NOW), &case["expect"]);
        } else {
            expect(ask(&bearer(text(&case, "token")), NOW), &case["expect"]);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
