//! Identifies the caller of a request from its credentials. A known caller costs one lookup.
//!
//! Invariant: the result is a verified caller or a refusal; any doubt is a refusal. Every presented credential of a
//! kind that the route admits must be valid, even where the route also admits anonymous callers, because the owner of a
//! broken credential should learn of it. Credentials of other kinds are not read.
//!
//! `Refusal::suspect` marks failed authentications, which are counted per client address. The count must be updated
//! *after* this file has answered. Then an exhausted address is refused only where it would be refused anyway, and
//! valid credentials from the same address are never locked out.
//!
//! Three checks are slow: a password that has not been compared yet, a token whose key has to be fetched, and a
//! question to the external service. They are awaited here, and then only that credential's own check goes on. For any
//! other request the answer is ready at once.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderName;
use policies::Moment;
use quick_cache::sync::Cache;

use crate::auth::access::{Access, CredentialKinds};
use crate::auth::api_key::keys::{ApiKey, ApiKeys};
use crate::auth::basic::password_check::{Compared, PasswordCheck};
use crate::auth::basic::users::{LoginFailure, Passwords};
use crate::auth::caller::{ANONYMOUS, Caller, Kind};
use crate::auth::check::Check;
use crate::auth::credentials::Presented;
use crate::auth::external::known_answers::KnownCaller;
use crate::auth::external::question::{QuestionKey, RequestFacts};
use crate::auth::external::{Answered, ExternalCallers, PendingQuestion, ServiceRefusal, Step};
use crate::auth::jwt::issuer::Issuer;
use crate::auth::jwt::jws::Jws;
use crate::auth::jwt::key_fetch::Source;
use crate::auth::jwt::key_set::KeySet;
use crate::auth::jwt::key_wait::{KeyWait, Lacked};
use crate::auth::jwt::token_cache::{Admission, KnownTokens, Validity};
use crate::auth::jwt::{issuer, jws};
use crate::auth::mtls::holders::CertificateHolders;
use crate::auth::refusal::Refusal;
use crate::auth::verifications::Verifications;
use crate::clock::{self, Now};
use crate::limits::Charge;
use crate::limits::reserved::Reserved;
use crate::message::FieldMap;
use crate::rejection::Rejection;
use crate::setting::SettingId;
use crate::tls::certificate::Certificate;

/// Time until a caller may retry when its password was not compared.
const SOON: Duration = Duration::from_secs(1);

/// Verifies credentials and caches a `K` for each: the caller with everything that its requests need.
pub struct Authenticator<K> {
    api_keys: Option<ArcSwap<ApiKeyTable<K>>>,
    /// Header field that carries API keys.
    api_key_header: Option<HeaderName>,
    issuers: Box<[Issuer]>,
    tokens: KnownTokens<K>,
    certificates: Option<CertificateTable<K>>,
    passwords: Option<UserTable<K>>,
    external: Option<ExternalTable<K>>,
    anonymous: Option<AnonymousTier>,
    strangers: Cache<IpAddr, Arc<K>>,
    /// Budget for signature checks. `None` checks every signature, whatever the cost.
    verifications: Option<Verifications>,
    build_principal: Box<dyn Fn(Caller) -> K + Send + Sync>,
    capacity: usize,
    /// Final check of every valid credential, called for each request.
    standing: FinalCheck<K>,
}

/// Origin of a request.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a> {
    /// Client address as limits use it: an IPv6 address is cut to its prefix.
    pub address: IpAddr,
    /// Certificate of the connection, or the reason why it does not count.
    pub certificate: Option<Result<&'a Certificate, Check>>,
    /// Facts of the request that the external service may be told; `None` identifies nobody by it.
    pub facts: Option<RequestFacts<'a>>,
    /// Whether this request has already waited for the issuer's keys. A key that is missing even then does not exist.
    has_waited: bool,
}

