//! A request's body on its way to the backend: it streams at once, and what has passed is kept for another attempt.
//!
//! Nothing is collected first. Past the bound on what is kept, the body can no longer be sent again; the first
//! attempt goes on undisturbed. Faults of the *caller's* side are remembered, so that no backend is blamed for them.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::classify::Fault;
use crate::caller_body::{CallerBody, Cut};
use crate::flow::Flow;

/// What a backend is sent as a body.
#[derive(Default)]
pub enum Outbound {
    #[default]
    Empty,
    Whole(Option<Bytes>),
    Streamed(Cursor),
}

/// How a streamed request body ended, if it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upload {
    /// There is more to come from the caller.
    Underway,
    Complete,
    /// The caller sent more than the route admits.
    TooLarge,
    /// The caller sent it more slowly than it may.
    TooSlow,
    /// The caller broke the framing.
    Malformed(&'static str),
    /// The caller broke off.
    Broken,
}

/// A caller's body that is streamed to the backend and kept up to a bound.
pub struct Replay {
    shared: Arc<Mutex<Shared>>,
}

/// One attempt's position in a [`Replay`].
pub struct Cursor {
    shared: Arc<Mutex<Shared>>,
    next: usize,
    sent: u64,
}

struct Shared {
    source: CallerBody,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    keep: usize,
    forgotten: bool,
    received: u64,
    limit: u64,
    upload: Upload,
    /// The backend would take more, and the caller has sent no more.
    starving: bool,
}

/// Why a request body stopped; hyper reports it as the cause of the failed exchange.
#[derive(Debug)]
pub struct UploadFault(Upload);

impl std::fmt::Display for UploadFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "request body {:?}", self.0)
    }
}

impl std::error::Error for UploadFault {}

impl Replay {
    /// `limit` bounds the whole body, `keep` what may be sent again; both in bytes.
    pub fn new(source: CallerBody, limit: u64, keep: usize) -> Self {
        let shared = Shared {
            source,
            kept: Vec::new(),
            kept_bytes: 0,
            keep,
            forgotten: false,
            received: 0,
            limit,
            upload: Upload::Underway,
            starving: false,
        };
        Self {
            shared: Arc::new(Mutex::new(shared)),
        }
    }

    /// The body for one more attempt, or nothing if too much has passed to send it again.
    pub fn attempt(&self) -> Option<Outbound> {
        (!lock(&self.shared).forgotten).then(|| {
            Outbound::Streamed(Cursor {
                shared: Arc::clone(&self.shared),
                next: 0,
                sent: 0,
            })
        })
    }

    /// Whether all that has passed is still there.
    pub fn is_kept(&self) -> bool {
        !lock(&self.shared).forgotten
    }

    /// What the caller did to stop the exchange: broke its body, sent too much, or let us wait for more.
    pub fn fault(&self) -> Option<Upload> {
        let shared = lock(&self.shared);
        match shared.upload {
            Upload::Complete => None,
            Upload::Underway => shared.starving.then_some(Upload::Underway),
            fault => Some(fault),
        }
    }

    /// What the caller is waited for.
    pub fn flow(&self) -> Option<Arc<Flow>> {
        lock(&self.shared).source.flow().cloned()
    }

    /// Bytes that have come from the caller so far.
    pub fn received(&self) -> u64 {
        lock(&self.shared).received
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // A panic elsewhere cannot leave the fields half-written: each is set in one step.
    shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Shared {
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        let polled = Pin::new(&mut self.source).poll_frame(cx);
        self.starving = polled.is_pending();
        Poll::Ready(match std::task::ready!(polled) {
            None => {
                self.upload = Upload::Complete;
                None
            }
            Some(Err(cut)) => Some(Err(self.spoil(match cut {
                Cut::Broken => Upload::Broken,
                Cut::TooSlow => Upload::TooSlow,
                Cut::Malformed(why) => Upload::Malformed(why),
            }))),
            Some(Ok(frame)) => {
                let Some(data) = frame.data_ref() else {
                    // Trailers are not kept: a request that has them is sent once.
                    self.forget();
                    return Poll::Ready(Some(Ok(frame)));
                };
                self.received += data.len() as u64;
                if self.received > self.limit {
                    return Poll::Ready(Some(Err(self.spoil(Upload::TooLarge))));
                }
                self.keep(data.clone());
                if self.source.is_end_stream() {
                    self.upload = Upload::Complete;
                }
                Some(Ok(frame))
            }
        })
    }

    /// The answer may have begun already; whoever reads that has to know whose fault its end is.
    fn spoil(&mut self, upload: Upload) -> UploadFault {
        self.upload = upload;
        if let Some(flow) = self.source.flow() {
            flow.spoil(Fault::Upload(upload).rejection(false, self.limit).reason());
        }
        UploadFault(upload)
    }

    fn keep(&mut self, data: Bytes) {
        if self.forgotten {
            return;
        }
        self.kept_bytes += data.len();
        if self.kept_bytes > self.keep {
            self.forget();
        } else {
            self.kept.push(data);
        }
    }

    fn forget(&mut self) {
        self.forgotten = true;
        self.kept = Vec::new();
    }
}

impl Body for Outbound {
    type Data = Bytes;
    type Error = UploadFault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Whole(data) => Poll::Ready(data.take().map(|data| Ok(Frame::data(data)))),
            Self::Streamed(cursor) => {
                let mut shared = lock(&cursor.shared);
                if let Some(data) = shared.kept.get(cursor.next) {
                    cursor.next += 1;
                    cursor.sent += data.len() as u64;
                    return Poll::Ready(Some(Ok(Frame::data(data.clone()))));
                }
                match shared.upload {
                    Upload::Complete => return Poll::Ready(None),
                    fault @ (Upload::TooLarge | Upload::TooSlow | Upload::Malformed(_) | Upload::Broken) => {
                        return Poll::Ready(Some(Err(UploadFault(fault))));
                    }
                    Upload::Underway => {}
                }
                let polled = std::task::ready!(shared.poll_source(cx));
                cursor.next = shared.kept.len();
                if let Some(Ok(frame)) = &polled {
                    cursor.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
                }
                Poll::Ready(polled)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty | Self::Whole(None) => true,
            Self::Whole(Some(_)) => false,
            Self::Streamed(cursor) => {
                let shared = lock(&cursor.shared);
                cursor.next >= shared.kept.len() && (shared.upload == Upload::Complete || shared.source.is_end_stream())
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty | Self::Whole(None) => SizeHint::with_exact(0),
            Self::Whole(Some(data)) => SizeHint::with_exact(data.len() as u64),
            Self::Streamed(cursor) => {
                let shared = lock(&cursor.shared);
                match shared.source.size_hint().exact() {
                    // The source tells what is left of it; what was taken before has to be added again.
                    Some(left) => SizeHint::with_exact((left + shared.received).saturating_sub(cursor.sent)),
                    None => SizeHint::default(),
                }
            }
        }
    }
}
