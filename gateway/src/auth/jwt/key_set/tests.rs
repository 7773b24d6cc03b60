use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fixtures::{keys, tokens};
use serde_json::{Value, json};

use crate::auth::jwt::key_set::*;

const ALL: [Algorithm; 13] = Algorithm::ALL;

/// Algorithms for which test keys exist.
fn minted() -> impl Iterator<Item = (Algorithm, tokens::Algorithm)> {
    ALL.into_iter()
        .filter_map(|algorithm| Some((algorithm, algorithm.in_library()?)))
}

fn token(algorithm: Algorithm, kid: Option<&str>) -> String {
    let algorithm = algorithm.in_library().expect("it can be minted");
    tokens::mint(algorithm, &json!({ "sub": "ada" }), kid)
}

fn verify(keys: &KeySet, token: &str) -> Result<(), Check> {
    keys.verify(&Jws::parse(token).expect("well-formed"))
}

fn both_files() -> KeySet {
    let mut public: Value = serde_json::from_str(keys::JWKS).unwrap();
    let mut secret: Value = serde_json::from_str(keys::OCT_JWKS).unwrap();
    public["keys"]
        .as_array_mut()
        .unwrap()
        .append(secret["keys"].as_array_mut().unwrap());
    KeySet::from_jwks(public.to_string().as_bytes(), &ALL, Origin::File).unwrap()
}

#[test]
fn every_algorithm_verifies_with_its_own_key_and_no_other() {
    let keys = both_files();
    for (signed, _) in minted() {
        for (named, kid) in minted() {
            let expected = if signed == named { Ok(()) } else { Err(Check::Algorithm) };
            let token = token(signed, Some(&tokens::kid(kid)));
            assert_eq!(verify(&keys, &token), expected, "{signed:?} under the kid of {named:?}");
        }
    }
}

#[test]
fn a_public_key_is_no_hmac_secret() {
    let keys = KeySet::from_pem(keys::RSA_PUBLIC_PEM.as_bytes(), &ALL).unwrap();
    let secret = jsonwebtoken::EncodingKey::from_secret(keys::RSA_PUBLIC_PEM.as_bytes());
    let forged = jsonwebtoken::encode(
        &jsonwebtoken::Header::new(tokens::Algorithm::HS256),
        &json!({}),
        &secret,
    )
    .unwrap();
    assert_eq!(verify(&keys, &forged), Err(Check::Algorithm));
    assert_eq!(verify(&keys, &token(Algorithm::RS256, None)), Ok(()));
}

#[test]
fn a_pem_key_is_of_the_type_it_holds() {
    for (pem, algorithm) in [
        (keys::RSA_PUBLIC_PEM, Algorithm::PS384),
        (keys::ES256_PUBLIC_PEM, Algorithm::ES256),
        (keys::ES384_PUBLIC_PEM, Algorithm::ES384),
        (keys::ED25519_PUBLIC_PEM, Algorithm::EdDSA),
    ] {
        let keys = KeySet::from_pem(pem.as_bytes(), &[algorithm]).unwrap();
        assert_eq!(verify(&keys, &token(algorithm, Some("any"))), Ok(()), "{algorithm:?}");
        let other = KeySet::from_pem(pem.as_bytes(), &[Algorithm::HS256]);
        assert!(matches!(other, Err(KeySetMistake::NoUsableKey(_))), "{algorithm:?}");
    }
    assert_eq!(KeySet::from_pem(b"no PEM", &ALL).unwrap_err(), KeySetMistake::NotPem);
}

