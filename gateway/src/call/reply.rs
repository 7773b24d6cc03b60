//! An answer on its way back: its body streams, and holds the slot and the connection to its last byte.
//!
//! Both come back exactly once, however it ends: at the last byte the connection may serve another exchange; dropped
//! before that it is closed, and the backend sees its caller leave.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use policies::Moment;
use policies::breaker::Generation;

use super::backend::Backend;
use super::checkout::Checkout;
use super::grpc;
use super::guards::Slot;
use crate::clock;
use crate::rejection::Reason;
use crate::wire::framing::Refusal;
use crate::wire::slow_caller::Transfer;

/// How long a body may take.
#[derive(Debug, Clone, Copy)]
pub enum BodyLimits {
    /// All of it, until then.
    Until(Moment),
    /// A stream.
    Idle(StreamLimits),
    /// A connection that is no longer HTTP has no body: what is held, is held until this is dropped.
    Switched,
}

/// For how long a stream may go on.
#[derive(Debug, Clone, Copy)]
pub struct StreamLimits {
    /// Between two pieces of it, or two signs of life from its caller.
    pub pause: Duration,
    /// What its caller has asked for.
    pub wished: Moment,
    /// When the longest life of a stream is over.
    pub over: Moment,
}

impl StreamLimits {
    fn last(&self) -> Moment {
        self.wished.min(self.over)
    }
}

/// Why a body ended before its end.
#[derive(Debug)]
pub enum Broken {
    Backend(hyper::Error),
    /// In good order, but before the end.
    CutShort,
    OutOfTime,
    /// A stream that is held to the deadline of its call, since all slots for streams were taken.
    NoStreamSlot,
    /// A stream has lived as long as one may.
    Over,
    /// The caller spoilt its request while it was being answered.
    Caller(Reason),
}

/// The body of a backend's answer.
pub struct ReplyBody {
    incoming: Incoming,
    held: Option<Held>,
    patience: BodyLimits,
    until: Moment,
    /// When a piece was handed over for which nobody has come back yet.
    handed_over: Option<Moment>,
    /// For how long the caller has let it wait in all, pauses that are short left out.
    unread: Duration,
    is_event_stream: bool,
    is_grpc: bool,
    /// A stream for which there was no slot of its own.
    has_no_stream_slot: bool,
}

/// A backend that breaks off is not blamed if its caller has let it wait for so long in all: many give up on a reader
/// that is slow.
const SLOW_READER: Duration = Duration::from_secs(1);
/// What is shorter is the time that it takes us to write a piece, and not the caller's.
const PAUSE: Duration = Duration::from_millis(50);

struct Held {
    lease: Checkout,
    slot: Slot,
    backend: Arc<Backend>,
    generation: Option<Generation>,
    /// Of the request, if its body may still be coming.
    flow: Option<Arc<Transfer>>,
    /// Signs of life from the caller that had come when this was last waited for anew.
    heard: u32,
}

impl ReplyBody {
    pub(crate) fn new(
        incoming: Incoming,
        lease: Checkout,
        slot: Slot,
        backend: Arc<Backend>,
        generation: Option<Generation>,
        patience: BodyLimits,
        flow: Option<Arc<Transfer>>,
    ) -> Self {
        let mut body = Self {
            incoming,
            held: Some(Held {
                lease,
                slot,
                backend,
                generation,
                flow,
                heard: 0,
            }),
            patience,
            until: Moment::ZERO,
            handed_over: None,
            unread: Duration::ZERO,
            is_event_stream: false,
            is_grpc: false,
            has_no_stream_slot: false,
        };
        body.wait_anew();
        if body.incoming.is_end_stream() && !matches!(patience, BodyLimits::Switched) {
            body.finish();
        }
        body
    }

    /// Server-sent events, which may be ended anywhere between two of them.
    pub(crate) const fn of_events(mut self) -> Self {
        self.is_event_stream = true;
        self
    }

    /// Of gRPC, where the end says how it went.
    pub(crate) const fn of_grpc(mut self) -> Self {
        self.is_grpc = true;
        self
    }

    /// A stream that is not exempt.
    pub(crate) const fn held_to_its_deadline(mut self) -> Self {
        self.has_no_stream_slot = true;
        self
    }

    pub(crate) const fn is_event_stream(&self) -> bool {
        self.is_event_stream
    }

    /// When the whole of it has to be over, if that is fixed; nothing once it holds nothing any more.
    pub(crate) fn ends_by(&self) -> Option<Moment> {
        self.held.as_ref()?;
        let last = self.last();
        (last < Moment::MAX).then_some(last)
    }

