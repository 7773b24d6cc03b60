//! Streams the body of an answer, and holds the slot and the connection until its last byte.
//!
//! Both are given back exactly once. After the last byte the connection may serve another exchange. If the body is
//! dropped earlier, the connection is closed, and the backend sees that its caller has left.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use policies::Moment;
use policies::breaker::Generation;

use super::answer_body::{AnswerBody, BodyFault, SwitchedBackend};
use super::backend::Backend;
use super::endpoints::EndpointGuard;
use super::grpc;
use super::guards::Slot;
use super::mirror::{AnswerWatch, MirrorOrder};
use crate::clock;
use crate::header_fields::GRPC_STATUS;
use crate::message::ResponseHead;
use crate::observe::Outcome;
use crate::rejection::Reason;
use crate::wire::slow_caller::Transfer;

/// Head of a backend's answer, and a body that is still being received.
pub struct Reply {
    pub head: ResponseHead,
    /// Boxed, because an answer passes through many stages, and each of them moves it.
    pub body: Box<ReplyBody>,
}

/// Time limits of a body.
#[derive(Debug, Clone, Copy)]
pub enum BodyLimits {
    /// The whole body must end by this time.
    Until(Moment),
    /// The body is a stream.
    Idle(StreamLimits),
    /// The connection has switched protocols and has no body. Slot and connection are held until this value is dropped.
    Switched,
}

/// Time limits of a stream.
#[derive(Debug, Clone, Copy)]
pub struct StreamLimits {
    /// Maximum pause between two pieces of the stream, or between two signs of life from the caller.
    pub pause: Duration,
    /// Deadline that the caller asked for.
    pub caller_deadline: Moment,
    /// End of the maximum duration of a stream.
    pub over: Moment,
}

impl StreamLimits {
    fn last(&self) -> Moment {
        self.caller_deadline.min(self.over)
    }
}

/// Reason why a body ended early.
#[derive(Debug)]
pub enum Broken {
    Backend(BodyFault),
    OutOfTime,
    /// A stream reached the deadline of its call, which applied because no stream slot was free.
    NoStreamSlot,
    /// A stream reached its maximum duration.
    Over,
    /// The caller's request body failed while the answer was being sent.
    Caller(Reason),
}

/// Body of a backend's answer.
pub struct ReplyBody {
    incoming: AnswerBody,
    held: Option<Held>,
    patience: BodyLimits,
    until: Moment,
    /// Time at which a piece was handed over, until the next piece is asked for.
    handed_over: Option<Moment>,
    /// Total time in milliseconds in which the caller did not ask for the next piece, without short pauses.
    unread_ms: u32,
    is_event_stream: bool,
    is_grpc: bool,
    /// Whether the body is a stream that found no free stream slot.
    has_no_stream_slot: bool,
    /// Present if the body is compared with that of the answer to a copy of the request.
    watch: Option<Box<AnswerWatch>>,
}

/// Total time of waiting for the caller after which a backend that breaks off is not blamed, because many backends
/// give up on a slow reader.
const SLOW_READER: Duration = Duration::from_secs(1);
/// Minimum pause that counts. A shorter pause is the gateway's own time to write a piece.
const PAUSE: Duration = Duration::from_millis(50);

/// Resources that a body holds until its last byte.
pub(super) struct Held {
    /// Counts the exchange as in flight.
    _endpoint: EndpointGuard,
    slot: Slot,
    backend: Arc<Backend>,
    /// Start of the call, before its wait for the slot.
    started: Moment,
    generation: Option<Generation>,
    /// Transfer of the request, if its body may still be arriving.
    flow: Option<Arc<Transfer>>,
    /// Number of signs of life from the caller at the last reset of the timer.
    heard: u32,
}

impl Held {
    pub(super) fn new(
        endpoint: EndpointGuard,
        slot: Slot,
        (backend, started): (Arc<Backend>, Moment),
        generation: Option<Generation>,
        flow: Option<Arc<Transfer>>,
    ) -> Self {
        Self {
            _endpoint: endpoint,
            slot,
            backend,
            started,
            generation,
            flow,
            heard: 0,
        }
    }
}

