//! What the caller gets: a body that streams, and a record that is closed at its last byte.
//!
//! Invariant: a request is observed exactly once, however its answer ends; one that breaks off is never taken for
//! whole, neither by the caller (hyper aborts the connection) nor by the log.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::call::reply::{Broken, ReplyBody};
use crate::intake::limits::Presence;
use crate::observe::Watch;

/// The body of an answer, with what goes on until its last byte.
pub struct AnswerBody {
    content: Content,
    open: Option<Open>,
}

/// A request that is under way: its record, and where it counts as being in flight.
struct Open {
    watch: Box<Watch>,
    _presence: Presence,
}

/// Where an answer's body comes from.
pub enum Content {
    Empty,
    Whole(Bytes),
    Reply(ReplyBody),
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
        };
        // Nobody asks an empty body for its end.
        body.end_if_over();
        body
    }

    fn end_if_over(&mut self) {
        if self.content.is_over()
            && let Some(open) = self.open.take()
        {
            open.watch.end();
        }
    }
}

impl Content {
    fn is_over(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Reply(body) => body.is_end_stream(),
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.get_mut();
        let polled = match &mut this.content {
            Content::Empty => None,
            Content::Whole(bytes) if bytes.is_empty() => None,
            Content::Whole(bytes) => Some(Ok(Frame::data(std::mem::take(bytes)))),
            Content::Reply(body) => std::task::ready!(Pin::new(body).poll_frame(cx)),
        };
        match &polled {
            Some(Ok(frame)) => {
                if let (Some(open), Some(data)) = (&mut this.open, frame.data_ref()) {
                    open.watch.bytes_out += data.len() as u64;
                }
                this.end_if_over();
            }
            Some(Err(broken)) => {
                if let Some(mut open) = this.open.take() {
                    open.watch.note_fault(broken.to_string());
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
            Content::Empty => SizeHint::with_exact(0),
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Reply(body) => body.size_hint(),
        }
    }
}
