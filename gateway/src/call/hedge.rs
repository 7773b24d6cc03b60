//! Makes a second attempt of a call whose first one is slow, at another endpoint: a hedge. The first good answer is used,
//! and the other attempt is cancelled.
//!
//! After "The Tail at Scale" (Dean and Barroso, 2013), the hedging policy of gRPC (proposal A6) and `hedge_policy` of Envoy.
//!
//! Invariants: a call is hedged once at most, never at the endpoint of its first attempt, and only if the retry budget
//! pays for it. A hedge waits for nothing: without a free slot there is none. Each attempt holds a slot and a place at
//! its endpoint of its own until it has ended or is dropped with its connection. A cancelled attempt is no failure.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{Either, select};
use http::Method;
use policies::breaker::{Asker, Permit, State};
use policies::hedge::LatencyWindow;
use policies::{Deadline, Moment};
use tokio::sync::Notify;

use super::backend::Backend;
use super::call_guard::outcome_of_status;
use super::endpoints::{EndpointGuard, EndpointId};
use super::grpc;
use super::guards::Slot;
use super::reply::Reply;
use super::request::{CallBody, CallRequest, Streaming};
use super::timer::Timer;
use super::{Call, Facts, Tried};
use crate::clock;
use crate::observe::{Attempts, Family, HEDGE_LOST, HedgeEvent, LOST_TO_HEDGE, Outcome};
use crate::rejection::Rejection;

/// When a call is hedged, with the times of earlier calls.
pub struct Hedge {
    after: HedgeAfter,
    at_least: Duration,
    at_most: Duration,
    latencies: LatencyWindow,
}

/// Time after which a first attempt is slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HedgeAfter {
    /// The 95th percentile of earlier attempts. Without enough of them nothing is hedged.
    P95,
    Time(Duration),
}

impl Hedge {
    /// `at_least` and `at_most` bound the observed time.
    pub fn new(after: HedgeAfter, at_least: Duration, at_most: Duration) -> Self {
        Self {
            after,
            at_least,
            at_most,
            latencies: LatencyWindow::default(),
        }
    }

    /// Returns the time after which a first attempt is slow; `None` if that is not known yet.
    pub fn delay(&self, now: Moment) -> Option<Duration> {
        match self.after {
            HedgeAfter::Time(time) => Some(time),
            HedgeAfter::P95 => {
                let observed = self.latencies.p95(now)?;
                Some(observed.min(self.at_most).max(self.at_least))
            }
        }
    }

    fn learn(&self, took: Duration, now: Moment) {
        if self.after == HedgeAfter::P95 {
            self.latencies.record(took, now);
        }
    }
}

/// Progress of the first attempt of a call.
#[derive(Default)]
pub(super) struct FirstAttempt {
    state: Mutex<Progress>,
    begun: Notify,
}

#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    /// Its endpoint, and when it was asked.
    asked: Option<(EndpointId, Moment)>,
    ended: Option<Moment>,
    /// Whether it ended with a failure, whose time says nothing of answers.
    has_failed: bool,
    is_hedged: bool,
}

impl FirstAttempt {
    /// Notes that the attempt asks an endpoint from now on.
    pub(super) fn begin(&self, endpoint: EndpointId, now: Moment) {
        let mut state = self.state();
        *state = Progress {
            asked: Some((endpoint, now)),
            is_hedged: state.is_hedged,
            ..Progress::default()
        };
        drop(state);
        self.begun.notify_one();
    }

    /// Notes that the attempt has ended.
    pub(super) fn end(&self, has_failed: bool, now: Moment) {
        let mut state = self.state();
        (state.ended, state.has_failed) = (Some(now), has_failed);
    }

    /// Whether a second attempt is under way, so that the call is not retried.
    pub(super) fn is_hedged(&self) -> bool {
        self.state().is_hedged
    }

    /// Waits until the attempt is slow. Returns its endpoint. Never ends if it is not hedged.
    async fn slow(&self, hedge: &Hedge) -> EndpointId {
        loop {
            let Progress { asked, .. } = *self.state();
            let Some((endpoint, since)) = asked else {
                self.begun.notified().await;
                continue;
            };
            let Some(delay) = hedge.delay(since) else {
                return std::future::pending().await;
            };
            // If another endpoint is asked in its place, the time begins anew.
            let changed = tokio::time::timeout_at(clock::instant(since + delay), self.begun.notified());
            if changed.await.is_err() {
                let Progress { asked, ended, .. } = *self.state();
                if ended.is_some() {
                    return std::future::pending().await;
                }
                if asked == Some((endpoint, since)) {
                    return endpoint;
                }
            }
        }
    }

