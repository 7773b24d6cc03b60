//! Tokens and whole `Authorization` sides, presented to the doorman: attacks, and what only looks like one.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderName, HeaderValue};
use serde_json::Value;

use crate::suites::jwt::{Door, bearer};
use gateway::message::FieldMap;

const CASES: &str = include_str!("../../../fixtures/vectors/jwt_cases.json");
const KEYS: &str = include_str!("../../../fixtures/vectors/jwt_keys.json");

/// The moment at which tokens of the set are looked at: 2027-01-15, between their `iat` and their `exp`.
const NOW: u64 = 1_800_000_000;

#[test]
fn no_attack_gets_in_and_no_valid_token_is_refused() {
    let keys: Value = serde_json::from_str(KEYS).expect("the keys are JSON");
    let leeway = keys["verifier"]["leeway_s_max"].as_u64().expect("a leeway");
    let door = Door::new(&keys["jwks"], &keys["hmac"], &keys["verifier"]).expect("one issuer");
    let mut wrong = Vec::new();
    for case in crate::read(CASES) {
        let mut check = |headers: &FieldMap, now, expected: &Value| {
            let answer = door.ask(headers, now);
            let told = if answer.is_ok() { "accept" } else { "reject" };
            if *expected != told && *expected != "either" {
                wrong.push(format!("{} ({}): {answer:?}", case["id"], case["source"]));
            }
        };
        if let Some(steps) = case["steps"].as_array() {
            let mut last = String::new();
            let mut now = NOW;
            for step in steps {
                if !step["wait_ms"].is_null() {
                    now += leeway + 5;
                }
                match step {
                    _ if step["token"].is_string() => last = text(step, "token").to_owned(),
                    _ if step["build"].is_object() => last = build(&step["build"], &keys["hmac"]),
                    _ => assert!(step["reuse"].is_string(), "{step}"),
                }
                check(&bearer(&last), now, &step["expect"]);
            }
        } else if let Some(fields) = case["headers"].as_array() {
            check(&fields.iter().map(field).collect(), NOW, &case["expect"]);
        } else if case["build"].is_object() {
            check(&bearer(&build(&case["build"], &keys["hmac"])), NOW, &case["expect"]);
        } else {
            check(&bearer(text(&case, "token")), NOW, &case["expect"]);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Signed with the set's HMAC key; `exp` and `nbf` are relative to `NOW`.
fn build(spec: &Value, hmac: &Value) -> String {
    let secret = URL_SAFE_NO_PAD.decode(text(hmac, "k")).expect("base64url");
    let mut claims = spec["claims"].clone();
    for (_, value) in claims.as_object_mut().expect("claims") {
        if let Some(offset) = value.as_str().and_then(|text| text.parse::<i64>().ok()) {
            *value = NOW.saturating_add_signed(offset).into();
        }
    }
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    header.kid = Some(text(spec, "kid").into());
    jsonwebtoken::encode(&header, &claims, &jsonwebtoken::EncodingKey::from_secret(&secret)).expect("it can be signed")
}

fn field(written: &Value) -> (HeaderName, HeaderValue) {
    let part = |index: usize| written[index].as_str().expect("a text");
    (
        part(0).parse().expect("a field name"),
        part(1).parse().expect("a field value"),
    )
}

fn text<'a>(case: &'a Value, name: &str) -> &'a str {
    case[name].as_str().unwrap_or_else(|| panic!("`{name}` in {case}"))
}
