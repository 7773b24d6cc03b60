//! The counters that requests touch. A stage holds the `Arc` of its route, backend or limit, so counting is one relaxed
//! addition: no name is looked up and nothing is allocated.
//!
//! Invariant: counters only rise. What mirrors a state (slots in use, a breaker's state, open connections) is read where
//! it is when the page is asked for, and has no place here.

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

/// Requests of one route, or of none when `name` is empty.
#[derive(Debug)]
pub struct RouteMetrics {
    pub name: Arc<str>,
    pub requests: CounterVec<Class>,
    pub rejections: CounterVec<Reason>,
    /// From a request's head to the last byte of its answer.
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

/// Calls to one backend, counted by the guarded call.
#[derive(Debug)]
pub struct BackendMetrics {
    pub name: Arc<str>,
    pub attempts: CounterVec<Outcome>,
    pub rejections: CounterVec<Reason>,
    /// By the state that was entered.
    pub transitions: CounterVec<BreakerState>,
    pub calls: CounterVec<Outcome>,
    /// From the start of a call, queue included, to the head of its answer.
    pub duration: Histogram,
    /// Calls that were not tried again although their end would have allowed it.
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

    /// A whole call is over; `took` is the time from its start, queue included, to the head of the answer or the end.
    #[inline]
    pub fn called(&self, outcome: Outcome, took: Duration) {
        self.calls.add(outcome);
        self.duration.observe(took);
    }

    #[inline]
    pub fn retried(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    /// One of its endpoints was left out.
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

/// What one limit decided, counted by the limits stage.
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

/// Who came, and with what result; read off the finished record.
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
