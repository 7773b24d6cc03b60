//! Sends requests on one connection, one at a time, and reports exactly how each ended.
//!
//! Invariant: no hidden retries, with one exception: if the kept-alive connection is found closed before any byte of a
//! request was sent, the request goes over a new connection, as in any HTTP client (RFC 9110 section 9.2.2).

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// Reason why there is no complete answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// No connection could be made, so no server accepted the request.
    Unconnected,
    /// The connection ended after the request was sent and before the head of an answer.
    Unanswered,
    /// The connection ended within the body, or the bytes were not HTTP.
    Broken,
    /// The answer was not complete in time.
    TimedOut,
}

impl Fault {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unconnected => "unconnected",
            Self::Unanswered => "unanswered",
            Self::Broken => "broken",
            Self::TimedOut => "timed_out",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Connection that is opened when it is first needed, and again after it has ended.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, sender: None }
    }

    /// Sends `request` and reads its answer to the last byte; `limit` bounds both together.
    ///
    /// # Errors
    /// [`Fault`]; the connection is then not used again.
    pub async fn ask(&mut self, request: Request<Full<Bytes>>, limit: Duration) -> Result<Response<Bytes>, Fault> {
        let exchange = self.exchange(request);
        let ended = timeout_at(Instant::now() + limit, exchange)
            .await
            .unwrap_or(Err(Fault::TimedOut));
        if ended.is_err() {
            self.sender = None;
        }
        ended
    }

    async fn exchange(&mut self, mut request: Request<Full<Bytes>>) -> Result<Response<Bytes>, Fault> {
        loop {
            let reused = self.sender.is_some();
            let mut sender = match self.sender.take() {
                Some(sender) => sender,
                None => connect(self.address).await?,
            };
            if sender.ready().await.is_err() {
                if reused {
                    continue;
                }
                return Err(Fault::Unconnected);
            }
            match sender.try_send_request(request).await {
                Ok(response) => {
                    let response = collect(response).await?;
                    self.sender = Some(sender);
                    return Ok(response);
                }
                Err(mut refused) => match refused.take_message() {
                    Some(unsent) if reused => request = unsent,
                    Some(_) => return Err(Fault::Unconnected),
                    None if refused.error().is_parse() => return Err(Fault::Broken),
                    None => return Err(Fault::Unanswered),
                },
            }
        }
    }
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>, Fault> {
    let stream = TcpStream::connect(address).await.map_err(|_| Fault::Unconnected)?;
    stream.set_nodelay(true).map_err(|_| Fault::Unconnected)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|_| Fault::Unconnected)?;
    // The pending request learns how the connection ended.
    tokio::spawn(connection);
    Ok(sender)
}

async fn collect(response: Response<Incoming>) -> Result<Response<Bytes>, Fault> {
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(|_| Fault::Broken)?;
    Ok(Response::from_parts(head, body.to_bytes()))
}

/// Returns `Retry-After` if it is written in seconds.
pub fn retry_after<B>(response: &Response<B>) -> Option<Duration> {
    let seconds = response
        .headers()
        .get(header::RETRY_AFTER)?
        .to_str()
        .ok()?
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds))
}

/// Returns how a request ended, in a form that can be counted: `Ok(200)`, `Err(timed_out)`.
pub fn ending<B>(ended: &Result<Response<B>, Fault>) -> Result<StatusCode, Fault> {
    ended.as_ref().map(Response::status).map_err(|fault| *fault)
}
