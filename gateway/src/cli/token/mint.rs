//! `gateway token mint`: signs a token with any claims that a test needs, also claims that no gateway should accept.
//!
//! The signing key lies in a local file, which is right only for tests; issuers of real tokens keep their keys
//! elsewhere. Only the token is written to standard output.

use std::io::{Write, stderr, stdout};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value};

use super::super::{FAILED, OK};
use crate::clock;
use crate::config::keys::Timestamp;
use crate::json;

#[derive(clap::Args)]
pub(in crate::cli) struct Options {
    /// The key to sign with: a private key in PEM (PKCS#8), a JWK of type `oct`, or a file that holds just the secret.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The algorithm, such as ES256, RS256, PS256, EdDSA or HS256.
    #[arg(long, value_parser = algorithm)]
    alg: Algorithm,
    /// Key id for the token's header; default: that of a JWK.
    #[arg(long)]
    kid: Option<String>,
    /// The claims as a JSON object.
    #[arg(long, value_name = "JSON", value_parser = object)]
    claims: Option<Map<String, Value>>,
    /// One more claim; the value is JSON if it can be read as such, else text. May be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = claim)]
    claim: Vec<(String, Value)>,
    /// Lifetime from now, or the time at which the token ends; not used where the claims have an `exp`.
    #[arg(long, value_name = "WHEN", default_value = "5m", value_parser = when)]
    expires_in: u64,
}

pub(super) fn mint(options: &Options) -> u8 {
    let done = token(options, clock::unix_seconds())
        .and_then(|token| writeln!(stdout(), "{token}").map_err(|error| error.to_string()));
    match done {
        Ok(()) => OK,
        Err(why) => {
            let _ = writeln!(stderr(), "gateway: {why}");
            FAILED
        }
    }
}

fn token(options: &Options, unix_now: u64) -> Result<String, String> {
    let (key, own_name) = signing_key(&options.key, options.alg)?;
    let mut claims = options.claims.clone().unwrap_or_default();
    claims.extend(options.claim.iter().cloned());
    claims.entry("iat").or_insert(unix_now.into());
    claims.entry("exp").or_insert(options.expires_in.into());
    let header = Header {
        kid: options.kid.clone().or(own_name),
        ..Header::new(options.alg)
    };
    jsonwebtoken::encode(&header, &claims, &key)
        .map_err(|error| format!("{} does not fit {}: {error}", options.key.display(), name(options.alg)))
}

/// Returns the key, and its id in the file, if any.
fn signing_key(path: &Path, algorithm: Algorithm) -> Result<(EncodingKey, Option<String>), String> {
    use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512};
    let text = std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let text = text.trim_ascii_end();
    let symmetric = matches!(algorithm, HS256 | HS384 | HS512);
    if text.starts_with(b"-----BEGIN") {
        let key = match algorithm {
            _ if symmetric => {
                let alg = name(algorithm);
                return Err(format!(
                    "{} is a key pair, and {alg} signs with a secret",
                    path.display()
                ));
            }
            ES256 | ES384 => EncodingKey::from_ec_pem(text),
            EdDSA => EncodingKey::from_ed_pem(text),
            _ => EncodingKey::from_rsa_pem(text),
        };
        let why = |_| {
            format!(
                "{} is not a private key in PEM (PKCS#8) for {}",
                path.display(),
                name(algorithm)
            )
        };
        return Ok((key.map_err(why)?, None));
    }
    if !symmetric {
        let alg = name(algorithm);
        return Err(format!(
            "{alg} signs with a private key in PEM (PKCS#8), and {} is none",
            path.display()
        ));
    }
    match json::typed(text, text.len()) {
        Ok(Value::Object(jwk)) => {
            let secret = jwk.get("k").and_then(Value::as_str).map(|k| URL_SAFE_NO_PAD.decode(k));
            match secret {
                Some(Ok(secret)) => {
                    let kid = jwk.get("kid").and_then(Value::as_str).map(str::to_owned);
                    Ok((EncodingKey::from_secret(&secret), kid))
                }
                _ => Err(format!("{} is no JWK with a secret `k`", path.display())),
            }
        }
        _ => Ok((EncodingKey::from_secret(text), None)),
    }
}

fn name(algorithm: Algorithm) -> String {
    format!("{algorithm:?}")
}

