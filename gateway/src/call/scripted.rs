//! A backend for tests on paused time: its connections are pipes in memory, and a script says what comes of a request.
//!
//! Everything else is real: pool, exchange, guards, deadlines. The endpoint's name is never resolved, so that once its
//! connections are used up there is nothing left to reach.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{client, server};
use hyper_util::rt::TokioIo;
use policies::Moment;
use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::backend::Backend;
use super::endpoints::Pools;
use super::pool::Connection;
use crate::clock;
use crate::headers;
use crate::wire::caller_body::CallerBody;

/// What comes of one request.
#[derive(Debug, Clone)]
pub(crate) enum Turn {
    /// So long after the last byte of the request.
    Answer {
        after: Duration,
        status: u16,
        /// In seconds.
        retry_after: Option<u64>,
        tail: Tail,
    },
    /// The connection breaks instead of an answer, so long after the head of the request.
    Break { after: Duration },
    /// No answer, ever.
    Hang,
}

/// How the body of an answer comes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Tail {
    AtOnce,
    /// Its second half is this late.
    Late(Duration),
    /// The connection breaks instead of its second half.
    Breaks,
    /// Server-sent events without end, so far apart.
    Events(Duration),
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) at: Moment,
    pub(crate) headers: HeaderMap,
    /// Bytes of its body, once all of it has come.
    pub(crate) body: usize,
}

type Play = Box<dyn FnMut() -> Turn + Send>;
type TurnBody = UnsyncBoxBody<Bytes, Broke>;

/// What stands behind the connections of one backend.
pub(crate) struct Scripted {
    play: Mutex<Play>,
    arrivals: Mutex<Vec<Arrival>>,
    /// Requests that have no end yet.
    active: AtomicUsize,
}

/// A request that has not ended counts until it is dropped.
struct Active(Arc<Scripted>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
    }
}

/// The connection is to be closed.
#[derive(Debug)]
struct Broke;

impl std::fmt::Display for Broke {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("broken as scripted")
    }
}

impl std::error::Error for Broke {}

impl Scripted {
    /// Opens so many connections to each endpoint of `backend`, for its first worker; `play` says what comes of each
    /// request.
    pub(crate) async fn behind(
        backend: &Backend,
        connections: usize,
        play: impl FnMut() -> Turn + Send + 'static,
    ) -> Arc<Self> {
        let scripted = Arc::new(Self {
            play: Mutex::new(Box::new(play)),
            arrivals: Mutex::default(),
            active: AtomicUsize::new(0),
        });
        for endpoint in backend.endpoints.all() {
            for _ in 0..connections {
                let connection = Arc::clone(&scripted).connect().await;
                let Pools::Http1(pools) = &endpoint.pools else {
                    panic!("the script is in HTTP/1.1");
                };
                pools[0].put(connection, &backend.settings.pool, clock::now());
            }
        }
        scripted
    }

    /// Every request so far, in order.
    pub(crate) fn arrivals(&self) -> MutexGuard<'_, Vec<Arrival>> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests whose caller has neither had the whole answer nor left.
    pub(crate) fn active(&self) -> usize {
        self.active.load(Relaxed)
    }

