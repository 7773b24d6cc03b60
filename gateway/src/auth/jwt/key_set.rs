//! The keys of one issuer, and which key may verify which token.
//!
//! Invariant: every key is pinned to exactly one algorithm, by its own `alg` or by the issuer's configured algorithms.
//! A key that fits several algorithms is stored once for each (RFC 8725 section 3.1). A set is immutable; a newer set
//! replaces it.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use jsonwebtoken::{DecodingKey, DecodingKeyKind};
use smallvec::SmallVec;

use crate::auth::check::Check;
use crate::auth::jwt::jwk::{Origin, WrittenKey};
use crate::auth::jwt::jws::{self, Algorithm, Jws};
use crate::json::{self, Document, Kind};

/// Maximum number of keys in one set.
pub const MAX_KEYS: usize = 100;

/// Maximum length of a set, in bytes.
pub const MAX_LENGTH: usize = 256 * 1024;

/// Maximum number of keys that one token is checked against. Limits its cost to as many signature checks.
const MAX_CANDIDATES: usize = 4;

/// An immutable set of verification keys.
#[derive(Debug, Default)]
pub struct KeySet {
    keys: Box<[Key]>,
    fingerprint: u64,
    /// Text of a set that was fetched, kept for [`Self::pinned_to`].
    document: Option<Box<[u8]>>,
}

/// Keys that may have signed a token. All are pinned to its algorithm.
pub(crate) struct Candidates<'a>(SmallVec<[&'a Key; MAX_CANDIDATES]>);

#[derive(Debug)]
struct Key {
    kid: Option<Box<str>>,
    algorithm: Algorithm,
    material: DecodingKey,
}

/// Reason why a key set is invalid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySetMistake {
    NoAlgorithms,
    NotJwks(String),
    TooManyKeys(usize),
    /// Reason for each key why it was skipped.
    NoUsableKey(Vec<String>),
    /// The secret is too short. Lengths are in bytes.
    SecretTooShort {
        algorithm: Algorithm,
        length: usize,
        least: usize,
    },
    NotPem,
}

impl KeySet {
    /// Reads a JWKS (RFC 7517). Skips keys that are not for signatures, of an unsupported type, or of an algorithm that
    /// is not in `algorithms`.
    ///
    /// # Errors
    /// If no key is left, or an `oct` key of a file is too short.
    pub fn from_jwks(text: &[u8], algorithms: &[Algorithm], origin: Origin) -> Result<Self, KeySetMistake> {
        let not_jwks = |why: &dyn fmt::Display| KeySetMistake::NotJwks(why.to_string());
        let set = Document::check(&Bytes::copy_from_slice(text), MAX_LENGTH).map_err(|refusal| not_jwks(&refusal))?;
        let list = set.value().get("keys").filter(|keys| keys.kind() == Kind::Array);
        let list = list.ok_or_else(|| not_jwks(&"there is no such list"))?;
        let count = list.elements().count();
        if count > MAX_KEYS {
            return Err(KeySetMistake::TooManyKeys(count));
        }
        let mut keys = Vec::new();
        let mut passed_over = Vec::new();
        for (at, value) in list.elements().enumerate() {
            let found = json::typed::<WrittenKey>(value.raw(), MAX_LENGTH)
                .and_then(|key| key.material(origin).map(|(material, fits)| (key, material, fits)));
            match found {
                Ok((key, material, fits)) => {
                    let kid = key.kid.as_deref();
                    let pinned = pinned(algorithms, &fits, key.own_algorithm());
                    if pinned.is_empty() {
                        let own: Vec<_> = fits.iter().map(|fit| format!("{fit:?}")).collect();
                        passed_over.push(format!("key {at} is for {}: add it to `algorithms`", own.join(", ")));
                    }
                    add(&mut keys, kid, &material, &pinned)?;
                }
                Err(why) => passed_over.push(format!("key {at}: {why}")),
            }
        }
        Ok(Self {
            document: (origin == Origin::Url).then(|| text.into()),
            ..Self::of(keys, algorithms, passed_over)?
        })
    }

    /// Returns the same keys pinned to other algorithms. `None` if no key fits, or the keys did not come from a URL.
    pub(crate) fn pinned_to(&self, algorithms: &[Algorithm]) -> Option<Self> {
        Self::from_jwks(self.document.as_ref()?, algorithms, Origin::Url).ok()
    }