    /// Returns the time since the endpoint was asked: to its answer, or to now. `None` after a failure.
    fn took(&self, now: Moment) -> Option<Duration> {
        let progress = *self.state();
        let (_, since) = progress.asked.filter(|_| !progress.has_failed)?;
        Some(progress.ended.unwrap_or(now).since(since))
    }

    fn state(&self) -> MutexGuard<'_, Progress> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CallRequest {
    /// Returns the terms on which the call is hedged; `None` if it is not.
    pub(super) fn hedged(&self) -> Option<Arc<Hedge>> {
        let hedge = self.hedge.as_ref()?;
        let is_safe = matches!(self.method, Method::GET | Method::HEAD) && matches!(self.body, CallBody::Empty);
        let is_plain = !self.is_retry && !self.switches && self.streaming != Streaming::Always;
        (is_safe && is_plain).then(|| Arc::clone(hedge))
    }

    /// Returns the request of the second attempt.
    fn of_hedge(&self) -> Self {
        Self {
            method: self.method.clone(),
            target: self.target.clone(),
            headers: self.headers.clone(),
            added: self.added.clone(),
            body: CallBody::Empty,
            cost_header: self.cost_header.clone(),
            hash_keys: self.hash_keys.clone(),
            interim: None,
            mirror: None,
            hedge: None,
            ..*self
        }
    }
}

/// What a second attempt has taken before it begins.
struct Started {
    endpoint: EndpointGuard,
    permit: Option<Permit>,
    slot: Slot,
    now: Moment,
}

/// Makes a call that may be hedged.
pub(super) async fn call(mut first: Call<'_>, hedge: &Hedge) -> Result<Reply, Rejection> {
    let progress = FirstAttempt::default();
    let (backend, worker, started) = (first.backend, first.worker, first.started);
    let (deadline, by_operator) = (first.deadline, first.by_operator);
    let mut order = first.order.of_hedge();
    let (mut attempts, mut facts) = (
        Attempts::default(),
        Facts {
            attempts: 1,
            ..Facts::default()
        },
    );
    let raced = {
        let mut run = Box::pin(first.run_watched(&progress));
        let slow = Box::pin(progress.slow(hedge));
        let endpoint = match select(&mut run, slow).await {
            Either::Left((result, _)) => {
                if result.is_ok() {
                    learn_first(hedge, &progress);
                }
                return result;
            }
            Either::Right((endpoint, _)) => endpoint,
        };
        let begun = begin(backend, &order, deadline, endpoint);
        let event = begun.as_ref().err().copied().unwrap_or(HedgeEvent::Sent);
        backend.metrics.add(Family::Hedges, event);
        let Ok(begun) = begun else {
            let result = run.await;
            if result.is_ok() {
                learn_first(hedge, &progress);
            }
            return result;
        };
        progress.state().is_hedged = true;
        let second = Call {
            backend,
            worker,
            order: &mut order,
            deadline,
            by_operator,
            started,
            attempt_began: begun.now,
            failovers: 0,
            attempts: &mut attempts,
            facts: &mut facts,
            watched: None,
        };
        let second = Box::pin(second.run_hedge(begun, endpoint));
        race(backend, run, second).await
    };
    let now = clock::now();
    facts.attempts -= 1;
    match raced {
        Raced::First(result) => {
            if result.is_ok() {
                learn_first(hedge, &progress);
            }
            if attempts.give_up(now, HEDGE_LOST) {
                backend.metrics.add(Family::BackendAttempts, Outcome::Cancelled);
            }
            first.attempts.insert_before_last(attempts);
            first.facts.add(facts);
            result
        }
        Raced::Second(result) => {
            backend.metrics.add(Family::Hedges, HedgeEvent::Won);
            if let Some(took) = progress.took(now) {
                hedge.learn(took, now);
                // What was given up is slow, and the search for the limit has to know.
                if backend.guard_settings.slots.adaptive().is_some() {
                    backend.guards.learn_limit(took, now);
                }
            }
            if first.attempts.give_up(now, LOST_TO_HEDGE) {
                backend.metrics.add(Family::BackendAttempts, Outcome::Cancelled);
            }
            first.attempts.append(attempts);
            first.facts.add(facts);
            result
        }
    }
}

