//! One caller's connection, from its acceptance to its end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use http::header::CONNECTION;
use http::{HeaderValue, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::crowd::Member;
use super::guarded_io::GuardedIo;
use super::lifecycle::{Lifecycle, Phase};
use super::screened::{LastWords, Screened};
use super::watch::Activity;
use super::worker::Worker;
use crate::answer::{AnswerBody, Switched};
use crate::coalesce::Coalesced;
use crate::intake::address;
use crate::intake::headers::Scheme;
use crate::observe::ConnectionRefusal;
use crate::pipeline::{self, Peer};
use crate::plan::Edge;

/// A connection's entry in the worker's books, from its acceptance to its end, whatever ends it.
pub(crate) struct Enrolled {
    worker: Arc<Worker>,
    id: u64,
    activity: Arc<Activity>,
    /// Where connections of one address are limited.
    member: Option<Member>,
}

impl Enrolled {
    pub(crate) fn new(worker: Arc<Worker>) -> Self {
        worker.lifecycle.connection_opened();
        let (id, activity) = worker.watch.begin();
        Self {
            worker,
            id,
            activity,
            member: None,
        }
    }

    /// Now that its client is known; `None` if that has too many connections already, which is counted.
    pub(crate) fn of(mut self, client: SocketAddr) -> Option<Self> {
        let edge = &self.worker.live.load().edge;
        if let Some(most) = edge.most_per_address {
            let address = address::key(client.ip(), edge.ipv6_prefix);
            self.member = self.worker.crowd.join(address, most);
            if self.member.is_none() {
                self.worker.refuse(ConnectionRefusal::TooManyFromAddress);
                return None;
            }
        }
        Some(self)
    }

    pub(crate) const fn id(&self) -> u64 {
        self.id
    }

    pub(crate) const fn worker(&self) -> &Arc<Worker> {
        &self.worker
    }

    pub(crate) const fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }
}

impl Drop for Enrolled {
    fn drop(&mut self) {
        self.worker.watch.end(self.id);
        self.worker.lifecycle.connection_closed();
    }
}

/// Serves requests in plain HTTP until either side closes the connection.
pub(crate) async fn serve_plain(stream: TcpStream, address: SocketAddr, enrolled: Enrolled) {
    let peer = Peer {
        address,
        worker: enrolled.worker.index,
        scheme: Scheme::Http,
        certificate: None,
    };
    let io = GuardedIo::new(stream, Arc::clone(&enrolled.activity));
    serve(io, peer, enrolled).await;
}

/// Serves requests on a stream that is ready for them until either side closes it.
pub(crate) async fn serve<S>(stream: S, peer: Peer, enrolled: Enrolled)
where
    S: AsyncRead + AsyncWrite + LastWords + Unpin + Send + 'static,
{
    let stream = Coalesced(TokioIo::new(Screened::new(stream, peer.address, &enrolled)));
    let (worker, activity, peer) = (&enrolled.worker, &enrolled.activity, &peer);
    let switched = &Mutex::new(None);
    let service = service_fn(|request| {
        let in_flight = InFlight::new(Arc::clone(worker), Arc::clone(activity));
        async move {
            let plan = in_flight.worker.live.load();
            let mut answer = pipeline::serve(&plan, peer, request).await;
            if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                in_flight.activity.switches();
            } else if in_flight.is_the_last(&plan.edge) {
                answer
                    .headers_mut()
                    .insert(CONNECTION, HeaderValue::from_static("close"));
            }
            answer.body_mut().end_when(|| leaving(&in_flight.worker));
            let mut in_flight = Some(in_flight);
            if let Some(tunnel) = answer.body_mut().take_switched() {
                let waits = in_flight.take().map(|in_flight| (tunnel, in_flight));
                *switched.lock().unwrap_or_else(PoisonError::into_inner) = waits;
            }
            Ok::<_, Infallible>(answer.map(|body| CountedBody {
                body,
                _in_flight: in_flight,
            }))
        }
    });
    let connection = http(&worker.live.load().edge).serve_connection(stream, service);
    let ended = connection.with_upgrades().await;
    if ended.is_err_and(|error| error.is_parse()) {
        worker.lifecycle.malformed();
    }
    let waits: Option<(Switched, InFlight)> = switched.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some((tunnel, in_flight)) = waits {
        let _counted = CountedTunnel::new(&in_flight.worker.lifecycle);
        // Rare, and large: on the heap it does not weigh on connections that stay what they are.
        Box::pin(tunnel.carry(leaving(&in_flight.worker))).await;
    }
}

/// A tunnel in the books, whatever ends it.
struct CountedTunnel<'a>(&'a Lifecycle);

impl<'a> CountedTunnel<'a> {
    fn new(lifecycle: &'a Lifecycle) -> Self {
        lifecycle.tunnel_opened();
        Self(lifecycle)
    }
}

impl Drop for CountedTunnel<'_> {
    fn drop(&mut self) {
        self.0.tunnel_closed();
    }
}

/// Ready when what would go on for ever has to end.
fn leaving(worker: &Arc<Worker>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    let lifecycle = Arc::clone(&worker.lifecycle);
    Box::pin(async move { lifecycle.reached(Phase::Draining).await })
}

/// A request from its head to the last byte of its answer.
struct InFlight {
    worker: Arc<Worker>,
    activity: Arc<Activity>,
}

impl InFlight {
    fn new(worker: Arc<Worker>, activity: Arc<Activity>) -> Self {
        activity.serves();
        worker.lifecycle.request_began();
        Self { worker, activity }
    }

    /// Whether no other may follow on its connection.
    fn is_the_last(&self, edge: &Edge) -> bool {
        self.worker.lifecycle.phase() >= Phase::Draining
            || edge.most_requests.is_some_and(|most| self.activity.requests() >= most)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.worker.lifecycle.request_ended();
        self.activity.has_answered();
    }
}

/// An answer's body that tells the connection when it has ended.
struct CountedBody {
    body: AnswerBody,
    _in_flight: Option<InFlight>,
}

impl Body for CountedBody {
    type Data = <AnswerBody as Body>::Data;
    type Error = <AnswerBody as Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
