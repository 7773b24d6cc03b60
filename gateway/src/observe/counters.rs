//! Counters that requests increment. A stage holds the `Arc` of its route, backend or limit, so a count is one relaxed
//! addition, without a lookup or an allocation.
//!
//! Invariant: counters only rise. Values that mirror a state (slots in use, breaker state, open connections) are read
//! from their owner at each scrape and are not stored here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::families::Family;
use super::histogram::Histogram;
use super::labels::{
    BackendHandshake, BreakerState, CallerKind, CallerOutcome, Class, CounterVec, Decision, FallbackKind, Label,
    Outcome, RetryStop,
};
use super::page::Page;
use crate::rejection::Reason;

/// Requests of one route, or without a route if `name` is empty.
#[derive(Debug)]
pub struct RouteMetrics {
    pub name: Arc<str>,
    pub requests: CounterVec<Class>,
    pub rejections: CounterVec<Reason>,
    /// Time from a request's head to the last byte of its response.
    pub duration: Histogram,
    pub(super) aborted: AtomicU64,
    pub(super) partial: AtomicU64,
    pub(super) fallbacks: CounterVec<FallbackKind>,
}

impl RouteMetrics {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self {
            name,
            requests: CounterVec::default(),
            rejections: CounterVec::default(),
            duration: Histogram::default(),
            aborted: AtomicU64::new(0),
            partial: AtomicU64::new(0),
            fallbacks: CounterVec::default(),
        }
    }

    pub(super) fn put(&self, page: &mut Page) {
        page.put_tally(Family::Requests, &self.name, &self.requests);
        page.put_tally(Family::Rejections, &self.name, &self.rejections);
        page.put_histogram(Family::RequestDuration, &self.name, &self.duration);
        page.put(Family::AbortedResponses, &[&self.name], self.aborted.load(Relaxed));
        page.put(Family::PartialResponses, &[&self.name], self.partial.load(Relaxed));
        page.put_tally(Family::Fallbacks, &self.name, &self.fallbacks);
    }
}

/// Calls to one backend.
#[derive(Debug)]
pub struct BackendMetrics {
    pub name: Arc<str>,
    pub attempts: CounterVec<Outcome>,
    pub rejections: CounterVec<Reason>,
    /// Breaker transitions, by the new state.
    pub transitions: CounterVec<BreakerState>,
    pub calls: CounterVec<Outcome>,
    /// Time from the start of a call, including the queue, to the head of its response.
    pub duration: Histogram,
    /// Failed calls that were not retried although their result allows it.
    pub retry_stops: CounterVec<RetryStop>,
    pub handshakes: CounterVec<BackendHandshake>,
    retries: AtomicU64,
    ejections: AtomicU64,
}

impl BackendMetrics {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self {
            name,
            attempts: CounterVec::default(),
            rejections: CounterVec::default(),
            transitions: CounterVec::default(),
            calls: CounterVec::default(),
            duration: Histogram::default(),
            retry_stops: CounterVec::default(),
            handshakes: CounterVec::default(),
            retries: AtomicU64::new(0),
            ejections: AtomicU64::new(0),
        }
    }

    /// Counts a finished call. `took` is the time from its start, including the queue, to the head of the response or
    /// the end.
    #[inline]
    pub fn called(&self, outcome: Outcome, took: Duration) {
        self.calls.add(outcome);
        self.duration.observe(took);
    }

    #[inline]
    pub fn retried(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    /// Counts an ejection of one of its endpoints.
    pub fn ejected(&self) {
        self.ejections.fetch_add(1, Relaxed);
    }

    pub(super) fn put(&self, page: &mut Page) {
        page.put_tally(Family::BackendCalls, &self.name, &self.calls);
        page.put_tally(Family::BackendAttempts, &self.name, &self.attempts);
        page.put_tally(Family::BreakerTransitions, &self.name, &self.transitions);
        page.put_histogram(Family::BackendDuration, &self.name, &self.duration);
        page.put(Family::Retries, &[&self.name], self.retries.load(Relaxed));
        page.put_tally(Family::RetriesStopped, &self.name, &self.retry_stops);
        page.put(Family::EndpointEjections, &[&self.name], self.ejections.load(Relaxed));
        page.put_tally(Family::BackendRejections, &self.name, &self.rejections);
    }
}

/// Decisions of one limit.
#[derive(Debug)]
pub struct LimitMetrics {
    pub name: Arc<str>,
    pub decisions: CounterVec<Decision>,
}

impl LimitMetrics {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self {
            name,
            decisions: CounterVec::default(),
        }
    }

    pub(super) fn put(&self, page: &mut Page) {
        page.put_tally(Family::LimitDecisions, &self.name, &self.decisions);
    }
}

/// Results of authentication, by the kind of credential. They are taken from finished records.
#[derive(Debug)]
pub(super) struct CallerMetrics(pub(super) Vec<CounterVec<CallerOutcome>>);

impl Default for CallerMetrics {
    fn default() -> Self {
        Self(CallerKind::ALL.iter().map(|_| CounterVec::default()).collect())
    }
}

impl CallerMetrics {
    pub(super) fn put(&self, page: &mut Page) {
        for (kind, outcomes) in CallerKind::ALL.iter().zip(&self.0) {
            for (outcome, count) in outcomes.iter() {
                page.put(Family::Callers, &[kind.as_str(), outcome.as_str()], count);
            }
        }
    }
}
