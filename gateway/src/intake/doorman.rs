//! Finds out who a request is made for, at the cost of a lookup for whoever is known already.
//!
//! Whatever is presented must hold, even where the route would admit a stranger: a broken credential is a
//! mistake that its owner wants to hear of. Failing closed, every way out is a caller or a refusal.
//!
//! A failed authentication is told to whoever counts them per client address (`Refusal::suspect`). It must be
//! counted *after* this file has answered: then an exhausted address is refused only where it would have been
//! refused anyway, and valid credentials from the same address are never locked out.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use http::{HeaderMap, HeaderName};
use quick_cache::sync::Cache;

use super::access::Access;
use super::api_keys::ApiKeys;
use super::caller::{ANONYMOUS, Caller, Kind};
use super::check::Check;
use super::credentials::Presented;
use super::jwks::KeySet;
use super::jws::Jws;
use super::jwt::Issuer;
use super::known_tokens::{KnownTokens, Verdict};
use super::verifications::Verifications;
use super::{jws, jwt};
use crate::rejection::Rejection;

/// Verifies credentials and remembers, for each, a `K`: the caller with whatever its requests will need.
pub struct Doorman<K> {
    api_keys: Option<Desk<K>>,
    issuers: Box<[Issuer]>,
    tokens: KnownTokens<K>,
    anonymous: Option<AnonymousTier>,
    strangers: Cache<IpAddr, Arc<K>>,
    /// `None` checks every signature, whatever that costs.
    verifications: Option<Verifications>,
    enroll: Box<dyn Fn(Caller) -> K + Send + Sync>,
}

/// The keys, with a place for what each one's requests need. Bounded by the key file, so nothing is evicted and
/// no flood of other credentials can push a key's entry out.
struct Desk<K> {
    keys: ApiKeys,
    enrolled: Box<[OnceLock<Arc<K>>]>,
}

/// The tier of callers without credentials.
#[derive(Debug, Clone)]
pub struct AnonymousTier(pub Arc<str>);

/// Why a request comes from nobody that we know.
#[derive(Debug)]
pub struct Refusal {
    pub rejection: Rejection,
    /// The failed check's word, for the log.
    pub check: &'static str,
    /// Whether this is a failed authentication, to be counted against the client's address.
    pub suspect: bool,
}

/// Two issuers whose tokens cannot be told apart, by their names in the config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SameIssuer {
    pub first: Arc<str>,
    pub second: Arc<str>,
}

/// A credential that holds.
struct Holder<K> {
    kept: Arc<K>,
    tenant: Arc<str>,
}

impl<K> Doorman<K> {
    /// Remembers at most `capacity` verified tokens, as many refused ones, and as many strangers. `enroll` is
    /// called once for each that is remembered anew.
    ///
    /// # Errors
    /// If two issuers have the same `iss`.
    pub fn new(
        api_keys: Option<ApiKeys>,
        issuers: Vec<Issuer>,
        anonymous: Option<AnonymousTier>,
        capacity: usize,
        enroll: impl Fn(Caller) -> K + Send + Sync + 'static,
    ) -> Result<Self, SameIssuer> {
        for (at, second) in issuers.iter().enumerate() {
            if let Some(first) = issuers[..at].iter().find(|first| first.issuer() == second.issuer()) {
                return Err(SameIssuer {
                    first: first.name().clone(),
                    second: second.name().clone(),
                });
            }
        }
        let api_keys = api_keys.map(|keys| {
            let enrolled = (0..keys.len()).map(|_| OnceLock::new()).collect();
            Desk { keys, enrolled }
        });
        Ok(Self {
            api_keys,
            issuers: issuers.into(),
            tokens: KnownTokens::new(capacity),
            anonymous,
            strangers: Cache::new(capacity),
            verifications: None,
            enroll: Box::new(enroll),
        })
    }

    /// The same, with a budget for signatures that nobody has looked at yet.
    #[must_use]
    pub fn within(self, verifications: Option<Verifications>) -> Self {
        Self { verifications, ..self }
    }

    pub fn verifications(&self) -> Option<&Verifications> {
        self.verifications.as_ref()
    }

    /// The header that API keys come in, which must not be passed on.
    pub fn api_key_header(&self) -> Option<&HeaderName> {
        self.api_keys.as_ref().map(|desk| desk.keys.header())
    }

    pub fn api_keys(&self) -> Option<&ApiKeys> {
        self.api_keys.as_ref().map(|desk| &desk.keys)
    }

    pub fn issuers(&self) -> &[Issuer] {
        &self.issuers
    }

    /// Who the request is made for. Where a key and a token are presented, both must hold and name one
    /// tenant; the caller is then the token's subject if the route admits tokens, else the key's holder.
    ///
    /// `client` is the client's address as strangers are told apart by it (IPv6 cut to its prefix).
    ///
    /// # Errors
    /// A 401, with the check that failed.
    pub fn identify(
        &self,
        headers: &HeaderMap,
        access: &Access,
        client: IpAddr,
        unix_now: u64,
    ) -> Result<Arc<K>, Refusal> {
        self.find(headers, access, client, unix_now)
            .map_err(|check| access.refuse(check))
    }