fn learn_first(hedge: &Hedge, progress: &FirstAttempt) {
    let now = clock::now();
    if let Some(took) = progress.took(now) {
        hedge.learn(took, now);
    }
}

/// Result of the attempt that is used. The other one has been dropped.
enum Raced {
    First(Result<Reply, Rejection>),
    Second(Result<Reply, Rejection>),
}

/// Waits for the first good answer. If neither is good, the first attempt's is used.
async fn race<F, S>(backend: &Backend, first: F, second: S) -> Raced
where
    F: Future<Output = Result<Reply, Rejection>> + Unpin,
    S: Future<Output = Result<Reply, Rejection>> + Unpin,
{
    let is_good = |result: &Result<Reply, Rejection>| match result {
        Ok(reply) => outcome_of_status(backend, grpc::judged_head(&reply.head)) == Outcome::Answered,
        Err(_) => false,
    };
    match select(first, second).await {
        Either::Left((result, second)) => {
            if is_good(&result) {
                return Raced::First(result);
            }
            let other = second.await;
            match is_good(&other) {
                true => Raced::Second(other),
                false => Raced::First(result),
            }
        }
        Either::Right((result, first)) => match is_good(&result) {
            true => Raced::Second(result),
            false => Raced::First(first.await),
        },
    }
}

/// Takes what the second attempt needs. The retry budget pays last, when nothing else stands against it.
fn begin(backend: &Backend, order: &CallRequest, deadline: Deadline, first: EndpointId) -> Result<Started, HedgeEvent> {
    let now = clock::now();
    let settings = &backend.settings;
    if !deadline.allows(now, Duration::ZERO, settings.minimum) {
        return Err(HedgeEvent::OutOfTime);
    }
    if backend.guards.retry_budget.balance(now) == 0 {
        return Err(HedgeEvent::BudgetEmpty);
    }
    let endpoints = backend.endpoints.load();
    if !endpoints.has_another(&[first], settings.when_none_is_up, now) {
        return Err(HedgeEvent::NoEndpoint);
    }
    if backend.breaker_on && backend.guards.breaker.state(now) != State::Closed {
        return Err(HedgeEvent::BreakerNotClosed);
    }
    let tenant = order.entrant.tenant;
    let slot = backend.guards.bulkhead.try_enter(tenant).ok_or(HedgeEvent::NoSlot)?;
    let endpoint = super::choose(backend, order, &endpoints, &[first], now);
    let endpoint = endpoint
        .filter(|endpoint| endpoint.id() != first)
        .ok_or(HedgeEvent::NoEndpoint)?;
    let asker = Asker { tenant, is_whole: true };
    let permit = backend.admit(asker, now).map_err(|_| HedgeEvent::BreakerNotClosed)?;
    if !backend.guards.retry_budget.withdraw(now) {
        return Err(HedgeEvent::BudgetEmpty);
    }
    Ok(Started {
        endpoint,
        permit,
        slot,
        now,
    })
}

impl Call<'_> {
    /// Makes the call, and tells `watched` of its first attempt.
    async fn run_watched(&mut self, watched: &FirstAttempt) -> Result<Reply, Rejection> {
        Call {
            backend: self.backend,
            worker: self.worker,
            order: &mut *self.order,
            deadline: self.deadline,
            by_operator: self.by_operator,
            started: self.started,
            attempt_began: self.attempt_began,
            failovers: self.failovers,
            attempts: &mut *self.attempts,
            facts: &mut *self.facts,
            watched: Some(watched),
        }
        .run()
        .await
    }

    /// Makes the second attempt of a hedged call, and no more.
    async fn run_hedge(mut self, begun: Started, first: EndpointId) -> Result<Reply, Rejection> {
        let Started {
            mut endpoint,
            permit,
            slot,
            now,
        } = begun;
        let tried: Tried = [first, endpoint.id()].into_iter().collect();
        self.begin_attempt(now);
        let mut timer = Timer::default();
        let ended = self
            .attempt(&mut endpoint, &tried, permit, false, now, &mut timer)
            .await;
        ended
            .result
            .map(|answer| self.reply(answer, endpoint, ended.generation, slot))
    }
}