    /// Makes a set of one HMAC secret, whose bytes are used unchanged.
    ///
    /// # Errors
    /// If the secret is shorter than the hash of an algorithm (RFC 7518 section 3.2).
    pub fn from_secret(secret: &[u8], algorithms: &[Algorithm]) -> Result<Self, KeySetMistake> {
        let mut keys = Vec::new();
        let pinned = pinned(algorithms, &Algorithm::HMAC, None);
        add(&mut keys, None, &DecodingKey::from_secret(secret), &pinned)?;
        Self::of(
            keys,
            algorithms,
            vec!["a secret is for HS256, HS384 or HS512 alone".into()],
        )
    }

    /// Reads one public key in PEM: RSA, P-256, P-384, P-521 or Ed25519.
    ///
    /// # Errors
    /// If the key is of another type, or none of `algorithms` fits it.
    pub fn from_pem(pem: &[u8], algorithms: &[Algorithm]) -> Result<Self, KeySetMistake> {
        let (material, fits) = if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
            (key, &Algorithm::RSA[..])
        } else if let Ok(key) = DecodingKey::from_ed_pem(pem) {
            (key, &[Algorithm::EdDSA][..])
        } else {
            let key = DecodingKey::from_ec_pem(pem).map_err(|_| KeySetMistake::NotPem)?;
            // Length of an uncompressed point on each curve (SEC 1 section 2.3.3).
            match key.try_get_as_bytes().map(<[u8]>::len) {
                Ok(65) => (key, &[Algorithm::ES256][..]),
                Ok(97) => (key, &[Algorithm::ES384][..]),
                Ok(133) => (key, &[Algorithm::ES512][..]),
                _ => return Err(KeySetMistake::NotPem),
            }
        };
        let mut keys = Vec::new();
        add(&mut keys, None, &material, &pinned(algorithms, fits, None))?;
        Self::of(
            keys,
            algorithms,
            vec![format!(
                "the key is for {}: add it to `algorithms`",
                fits.iter().map(|fit| format!("{fit:?}")).collect::<Vec<_>>().join(", ")
            )],
        )
    }

    /// Number of keys. A key that fits several algorithms counts once for each.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Name (if any) and algorithm of each key.
    pub fn listed(&self) -> impl Iterator<Item = (Option<&str>, Algorithm)> {
        self.keys.iter().map(|key| (key.kid.as_deref(), key.algorithm))
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Hash of the set. Independent of the order of keys, and in practice unique. Zero for the empty set.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Verifies the signature with the keys that the token's `kid` and `alg` select.
    ///
    /// # Errors
    /// The check that fails.
    pub fn verify(&self, jws: &Jws<'_>) -> Result<(), Check> {
        self.candidates(jws)?.verify(jws)
    }

    /// Whether the set has a key for this `kid`, or for its absence.
    pub(crate) fn knows(&self, kid: Option<&str>) -> bool {
        self.meant(kid).next().is_some()
    }

    /// Whether the set has a key with this name.
    pub(crate) fn names(&self, kid: Option<&str>) -> bool {
        kid.is_some() && self.keys.iter().any(|key| key.kid.as_deref() == kid)
    }

    fn meant<'a, 'k>(&'a self, kid: Option<&'k str>) -> impl Iterator<Item = &'a Key> + use<'a, 'k> {
        // A key without a name matches any `kid` that is not the name of a key.
        let named = self.keys.iter().any(|key| key.kid.as_deref() == kid);
        let is_meant = move |key: &&Key| kid.is_none() || key.kid.as_deref() == kid.filter(|_| named);
        self.keys.iter().filter(is_meant)
    }

    /// Selects the keys for the token's `kid` and `alg`: at least one, at most [`MAX_CANDIDATES`].
    ///
    /// # Errors
    /// The check that fails before the signature is verified.
    pub(crate) fn candidates(&self, jws: &Jws<'_>) -> Result<Candidates<'_>, Check> {
        if self.keys.is_empty() {
            return Err(Check::KeysUnavailable);
        }
        let kid = jws.kid.as_deref();
        if !self.knows(kid) {
            return Err(Check::KeyIdUnknown);
        }
        let fitting = self.meant(kid);
        let found: SmallVec<[&Key; MAX_CANDIDATES]> = fitting.filter(|key| key.algorithm == jws.algorithm).collect();
        match found.len() {
            0 => Err(Check::Algorithm),
            1..=MAX_CANDIDATES => Ok(Candidates(found)),
            _ => Err(Check::KeyIdMissing),
        }
    }

    fn of(keys: Vec<Key>, algorithms: &[Algorithm], passed_over: Vec<String>) -> Result<Self, KeySetMistake> {
        if algorithms.is_empty() {
            return Err(KeySetMistake::NoAlgorithms);
        }
        if keys.is_empty() {
            return Err(KeySetMistake::NoUsableKey(passed_over));
        }
        let mut digests: Vec<_> = keys.iter().map(Key::digest).collect();
        digests.sort_unstable();
        let mut whole = Context::new(&SHA256);
        digests.iter().for_each(|digest| whole.update(digest));
        let head = whole.finish().as_ref()[..8].try_into().expect("SHA-256 has 32 bytes");
        Ok(Self {
            keys: keys.into(),
            fingerprint: u64::from_le_bytes(head),
            document: None,
        })
    }
}

