//! The keys of one issuer as they are now, shared between the workers that read and the task that renews them.
//!
//! Reading never waits; a request that lacks a key may ([`crate::auth::jwt::key_wait`]). Each issuer has its own,
//! so that a dead one does not touch the others.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use policies::Moment;
use tokio::sync::watch;

use crate::auth::jwt::jws::Algorithm;
use crate::auth::jwt::key_set::KeySet;
use crate::auth::jwt::key_wait::KeyFetches;
use crate::observe::{CounterVec, FetchOutcome};

/// A key set that can be replaced at any time.
#[derive(Debug)]
pub struct LiveKeys {
    current: ArcSwap<KeySet>,
    demand: KeyFetches,
    status: watch::Sender<KeysStatus>,
    fetches: CounterVec<FetchOutcome>,
}

/// What is known about an issuer's keys. Times are seconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeysStatus {
    /// Keys in use now; with none, no token of the issuer can be judged.
    pub keys: usize,
    pub last_ok: Option<u64>,
    /// The same by the monotonic clock, by which keys grow old.
    pub confirmed: Option<Moment>,
    /// When the keys will be asked for again.
    pub next_fetch: Option<u64>,
    /// When the last attempt failed, and why; gone after a success.
    pub last_error: Option<(u64, String)>,
    /// Attempts so far, good or bad.
    pub attempts: u64,
}

impl KeysStatus {
    /// Whether the keys are in use although the last attempt to fetch them failed.
    pub fn is_stale(&self) -> bool {
        self.keys > 0 && self.last_error.is_some()
    }

    /// Whether none have come yet.
    pub fn is_awaited(&self) -> bool {
        self.keys == 0 && self.last_ok.is_none()
    }

    /// How long ago the keys in use were confirmed; `None` of those that are not fetched, and while there are none.
    pub fn age(&self, now: Moment) -> Option<Duration> {
        let confirmed = self.confirmed.filter(|_| self.keys > 0)?;
        Some(now.since(confirmed))
    }
}

impl LiveKeys {
    /// Keys that are there from the start: those of a file or a secret.
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

    /// None yet: until a set arrives, no token of the issuer can be judged.
    pub fn awaited() -> Arc<Self> {
        Self::with(KeySet::default())
    }

    /// The same keys as far as they fit other algorithms: none, if there are none that do. They grow old from the same
    /// moment, and are fetched apart from now on.
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

    /// A snapshot for the admin API.
    pub fn status(&self) -> KeysStatus {
        self.status.borrow().clone()
    }

    /// Learns of every change of the status.
    pub fn watch(&self) -> watch::Receiver<KeysStatus> {
        self.status.subscribe()
    }

    /// What came of fetching so far.
    pub fn fetches(&self) -> impl Iterator<Item = (FetchOutcome, u64)> {
        self.fetches.iter()
    }

    /// Takes `keys` into use. Those that are not among them verify nothing from now on.
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

    /// Notes that fresh keys could not be had; those in use stay.
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

    /// Stops using the keys, because they are too old to be trusted.
    pub(crate) fn withdraw(&self) {
        self.current.store(Arc::default());
        self.status.send_modify(|status| status.keys = 0);
    }

    /// Requests that wait for keys now.
    pub fn waiting(&self) -> usize {
        self.demand.waiting()
    }

    /// The fetches that requests bring about.
    pub(crate) fn demand(&self) -> &KeyFetches {
        &self.demand
    }
}
