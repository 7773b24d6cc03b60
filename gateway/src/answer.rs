//! What the caller gets: a body that streams, and a record that is closed at its last byte.
//!
//! Invariant: a request is observed exactly once, however its answer ends; one that breaks off is never taken for
//! whole, neither by the caller (hyper aborts the connection) nor by the log.

mod events;
mod keeping;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use self::events::Events;
use self::keeping::Keeping;
pub use self::keeping::Place;
use crate::call::reply::{Broken, ReplyBody};
use crate::grpc;
use crate::intake::headers;
use crate::intake::limits::Presence;
use crate::observe::{RequestRecord, Watch};
use crate::tunnel::{Carried, End, Tunnel};

/// The body of an answer, with what goes on until its last byte.
pub struct AnswerBody {
    content: Content,
    open: Option<Open>,
    is_grpc: bool,
}

/// A request that is under way: its record, and where it counts as being in flight.
struct Open {
    watch: Box<Watch>,
    _presence: Presence,
}

/// Where an answer's body comes from. The large one is the usual one, which is why it is not on the heap.
#[allow(clippy::large_enum_variant)]
pub enum Content {
    Empty,
    Whole(Bytes),
    Reply(ReplyBody),
    /// The same, kept as it passes.
    Kept(Box<Keeping>),
    /// A stream of events, which ends when we are about to go.
    Events(Box<Events>),
    /// No body: after the head, the connection is no longer HTTP.
    Switched(Box<Tunnel>),
}

/// A connection that is to become a tunnel once the head of the answer has been sent. Its request goes on until the
/// tunnel's end.
pub struct Switched {
    tunnel: Box<Tunnel>,
    open: Open,
}

impl Switched {
    /// Carries bytes until the end, and closes the record of the request; `leaving` is ready when we are about to go.
    pub async fn carry(self, leaving: impl Future<Output = ()>) {
        let Self { tunnel, mut open } = self;
        let record: &mut RequestRecord = &mut open.watch;
        let carried = Carried {
            from_caller: &mut record.bytes_in,
            to_caller: &mut record.bytes_out,
        };
        match tunnel.carry(carried, leaving).await {
            End::Closed | End::Leaving => open.watch.end(),
            End::Idle => {
                open.watch.note_fault("nothing was said for too long");
                open.watch.end();
            }
            End::Broken(error) => open.watch.note_fault(format!("the tunnel broke: {error}")),
        }
    }
}

impl AnswerBody {
    pub fn new(content: Content, watch: Box<Watch>, presence: Presence) -> Self {
        let open = Open {
            watch,
            _presence: presence,
        };
        let mut body = Self {
            content,
            open: Some(open),
            is_grpc: false,
        };
        // Nobody asks an empty body for its end.
        body.end_if_over();
        body
    }

    /// A caller of gRPC looks for a status at the end, also where the end comes too early.
    #[must_use]
    pub const fn of_grpc(mut self) -> Self {
        self.is_grpc = true;
        self
    }

    /// Ends a stream that would go on for as long as it pleases once `leaving` is ready.
    pub fn end_when(&mut self, leaving: impl FnOnce() -> Pin<Box<dyn Future<Output = ()> + Send>>) {
        if !matches!(&self.content, Content::Reply(body) if body.is_event_stream()) {
            return;
        }
        if let Content::Reply(body) = std::mem::replace(&mut self.content, Content::Empty) {
            self.content = Content::Events(Box::new(Events::new(body, leaving())));
        }
    }

    /// The tunnel that the connection is to become, if it is.
    pub fn take_switched(&mut self) -> Option<Switched> {
        if !matches!(self.content, Content::Switched(_)) {
            return None;
        }
        match (std::mem::replace(&mut self.content, Content::Empty), self.open.take()) {
            (Content::Switched(tunnel), Some(open)) => Some(Switched { tunnel, open }),
            _ => None,
        }
    }

    fn end_if_over(&mut self) {
        if self.content.is_over()
            && !matches!(self.content, Content::Switched(_))
            && let Some(open) = self.open.take()
        {
            open.watch.end();
        }
    }
}

impl Content {
    /// An answer that is kept while it is passed on.
    pub fn kept(reply: ReplyBody, place: Place) -> Self {
        Self::Kept(Box::new(Keeping::new(reply, place)))
    }

    fn is_over(&self) -> bool {
        match self {
            Self::Empty | Self::Switched(_) => true,
            Self::Events(events) => events.is_over(),
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Reply(body) => body.is_end_stream(),
            Self::Kept(keeping) => keeping.is_over(),
        }
    }
}

/// Trailers are held to what fields are held to.
fn cleaned(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            headers::clean_answer_trailers(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(data) => data,
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.get_mut();
        let polled = match &mut this.content {
            Content::Empty | Content::Switched(_) => None,
            Content::Events(events) => std::task::ready!(events.poll_frame(cx)),
            Content::Whole(bytes) if bytes.is_empty() => None,
            Content::Whole(bytes) => Some(Ok(Frame::data(std::mem::take(bytes)))),
            Content::Reply(body) => std::task::ready!(Pin::new(body).poll_frame(cx)),
            Content::Kept(keeping) => std::task::ready!(keeping.poll_frame(cx)),
        };
        let polled = polled.map(|polled| polled.map(cleaned));
        match &polled {
            Some(Ok(frame)) => {
                if let Some(open) = &mut this.open {
                    if let Some(data) = frame.data_ref() {
                        open.watch.bytes_out += data.len() as u64;
                    } else if let (true, Some(trailers)) = (this.is_grpc, frame.trailers_ref()) {
                        open.watch.grpc_status = grpc::stated(trailers);
                    }
                }
                this.end_if_over();
            }
            Some(Err(broken)) => {
                let trailers = this.is_grpc.then(|| grpc::broken_off(broken.reason()));
                if let Some(mut open) = this.open.take() {
                    open.watch.note_fault(broken.to_string());
                    open.watch.grpc_status = trailers.as_ref().and_then(grpc::stated);
                }
                if let Some(trailers) = trailers {
                    this.content = Content::Empty;
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
            }
            None => {
                if let Some(open) = this.open.take() {
                    open.watch.end();
                }
            }
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty | Content::Switched(_) => SizeHint::with_exact(0),
            Content::Events(events) => events.size_hint(),
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Reply(body) => body.size_hint(),
            Content::Kept(keeping) => keeping.size_hint(),
        }
    }
}
