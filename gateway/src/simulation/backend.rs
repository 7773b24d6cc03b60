//! An endpoint that answers by a script, over connections in memory.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::watch;

use super::script::Scripts;
use super::seen::ID;
use crate::call::memory_pipe::{Dial, FarEnd, MemoryPipe};
use crate::clock;
use crate::config::policy_tests::{Behaviour, Phase};

/// Body of an answer that the script does not write.
const EMPTY: &[u8] = b"{}";

/// What a backend does in one recorded attempt, after a time.
#[derive(Debug, Clone, Copy)]
pub enum Reply {
    Status(StatusCode, Duration),
    Break(Duration),
    Hang,
}

/// Replies by the number of the request, in the order of its attempts.
#[derive(Debug, Default)]
pub(super) struct Replies(Mutex<RepliesByNumber>);

/// Each reply has the name of its backend.
type RepliesByNumber = HashMap<u64, Vec<(Arc<str>, Reply)>>;

impl Replies {
    pub(super) fn add(&self, number: u64, replies: Vec<(Arc<str>, Reply)>) {
        self.lock().insert(number, replies);
    }

    pub(super) fn remove(&self, number: u64) {
        self.lock().remove(&number);
    }

    /// Takes the next reply of a backend to the request with this id.
    fn take(&self, id: Option<&HeaderValue>, backend: &str) -> Option<Reply> {
        let number = id?.to_str().ok()?.strip_prefix(ID)?.parse().ok()?;
        let mut all = self.lock();
        let replies = all.get_mut(&number)?;
        let place = replies.iter().position(|(name, _)| **name == *backend)?;
        Some(replies.remove(place).1)
    }

    fn lock(&self) -> MutexGuard<'_, RepliesByNumber> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct ScriptedEndpoint {
    backend: Arc<str>,
    replies: Arc<Replies>,
    scripts: Mutex<Scripts>,
    in_http2: bool,
    /// Ends all connections that are open at a change.
    closings: watch::Sender<u64>,
    /// Calls that are being answered, the most at once, and all of them.
    active: AtomicUsize,
    peak: AtomicUsize,
    calls: AtomicU64,
}

/// Opens connections to a scripted endpoint.
pub(super) struct Dialler(pub(super) Arc<ScriptedEndpoint>);

/// Error that closes the connection instead of answering.
#[derive(Debug)]
struct Broke;

impl fmt::Display for Broke {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("broken as scripted")
    }
}

impl std::error::Error for Broke {}

/// What one call gets.
enum Turn {
    Answer {
        status: StatusCode,
        after: Duration,
        headers: HeaderMap,
        body: Bytes,
    },
    Hang,
    Break,
}

/// Counts a call until it is dropped.
struct Active(Arc<ScriptedEndpoint>);

impl Active {
    fn begin(endpoint: &Arc<ScriptedEndpoint>) -> Self {
        endpoint.calls.fetch_add(1, Relaxed);
        let now = endpoint.active.fetch_add(1, Relaxed) + 1;
        endpoint.peak.fetch_max(now, Relaxed);
        Self(Arc::clone(endpoint))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
    }
}

impl ScriptedEndpoint {
    pub(super) fn new(backend: &Arc<str>, in_http2: bool, replies: &Arc<Replies>) -> Self {
        Self {
            backend: Arc::clone(backend),
            replies: Arc::clone(replies),
            scripts: Mutex::default(),
            in_http2,
            closings: watch::Sender::new(0),
            active: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            calls: AtomicU64::new(0),
        }
    }

    /// Answers by `scripts` from now on.
    pub(super) fn play(self: &Arc<Self>, scripts: Scripts) {
        for at in scripts.all.closings() {
            if at <= clock::now() {
                self.close();
                continue;
            }
            let endpoint = Arc::clone(self);
            tokio::spawn(async move {
                clock::wait_until(at).await;
                if endpoint.takes_none() {
                    endpoint.close();
                }
            });
        }
        *self.scripts() = scripts;
    }

    /// Returns the most calls at once, and the number of all calls.
    pub(super) fn load(&self) -> (usize, u64) {
        (self.peak.load(Relaxed), self.calls.load(Relaxed))
    }

