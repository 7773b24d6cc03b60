//! Tracks the uploads of one connection: the bytes that have arrived of each, and the width of its window.
//!
//! The library does not say which stream a request belongs to. So the head of a request that has a body is passed to it
//! alone, and the next request that it delivers is that one; see [`MeteredIo`](super::metered_io::MeteredIo).

use std::sync::{Arc, Mutex, PoisonError};

use super::frames::{DATA, END_STREAM, HEADERS, RST_STREAM};
use crate::wire::flow_control::FlowControlWindows;
use crate::wire::http2_frames::{Head, Met};
use crate::wire::parked::{ParkedOfConnection, ParkedUpload};

/// Largest number of uploads that are tracked; no connection may have as many at once.
const MOST: usize = 4096;

/// Passes the byte count of an upload to its request.
#[derive(Clone, Default)]
pub(super) struct NextUpload(Arc<Mutex<Option<Arc<ParkedUpload>>>>);

pub(super) struct Uploads {
    parked: Arc<ParkedOfConnection>,
    next: NextUpload,
    windows: FlowControlWindows,
    open: Vec<Upload>,
    newest: u32,
}

struct Upload {
    stream: u32,
    /// Absent if no request has taken it.
    parked: Option<Arc<ParkedUpload>>,
    is_wide: bool,
}

impl NextUpload {
    /// Takes the byte count of the upload whose request is delivered now.
    pub(super) fn take(&self) -> Option<Arc<ParkedUpload>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, parked: Arc<ParkedUpload>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(parked);
    }
}

impl Uploads {
    pub(super) const fn new(parked: Arc<ParkedOfConnection>, next: NextUpload, windows: FlowControlWindows) -> Self {
        Self {
            parked,
            next,
            windows,
            open: Vec::new(),
            newest: 0,
        }
    }

    pub(super) fn parked(&self) -> &ParkedOfConnection {
        &self.parked
    }

    /// Records a frame from the caller.
    pub(super) fn meets(&mut self, met: Met) {
        match met {
            Met::Begin(head) if head.kind == HEADERS => self.begin(head),
            // Counted at the end of a frame, because nothing can read a part of it.
            Met::End(head) if head.kind == DATA => {
                if let Some(parked) = self.find(head.stream).and_then(|upload| upload.parked.as_ref()) {
                    parked.arrive(head.length);
                }
                if head.flags & END_STREAM != 0 {
                    self.end(head.stream);
                }
            }
            Met::End(head) if head.kind == RST_STREAM => self.end(head.stream),
            _ => {}
        }
    }

    fn begin(&mut self, head: Head) {
        if head.flags & END_STREAM != 0 {
            // The frame carries trailers, or a request without a body.
            self.end(head.stream);
        } else if head.stream > self.newest && self.open.len() < MOST {
            self.newest = head.stream;
            let parked = Arc::new(ParkedUpload::new(Arc::clone(&self.parked), self.windows));
            self.next.set(Arc::clone(&parked));
            self.open.push(Upload {
                stream: head.stream,
                parked: Some(parked),
                is_wide: false,
            });
        }
    }

    /// Ends the wait for the newest upload's request. If none has taken the count, the library has refused the request.
    pub(super) fn settle(&mut self) {
        if self.next.take().is_some()
            && let Some(upload) = self.find(self.newest)
        {
            upload.parked = None;
        }
    }

    /// Forgets a stream that is complete or reset.
    pub(super) fn end(&mut self, stream: u32) {
        if let Some(place) = self.open.iter().position(|upload| upload.stream == stream) {
            self.open.swap_remove(place);
        }
    }

    /// Returns whether any upload's window is still small.
    pub(super) fn has_narrow(&self) -> bool {
        self.open.iter().any(|upload| !upload.is_wide)
    }

    /// Returns whether the upload on this stream has a window that is still small.
    pub(super) fn is_narrow(&self, stream: u32) -> bool {
        self.open
            .iter()
            .any(|upload| upload.stream == stream && !upload.is_wide)
    }

