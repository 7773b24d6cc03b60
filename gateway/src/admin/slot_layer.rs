//! Lets a request in when it has a slot, and limits the time until the last byte of its answer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body::{Frame, SizeHint};

use super::connections::{Connection, InAnswer};
use super::problem::Problem;
use super::request_slots::RequestSlot;
use super::{events, health};

/// Longest time to read and answer a request, to the last byte. A reload also has to end in that time.
const REQUEST: Duration = Duration::from_secs(90);

/// Longest life of an event stream; a client that still wants it opens a new one.
const STREAM: Duration = Duration::from_secs(3600);

/// Answers a request when it has a slot, and holds the slot until the last byte of the answer.
pub(super) async fn hold(Extension(connection): Extension<Arc<Connection>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if health::is_probe(path) {
        return next.run(request).await;
    }
    let (slot, limit) = match path == events::PATH {
        true => (None, STREAM),
        false => match connection.slots().take(connection.peer()).await {
            Some(slot) => (Some(slot), REQUEST),
            None => return Problem::TOO_MANY_REQUESTS.into_response(),
        },
    };
    let in_answer = connection.begin(limit);
    let response = next.run(request).await;
    response.map(|body| {
        Body::new(HeldBody {
            body,
            _slot: slot,
            _in_answer: in_answer,
        })
    })
}

/// A body that holds its request's slot.
struct HeldBody {
    body: Body,
    _slot: Option<RequestSlot>,
    _in_answer: InAnswer,
}

impl http_body::Body for HeldBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
