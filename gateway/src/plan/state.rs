//! What outlives a plan, kept by name: accounts, guards, endpoints with their pools, signing keys, metrics.
//!
//! A new plan takes over what still has its name; what no plan names any more is let go with the last request that
//! holds it. Numbers are not changed while a plan is being compiled, since it may yet turn out to be a mistake.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use super::Plan;
use crate::call::backend::Guards;
use crate::call::endpoints::Endpoint;
use crate::intake::headers::Via;
use crate::intake::jwks_fetch::JwksUrl;
use crate::intake::jws::Algorithm;
use crate::intake::limits::accounts::Accounts;
use crate::intake::live_keys::LiveKeys;
use crate::observe::Observer;

/// The most accounts that callers whom nobody wrote down can make.
const ACCOUNTS: usize = 1_000_000;

pub struct State {
    pub accounts: Accounts,
    pub observer: Arc<Observer>,
    /// How this process calls itself to other hops.
    pub via: Via,
    kept: Mutex<Kept>,
}

#[derive(Default)]
pub(super) struct Kept {
    pub(super) guards: HashMap<Arc<str>, Arc<Guards>>,
    pub(super) endpoints: HashMap<(Arc<str>, Arc<str>), Arc<Endpoint>>,
    /// By issuer and address of the key set.
    pub(super) keys: HashMap<(Arc<str>, Arc<str>), RemoteKeys>,
}

/// Keys of an issuer that come from a URL.
#[derive(Clone)]
pub struct RemoteKeys {
    pub live: Arc<LiveKeys>,
    pub url: JwksUrl,
    pub algorithms: Vec<Algorithm>,
}

impl State {
    pub fn new(observer: Arc<Observer>) -> Self {
        Self {
            accounts: Accounts::new(ACCOUNTS),
            observer,
            via: Via::unique(),
            kept: Mutex::default(),
        }
    }

    /// Lets go of what the plan in force does not name. What is still in use lives on with its requests.
    pub(super) fn forget_all_but(&self, plan: &Plan) {
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
            .retain(|_, keys| issuers.iter().any(|issuer| std::ptr::eq(issuer.keys(), &*keys.live)));
    }

    /// Key sets that have to be fetched.
    pub fn remote_keys(&self) -> Vec<RemoteKeys> {
        self.kept().keys.values().cloned().collect()
    }

    pub(super) fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