    pub(super) fn widen(&mut self, stream: u32) {
        if let Some(upload) = self.find(stream) {
            upload.is_wide = true;
        }
    }

    fn find(&mut self, stream: u32) -> Option<&mut Upload> {
        self.open.iter_mut().find(|upload| upload.stream == stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::parked::ParkedBytes;

    struct Setup {
        process: Arc<ParkedBytes>,
        next: NextUpload,
        uploads: Uploads,
    }

    fn setup() -> Setup {
        let process: Arc<ParkedBytes> = Arc::default();
        let next = NextUpload::default();
        let parked = Arc::new(ParkedOfConnection::new(Arc::clone(&process)));
        Setup {
            uploads: Uploads::new(parked, next.clone(), FlowControlWindows::of_caller(100)),
            process,
            next,
        }
    }

    impl Setup {
        fn comes(&mut self, kind: u8, flags: u8, stream: u32, length: u32) {
            let head = Head {
                length,
                kind,
                flags,
                stream,
            };
            self.uploads.meets(Met::Begin(head));
            self.uploads.meets(Met::End(head));
        }

        /// Begins an upload and delivers its request.
        fn begins(&mut self, stream: u32) -> Arc<ParkedUpload> {
            self.comes(HEADERS, 0, stream, 5);
            let parked = self.next.take().expect("it has begun");
            self.uploads.settle();
            parked
        }
    }

    #[test]
    fn what_arrives_counts_for_the_upload_that_it_belongs_to() {
        let mut setup = setup();
        let (one, other) = (setup.begins(1), setup.begins(5));
        setup.comes(DATA, 0, 1, 100);
        setup.comes(DATA, 0, 5, 10);
        // A request without a body, and DATA of a stream that does not exist.
        setup.comes(HEADERS, END_STREAM, 7, 5);
        setup.comes(DATA, 0, 9, 500);
        assert_eq!(setup.process.held(), 110);
        one.discard();
        assert_eq!(setup.process.held(), 10);
        setup.comes(DATA, 0, 1, 100);
        setup.comes(DATA, END_STREAM, 5, 20);
        setup.comes(DATA, 0, 5, 500);
        assert_eq!(setup.process.held(), 30);
        drop(other);
        assert_eq!(setup.process.held(), 0);
    }

    #[test]
    fn an_upload_without_a_request_holds_nothing() {
        let mut setup = setup();
        setup.comes(HEADERS, 0, 1, 5);
        setup.uploads.settle();
        assert!(setup.next.take().is_none(), "no other request gets it");
        setup.comes(DATA, 0, 1, 100);
        assert_eq!(setup.process.held(), 0);
        let _next = setup.begins(3);
        setup.comes(DATA, 0, 3, 100);
        assert_eq!(setup.process.held(), 100);
        // The stream is reset before a request takes it.
        setup.comes(HEADERS, 0, 5, 5);
        setup.uploads.end(5);
        setup.uploads.settle();
        setup.comes(DATA, 0, 3, 100);
        assert_eq!(setup.process.held(), 200);
    }

    #[test]
    fn nothing_is_looked_after_once_it_has_ended() {
        let mut setup = setup();
        let held: Vec<_> = [1, 3, 5, 7].map(|stream| setup.begins(stream)).into();
        setup.comes(DATA, END_STREAM, 1, 1);
        setup.comes(HEADERS, END_STREAM, 3, 1);
        setup.comes(RST_STREAM, 0, 5, 4);
        assert!(setup.uploads.has_narrow());
        setup.uploads.end(7);
        assert!(!setup.uploads.has_narrow());
        assert!(setup.uploads.open.is_empty());
        drop(held);
        for number in 0..10_000 {
            setup.comes(HEADERS, 0, 2 * number + 9, 5);
        }
        assert_eq!(setup.uploads.open.len(), MOST);
    }
}
