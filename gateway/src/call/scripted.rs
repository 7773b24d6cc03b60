//! A backend for tests on paused time: its connections are pipes in memory, and a script says what comes of a request.
//!
//! Everything else is real: pool, exchange, guards, deadlines. The endpoint's name is never resolved, so that once its
//! connections are used up there is nothing left to reach.

use std::convert::Infallible;
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
use tokio::time::sleep;

use super::backend::Backend;
use super::endpoints::Pools;
use super::pool::Connection;
use crate::clock;

/// What comes of one request.
#[derive(Debug, Clone)]
pub(crate) enum Turn {
    Answer {
        after: Duration,
        status: u16,
        /// In seconds.
        retry_after: Option<u64>,
        tail: Tail,
    },
    /// The connection breaks instead of an answer.
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
    /// Server-sent events without end, so far apart.
    Events(Duration),
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) at: Moment,
    pub(crate) headers: HeaderMap,
}

type Play = Box<dyn FnMut() -> Turn + Send>;
type TurnBody = UnsyncBoxBody<Bytes, Infallible>;

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
        });
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
                sleep(after).await;
                let mut response = Response::new(body(tail, active));
                *response.status_mut() = status.try_into().expect("a status");
                let headers = response.headers_mut();
                if let Some(seconds) = retry_after {
                    headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
                }
                let kind = match tail {
                    Tail::Events(_) => "text/event-stream",
                    Tail::AtOnce | Tail::Late(_) => "application/json",
                };
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
                Ok(response)
            }
        }
    }
}

fn body(tail: Tail, active: Active) -> TurnBody {
    let pause = match tail {
        Tail::AtOnce => return Full::new(Bytes::from_static(br#"{"id":7}"#)).boxed_unsync(),
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
