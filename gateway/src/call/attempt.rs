//! Makes one attempt: takes a connection, sends the request and reads the head of the answer.
//!
//! An attempt knows whether its request was sent, which decides what may be repeated. There are no hidden retries. Only
//! a connection that is found closed, or closing, before it took anything of the request is replaced by another.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use policies::{Deadline, Moment};

use super::checkout::Checkout;
use super::endpoints::{Endpoint, Pools};
use super::failure::{Failure, describe};
use super::fault::{Fault, Upload};
use super::http2::{RequestTarget, Terms};
use super::pool::{self, Connection, Pool, PoolSettings};
use super::replay::Outbound;
use super::screened::Screened;
use super::timer::{Elapsed, Timer};
use super::timing::Timing;
use crate::clock;
use crate::wire::coalesce::Coalesced;
use crate::wire::framing::{Awaited, Refusal};

/// Parameters of an attempt: the endpoint, its pool, and the limits.
pub(crate) struct AttemptParams<'a> {
    pub(crate) endpoint: &'a Arc<Endpoint>,
    pub(crate) worker: usize,
    pub(crate) pool: &'a PoolSettings,
    /// Maximum time of connecting.
    pub(crate) connect: Duration,
    /// Whether the request asks the backend to switch to another protocol.
    pub(crate) switches: bool,
    /// Whether the caller accepts trailers.
    pub(crate) trailers: bool,
}

/// Head of an answer, with a body that is still being received on the connection.
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    pub(crate) lease: Checkout,
}

impl Answer {
    /// Drops an answer that is not used. Keeps its connection if the rest of the body has already arrived.
    pub(crate) fn discard(self, settings: &PoolSettings) {
        let mut body = self.response.into_body();
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        while let Poll::Ready(Some(Ok(_))) = Pin::new(&mut body).poll_frame(&mut cx) {}
        if body.is_end_stream() {
            self.lease.discard(settings, clock::now());
        }
    }
}

