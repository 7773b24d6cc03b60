//! Sends a request's body on its stream, as the peer's window has room.
//!
//! A body that is not sent at once goes on in a task of its own, because a backend may answer while it reads. The
//! exchange ends that task when it ends.
//!
//! Invariant: a piece is taken from the body only when the piece before it was handed to the library, which takes a piece
//! once there is room for a part of it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body as _;

// Circle with `pool`: an upload holds its slot, and a slot ends its upload.
use super::pool::ExchangeSlot;
use crate::call::replay::Outbound;

pub(super) struct Upload {
    body: Outbound,
    outgoing: SendStream<Bytes>,
    slot: Arc<ExchangeSlot>,
    /// Piece that waits for room, and whether it is the last one.
    waiting: Option<(Bytes, bool)>,
}

impl Upload {
    pub(super) const fn new(body: Outbound, outgoing: SendStream<Bytes>, slot: Arc<ExchangeSlot>) -> Self {
        Self {
            body,
            outgoing,
            slot,
            waiting: None,
        }
    }

    /// Sends what there is, and the rest in a task.
    pub(super) fn start(mut self, cx: &mut Context<'_>) {
        if Pin::new(&mut self).poll(cx).is_pending() {
            let slot = Arc::clone(&self.slot);
            slot.set_carrier(tokio::spawn(self).abort_handle());
        }
    }

    /// Waits until the peer's window has room. Returns false if the stream has ended.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        while self.outgoing.capacity() == 0 {
            match ready!(self.outgoing.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(false),
            }
        }
        Poll::Ready(true)
    }
}

impl Future for Upload {
    type Output = ();

    /// An error of the body resets the stream; the caller's fault is recorded in
    /// [`Replay`](crate::call::replay::Replay).
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        loop {
            if let Some((piece, is_last)) = this.waiting.take() {
                if !piece.is_empty() {
                    match this.poll_room(cx) {
                        Poll::Ready(true) => {}
                        Poll::Ready(false) => return Poll::Ready(()),
                        Poll::Pending => {
                            this.waiting = Some((piece, is_last));
                            // The peer may reset the stream, as after an early answer.
                            return this.outgoing.poll_reset(cx).map(drop);
                        }
                    }
                }
                if this.outgoing.send_data(piece, is_last).is_err() || is_last {
                    return Poll::Ready(());
                }
            }
            if this.slot.is_abandoned() {
                // Another attempt may already be reading from the same source.
                this.outgoing.send_reset(Reason::CANCEL);
                return Poll::Ready(());
            }
            let frame = match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Pending => return this.outgoing.poll_reset(cx).map(drop),
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(Some(Err(_upload_fault))) => {
                    this.outgoing.send_reset(Reason::CANCEL);
                    return Poll::Ready(());
                }
                Poll::Ready(None) => {
                    this.slot.end_request();
                    // This fails only if the stream has ended.
                    let _ = this.outgoing.send_data(Bytes::new(), true);
                    return Poll::Ready(());
                }
            };
            let is_last = frame.is_trailers() || this.body.is_end_stream();
            if is_last {
                this.slot.end_request();
            }
            match frame.into_data() {
                Ok(piece) => {
                    // The library raises this to the length of the piece when it gets the piece.
                    this.outgoing.reserve_capacity(usize::from(!piece.is_empty()));
                    this.waiting = Some((piece, is_last));
                }
                Err(frame) => {
                    this.outgoing.reserve_capacity(0);
                    // This fails only if the stream has ended.
                    let _ = this.outgoing.send_trailers(frame.into_trailers().unwrap_or_default());
                    return Poll::Ready(());
                }
            }
        }
    }
}
