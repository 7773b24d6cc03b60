//! Stores answers of the service for a time, and lets requests with the same question wait for one answer.
//!
//! Invariants: an answer is found only under the key of its own question. Refusals are stored apart, so that a flood of
//! invented credentials displaces no caller. After a purge nothing is used that was asked for before it. What is known
//! outlives a plan, as long as the service, the form of the questions and the number of entries stay the same.
//!
//! A question is asked in a task of its own: a caller that leaves neither ends it for the others, nor can its short
//! deadline make it fail.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use policies::Moment;
use quick_cache::sync::Cache;
use tokio::sync::watch;

use super::answer::Answer;
use super::question::QuestionKey;
use super::{RefusalKind, ServiceRefusal, Unavailable};
use crate::auth::caller::Caller;
use crate::clock;
use crate::observe::{CounterVec, ExternalLookup, ExternalOutcome};

/// How long answers are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    pub good: Duration,
    pub refused: Duration,
    /// Time after `good` in which an answer is used while the service fails.
    pub stale_if_error: Duration,
}

/// What the service has said to one question, or why it has not.
#[derive(Debug, Clone)]
pub enum Verdict {
    Caller(Arc<KnownCaller>),
    Refused(Arc<ServiceRefusal>),
    Unavailable(Unavailable),
}

/// A caller that the service has named.
#[derive(Debug)]
pub struct KnownCaller {
    pub caller: Caller,
    fresh_until: Moment,
    stale_until: Moment,
    is_stored: bool,
    epoch: u64,
}

impl KnownCaller {
    /// Whether the answer is stored, fresh or not.
    pub(crate) fn is_stored(&self) -> bool {
        self.is_stored
    }
}

struct KnownRefusal {
    refusal: Arc<ServiceRefusal>,
    until: Moment,
    epoch: u64,
}

/// A stored answer.
pub(crate) enum Found {
    Fresh(Arc<KnownCaller>),
    Refused(Arc<ServiceRefusal>),
    /// Nothing that may be used while the service answers.
    Nothing,
}

/// All stored answers of one service.
pub struct KnownAnswers {
    callers: Cache<QuestionKey, Arc<KnownCaller>>,
    refusals: Cache<QuestionKey, Arc<KnownRefusal>>,
    flights: Mutex<HashMap<QuestionKey, Flight>>,
    /// Number of purges.
    epoch: AtomicU64,
    lookups: CounterVec<ExternalLookup>,
    outcomes: CounterVec<ExternalOutcome>,
    last_failure: Mutex<Option<LastFailure>>,
}

/// The newest failure to get an answer.
#[derive(Debug, Clone)]
pub struct LastFailure {
    pub outcome: ExternalOutcome,
    pub detail: Arc<str>,
    /// Seconds since 1970.
    pub at: u64,
}

/// A question that is being asked.
struct Flight {
    verdict: watch::Receiver<Option<Verdict>>,
    epoch: u64,
}

/// Removes a flight when its task ends, in whatever way.
struct FlightGuard {
    known: Arc<KnownAnswers>,
    key: QuestionKey,
    epoch: u64,
}

impl KnownAnswers {
    /// Stores at most `entries` callers, and as many refusals.
    pub fn new(entries: usize) -> Self {
        Self {
            callers: Cache::new(entries),
            refusals: Cache::new(entries),
            flights: Mutex::default(),
            epoch: AtomicU64::new(0),
            lookups: CounterVec::default(),
            outcomes: CounterVec::default(),
            last_failure: Mutex::default(),
        }
    }

    /// Whether a caller that was found earlier may still be used.
    pub(crate) fn is_fresh(&self, known: &KnownCaller, now: Moment, unix_now: u64) -> bool {
        now < known.fresh_until && self.is_in_force(known, unix_now)
    }

    fn is_in_force(&self, known: &KnownCaller, unix_now: u64) -> bool {
        known.epoch == self.epoch.load(Relaxed) && known.caller.expires.is_none_or(|expires| unix_now < expires)
    }

    pub(crate) fn find(&self, key: &QuestionKey, now: Moment, unix_now: u64) -> Found {
        if let Some(known) = self.callers.get(key)
            && self.is_fresh(&known, now, unix_now)
        {
            return Found::Fresh(known);
        }
        match self.refusals.get(key) {
            Some(known) if now < known.until && known.epoch == self.epoch.load(Relaxed) => {
                Found::Refused(Arc::clone(&known.refusal))
            }
            _ => Found::Nothing,
        }
    }

    /// Returns a caller that may be used because the service fails.
    pub(crate) fn find_stale(&self, key: &QuestionKey, now: Moment, unix_now: u64) -> Option<Arc<KnownCaller>> {
        let known = self.callers.get(key)?;
        (now < known.stale_until && self.is_in_force(&known, unix_now)).then_some(known)
    }

