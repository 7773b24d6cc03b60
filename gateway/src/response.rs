//! Sends an answer to the caller: streams its body and closes the request's record at its last byte.
//!
//! Invariant: a request is observed exactly once, however its answer ends. An answer that breaks off is never taken for
//! a complete one, neither by the caller (its connection or stream is aborted) nor by the log.

mod compressing;
mod events;
pub mod gather;
mod keeping;
mod leaving;
pub mod metered;
pub mod tunnel;

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use policies::Moment;
use tokio::io::{AsyncRead, AsyncWrite};

use self::compressing::Compressing;
use self::events::Events;
use self::gather::Resumed;
pub use self::keeping::CachePlacement;
use self::keeping::Keeping;
pub use self::leaving::Leaving;
use self::metered::{Abandoned, MeteredContent};
use crate::call::reply::{Broken, ReplyBody};
use crate::clock;
use crate::compression::Encoder;
use crate::header_fields::GRPC_STATUS;
use crate::headers;
use crate::limits::InFlightGuard;
use crate::message::FieldMap;
use crate::metering::AnswerEnd;
use crate::observe::{Outcome, RequestGuard, RequestRecord};
use crate::rejection::Reason;
use crate::response::tunnel::{ByteCounts, End, Tunnel};
use crate::wire::grpc;

/// Body of an answer, with everything that is held until its last byte.
pub struct AnswerBody {
    content: Content,
    /// Present while the content is compressed.
    compressing: Option<Box<Compressing>>,
    open: Option<Open>,
    grpc: Option<Grpc>,
}

/// State of a gRPC answer. The caller expects a status at the end, also if the answer ends early.
#[derive(Default)]
struct Grpc {
    /// Signal that the drain can no longer wait for the end of the answer.
    leaving: Option<Leaving>,
}

/// Record of a request in progress, and its guard in the count of requests in flight.
struct Open {
    record: Box<RequestGuard>,
    _presence: InFlightGuard,
}

/// Source of an answer's body.
pub enum Content {
    Empty,
    Whole(Bytes),
    Reply(Box<ReplyBody>),
    /// Backend's answer that is cached while it is sent.
    Kept(Box<Keeping>),
    /// Backend's answer of which a part was read ahead.
    Resumed(Box<Resumed>),
    /// Backend's answer that says what its request cost.
    Metered(Box<MeteredContent>),
    /// Server-sent events, which end when the process shuts down.
    Events(Box<Events>),
    /// Tunnel without a body: after the head, the connection no longer speaks HTTP.
    Switched(Box<Tunnel>),
}

/// Connection that becomes a tunnel after the head of the answer is sent. The request lasts until the tunnel ends.
pub struct Switched {
    tunnel: Box<Tunnel>,
    open: Open,
}

impl Switched {
    /// Carries bytes until the end, and closes the request's record. `leaving` is ready when the process shuts down.
    pub async fn carry<C>(self, caller: &mut C, leaving: impl Future<Output = ()>)
    where
        C: AsyncRead + AsyncWrite + Unpin,
    {
        let Self { tunnel, mut open } = self;
        let record: &mut RequestRecord = &mut open.record;
        let carried = ByteCounts {
            from_caller: &mut record.bytes_in,
            to_caller: &mut record.bytes_out,
        };
        match tunnel.carry(caller, carried, leaving).await {
            End::Closed | End::Leaving => open.record.end(),
            End::Idle => {
                open.record.note_fault("nothing was said for too long");
                open.record.end();
            }
            End::Over => {
                open.record.note_fault("a tunnel has lived as long as one may");
                open.record.end();
            }
            End::Broken(error) => Self::broke(open, &error),
        }
    }

    /// Records that the tunnel broke before it carried anything.
    pub fn fail(self, error: &dyn std::fmt::Display) {
        Self::broke(self.open, error);
    }

    fn broke(mut open: Open, error: &dyn std::fmt::Display) {
        open.record.attempts.end(clock::now(), Some(Outcome::Broken), None);
        open.record.note_fault(format!("the tunnel broke: {error}"));
    }
}

impl AnswerBody {
    pub fn new(content: Content, record: Box<RequestGuard>, presence: InFlightGuard) -> Self {
        let open = Open {
            record,
            _presence: presence,
        };
        let mut body = Self {
            content,
            compressing: None,
            open: Some(open),
            grpc: None,
        };
        // An empty body is not polled for its end.
        body.end_if_over();
        body
    }

