//! Copies a request's body while it is streamed to its own backend.
//!
//! The stream only adds to a buffer, and the copy of the request waits for the end. Bytes are copied out of the frames,
//! because a frame of one byte can hold on to a whole read buffer.
//!
//! Invariant: the buffer holds at most the limit, counts in [`CopiedBytes`], and lives as long as the copy of the
//! request: if that gives up, the stream copies no further.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::copied_bytes::{CopiedBytes, Reservation};
use crate::observe::MirrorOutcome;

/// Smallest buffer in bytes.
const SMALLEST: usize = 1024;

/// The writing side, held by the stream of the body.
pub(in crate::call) struct BodyCopy {
    buffer: Weak<Mutex<Buffer>>,
    ended: oneshot::Sender<Result<(), MirrorOutcome>>,
}

/// The reading side, held by the copy of the request.
pub(super) struct PendingBody {
    buffer: Arc<Mutex<Buffer>>,
    ended: oneshot::Receiver<Result<(), MirrorOutcome>>,
}

struct Buffer {
    data: Vec<u8>,
    limit: usize,
    reservation: Reservation,
}

/// Begins a copy of at most `limit` bytes.
pub(super) fn begin(limit: usize, copied: Arc<CopiedBytes>) -> (BodyCopy, PendingBody) {
    let (tell, ended) = oneshot::channel();
    let buffer = Arc::new(Mutex::new(Buffer {
        data: Vec::new(),
        limit,
        reservation: Reservation::new(copied),
    }));
    let copy = BodyCopy {
        buffer: Arc::downgrade(&buffer),
        ended: tell,
    };
    (copy, PendingBody { buffer, ended })
}

impl BodyCopy {
    /// Adds a piece of the body. Returns the copy if it goes on.
    pub(in crate::call) fn add(self, piece: &[u8]) -> Option<Self> {
        let buffer = self.buffer.upgrade()?;
        let added = buffer.lock().unwrap_or_else(PoisonError::into_inner).add(piece);
        match added {
            Ok(()) => Some(self),
            Err(outcome) => {
                let _ = self.ended.send(Err(outcome));
                None
            }
        }
    }

    /// Ends the copy of a body that is whole. A copy that is dropped instead is of a body that broke off.
    pub(in crate::call) fn complete(self) {
        let _ = self.ended.send(Ok(()));
    }
}

impl PendingBody {
    /// Waits for the whole body. Its memory counts until this value is dropped.
    ///
    /// # Errors
    /// Returns why there is no whole copy.
    pub(super) async fn whole(&mut self) -> Result<Bytes, MirrorOutcome> {
        match (&mut self.ended).await {
            Ok(Ok(())) => {
                let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(Bytes::from(std::mem::take(&mut buffer.data)))
            }
            Ok(Err(outcome)) => Err(outcome),
            Err(_) => Err(MirrorOutcome::BodyCut),
        }
    }
}

impl Buffer {
    fn add(&mut self, piece: &[u8]) -> Result<(), MirrorOutcome> {
        let length = self.data.len() + piece.len();
        if length > self.limit {
            return Err(MirrorOutcome::BodyTooLarge);
        }
        if length > self.data.capacity() {
            let doubled = (self.data.capacity() * 2).clamp(SMALLEST.min(self.limit), self.limit);
            let capacity = doubled.max(length);
            if !self.reservation.grow_to(capacity) {
                return Err(MirrorOutcome::NoRoom);
            }
            self.data.reserve_exact(capacity - self.data.len());
        }
        self.data.extend_from_slice(piece);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn copied(limit: usize, total: u64, pieces: &[usize]) -> (Option<BodyCopy>, PendingBody, Arc<CopiedBytes>) {
        let all = Arc::new(CopiedBytes::default());
        all.resize(total);
        let (copy, pending) = begin(limit, Arc::clone(&all));
        let copy = pieces
            .iter()
            .try_fold(copy, |copy, length| copy.add(&vec![b'x'; *length]));
        (copy, pending, all)
    }

    #[test]
    fn a_whole_body_is_there_at_its_end_and_not_before() {
        let (copy, mut pending, all) = copied(3_000, 10_000, &[1, 1_024, 0, 1_975]);
        assert!(pending.whole().now_or_never().is_none());
        assert!((3_000..=3_000).contains(&all.held()), "{}", all.held());
        copy.expect("it fits").complete();
        let body = pending.whole().now_or_never().expect("it has ended");
        assert_eq!(body.map(|body| body.len()), Ok(3_000));
        assert_eq!(all.held(), 3_000, "it counts until it is sent");
        drop(pending);
        assert_eq!(all.held(), 0);
    }

    #[test]
    fn a_body_that_is_too_long_or_breaks_off_or_finds_no_room_has_no_copy() {
        let check = |limit, total, pieces: &[usize], expected| {
            let (copy, mut pending, all) = copied(limit, total, pieces);
            drop(copy);
            let ended = pending.whole().now_or_never().expect("it has ended");
            assert_eq!(
                ended.map(|body| body.len()),
                Err(expected),
                "{limit} {total} {pieces:?}"
            );
            drop(pending);
            assert_eq!(all.held(), 0);
        };
        check(10, 1_000_000, &[5, 6], MirrorOutcome::BodyTooLarge);
        check(0, 1_000_000, &[1], MirrorOutcome::BodyTooLarge);
        check(10, 1_000_000, &[5, 5], MirrorOutcome::BodyCut);
        check(5_000, 2_047, &[1_000, 1_000], MirrorOutcome::NoRoom);
        check(5_000, 0, &[1], MirrorOutcome::NoRoom);
    }

    #[test]
    fn nothing_is_copied_once_nobody_waits_for_it() {
        let (copy, pending, all) = copied(100, 1_000, &[10]);
        drop(pending);
        assert_eq!(all.held(), 0, "not even until the next piece");
        assert!(copy.and_then(|copy| copy.add(b"x")).is_none());
    }
}