/// Time that a request waits for a slow check, and the charge for a failed one.
pub struct WaitTerms<'a> {
    /// Time by which the keys of a token's issuer, or the answer of the external service, must have come.
    pub keys_until: Moment,
    /// Setting that this time comes from; `None` if the caller set it.
    pub keys_until_by: Option<SettingId>,
    /// Time by which a password must have been compared.
    pub comparison_until: Moment,
    /// Returns the charge for a failed comparison, which is taken in advance; `None` if failures are not limited.
    pub failure: Box<dyn FnOnce() -> Option<Charge> + Send + 'a>,
}

impl<'a> Client<'a> {
    pub const fn new(address: IpAddr, certificate: Option<Result<&'a Certificate, Check>>) -> Self {
        Self {
            address,
            certificate,
            facts: None,
            has_waited: false,
        }
    }

    /// Lets the external service be told this of the request.
    #[must_use]
    pub const fn with_facts(self, facts: RequestFacts<'a>) -> Self {
        Self {
            facts: Some(facts),
            ..self
        }
    }
}

impl From<IpAddr> for Client<'_> {
    fn from(address: IpAddr) -> Self {
        Self::new(address, None)
    }
}

/// Checks whether a cached credential is still valid at a time, in seconds since 1970. Returns what takes the place of
/// the cached entry, if something does.
type FinalCheck<K> = Box<dyn Fn(&Arc<K>, u64) -> Result<Option<Arc<K>>, Check> + Send + Sync>;

/// The API keys, with a cached entry for each. Bounded by the key file: nothing is evicted, and a flood of other
/// credentials cannot displace a key's entry. A change of a key replaces the table, and keeps the entries of the others.
struct ApiKeyTable<K> {
    keys: Arc<ApiKeys>,
    principals: Box<[OnceLock<Arc<K>>]>,
}

/// Callers by certificate. Entries are found by the certificate's digest, so its names are looked up only once.
struct CertificateTable<K> {
    holders: CertificateHolders,
    known: Cache<[u8; 32], Result<ValidCredential<K>, Check>>,
}

/// The users, with a cached entry for each, as in [`ApiKeyTable`].
struct UserTable<K> {
    passwords: Passwords,
    principals: Box<[OnceLock<Arc<K>>]>,
}

/// Callers that the external service has named, with a cached entry for each answer.
struct ExternalTable<K> {
    callers: ExternalCallers,
    principals: Cache<QuestionKey, (Arc<KnownCaller>, Arc<K>)>,
}

/// The tier of callers without credentials.
#[derive(Debug, Clone)]
pub struct AnonymousTier(pub Arc<str>);

/// Reason why no caller was found.
enum LookupFailure {
    Failed(Check),
    /// A failed check that has already been charged to the client's address.
    Charged(Check),
    /// Credentials that are missing where the route requires several together.
    Incomplete(CredentialKinds),
    /// A slow check did not come to its end.
    Unfinished(Refusal),
    /// The keys of a token's issuer are not there. Holds the issuer's setting.
    KeysUnavailable(SettingId),
    RefusedByService(Arc<ServiceRefusal>),
}

impl From<Check> for LookupFailure {
    fn from(check: Check) -> Self {
        Self::Failed(check)
    }
}

impl From<Rejection> for LookupFailure {
    fn from(rejection: Rejection) -> Self {
        Self::Unfinished(rejection.into())
    }
}

/// Reason why a token identifies no caller yet.
enum TokenFailure {
    Failed(Check),
    LacksKey(Box<KeyWait>),
    /// The keys of the token's issuer are not there, and waiting does not help. Holds the issuer's setting.
    KeysUnavailable(SettingId),
}

impl From<Check> for TokenFailure {
    fn from(check: Check) -> Self {
        Self::Failed(check)
    }
}

/// A caller that a token identifies, and the issuer of the token.
type TokenHolder<'i, K> = (ValidCredential<K>, &'i Issuer);

/// Two issuers whose tokens cannot be told apart, by their names in the config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SameIssuer {
    pub first: Arc<str>,
    pub second: Arc<str>,
}

