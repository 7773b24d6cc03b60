//! Serves a caller's HTTP/2 connection: many requests at once, each on its own stream.
//!
//! Invariant: a stream cannot end another stream. A connection ends for too many frames that ask for nothing, for a
//! head that is never completed, and for a caller that reads nothing; any other fault ends only its own stream.
//!
//! Before the gateway closes a connection it sends GOAWAY, so that the caller knows which requests were not served.

mod frames;
mod gathered_io;
mod metered_io;
mod streams;
mod unfinished_streams;
mod uploads;
mod widening;

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;

use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, UPGRADE};
use http::{Request, StatusCode};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;

use self::gathered_io::gathered;
use self::metered_io::MeteredIo;
use self::streams::Streams;
use self::uploads::{NextUpload, Uploads};
use self::widening::Widening;
use super::connection_guard::ConnectionGuard;
use super::in_flight::{CountedBody, InFlight};
use super::lifecycle::Phase;
use super::tunnelled;
use crate::clock;
use crate::headers;
use crate::pipeline::{self, Peer};
use crate::plan::Edge;
use crate::response::AnswerBody;
use crate::wire::caller_body::CallerBody;
use crate::wire::flow_control::FlowControlWindows;
use crate::wire::grpc;
use crate::wire::parked::ParkedOfConnection;
use crate::wire::slow_caller::Transfer;

/// Bytes of one answer that are buffered while the caller's window is full.
const SEND_BUFFER: usize = 64 * 1024;
/// Number of resets that a caller may provoke before its connection is closed (CVE-2025-8671).
const OWN_RESETS: usize = 100;

/// Serves requests until either side closes the connection.
pub(super) async fn serve<S>(stream: S, peer: Peer, guard: ConnectionGuard)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (worker, activity) = (Arc::clone(guard.worker()), Arc::clone(guard.activity()));
    let farewell = Arc::new(Notify::new());
    activity.share(Arc::clone(&farewell));
    let (streams, peer, next_upload) = (Streams::default(), Arc::new(peer), NextUpload::default());
    let plan = worker.live.load();
    let windows = FlowControlWindows::of_caller(plan.edge.most_streams);
    let parked = Arc::new(ParkedOfConnection::new(Arc::clone(&plan.parked)));
    let uploads = Uploads::new(parked, next_upload.clone(), windows);
    let stream = MeteredIo::new(stream, &guard, uploads, Widening::new(windows));
    let (stream, writes) = gathered(stream);
    let http = http(&plan.edge, windows, streams.clone());
    drop(plan);
    let leaving = Arc::clone(&farewell);
    let service = service_fn(move |request: Request<Incoming>| {
        let flow: Arc<Transfer> = Arc::default();
        streams.expect(Arc::clone(&flow));
        let has_body = !request.body().is_end_stream();
        let parked = has_body.then(|| next_upload.take()).flatten();
        let in_flight = InFlight::new(guard.worker(), guard.activity(), Some(Arc::clone(&flow)));
        let (peer, leaving) = (Arc::clone(&peer), Arc::clone(&leaving));
        if let Some(parked) = &parked {
            let budget = in_flight.worker.live.load().edge.parked_total;
            parked.ask_for_room(request.body().size_hint().exact(), budget);
        }
        // Boxed, because the library moves the future several times.
        clock::held_in_each_poll(Box::pin(async move {
            let plan = in_flight.worker.live.load();
            if in_flight.is_the_last(&plan.edge) {
                leaving.notify_one();
            }
            let is_grpc = grpc::is_grpc(request.headers());
            let request = request.map(|body| {
                let body = CallerBody::of_stream(body, flow, parked, headers::clean_trailers);
                if is_grpc { body.of_grpc() } else { body }
            });
            let answer = pipeline::serve(&plan, &peer, request).await;
            Ok::<_, Infallible>(finish(answer, in_flight))
        }))
    });
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let mut leaving = pin!(async {
        tokio::select! {
            () = worker.lifecycle.reached(Phase::Draining) => {}
            () = farewell.notified() => {}
        }
    });
    let mut told = false;
    let ended = poll_fn(|cx| {
        if !told && leaving.as_mut().poll(cx).is_ready() {
            told = true;
            connection.as_mut().graceful_shutdown();
        }
        let ended = connection.as_mut().poll(cx);
        writes.write(cx);
        ended
    })
    .await;
    if ended.is_err_and(|error| is_callers_fault(&error)) {
        worker.lifecycle.malformed();
    }
}

fn finish(mut answer: http::Response<AnswerBody>, in_flight: InFlight) -> http::Response<CountedBody> {
    answer.body_mut().end_when(|| in_flight.leaving());
    answer.body_mut().break_off_when(|| in_flight.leaving_late());
    if let Some(tunnel) = answer.body_mut().take_switched() {
        // On HTTP/2 only the stream is switched, and the status is 200 (RFC 8441 section 5).
        *answer.status_mut() = StatusCode::OK;
        for field in [CONNECTION, UPGRADE, SEC_WEBSOCKET_ACCEPT] {
            answer.headers_mut().remove(field);
        }
        tokio::spawn(tunnelled::carry_on_stream(tunnel, in_flight));
        return answer.map(|body| CountedBody::new(body, None));
    }
    in_flight.expires(answer.body().ends_by());
    answer.map(|body| CountedBody::new(body, Some(in_flight)))
}

/// Returns whether the connection ended because of invalid input, and not because a side closed it.
fn is_callers_fault(error: &hyper::Error) -> bool {
    let h2 = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    h2.is_some_and(|error| error.is_library() && error.reason().is_some())
}

/// Bytes by which a head may exceed its limit and still be read, so that its rejection names the reason. A longer head
/// is answered with a bare 431.
const BEYOND_HEAD_LIMIT: usize = 16 * 1024;

/// Configures hyper with the limits of the plan in force when the connection began.
fn http(edge: &Edge, windows: FlowControlWindows, streams: Streams) -> http2::Builder<Streams> {
    let mut http = http2::Builder::new(streams);
    http.max_concurrent_streams(edge.most_streams)
        .max_header_list_size(u32::try_from(edge.head_limit + BEYOND_HEAD_LIMIT).unwrap_or(u32::MAX))
        .initial_stream_window_size(windows.stream)
        .initial_connection_window_size(windows.connection)
        .max_send_buf_size(SEND_BUFFER)
        .max_local_error_reset_streams(OWN_RESETS)
        .enable_connect_protocol();
    http
}
