//! Cache of verdicts on tokens: a token that was seen before costs one hash and one lookup.
//!
//! Entries are keyed by the SHA-256 of the whole token, signature included, so tokens that differ in one bit share no
//! verdict. An entry counts only while the issuer uses the key set that it was made with: a removed key stops verifying
//! at once. An entry also counts only at times at which a new check would give the same verdict, because the clock may
//! be corrected backwards. The cache is bounded, and a hit allocates nothing.

use std::sync::Arc;

use quick_cache::sync::Cache;

use crate::auth::api_key::keys::digest_of;
use crate::auth::check::Check;

/// Cached value of a valid token, its tenant, and the index of its issuer.
pub(crate) type Admission<K> = (Arc<K>, Arc<str>, usize);

/// An admission, or the check that the token failed.
pub(crate) type Verdict<K> = Result<Admission<K>, Check>;

/// Bounded cache of valid and refused tokens. The two are separate, so a flood of forged tokens displaces no valid
/// ones.
pub(crate) struct KnownTokens<K> {
    admitted: Cache<[u8; 32], Admitted<K>>,
    refused: Cache<[u8; 32], Refused>,
}

struct Admitted<K> {
    kept: Arc<K>,
    tenant: Arc<str>,
    issuer: usize,
    /// Fingerprint of the issuer's key set.
    fingerprint: u64,
    valid: Validity,
}

/// Time in which a token is accepted, in seconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Validity {
    pub from: u64,
    /// First second in which the token is refused.
    pub expires: u64,
}

impl Validity {
    fn holds(self, unix_now: u64) -> bool {
        (self.from..self.expires).contains(&unix_now)
    }
}

#[derive(Clone, Copy)]
struct Refused {
    check: Check,
    issuer: usize,
    fingerprint: u64,
    /// First second since 1970 in which the verdict counts.
    from: u64,
}

impl<K> KnownTokens<K> {
    /// Makes a cache for at most `capacity` valid tokens and as many refused ones.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            admitted: Cache::new(capacity),
            refused: Cache::new(capacity),
        }
    }

    /// Returns the cached verdict if it still counts. `fingerprint` maps an issuer's index to its current key
    /// fingerprint.
    pub(crate) fn find(&self, token: &str, fingerprint: impl Fn(usize) -> u64, unix_now: u64) -> Option<Verdict<K>> {
        let digest = digest_of(token.as_bytes());
        if let Some(known) = self.admitted.get(&digest) {
            if known.fingerprint == fingerprint(known.issuer) && known.valid.holds(unix_now) {
                return Some(Ok((known.kept, known.tenant, known.issuer)));
            }
            self.admitted.remove(&digest);
        }
        let known = self.refused.get(&digest)?;
        let stands = known.fingerprint == fingerprint(known.issuer) && unix_now >= known.from;
        stands.then_some(Err(known.check))
    }

    pub(crate) fn admit(
        &self,
        token: &str,
        (kept, tenant, issuer): (Arc<K>, Arc<str>, usize),
        fingerprint: u64,
        valid: Validity,
    ) {
        let digest = digest_of(token.as_bytes());
        // An older refusal of the same token must not return when this entry expires.
        self.refused.remove(&digest);
        let known = Admitted {
            kept,
            tenant,
            issuer,
            fingerprint,
            valid,
        };
        self.admitted.insert(digest, known);
    }

    /// Caches a refusal. Only for a `check` that [lasts](Check::is_lasting).
    pub(crate) fn refuse(&self, token: &str, check: Check, issuer: usize, fingerprint: u64, unix_now: u64) {
        let known = Refused {
            check,
            issuer,
            fingerprint,
            from: if check.is_of_time() { unix_now } else { 0 },
        };
        self.refused.insert(digest_of(token.as_bytes()), known);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> (usize, usize) {
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
            valid,
        } = self;
        Self {
            kept: kept.clone(),
            tenant: tenant.clone(),
            issuer: *issuer,
            fingerprint: *fingerprint,
            valid: *valid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: u64 = 7;

    fn find(tokens: &KnownTokens<()>, now: u64) -> Option<Result<(), Check>> {
        let found = tokens.find("token", |_| KEYS, now)?;
        Some(found.map(drop))
    }

    #[test]
    fn a_token_is_known_only_while_it_is_valid() {
        for (now, known) in [
            (0, false),
            (9, false),
            (10, true),
            (15, true),
            (19, true),
            (20, false),
            (99, false),
        ] {
            let tokens = KnownTokens::new(10);
            let valid = Validity { from: 10, expires: 20 };
            tokens.admit("token", (Arc::new(()), "acme".into(), 0), KEYS, valid);
            assert_eq!(find(&tokens, now), known.then_some(Ok(())), "at {now}");
            // The token has to be verified again, and is cached again afterwards.
            tokens.admit("token", (Arc::new(()), "acme".into(), 0), KEYS, valid);
            assert_eq!(find(&tokens, 15), Some(Ok(())));
        }
    }

    #[test]
    fn what_the_time_has_decided_stands_from_then_on() {
        for (check, stands_before) in [
            (Check::TokenExpired, false),
            (Check::TokenTooOld, false),
            (Check::Signature, true),
            (Check::Audience, true),
            (Check::Subject, true),
            (Check::Tenant, true),
            (Check::TenantOfOther, true),
            (Check::ClaimMissing, true),
            (Check::Expiry, true),
        ] {
            let tokens = KnownTokens::new(10);
            tokens.refuse("token", check, 0, KEYS, 100);
            for (now, stands) in [(0, stands_before), (99, stands_before), (100, true), (u64::MAX, true)] {
                assert_eq!(find(&tokens, now), stands.then_some(Err(check)), "{check:?} at {now}");
            }
        }
    }

    #[test]
    fn what_was_said_of_a_token_is_not_said_again_once_it_was_admitted() {
        let tokens = KnownTokens::new(10);
        tokens.refuse("token", Check::TokenExpired, 0, KEYS, 100);
        let valid = Validity { from: 10, expires: 60 };
        tokens.admit("token", (Arc::new(()), "acme".into(), 0), KEYS, valid);
        assert_eq!(find(&tokens, 50), Some(Ok(())));
        assert_eq!(find(&tokens, 60), None, "it is looked at again");
        assert_eq!(find(&tokens, 100), None);
    }
}
