//! Makes one guarded call to one backend: bulkhead, then { breaker, endpoint, attempt, classify, record, retry? }.
//!
//! Invariants: a call holds exactly one slot from its admission to the last byte of its answer. Every attempt holds a
//! permit of the breaker until the attempt is judged. Nothing outlives the call's deadline except an exempt stream.

pub mod backend;
pub mod classify;
mod cost;
pub mod endpoints;
mod failure;
pub mod fault;
pub mod foresee;
mod grpc;
pub mod guards;
pub mod health_check;
pub mod hedge;
mod http1;
mod http2;
mod judge;
pub mod memory_pipe;
pub mod mirror;
pub mod pool;
pub mod replay;
pub mod reply;
mod request;

mod answer_body;
mod attempt;
mod call_guard;
#[cfg(test)]
pub(crate) mod scripted;
pub mod slot_limit;
mod stamp;
mod timer;
mod timing;
pub mod tls;
mod transport;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use crate::message::FieldMap;
use http::{StatusCode, Version, header};
use policies::balance::Answer as LoadAnswer;
use policies::breaker::{Asker, Generation, Open, Outcome, Permit, State, Why};
use policies::retry::Stop;
use policies::{Deadline, Moment};
use smallvec::SmallVec;

pub use self::answer_body::SwitchedBackend;
use self::attempt::{Answer, AttemptParams};
use self::backend::Backend;
use self::call_guard::CallGuard;
use self::classify::Pushback;
pub use self::cost::StatedCost;
use self::endpoints::{EndpointGuard, EndpointId, Pick, Snapshot};
use self::failure::Failure;
use self::fault::{Fault, TimeLimit};
use self::guards::Slot;
use self::hedge::FirstAttempt;
pub use self::http1::BackendStream;
use self::judge::{Again, AttemptTimes, End, Limits, Verdict, judge};
use self::replay::Sending;
pub use self::reply::Reply;
use self::reply::{BodyLimits, Held, ReplyBody, StreamLimits};
pub use self::request::{CallBody, CallRequest, Streaming};
use self::timer::{Elapsed, Timer};
use self::timing::Timing;
use crate::clock;
use crate::headers;
use crate::observe::{self, Attempts, Family, RetryStop};
use crate::rejection::Rejection;
use crate::setting::SettingId;
use crate::wire::grpc::is_grpc;

/// Size limit in bytes and time limit of reading a request body ahead, before the request becomes a probe.
const READ_AHEAD: usize = 64 * 1024;
const READ_AHEAD_FOR: Duration = Duration::from_millis(250);

/// Facts about a call that later stages decide by, beside its attempts.
#[derive(Debug, Default)]
pub struct Facts {
    /// Number of attempts started. Zero means that nothing was sent.
    pub attempts: u32,
    /// Whether a backend may have seen the request.
    pub sent: bool,
    /// Number of bytes read from the caller's body.
    pub bytes_in: u64,
    /// Total cost that the answers of all attempts state.
    pub cost: StatedCost,
    /// Whether the call ran out of time before its first attempt because of the caller's own time limit.
    pub by_callers_time: bool,
    /// Internal detail, for the log only.
    pub detail: Option<String>,
}

impl Facts {
    /// Adds the facts of another call for the same request.
    pub(crate) fn add(&mut self, other: Self) {
        self.attempts += other.attempts;
        self.sent |= other.sent;
        self.bytes_in += other.bytes_in;
        self.cost.add(other.cost);
        self.by_callers_time |= other.by_callers_time;
        self.detail = self.detail.take().or(other.detail);
    }
}