    /// Compresses the content, which must not be over.
    #[must_use]
    pub fn compressed(mut self, encoder: Option<Encoder>) -> Self {
        if let (Some(encoder), Some(open)) = (encoder, &mut self.open) {
            open.record.coding = Some(encoder.coding());
            self.compressing = Some(Box::new(Compressing::new(encoder)));
        }
        self
    }

    /// Marks the answer as gRPC.
    #[must_use]
    pub fn of_grpc(mut self) -> Self {
        self.grpc = Some(Grpc::default());
        self
    }

    /// Ends a gRPC call with a status once `leaving` is ready. A stream without end looks like an answer that is about
    /// to end, so this signal must come only when the drain is nearly over.
    pub fn break_off_when(&mut self, leaving: impl FnOnce() -> Leaving) {
        if let (Some(grpc), Content::Reply(_)) = (&mut self.grpc, &self.content) {
            grpc.leaving = Some(leaving());
        }
    }

    /// Ends a stream of server-sent events, which has no end of its own, once `leaving` is ready.
    pub fn end_when(&mut self, leaving: impl FnOnce() -> Leaving) {
        let content = match &mut self.content {
            Content::Metered(metered) => &mut metered.content,
            content => content,
        };
        if !matches!(content, Content::Reply(body) if body.is_event_stream()) {
            return;
        }
        if let Content::Reply(body) = std::mem::replace(content, Content::Empty) {
            *content = Content::Events(Box::new(Events::new(body, leaving())));
        }
    }

    /// Returns the time by which the answer must have been sent, however slowly the caller reads it; then everything it
    /// holds is released. `None` for a stream without limit, for a rejection, and for an answer that holds nothing any
    /// more.
    pub fn ends_by(&self) -> Option<Moment> {
        let open = self.open.as_ref()?;
        let content = match &self.content {
            Content::Metered(metered) => &metered.content,
            content => content,
        };
        match content {
            Content::Reply(reply) => reply.ends_by(),
            Content::Kept(keeping) => keeping.ends_by(),
            Content::Resumed(resumed) => resumed.ends_by(),
            Content::Events(events) => events.ends_by(),
            // One answer is not measured twice.
            Content::Metered(_) => None,
            Content::Empty | Content::Whole(_) if open.record.reason.is_some() => None,
            Content::Empty | Content::Whole(_) => Some(open.record.started + open.record.budget?),
            Content::Switched(_) => None,
        }
    }

    /// Takes the tunnel that the connection becomes, if there is one.
    pub fn take_switched(&mut self) -> Option<Switched> {
        if !matches!(self.content, Content::Switched(_)) {
            return None;
        }
        match (std::mem::replace(&mut self.content, Content::Empty), self.open.take()) {
            (Content::Switched(tunnel), Some(open)) => Some(Switched { tunnel, open }),
            _ => None,
        }
    }

    /// Records a frame that is sent.
    fn note(&mut self, frame: &Frame<Bytes>) {
        let Some(open) = &mut self.open else { return };
        if let Some(data) = frame.data_ref() {
            open.record.bytes_out += data.len() as u64;
        } else if let (Some(_), Some(trailers)) = (&self.grpc, frame.trailers_ref()) {
            open.record.grpc_status = grpc::stated(trailers.get(&GRPC_STATUS));
        }
    }

    /// Records why the answer ends early, unless it has already ended.
    pub fn note_fault(&mut self, fault: &'static str) {
        if let Some(open) = &mut self.open {
            open.record.note_fault(fault);
        }
    }

    /// Takes the record to close it, after the charge is settled by what has passed.
    fn close(&mut self, end: AnswerEnd) -> Option<Open> {
        let mut open = self.open.take()?;
        if let Content::Metered(metered) = &mut self.content {
            metered.settle(end, &mut open.record);
        }
        Some(open)
    }

    /// Ends a gRPC call early with a status that gives the reason.
    fn break_off(
        &mut self,
        trailers: FieldMap,
        fault: impl Into<Cow<'static, str>>,
    ) -> Option<Result<Frame<Bytes>, Broken>> {
        if let Some(mut open) = self.close(AnswerEnd::BrokeOff) {
            open.record.note_fault(fault);
            open.record.grpc_status = grpc::stated(trailers.get(&GRPC_STATUS));
        }
        self.grpc = None;
        self.content = Content::Empty;
        Some(Ok(Frame::trailers(trailers.into())))
    }

