//! Sends copies of a route's requests to another backend, and throws their answers away.
//!
//! Invariants: a request never waits for its copy. A copy is sent at most once, and only if its request is sent: one that
//! the gateway refuses is not copied. A copy changes nothing that calls to its backend are decided by: it has slots and a
//! breaker of its own, and it counts neither as load of an endpoint nor for or against one. Copies are bounded in number,
//! in memory and in time; what does not fit is left out, and counted.

mod body_copy;
mod comparison;
mod copied_bytes;
mod state;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, StatusCode};
use policies::breaker::{Asker, Outcome, Permit, State, Transition};
use policies::{Deadline, Moment};

pub(super) use self::body_copy::BodyCopy;
use self::body_copy::PendingBody;
pub(super) use self::comparison::AnswerWatch;
use self::comparison::{Comparison, Reporter};
pub use self::copied_bytes::CopiedBytes;
use self::state::MirrorSlot;
pub use self::state::MirrorState;
use super::answer_body::AnswerBody;
use super::attempt::{AttemptParams, AttemptRequest};
use super::backend::Backend;
use super::endpoints::{Endpoint, Pick};
use super::fault::Fault;
use super::http1::AttemptHead;
use super::request::{CallBody, CallRequest, host_of};
use super::timer::{Elapsed, Timer};
use super::timing::Timing;
use crate::clock;
use crate::header_fields::X_GATEWAY_MIRROR;
use crate::headers::AddedFields;
use crate::message::FieldMap;
use crate::observe::{Family, MirrorOutcome, RouteMetrics};

/// Size in bytes up to which the answer to a copy is read, and up to which answers are compared.
const MOST_READ: u64 = 1 << 20;

/// Destination of the copies of a route's requests, and their bounds.
pub struct Mirror {
    /// Backend that gets the copies. Its endpoints, connections and time limits are used, and none of its guards.
    pub backend: Arc<Backend>,
    /// Maximum number of copies under way.
    pub limit: u32,
    /// Maximum size of a copied body in bytes.
    pub body_limit: usize,
    pub compare: Compare,
    pub state: Arc<MirrorState>,
    /// Memory of all copied bodies in the process.
    pub copied: Arc<CopiedBytes>,
    /// Counters of the route.
    pub metrics: Arc<RouteMetrics>,
}

/// Parts of the answers to a request and to its copy that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    Off,
    Status,
    /// Status and body.
    Body,
}

impl Mirror {
    /// Applies the settings of a plan that takes effect. Keeps the state.
    pub fn take_effect(&self, now: Moment) {
        if let Some(breaker) = self.backend.guard_settings.breaker {
            self.state.breaker.reconfigure(breaker, now);
        }
    }

    /// Returns the state of the mirror's own breaker; `None` if it is off.
    pub fn breaker_state(&self, now: Moment) -> Option<State> {
        self.backend.breaker_on.then(|| self.state.breaker.state(now))
    }

    /// Returns the breaker's permit for a copy, or `None` while the breaker is off.
    fn admit(&self, now: Moment) -> Result<Option<Permit>, MirrorOutcome> {
        if !self.backend.breaker_on {
            return Ok(None);
        }
        // All copies are the gateway's own, so they share the places of probes as one tenant.
        let asker = Asker {
            tenant: 0,
            is_whole: true,
        };
        let admitted = self.state.breaker.admit_from(asker, now);
        let permit = admitted.map_err(|_| MirrorOutcome::BreakerOpen)?;
        self.tell(permit.began());
        Ok(Some(permit))
    }

    /// Tells the breaker how the attempt ended that began at `began`.
    fn judge(&self, permit: Permit, outcome: MirrorOutcome, began: Moment) {
        let now = clock::now();
        let took = now.since(began);
        let outcome = match outcome {
            MirrorOutcome::Answered => Outcome::Success { took },
            _ => Outcome::Failure { took },
        };
        self.tell(self.state.breaker.record(permit, outcome, now));
    }

    fn tell(&self, transition: Option<Transition>) {
        if let Some(Transition { from, to, cause, .. }) = transition {
            let (route, backend) = (&self.metrics.name, &self.backend.name);
            tracing::warn!(%route, %backend, ?from, ?to, ?cause, "breaker of a mirror changed");
        }
    }

    fn count(&self, outcome: MirrorOutcome) {
        self.metrics.add(Family::MirroredRequests, outcome);
    }
}

