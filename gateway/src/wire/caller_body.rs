//! Reads the body of a caller's request over any protocol, and says why it ends.
//!
//! It records on the request's [`Transfer`] when it waits for more, so that a caller that sends too slowly is found.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::message::FieldMap;
use crate::wire::grpc::Messages;
use crate::wire::parked::ParkedUpload;
use crate::wire::slow_caller::{LIVELY, TooSlow, Transfer};
use crate::wire::stream_body::StreamBody;
use crate::wire::upload::UploadReader;

pub struct CallerBody {
    source: Source,
    /// Transfer on which waiting is recorded, if the caller is watched.
    flow: Option<Arc<Transfer>>,
    clean_trailers: CleanTrailers,
    life: Life,
    /// Count of the bytes that arrived but are not yet read, where these are counted.
    parked: Option<Arc<ParkedUpload>>,
    /// Whether the caller waits for `100 Continue` on its HTTP/2 stream.
    awaits_continue: bool,
}

/// Where a body comes from.
enum Source {
    Empty,
    /// HTTP/1.1 connection.
    Connection(UploadReader),
    /// HTTP/2 stream.
    Stream(StreamBody),
}

/// Detector of signs of life from a caller: whole gRPC messages, or else at least [`LIVELY`] bytes.
#[derive(Default)]
struct Life {
    messages: Option<Messages>,
    /// Bytes since the last sign of life.
    bytes: u64,
}

/// Function that removes forbidden fields from trailers.
pub type CleanTrailers = fn(&mut FieldMap);

/// Reason why a body ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// The body came more slowly than the minimum rate.
    TooSlow,
    /// The framing is broken. The text says what the caller should correct.
    Malformed(&'static str),
    /// The caller's connection or stream broke off.
    Broken,
}

impl CallerBody {
    const fn of(source: Source, flow: Option<Arc<Transfer>>, clean_trailers: CleanTrailers) -> Self {
        Self {
            source,
            flow,
            clean_trailers,
            life: Life {
                messages: None,
                bytes: 0,
            },
            parked: None,
            awaits_continue: false,
        }
    }

    /// Creates the body of a request that has none.
    pub const fn empty(clean_trailers: CleanTrailers) -> Self {
        Self::of(Source::Empty, None, clean_trailers)
    }

    /// Wraps a body that comes on an HTTP/1.1 connection.
    pub const fn of_connection(
        reader: UploadReader,
        flow: Option<Arc<Transfer>>,
        clean_trailers: CleanTrailers,
    ) -> Self {
        Self::of(Source::Connection(reader), flow, clean_trailers)
    }

    /// Wraps a body that has an HTTP/2 stream of its own.
    pub fn of_stream(
        body: StreamBody,
        flow: Arc<Transfer>,
        parked: Option<Arc<ParkedUpload>>,
        clean_trailers: CleanTrailers,
    ) -> Self {
        let mut body = Self::of(Source::Stream(body), Some(flow), clean_trailers);
        body.parked = parked;
        body
    }

    /// Marks the caller on the other end of an HTTP/2 stream as waiting for `100 Continue`. It is asked to go on when the
    /// body is first read, unless some of it has come by then.
    #[must_use]
    pub const fn after_continue(mut self, awaits_continue: bool) -> Self {
        self.awaits_continue = awaits_continue;
        self
    }

    /// Marks the body as gRPC messages.
    #[must_use]
    pub fn of_grpc(mut self) -> Self {
        self.life.messages = Some(Messages::default());
        self
    }

    /// Returns the transfer with the caller, if it is watched.
    pub const fn flow(&self) -> Option<&Arc<Transfer>> {
        self.flow.as_ref()
    }

    /// Whether the request was refused room for the bytes that arrive before it is read.
    pub fn has_no_room(&self) -> bool {
        self.parked.as_ref().is_some_and(|parked| parked.is_refused())
    }

    /// Asks a caller that waits for it to send its body, if nothing of it has come.
    fn ask_to_continue(&mut self, has_nothing: bool) {
        if std::mem::take(&mut self.awaits_continue)
            && has_nothing
            && let Some(flow) = &self.flow
        {
            flow.interim().add_continue();
            flow.wake_carrier();
        }
    }

    /// Polls the body and records waiting. Changes nothing else.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(parked) = &self.parked {
            parked.start();
        }
        let polled = self.source.poll_frame(cx);
        self.ask_to_continue(polled.is_pending());
        if let Some(parked) = &self.parked {
            match &polled {
                Poll::Ready(Some(Ok(frame))) => parked.read(frame.data_ref().map_or(0, Bytes::len)),
                _ => parked.read_all(),
            }
        }
        if let Some(flow) = &self.flow {
            match &polled {
                Poll::Pending if flow.awaits(cx.waker()) == Err(TooSlow) => {
                    return Poll::Ready(Some(Err(BodyError::TooSlow)));
                }
                Poll::Pending => {}
                Poll::Ready(Some(Ok(frame))) => {
                    let piece = frame.data_ref().map_or(&[][..], Bytes::as_ref);
                    flow.note_received(piece.len());
                    if self.life.shows_in(piece) {
                        flow.shows_life();
                    }
                }
                Poll::Ready(_) => flow.stop_waiting(),
            }
        }
        polled
    }
}

impl Source {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Self::Empty => Poll::Ready(None),
            Self::Connection(reader) => Pin::new(reader).poll_frame(cx),
            Self::Stream(body) => body.poll_frame(cx),
        }
    }
}

impl Life {
    fn shows_in(&mut self, piece: &[u8]) -> bool {
        let ends_a_message = self.messages.as_mut().is_some_and(|messages| messages.pass(piece) > 0);
        self.bytes += piece.len() as u64;
        let shows = ends_a_message || self.bytes >= LIVELY;
        if shows {
            self.bytes = 0;
        }
        shows
    }
}

impl Drop for CallerBody {
    fn drop(&mut self) {
        if let Some(flow) = &self.flow {
            flow.stop_waiting();
        }
        if let Some(parked) = &self.parked {
            parked.discard();
        }
    }
}

impl Body for CallerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let polled = ready!(this.poll_source(cx));
        let Some(Ok(frame)) = polled else {
            return Poll::Ready(polled);
        };
        Poll::Ready(Some(match frame.into_trailers() {
            Err(data) => Ok(data),
            Ok(trailers) => {
                let mut trailers = FieldMap::from(trailers);
                (this.clean_trailers)(&mut trailers);
                Ok(Frame::trailers(trailers.into()))
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Empty => true,
            Source::Connection(reader) => reader.is_end_stream(),
            Source::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty => SizeHint::with_exact(0),
            Source::Connection(reader) => reader.size_hint(),
            Source::Stream(body) => body.size_hint(),
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSlow => f.write_str("the body comes more slowly than it may"),
            Self::Malformed(why) => f.write_str(why),
            Self::Broken => f.write_str("the caller broke off"),
        }
    }
}

impl std::error::Error for BodyError {}
