//! Runs a backend that speaks HTTP/2 exactly as its test wants: few streams, refusals, GOAWAY, silence, resets.
//!
//! The last segment of a path selects the answer (`answers`, `grpc`). Each request is recorded when it arrives, and
//! again when its stream ends.

mod answers;
mod grpc;

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use h2::Reason;
use http::{HeaderMap, Method, Uri};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::eventually;
use crate::tls::{Issued, acceptor};

const LIMIT: Duration = Duration::from_secs(10);

/// Settings of the backend.
#[derive(Default)]
pub struct Manner {
    /// Most concurrent streams on a connection.
    pub streams: Option<u32>,
    /// Number of requests after which each connection sends GOAWAY.
    pub goes_after: Option<usize>,
    /// Whether it accepts WebSockets (RFC 8441).
    pub opens_websockets: bool,
    /// Certificate of the backend; with it the backend speaks TLS.
    pub shows: Option<Issued>,
}

/// Request as it arrived.
#[derive(Debug, Clone)]
pub struct Came {
    /// Number of the connection, from 0.
    pub connection: usize,
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub protocol: Option<String>,
    /// Bytes of the body received so far.
    pub received: usize,
    pub trailers: Option<HeaderMap>,
    pub ended: Option<Ended>,
}

/// How the stream of a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Answered,
    Refused,
    /// Reset by this backend.
    BrokenOff,
    /// Reset by the gateway, with this reason.
    Reset(Reason),
    /// The connection broke.
    Lost,
}

/// Running backend. Dropping it closes its connections.
pub struct Http2 {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    manner: Manner,
    came: Mutex<Vec<Came>>,
    connections: AtomicUsize,
    open: Mutex<HashSet<usize>>,
    refusals: AtomicUsize,
    held: watch::Sender<bool>,
}

impl Http2 {
    pub async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let acceptor = manner.shows.as_ref().map(|own| acceptor(own, None, b"h2"));
        let shared = Arc::new(Shared {
            manner,
            came: Mutex::default(),
            connections: AtomicUsize::new(0),
            open: Mutex::default(),
            refusals: AtomicUsize::new(0),
            held: watch::Sender::new(true),
        });
        let accepting = tokio::spawn(accept(listener, acceptor, Arc::clone(&shared)));
        Self {
            address,
            shared,
            accepting,
        }
    }

    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns all requests so far, in order of arrival.
    pub fn came(&self) -> Vec<Came> {
        lock(&self.shared.came).clone()
    }

    /// Returns the number of connections so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(SeqCst)
    }

    /// Returns the number of open connections.
    pub fn open(&self) -> usize {
        lock(&self.shared.open).len()
    }

    /// Refuses the next requests, this many.
    pub fn refuse(&self, count: usize) {
        self.shared.refusals.store(count, SeqCst);
    }

    /// Sends the answers that were held back (`/hold`), and holds back no more.
    pub fn release(&self) {
        self.shared.held.send_replace(false);
    }

    /// Returns the requests once this many have arrived.
    pub async fn until_came(&self, count: usize) -> Vec<Came> {
        eventually(LIMIT, "requests arrive", || async {
            Some(self.came()).filter(|came| came.len() >= count)
        })
        .await
    }

    /// Returns how the stream of a request ended, once it has.
    pub async fn until_ended(&self, index: usize) -> Ended {
        eventually(LIMIT, "a stream ends", || async { self.came().get(index)?.ended }).await
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, acceptor: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            stream.set_nodelay(true)?;
            let number = shared.connections.fetch_add(1, SeqCst);
            lock(&shared.open).insert(number);
            // The recorded requests show how the connection ended.
            let _ = match acceptor {
                None => serve(stream, number, &shared).await,
                Some(acceptor) => match acceptor.accept(stream).await {
                    Ok(stream) => serve(stream, number, &shared).await,
                    Err(_) => Ok(()),
                },
            };
            lock(&shared.open).remove(&number);
            io::Result::Ok(())
        });
    }
}

async fn serve<S>(stream: S, connection: usize, shared: &Arc<Shared>) -> Result<(), h2::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = h2::server::Builder::new();
    if let Some(streams) = shared.manner.streams {
        builder.max_concurrent_streams(streams);
    }
    if shared.manner.opens_websockets {
        builder.enable_connect_protocol();
    }
    let mut h2 = builder.handshake::<_, bytes::Bytes>(stream).await?;
    let mut exchanges = JoinSet::new();
    let mut served = 0;
    while let Some(accepted) = h2.accept().await {
        let (request, mut respond) = accepted?;
        let index = shared.record(connection, &request);
        let refuses = shared.refusals.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
        if refuses.is_ok() {
            respond.send_reset(Reason::REFUSED_STREAM);
            shared.ended(index, Ended::Refused);
            continue;
        }
        served += 1;
        if shared.manner.goes_after == Some(served) {
            h2.graceful_shutdown();
        }
        let shared = Arc::clone(shared);
        exchanges.spawn(async move {
            let ended = answers::answer(request, respond, &shared, index).await;
            shared.ended(index, ended);
        });
    }
    while exchanges.join_next().await.is_some() {}
    Ok(())
}

impl Shared {
    fn record(&self, connection: usize, request: &http::Request<h2::RecvStream>) -> usize {
        let protocol = request.extensions().get::<h2::ext::Protocol>();
        let mut came = lock(&self.came);
        came.push(Came {
            connection,
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
            protocol: protocol.map(|protocol| protocol.as_str().to_owned()),
            received: 0,
            trailers: None,
            ended: None,
        });
        came.len() - 1
    }

    fn received(&self, index: usize, count: usize) {
        lock(&self.came)[index].received += count;
    }

    fn trailed(&self, index: usize, trailers: HeaderMap) {
        lock(&self.came)[index].trailers = Some(trailers);
    }

    fn ended(&self, index: usize, ended: Ended) {
        lock(&self.came)[index].ended.get_or_insert(ended);
    }
}
