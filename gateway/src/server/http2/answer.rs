//! Sends an answer on its stream: its head, then its body as the caller's window has room, then its trailers.
//!
//! Invariant: a piece is taken from the answer only when the piece before it was handed to the library, which takes a
//! piece once there is room for a part of it. So a caller that does not read holds up the answer's backend.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderValue, StatusCode};
use http_body::Body as _;

use crate::message::{FieldMap, Response, ResponseHead};
use crate::response::AnswerBody;
use crate::server::date;
use crate::server::in_flight::InFlight;
use crate::wire::slow_caller::Transfer;

/// Fields of one connection, which HTTP/2 does not know (RFC 9113 section 8.2.2).
static OF_CONNECTION: [HeaderName; 6] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    CONNECTION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Body of an answer whose head is sent.
pub(super) struct Answering {
    body: AnswerBody,
    outgoing: SendStream<Bytes>,
    /// Piece that waits for room, and whether it is the last one.
    waiting: Option<(Bytes, bool)>,
    /// Whether the answer ended with its head, whatever comes as its body.
    is_bare: bool,
    in_flight: InFlight,
    flow: Arc<Transfer>,
}

/// Removes what may not be sent on HTTP/2, and adds the `Date`.
pub(super) fn complete_fields(fields: &mut FieldMap) {
    fields.retain(|name, _| !OF_CONNECTION.contains(name));
    fields.insert_missing(DATE, date::field);
}

/// Sends the head of an answer to a request, and the whole answer if it ends there.
///
/// Returns what is left of the answer, if anything.
pub(super) fn begin(
    answer: Response<AnswerBody>,
    is_head: bool,
    caller: &mut SendResponse<Bytes>,
    in_flight: InFlight,
    flow: Arc<Transfer>,
) -> Option<Answering> {
    let (mut head, body) = answer.into_parts();
    complete_fields(&mut head.headers);
    let is_bare = is_head || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let is_empty = body.is_end_stream();
    if !is_empty
        && (is_head || !is_bare)
        && let Some(length) = body.size_hint().exact()
    {
        head.headers
            .insert_missing(CONTENT_LENGTH, || HeaderValue::from(length));
    }
    let outgoing = send_head(head, is_empty || is_bare, caller)?;
    (!is_empty).then_some(Answering {
        body,
        outgoing,
        waiting: None,
        is_bare,
        in_flight,
        flow,
    })
}

/// Sends a head. Returns `None` if the stream has ended.
pub(super) fn send_head(
    head: ResponseHead,
    is_whole: bool,
    caller: &mut SendResponse<Bytes>,
) -> Option<SendStream<Bytes>> {
    let sent = caller.send_response(Response::from_parts(head, ()).into(), is_whole);
    sent.inspect_err(|error| {
        tracing::debug!(%error, "an answer cannot be sent");
        caller.send_reset(Reason::INTERNAL_ERROR);
    })
    .ok()
}

impl Answering {
    /// Sends the rest of the answer. Is ready when the library has all of it, or the stream has ended.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some((piece, is_last)) = self.waiting.take() {
                if !piece.is_empty() && self.outgoing.capacity() == 0 {
                    match self.poll_room(cx) {
                        Poll::Ready(true) => {}
                        Poll::Ready(false) => return Poll::Ready(()),
                        Poll::Pending => {
                            self.waiting = Some((piece, is_last));
                            return self.poll_absence(cx);
                        }
                    }
                }
                if self.outgoing.send_data(piece, is_last).is_err() || is_last {
                    return Poll::Ready(());
                }
            }
            let polled = Pin::new(&mut self.body).poll_frame(cx);
            self.flow.note_room();
            let frame = match polled {
                Poll::Pending if self.is_bare => return Poll::Pending,
                Poll::Pending => return self.poll_absence(cx),
                Poll::Ready(Some(Ok(_))) if self.is_bare => continue,
                Poll::Ready(_) if self.is_bare => return Poll::Ready(()),
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(Some(Err(_))) => {
                    self.outgoing.send_reset(Reason::INTERNAL_ERROR);
                    return Poll::Ready(());
                }
                Poll::Ready(None) => {
                    // This fails only if the stream has ended.
                    let _ = self.outgoing.send_data(Bytes::new(), true);
                    return Poll::Ready(());
                }
            };
            self.in_flight.activity.hands_over();
            self.flow.hands_over(frame.data_ref().map_or(0, Bytes::len));
            let is_last = self.body.is_end_stream();
            if is_last {
                // The caller has taken the whole body, so no time limit is left to hold.
                self.flow.expires(None);
            }
            match frame.into_data() {
                Ok(piece) => {
                    // The library raises this to the length of the piece when it gets the piece. A longer claim would
                    // keep the connection's window from other streams.
                    self.outgoing.reserve_capacity(usize::from(!piece.is_empty()));
                    self.waiting = Some((piece, is_last));
                }
                Err(frame) => {
                    self.outgoing.reserve_capacity(0);
                    let trailers = frame.into_trailers().unwrap_or_default();
                    // This fails only if the stream has ended.
                    let _ = self.outgoing.send_trailers(trailers);
                    return Poll::Ready(());
                }
            }
        }
    }

    /// Waits until the caller's window has room. Returns false if the stream has ended.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        loop {
            match ready!(self.outgoing.poll_capacity(cx)) {
                Some(Ok(0)) => {}
                Some(Ok(_)) => return Poll::Ready(true),
                Some(Err(_)) | None => return Poll::Ready(false),
            }
        }
    }

    /// Is ready when the caller has reset the stream.
    fn poll_absence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.outgoing.poll_reset(cx).map(drop)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(fault) = self.in_flight.unread_fault() {
            self.body.note_fault(fault);
        }
    }
}