/// Calls a backend, and retries where that is safe and the retry budget allows it. Adds what it does to `attempts` as it
/// goes on. The last attempt of a call that is answered ends with the answer's last byte, and not here.
///
/// # Errors
/// Returns the gateway's own rejection (bulkhead, breaker, no time left). If no attempt brought an answer, returns the
/// fault of the last one.
pub async fn call(
    backend: &Arc<Backend>,
    worker: usize,
    order: &mut CallRequest,
    attempts: &mut Attempts,
    facts: &mut Facts,
) -> Result<Reply, Rejection> {
    let started = clock::now();
    let tally = CallGuard::begin(backend, started);
    let limit = backend.settings.time_limit;
    let deadline = order.deadline.child(started, limit);
    let hedge = order.hedged();
    let mut call = Call {
        backend,
        worker,
        by_operator: order.operator_deadline.child(started, limit),
        order: &mut *order,
        deadline,
        started,
        attempt_began: started,
        failovers: 0,
        attempts: &mut *attempts,
        facts: &mut *facts,
        watched: None,
    };
    let result = match hedge {
        None => call.run().await,
        // Boxed, so that other calls do not carry the size of this future.
        Some(hedge) => Box::pin(hedge::call(call, &hedge)).await,
    };
    if let Err(rejection) = &result {
        attempts.refuse(clock::now(), rejection.reason());
    }
    facts.by_callers_time |= facts.attempts == 0
        && matches!(result, Err(Rejection::OutOfTime(_)))
        && order
            .caller_deadline
            .is_some_and(|caller_deadline| caller_deadline <= deadline);
    tally.end(&result);
    result
}

/// State of a call. It borrows what it can, because whatever a future holds is moved with the future.
struct Call<'a> {
    backend: &'a Arc<Backend>,
    worker: usize,
    order: &'a mut CallRequest,
    deadline: Deadline,
    /// Deadline without the caller's own time limit.
    by_operator: Deadline,
    started: Moment,
    /// Start of the current attempt. A failover after a failed connection continues the same attempt.
    attempt_began: Moment,
    /// Number of failovers: endpoints that could not be reached and were replaced within the same attempt.
    failovers: u32,
    attempts: &'a mut Attempts,
    facts: &'a mut Facts,
    /// Told of the first attempt, if the call may be hedged.
    watched: Option<&'a FirstAttempt>,
}

/// Attempt that has ended and been judged.
struct Ended {
    result: Result<Answer, Rejection>,
    generation: Option<Generation>,
    /// Whether the attempt may be repeated, judged only by how it ended.
    again: bool,
    is_probe: bool,
    /// Wait or stop that the backend asked for.
    pushback: Option<Pushback>,
    /// Whether no connection was made and another endpoint has not been tried yet.
    fails_over: bool,
}

/// Endpoints that failed within a call, each once, ordered by their last attempt.
type Tried = SmallVec<[EndpointId; 2]>;

