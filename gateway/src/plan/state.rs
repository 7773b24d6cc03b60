//! State that outlives a plan, kept by name: accounts, guards, endpoints with their pools, signing keys, metrics.
//!
//! A new plan takes over the state whose name it still uses. Unused state is dropped with the last request that holds
//! it. Compiling a plan changes no limits, because the plan may still be rejected as mistaken.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::Duration;

use crate::auth::basic::checks::PasswordChecks;
use crate::auth::basic::password_cache::KnownPasswords;
use crate::auth::external::known_answers::KnownAnswers;
use crate::auth::external::question::QuestionForm;
use crate::auth::jwt::jws::Algorithm;
use crate::auth::jwt::live_keys::LiveKeys;
use crate::auth::verifications::VerificationWork;
use crate::cache::AnswerStore;
use crate::cache::responses::ResponseCache;
use crate::call::backend::Guards;
use crate::call::endpoints::{EndpointSet, Registry, Source};
use crate::call::mirror::{CopiedBytes, MirrorState};
use crate::call::tls::TlsTerms;
use crate::headers::Via;
use crate::idempotency::Records;
use crate::json::Workspace;
use crate::limits::store::local::Accounts;
use crate::observe::Observer;
use crate::overload::WorkerLoads;
use crate::plan::Plan;
use crate::plan::managed_files::ManagedFiles;
use crate::plan::revocation_store::RevocationStore;
use crate::store::Store;
use crate::wire::parked::ParkedBytes;

/// Number of verified tokens that are remembered across reloads.
const TOKENS: usize = 10_000;

/// Number of wrong passwords that are remembered, so that each is hashed only once.
const WRONG_PASSWORDS: usize = 10_000;

/// Memory for stored answers in bytes, until the first plan sets its own.
const ANSWERS: u64 = 64 << 20;

pub struct State {
    pub accounts: Accounts,
    /// The response cache, with the store of all answers.
    pub responses: Arc<ResponseCache>,
    /// Records of idempotency keys.
    pub idempotency: Arc<Records>,
    /// Parses JSON bodies and holds the memory budget for them.
    pub workspace: Arc<Workspace>,
    /// HTTP/2 request bodies that have arrived but are not read yet.
    pub parked: Arc<ParkedBytes>,
    /// How late the workers are.
    pub loads: Arc<WorkerLoads>,
    /// Request bodies that are held to be mirrored.
    pub copied: Arc<CopiedBytes>,
    pub observer: Arc<Observer>,
    /// Name of this process in the `Via` field.
    pub via: Via,
    pub known_passwords: Arc<KnownPasswords>,
    pub password_checks: Arc<PasswordChecks>,
    /// Revoked credentials.
    pub revocations: RevocationStore,
    /// Files that the admin API rewrites.
    pub managed: ManagedFiles,
    pub verification_work: Arc<VerificationWork>,
    /// Store that this process shares with its replicas, once it has begun to connect.
    pub shared_store: OnceLock<Arc<Store>>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
pub(super) struct Kept {
    pub(super) guards: HashMap<Arc<str>, Arc<Guards>>,
    /// States of mirrors, by the names of the route and of the backend that gets the copies.
    pub(super) mirrors: HashMap<(Arc<str>, Arc<str>), Arc<MirrorState>>,
    /// Endpoints in use, by the backend's name.
    pub(super) endpoints: HashMap<Arc<str>, Arc<Registry>>,
    pub(super) endpoint_sets: HashMap<SetName, Weak<EndpointSet>>,
    pub(super) keys: HashMap<KeysName, Arc<LiveKeys>>,
    /// Answers of external services.
    pub(super) answers: HashMap<AnswersName, Weak<KnownAnswers>>,
}

/// Identity of stored answers of the external service. A plan with another one begins without answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct AnswersName {
    pub(super) url: Arc<str>,
    pub(super) form: QuestionForm,
    pub(super) entries: usize,
}

/// Identity of the endpoints of a backend, as written. A plan with the same ones takes over the set, and with it the
/// addresses that its names had. Others make a new set, which shares the endpoints that stay.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct SetName {
    pub(super) backend: Arc<str>,
    /// URLs and weights.
    pub(super) written: Vec<(Arc<str>, u32)>,
    /// Source that is asked while the gateway runs, and the time for which its endpoints are kept.
    pub(super) source: Option<(Source, Option<Duration>)>,
    pub(super) tls: Option<TlsTerms>,
    pub(super) in_http2: bool,
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
            responses: Arc::new(ResponseCache::new(Arc::new(AnswerStore::new(ANSWERS)))),
            // Initial room; the first plan sets its own.
            idempotency: Arc::default(),
            workspace: Arc::new(Workspace::new(a_quarter_of_the_cores())),
            parked: Arc::default(),
            loads: Arc::default(),
            copied: Arc::default(),
            observer,
            via: Via::unique(),
            known_passwords: Arc::new(KnownPasswords::new(WRONG_PASSWORDS)),
            password_checks: Arc::new(PasswordChecks::new(a_quarter_of_the_cores())),
            verification_work: Arc::new(VerificationWork::new(TOKENS)),
            shared_store: OnceLock::new(),
            revocations: RevocationStore::default(),
            managed: ManagedFiles::default(),
            kept: Mutex::default(),
        }
    }

    /// Drops the state that the plan in force does not use. Requests that still hold some of it keep it alive.
    pub(crate) fn forget_all_but(&self, plan: &Plan) {
        let mut kept = self.kept();
        kept.guards
            .retain(|name, _| plan.backends.iter().any(|backend| backend.name == *name));
        kept.endpoints
            .retain(|name, _| plan.backends.iter().any(|backend| backend.name == *name));
        let mirrors: HashSet<_> = plan
            .listed
            .iter()
            .filter_map(|route| Some(Arc::as_ptr(&route.mirror.as_ref()?.mirror.state)))
            .collect();
        kept.mirrors.retain(|_, state| mirrors.contains(&Arc::as_ptr(state)));
        let used: HashSet<_> = plan
            .backends
            .iter()
            .map(|backend| Arc::as_ptr(&backend.endpoints))
            .collect();
        kept.endpoint_sets.retain(|_, set| {
            let is_used = used.contains(&set.as_ptr());
            if let Some(set) = set.upgrade().filter(|_| !is_used) {
                set.close();
            }
            is_used
        });
        let issuers = plan.authenticator.issuers();
        kept.keys
            .retain(|_, keys| issuers.iter().any(|issuer| Arc::ptr_eq(issuer.keys(), keys)));
        kept.answers.retain(|_, answers| answers.strong_count() > 0);
    }

    pub(super) fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