impl AttemptParams<'_> {
    /// Sends the request and waits for the head of the answer until `deadline`. Records the times in `timing`. Calls
    /// `request` to build the request, and calls it again if a connection is found closed.
    ///
    /// # Errors
    /// Returns a [`Failure`], which says whether anything was sent.
    pub(crate) async fn attempt(
        &self,
        request: impl FnMut() -> Option<Request<Outbound>>,
        began: Moment,
        deadline: Deadline,
        timer: &mut Timer,
        timing: &mut Timing,
    ) -> Result<Answer, Failure> {
        match &self.endpoint.pools {
            Pools::Http1(pools) => {
                let pool = &pools[self.worker];
                self.exchange(pool, request, began, deadline, timer, timing).await
            }
            Pools::Http2(pools) => {
                let terms = Terms {
                    endpoint: self.endpoint,
                    pool: &pools[self.worker],
                    settings: self.pool,
                    connect: self.connect,
                    target: RequestTarget {
                        host: self.endpoint.host(),
                        authority: self.endpoint.authority(),
                        is_secure: self.endpoint.tls.is_some(),
                        trailers: self.trailers,
                        switches: self.switches,
                    },
                };
                // Boxed, so that calls over HTTP/1.1 do not carry the size of this future.
                let exchange = Box::pin(terms.exchange(request, deadline, timer, timing));
                let (response, lease) = exchange.await?;
                let lease = Checkout::Shared(lease);
                Ok(Answer { response, lease })
            }
        }
    }

    /// Makes the attempt over HTTP/1.1, where an exchange has a connection for itself.
    async fn exchange(
        &self,
        pool: &Arc<Pool>,
        mut request: impl FnMut() -> Option<Request<Outbound>>,
        began: Moment,
        deadline: Deadline,
        timer: &mut Timer,
        timing: &mut Timing,
    ) -> Result<Answer, Failure> {
        let mut pooled = pool.take(self.pool, began);
        let mut ready = began;
        loop {
            let connection = match pooled.take() {
                Some(connection) => connection,
                None => {
                    let started = clock::now();
                    // Boxed, because connecting is rare and its future is large. Calls on pooled connections do not
                    // carry its size.
                    let dialled = Box::pin(self.dial(started, deadline, timer)).await;
                    ready = clock::now();
                    timing.connecting += ready.since(started);
                    dialled?
                }
            };
            let used = connection.used;
            let mut lease = pool::PooledConnection::new(connection, Arc::clone(pool));
            let Connection {
                sender, awaited, timer, ..
            } = lease.connection();
            if !sender.is_ready() {
                // The previous exchange is complete, but its connection may not have noticed yet.
                match timer.run(deadline.moment(), pin!(sender.ready())).await {
                    Err(Elapsed) => return Err(Failure::new(Fault::TimedOut { sent: false }, "connection not ready")),
                    Ok(Err(_)) if used => continue,
                    Ok(Err(error)) => return Err(Failure::new(Fault::Unreached, describe(&error))),
                    Ok(Ok(())) => ready = clock::now(),
                }
            }
            timing.sent = Some(ready);
            let Some(mut request) = request() else {
                return Err(Failure::body_gone());
            };
            frame_body(&mut request);
            awaited.begin(request.method() == Method::HEAD);
            match timer
                .run(deadline.moment(), pin!(sender.try_send_request(request)))
                .await
            {
                Err(Elapsed) => return Err(Failure::new(Fault::TimedOut { sent: true }, "no answer in time")),
                Ok(Ok(response)) if response.status() == StatusCode::SWITCHING_PROTOCOLS && !self.switches => {
                    return Err(Failure::new(Fault::Invalid, "switched protocols unasked"));
                }
                Ok(Ok(response)) => {
                    if response.version() < Version::HTTP_11 {
                        // hyper would speak HTTP/1.0 on this connection from now on, which has no chunked bodies. The
                        // gateway always speaks its own version (RFC 9112 section 2.3).
                        lease.connection().end_with_exchange();
                    }
                    let lease = Checkout::Own(lease);
                    return Ok(Answer { response, lease });
                }
                Ok(Err(mut refused)) => {
                    let mut unsent = refused.take_message().is_some();
                    if unsent && used {
                        continue;
                    }
                    let error = refused.into_error();
                    let tls = self.endpoint.tls.as_ref().filter(|_| !used);
                    unsent |= tls.is_some_and(|tls| tls.was_refused(&error));
                    let fault = if unsent { Fault::Unreached } else { fault_of(&error) };
                    return Err(Failure::new(fault, describe(&error)));
                }
            }
        }
    }

    async fn dial(&self, now: Moment, deadline: Deadline, timer: &mut Timer) -> Result<Connection, Failure> {
        let address = self.endpoint.address();
        let until = deadline.child(now, self.connect);
        let dialling = async {
            let stream = self.endpoint.reach().await?;
            let awaited = Arc::new(Awaited::default());
            let stream = Screened::new(stream, Arc::clone(&awaited));
            let (sender, connection) = http1::Builder::new()
                .handshake(Coalesced(TokioIo::new(stream)))
                .await
                .map_err(std::io::Error::other)?;
            std::io::Result::Ok((sender, connection, awaited))
        };
        match timer.run(until.moment(), pin!(dialling)).await {
            Ok(Ok((sender, connection, awaited))) => {
                let driver = tokio::spawn(async move {
                    // However the connection ends, its exchange has already been told.
                    let _ = connection.with_upgrades().await;
                });
                Ok(Connection::new(sender, awaited, driver.abort_handle(), now))
            }
            Ok(Err(error)) => Err(Failure::new(Fault::Unreached, format_args!("{address}: {error}"))),
            Err(Elapsed) if until < deadline => Err(Failure::connect_limit(address, self.connect)),
            Err(Elapsed) => Err(Failure::new(
                Fault::TimedOut { sent: false },
                format_args!("{address}: connecting"),
            )),
        }
    }
}

/// Adds `Transfer-Encoding: chunked` to a request whose body has unknown length. Without it, hyper sends no body with
/// GET or HEAD. Framing does not depend on the method (RFC 9112 section 6.3).
fn frame_body(request: &mut Request<Outbound>) {
    let body = request.body();
    let is_announced = body.is_end_stream() || body.size_hint().exact().is_some();
    if !is_announced && !request.headers().contains_key(CONTENT_LENGTH) {
        let chunked = HeaderValue::from_static("chunked");
        request.headers_mut().insert(TRANSFER_ENCODING, chunked);
    }
}

fn fault_of(error: &hyper::Error) -> Fault {
    let refused = Refusal::behind(error).is_some();
    if refused || error.is_parse() || error.is_parse_status() || error.is_parse_too_large() {
        Fault::Invalid
    } else if error.is_user() {
        Fault::Upload(Upload::Broken)
    } else {
        Fault::Broken
    }
}