    fn last(&self) -> Moment {
        match self.patience {
            BodyLimits::Until(last) => last,
            BodyLimits::Idle(stay) => stay.last(),
            BodyLimits::Switched => Moment::MAX,
        }
    }

    /// Whether the caller has shown meanwhile that it is there: then one side of a conversation speaks.
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

    /// Why it ends at the moment until which it was waited for.
    fn run_out(&self) -> Broken {
        match self.patience {
            BodyLimits::Idle(StreamLimits { over, wished, .. }) if self.until == over && over < wished => Broken::Over,
            _ if self.has_no_stream_slot => Broken::NoStreamSlot,
            _ => Broken::OutOfTime,
        }
    }

    /// After a piece that is not the last: whether there is still time for more. A stream is waited for anew.
    fn goes_on(&mut self) -> bool {
        let (now, last) = (clock::now(), self.last());
        if let BodyLimits::Idle(stay) = self.patience {
            self.until = (now + stay.pause).min(last);
        }
        self.handed_over = Some(now);
        now < last
    }

    fn finish(&mut self) {
        if let Some(held) = self.held.take() {
            let now = clock::now();
            held.slot.release(now);
            held.lease.give_back(&held.backend.settings.pool, now);
        }
    }

    /// What was taken for a success ends by saying that the backend is out of service.
    fn fail_late(&self) {
        if let Some(held) = &self.held
            && held
                .backend
                .settings
                .failures
                .contains(&StatusCode::SERVICE_UNAVAILABLE)
        {
            held.backend.broke_off(held.generation);
        }
    }

    fn is_cut_short(&self) -> bool {
        let held = self.held.as_ref();
        held.is_some_and(|held| held.lease.is_cut_short(&self.incoming))
    }

    /// Why it broke, where we may have ended the exchange ourselves because of what the caller did.
    fn blamed(&self, broken: Broken) -> Broken {
        let flow = self.held.as_ref().and_then(|held| held.flow.as_ref());
        flow.and_then(|flow| flow.is_spoilt()).map_or(broken, Broken::Caller)
    }

    fn break_off(&mut self, why: &Broken) {
        let Some(held) = self.held.take() else { return };
        if let Broken::Backend(_) | Broken::CutShort = why
            && self.unread < SLOW_READER
        {
            held.backend.broke_off(held.generation);
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
            this.unread += if pause < PAUSE { Duration::ZERO } else { pause };
        }
        let broken = match Pin::new(&mut this.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if this.is_grpc && frame.trailers_ref().is_some_and(grpc::is_unavailable) {
                    this.fail_late();
                }
                if this.incoming.is_end_stream() {
                    this.finish();
                    return Poll::Ready(Some(Ok(frame)));
                }
                // A backend that always has more must not carry an answer past its time.
                if this.goes_on() {
                    return Poll::Ready(Some(Ok(frame)));
                }
                this.run_out()
            }
            Poll::Ready(None) if this.is_cut_short() => this.blamed(Broken::CutShort),
            Poll::Ready(None) => {
                this.finish();
                return Poll::Ready(None);
            }
            Poll::Ready(Some(Err(error))) => this.blamed(Broken::Backend(error)),
            Poll::Pending => {
                loop {
                    let Some(held) = &mut this.held else {
                        return Poll::Pending;
                    };
                    std::task::ready!(held.lease.timer().poll_elapsed(this.until, cx));
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
    /// The stable word for it, where the body was for us alone.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Backend(_) | Self::CutShort => Reason::BackendBroken,
            Self::OutOfTime | Self::Over => Reason::OutOfTime,
            Self::NoStreamSlot => Reason::BulkheadFull,
            Self::Caller(reason) => *reason,
        }
    }
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Backend(error) => match Refusal::behind(error) {
                Some(refusal) => write!(f, "backend broke the framing: {refusal}"),
                None => write!(f, "backend broke off: {error}"),
            },
            Self::CutShort => f.write_str("backend broke off: the stream was reset before its end"),
            Self::OutOfTime => f.write_str("out of time within the body"),
            Self::NoStreamSlot => f.write_str("out of time within a stream: all slots for streams were taken"),
            Self::Over => f.write_str("a stream has lived as long as one may"),
            Self::Caller(reason) => write!(f, "the caller spoilt its request: {}", reason.as_str()),
        }
    }
}

impl std::error::Error for Broken {}