/// Result of looking among the stored answers of the external service.
enum Looked<K> {
    Nothing,
    Caller(ValidCredential<K>),
    Ask(Box<PendingQuestion>),
}

/// The cached entry of a valid credential.
struct ValidCredential<K> {
    kept: Arc<K>,
    tenant: Arc<str>,
}

impl<K> Authenticator<K> {
    /// Caches at most `capacity` verified tokens, as many refused tokens and as many anonymous callers. `build_principal` is
    /// called once for each new entry.
    ///
    /// # Errors
    /// If two issuers have the same `iss`.
    pub fn new(
        api_keys: Option<ApiKeys>,
        issuers: Vec<Issuer>,
        anonymous: Option<AnonymousTier>,
        capacity: usize,
        build_principal: impl Fn(Caller) -> K + Send + Sync + 'static,
    ) -> Result<Self, SameIssuer> {
        for (at, second) in issuers.iter().enumerate() {
            if let Some(first) = issuers[..at].iter().find(|first| first.issuer() == second.issuer()) {
                return Err(SameIssuer {
                    first: first.name().clone(),
                    second: second.name().clone(),
                });
            }
        }
        let api_key_header = api_keys.as_ref().map(|keys| keys.header().clone());
        let api_keys = api_keys.map(|keys| {
            let principals = (0..keys.len()).map(|_| OnceLock::new()).collect();
            let keys = Arc::new(keys);
            ArcSwap::from_pointee(ApiKeyTable { keys, principals })
        });
        Ok(Self {
            api_keys,
            api_key_header,
            issuers: issuers.into(),
            tokens: KnownTokens::new(capacity),
            certificates: None,
            passwords: None,
            external: None,
            anonymous,
            strangers: Cache::new(capacity),
            verifications: None,
            build_principal: Box::new(build_principal),
            capacity,
            standing: Box::new(|_, _| Ok(None)),
        })
    }

    /// Identifies callers by certificate as well.
    #[must_use]
    pub fn with_certificates(mut self, holders: Option<CertificateHolders>) -> Self {
        self.certificates = holders.map(|holders| CertificateTable {
            holders,
            known: Cache::new(self.capacity),
        });
        self
    }

    /// Identifies callers by password as well.
    #[must_use]
    pub fn with_passwords(mut self, passwords: Option<Passwords>) -> Self {
        self.passwords = passwords.map(|passwords| UserTable {
            principals: (0..passwords.len()).map(|_| OnceLock::new()).collect(),
            passwords,
        });
        self
    }

    /// Identifies callers by the external service as well.
    #[must_use]
    pub fn with_external(mut self, callers: Option<ExternalCallers>) -> Self {
        self.external = callers.map(|callers| ExternalTable {
            principals: Cache::new(callers.settings().entries),
            callers,
        });
        self
    }

    /// Returns the external service.
    pub fn external(&self) -> Option<&ExternalCallers> {
        Some(&self.external.as_ref()?.callers)
    }

    /// Requires that a valid credential also passes `standing`, which is called for every request, and which may return
    /// another entry for the same caller.
    #[must_use]
    pub fn with_final_check(
        self,
        standing: impl Fn(&Arc<K>, u64) -> Result<Option<Arc<K>>, Check> + Send + Sync + 'static,
    ) -> Self {
        Self {
            standing: Box::new(standing),
            ..self
        }
    }

    /// Sets the budget for checking signatures of tokens that are not cached.
    #[must_use]
    pub fn within(self, verifications: Option<Verifications>) -> Self {
        Self { verifications, ..self }
    }

    pub fn verifications(&self) -> Option<&Verifications> {
        self.verifications.as_ref()
    }

    /// Header field that carries API keys.
    pub fn api_key_header(&self) -> Option<&HeaderName> {
        self.api_key_header.as_ref()
    }

    /// Returns the keys in force.
    pub fn api_keys(&self) -> Option<Arc<ApiKeys>> {
        self.api_keys.as_ref().map(|table| Arc::clone(&table.load().keys))
    }

