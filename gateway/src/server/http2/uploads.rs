//! Tracks the uploads of one connection: the bytes that have arrived of each, and the width of its window.
//!
//! Room for an upload is asked for before any of it comes. So reading pauses after the head of a request that has a
//! body, until the request has been delivered; see [`MeteredIo`](super::metered_io::MeteredIo).

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::frames::{DATA, END_STREAM, HEADERS, RST_STREAM};
use crate::wire::flow_control::FlowControlWindows;
use crate::wire::http2_frames::{Head, Met};
use crate::wire::parked::{ParkedOfConnection, ParkedUpload};

/// Largest number of uploads that are tracked; no connection may have as many at once.
const MOST: usize = 4096;

/// Uploads whose heads have come, but whose requests are not delivered yet. Passes the byte count of each to its request.
#[derive(Clone, Default)]
pub(super) struct NewUploads(Arc<Mutex<Undelivered>>);

#[derive(Default)]
struct Undelivered {
    uploads: Vec<(u32, Arc<ParkedUpload>)>,
    /// Whether reading has paused, so that requests are delivered first.
    is_paused: bool,
}

pub(super) struct Uploads {
    parked: Arc<ParkedOfConnection>,
    new: NewUploads,
    windows: FlowControlWindows,
    open: Vec<Upload>,
    newest: u32,
}

struct Upload {
    stream: u32,
    parked: Arc<ParkedUpload>,
    is_wide: bool,
}

impl NewUploads {
    /// Takes the byte count of the upload on this stream, whose request is delivered now.
    pub(super) fn take(&self, stream: u32) -> Option<Arc<ParkedUpload>> {
        let mut undelivered = self.lock();
        let place = undelivered.uploads.iter().position(|(other, _)| *other == stream)?;
        Some(undelivered.uploads.swap_remove(place).1)
    }

    /// Pauses reading until the requests that have come are delivered.
    pub(super) fn pause_reading(&self) {
        self.lock().is_paused = true;
    }

    /// Lets reading go on, since all requests are delivered. Returns whether it had paused.
    pub(super) fn resume_reading(&self) -> bool {
        mem::take(&mut self.lock().is_paused)
    }

    pub(super) fn is_paused(&self) -> bool {
        self.lock().is_paused
    }

    fn lock(&self) -> MutexGuard<'_, Undelivered> {
        // A panic leaves the list valid, because each change is one step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Uploads {
    pub(super) const fn new(parked: Arc<ParkedOfConnection>, new: NewUploads, windows: FlowControlWindows) -> Self {
        Self {
            parked,
            new,
            windows,
            open: Vec::new(),
            newest: 0,
        }
    }

    pub(super) fn parked(&self) -> &ParkedOfConnection {
        &self.parked
    }

    pub(super) const fn new_ones(&self) -> &NewUploads {
        &self.new
    }

    /// Records a frame from the caller.
    pub(super) fn meets(&mut self, met: Met) {
        match met {
            Met::Begin(head) if head.kind == HEADERS => self.begin(head),
            // Counted at the end of a frame, because nothing can read a part of it.
            Met::End(head) if head.kind == DATA => {
                if let Some(upload) = self.find(head.stream) {
                    upload.parked.arrive(head.length);
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
            self.new.lock().uploads.push((head.stream, Arc::clone(&parked)));
            self.open.push(Upload {
                stream: head.stream,
                parked,
                is_wide: false,
            });
        }
    }

    /// Forgets a stream that is complete or reset.
    pub(super) fn end(&mut self, stream: u32) {
        if let Some(place) = self.open.iter().position(|upload| upload.stream == stream) {
            self.open.swap_remove(place);
            // Still there if the library has refused the request, or will.
            self.new.take(stream);
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
        new: NewUploads,
        uploads: Uploads,
    }

    fn setup() -> Setup {
        let process: Arc<ParkedBytes> = Arc::default();
        let new = NewUploads::default();
        let parked = Arc::new(ParkedOfConnection::new(Arc::clone(&process)));
        Setup {
            uploads: Uploads::new(parked, new.clone(), FlowControlWindows::of_caller(100)),
            process,
            new,
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
            self.new.take(stream).expect("it has begun")
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
    fn each_request_takes_the_count_of_its_own_stream() {
        let mut setup = setup();
        for stream in [1, 3, 5] {
            setup.comes(HEADERS, 0, stream, 5);
        }
        let third = setup.new.take(5).expect("it has begun");
        assert!(setup.new.take(5).is_none(), "it is taken once");
        assert!(setup.new.take(7).is_none());
        setup.comes(DATA, 0, 1, 100);
        setup.comes(DATA, 0, 5, 10);
        assert_eq!(setup.process.held(), 110);
        third.discard();
        assert_eq!(setup.process.held(), 100);
        // The library refuses the request.
        setup.uploads.end(1);
        assert_eq!(setup.process.held(), 0);
        assert!(setup.new.take(1).is_none());
        assert!(setup.new.take(3).is_some());
    }

    #[test]
    fn reading_pauses_until_requests_are_delivered() {
        let new = NewUploads::default();
        assert!(!new.is_paused() && !new.resume_reading());
        new.pause_reading();
        assert!(new.is_paused() && new.resume_reading());
        assert!(!new.is_paused() && !new.resume_reading());
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
        assert_eq!(setup.new.lock().uploads.len(), MOST);
    }
}
