//! Serves a caller's HTTP/1.1 connection: one request after another, and perhaps a tunnel at the end.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use http::header::{CONNECTION, CONTENT_LENGTH};
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::connection_guard::ConnectionGuard;
use super::in_flight::{CountedBody, InFlight};
use super::last_words::LastWords;
use super::loan::Lender;
use super::screened::Screened;
use super::tunnelled;
use crate::pipeline::{self, Peer};
use crate::plan::Edge;
use crate::rejection::Reason;
use crate::response::Switched;
use crate::wire::caller_body::CallerBody;
use crate::wire::coalesce::Coalesced;
use crate::wire::slow_caller::Transfer;
use crate::{headers, problem};

const MALFORMED: &str = Reason::MalformedRequest.as_str();

/// Serves requests until either side closes the connection.
///
/// An idle connection keeps only its stream, because hyper, its buffers and the request state take ten times as much
/// memory.
pub(super) async fn serve<S>(stream: S, peer: Peer, guard: ConnectionGuard)
where
    S: AsyncRead + AsyncWrite + LastWords + Unpin + Send + 'static,
{
    let mut stream = Screened::new(stream, peer.address, &guard);
    while let Ok(true) = poll_fn(|cx| stream.poll_request(cx)).await {
        match Box::pin(converse(stream, &peer, &guard)).await {
            Some(set_at_rest) => stream = set_at_rest,
            None => return,
        }
    }
    // The connection may already be closed.
    let _ = poll_fn(|cx| Pin::new(&mut stream).poll_shutdown(cx)).await;
}

/// Serves requests while they come. Returns the stream when the connection is idle for a while.
async fn converse<S>(stream: Screened<S>, peer: &Peer, guard: &ConnectionGuard) -> Option<Screened<S>>
where
    S: AsyncRead + AsyncWrite + LastWords + Unpin + Send + 'static,
{
    let lender = Lender::new();
    let stream = Coalesced(TokioIo::new(Pin::new(lender.lend(stream))));
    let (worker, activity) = (guard.worker(), guard.activity());
    let switched = &Mutex::new(None);
    let service = service_fn(|request: Request<Incoming>| {
        let flow: Option<Arc<Transfer>> = (!request.body().is_end_stream()).then(Arc::default);
        let in_flight = InFlight::new(worker, activity, flow.clone());
        let takes_chunks = request.version() >= Version::HTTP_11;
        async move {
            let plan = in_flight.worker.live.load();
            let request = request.map(|body| CallerBody::new(body, flow, headers::clean_trailers));
            let mut answer = pipeline::serve(&plan, peer, request).await;
            if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                in_flight.activity.switches();
            } else if in_flight.is_the_last(&plan.edge) || in_flight.leaves_a_body() || has_no_reading(&answer) {
                answer
                    .headers_mut()
                    .insert(CONNECTION, HeaderValue::from_static("close"));
            }
            if !takes_chunks && is_of_unknown_length(&answer) {
                in_flight.activity.start_unframed_answer();
            }
            answer.body_mut().end_when(|| in_flight.leaving());
            in_flight.expires(answer.body().ends_by());
            let mut in_flight = Some(in_flight);
            if let Some(tunnel) = answer.body_mut().take_switched() {
                let waits = in_flight.take().map(|in_flight| (tunnel, in_flight));
                *switched.lock().unwrap_or_else(PoisonError::into_inner) = waits;
            }
            Ok::<_, Infallible>(answer.map(|body| CountedBody::new(body, in_flight)))
        }
    });
    let mut connection = http(&worker.live.load().edge)
        .serve_connection(stream, service)
        .with_upgrades();
    let ended = poll_fn(|cx| {
        activity.set_server(cx.waker());
        match Pin::new(&mut connection).poll(cx) {
            Poll::Pending if !activity.may_be_put_away() => Poll::Pending,
            Poll::Pending => Poll::Ready(None),
            Poll::Ready(ended) => Poll::Ready(Some(ended)),
        }
    });
    let Some(ended) = ended.await else {
        drop(connection);
        activity.set_at_rest(false);
        return lender.take();
    };
    if ended.is_err_and(|error| error.is_parse()) {
        worker.lifecycle.malformed();
    }
    let waits: Option<(Switched, InFlight)> = switched.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some((tunnel, in_flight)) = waits {
        // A tunnel is rare and its future is large; boxed, it does not enlarge the future of an ordinary connection.
        Box::pin(tunnelled::carry(tunnel, in_flight)).await;
    }
    None
}

/// Returns whether the request was refused as malformed. Bytes after such a request cannot be trusted either.
fn has_no_reading<B>(answer: &Response<B>) -> bool {
    answer.status() == StatusCode::BAD_REQUEST
        && answer.headers().get(&problem::X_GATEWAY_REASON) == Some(&HeaderValue::from_static(MALFORMED))
}

fn is_of_unknown_length<B: Body>(answer: &Response<B>) -> bool {
    !answer.body().is_end_stream() && !answer.headers().contains_key(CONTENT_LENGTH)
}

/// Configures hyper with the limits of the plan in force when the connection began. A larger head is answered with 431.
fn http(edge: &Edge) -> http1::Builder {
    /// Number of field lines that hyper reads without allocating for them.
    const USUAL_HEADERS: usize = 100;
    /// Bytes in a read buffer unless a head may be longer; hyper's default.
    const USUAL_BUFFER: usize = 400 * 1024;
    let mut http = http1::Builder::new();
    // The reaper enforces the time limit, because hyper's own timer costs as much per request as a rate limit.
    http.header_read_timeout(None);
    http.max_header_size(edge.head_limit);
    http.max_buf_size(edge.head_limit.max(USUAL_BUFFER));
    if edge.header_limit > USUAL_HEADERS {
        http.max_headers(edge.header_limit);
    }
    http
}
