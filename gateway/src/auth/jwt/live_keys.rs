//! The current keys of one issuer, shared by the workers, which read them, and by the task that renews them.
//!
//! Reading never waits, but a request that lacks a key may wait ([`crate::auth::jwt::key_wait`]). Each issuer has its
//! own state, so an unreachable issuer does not affect the others.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use policies::Moment;
use tokio::sync::watch;

use crate::auth::jwt::fetch_state::KeyFetches;
use crate::auth::jwt::jws::Algorithm;
use crate::auth::jwt::key_set::KeySet;
use crate::observe::{CounterVec, FetchOutcome};

/// Key set that can be replaced at any time.
#[derive(Debug)]
pub struct LiveKeys {
    current: ArcSwap<KeySet>,
    demand: KeyFetches,
    status: watch::Sender<KeysStatus>,
    fetches: CounterVec<FetchOutcome>,
}

/// State of an issuer's keys. Times are seconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeysStatus {
    /// Number of keys in use. With zero, no token of the issuer can be verified.
    pub keys: usize,
    pub last_ok: Option<u64>,
    /// Time of the last successful fetch by the monotonic clock, which determines the keys' age.
    pub confirmed: Option<Moment>,
    /// Time of the next fetch.
    pub next_fetch: Option<u64>,
    /// Time and reason of the last failed fetch. Cleared by a success.
    pub last_error: Option<(u64, String)>,
    /// Number of fetches so far, failed ones included.
    pub attempts: u64,
}

impl KeysStatus {
    /// Whether keys are in use although the last fetch failed.
    pub fn is_stale(&self) -> bool {
        self.keys > 0 && self.last_error.is_some()
    }

    /// Whether no keys have arrived yet.
    pub fn is_awaited(&self) -> bool {
        self.keys == 0 && self.last_ok.is_none()
    }

    /// Time since the keys in use were last fetched. `None` if there are no keys, or they are not fetched.
    pub fn age(&self, now: Moment) -> Option<Duration> {
        let confirmed = self.confirmed.filter(|_| self.keys > 0)?;
        Some(now.since(confirmed))
    }
}

impl LiveKeys {
    /// Starts with the keys of a file or a secret.
    pub fn with(keys: KeySet) -> Arc<Self> {
        let status = KeysStatus {
            keys: keys.len(),
            ..KeysStatus::default()
        };
        Arc::new(Self {
            current: ArcSwap::from_pointee(keys),
            demand: KeyFetches::default(),
            status: watch::Sender::new(status),
            fetches: CounterVec::default(),
        })
    }

    /// Starts without keys. Until a set arrives, no token of the issuer can be verified.
    pub fn awaited() -> Arc<Self> {
        Self::with(KeySet::default())
    }

    /// Copies the keys that fit other algorithms, if any. The copy keeps their age, and is fetched separately from now
    /// on.
    #[must_use]
    pub fn pinned_to(&self, algorithms: &[Algorithm]) -> Arc<Self> {
        let Some(keys) = self.current().pinned_to(algorithms) else {
            return Self::awaited();
        };
        let (found, status) = (keys.len(), self.status());
        let live = Self::with(keys);
        live.status.send_replace(KeysStatus { keys: found, ..status });
        live
    }

    pub fn current(&self) -> Guard<Arc<KeySet>> {
        self.current.load()
    }

    /// Returns a snapshot for the admin API.
    pub fn status(&self) -> KeysStatus {
        self.status.borrow().clone()
    }

    /// Subscribes to changes of the status.
    pub fn watch(&self) -> watch::Receiver<KeysStatus> {
        self.status.subscribe()
    }

    /// Number of fetches by outcome.
    pub fn fetches(&self) -> impl Iterator<Item = (FetchOutcome, u64)> {
        self.fetches.iter()
    }

    /// Replaces the keys. Keys that are not in the new set verify nothing from now on.
    pub fn replace(&self, keys: KeySet, now: Moment, unix_now: u64) {
        let found = keys.len();
        self.fetches.add(FetchOutcome::Fetched);
        self.current.store(Arc::new(keys));
        self.status.send_modify(|status| {
            *status = KeysStatus {
                keys: found,
                last_ok: Some(unix_now),
                confirmed: Some(now),
                next_fetch: None,
                last_error: None,
                attempts: status.attempts + 1,
            };
        });
    }

    /// Notes a failed fetch. The keys in use stay.
    pub(crate) fn note_failure(&self, outcome: FetchOutcome, why: String, unix_now: u64) {
        self.fetches.add(outcome);
        self.status.send_modify(|status| {
            status.last_error = Some((unix_now, why));
            status.attempts += 1;
        });
    }

    pub(crate) fn note_next_fetch(&self, unix: u64) {
        self.status.send_modify(|status| status.next_fetch = Some(unix));
    }

    /// Stops using the keys, because they have reached their maximum age.
    pub(crate) fn withdraw(&self) {
        self.current.store(Arc::default());
        self.status.send_modify(|status| status.keys = 0);
    }

    /// Number of requests that wait for keys now.
    pub fn waiting(&self) -> usize {
        self.demand.waiting()
    }

    /// Fetches that requests start.
    pub(crate) fn demand(&self) -> &KeyFetches {
        &self.demand
    }
}