/// The library that signs the other tokens lacks ES512, so this test makes its own key.
#[test]
fn es512_verifies_with_a_p521_key_and_nothing_else() {
    let pair = EcdsaKeyPair::generate(&ECDSA_P521_SHA512_FIXED_SIGNING).unwrap();
    let (x, y) = pair.public_key().as_ref()[1..].split_at(66);
    let jwk = |own: Option<&str>| {
        let [x, y] = [x, y].map(|part| URL_SAFE_NO_PAD.encode(part));
        let mut jwk = json!({ "kty": "EC", "crv": "P-521", "x": x, "y": y });
        own.into_iter().for_each(|own| jwk["alg"] = own.into());
        json!({ "keys": [jwk] }).to_string()
    };
    let signed = |header: &str| {
        let message = format!("{}.e30", URL_SAFE_NO_PAD.encode(header));
        let signature = pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        assert_eq!(signature.as_ref().len(), 132);
        (message, signature.as_ref().to_vec())
    };
    let (message, good) = signed(r#"{"alg":"ES512"}"#);
    let token = |signature: &[u8]| format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature));

    let keys = KeySet::from_jwks(jwk(Some("ES512")).as_bytes(), &[Algorithm::ES512], Origin::Url).unwrap();
    assert_eq!(verify(&keys, &token(&good)), Ok(()));
    let mut flipped = good.clone();
    flipped[131] ^= 1;
    for bad in [&flipped[..], &good[..131], &[&good[..], &[0]].concat(), &[0; 132], &[]] {
        assert_eq!(verify(&keys, &token(bad)), Err(Check::Signature), "{} bytes", bad.len());
    }
    let (message, signature) = signed(r#"{"alg":"ES384"}"#);
    let misnamed = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature));
    assert_eq!(verify(&keys, &misnamed), Err(Check::Algorithm));

    for (own, usable) in [
        (None, true),
        (Some("ES521"), true),
        (Some("ES256"), false),
        (Some("ECDH-ES"), false),
    ] {
        let set = KeySet::from_jwks(jwk(own).as_bytes(), &ALL, Origin::Url);
        assert_eq!(
            set.is_ok_and(|set| verify(&set, &token(&good)).is_ok()),
            usable,
            "{own:?}"
        );
    }
    let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let body = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
    let lines: Vec<_> = body.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    let pem = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        lines.join("\n")
    );
    let keys = KeySet::from_pem(pem.as_bytes(), &ALL).unwrap();
    assert_eq!((keys.len(), verify(&keys, &token(&good))), (1, Ok(())));
}

#[test]
fn the_configured_algorithms_bound_what_a_key_may_verify() {
    let mut jwk: Value = serde_json::from_str::<Value>(keys::JWKS).unwrap()["keys"]
        .as_array()
        .unwrap()
        .iter()
        .find(|key| key["kty"] == "RSA")
        .unwrap()
        .clone();
    let mut check = |own: Option<&str>, configured: &[Algorithm], signed, expected| {
        jwk["kid"] = "k".into();
        match own {
            Some(alg) => jwk["alg"] = alg.into(),
            None => drop(jwk.as_object_mut().unwrap().remove("alg")),
        }
        let set = KeySet::from_jwks(json!({ "keys": [jwk] }).to_string().as_bytes(), configured, Origin::Url);
        let verdict = set
            .map(|set| verify(&set, &token(signed, Some("k"))))
            .map_err(|_| "no usable key");
        assert_eq!(verdict, expected, "{own:?} {configured:?} {signed:?}");
    };
    use Algorithm::{ES256, PS256, RS256};
    check(Some("RS256"), &[RS256], RS256, Ok(Ok(())));
    check(Some("RS256"), &[RS256, PS256], PS256, Ok(Err(Check::Algorithm)));
    check(Some("RS256"), &[PS256], RS256, Err("no usable key"));
    check(Some("RSA-OAEP"), &[RS256], RS256, Err("no usable key"));
    check(None, &[RS256, PS256], RS256, Ok(Ok(())));
    check(None, &[RS256, PS256], PS256, Ok(Ok(())));
    check(None, &[RS256, ES256], PS256, Ok(Err(Check::Algorithm)));
    check(None, &[ES256], ES256, Err("no usable key"));
    check(None, &[], RS256, Err("no usable key"));
}

#[test]
fn the_kid_chooses_the_key_and_nothing_else() {
    let keys = both_files();
    let check = |kid: Option<&str>, expected| {
        assert_eq!(verify(&keys, &token(Algorithm::ES256, kid)), expected, "{kid:?}");
    };
    check(Some("throwaway-es256"), Ok(()));
    check(Some("THROWAWAY-ES256"), Err(Check::KeyIdUnknown));
    check(Some(" throwaway-es256"), Err(Check::KeyIdUnknown));
    check(Some("../throwaway-es256"), Err(Check::KeyIdUnknown));
    check(Some(""), Err(Check::KeyIdUnknown));
    check(Some("throwaway-rs256"), Err(Check::Algorithm));
    check(None, Ok(()));
}

