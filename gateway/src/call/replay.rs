//! Streams a request's body to the backend, and keeps what has passed for another attempt.
//!
//! The body is not collected before it is sent. If it outgrows the bound on what is kept, it can no longer be sent
//! again, but the current attempt continues. Faults of the *caller's* side are remembered, so that no backend is blamed
//! for them.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use policies::Moment;

use super::fault::Upload;
use super::mirror::BodyCopy;
use crate::clock;
use crate::setting::Configured;
use crate::wire::caller_body::{BodyError, CallerBody};
use crate::wire::slow_caller::Transfer;

/// Request body as sent to a backend.
#[derive(Default)]
pub enum Outbound {
    #[default]
    Empty,
    Whole(Option<Bytes>),
    Streamed(Cursor),
}

/// Progress of an attempt in sending its request, and which side is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sending {
    /// The connection received the last byte at `since`.
    Complete { since: Moment },
    /// More is to be sent, and the backend has taken nothing since `since`.
    Untaken { since: Moment },
    /// The connection has everything that the caller has sent; the caller is waited for.
    AwaitsCaller,
    /// The caller's body failed.
    Spoilt(Upload),
}

/// Caller's body that is streamed to the backend and kept up to a bound.
pub struct Replay {
    shared: Arc<Mutex<Shared>>,
}

/// Position of one attempt in a [`Replay`].
pub struct Cursor {
    shared: Arc<Mutex<Shared>>,
    /// Number of the attempt.
    attempt: u32,
    next: usize,
    sent: u64,
    /// Whether the end of the body, with its trailers, has been sent.
    has_ended: bool,
}

struct Shared {
    source: CallerBody,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    trailers: Option<HeaderMap>,
    keep: usize,
    forgotten: bool,
    received: u64,
    limit: Configured<u64>,
    upload: Upload,
    /// Progress of the newest attempt. Older attempts are not tracked.
    progress: Progress,
    /// Copy that is made of the body, if the request is mirrored.
    copy: Option<BodyCopy>,
}

/// Progress of an attempt in sending the body.
#[derive(Default)]
struct Progress {
    /// Number of the attempt, counted from 1.
    attempt: u32,
    /// Whether the backend has room for more while the caller has sent no more.
    starving: bool,
    /// Time at which the connection last took data, or learnt that there is no more.
    taken: Option<Moment>,
    /// Whether the connection knows that the body has ended.
    is_whole: bool,
}

/// Fault that ended a request body. hyper reports it as the cause of a failed exchange over HTTP/2.
#[derive(Debug)]
pub struct UploadFault(Upload);

impl std::fmt::Display for UploadFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "request body {:?}", self.0)
    }
}

impl std::error::Error for UploadFault {}

impl Replay {
    /// Wraps a caller's body. `limit` bounds the whole body, `keep` the part kept for another attempt; both in bytes.
    pub fn new(source: CallerBody, limit: Configured<u64>, keep: usize) -> Self {
        let shared = Shared {
            source,
            kept: Vec::new(),
            kept_bytes: 0,
            trailers: None,
            keep,
            forgotten: false,
            received: 0,
            limit,
            upload: Upload::Underway,
            progress: Progress::default(),
            copy: None,
        };
        Self {
            shared: Arc::new(Mutex::new(shared)),
        }
    }

    /// Returns the body for another attempt, or `None` if too much has passed to send it again.
    pub fn attempt(&self) -> Option<Outbound> {
        let mut shared = lock(&self.shared);
        if shared.forgotten {
            return None;
        }
        let attempt = shared.progress.attempt + 1;
        shared.progress = Progress {
            attempt,
            ..Progress::default()
        };
        Some(Outbound::Streamed(Cursor {
            shared: Arc::clone(&self.shared),
            attempt,
            next: 0,
            sent: 0,
            has_ended: false,
        }))
    }

    /// Whether the whole body has been received and kept.
    pub fn is_whole(&self) -> bool {
        let shared = lock(&self.shared);
        shared.upload == Upload::Complete && !shared.forgotten
    }

    /// Reads the body before the next attempt, to its end or until at least `enough` bytes are kept.
    ///
    /// # Errors
    /// Returns the fault that ended the body.
    pub async fn read_ahead(&self, enough: usize) -> Result<(), Upload> {
        poll_fn(|cx| {
            let shared = &mut *lock(&self.shared);
            loop {
                match shared.upload {
                    Upload::Complete => return Poll::Ready(Ok(())),
                    Upload::Underway if shared.forgotten || shared.kept_bytes >= enough => return Poll::Ready(Ok(())),
                    Upload::Underway => {}
                    spoilt => return Poll::Ready(Err(spoilt)),
                }
                if let Some(Ok(frame)) = std::task::ready!(shared.poll_source(cx))
                    && let Ok(data) = frame.into_data()
                {
                    // Kept even beyond the bound, because none of it has been sent.
                    shared.kept_bytes += data.len();
                    shared.kept.push(data);
                }
            }
        })
        .await
    }

    /// Whether everything that has passed is still kept.
    pub fn is_kept(&self) -> bool {
        !lock(&self.shared).forgotten
    }

    /// Returns the progress of the newest attempt, whose request was given to the connection at `sent`.
    pub fn sending(&self, sent: Moment) -> Sending {
        let shared = lock(&self.shared);
        let since = shared.progress.taken.unwrap_or(sent);
        match shared.upload {
            Upload::Complete if shared.progress.is_whole => Sending::Complete { since },
            Upload::Complete => Sending::Untaken { since },
            Upload::Underway if shared.progress.starving => Sending::AwaitsCaller,
            Upload::Underway => Sending::Untaken { since },
            spoilt => Sending::Spoilt(spoilt),
        }
    }

