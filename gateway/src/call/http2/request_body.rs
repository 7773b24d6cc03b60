//! A request's body on a shared connection: it holds the place of its exchange while it is being sent.
//!
//! Once begun it is carried by a task of the library's own, which looks at nothing else while its peer has no room for
//! more. So that an exchange can be broken off then, too, its place is told which task that is.

use std::error::Error;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::Reason;
use http_body::{Body, Frame, SizeHint};

use super::pool::Place;
use crate::call::replay::Outbound;

pub(super) struct RequestBody {
    body: Outbound,
    place: Arc<Place>,
    begun: bool,
}

/// The place whose body a connection has just begun to send: hyper tries that first, and then has it carried.
#[derive(Clone, Default)]
pub(super) struct Begun(Arc<Mutex<Option<Arc<Place>>>>);

impl Begun {
    fn note(&self, place: &Arc<Place>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(place));
    }

    pub(super) fn take(&self) -> Option<Arc<Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl RequestBody {
    pub(super) fn new(body: Outbound, place: Arc<Place>) -> Self {
        if body.is_end_stream() {
            // It will not be read.
            place.end_request();
        }
        Self {
            body,
            place,
            begun: false,
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    /// An error resets the stream with its reason; what the caller did is remembered where the body comes from.
    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        if !this.begun {
            this.begun = true;
            this.place.link().begun().note(&this.place);
        }
        if this.place.is_abandoned() {
            // Another attempt may be reading from the same source by now.
            return Poll::Ready(Some(Err(cancelled())));
        }
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        let is_last = match &polled {
            Poll::Ready(None) => true,
            Poll::Ready(Some(Ok(frame))) => frame.is_trailers() || this.body.is_end_stream(),
            _ => false,
        };
        if is_last {
            this.place.end_request();
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