#[test]
fn a_token_without_kid_is_not_held_against_many_keys() {
    let jwk = &serde_json::from_str::<Value>(keys::JWKS).unwrap()["keys"][0];
    let alg = jws::algorithm(jwk["alg"].as_str().unwrap()).unwrap();
    let mut written = vec![];
    for n in 0..=MAX_CANDIDATES {
        written.push(jwk.clone());
        written[n]["kid"] = format!("k{n}").into();
        let set = KeySet::from_jwks(json!({ "keys": written }).to_string().as_bytes(), &[alg], Origin::Url).unwrap();
        let expected = if n < MAX_CANDIDATES {
            Ok(())
        } else {
            Err(Check::KeyIdMissing)
        };
        assert_eq!(verify(&set, &token(alg, None)), expected, "{} keys", n + 1);
        assert_eq!(verify(&set, &token(alg, Some("k0"))), Ok(()));
    }
}

#[test]
fn keys_of_no_use_are_passed_over_and_named() {
    let check = |members: Value, why: &str| {
        let text = json!({ "keys": [members] }).to_string();
        let Err(KeySetMistake::NoUsableKey(reasons)) = KeySet::from_jwks(text.as_bytes(), &ALL, Origin::Url) else {
            panic!("{text} is usable")
        };
        assert!(reasons[0].contains(why), "{reasons:?}");
    };
    let k = URL_SAFE_NO_PAD.encode([7; 64]);
    check(json!({ "kty": "oct", "k": k }), "published");
    check(json!({ "kty": "RSA", "n": "AQAB", "e": "AQAB" }), "24 bits");
    check(json!({ "kty": "RSA", "e": "AQAB" }), "`n` is missing");
    check(
        json!({ "kty": "EC", "crv": "P-521", "x": "AA", "y": "AA" }),
        "`x` has 1 bytes, not 66",
    );
    check(
        json!({ "kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA" }),
        "not supported",
    );
    check(
        json!({ "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA" }),
        "`x` has 1 bytes",
    );
    check(json!({ "kty": "OKP", "crv": "X25519", "x": "AA" }), "not supported");
    check(json!({ "kty": "OKP", "crv": "Ed25519", "x": "AA==" }), "base64url");
    check(json!({ "kty": "RSA", "use": "enc" }), "`use`");
    check(json!({ "kty": "RSA", "key_ops": ["sign"] }), "`key_ops`");
    check(json!({ "use": "sig" }), "kty");
    check(json!("x"), "key 0");
}

#[test]
fn mistakes_say_what_to_do() {
    let jwks = |json: &str| KeySet::from_jwks(json.as_bytes(), &ALL, Origin::File).unwrap_err();
    assert!(matches!(jwks("[]"), KeySetMistake::NotJwks(_)));
    assert!(matches!(jwks("<html>"), KeySetMistake::NotJwks(_)));
    assert_eq!(jwks(r#"{"keys":[]}"#), KeySetMistake::NoUsableKey(vec![]));
    let many = json!({ "keys": vec![json!({}); MAX_KEYS + 1] }).to_string();
    assert_eq!(jwks(&many), KeySetMistake::TooManyKeys(101));
    let short = json!({ "keys": [{ "kty": "oct", "k": URL_SAFE_NO_PAD.encode([7; 31]) }] }).to_string();
    assert!(jwks(&short).to_string().contains("31 bytes"));

    let secret = |length, algorithms: &[Algorithm]| KeySet::from_secret(&vec![7; length], algorithms);
    assert!(secret(32, &[Algorithm::HS256]).is_ok());
    assert!(
        secret(31, &[Algorithm::HS256])
            .unwrap_err()
            .to_string()
            .contains("openssl rand")
    );
    assert!(secret(63, &[Algorithm::HS512]).is_err());
    assert!(matches!(
        secret(64, &[Algorithm::RS256]),
        Err(KeySetMistake::NoUsableKey(_))
    ));
    assert_eq!(secret(64, &[]).unwrap_err(), KeySetMistake::NoAlgorithms);
}

#[test]
fn the_fingerprint_knows_keys_and_not_their_order() {
    let of = |keys: &[&Value]| {
        let text = json!({ "keys": keys }).to_string();
        KeySet::from_jwks(text.as_bytes(), &ALL, Origin::Url)
            .unwrap()
            .fingerprint()
    };
    let written: Value = serde_json::from_str(keys::JWKS).unwrap();
    let (a, b) = (&written["keys"][0], &written["keys"][8]);
    assert_eq!(of(&[a, b]), of(&[b, a]));
    assert_ne!(of(&[a, b]), of(&[a]));
    let mut renamed = a.clone();
    renamed["kid"] = "other".into();
    assert_ne!(of(&[a]), of(&[&renamed]));
    assert_eq!(KeySet::default().fingerprint(), 0);
}