    /// Returns what comes of the question. `ask` makes the task that asks it, if no other request has begun to. `None`
    /// if the question has been answered meanwhile.
    pub(crate) fn join<F>(
        self: &Arc<Self>,
        key: QuestionKey,
        lifetimes: Option<Lifetimes>,
        ask: impl FnOnce() -> F,
    ) -> Option<watch::Receiver<Option<Verdict>>>
    where
        F: Future<Output = Result<Answer, Unavailable>> + Send + 'static,
    {
        let epoch = self.epoch.load(Relaxed);
        let mut flights = self.flights();
        if let Some(flight) = flights.get(&key).filter(|flight| flight.epoch == epoch) {
            self.lookups.add(ExternalLookup::Joined);
            return Some(flight.verdict.clone());
        }
        // An answer is stored before its flight ends, so it cannot have come unnoticed.
        if !matches!(self.find(&key, clock::now(), clock::unix_seconds()), Found::Nothing) {
            return None;
        }
        let (sender, verdict) = watch::channel(None);
        let flight = Flight {
            verdict: verdict.clone(),
            epoch,
        };
        flights.insert(key, flight);
        drop(flights);
        self.lookups.add(ExternalLookup::Asked);
        let guard = FlightGuard {
            known: Arc::clone(self),
            key,
            epoch,
        };
        let question = ask();
        tokio::spawn(async move {
            let answered = question.await;
            let verdict = guard.known.take(guard.key, guard.epoch, lifetimes, answered);
            drop(guard);
            // Without requests that wait, nobody listens.
            let _ = sender.send(Some(verdict));
        });
        Some(verdict)
    }

    /// Stores an answer to a question that was begun in `epoch`.
    fn take(
        &self,
        key: QuestionKey,
        epoch: u64,
        lifetimes: Option<Lifetimes>,
        answered: Result<Answer, Unavailable>,
    ) -> Verdict {
        let now = clock::now();
        let bounded = |usual: Duration, told: Option<Duration>| told.map_or(usual, |told| told.min(usual));
        match answered {
            Ok(Answer {
                verdict: Ok(caller),
                fresh_for,
            }) => {
                self.outcomes.add(ExternalOutcome::Identified);
                let fresh = lifetimes.map_or(Duration::ZERO, |times| bounded(times.good, fresh_for));
                let stale = match (lifetimes, fresh_for) {
                    // What must not be stored is not used later either.
                    (None, _) | (_, Some(Duration::ZERO)) => Duration::ZERO,
                    (Some(times), _) => fresh + times.stale_if_error,
                };
                let known = Arc::new(KnownCaller {
                    caller,
                    fresh_until: now + fresh,
                    stale_until: now + stale,
                    is_stored: !stale.is_zero(),
                    epoch,
                });
                self.refusals.remove(&key);
                if stale.is_zero() {
                    self.callers.remove(&key);
                } else {
                    self.callers.insert(key, Arc::clone(&known));
                }
                Verdict::Caller(known)
            }
            Ok(Answer {
                verdict: Err(refusal),
                fresh_for,
            }) => {
                self.outcomes.add(match refusal.kind {
                    RefusalKind::Forbidden => ExternalOutcome::Forbidden,
                    RefusalKind::Invalid | RefusalKind::Expired => ExternalOutcome::Refused,
                });
                // From now on the earlier answer is not used even if the service fails.
                self.callers.remove(&key);
                let refusal = Arc::new(refusal);
                let fresh = lifetimes.map_or(Duration::ZERO, |times| bounded(times.refused, fresh_for));
                if !fresh.is_zero() {
                    let known = KnownRefusal {
                        refusal: Arc::clone(&refusal),
                        until: now + fresh,
                        epoch,
                    };
                    self.refusals.insert(key, Arc::new(known));
                }
                Verdict::Refused(refusal)
            }
            Err(unavailable) => {
                self.outcomes.add(unavailable.outcome);
                *lock(&self.last_failure) = Some(LastFailure {
                    outcome: unavailable.outcome,
                    detail: Arc::clone(&unavailable.detail),
                    at: clock::unix_seconds(),
                });
                Verdict::Unavailable(unavailable)
            }
        }
    }

    /// Forgets a caller, so that the service is asked anew.
    pub(crate) fn forget(&self, key: &QuestionKey) {
        self.callers.remove(key);
    }

    pub(crate) fn count(&self, lookup: ExternalLookup) {
        self.lookups.add(lookup);
    }

    /// Forgets all answers. Returns their number.
    pub fn purge(&self) -> usize {
        self.epoch.fetch_add(1, Relaxed);
        let (callers, refusals) = self.sizes();
        self.callers.clear();
        self.refusals.clear();
        callers + refusals
    }

    /// Returns the number of stored callers, and that of stored refusals.
    pub fn sizes(&self) -> (usize, usize) {
        (self.callers.len(), self.refusals.len())
    }

    pub fn lookups(&self) -> impl Iterator<Item = (ExternalLookup, u64)> {
        self.lookups.iter()
    }

    pub fn outcomes(&self) -> impl Iterator<Item = (ExternalOutcome, u64)> {
        self.outcomes.iter()
    }

    pub fn last_failure(&self) -> Option<LastFailure> {
        lock(&self.last_failure).clone()
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<QuestionKey, Flight>> {
        lock(&self.flights)
    }
}

impl Drop for FlightGuard {
    fn drop(&mut self) {
        let mut flights = self.known.flights();
        // A purge may have made way for a later flight.
        if flights.get(&self.key).is_some_and(|flight| flight.epoch == self.epoch) {
            flights.remove(&self.key);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