impl Call<'_> {
    async fn run(&mut self) -> Result<Reply, Rejection> {
        let settings = &self.backend.settings;
        self.begin_attempt(self.started);
        if !self.deadline.allows(self.started, Duration::ZERO, settings.minimum) {
            return Err(Rejection::OutOfTime(self.time(self.deadline).setting()));
        }
        let (mut timer, mut now) = (Timer::default(), self.started);
        let entered = self
            .backend
            .enter(
                self.order.entrant,
                self.order.is_stream(),
                &mut now,
                self.deadline,
                self.time(self.deadline).setting(),
                &mut timer,
            )
            .await;
        self.attempts.end_wait(now);
        self.attempt_began = now;
        let slot = entered?;

        let repeatable = settings.repeatable.admits(&self.order.method, &self.order.headers);
        self.backend.guards.retry_budget.first_attempt(self.started);
        let mut tried = Tried::new();
        loop {
            if self.backend.is_half_open(now) && !self.order.body.is_whole() {
                Box::pin(self.read_body_ahead(&mut timer)).await?;
                now = clock::now();
            }
            let (mut endpoint, permit) = self.clear_for_attempt(&tried, now)?;
            tried.retain(|earlier| *earlier != endpoint.id());
            tried.push(endpoint.id());
            let watched = self.watched.filter(|_| self.facts.attempts == self.failovers);
            if let Some(watched) = watched {
                watched.begin(endpoint.id(), now);
            }
            let ended = self
                .attempt(&mut endpoint, &tried, permit, repeatable, now, &mut timer)
                .await;
            if let Some(watched) = watched {
                watched.end(ended.again || ended.result.is_err(), clock::now());
            }
            // No endpoint has begun the request, so a failover repeats nothing. It does not count as a retry.
            if ended.fails_over {
                self.failovers += 1;
                now = clock::now();
                self.begin_attempt(now);
                continue;
            }
            let Some(wait) = self.wait_before_another(&ended) else {
                return ended
                    .result
                    .map(|answer| self.reply(answer, endpoint, ended.generation, slot));
            };
            self.backend.metrics.add(Family::Retries, ());
            if let Ok(answer) = ended.result {
                answer.into_body().discard(&settings.pool, clock::now());
            }
            drop(endpoint);
            now = clock::now();
            self.begin_attempt(now);
            timer.wait(now + wait).await;
            now = clock::now();
            self.attempts.end_wait(now);
            self.attempt_began = now;
        }
    }

    /// Adds the entry of the next attempt, which begins with a wait.
    fn begin_attempt(&mut self, now: Moment) {
        self.attempts.begin(&self.backend.name, self.facts.attempts + 1, now);
    }

    /// Waits up to [`READ_AHEAD_FOR`] for the body of a request that would be a probe, so that the probe does not hold
    /// its place while the caller uploads. A body that takes longer is sent without such a place.
    async fn read_body_ahead(&mut self, timer: &mut Timer) -> Result<(), Rejection> {
        let CallBody::Streamed(replay) = &self.order.body else {
            return Ok(());
        };
        let until = self.deadline.child(clock::now(), READ_AHEAD_FOR).moment();
        let coming = replay.read_ahead(READ_AHEAD);
        let come = timer.run(until, pin!(coming)).await;
        self.facts.bytes_in = replay.received();
        match come {
            Ok(Err(spoilt)) => Err(spoilt.rejection(self.order.deadline_by)),
            Ok(Ok(())) | Err(Elapsed) => Ok(()),
        }
    }

    /// Returns the next endpoint and the breaker's permit for an attempt.
    fn clear_for_attempt(
        &mut self,
        tried: &[EndpointId],
        now: Moment,
    ) -> Result<(EndpointGuard, Option<Permit>), Rejection> {
        if !self.deadline.allows(now, Duration::ZERO, self.backend.settings.minimum) {
            return Err(self.time(self.deadline).rejection());
        }
        let endpoints = self.backend.endpoints.load();
        if endpoints.all().is_empty() {
            return Err(self.no_endpoint());
        }
        let asker = Asker {
            tenant: self.order.entrant.tenant,
            is_whole: self.order.body.is_whole(),
        };
        match self.backend.admit(asker, now) {
            Ok(permit) => match choose(self.backend, self.order, &endpoints, tried, now) {
                Some(endpoint) => Ok((endpoint, permit)),
                None => {
                    if let Some(permit) = permit {
                        self.backend.judge(permit, Outcome::Ignored, now);
                    }
                    Err(self.no_endpoint())
                }
            },
            Err(Open { retry_in, why }) => {
                if let Some(why) = detail_of(why) {
                    let name = &self.backend.name;
                    self.facts.detail.get_or_insert_with(|| format!("{name}: {why}"));
                }
                Err(Rejection::BreakerOpen {
                    retry_after: retry_in,
                    by: self.backend.ids.breaker,
                })
            }
        }
    }

    fn no_endpoint(&mut self) -> Rejection {
        let name = &self.backend.name;
        let (why, by) = match self.backend.endpoints.load().all() {
            [] => ("no address is known", self.backend.ids.endpoints),
            _ => ("no endpoint is up", self.backend.ids.when_none_is_up),
        };
        self.facts.detail.get_or_insert_with(|| format!("{name}: {why}"));
        Rejection::NoEndpoint {
            retry_after: Duration::from_secs(1),
            by,
        }
    }

    /// Sends the request to `endpoint`, the last one of `tried`.
    async fn attempt(
        &mut self,
        endpoint: &mut EndpointGuard,
        tried: &Tried,
        permit: Option<Permit>,
        repeatable: bool,
        began: Moment,
        timer: &mut Timer,
    ) -> Ended {
        let settings = &self.backend.settings;
        let until = self.deadline.child(self.attempt_began, settings.attempt_limit);
        if let Some(mirror) = &self.order.mirror {
            mirror.begin(self.order, self.backend, self.worker);
        }
        self.facts.attempts += 1;
        self.attempts.ask(&endpoint.name, began);
        if settings.is_traced
            && let Some(span) = headers::renew_span(&mut self.order.headers)
        {
            self.attempts.note_span(span);
        }
        let number = self.facts.attempts - self.failovers;
        let way = AttemptParams {
            endpoint: &*endpoint,
            worker: self.worker,
            pool: &settings.pool,
            connect: settings.connect,
            switches: self.order.switches,
            trailers: self.order.trailers,
            interim: self.order.interim.as_deref().filter(|_| settings.pool.forwards_interim),
        };
        let request = self.order.request(number, until.remaining(began), endpoint, settings);
        let mut timing = Timing::default();
        let result = way.attempt(&request, began, until, timer, &mut timing).await;

        self.attempts.note_connecting(timing.connecting);
        self.facts.sent |= result.as_ref().err().is_none_or(|failure| failure.fault.was_sent());
        self.facts.bytes_in = self.order.body.received();
        let now = clock::now();
        let is_probe = permit.as_ref().is_some_and(Permit::is_probe);
        let generation = permit.as_ref().map(Permit::generation);
        let course = AttemptTimes {
            began,
            sent: timing.sent,
            ended: now,
            sending: self.order.body.sending(timing.sent.unwrap_or(began)),
        };
        let limits = Limits {
            attempt: until,
            by_operator: self.by_operator.child(self.attempt_began, settings.attempt_limit),
            time: self.time(until),
            operator_limit: self
                .order
                .operator_limit
                .min(settings.attempt_limit)
                .min(settings.time_limit),
            endpoints: self.backend.ids.endpoints,
            is_stream: self.order.is_stream(),
        };
        let again = Again {
            on: &settings.retry_on,
            is_repeatable: repeatable,
        };
        let verdict = judge(self.end_of(&result), &course, &limits, again);
        let counted = match verdict.fault {
            Some(fault) => call_guard::outcome_of_fault(fault),
            None if matches!(verdict.outcome, Outcome::Failure { .. }) => observe::Outcome::FailedStatus,
            None => observe::Outcome::Answered,
        };
        self.backend.metrics.add(Family::BackendAttempts, counted);
        let is_unreached = verdict.fault.is_some_and(|fault| !fault.was_sent());
        if let Some(Fault::Unreached) = verdict.fault {
            self.backend.endpoints.note_unreached();
        }
        let fails_over = is_unreached
            && self
                .backend
                .endpoints
                .load()
                .has_another(tried, settings.when_none_is_up, now)
            && self.order.body.can_be_sent_again()
            && until.allows(now, Duration::ZERO, settings.minimum);
        if let Some(permit) = permit {
            // The breaker of the whole backend ignores this attempt. It counts the failover instead.
            let outcome = if fails_over { Outcome::Ignored } else { verdict.outcome };
            self.backend.judge(permit, outcome, now);
        }
        self.backend
            .judge_endpoint(endpoint, verdict.outcome, is_unreached, began, now);
        if self.backend.guard_settings.slots.adaptive().is_some() {
            self.learn_limit(&result, &verdict, &course);
        }
        if let Some(answer) = load_answer(&result, &verdict) {
            endpoint.answer(answer, &settings.balance.load, now);
        }
        let result = match result {
            Ok(mut answer) => {
                if let Some(name) = &self.order.cost_header {
                    self.facts.cost.take_from(answer.headers_mut(), name);
                }
                self.attempts.answer(now, answer.status().as_u16(), counted);
                Ok(answer)
            }
            Err(failure) => {
                if let (Some(unanswered), Outcome::Failure { .. }) = (&failure.unanswered, verdict.outcome) {
                    unanswered.blame();
                }
                let fault = verdict.fault.unwrap_or(failure.fault);
                self.attempts.end(now, Some(counted), None);
                self.facts.detail = Some(format!("{}: {}: {}", self.backend.name, fault.as_str(), failure.detail));
                Err(match limits.rejection(fault) {
                    Rejection::BackendUnreached(_) if failure.is_connect_limit => {
                        Rejection::BackendUnreached(SettingId::CONNECT_TIME)
                    }
                    rejection => rejection,
                })
            }
        };
        let pushback = match &result {
            Ok(answer) if verdict.again => classify::pushback(answer.headers()),
            _ => None,
        };
        Ended {
            result,
            generation,
            again: verdict.again,
            is_probe,
            pushback,
            fails_over,
        }
    }

    /// Tells the search for the limit how long the backend took. A stream has no slot of a call. An answer to a body that
    /// is still to come, or one that says "too many requests", may be quick however many calls there are.
    fn learn_limit(&self, result: &Result<Answer, Failure>, verdict: &Verdict, course: &AttemptTimes) {
        let Outcome::Success { took } = verdict.outcome else {
            return;
        };
        let refuses = |answer: &Answer| answer.status() == StatusCode::TOO_MANY_REQUESTS;
        let is_whole = matches!(course.sending, Sending::Complete { .. });
        if is_whole && !self.order.is_stream() && !result.as_ref().is_ok_and(refuses) {
            self.backend.guards.learn_limit(took, course.ended);
        }
    }

    /// Returns how an attempt ended, as seen on the connection.
    fn end_of(&self, result: &Result<Answer, Failure>) -> End {
        match result {
            Ok(answer) => {
                let status = grpc::judged(answer.version(), answer.status(), answer.headers());
                let is_failure = self.backend.settings.failures.contains(&status);
                End::Answered { status, is_failure }
            }
            Err(failure) => End::Failed(failure.fault),
        }
    }

    /// Returns the wait before a retry, or `None` if there is no retry.
    fn wait_before_another(&mut self, ended: &Ended) -> Option<Duration> {
        if !ended.again || self.backend.settings.retry.attempts == 1 {
            return None;
        }
        match self.another(ended) {
            Ok(wait) => Some(wait),
            Err(stop) => {
                self.backend.metrics.add(Family::RetriesStopped, stop);
                if stop != RetryStop::Exhausted {
                    let said = self.facts.detail.get_or_insert_with(|| self.backend.name.to_string());
                    said.push_str(": not tried again: ");
                    said.push_str(stop.as_str());
                }
                None
            }
        }
    }

    /// Returns the wait before a retry, or the reason against one. Withdraws from the retry budget only after all other
    /// checks pass.
    fn another(&self, ended: &Ended) -> Result<Duration, RetryStop> {
        if self.order.is_retry {
            return Err(RetryStop::IsRetry);
        }
        if self.watched.is_some_and(FirstAttempt::is_hedged) {
            return Err(RetryStop::Hedged);
        }
        if !self.order.body.can_be_sent_again() {
            return Err(RetryStop::BodyNotKept);
        }
        let retry_after = match ended.pushback {
            Some(Pushback::Never) => return Err(RetryStop::PushedBack),
            Some(Pushback::After(wait)) => Some(wait),
            None => None,
        };
        let (settings, guards) = (&self.backend.settings, &self.backend.guards);
        let now = clock::now();
        let wait = settings.retry.again(
            self.facts.attempts - self.failovers,
            self.deadline,
            now,
            settings.minimum,
            retry_after,
            fastrand::f64(),
        );
        let wait = wait.map_err(|stop| match stop {
            Stop::Exhausted => RetryStop::Exhausted,
            Stop::OutOfTime => RetryStop::OutOfTime,
            Stop::RetryAfterTooLong => RetryStop::RetryAfterTooLong,
        })?;
        // The result of this probe may have just closed the breaker. A probe is still not retried.
        if ended.is_probe || self.backend.breaker_on && guards.breaker.state(now) != State::Closed {
            return Err(RetryStop::BreakerNotClosed);
        }
        if guards.retry_budget.withdraw(now) {
            Ok(wait)
        } else {
            Err(RetryStop::BudgetEmpty)
        }
    }

    /// Returns which limit `until` comes from: the attempt's, the call's or the route's.
    fn time(&self, until: Deadline) -> TimeLimit {
        if until < self.deadline {
            TimeLimit::Backend(self.backend.ids.attempt_limit)
        } else if self.deadline < self.order.deadline {
            TimeLimit::Backend(self.backend.ids.time_limit)
        } else {
            TimeLimit::Request(self.order.deadline_by)
        }
    }

    fn reply(&self, answer: Answer, endpoint: EndpointGuard, generation: Option<Generation>, mut slot: Slot) -> Reply {
        let (head, incoming) = answer.into_parts();
        let may_stream = self.order.streaming != Streaming::Never;
        let are_events = may_stream && is_event_stream(&head.headers);
        let is_grpc = head.version == Version::HTTP_2 && head.status == StatusCode::OK && is_grpc(&head.headers);
        let is_stream = are_events || may_stream && is_grpc || self.order.streaming == Streaming::Always;
        // A stream that is not exempt from the deadline is treated like any other call.
        let is_exempt = is_stream && (self.order.is_stream() || self.moves_to_streams(&mut slot));
        let patience = if head.status == StatusCode::SWITCHING_PROTOCOLS {
            BodyLimits::Switched
        } else if is_exempt {
            BodyLimits::Idle(self.stay(is_grpc && !are_events))
        } else {
            BodyLimits::Until(self.deadline.moment())
        };
        let flow = self.order.body.flow();
        if let (Some(flow), BodyLimits::Idle(_)) = (&flow, patience) {
            flow.may_pause();
        }
        let backend = Arc::clone(self.backend);
        let held = Held::new(endpoint, slot, (backend, self.started), generation, flow);
        let body = ReplyBody::new(incoming, held, patience);
        let body = match &self.order.mirror {
            Some(mirror) => body.watched(mirror, &head, self.backend),
            None => body,
        };
        let body = if are_events { body.of_events() } else { body };
        let body = if is_grpc { body.of_grpc() } else { body };
        let body = if is_stream && !is_exempt {
            body.held_to_its_deadline()
        } else {
            body
        };
        Reply {
            head,
            body: Box::new(body),
        }
    }

    /// Exchanges the slot of a call whose answer is a stream for a stream slot. Returns `false` if none is free.
    fn moves_to_streams(&self, slot: &mut Slot) -> bool {
        let Some(own) = self.backend.guards.streams.try_enter(self.order.entrant.tenant) else {
            return false;
        };
        std::mem::replace(slot, own).release(clock::now());
        true
    }

    /// Returns the limits of a stream. A gRPC caller's own deadline is among them.
    fn stay(&self, is_grpc: bool) -> StreamLimits {
        let settings = &self.backend.settings;
        let caller_deadline = self
            .order
            .caller_deadline
            .filter(|_| is_grpc && self.order.streaming != Streaming::Always);
        StreamLimits {
            pause: settings.idle_stream,
            caller_deadline: caller_deadline.map_or(Moment::MAX, Deadline::moment),
            over: settings.stream_limit.map_or(Moment::MAX, |limit| clock::now() + limit),
        }
    }
}