    async fn connect(self: Arc<Self>) -> Connection {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let service = service_fn(move |request| Arc::clone(&self).answer(request));
        tokio::spawn(async move {
            // However it ends, the other end has been told.
            let _ = server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(theirs), service)
                .await;
        });
        let (sender, connection) = client::conn::http1::handshake(TokioIo::new(ours))
            .await
            .expect("a pipe takes a handshake");
        let driver = tokio::spawn(async move {
            let _ = connection.await;
        });
        Connection::new(sender, Arc::default(), driver.abort_handle(), clock::now())
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<TurnBody>, Broke> {
        self.arrivals().push(Arrival {
            at: clock::now(),
            headers: request.headers().clone(),
            body: 0,
        });
        let index = self.arrivals().len() - 1;
        let turn = (self.play.lock().unwrap_or_else(PoisonError::into_inner))();
        self.active.fetch_add(1, Relaxed);
        let active = Active(self);
        match turn {
            Turn::Hang => std::future::pending().await,
            Turn::Break { after } => {
                sleep(after).await;
                Err(Broke)
            }
            Turn::Answer {
                after,
                status,
                retry_after,
                tail,
            } => {
                // One that does not come to its end is broken off by the gateway.
                let whole = request.into_body().collect().await.map_err(|_| Broke)?;
                active.0.arrivals()[index].body = whole.to_bytes().len();
                sleep(after).await;
                let mut response = Response::new(body(tail, active));
                *response.status_mut() = status.try_into().expect("a status");
                let headers = response.headers_mut();
                if let Some(seconds) = retry_after {
                    headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
                }
                let kind = match tail {
                    Tail::Events(_) => "text/event-stream",
                    Tail::AtOnce | Tail::Late(_) | Tail::Breaks => "application/json",
                };
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
                Ok(response)
            }
        }
    }
}

fn body(tail: Tail, active: Active) -> TurnBody {
    let pause = match tail {
        Tail::AtOnce => {
            let whole = Full::new(Bytes::from_static(br#"{"id":7}"#));
            return whole.map_err(|never| match never {}).boxed_unsync();
        }
        Tail::Breaks => {
            let frames = stream::unfold((false, active), |(begun, active)| async move {
                let piece = if begun {
                    // Until the first piece has left.
                    sleep(Duration::from_millis(1)).await;
                    Err(Broke)
                } else {
                    Ok(Frame::data(Bytes::from_static(br#"{"id""#)))
                };
                Some((piece, (true, active)))
            });
            return StreamBody::new(frames).boxed_unsync();
        }
        Tail::Late(pause) | Tail::Events(pause) => pause,
    };
    let pieces: &[&'static [u8]] = match tail {
        Tail::Events(_) => &[b"data: 7\n\n"],
        _ => &[br#"{"id""#, b":7}"],
    };
    let endless = matches!(tail, Tail::Events(_));
    let frames = stream::unfold((0, active), move |(number, active)| async move {
        let piece = if endless { pieces.first() } else { pieces.get(number) }?;
        if number > 0 {
            sleep(pause).await;
        }
        Some((Ok(Frame::data(Bytes::from_static(piece))), (number + 1, active)))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// The body of a request whose caller sends these pieces, each so long after the one before; with a length that is said
/// before, or in chunks. Nothing follows them, not even the end of a body in chunks, unless it `ends`.
pub(crate) async fn caller_body(pieces: Vec<(Duration, usize)>, length: Option<usize>, ends: bool) -> CallerBody {
    let (mut caller, ours) = tokio::io::duplex(64 * 1024);
    let (bring, brought) = oneshot::channel();
    let bring = Mutex::new(Some(bring));
    let service = service_fn(move |request: Request<Incoming>| {
        let bring = bring.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _ = bring.expect("one request").send(request.into_body());
        std::future::pending::<Result<Response<Full<Bytes>>, Broke>>()
    });
    tokio::spawn(async move {
        // Never answered: it ends with the test.
        let _ = server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(ours), service)
            .await;
    });
    tokio::spawn(async move {
        let framing = match length {
            Some(length) => format!("content-length: {length}"),
            None => "transfer-encoding: chunked".to_owned(),
        };
        caller
            .write_all(format!("POST / HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n").as_bytes())
            .await?;
        for (pause, size) in pieces {
            sleep(pause).await;
            let piece = vec![b'x'; size];
            if length.is_none() {
                caller.write_all(format!("{size:x}\r\n").as_bytes()).await?;
            }
            caller.write_all(&piece).await?;
            if length.is_none() {
                caller.write_all(b"\r\n").await?;
            }
        }
        if ends && length.is_none() {
            caller.write_all(b"0\r\n\r\n").await?;
        }
        // It stays, and says nothing.
        std::future::pending::<std::io::Result<()>>().await
    });
    let incoming = brought.await.expect("a request comes");
    CallerBody::new(incoming, None, headers::clean_trailers)
}