    /// Returns the state of the transfer with the caller, if it is watched.
    pub fn flow(&self) -> Option<Arc<Transfer>> {
        lock(&self.shared).source.flow().cloned()
    }

    /// Copies the body while it is received, with all that has been received before. The first attempt has not begun.
    pub(super) fn copy_to(&self, copy: BodyCopy) {
        let mut shared = lock(&self.shared);
        if shared.forgotten {
            return;
        }
        let copied = shared.kept.iter().try_fold(copy, |copy, data| copy.add(data));
        match shared.upload {
            Upload::Underway => shared.copy = copied,
            Upload::Complete => copied.into_iter().for_each(BodyCopy::complete),
            Upload::TooLarge(_) | Upload::TooSlow | Upload::Malformed(_) | Upload::Broken => {}
        }
    }

    /// Returns the smallest number of bytes that the whole body can have.
    pub(super) fn least_length(&self) -> u64 {
        let shared = lock(&self.shared);
        shared.received.saturating_add(shared.source.size_hint().lower())
    }

    /// Returns the number of bytes received from the caller so far.
    pub fn received(&self) -> u64 {
        lock(&self.shared).received
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // A panic elsewhere cannot leave the fields half-written: each is set in one step.
    shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Shared {
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Polled {
        Poll::Ready(match std::task::ready!(Pin::new(&mut self.source).poll_frame(cx)) {
            None => {
                self.complete();
                None
            }
            Some(Err(cut)) => Some(Err(self.spoil(match cut {
                BodyError::Broken => Upload::Broken,
                BodyError::TooSlow => Upload::TooSlow,
                BodyError::Malformed(why) => Upload::Malformed(why),
            }))),
            Some(Ok(frame)) => {
                let Some(data) = frame.data_ref() else {
                    // Trailers end the body.
                    self.trailers = frame.trailers_ref().cloned();
                    self.complete();
                    return Poll::Ready(Some(Ok(frame)));
                };
                self.received += data.len() as u64;
                if self.received > self.limit.value {
                    return Poll::Ready(Some(Err(self.spoil(Upload::TooLarge(self.limit)))));
                }
                if let Some(copy) = self.copy.take() {
                    self.copy = copy.add(data);
                }
                if self.source.is_end_stream() {
                    self.complete();
                }
                Some(Ok(frame))
            }
        })
    }

    /// Records the end of the body.
    fn complete(&mut self) {
        self.upload = Upload::Complete;
        if let Some(copy) = self.copy.take() {
            copy.complete();
        }
    }

    /// Records a fault of the caller's body. If the answer has already begun, its reader learns from here which side
    /// failed.
    fn spoil(&mut self, upload: Upload) -> UploadFault {
        self.upload = upload;
        self.copy = None;
        if let Some(flow) = self.source.flow() {
            flow.spoil(upload.rejection(None).reason());
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

type Polled = Poll<Option<Result<Frame<Bytes>, UploadFault>>>;

impl Cursor {
    /// Returns the kept data first, then new data from the caller.
    fn poll(&mut self, shared: &mut Shared, cx: &mut Context<'_>) -> Polled {
        if let Some(data) = shared.kept.get(self.next) {
            self.next += 1;
            self.sent += data.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(data.clone()))));
        }
        match shared.upload {
            Upload::Complete => {
                let trailers = shared.trailers.clone().filter(|_| !self.has_ended);
                self.has_ended = true;
                return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
            }
            fault @ (Upload::TooLarge(_) | Upload::TooSlow | Upload::Malformed(_) | Upload::Broken) => {
                return Poll::Ready(Some(Err(UploadFault(fault))));
            }
            Upload::Underway => {}
        }
        let polled = std::task::ready!(shared.poll_source(cx));
        if let Some(Ok(frame)) = &polled {
            match frame.data_ref() {
                Some(data) => {
                    self.sent += data.len() as u64;
                    shared.keep(data.clone());
                }
                None => self.has_ended = true,
            }
        }
        self.next = shared.kept.len();
        Poll::Ready(polled)
    }

    fn is_at_end(&self, shared: &Shared) -> bool {
        let is_over = match shared.upload {
            Upload::Complete => shared.trailers.is_none() || self.has_ended,
            _ => shared.source.is_end_stream(),
        };
        self.next >= shared.kept.len() && is_over
    }

    /// Records which side is waited for, and since when.
    fn note(&self, shared: &mut Shared, polled: &Polled) {
        if self.attempt != shared.progress.attempt || shared.progress.is_whole {
            return;
        }
        shared.progress.starving = polled.is_pending();
        if polled.is_ready() {
            shared.progress.taken = Some(clock::now());
            shared.progress.is_whole = self.is_at_end(shared);
        }
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
                let shared = Arc::clone(&cursor.shared);
                let mut shared = lock(&shared);
                let polled = cursor.poll(&mut shared, cx);
                cursor.note(&mut shared, &polled);
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty | Self::Whole(None) => true,
            Self::Whole(Some(_)) => false,
            Self::Streamed(cursor) => cursor.is_at_end(&lock(&cursor.shared)),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty | Self::Whole(None) => SizeHint::with_exact(0),
            Self::Whole(Some(data)) => SizeHint::with_exact(data.len() as u64),
            Self::Streamed(cursor) => {
                let shared = lock(&cursor.shared);
                match shared.source.size_hint().exact() {
                    // The source reports what is left of it. Data read from it but not yet sent is added.
                    Some(left) => SizeHint::with_exact((left + shared.received).saturating_sub(cursor.sent)),
                    None => SizeHint::default(),
                }
            }
        }
    }
}