    fn find(&self, headers: &HeaderMap, access: &Access, client: IpAddr, unix_now: u64) -> Result<Arc<K>, Check> {
        let presented = Presented::read(headers, self.api_key_header(), !self.issuers.is_empty())?;
        let by_key = presented
            .api_key
            .map(|key| self.holder_of_key(key, unix_now))
            .transpose()?;
        let by_token = presented
            .token
            .map(|token| self.holder_of_token(token, client, unix_now))
            .transpose()?;

        if let (Some(key), Some((token, _))) = (&by_key, &by_token)
            && key.tenant != token.tenant
        {
            return Err(Check::TenantsDiffer);
        }
        let is_stranger = by_key.is_none() && by_token.is_none();
        match (by_token, by_key) {
            (Some((token, issuer)), _) if access.admits_issuer(issuer.name()) => Ok(token.kept),
            (_, Some(key)) if access.admits(&Kind::ApiKey) => Ok(key.kept),
            _ => match &self.anonymous {
                Some(tier) if access.admits(&Kind::Anonymous) => Ok(self.stranger(client, tier)),
                _ if is_stranger => Err(Check::Absent),
                _ => Err(Check::WrongKind),
            },
        }
    }

    fn holder_of_key(&self, presented: &[u8], unix_now: u64) -> Result<Holder<K>, Check> {
        let desk = self.api_keys.as_ref().ok_or(Check::KeyUnknown)?;
        let row = desk.keys.find(presented, unix_now)?;
        let kept = desk.enrolled[row].get_or_init(|| Arc::new((self.enroll)(desk.keys.caller(row))));
        Ok(Holder {
            kept: kept.clone(),
            tenant: desk.keys.tenant(row).clone(),
        })
    }

    fn holder_of_token(&self, token: &str, client: IpAddr, unix_now: u64) -> Result<(Holder<K>, &Issuer), Check> {
        if token.len() > jws::MAX_LENGTH {
            return Err(Check::TokenTooLarge);
        }
        let fingerprint = |issuer: usize| self.issuers[issuer].keys().current().fingerprint();
        let (kept, tenant, issuer) = match self.tokens.find(token, fingerprint, unix_now) {
            Some(verdict) => verdict?,
            None => self.verify(token, client, unix_now)?,
        };
        Ok((Holder { kept, tenant }, &self.issuers[issuer]))
    }

    /// The slow path: one signature check, as a rule, and the verdict is remembered.
    fn verify(&self, token: &str, client: IpAddr, unix_now: u64) -> Verdict<K> {
        let jws = Jws::parse(token)?;
        let claims = jwt::claims_of(&jws)?;
        let (at, issuer) = jwt::claimed(&self.issuers, &claims)?;
        if !issuer.takes_type(jws.typ) {
            return Err(Check::TokenType);
        }
        let keys = issuer.keys().current();
        let verdict = self
            .check_signature(&keys, &jws, token, client)
            .and_then(|()| issuer.caller(claims, unix_now));
        match verdict {
            Ok(caller) => {
                let (tenant, expires) = (caller.tenant.clone(), caller.expires.unwrap_or(unix_now));
                let kept = Arc::new((self.enroll)(caller));
                if let Some(budget) = &self.verifications {
                    budget.remember(token);
                }
                self.tokens
                    .admit(token, (kept.clone(), tenant.clone(), at), keys.fingerprint(), expires);
                Ok((kept, tenant, at))
            }
            Err(check) => {
                if check == Check::KeyIdUnknown {
                    issuer.keys().ask_for_renewal();
                }
                if check.is_lasting() {
                    self.tokens.refuse(token, check, at, keys.fingerprint());
                }
                Err(check)
            }
        }
    }

    /// HMAC costs less than keeping count of it.
    fn check_signature(&self, keys: &KeySet, jws: &Jws<'_>, token: &str, client: IpAddr) -> Result<(), Check> {
        let candidates = keys.candidates(jws)?;
        let budget = self.verifications.as_ref().filter(|_| !jws.algorithm.is_hmac());
        let leave = budget.map(|budget| budget.begin(token, client)).transpose()?;
        let verdict = candidates.verify(jws);
        if let Some(leave) = leave {
            leave.end(verdict.is_ok());
        }
        verdict
    }

    fn stranger(&self, client: IpAddr, tier: &AnonymousTier) -> Arc<K> {
        if let Some(kept) = self.strangers.get(&client) {
            return kept;
        }
        let kept = Arc::new((self.enroll)(Caller {
            tenant: ANONYMOUS.into(),
            id: client.to_string().into(),
            tier: Some(tier.0.clone()),
            scopes: Box::default(),
            kind: Kind::Anonymous,
            claims: None,
            configured: false,
            expires: None,
        }));
        self.strangers.insert(client, kept.clone());
        kept
    }
}

impl<K> std::fmt::Debug for Doorman<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Doorman")
            .field("issuers", &self.issuers)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Display for SameIssuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { first, second } = self;
        write!(
            f,
            "`{first}` and `{second}` have the same `issuer`: put their audiences and keys into one of them"
        )
    }
}

impl std::error::Error for SameIssuer {}

#[cfg(test)]
mod tests;