    fn is_over(&self) -> bool {
        match &self.compressing {
            None => self.content.is_over(),
            Some(compressing) => compressing.is_over(),
        }
    }

    fn end_if_over(&mut self) {
        if self.is_over()
            && !matches!(self.content, Content::Switched(_))
            && let Some(open) = self.close(AnswerEnd::Complete)
        {
            open.record.end();
        }
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        let Some(open) = self.open.take() else { return };
        match std::mem::replace(&mut self.content, Content::Empty) {
            Content::Metered(content) => Abandoned::new(content, open).settle(),
            content => {
                drop(content);
                drop(open);
            }
        }
    }
}

impl Grpc {
    fn must_leave(&mut self, cx: &mut Context<'_>) -> bool {
        self.leaving
            .as_mut()
            .is_some_and(|leaving| leaving.as_mut().poll(cx).is_ready())
    }
}

impl Content {
    /// Caches an answer while it is sent.
    pub fn kept(reply: Box<ReplyBody>, place: CachePlacement) -> Self {
        Self::Kept(Box::new(Keeping::new(reply, place)))
    }

    /// Returns the length in bytes, if it is known.
    pub fn length(&self) -> Option<u64> {
        if self.is_over() {
            Some(0)
        } else {
            self.size_hint().exact()
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self {
            Self::Empty | Self::Switched(_) => Poll::Ready(None),
            Self::Events(events) => events.poll_frame(cx),
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Reply(body) => Pin::new(body).poll_frame(cx),
            Self::Kept(keeping) => keeping.poll_frame(cx),
            Self::Metered(metered) => metered.poll_frame(cx),
            Self::Resumed(resumed) => resumed.poll_frame(cx),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty | Self::Switched(_) => SizeHint::with_exact(0),
            Self::Events(events) => events.size_hint(),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Reply(body) => body.size_hint(),
            Self::Kept(keeping) => keeping.size_hint(),
            Self::Metered(metered) => metered.content.size_hint(),
            Self::Resumed(resumed) => resumed.size_hint(),
        }
    }

    fn is_over(&self) -> bool {
        match self {
            Self::Empty | Self::Switched(_) => true,
            Self::Events(events) => events.is_over(),
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Reply(body) => body.is_end_stream(),
            Self::Kept(keeping) => keeping.is_over(),
            Self::Metered(metered) => metered.content.is_over(),
            Self::Resumed(resumed) => resumed.is_over(),
        }
    }
}

/// Cleans trailers by the same rules as header fields.
fn cleaned(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(trailers) => {
            let mut trailers = FieldMap::from(trailers);
            headers::clean_answer_trailers(&mut trailers);
            Frame::trailers(trailers.into())
        }
        Err(data) => data,
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.get_mut();
        if this.grpc.as_mut().is_some_and(|grpc| grpc.must_leave(cx)) {
            return Poll::Ready(this.break_off(
                grpc::broken_off(Reason::Draining),
                "the drain could not wait for its end",
            ));
        }
        let polled = match &mut this.compressing {
            None => std::task::ready!(this.content.poll_frame(cx)),
            Some(compressing) => {
                let polled = compressing.poll_frame(&mut this.content, cx);
                if let Some(open) = &mut this.open {
                    open.record.bytes_plain = compressing.encoded();
                }
                std::task::ready!(polled)
            }
        };
        Poll::Ready(match polled.map(|polled| polled.map(cleaned)) {
            Some(Ok(frame)) => {
                this.note(&frame);
                this.end_if_over();
                Some(Ok(frame))
            }
            Some(Err(broken)) if this.grpc.is_some() => {
                if let Some(open) = &mut this.open {
                    open.record.attempts.end(clock::now(), Some(broken.outcome()), None);
                }
                let trailers = match &broken {
                    Broken::Over => grpc::stream_limit_trailers(),
                    other => grpc::broken_off(other.reason()),
                };
                this.break_off(trailers, broken.to_string())
            }
            Some(Err(broken)) => {
                if let Some(mut open) = this.close(AnswerEnd::BrokeOff) {
                    open.record.attempts.end(clock::now(), Some(broken.outcome()), None);
                    open.record.note_fault(broken.to_string());
                }
                Some(Err(broken))
            }
            None => {
                if let Some(open) = this.close(AnswerEnd::Complete) {
                    open.record.end();
                }
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        match self.compressing {
            None => self.content.size_hint(),
            Some(_) => SizeHint::default(),
        }
    }
}