    fn scripts(&self) -> MutexGuard<'_, Scripts> {
        self.scripts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.closings.send_modify(|count| *count += 1);
    }

    /// Whether the endpoint takes no connections now.
    fn takes_none(&self) -> bool {
        let mut scripts = self.scripts();
        let answer = scripts.all.phase(clock::now()).map(|phase| *phase.answer);
        matches!(answer, Some(Behaviour::Refuse | Behaviour::Unreachable))
    }

    fn serve(self: &Arc<Self>, stream: FarEnd) {
        let mut closings = self.closings.subscribe();
        let endpoint = Arc::clone(self);
        tokio::spawn(async move {
            let answering = Arc::clone(&endpoint);
            let service = service_fn(move |request| Arc::clone(&answering).answer(request));
            let stream = TokioIo::new(stream);
            // However a connection ends, its other end has already been told.
            if endpoint.in_http2 {
                let connection = http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service);
                tokio::select! {
                    _ = connection => {}
                    _ = closings.changed() => {}
                }
            } else {
                let connection = http1::Builder::new().serve_connection(stream, service);
                tokio::select! {
                    _ = connection => {}
                    _ = closings.changed() => {}
                }
            }
        });
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Broke> {
        let _active = Active::begin(&self);
        let recorded = self.replies.take(request.headers().get("x-request-id"), &self.backend);
        let turn = match recorded {
            Some(Reply::Status(status, after)) => answer(status, after, HeaderMap::new(), None),
            Some(Reply::Hang) => Turn::Hang,
            Some(Reply::Break(after)) => {
                clock::wait_until(clock::now() + after).await;
                Turn::Break
            }
            None => {
                let mut scripts = self.scripts();
                turn(scripts.call(request.method(), request.uri().path(), clock::now()))
            }
        };
        match turn {
            Turn::Break => Err(Broke),
            Turn::Hang => {
                let never: Infallible = std::future::pending().await;
                match never {}
            }
            Turn::Answer {
                status,
                after,
                headers,
                body,
            } => {
                // A body that ends early means that the gateway has given the call up.
                request.into_body().collect().await.map_err(|_| Broke)?;
                if !after.is_zero() {
                    clock::wait_until(clock::now() + after).await;
                }
                let mut response = Response::new(Full::new(body));
                *response.status_mut() = status;
                *response.headers_mut() = headers;
                Ok(response)
            }
        }
    }
}

/// Returns what a call gets in a phase; after the last one, an empty object at once.
fn turn(phase: Option<&Phase>) -> Turn {
    let Some(phase) = phase else {
        return answer(StatusCode::OK, Duration::ZERO, HeaderMap::new(), None);
    };
    match *phase.answer {
        Behaviour::Hang => Turn::Hang,
        Behaviour::Break | Behaviour::Refuse | Behaviour::Unreachable => Turn::Break,
        Behaviour::Status(status) => {
            let fields = phase.headers.iter();
            let headers = fields.filter_map(|(name, value)| {
                let name: HeaderName = name.parse().ok()?;
                Some((name, HeaderValue::from_str(value).ok()?))
            });
            let body = phase.body.as_ref().map(|body| body.bytes().clone());
            answer(status, phase.after, headers.collect(), body)
        }
    }
}

fn answer(status: StatusCode, after: Duration, mut headers: HeaderMap, body: Option<Bytes>) -> Turn {
    let has_none = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if !has_none {
        let json = HeaderValue::from_static("application/json");
        headers.entry(header::CONTENT_TYPE).or_insert(json);
    }
    Turn::Answer {
        status,
        after,
        headers,
        body: match has_none {
            true => Bytes::new(),
            false => body.unwrap_or(Bytes::from_static(EMPTY)),
        },
    }
}

impl fmt::Debug for Dialler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dialler(..)")
    }
}

impl Dial for Dialler {
    fn dial(&self) -> io::Result<Option<MemoryPipe>> {
        let answer = {
            let script = &mut self.0.scripts().all;
            let now = clock::now();
            match script.phase(now).map(|phase| *phase.answer) {
                // An attempt to connect counts as a call.
                Some(Behaviour::Refuse | Behaviour::Unreachable) => script.call(now).map(|phase| *phase.answer),
                other => other,
            }
        };
        match answer {
            Some(Behaviour::Refuse) => Err(io::ErrorKind::ConnectionRefused.into()),
            Some(Behaviour::Unreachable) => Ok(None),
            _ => {
                let (ours, theirs) = MemoryPipe::new();
                self.0.serve(theirs);
                Ok(Some(ours))
            }
        }
    }
}
