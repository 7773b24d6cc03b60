//! Verdicts on tokens that have been seen: the second sight of one costs a hash and a lookup.
//!
//! Tokens are known by the SHA-256 of the whole text, signature included, so that nothing that differs in one
//! bit shares a verdict. An entry says which keys it was made with, and counts only while those are in use:
//! a removed key stops verifying at once. Bounded; nothing allocates on a hit.

use std::sync::Arc;

use quick_cache::sync::Cache;

use super::api_keys::digest_of;
use super::check::Check;

/// Who a token speaks for: what is kept for it, its tenant, and the issuer's place in the list.
pub(super) type Admission<K> = (Arc<K>, Arc<str>, usize);

/// The same, or what is wrong with the token.
pub(super) type Verdict<K> = Result<Admission<K>, Check>;

/// Bounded memory of verified and of refused tokens, apart, so that a flood of forged ones does not push out
/// the good.
pub(super) struct KnownTokens<K> {
    admitted: Cache<[u8; 32], Admitted<K>>,
    refused: Cache<[u8; 32], Refused>,
}

struct Admitted<K> {
    kept: Arc<K>,
    tenant: Arc<str>,
    issuer: usize,
    /// Of the issuer's key set.
    fingerprint: u64,
    /// Seconds since 1970 from which the token is refused.
    expires: u64,
}

#[derive(Clone, Copy)]
struct Refused {
    check: Check,
    issuer: usize,
    fingerprint: u64,
}

impl<K> KnownTokens<K> {
    /// For at most `capacity` tokens of either sort.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            admitted: Cache::new(capacity),
            refused: Cache::new(capacity),
        }
    }

    /// The verdict that still stands. `fingerprint` tells which keys an issuer uses now.
    pub(super) fn find(&self, token: &str, fingerprint: impl Fn(usize) -> u64, unix_now: u64) -> Option<Verdict<K>> {
        let digest = digest_of(token.as_bytes());
        if let Some(known) = self.admitted.get(&digest) {
            if known.fingerprint == fingerprint(known.issuer) && unix_now < known.expires {
                return Some(Ok((known.kept, known.tenant, known.issuer)));
            }
            self.admitted.remove(&digest);
        }
        let known = self.refused.get(&digest)?;
        (known.fingerprint == fingerprint(known.issuer)).then_some(Err(known.check))
    }

    pub(super) fn admit(
        &self,
        token: &str,
        (kept, tenant, issuer): (Arc<K>, Arc<str>, usize),
        fingerprint: u64,
        expires: u64,
    ) {
        let known = Admitted {
            kept,
            tenant,
            issuer,
            fingerprint,
            expires,
        };
        self.admitted.insert(digest_of(token.as_bytes()), known);
    }

    /// Only for a `check` that fails again for as long as the issuer's keys stay the same.
    pub(super) fn refuse(&self, token: &str, check: Check, issuer: usize, fingerprint: u64) {
        self.refused.insert(
            digest_of(token.as_bytes()),
            Refused {
                check,
                issuer,
                fingerprint,
            },
        );
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize) {
        (self.admitted.len(), self.refused.len())
    }
}

impl<K> Clone for Admitted<K> {
    fn clone(&self) -> Self {
        let Self {
            kept,
            tenant,
            issuer,
            fingerprint,
            expires,
        } = self;
        Self {
            kept: kept.clone(),
            tenant: tenant.clone(),
            issuer: *issuer,
            fingerprint: *fingerprint,
            expires: *expires,
        }
    }
}
