//! API keys of tenants, looked up by digest.
//!
//! Only SHA-256 digests are stored: a reader of the gateway's memory or of the key file cannot present a key. A lookup
//! compares digests, never keys, so its duration reveals nothing about a key. Dates and the disabled flag are checked
//! at every lookup; no earlier result is cached here.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, OnceLock};

use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderName;

use crate::auth::api_key::format::{self, Shape};
use crate::auth::caller::{Caller, Kind, is_caller_id, is_tenant_name};
use crate::auth::check::Check;
use crate::fingerprint;

/// All API keys of the gateway, and the header field that carries them.
#[derive(Debug)]
pub struct ApiKeys {
    header: HeaderName,
    keys: Vec<ApiKey>,
    by_digest: HashMap<[u8; 32], usize>,
    /// Made when it is first asked for.
    fingerprint: OnceLock<u64>,
}

/// One API key of the key file. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ApiKey {
    pub id: Arc<str>,
    pub tenant: Arc<str>,
    pub digest: [u8; 32],
    pub tier: Option<Arc<str>>,
    pub scopes: Box<[Arc<str>]>,
    /// Description for operators.
    pub label: Option<Arc<str>>,
    /// First second in which the key is valid.
    pub not_before: Option<u64>,
    /// First second in which the key is no longer valid.
    pub expires: Option<u64>,
    pub disabled: bool,
}

/// Mistake in a list of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiKeyMistake {
    Id { id: Arc<str> },
    IdTwice { id: Arc<str> },
    DigestTwice { first: Arc<str>, second: Arc<str> },
    Tenant { id: Arc<str>, tenant: Arc<str> },
    NeverValid { id: Arc<str> },
}

impl ApiKey {
    /// Checks whether the key is valid at this second.
    ///
    /// # Errors
    /// The first reason why it is not.
    pub fn check(&self, unix_now: u64) -> Result<(), Check> {
        if self.disabled {
            return Err(Check::KeyDisabled);
        }
        if self.not_before.is_some_and(|start| unix_now < start) {
            return Err(Check::KeyNotYetValid);
        }
        if self.expires.is_some_and(|end| unix_now >= end) {
            return Err(Check::KeyExpired);
        }
        Ok(())
    }

    pub fn is_live(&self, unix_now: u64) -> bool {
        self.check(unix_now).is_ok()
    }
}

impl ApiKeys {
    /// # Errors
    /// Every mistake in the list, in its order.
    pub fn new(header: HeaderName, keys: Vec<ApiKey>) -> Result<Self, Vec<ApiKeyMistake>> {
        let mut mistakes = Vec::new();
        let mut ids = HashSet::new();
        let mut by_digest = HashMap::with_capacity(keys.len());
        for (row, key) in keys.iter().enumerate() {
            let id = || key.id.clone();
            if !is_caller_id(&key.id) {
                mistakes.push(ApiKeyMistake::Id { id: id() });
            }
            if !ids.insert(key.id.clone()) {
                mistakes.push(ApiKeyMistake::IdTwice { id: id() });
            }
            if !is_tenant_name(&key.tenant) {
                mistakes.push(ApiKeyMistake::Tenant {
                    id: id(),
                    tenant: key.tenant.clone(),
                });
            }
            if key
                .expires
                .is_some_and(|end| key.not_before.is_some_and(|start| end <= start))
            {
                mistakes.push(ApiKeyMistake::NeverValid { id: id() });
            }
            if let Some(first) = by_digest.insert(key.digest, row) {
                mistakes.push(ApiKeyMistake::DigestTwice {
                    first: keys[first].id.clone(),
                    second: id(),
                });
            }
        }
        if mistakes.is_empty() {
            Ok(Self {
                header,
                keys,
                by_digest,
                fingerprint: OnceLock::new(),
            })
        } else {
            Err(mistakes)
        }
    }

    /// Returns the first key of a tenant that is valid now, as its caller; of those in `tier` if one is named.
    pub fn first_of(&self, tenant: &str, tier: Option<&str>, unix_now: u64) -> Option<Caller> {
        let is_asked = |key: &ApiKey| {
            *key.tenant == *tenant && key.is_live(unix_now) && tier.is_none_or(|tier| key.tier.as_deref() == Some(tier))
        };
        self.keys.iter().position(is_asked).map(|row| self.caller(row))
    }

    /// Returns the caller of the key with this id, whether or not it is valid now.
    pub fn holder(&self, id: &str) -> Option<Caller> {
        let row = self.keys.iter().position(|key| *key.id == *id)?;
        Some(self.caller(row))
    }

    /// Returns the fingerprint of all keys.
    pub fn fingerprint(&self) -> u64 {
        let all = || self.keys.iter().map(fingerprint::of).fold(0, u64::wrapping_add);
        *self.fingerprint.get_or_init(all)
    }