    /// Puts other keys in force, from the next request on. Without API keys in the config, nothing changes.
    pub fn replace_api_keys(&self, keys: ApiKeys) {
        let Some(table) = &self.api_keys else { return };
        let old = table.load();
        let kept = |key: &ApiKey| {
            let row = old.keys.row_of(&key.digest)?;
            let is_same = old.keys.all()[row] == *key;
            old.principals[row].get().filter(|_| is_same).cloned()
        };
        let principals = keys
            .all()
            .iter()
            .map(|key| kept(key).map_or_else(OnceLock::new, OnceLock::from));
        let principals = principals.collect();
        let keys = Arc::new(keys);
        table.store(Arc::new(ApiKeyTable { keys, principals }));
    }

    pub fn issuers(&self) -> &[Issuer] {
        &self.issuers
    }

    /// Identifies the caller of a request. Of the kinds that the route admits, every presented credential must be
    /// valid, and all must name one tenant. The caller is the one that the external service names, else the token's
    /// subject, else the API key's owner, else the user, else the certificate's owner: the order goes from credentials
    /// issued to a person to credentials issued to a machine. The service is asked last, and only if the request has no
    /// other credential that the route admits, or if the route requires several together and all others are there.
    ///
    /// A certificate belongs to the connection, not to the request. So it counts only where the route admits
    /// certificates. There, a certificate that identifies no caller is ignored if another credential was presented and
    /// the route does not require several together. A certificate that cannot be read, or that no authority vouches
    /// for, always fails there.
    ///
    /// Ready at once unless a slow check is needed. `begin_wait` is called before such a check, and may refuse it.
    ///
    /// # Errors
    /// A 401 with the failed check, or the reason why a slow check was not made or did not end in time.
    pub async fn identify<'a, 'w>(
        &self,
        headers: &FieldMap,
        access: &Access,
        client: impl Into<Client<'a>>,
        unix_now: u64,
        begin_wait: impl FnMut() -> Result<WaitTerms<'w>, Rejection>,
    ) -> Result<Arc<K>, Refusal> {
        let found = self.find(headers, access, client.into(), unix_now, begin_wait).await;
        found.map_err(|failure| match failure {
            LookupFailure::Failed(check) => access.refuse(check),
            LookupFailure::Charged(check) => Refusal {
                suspect: false,
                ..access.refuse(check)
            },
            LookupFailure::Incomplete(lacks) => access.refuse_incomplete(lacks),
            LookupFailure::Unfinished(refusal) => refusal,
            LookupFailure::KeysUnavailable(issuer) => access.refuse_without_keys(issuer),
            LookupFailure::RefusedByService(refusal) => access.refuse_external(&refusal),
        })
    }

    /// Identifies a caller as if it had presented a valid credential of its kind.
    ///
    /// # Errors
    /// The route does not admit that kind, or the credential is refused for another reason than its form.
    pub fn assume(&self, caller: Caller, access: &Access, unix_now: u64) -> Result<Arc<K>, Refusal> {
        if !access.admits(&caller.kind) {
            return Err(access.refuse(Check::WrongKind));
        }
        let kept = Arc::new((self.build_principal)(caller));
        match (self.standing)(&kept, unix_now) {
            Ok(newer) => Ok(newer.unwrap_or(kept)),
            Err(check) => Err(access.refuse(check)),
        }
    }

