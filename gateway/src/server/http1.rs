//! A caller's connection that speaks HTTP/1.1: one request after the other, or a tunnel after the last.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use http::header::CONNECTION;
use http::{HeaderValue, Request, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::enrolled::Enrolled;
use super::in_flight::{CountedBody, InFlight};
use super::screened::{LastWords, Screened};
use super::tunnelled;
use crate::answer::Switched;
use crate::caller_body::CallerBody;
use crate::coalesce::Coalesced;
use crate::intake::headers;
use crate::pipeline::{self, Peer};
use crate::plan::Edge;

/// Serves requests until either side closes the connection.
pub(super) async fn serve<S>(stream: S, peer: Peer, enrolled: Enrolled)
where
    S: AsyncRead + AsyncWrite + LastWords + Unpin + Send + 'static,
{
    let stream = Coalesced(TokioIo::new(Screened::new(stream, peer.address, &enrolled)));
    let (worker, activity, peer) = (enrolled.worker(), enrolled.activity(), &peer);
    let switched = &Mutex::new(None);
    let service = service_fn(|request: Request<Incoming>| {
        let flow = (!request.body().is_end_stream()).then(Arc::default);
        let in_flight = InFlight::new(worker, activity, flow.clone());
        async move {
            let plan = in_flight.worker.live.load();
            let request = request.map(|body| CallerBody::new(body, flow, headers::clean_trailers));
            let mut answer = pipeline::serve(&plan, peer, request).await;
            if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                in_flight.activity.switches();
            } else if in_flight.is_the_last(&plan.edge) {
                answer
                    .headers_mut()
                    .insert(CONNECTION, HeaderValue::from_static("close"));
            }
            answer.body_mut().end_when(|| in_flight.leaving());
            let mut in_flight = Some(in_flight);
            if let Some(tunnel) = answer.body_mut().take_switched() {
                let waits = in_flight.take().map(|in_flight| (tunnel, in_flight));
                *switched.lock().unwrap_or_else(PoisonError::into_inner) = waits;
            }
            Ok::<_, Infallible>(answer.map(|body| CountedBody::new(body, in_flight)))
        }
    });
    let connection = http(&worker.live.load().edge).serve_connection(stream, service);
    let ended = connection.with_upgrades().await;
    if ended.is_err_and(|error| error.is_parse()) {
        worker.lifecycle.malformed();
    }
    let waits: Option<(Switched, InFlight)> = switched.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some((tunnel, in_flight)) = waits {
        // Rare, and large: on the heap it does not weigh on connections that stay what they are.
        Box::pin(tunnelled::carry(tunnel, in_flight)).await;
    }
}

/// hyper with the bounds of the plan in force when the connection began. A head beyond them is answered with 431.
fn http(edge: &Edge) -> http1::Builder {
    /// So many field lines are read without an allocation for them.
    const USUAL_HEADERS: usize = 100;
    /// What may lie in a buffer unless a head may be longer; hyper's own default.
    const USUAL_BUFFER: usize = 400 * 1024;
    let mut http = http1::Builder::new();
    // The watch has the timers; hyper's own cost as much per request as a limit.
    http.header_read_timeout(None);
    http.max_header_size(edge.head_limit);
    http.max_buf_size(edge.head_limit.max(USUAL_BUFFER));
    if edge.header_limit > USUAL_HEADERS {
        http.max_headers(edge.header_limit);
    }
    http
}