/// Order to copy one request as soon as the request is sent.
pub struct MirrorOrder {
    mirror: Arc<Mirror>,
    /// Backend of the request. A fallback's backend gets no copy, and its answer is not compared.
    primary: Arc<Backend>,
    is_begun: AtomicBool,
    /// Takes the answer that the caller gets, if it is compared.
    reporter: Mutex<Option<Reporter>>,
}

impl MirrorOrder {
    pub fn new(mirror: Arc<Mirror>, primary: Arc<Backend>) -> Self {
        Self {
            mirror,
            primary,
            is_begun: AtomicBool::new(false),
            reporter: Mutex::default(),
        }
    }

    /// Begins the copy of a request that is about to be sent to `backend`, unless it has already begun. Waits for
    /// nothing.
    pub(super) fn begin(&self, order: &CallRequest, backend: &Arc<Backend>, worker: usize) {
        if !Arc::ptr_eq(backend, &self.primary) || self.is_begun.swap(true, Relaxed) {
            return;
        }
        match self.copy(order, worker, clock::now()) {
            Ok(copy) => drop(tokio::spawn(copy.run())),
            Err(outcome) => self.mirror.count(outcome),
        }
    }

    /// Returns the copy, or why there is none.
    fn copy(&self, order: &CallRequest, worker: usize, now: Moment) -> Result<RequestCopy, MirrorOutcome> {
        let mirror = &self.mirror;
        let length = match &order.body {
            CallBody::Empty => 0,
            CallBody::Whole(data) => data.len() as u64,
            CallBody::Streamed(replay) => replay.least_length().max(1),
        };
        if length > mirror.body_limit as u64 {
            return Err(MirrorOutcome::BodyTooLarge);
        }
        let slot = mirror.state.enter(mirror.limit).ok_or(MirrorOutcome::Full)?;
        if let Some(State::Open | State::ForcedOpen) = mirror.breaker_state(now) {
            return Err(MirrorOutcome::BreakerOpen);
        }
        let body = match &order.body {
            CallBody::Empty => CopiedBody::Whole(None),
            CallBody::Whole(data) => CopiedBody::Whole(Some(data.clone())),
            CallBody::Streamed(replay) => {
                let (copy, pending) = body_copy::begin(mirror.body_limit, Arc::clone(&mirror.copied));
                replay.copy_to(copy);
                CopiedBody::Coming(pending)
            }
        };
        let mut headers = order.headers.clone();
        headers.insert(&X_GATEWAY_MIRROR, HeaderValue::from_static("1"));
        let key = mirror.backend.settings.balance.key.as_ref();
        Ok(RequestCopy {
            mirror: Arc::clone(mirror),
            worker,
            method: order.method.clone(),
            target: order.target.clone(),
            headers,
            trailers: order.trailers,
            body,
            key: key.and_then(|key| order.hash_keys.get(key)),
            began: now,
            reporter: self.comparison(order),
            _slot: slot,
        })
    }

    /// Prepares the comparison of the two answers. Returns the reporter of the copy's answer.
    fn comparison(&self, order: &CallRequest) -> Option<Reporter> {
        if self.mirror.compare == Compare::Off {
            return None;
        }
        let (primary, copy) = Comparison::begin(Arc::clone(&self.mirror), &order.headers);
        *self.reporter.lock().unwrap_or_else(PoisonError::into_inner) = Some(primary);
        Some(copy)
    }

    /// Notes the status of the answer that the caller gets from `backend`. Returns a watch if its body is compared too.
    pub(super) fn watch(&self, backend: &Arc<Backend>, status: StatusCode, length: u64) -> Option<Box<AnswerWatch>> {
        if !Arc::ptr_eq(backend, &self.primary) {
            return None;
        }
        let reporter = self.reporter.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        AnswerWatch::begin(reporter, status, length).map(Box::new)
    }
}

/// A copy of a request, with all that it holds while it is under way.
struct RequestCopy {
    mirror: Arc<Mirror>,
    worker: usize,
    method: Method,
    target: PathAndQuery,
    headers: FieldMap,
    /// Whether the caller accepts trailers.
    trailers: bool,
    body: CopiedBody,
    /// Hash of the key by which the backend chooses its endpoints.
    key: Option<u64>,
    began: Moment,
    reporter: Option<Reporter>,
    _slot: MirrorSlot,
}

enum CopiedBody {
    Whole(Option<Bytes>),
    /// The body still comes from the caller.
    Coming(PendingBody),
}

impl RequestCopy {
    async fn run(mut self) {
        let outcome = self.exchange().await;
        let mirror = Arc::clone(&self.mirror);
        // The slot is free before the copy is counted.
        drop(self);
        mirror.count(outcome);
    }

