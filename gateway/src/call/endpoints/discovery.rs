//! Knows the source of a backend's endpoints: when it answered, why it does not, how long its last answer is still used.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use policies::Moment;
use tokio::sync::Notify;

use super::source::Source;
use crate::observe::LookupOutcome;

/// Source of the endpoints of a set, and what is known of it.
#[derive(Debug)]
pub struct Discovery {
    pub source: Source,
    /// Time for which the last endpoints are kept while the source fails. `None` is forever.
    pub keep: Option<Duration>,
    /// Notified when a connection to an endpoint could not be made, so that the source is asked at once.
    pub wake: Notify,
    found: AtomicU64,
    failed: AtomicU64,
    /// Notified at the first result.
    first: Notify,
    state: Mutex<SourceState>,
}

/// State of a source.
#[derive(Debug, Clone, Default)]
pub struct SourceState {
    /// Time of the last answer with endpoints.
    pub answered: Option<Moment>,
    /// Failure that lasts.
    pub failing: Option<Failing>,
}

/// Failure of a source that lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failing {
    /// Time of the first failed look in a row.
    pub since: Moment,
    /// Error of the last look.
    pub error: Arc<str>,
    /// Whether the endpoints were given up, because they had been kept for long enough.
    pub is_over: bool,
}

impl Discovery {
    pub fn new(source: Source, keep: Option<Duration>) -> Self {
        Self {
            source,
            keep,
            wake: Notify::new(),
            found: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            first: Notify::new(),
            state: Mutex::default(),
        }
    }

    /// Notes that the endpoints with which the set begins are an answer of the source.
    #[must_use]
    pub fn answered_at(self, now: Moment) -> Self {
        self.state().answered = Some(now);
        self
    }

    pub fn status(&self) -> SourceState {
        self.state().clone()
    }

    /// Returns the number of looks by result.
    pub fn looks(&self) -> [(LookupOutcome, u64); 2] {
        [
            (LookupOutcome::Found, self.found.load(Relaxed)),
            (LookupOutcome::Failed, self.failed.load(Relaxed)),
        ]
    }

    /// Waits for the first result.
    pub async fn first_result(&self) {
        loop {
            let result = self.first.notified();
            if self.looks().iter().any(|(_, count)| *count > 0) {
                return;
            }
            result.await;
        }
    }

    /// Notes an answer with endpoints. Returns whether the source had failed before.
    pub(super) fn answer(&self, now: Moment) -> bool {
        let mut state = self.state();
        state.answered = Some(now);
        let had_failed = state.failing.take().is_some();
        drop(state);
        self.count(&self.found);
        had_failed
    }

    /// Notes a failed look. Returns the failure if its error is another one than before.
    pub(super) fn fail(&self, error: &str, now: Moment) -> Option<Failing> {
        let mut state = self.state();
        let is_known = state.failing.as_ref().is_some_and(|failing| &*failing.error == error);
        if !is_known {
            let error: Arc<str> = error.into();
            match &mut state.failing {
                Some(failing) => failing.error = error,
                None => {
                    state.failing = Some(Failing {
                        since: now,
                        error,
                        is_over: false,
                    });
                }
            }
        }
        let failing = state.failing.clone().filter(|_| !is_known);
        drop(state);
        self.count(&self.failed);
        failing
    }

    /// Returns the error of the source, once, when its endpoints have been kept for long enough.
    pub(super) fn give_up(&self, now: Moment) -> Option<Arc<str>> {
        let keep = self.keep?;
        let mut state = self.state();
        let failing = state.failing.as_mut().filter(|failing| !failing.is_over)?;
        if now.since(failing.since) < keep {
            return None;
        }
        failing.is_over = true;
        Some(Arc::clone(&failing.error))
    }

    fn count(&self, counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
        self.first.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, SourceState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