fn algorithm(text: &str) -> Result<Algorithm, String> {
    text.parse().map_err(|_| {
        "use HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA".to_owned()
    })
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    json::typed(text.as_bytes(), text.len()).map_err(|error| format!("not a JSON object: {error}"))
}

fn claim(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    let value = json::typed(value.as_bytes(), value.len()).unwrap_or_else(|_| value.into());
    Ok((name.to_owned(), value))
}

fn when(text: &str) -> Result<u64, &'static str> {
    Timestamp::read_from(text, clock::unix_seconds()).map(|at| at.0)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use fixtures::keys;

    use super::*;
    use crate::auth::jwt::jwk::Origin;
    use crate::auth::jwt::jws::{self, Jws};
    use crate::auth::jwt::key_set::KeySet;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        options: Options,
    }

    fn minted(key: &str, arguments: &[&str]) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, key).unwrap();
        let path = format!("--key={}", path.display());
        let typed = ["mint", &path].into_iter().chain(arguments.iter().copied());
        token(
            &Typed::try_parse_from(typed).map_err(|error| error.to_string())?.options,
            1_000_000,
        )
    }

    #[test]
    fn what_is_signed_verifies() {
        let oct: Value = serde_json::from_str(keys::OCT_JWKS).unwrap();
        let check = |key: &str, alg: &str, set: KeySet| {
            let token = minted(key, &[&format!("--alg={alg}"), "--claim=sub=ada"]).unwrap();
            let jws = Jws::parse(&token).unwrap();
            assert_eq!(set.verify(&jws), Ok(()), "{alg}");
        };
        let of = |name: &str, set: &str| {
            let algorithm = jws::algorithm(name).unwrap();
            KeySet::from_jwks(set.as_bytes(), &[algorithm], Origin::File).unwrap()
        };
        for (alg, key) in [
            ("RS256", keys::RSA_PRIVATE_PEM),
            ("PS512", keys::RSA_PRIVATE_PEM),
            ("ES256", keys::ES256_PRIVATE_PEM),
            ("ES384", keys::ES384_PRIVATE_PEM),
            ("EdDSA", keys::ED25519_PRIVATE_PEM),
        ] {
            check(key, alg, of(alg, keys::JWKS));
        }
        check(keys::HMAC_SECRET, "HS256", of("HS256", keys::OCT_JWKS));
        check(&oct["keys"][0].to_string(), "HS256", of("HS256", keys::OCT_JWKS));
    }

    #[test]
    fn claims_are_put_together() {
        let claims = |arguments: &[&str]| {
            let typed = [&["--alg=HS256"], arguments].concat();
            let token = minted(keys::HMAC_SECRET, &typed).unwrap();
            let claims = jws::readable(&token).1.unwrap();
            serde_json::from_slice::<Value>(claims.bytes()).unwrap()
        };
        let all = claims(&[
            "--claims={\"sub\":\"ada\",\"exp\":7}",
            "--claim=n=7",
            "--claim=t=a=b",
            "--claim=sub=eve",
        ]);
        let expected = serde_json::json!({ "sub": "eve", "exp": 7, "n": 7, "t": "a=b", "iat": 1_000_000 });
        assert_eq!(all, expected);
        assert!(claims(&[])["exp"].as_u64().unwrap() > clock::unix_seconds());
        assert_eq!(claims(&["--expires-in=2027-01-31"])["exp"], 1_801_353_600);
    }

    #[test]
    fn a_key_that_does_not_fit_is_told() {
        let wrong = |key: &str, alg: &str, expected: &str| {
            let why = minted(key, &[&format!("--alg={alg}")]).unwrap_err();
            assert!(why.contains(expected), "{why}");
        };
        wrong(keys::ES256_PRIVATE_PEM, "HS256", "signs with a secret");
        wrong(keys::ES256_PRIVATE_PEM, "RS256", "not a private key");
        wrong(keys::ES256_PUBLIC_PEM, "ES256", "not a private key");
        wrong(keys::HMAC_SECRET, "ES256", "private key in PEM");
        wrong("{\"kty\":\"EC\"}", "HS256", "no JWK with a secret");
        wrong(keys::HMAC_SECRET, "none", "use HS256");
    }
}
