//! A backend for tests on paused time: its connections are pipes in memory, and a script decides each answer.
//!
//! Everything else is real: pool, exchange, guards, deadlines. The endpoint's address has port 0, so no endpoint can be
//! reached once the connections are used up.

use std::future::{pending, poll_fn};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::server;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use policies::Moment;
use tokio::time::{Instant, sleep, sleep_until};

use super::backend::Backend;
use super::endpoints::{Member, Pools};
use super::http1::MessageStream;
use super::memory_pipe::MemoryPipe;
use super::pool::Connection;
use super::transport::Transport;
use crate::clock;
use crate::headers;
use crate::wire::caller_body::CallerBody;
use crate::wire::upload::{Wanted, upload};

/// Address of every scripted endpoint. Nothing can be reached there.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Scripted behaviour for one request.
#[derive(Debug, Clone)]
pub(crate) enum Behaviour {
    /// Answers `after` the last byte of the request.
    Answer {
        after: Duration,
        status: u16,
        /// `Retry-After` in seconds.
        retry_after: Option<u64>,
        tail: Tail,
    },
    /// Breaks the connection instead of answering, `after` the head of the request.
    Break { after: Duration },
    /// Never answers.
    Hang,
}

/// Timing of an answer's body.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Tail {
    AtOnce,
    /// Sends the second half late by this time.
    Late(Duration),
    /// Breaks the connection instead of sending the second half.
    Breaks,
    /// Sends server-sent events without end, at this interval.
    Events(Duration),
}

/// Request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) at: Moment,
    pub(crate) headers: HeaderMap,
    /// Size of the body in bytes, once the whole body has arrived.
    pub(crate) body: usize,
}

type Play = Box<dyn FnMut() -> Behaviour + Send>;
type ScriptedBody = UnsyncBoxBody<Bytes, Broke>;

/// Script behind the connections of one backend.
pub(crate) struct Scripted {
    play: Mutex<Play>,
    arrivals: Mutex<Vec<Arrival>>,
    /// Number of requests that have not ended.
    active: AtomicUsize,
}

/// Counts a request as active until dropped.
struct Active(Arc<Scripted>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
    }
}

/// Error that closes the connection.
#[derive(Debug)]
struct Broke;

impl std::fmt::Display for Broke {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("broken as scripted")
    }
}

impl std::error::Error for Broke {}

impl Scripted {
    /// Opens `connections` connections to each endpoint of `backend`, for its first worker; `play` decides each answer.
    pub(crate) async fn behind(
        backend: &Backend,
        connections: usize,
        play: impl FnMut() -> Behaviour + Send + 'static,
    ) -> Arc<Self> {
        let scripted = Arc::new(Self {
            play: Mutex::new(Box::new(play)),
            arrivals: Mutex::default(),
            active: AtomicUsize::new(0),
        });
        let written = backend.written.all().iter();
        let members = written.map(|written| Member::new(Arc::clone(&written.origin), NOWHERE, written.weight));
        backend.endpoints.replace(members.collect());
        for endpoint in backend.endpoints.load().endpoints() {
            for _ in 0..connections {
                let connection = Arc::clone(&scripted).connect();
                let Pools::Http1(pools) = &endpoint.pools else {
                    panic!("the script is in HTTP/1.1");
                };
                pools[0].put(connection, &backend.settings.pool, clock::now());
            }
        }
        scripted
    }

    /// Returns all requests so far, in order.
    pub(crate) fn arrivals(&self) -> MutexGuard<'_, Vec<Arrival>> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of requests whose caller neither has the whole answer nor has left.
    pub(crate) fn active(&self) -> usize {
        self.active.load(Relaxed)
    }

    fn connect(self: Arc<Self>) -> Connection {
        let (ours, theirs) = MemoryPipe::new();
        let service = service_fn(move |request| Arc::clone(&self).answer(request));
        tokio::spawn(async move {
            // However the connection ends, its other end has already been told.
            let _ = server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(theirs), service)
                .await;
        });
        Connection::new(MessageStream::new(Transport::Memory(ours)), clock::now())
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<ScriptedBody>, Broke> {
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
            Behaviour::Hang => std::future::pending().await,
            Behaviour::Break { after } => {
                sleep(after).await;
                Err(Broke)
            }
            Behaviour::Answer {
                after,
                status,
                retry_after,
                tail,
            } => {
                // An incomplete body means that the gateway aborted the request.
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

fn body(tail: Tail, active: Active) -> ScriptedBody {
    let pause = match tail {
        Tail::AtOnce => {
            let whole = Full::new(Bytes::from_static(br#"{"id":7}"#));
            return whole.map_err(|never| match never {}).boxed_unsync();
        }
        Tail::Breaks => {
            let frames = stream::unfold((false, active), |(begun, active)| async move {
                let piece = if begun {
                    // Lets the first piece leave before the break.
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

/// Returns the body of a request whose caller sends `pieces`: each a pause before it and a size in bytes. The body states
/// `length` if there is one. Nothing follows the pieces; a body without a length has an end only if `ends` is set.
pub(crate) fn caller_body(pieces: Vec<(Duration, usize)>, length: Option<usize>, ends: bool) -> CallerBody {
    let (writer, reader) = upload(length.map(|length| length as u64));
    let began = Instant::now();
    tokio::spawn(async move {
        let (mut due, mut left) = (began, length);
        for (pause, size) in pieces {
            due += pause;
            sleep_until(due).await;
            if poll_fn(|cx| writer.poll_wanted(cx)).await == Wanted::Nothing {
                return;
            }
            left = left.map(|left| left - size);
            let piece = Frame::data(Bytes::from(vec![b'x'; size]));
            writer.give(piece, left == Some(0), &mut Context::from_waker(Waker::noop()));
        }
        if ends && length.is_none() && poll_fn(|cx| writer.poll_wanted(cx)).await == Wanted::Piece {
            writer.end(Ok(()), &mut Context::from_waker(Waker::noop()));
        }
        // The caller stays connected and sends nothing.
        pending::<()>().await;
    });
    CallerBody::of_connection(reader, None, headers::clean_trailers)
}
