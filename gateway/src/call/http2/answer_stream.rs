//! The body of an answer on a shared connection.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::header;
use http_body::{Frame, SizeHint};

use crate::message::FieldMap;
use crate::wire::http2_switched::SwitchedHttp2;

/// Body of an answer that is still being received.
pub(crate) struct AnswerStream {
    incoming: RecvStream,
    /// Our side of a stream that may switch to another protocol.
    outgoing: Option<SendStream<Bytes>>,
    /// Number of bytes that are still to come, if the head states it.
    left: Option<u64>,
    /// Whether only trailers may still come.
    has_data_ended: bool,
}

/// Reason why an answer on a shared connection ended early.
#[derive(Debug)]
pub enum StreamFault {
    Broken(h2::Error),
    /// The stream ended in order, but before the end of the answer.
    ///
    /// An answer is complete only at END_STREAM (RFC 9113 section 8.1). A backend that has answered early sends RST_STREAM
    /// with `NO_ERROR` to make the gateway stop sending.
    CutShort,
}

impl AnswerStream {
    pub(super) fn new(incoming: RecvStream, outgoing: Option<SendStream<Bytes>>, head: &FieldMap) -> Self {
        let left = match stated_length(head) {
            None if incoming.is_end_stream() => Some(0),
            length => length,
        };
        Self {
            incoming,
            outgoing,
            left,
            has_data_ended: false,
        }
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StreamFault>>> {
        if !self.has_data_ended {
            match ready!(self.incoming.poll_data(cx)) {
                Some(Ok(data)) => {
                    // This fails only if less has come.
                    let _ = self.incoming.flow_control().release_capacity(data.len());
                    self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => self.has_data_ended = true,
            }
        }
        Poll::Ready(match ready!(self.incoming.poll_trailers(cx)) {
            Ok(Some(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Ok(None) if self.is_end_stream() => None,
            Ok(None) => Some(Err(StreamFault::CutShort)),
            Err(error) => Some(Err(error.into())),
        })
    }

    /// Whether all of the answer has been handed over.
    pub(crate) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    /// Returns the stream after a switch to another protocol; `None` if no switch was asked for.
    pub(crate) fn into_switched(self) -> Option<SwitchedHttp2> {
        Some(SwitchedHttp2::new(self.incoming, self.outgoing?))
    }
}

impl From<h2::Error> for StreamFault {
    fn from(error: h2::Error) -> Self {
        match error.is_reset() && error.reason() == Some(Reason::NO_ERROR) {
            true => Self::CutShort,
            false => Self::Broken(error),
        }
    }
}

/// Returns the length that a head states, if it states one.
fn stated_length(head: &FieldMap) -> Option<u64> {
    let mut stated = head.get_all(header::CONTENT_LENGTH).iter();
    let length: u64 = stated.next()?.to_str().ok()?.parse().ok()?;
    stated.next().is_none().then_some(length)
}