    pub fn header(&self) -> &HeaderName {
        &self.header
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns the index of the presented key, if it is valid now.
    pub(crate) fn find(&self, presented: &[u8], unix_now: u64) -> Result<usize, Check> {
        let row = *self
            .by_digest
            .get(&digest_of(presented))
            .ok_or_else(|| unknown(presented))?;
        self.keys[row].check(unix_now)?;
        Ok(row)
    }

    /// Returns the index of the key with this digest.
    pub(crate) fn row_of(&self, digest: &[u8; 32]) -> Option<usize> {
        self.by_digest.get(digest).copied()
    }

    /// Returns the keys in the order of their file.
    pub fn all(&self) -> &[ApiKey] {
        &self.keys
    }

    pub(crate) fn tenant(&self, row: usize) -> &Arc<str> {
        &self.keys[row].tenant
    }

    pub(crate) fn caller(&self, row: usize) -> Caller {
        let key = &self.keys[row];
        Caller {
            tenant: key.tenant.clone(),
            id: key.id.clone(),
            tier: key.tier.clone(),
            scopes: key.scopes.clone(),
            kind: Kind::ApiKey,
            claims: None,
            configured: true,
            expires: key.expires,
        }
    }
}

/// Returns why a key was not found. The log distinguishes a damaged key, so a typing error does not look like guessing.
fn unknown(presented: &[u8]) -> Check {
    match format::shape(presented) {
        Shape::Damaged => Check::KeyMalformed,
        Shape::Foreign | Shape::Whole => Check::KeyUnknown,
    }
}

/// Returns the SHA-256 of a presented key.
pub fn digest_of(presented: &[u8]) -> [u8; 32] {
    digest(&SHA256, presented)
        .as_ref()
        .try_into()
        .expect("SHA-256 has 32 bytes")
}

/// Returns a digest in the form of the key file.
pub fn digest_text(digest: &[u8; 32]) -> String {
    digest
        .iter()
        .fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

impl fmt::Display for ApiKeyMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id { id } => write!(
                f,
                "key id `{}` does not fit: use 1 to 255 characters, no control characters",
                id.escape_debug()
            ),
            Self::IdTwice { id } => write!(f, "key id `{id}` is used twice: give each key its own id"),
            Self::DigestTwice { first, second } => {
                write!(
                    f,
                    "keys `{first}` and `{second}` have the same digest: remove one, or issue a new key for it"
                )
            }
            Self::Tenant { id, tenant } => write!(
                f,
                "key `{id}` names the tenant `{tenant}`: use 1 to 128 characters, no control characters, and not `anonymous`"
            ),
            Self::NeverValid { id } => {
                write!(
                    f,
                    "key `{id}` expires before it becomes valid: `expires` must be later than `not_before`"
                )
            }
        }
    }
}

impl std::error::Error for ApiKeyMistake {}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str, secret: &str) -> ApiKey {
        ApiKey {
            id: id.into(),
            tenant: "acme".into(),
            digest: digest_of(secret.as_bytes()),
            tier: None,
            scopes: Box::default(),
            label: None,
            not_before: None,
            expires: None,
            disabled: false,
        }
    }

    fn set(keys: Vec<ApiKey>) -> Result<ApiKeys, Vec<ApiKeyMistake>> {
        ApiKeys::new(HeaderName::from_static("x-api-key"), keys)
    }

    #[test]
    fn dates_and_the_flag_are_honoured_at_every_lookup() {
        let keys = set(vec![
            key("plain", "one"),
            ApiKey {
                not_before: Some(100),
                expires: Some(200),
                ..key("dated", "two")
            },
            ApiKey {
                disabled: true,
                ..key("off", "three")
            },
            key("prefixed", "gw_known"),
        ])
        .unwrap();
        let check = |presented: &str, now, expected| {
            let found = keys
                .find(presented.as_bytes(), now)
                .map(|row| keys.caller(row).id.to_string());
            assert_eq!(found, expected, "{presented} at {now}");
        };
        check("one", 0, Ok("plain".into()));
        check("one", u64::MAX, Ok("plain".into()));
        check("two", 99, Err(Check::KeyNotYetValid));
        check("two", 100, Ok("dated".into()));
        check("two", 199, Ok("dated".into()));
        check("two", 200, Err(Check::KeyExpired));
        check("two", 199, Ok("dated".into()));
        check("three", 0, Err(Check::KeyDisabled));
        check("four", 0, Err(Check::KeyUnknown));
        check("One", 0, Err(Check::KeyUnknown));
        check("", 0, Err(Check::KeyUnknown));
        check(&"x".repeat(100_000), 0, Err(Check::KeyUnknown));
        check("gw_plain_one", 0, Err(Check::KeyMalformed));
        check("gw_known", 0, Ok("prefixed".into()));
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let mistakes = set(vec![
            key("a", "one"),
            ApiKey {
                tenant: "anonymous".into(),
                ..key("a", "two")
            },
            ApiKey {
                not_before: Some(5),
                expires: Some(5),
                ..key("b\tb", "one")
            },
        ])
        .unwrap_err();
        assert_eq!(
            mistakes,
            [
                ApiKeyMistake::IdTwice { id: "a".into() },
                ApiKeyMistake::Tenant {
                    id: "a".into(),
                    tenant: "anonymous".into()
                },
                ApiKeyMistake::Id { id: "b\tb".into() },
                ApiKeyMistake::NeverValid { id: "b\tb".into() },
                ApiKeyMistake::DigestTwice {
                    first: "a".into(),
                    second: "b\tb".into()
                },
            ]
        );
    }

    #[test]
    fn a_digest_is_written_as_the_key_file_takes_it() {
        let hex = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        assert_eq!(digest_text(&digest_of(b"test")), format!("sha256:{hex}"));
    }
}