impl ReplyBody {
    pub(super) fn new(incoming: AnswerBody, held: Held, patience: BodyLimits) -> Self {
        let mut body = Self {
            incoming,
            held: Some(held),
            patience,
            until: Moment::ZERO,
            handed_over: None,
            unread_ms: 0,
            is_event_stream: false,
            is_grpc: false,
            has_no_stream_slot: false,
            watch: None,
        };
        body.wait_anew();
        if body.incoming.is_end_stream() && !matches!(patience, BodyLimits::Switched) {
            body.finish();
        }
        body
    }

    /// Lets the answer, which has this head, be compared with the answer to the copy of its request.
    pub(super) fn watched(mut self, mirror: &MirrorOrder, head: &ResponseHead, backend: &Arc<Backend>) -> Self {
        self.watch = mirror.watch(backend, head.status, self.incoming.size_hint().lower());
        if self.held.is_none() {
            self.end_watch();
        }
        self
    }

    /// Ends the comparison of a body that is whole.
    fn end_watch(&mut self) {
        if let Some(watch) = self.watch.take() {
            watch.complete();
        }
    }

    /// Takes the connection or stream after a switch to another protocol. This body still holds the slot.
    pub(crate) fn take_switched(&mut self) -> Option<SwitchedBackend> {
        self.incoming.take_switched()
    }

    /// Marks the body as server-sent events, which may be ended between any two events.
    pub(crate) const fn of_events(mut self) -> Self {
        self.is_event_stream = true;
        self
    }

    /// Marks the body as gRPC, whose trailers carry the status.
    pub(crate) const fn of_grpc(mut self) -> Self {
        self.is_grpc = true;
        self
    }

    /// Marks the body as a stream that is not exempt from the deadline of its call.
    pub(crate) const fn held_to_its_deadline(mut self) -> Self {
        self.has_no_stream_slot = true;
        self
    }

    pub(crate) const fn is_event_stream(&self) -> bool {
        self.is_event_stream
    }

    /// Returns the time by which the whole body must end; `None` if there is no such limit or the body holds nothing
    /// any more.
    pub(crate) fn ends_by(&self) -> Option<Moment> {
        self.held.as_ref()?;
        let last = self.last();
        (last < Moment::MAX).then_some(last)
    }

    /// Returns the next piece if it has arrived, for a body that nobody reads any more. Time limits do not hold.
    pub(crate) fn poll_arrived(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match std::task::ready!(self.incoming.poll_frame(cx)) {
            Some(Ok(frame)) => Poll::Ready(Some(frame.into_data().unwrap_or_default())),
            Some(Err(_)) | None => Poll::Ready(None),
        }
    }

    fn last(&self) -> Moment {
        match self.patience {
            BodyLimits::Until(last) => last,
            BodyLimits::Idle(stay) => stay.last(),
            BodyLimits::Switched => Moment::MAX,
        }
    }

    /// Whether the caller has shown a sign of life since the last check. A stream then continues although the backend
    /// is silent.
    fn has_heard(&mut self) -> bool {
        let (Some(held), BodyLimits::Idle(_)) = (&mut self.held, self.patience) else {
            return false;
        };
        let signs = held.flow.as_ref().map_or(0, |flow| flow.signs_of_life());
        std::mem::replace(&mut held.heard, signs) != signs
    }

    fn wait_anew(&mut self) {
        self.until = match self.patience {
            BodyLimits::Until(moment) => moment,
            BodyLimits::Idle(stay) => (clock::now() + stay.pause).min(stay.last()),
            BodyLimits::Switched => Moment::MAX,
        };
    }

    /// Returns why the body ends when its timer runs out.
    fn run_out(&self) -> Broken {
        match self.patience {
            BodyLimits::Idle(StreamLimits {
                over, caller_deadline, ..
            }) if self.until == over && over < caller_deadline => Broken::Over,
            _ if self.has_no_stream_slot => Broken::NoStreamSlot,
            _ => Broken::OutOfTime,
        }
    }

    /// Resets the timer of a stream after a piece that is not the last. Returns whether time is left for more.
    fn goes_on(&mut self) -> bool {
        let (now, last) = (clock::now(), self.last());
        if let BodyLimits::Idle(stay) = self.patience {
            self.until = (now + stay.pause).min(last);
        }
        self.handed_over = Some(now);
        now < last
    }

