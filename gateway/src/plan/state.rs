//! What outlives a plan, kept by name: accounts, guards, endpoints with their pools, signing keys, metrics.
//!
//! A new plan takes over what still has its name; what no plan names any more is let go with the last request that
//! holds it. Numbers are not changed while a plan is being compiled, since it may yet turn out to be a mistake.

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
use crate::limits::accounts::Accounts;
use crate::observe::Observer;
use crate::plan::Plan;
use crate::plan::revocation_store::RevocationStore;
use crate::stale_cache::StaleCache;
use crate::wire::parked::ParkedBytes;

/// Tokens of which it is remembered through reloads that they were good once.
const TOKENS: usize = 10_000;

/// Wrong passwords that are remembered, so that one is compared once.
const WRONG_PASSWORDS: usize = 10_000;

/// Bytes of good answers that are kept for when backends fail.
const STALE: u64 = 64 << 20;

pub struct State {
    pub accounts: Accounts,
    /// Good answers, for when backends fail.
    pub stale: Arc<StaleCache>,
    /// Where JSON is read, and what of it is held.
    pub workspace: Arc<Workspace>,
    /// What callers have sent ahead of being read.
    pub parked: Arc<ParkedBytes>,
    pub observer: Arc<Observer>,
    /// How this process calls itself to other hops.
    pub via: Via,
    pub known_passwords: Arc<KnownPasswords>,
    pub password_checks: Arc<PasswordChecks>,
    /// Credentials that were taken back.
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

/// Which endpoint, of a backend by its name. Changed terms make another one: its connections were made on the old ones.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct EndpointName {
    pub(super) backend: Arc<str>,
    pub(super) url: Arc<str>,
    pub(super) tls: Option<TlsTerms>,
    pub(super) in_http2: bool,
}

/// On what terms TLS is spoken with an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct TlsTerms {
    /// SHA-256 of the authorities that are trusted.
    pub(super) authorities: [u8; 32],
    /// SHA-256 of the certificate that is shown.
    pub(super) own: Option<[u8; 32]>,
    pub(super) name: Option<Arc<str>>,
    pub(super) only_1_3: bool,
}

/// Which keys that are fetched: those of an issuer by its name, from an address, pinned to algorithms.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct KeysName {
    pub(super) issuer: Arc<str>,
    pub(super) url: Arc<str>,
    pub(super) algorithms: Vec<Algorithm>,
}

/// For work that must not hold up requests: a quarter of the machine, one core at least and four at most.
fn a_quarter_of_the_cores() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 4).clamp(1, 4))
}

impl State {
    pub fn new(observer: Arc<Observer>) -> Self {
        Self {
            // Until a plan takes effect, which says how many there may be.
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

    /// Lets go of what the plan in force does not name. What is still in use lives on with its requests.
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
        let issuers = plan.doorman.issuers();
        kept.keys
            .retain(|_, keys| issuers.iter().any(|issuer| Arc::ptr_eq(issuer.keys(), keys)));
    }

    pub(super) fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