impl Candidates<'_> {
    /// Verifies the signature with each key until one fits. Costs up to one signature check per key.
    pub(crate) fn verify(&self, jws: &Jws<'_>) -> Result<(), Check> {
        let good = |key: &&Key| jws.is_signed_with(&key.material, key.algorithm);
        if self.0.iter().any(good) {
            Ok(())
        } else {
            Err(Check::Signature)
        }
    }
}

/// Returns the configured algorithms that fit the key and that its own `alg`, if present, allows.
fn pinned(configured: &[Algorithm], fits: &[Algorithm], own: Option<&str>) -> Vec<Algorithm> {
    let allowed = |algorithm: &Algorithm| own.is_none_or(|name| jws::algorithm(name) == Some(*algorithm));
    fits.iter()
        .copied()
        .filter(|fit| configured.contains(fit))
        .filter(allowed)
        .collect()
}

fn add(
    keys: &mut Vec<Key>,
    kid: Option<&str>,
    material: &DecodingKey,
    pinned: &[Algorithm],
) -> Result<(), KeySetMistake> {
    for &algorithm in pinned {
        if let (Some(least), Ok(secret)) = (least_secret(algorithm), material.try_get_as_bytes())
            && secret.len() < least
        {
            return Err(KeySetMistake::SecretTooShort {
                algorithm,
                length: secret.len(),
                least,
            });
        }
        keys.push(Key {
            kid: kid.map(Into::into),
            algorithm,
            material: material.clone(),
        });
    }
    Ok(())
}

/// Minimum length of a secret in bytes (RFC 7518 section 3.2). `None` for algorithms without a secret.
const fn least_secret(algorithm: Algorithm) -> Option<usize> {
    match algorithm {
        Algorithm::HS256 => Some(32),
        Algorithm::HS384 => Some(48),
        Algorithm::HS512 => Some(64),
        _ => None,
    }
}

impl Key {
    fn digest(&self) -> [u8; 32] {
        let mut digest = Context::new(&SHA256);
        let mut field = |bytes: &[u8]| {
            digest.update(&(bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        };
        field(format!("{:?} {:?}", self.algorithm, self.kid).as_bytes());
        match self.material.kind() {
            DecodingKeyKind::SecretOrDer(bytes) => field(bytes),
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                field(n);
                field(e);
            }
        }
        digest.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

impl fmt::Display for KeySetMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAlgorithms => f.write_str("no algorithm is configured: list those that the issuer signs with"),
            Self::NotJwks(why) => write!(f, "this is not a JWKS, an object with a list `keys`: {why}"),
            Self::TooManyKeys(found) => write!(f, "the JWKS has {found} keys, and at most {MAX_KEYS} are taken"),
            Self::NoUsableKey(why) if why.is_empty() => f.write_str("the JWKS is empty: it needs at least one key"),
            Self::NoUsableKey(why) => write!(f, "there is no usable key: {}", why.join("; ")),
            Self::SecretTooShort {
                algorithm,
                length,
                least,
            } => write!(
                f,
                "the secret has {length} bytes and {algorithm:?} needs {least} at least: \
                 make a longer one, for example with `openssl rand -base64 48`"
            ),
            Self::NotPem => f.write_str("this is not a public key in PEM of type RSA, P-256, P-384, P-521 or Ed25519"),
        }
    }
}

impl std::error::Error for KeySetMistake {}

#[cfg(test)]
mod tests;