    /// Sends the copy once its body is whole, and reads the answer.
    async fn exchange(&mut self) -> MirrorOutcome {
        let mirror = Arc::clone(&self.mirror);
        let settings = &mirror.backend.settings;
        let mut timer = Timer::default();
        let body = match &mut self.body {
            CopiedBody::Whole(body) => body.take(),
            CopiedBody::Coming(pending) => {
                let last = self.began + settings.time_limit;
                match timer.run(last, pin!(pending.whole())).await {
                    Ok(Ok(body)) => Some(body).filter(|body| !body.is_empty()),
                    Ok(Err(outcome)) => return outcome,
                    Err(Elapsed) => return MirrorOutcome::BodyCut,
                }
            }
        };
        let began = clock::now();
        let Some(endpoint) = self.choose(began) else {
            return MirrorOutcome::NoEndpoint;
        };
        // Only now, so that a caller who sends slowly holds no place of a probe.
        let permit = match mirror.admit(began) {
            Ok(permit) => permit,
            Err(outcome) => return outcome,
        };
        let deadline = Deadline::at(began + settings.time_limit);
        let until = deadline.child(began, settings.attempt_limit);
        let way = AttemptParams {
            endpoint: &endpoint,
            worker: self.worker,
            pool: &settings.pool,
            connect: settings.connect,
            switches: false,
            trailers: self.trailers,
            interim: None,
        };
        let request = AttemptRequest {
            head: AttemptHead {
                method: &self.method,
                target: &self.target,
                headers: &self.headers,
                added: &AddedFields::default(),
                host: host_of(&self.headers, &endpoint, settings),
                remaining: until.remaining(began),
                attempt: 1,
                expects: false,
            },
            body: &body.map_or(CallBody::Empty, CallBody::Whole),
        };
        let result = way
            .attempt(&request, began, until, &mut timer, &mut Timing::default())
            .await;
        let outcome = match &result {
            Ok(answer) if settings.failures.contains(&answer.status()) => MirrorOutcome::FailedStatus,
            Ok(_) => MirrorOutcome::Answered,
            Err(failure) => outcome_of(failure.fault),
        };
        if let Some(permit) = permit {
            mirror.judge(permit, outcome, began);
        }
        if let Ok(answer) = result {
            let (head, incoming) = answer.into_parts();
            let length = incoming.size_hint().lower();
            let reporter = self.reporter.take();
            let watch = reporter.and_then(|reporter| AnswerWatch::begin(reporter, head.status, length));
            if !super::is_event_stream(&head.headers) {
                self.read(incoming, watch, deadline, &mut timer).await;
            }
        }
        outcome
    }

    fn choose(&self, now: Moment) -> Option<Arc<Endpoint>> {
        let settings = &self.mirror.backend.settings;
        let pick = Pick {
            settings: &settings.balance,
            tried: &[],
            key: self.key,
            none_up: settings.when_none_is_up,
        };
        self.mirror.backend.endpoints.load().choose_aside(&pick, now)
    }

    /// Reads the answer to its end or to [`MOST_READ`] bytes, and throws it away. Its connection is used again if it
    /// was read to its end.
    async fn read(
        &self,
        mut incoming: AnswerBody,
        mut watch: Option<AnswerWatch>,
        deadline: Deadline,
        timer: &mut Timer,
    ) {
        let mut read = 0;
        loop {
            let frame = pin!(poll_fn(|cx| incoming.poll_frame(cx)));
            match timer.run(deadline.moment(), frame).await {
                Ok(None) => break,
                Ok(Some(Ok(frame))) => {
                    let Some(data) = frame.data_ref() else { continue };
                    read += data.len() as u64;
                    if read > MOST_READ {
                        return;
                    }
                    if let Some(watch) = &mut watch {
                        watch.add(data);
                    }
                }
                Ok(Some(Err(_))) | Err(Elapsed) => return,
            }
        }
        if let Some(watch) = watch {
            watch.complete();
        }
        incoming.give_back(&self.mirror.backend.settings.pool, clock::now());
    }
}

const fn outcome_of(fault: Fault) -> MirrorOutcome {
    match fault {
        Fault::Unreached => MirrorOutcome::Unreached,
        Fault::Broken => MirrorOutcome::Broken,
        Fault::Invalid => MirrorOutcome::Invalid,
        Fault::TimedOut { .. } => MirrorOutcome::TimedOut,
        // The body of a copy is whole when it is sent.
        Fault::BodyGone | Fault::Upload(_) => MirrorOutcome::BodyCut,
    }
}
