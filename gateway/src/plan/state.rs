//! State that outlives a plan, kept by name: accounts, guards, endpoints with their pools, signing keys, metrics.
//!
//! A new plan takes over the state whose name it still uses. Unused state is dropped with the last request that holds
//! it. Compiling a plan changes no limits, because the plan may still be rejected as mistaken.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::auth::basic::checks::PasswordChecks;
use crate::auth::basic::password_cache::KnownPasswords;
use crate::auth::jwt::jws::Algorithm;
use crate::auth::jwt::live_keys::LiveKeys;
use crate::auth::verifications::VerificationWork;
use crate::call::backend::Guards;
use crate::call::endpoints::Endpoint;
use crate::headers::Via;
use crate::json::Workspace;
use crate::limits::store::local::Accounts;
use crate::observe::Observer;
use crate::plan::Plan;
use crate::plan::revocation_store::RevocationStore;
use crate::stale_cache::StaleCache;
use crate::wire::parked::ParkedBytes;

/// Number of verified tokens that are remembered across reloads.
const TOKENS: usize = 10_000;

/// Number of wrong passwords that are remembered, so that each is hashed only once.
const WRONG_PASSWORDS: usize = 10_000;

/// Memory for good responses in the stale cache, in bytes.
const STALE: u64 = 64 << 20;

pub struct State {
    pub accounts: Accounts,
    /// Good responses, for stale fallbacks.
    pub stale: Arc<StaleCache>,
    /// Parses JSON bodies and holds the memory budget for them.
    pub workspace: Arc<Workspace>,
    /// HTTP/2 request bodies that have arrived but are not read yet.
    pub parked: Arc<ParkedBytes>,
    pub observer: Arc<Observer>,
    /// Name of this process in the `Via` field.
    pub via: Via,
    pub known_passwords: Arc<KnownPasswords>,
    pub password_checks: Arc<PasswordChecks>,
    /// Revoked credentials.
    pub revocations: RevocationStore,
    pub verification_work: Arc<VerificationWork>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
pub(super) struct Kept {
    pub(super) guards: HashMap<Arc<str>, Arc<Guards>>,
    pub(super) endpoints: HashMap<EndpointName, Arc<Endpoint>>,
    pub(super) keys: HashMap<KeysName, Arc<LiveKeys>>,
}

/// Identity of an endpoint. Other TLS settings make a new endpoint, because pooled connections use the old settings.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct EndpointName {
    pub(super) backend: Arc<str>,
    pub(super) url: Arc<str>,
    pub(super) tls: Option<TlsTerms>,
    pub(super) in_http2: bool,
}

/// TLS settings of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct TlsTerms {
    /// SHA-256 of the trusted certificate authorities.
    pub(super) authorities: [u8; 32],
    /// SHA-256 of the client certificate.
    pub(super) own: Option<[u8; 32]>,
    pub(super) name: Option<Arc<str>>,
    pub(super) only_1_3: bool,
}

/// Identity of a fetched key set: the issuer's name, the URL and the accepted algorithms.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct KeysName {
    pub(super) issuer: Arc<str>,
    pub(super) url: Arc<str>,
    pub(super) algorithms: Vec<Algorithm>,
}

/// Number of threads for work that must not delay requests: a quarter of the cores, between 1 and 4.
fn a_quarter_of_the_cores() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 4).clamp(1, 4))
}

impl State {
    pub fn new(observer: Arc<Observer>) -> Self {
        Self {
            // Initial cap; the first plan sets its own.
            accounts: Accounts::new(100_000),
            stale: Arc::new(StaleCache::new(STALE)),
            workspace: Arc::new(Workspace::new(a_quarter_of_the_cores())),
            parked: Arc::default(),
            observer,
            via: Via::unique(),
            known_passwords: Arc::new(KnownPasswords::new(WRONG_PASSWORDS)),
            password_checks: Arc::new(PasswordChecks::new(a_quarter_of_the_cores())),
            verification_work: Arc::new(VerificationWork::new(TOKENS)),
            revocations: RevocationStore::default(),
            kept: Mutex::default(),
        }
    }

    /// Drops the state that the plan in force does not use. Requests that still hold some of it keep it alive.
    pub(crate) fn forget_all_but(&self, plan: &Plan) {
        let mut kept = self.kept();
        kept.guards
            .retain(|name, _| plan.backends.iter().any(|backend| backend.name == *name));
        kept.endpoints.retain(|_, endpoint| {
            plan.backends
                .iter()
                .flat_map(|backend| backend.endpoints.all())
                .any(|used| Arc::ptr_eq(used, endpoint))
        });
        let issuers = plan.authenticator.issuers();
        kept.keys
            .retain(|_, keys| issuers.iter().any(|issuer| Arc::ptr_eq(issuer.keys(), keys)));
    }

    pub(super) fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