/// Chooses the endpoint of an attempt.
fn choose(
    backend: &Backend,
    order: &CallRequest,
    endpoints: &Snapshot,
    tried: &[EndpointId],
    now: Moment,
) -> Option<EndpointGuard> {
    let settings = &backend.settings.balance;
    let key = settings.key.as_ref().and_then(|key| order.hash_keys.get(key));
    let pick = Pick {
        settings,
        tried,
        key,
        none_up: backend.settings.when_none_is_up,
    };
    let mut endpoint = endpoints.choose(&pick, now)?;
    if !order.body.is_whole() {
        endpoint.excuse();
    }
    Some(endpoint)
}

/// Returns what the end of an attempt says about the load of its endpoint; `None` if it says nothing.
fn load_answer(result: &Result<Answer, Failure>, verdict: &Verdict) -> Option<LoadAnswer> {
    let (took, failed) = match verdict.outcome {
        Outcome::Success { took } => (took, false),
        Outcome::Failure { took } => (took, true),
        Outcome::Ignored => return None,
    };
    // A 429 is about its caller; the endpoint is as well as before for all others.
    let pushback = result.as_ref().ok().filter(|_| failed);
    let retry_after = match pushback.and_then(|answer| classify::pushback(answer.headers())) {
        Some(Pushback::After(wait)) => Some(wait),
        Some(Pushback::Never) | None => None,
    };
    Some(LoadAnswer {
        took,
        failed,
        retry_after,
    })
}

/// Describes, for the log, why a breaker that is forced open or half-open admits nothing.
const fn detail_of(why: Why) -> Option<&'static str> {
    match why {
        Why::Open => None,
        Why::ForcedOpen => Some("forced open"),
        Why::ProbesUnderWay => Some("half-open, and as many probes are under way as may be"),
        Why::OwnProbesUnderWay => {
            Some("half-open, and as many unfinished requests of this tenant are under way as may be")
        }
    }
}

/// Whether the answer is a stream of server-sent events (WHATWG HTML section 9.2), which has no fixed length.
fn is_event_stream(headers: &FieldMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        value
            .as_bytes()
            .get(..17)
            .is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/event-stream"))
    })
}