    async fn find<'w>(
        &self,
        headers: &FieldMap,
        access: &Access,
        client: Client<'_>,
        mut unix_now: u64,
        mut begin_wait: impl FnMut() -> Result<WaitTerms<'w>, Rejection>,
    ) -> Result<Arc<K>, LookupFailure> {
        let key_header = self.api_key_header().filter(|_| access.admits(&Kind::ApiKey));
        let tokens = !self.issuers.is_empty() && access.admits_tokens();
        let passwords = self.passwords.is_some() && access.admits(&Kind::Basic);
        let presented = Presented::read(headers, key_header, tokens, passwords)?;
        let mut by_key = presented
            .api_key
            .map(|key| self.holder_of_key(key, unix_now))
            .transpose()?;
        let external = self.external.as_ref().filter(|_| access.admits(&Kind::External));
        let by_token = match presented
            .token
            .map(|token| (token, self.holder_of_token(token, client, unix_now)))
        {
            None => None,
            Some((_, Ok(holder))) => Some(holder),
            Some((_, Err(TokenFailure::Failed(check)))) => return Err(check.into()),
            Some((_, Err(TokenFailure::KeysUnavailable(issuer)))) => {
                return Err(LookupFailure::KeysUnavailable(issuer));
            }
            Some((token, Err(TokenFailure::LacksKey(wait)))) => {
                let terms = begin_wait()?;
                let holder = Box::pin(self.await_keys(*wait, token, client, terms.keys_until)).await?;
                unix_now = clock::unix_seconds();
                Some(holder)
            }
        };
        let has_external = external.is_some_and(|table| table.callers.is_presented(headers));
        let mut by_certificate = match client.certificate {
            Some(certificate) if access.admits(&Kind::Mtls) => {
                match self.holder_of_certificate(certificate?, unix_now) {
                    Ok(holder) => Some(holder),
                    Err(check) if (presented.is_empty() && !has_external) || access.is_together() => {
                        return Err(check.into());
                    }
                    Err(_) => None,
                }
            }
            _ => None,
        };
        // Passwords come last: a failure of another credential makes the slow comparison unnecessary.
        let mut by_password = match presented.password.map(|password| self.holder_of_password(password)) {
            None => None,
            Some(Ok(holder)) => Some(holder),
            Some(Err(LoginFailure::Failed(check))) => return Err(check.into()),
            Some(Err(LoginFailure::Unchecked(check))) => {
                let terms = begin_wait()?;
                let holder = Box::pin(self.compare(*check, client.address, terms)).await?;
                unix_now = clock::unix_seconds();
                Some(holder)
            }
        };

        let mut held = CredentialKinds {
            jwt: matches!(&by_token, Some((_, issuer)) if access.admits_issuer(issuer.name())),
            api_key: by_key.is_some() && access.admits(&Kind::ApiKey),
            basic: by_password.is_some() && access.admits(&Kind::Basic),
            mtls: by_certificate.is_some(),
            external: has_external,
        };
        let mut by_external = None;
        if has_external
            && let Some(table) = external
            && if access.is_together() {
                access.lacks(held).is_none()
            } else {
                presented.is_empty() && by_certificate.is_none()
            }
        {
            let facts = client.facts.ok_or(Check::WrongKind)?;
            by_external = match self.look_up(table, headers, facts, unix_now)? {
                Looked::Nothing => None,
                Looked::Caller(holder) => Some(holder),
                Looked::Ask(pending) => {
                    let terms = begin_wait()?;
                    let holder = Box::pin(self.ask(table, pending, terms)).await?;
                    unix_now = clock::unix_seconds();
                    Some(holder)
                }
            };
        }
        held.external = by_external.is_some();
        let mut by_token = by_token.map(|(holder, _)| holder);
        let holders = [
            &mut by_external,
            &mut by_token,
            &mut by_key,
            &mut by_password,
            &mut by_certificate,
        ];
        for holder in holders.into_iter().flatten() {
            if let Some(newer) = (self.standing)(&holder.kept, unix_now)? {
                holder.kept = newer;
            }
        }
        let is_stranger = !have_one_tenant([&by_external, &by_token, &by_key, &by_password, &by_certificate])?;
        if access.is_together()
            && let Some(lacks) = access.lacks(held)
        {
            return Err(if is_stranger {
                Check::Absent.into()
            } else {
                LookupFailure::Incomplete(lacks)
            });
        }
        let acting = [
            by_external,
            by_token.filter(|_| held.jwt),
            by_key.filter(|_| held.api_key),
            by_password.filter(|_| held.basic),
            by_certificate,
        ];
        if let Some(holder) = acting.into_iter().flatten().next() {
            return Ok(holder.kept);
        }
        match &self.anonymous {
            Some(tier) if access.admits(&Kind::Anonymous) => Ok(self.stranger(client.address, tier)),
            _ if is_stranger && !self.is_anything_there(headers) => Err(Check::Absent.into()),
            _ => Err(Check::WrongKind.into()),
        }
    }

    /// Whether any credential of a configured kind is presented, well formed or not.
    fn is_anything_there(&self, headers: &FieldMap) -> bool {
        let (tokens, passwords) = (!self.issuers.is_empty(), self.passwords.is_some());
        let presented = Presented::read(headers, self.api_key_header(), tokens, passwords);
        let is_external = self
            .external
            .as_ref()
            .is_some_and(|table| table.callers.is_presented(headers));
        is_external || !matches!(presented, Ok(presented) if presented.is_empty())
    }

    fn holder_of_certificate(&self, certificate: &Certificate, unix_now: u64) -> Result<ValidCredential<K>, Check> {
        let table = self.certificates.as_ref().ok_or(Check::CertificateUnknown)?;
        // The connection may outlive its certificate.
        if unix_now >= certificate.expires {
            return Err(Check::CertificateExpired);
        }
        // The certificate was valid when the connection was made, but the clock may have been wrong then.
        if unix_now < certificate.not_before {
            return Err(Check::CertificateNotYetValid);
        }
        if let Some(verdict) = table.known.get(&certificate.digest) {
            return verdict;
        }
        let verdict = table.holders.find(certificate).map(|caller| ValidCredential {
            tenant: caller.tenant.clone(),
            kept: Arc::new((self.build_principal)(caller)),
        });
        table.known.insert(certificate.digest, verdict.clone());
        verdict
    }

    fn holder_of_password(&self, presented: &str) -> Result<ValidCredential<K>, LoginFailure> {
        let table = self.passwords.as_ref().ok_or(Check::UserUnknown)?;
        let row = table.passwords.find(presented)?;
        Ok(self.user(table, row))
    }

    fn user(&self, table: &UserTable<K>, row: usize) -> ValidCredential<K> {
        let kept = table.principals[row].get_or_init(|| Arc::new((self.build_principal)(table.passwords.caller(row))));
        ValidCredential {
            kept: kept.clone(),
            tenant: table.passwords.tenant(row).clone(),
        }
    }

    /// Waits for the comparison of a password.
    async fn compare(
        &self,
        check: PasswordCheck,
        client: IpAddr,
        terms: WaitTerms<'_>,
    ) -> Result<ValidCredential<K>, LookupFailure> {
        let table = self.passwords.as_ref().ok_or(Check::UserUnknown)?;
        let row = check.row();
        let Compared { is_right, is_charged } = check.compare(client, terms.comparison_until, terms.failure).await?;
        let is_right = is_right.ok_or(Check::PasswordUnchecked { retry_after: SOON })?;
        match table.passwords.judge(row, is_right) {
            Ok(row) => Ok(self.user(table, row)),
            Err(check) if is_charged => Err(LookupFailure::Charged(check)),
            Err(check) => Err(check.into()),
        }
    }

    /// Waits until it is known whether the key that a token lacks exists, and then checks the token with it.
    async fn await_keys(
        &self,
        wait: KeyWait,
        token: &str,
        client: Client<'_>,
        until: Moment,
    ) -> Result<TokenHolder<'_, K>, LookupFailure> {
        let lacked = wait.check;
        wait.done(until).await.map_err(|rejection| {
            LookupFailure::Unfinished(Refusal {
                check: Some(lacked.as_str()),
                ..rejection.into()
            })
        })?;
        let client = Client {
            has_waited: true,
            ..client
        };
        self.holder_of_token(token, client, clock::unix_seconds())
            .map_err(|failure| match failure {
                TokenFailure::Failed(check) => check.into(),
                TokenFailure::LacksKey(wait) if wait.check == Check::KeysUnavailable => {
                    LookupFailure::KeysUnavailable(wait.issuer)
                }
                TokenFailure::LacksKey(wait) => wait.check.into(),
                TokenFailure::KeysUnavailable(issuer) => LookupFailure::KeysUnavailable(issuer),
            })
    }

    /// Looks for a stored answer of the external service.
    fn look_up(
        &self,
        table: &ExternalTable<K>,
        headers: &FieldMap,
        facts: RequestFacts<'_>,
        unix_now: u64,
    ) -> Result<Looked<K>, LookupFailure> {
        match table.callers.look_up(headers, facts, unix_now)? {
            Step::Nothing => Ok(Looked::Nothing),
            Step::Caller(key, known) => {
                table.callers.count_hit();
                Ok(Looked::Caller(self.named(table, key, known)))
            }
            Step::Refused(refusal) => Err(LookupFailure::RefusedByService(refusal)),
            Step::Ask(pending) => Ok(Looked::Ask(pending)),
        }
    }

    /// Asks the external service, or waits for the answer to the same question of another request. An address that has
    /// used up the limit on failures causes no questions.
    async fn ask(
        &self,
        table: &ExternalTable<K>,
        pending: Box<PendingQuestion>,
        terms: WaitTerms<'_>,
    ) -> Result<ValidCredential<K>, LookupFailure> {
        if let Some(failure) = (terms.failure)() {
            // Given back at once: only a refusal is charged, and later.
            drop(Reserved::take(failure, Now::read())?);
        }
        let key = pending.key;
        match table.callers.ask(*pending, terms.keys_until).await {
            Answered::Caller(known) => Ok(self.named(table, key, known)),
            Answered::Refused(refusal) => Err(LookupFailure::RefusedByService(refusal)),
            Answered::Unavailable(unavailable) => Err(LookupFailure::Unfinished(Refusal {
                check: Some(unavailable.check()),
                ..Rejection::IdentityUnavailable {
                    retry_after: unavailable.retry_after,
                    by: unavailable.by,
                }
                .into()
            })),
            Answered::OutOfTime => Err(Rejection::OutOfTime(terms.keys_until_by).into()),
        }
    }

    /// Returns the entry of a caller that the external service has named.
    fn named(&self, table: &ExternalTable<K>, key: QuestionKey, known: Arc<KnownCaller>) -> ValidCredential<K> {
        let tenant = known.caller.tenant.clone();
        if let Some((of, kept)) = table.principals.get(&key)
            && Arc::ptr_eq(&of, &known)
        {
            return ValidCredential { kept, tenant };
        }
        let kept = Arc::new((self.build_principal)(known.caller.clone()));
        if table.callers.is_stored(&known) {
            table.principals.insert(key, (known, Arc::clone(&kept)));
        }
        ValidCredential { kept, tenant }
    }

    fn holder_of_key(&self, presented: &[u8], unix_now: u64) -> Result<ValidCredential<K>, Check> {
        let table = self.api_keys.as_ref().ok_or(Check::KeyUnknown)?.load();
        let row = table.keys.find(presented, unix_now)?;
        let kept = table.principals[row].get_or_init(|| Arc::new((self.build_principal)(table.keys.caller(row))));
        Ok(ValidCredential {
            kept: kept.clone(),
            tenant: table.keys.tenant(row).clone(),
        })
    }

    fn holder_of_token(
        &self,
        token: &str,
        client: Client<'_>,
        unix_now: u64,
    ) -> Result<TokenHolder<'_, K>, TokenFailure> {
        if token.len() > jws::MAX_LENGTH {
            return Err(Check::TokenTooLarge.into());
        }
        let fingerprint = |issuer: usize| self.issuers[issuer].keys().current().fingerprint();
        let (kept, tenant, issuer) = match self.tokens.find(token, fingerprint, unix_now) {
            Some(verdict) => verdict?,
            None => self.verify(token, client, unix_now)?,
        };
        Ok((ValidCredential { kept, tenant }, &self.issuers[issuer]))
    }

    /// Verifies a token that is not cached, usually with one signature check, and caches the verdict.
    fn verify(&self, token: &str, client: Client<'_>, unix_now: u64) -> Result<Admission<K>, TokenFailure> {
        let jws = Jws::parse(token)?;
        let claims = issuer::claims_of(&jws)?;
        let (at, issuer) = issuer::claimed(&self.issuers, &claims)?;
        if !issuer.takes_type(jws.typ) {
            return Err(Check::TokenType.into());
        }
        let keys = issuer.keys().current();
        let verdict = match self.check_signature(&keys, &jws, token, client.address) {
            Err(check) => {
                if !client.has_waited
                    && let Some(source) = issuer.source()
                    && let Some(lacked) = lacked(check, &jws, &keys, source)
                {
                    match (issuer.caller(claims, unix_now), check) {
                        (Ok(_), _) => {
                            let wait = KeyWait::new(issuer.keys(), lacked, source.freshness, check, issuer.setting());
                            if !wait.is_known_absent() {
                                return Err(TokenFailure::LacksKey(Box::new(wait)));
                            }
                        }
                        // A token that would fail even with a good signature does not wait for keys.
                        (Err(other), Check::KeyIdUnknown | Check::KeysUnavailable) => return Err(other.into()),
                        (Err(_), _) => {}
                    }
                }
                Err(check)
            }
            Ok(()) => {
                let from = issuer.valid_from(claims.value());
                issuer.caller(claims, unix_now).map(|caller| (caller, from))
            }
        };
        match verdict {
            Ok((caller, from)) => {
                let expires = caller.expires.unwrap_or(unix_now);
                let (tenant, valid) = (caller.tenant.clone(), Validity { from, expires });
                let kept = Arc::new((self.build_principal)(caller));
                if let Some(budget) = &self.verifications {
                    budget.remember(token);
                }
                self.tokens
                    .admit(token, (kept.clone(), tenant.clone(), at), keys.fingerprint(), valid);
                Ok((kept, tenant, at))
            }
            Err(check) => {
                if check.is_lasting() {
                    self.tokens.refuse(token, check, at, keys.fingerprint(), unix_now);
                }
                Err(match check {
                    Check::KeysUnavailable => TokenFailure::KeysUnavailable(issuer.setting()),
                    check => check.into(),
                })
            }
        }
    }

    /// Checks the signature within the budget. HMAC is exempt, because it costs less than the bookkeeping.
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
        let kept = Arc::new((self.build_principal)(Caller {
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

/// Returns the missing key that may explain a failed check. A token that names a key of the set lacks no key.
fn lacked(check: Check, jws: &Jws<'_>, keys: &KeySet, source: &Source) -> Option<Lacked> {
    let kid = jws.kid.as_deref();
    match check {
        Check::KeyIdUnknown | Check::KeysUnavailable => Some(Lacked::Named(kid.map(Into::into))),
        Check::Signature if !keys.names(kid) => Some(Lacked::NotOf(keys.fingerprint())),
        Check::Algorithm if !keys.names(kid) && source.algorithms.contains(&jws.algorithm) => {
            Some(Lacked::NotOf(keys.fingerprint()))
        }
        _ => None,
    }
}

/// Returns whether any credential is valid. Fails if two of them name different tenants.
fn have_one_tenant<K>(all: [&Option<ValidCredential<K>>; 5]) -> Result<bool, Check> {
    let mut tenants = all.into_iter().flatten().map(|holder| &holder.tenant);
    let first = tenants.next();
    if tenants.any(|tenant| Some(tenant) != first) {
        return Err(Check::TenantsDiffer);
    }
    Ok(first.is_some())
}

impl<K> Clone for ValidCredential<K> {
    fn clone(&self) -> Self {
        Self {
            kept: self.kept.clone(),
            tenant: self.tenant.clone(),
        }
    }
}

impl<K> std::fmt::Debug for Authenticator<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authenticator")
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