    fn finish(&mut self) {
        self.end_watch();
        if let Some(held) = self.held.take() {
            let now = clock::now();
            held.slot.release(now);
            if let BodyLimits::Until(_) = self.patience {
                held.backend.metrics.whole.observe(now.since(held.started));
            }
            self.incoming.give_back(&held.backend.settings.pool, now);
        }
    }

    /// Records a late failure: an answer counted as a success ended with gRPC status UNAVAILABLE.
    fn fail_late(&self) {
        if let Some(held) = &self.held
            && held
                .backend
                .settings
                .failures
                .contains(&StatusCode::SERVICE_UNAVAILABLE)
        {
            held.backend.record_late_failure(held.generation);
        }
    }

    /// Replaces the reason by the caller's fault if the caller's request failed. The gateway may then have ended the
    /// exchange itself.
    fn blamed(&self, broken: Broken) -> Broken {
        let flow = self.held.as_ref().and_then(|held| held.flow.as_ref());
        flow.and_then(|flow| flow.is_spoilt()).map_or(broken, Broken::Caller)
    }

    fn break_off(&mut self, why: &Broken) {
        self.incoming.abort();
        let Some(held) = self.held.take() else { return };
        if let Broken::Backend(_) = why
            && Duration::from_millis(self.unread_ms.into()) < SLOW_READER
        {
            held.backend.record_late_failure(held.generation);
        }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.get_mut();
        if let Some(handed_over) = this.handed_over.take() {
            let pause = clock::now().since(handed_over);
            if pause >= PAUSE {
                let pause = u32::try_from(pause.as_millis()).unwrap_or(u32::MAX);
                this.unread_ms = this.unread_ms.saturating_add(pause);
            }
        }
        let broken = match this.incoming.poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(watch), Some(data)) = (&mut this.watch, frame.data_ref()) {
                    watch.add(data);
                }
                if this.is_grpc
                    && let Some(trailers) = frame.trailers_ref()
                    && grpc::is_unavailable(trailers.get(&GRPC_STATUS))
                {
                    this.fail_late();
                }
                if this.incoming.is_end_stream() {
                    this.finish();
                    return Poll::Ready(Some(Ok(frame)));
                }
                // Checked after each piece, so that a backend that always has more cannot extend an answer past its
                // deadline.
                if this.goes_on() {
                    return Poll::Ready(Some(Ok(frame)));
                }
                this.run_out()
            }
            Poll::Ready(None) => {
                this.finish();
                return Poll::Ready(None);
            }
            Poll::Ready(Some(Err(error))) => this.blamed(Broken::Backend(error)),
            Poll::Pending => {
                loop {
                    let Some(timer) = this.incoming.timer() else {
                        return Poll::Pending;
                    };
                    std::task::ready!(timer.poll_elapsed(this.until, cx));
                    if !this.has_heard() {
                        break;
                    }
                    this.wait_anew();
                }
                this.run_out()
            }
        };
        this.break_off(&broken);
        Poll::Ready(Some(Err(broken)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Broken {
    /// Returns the reason, for a body that the gateway reads itself.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Backend(_) => Reason::BackendBroken,
            Self::OutOfTime | Self::Over => Reason::OutOfTime,
            Self::NoStreamSlot => Reason::BulkheadFull,
            Self::Caller(reason) => *reason,
        }
    }
}

impl Broken {
    /// Returns the outcome of the attempt whose answer broke off.
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::Backend(_) => Outcome::Broken,
            Self::OutOfTime | Self::NoStreamSlot | Self::Over => Outcome::TimedOut,
            Self::Caller(_) => Outcome::Cancelled,
        }
    }
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Backend(fault) => match fault.refusal() {
                Some(refusal) => write!(f, "backend broke the framing: {refusal}"),
                None => write!(f, "backend broke off: {fault}"),
            },
            Self::OutOfTime => f.write_str("out of time within the body"),
            Self::NoStreamSlot => f.write_str("out of time within a stream: all slots for streams were taken"),
            Self::Over => f.write_str("a stream has lived as long as one may"),
            Self::Caller(reason) => write!(f, "the caller spoilt its request: {}", reason.as_str()),
        }
    }
}

impl std::error::Error for Broken {}
