//! A request's body on a shared connection. It holds the slot of its exchange while it is being sent.
//!
//! A body that has begun is sent by a task of hyper's, which waits while the peer's window is full. The slot is told
//! which task that is, so that the exchange can be aborted even then.

use std::error::Error;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::Reason;
use http_body::{Body, Frame, SizeHint};

// Circle with `pool` and `link`: a body holds its slot, a slot its connection, and a connection sends such bodies.
use super::pool::ExchangeSlot;
use crate::call::replay::Outbound;

pub(super) struct RequestBody {
    body: Outbound,
    slot: Arc<ExchangeSlot>,
    begun: bool,
}

/// Slot whose body a connection has just begun to send. hyper polls a body once, and then spawns a task to send the
/// rest.
#[derive(Clone, Default)]
pub(super) struct Begun(Arc<Mutex<Option<Arc<ExchangeSlot>>>>);

impl Begun {
    fn note(&self, slot: &Arc<ExchangeSlot>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(slot));
    }

    pub(super) fn take(&self) -> Option<Arc<ExchangeSlot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl RequestBody {
    pub(super) fn new(body: Outbound, slot: Arc<ExchangeSlot>) -> Self {
        if body.is_end_stream() {
            // An empty body is not polled.
            slot.end_request();
        }
        Self {
            body,
            slot,
            begun: false,
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    /// Passes the body on. An error resets the stream; the caller's fault is recorded in
    /// [`Replay`](crate::call::replay::Replay).
    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        if !this.begun {
            this.begun = true;
            this.slot.link().begun().note(&this.slot);
        }
        if this.slot.is_abandoned() {
            // Another attempt may already be reading from the same source.
            return Poll::Ready(Some(Err(cancelled())));
        }
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        let is_last = match &polled {
            Poll::Ready(None) => true,
            Poll::Ready(Some(Ok(frame))) => frame.is_trailers() || this.body.is_end_stream(),
            _ => false,
        };
        if is_last {
            this.slot.end_request();
        }
        polled.map_err(|_upload_fault| cancelled())
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn cancelled() -> Box<dyn Error + Send + Sync> {
    h2::Error::from(Reason::CANCEL).into()
}
