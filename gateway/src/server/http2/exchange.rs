//! One request of a connection, and its answer.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::header::{CONTENT_LENGTH, EXPECT, SEC_WEBSOCKET_ACCEPT};
use http::{Method, StatusCode, Version};
use tokio::sync::Notify;

use super::answer;
use super::uploads::NewUploads;
use crate::headers;
use crate::message::{FieldMap, Request, RequestHead, Response};
use crate::pipeline::{self, Peer};
use crate::response::AnswerBody;
use crate::server::connection_guard::ConnectionGuard;
use crate::server::in_flight::InFlight;
use crate::server::tunnelled;
use crate::wire::caller_body::CallerBody;
use crate::wire::grpc;
use crate::wire::http2_switched::SwitchedHttp2;
use crate::wire::slow_caller::Transfer;
use crate::wire::stream_body::StreamBody;
use crate::wire::switched_stream::SwitchableStream;

/// Bytes of interim answers that are sent to one request. The library holds them until the caller reads.
const INTERIM_BYTES: usize = 64 * 1024;

/// A request that has come, and all that is needed to answer it.
pub(super) struct Incoming {
    request: Request<CallerBody>,
    caller: SendResponse<Bytes>,
    /// Incoming half of a stream that is to switch to another protocol.
    connect: Option<RecvStream>,
    in_flight: InFlight,
    flow: Arc<Transfer>,
}

impl Incoming {
    /// Takes a request. Its upload, if it has one, must find room before any of it is read.
    pub(super) fn new(
        request: http::Request<RecvStream>,
        caller: SendResponse<Bytes>,
        new_uploads: &NewUploads,
        guard: &ConnectionGuard,
    ) -> Self {
        let flow: Arc<Transfer> = Arc::default();
        flow.interim().begin(true);
        let in_flight = InFlight::new(guard.worker(), guard.activity(), Some(Arc::clone(&flow)));
        let (mut head, stream) = Request::from(request).into_parts();
        let parked = (!stream.is_end_stream()).then(|| new_uploads.take(caller.stream_id().into()));
        let parked = parked.flatten();
        if head.method == Method::CONNECT {
            if let Some(parked) = parked {
                parked.discard();
            }
            head.extensions.insert(SwitchableStream);
            return Self {
                request: Request::from_parts(head, CallerBody::empty(headers::clean_trailers)),
                caller,
                connect: Some(stream),
                in_flight,
                flow,
            };
        }
        let body = StreamBody::new(stream, &head.headers);
        if let Some(parked) = &parked {
            let budget = in_flight.worker.live.load().edge.parked_total;
            parked.ask_for_room(body.size_hint().exact(), budget);
        }
        let awaits_continue = parked.is_some() && expects_continue(&head);
        let body = CallerBody::of_stream(body, Arc::clone(&flow), parked, headers::clean_trailers)
            .after_continue(awaits_continue);
        let body = if grpc::is_grpc(&head.headers) {
            body.of_grpc()
        } else {
            body
        };
        Self {
            request: Request::from_parts(head, body),
            caller,
            connect: None,
            in_flight,
            flow,
        }
    }

    pub(super) const fn flow(&self) -> &Arc<Transfer> {
        &self.flow
    }
}

fn expects_continue(head: &RequestHead) -> bool {
    let mut lines = head.headers.get_all(EXPECT).iter();
    lines.any(|line| line.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Answers a request. Ends early if the caller resets the stream. `farewell` is notified if the request is the last.
pub(super) async fn exchange(incoming: Incoming, peer: &Peer, farewell: &Notify) {
    let Incoming {
        request,
        mut caller,
        connect,
        in_flight,
        flow,
    } = incoming;
    let is_head = request.method() == Method::HEAD;
    let plan = in_flight.worker.live.load();
    if in_flight.is_the_last(&plan.edge) {
        farewell.notify_one();
    }
    let answer = {
        let mut left = INTERIM_BYTES;
        let mut service = pin!(pipeline::serve(&plan, peer, request));
        poll_fn(|cx| poll_serve(service.as_mut(), &mut caller, &flow, (&in_flight, &mut left), cx)).await
    };
    drop(plan);
    let Some(mut answer) = answer else { return };
    answer.body_mut().end_when(|| in_flight.leaving());
    answer.body_mut().break_off_when(|| in_flight.leaving_late());
    if let Some(tunnel) = answer.body_mut().take_switched() {
        // On HTTP/2 only the stream is switched, and the status is 200.
        let (mut head, _) = answer.into_parts();
        head.status = StatusCode::OK;
        for field in [CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT] {
            head.headers.remove(field);
        }
        answer::complete_fields(&mut head.headers);
        match (connect, answer::send_head(head, false, &mut caller)) {
            (Some(incoming), Some(outgoing)) => {
                let mut stream = SwitchedHttp2::new(incoming, outgoing);
                tokio::spawn(async move { tunnelled::carry(&mut stream, tunnel, in_flight).await });
            }
            _ => tunnel.fail(&"the stream has ended"),
        }
        return;
    }
    drop(connect);
    in_flight.expires(answer.body().ends_by());
    if let Some(mut answering) = answer::begin(answer, is_head, &mut caller, in_flight, flow) {
        poll_fn(|cx| answering.poll(cx)).await;
    }
}

/// Runs the pipeline, and sends interim answers meanwhile. Returns `None` if the caller has reset the stream.
fn poll_serve<F: Future<Output = Response<AnswerBody>>>(
    service: Pin<&mut F>,
    caller: &mut SendResponse<Bytes>,
    flow: &Transfer,
    interim: (&InFlight, &mut usize),
    cx: &mut Context<'_>,
) -> Poll<Option<Response<AnswerBody>>> {
    let polled = service.poll(cx);
    let answers = flow.interim().take();
    if polled.is_pending() || !answers.is_empty() {
        // On a stream that has ended nothing may be sent.
        if caller.poll_reset(cx).is_ready() {
            return Poll::Ready(None);
        }
    }
    if !answers.is_empty() {
        send_interim(answers, caller, interim);
    }
    polled.map(Some)
}

/// Sends interim answers, as long as there are few.
fn send_interim(
    answers: Vec<(StatusCode, FieldMap)>,
    caller: &mut SendResponse<Bytes>,
    (in_flight, left): (&InFlight, &mut usize),
) {
    let plan = in_flight.worker.live.load();
    for (status, mut fields) in answers {
        if status != StatusCode::CONTINUE {
            if headers::clean_response(&mut fields, Version::HTTP_11, &plan.via).is_err() {
                continue;
            }
            let size = fields.iter().map(|(name, value)| name.as_str().len() + value.len());
            let Some(rest) = left.checked_sub(size.sum()) else {
                continue;
            };
            *left = rest;
        }
        let mut head = http::Response::new(());
        *head.status_mut() = status;
        *head.headers_mut() = fields.into();
        if let Err(error) = caller.send_informational(head) {
            tracing::debug!(%error, "an interim answer cannot be sent");
        }
    }
}
