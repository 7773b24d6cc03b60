//! Reads one key in the form that an identity provider publishes (JWK), and the algorithms that it fits.
//!
//! A key that two readers could read differently is refused: lengths must be those of the curve, and base64url must
//! have no padding.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde::Deserialize;

use crate::auth::jwt::jws::Algorithm;

/// A JWK in its JSON form (RFC 7517 section 4, RFC 7518 section 6). Unused members are left out.
#[derive(Deserialize)]
pub(crate) struct WrittenKey {
    kty: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    pub(crate) kid: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    k: Option<String>,
}

impl WrittenKey {
    /// Returns the name of the algorithm in the key's own `alg`.
    ///
    /// `ES521` is not an algorithm, but published P-521 keys have it (RFC 7520 figure 1 in Wycheproof's form). It means
    /// ES512, the only algorithm that fits the curve.
    pub(crate) fn own_algorithm(&self) -> Option<&str> {
        match (self.alg.as_deref(), self.crv.as_deref()) {
            (Some("ES521"), Some("P-521")) => Some("ES512"),
            (own, _) => own,
        }
    }

    /// Returns the key and the algorithms that its type fits, or the reason why the key is unusable.
    pub(crate) fn material(&self, origin: Origin) -> Result<(DecodingKey, Vec<Algorithm>), String> {
        if self.usage.as_deref().is_some_and(|usage| usage != "sig") {
            return Err("its `use` is not `sig`".into());
        }
        if self
            .key_ops
            .as_ref()
            .is_some_and(|ops| !ops.iter().any(|op| op == "verify"))
        {
            return Err("its `key_ops` lack `verify`".into());
        }
        match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => {
                let n = part(self.n.as_deref(), "n")?;
                let e = part(self.e.as_deref(), "e")?;
                let bits = n.iter().skip_while(|byte| **byte == 0).count() * 8;
                if !(2048..=8192).contains(&bits) {
                    return Err(format!("an RSA key of {bits} bits; 2048 to 8192 are taken"));
                }
                Ok((DecodingKey::from_rsa_raw_components(&n, &e), Algorithm::RSA.to_vec()))
            }
            ("EC", Some("P-256")) => self.point(32).map(|key| (key, vec![Algorithm::ES256])),
            ("EC", Some("P-384")) => self.point(48).map(|key| (key, vec![Algorithm::ES384])),
            ("EC", Some("P-521")) => self.point(66).map(|key| (key, vec![Algorithm::ES512])),
            ("OKP", Some("Ed25519")) => {
                let x = sized(part(self.x.as_deref(), "x")?, 32, "x")?;
                Ok((DecodingKey::from_ed_der(&x), vec![Algorithm::EdDSA]))
            }
            ("oct", _) if origin == Origin::Url => Err("a secret that is published is not a secret".into()),
            ("oct", _) => {
                let k = part(self.k.as_deref(), "k")?;
                Ok((DecodingKey::from_secret(&k), Algorithm::HMAC.to_vec()))
            }
            (kty, crv) => Err(format!("type {kty} {} is not supported", crv.unwrap_or_default())),
        }
    }

    fn point(&self, bytes: usize) -> Result<DecodingKey, String> {
        let x = sized(part(self.x.as_deref(), "x")?, bytes, "x")?;
        let y = sized(part(self.y.as_deref(), "y")?, bytes, "y")?;
        Ok(DecodingKey::from_ec_der(&[&[4], &x[..], &y[..]].concat()))
    }
}

fn part(value: Option<&str>, name: &str) -> Result<Vec<u8>, String> {
    let value = value.ok_or_else(|| format!("`{name}` is missing"))?;
    URL_SAFE_NO_PAD
        .decode(value)
        .map_err(|_| format!("`{name}` is not base64url without padding"))
}

fn sized(value: Vec<u8>, bytes: usize, name: &str) -> Result<Vec<u8>, String> {
    if value.len() == bytes {
        Ok(value)
    } else {
        Err(format!("`{name}` has {} bytes, not {bytes}", value.len()))
    }
}

/// Origin of a JWKS, which decides which keys it may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    File,
    /// Fetched from a URL. `oct` keys are ignored, because a published secret is not secret.
    Url,
}
