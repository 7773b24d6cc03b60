//! Hands the body of a request from the connection that receives it to the body's reader, piece by piece.
//!
//! The connection reads from its socket only what the reader has asked for, so a slow reader slows its caller down. Both
//! may belong to one task or to two: a side that belongs to the task that is running is not woken, because that task
//! looks at the other side before it waits.
//!
//! Invariant: at most one piece is held.

use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::wire::caller_body::BodyError;

/// Connection's side of a request body. Dropping it before the end breaks the body off.
#[derive(Debug)]
pub struct UploadWriter(Arc<Mutex<Slot>>);

/// Reader's side of a request body.
#[derive(Debug)]
pub struct UploadReader {
    slot: Arc<Mutex<Slot>>,
    /// Number of bytes that must still come, if the body states its length.
    remaining: Option<u64>,
    has_ended: bool,
}

#[derive(Debug, Default)]
struct Slot {
    /// Piece that has come and is not taken yet.
    piece: Option<Frame<Bytes>>,
    /// How the body ends after `piece`, if that is known.
    end: Option<Result<(), BodyError>>,
    /// Whether the reader waits for a piece.
    is_wanted: bool,
    is_abandoned: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// What the reader wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    Piece,
    /// The reader is gone.
    Nothing,
}

/// Begins to hand over a body. `length` is its length in bytes, if the head states it.
pub fn upload(length: Option<u64>) -> (UploadWriter, UploadReader) {
    let slot = Arc::<Mutex<Slot>>::default();
    let reader = UploadReader {
        slot: Arc::clone(&slot),
        remaining: length,
        has_ended: length == Some(0),
    };
    (UploadWriter(slot), reader)
}

impl UploadWriter {
    /// Is ready when the reader waits for a piece, or is gone.
    pub fn poll_wanted(&self, cx: &mut Context<'_>) -> Poll<Wanted> {
        let mut slot = lock(&self.0);
        if slot.is_abandoned {
            return Poll::Ready(Wanted::Nothing);
        }
        // The reader may leave while the piece that it wants has not come.
        keep(&mut slot.writer, cx.waker());
        match slot.is_wanted {
            true => Poll::Ready(Wanted::Piece),
            false => Poll::Pending,
        }
    }

    pub fn is_abandoned(&self) -> bool {
        lock(&self.0).is_abandoned
    }

    /// Hands over a piece that is wanted. `is_last` tells that the body ends with it.
    pub fn give(&self, piece: Frame<Bytes>, is_last: bool, cx: &mut Context<'_>) {
        let mut slot = lock(&self.0);
        slot.piece = Some(piece);
        if is_last {
            slot.end = Some(Ok(()));
            slot.writer = None;
        }
        tell_reader(slot, Some(cx));
    }

    /// Ends the body.
    pub fn end(&self, how: Result<(), BodyError>, cx: &mut Context<'_>) {
        let mut slot = lock(&self.0);
        slot.end.get_or_insert(how);
        slot.writer = None;
        tell_reader(slot, Some(cx));
    }
}

impl Drop for UploadWriter {
    fn drop(&mut self) {
        let mut slot = lock(&self.0);
        if slot.end.is_none() {
            slot.end = Some(Err(BodyError::Broken));
            tell_reader(slot, None);
        }
    }
}

/// Wakes the reader unless it belongs to the task that is running.
fn tell_reader(mut slot: MutexGuard<'_, Slot>, cx: Option<&mut Context<'_>>) {
    slot.is_wanted = false;
    let reader = slot.reader.take();
    drop(slot);
    if let Some(reader) = reader
        && cx.is_none_or(|cx| !reader.will_wake(cx.waker()))
    {
        reader.wake();
    }
}

fn keep(kept: &mut Option<Waker>, waker: &Waker) {
    if kept.as_ref().is_none_or(|kept| !kept.will_wake(waker)) {
        *kept = Some(waker.clone());
    }
}

fn lock(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    // A panic leaves the slot valid, because nothing in it can panic.
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Body for UploadReader {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.has_ended {
            return Poll::Ready(None);
        }
        let mut slot = lock(&this.slot);
        if let Some(piece) = slot.piece.take() {
            this.has_ended = slot.end == Some(Ok(()));
            if let (Some(remaining), Some(data)) = (&mut this.remaining, piece.data_ref()) {
                *remaining = remaining.saturating_sub(data.len() as u64);
            }
            return Poll::Ready(Some(Ok(piece)));
        }
        if let Some(end) = slot.end {
            this.has_ended = true;
            return Poll::Ready(end.err().map(Err));
        }
        let was_wanted = mem::replace(&mut slot.is_wanted, true);
        keep(&mut slot.reader, cx.waker());
        let writer = if was_wanted { None } else { slot.writer.take() };
        drop(slot);
        if let Some(writer) = writer
            && !writer.will_wake(cx.waker())
        {
            writer.wake();
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended
    }

    fn size_hint(&self) -> SizeHint {
        match self.remaining {
            Some(remaining) => SizeHint::with_exact(remaining),
            None => SizeHint::default(),
        }
    }
}

impl Drop for UploadReader {
    fn drop(&mut self) {
        let mut slot = lock(&self.slot);
        slot.is_abandoned = true;
        slot.piece = None;
        let writer = slot.writer.take();
        drop(slot);
        if let Some(writer) = writer {
            writer.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    fn poll(reader: &mut UploadReader, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let polled = Pin::new(reader).poll_frame(cx);
        polled.map_ok(|frame| frame.into_data().expect("content"))
    }

    fn data(text: &'static str) -> Frame<Bytes> {
        Frame::data(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn each_piece_is_asked_for_and_the_other_task_is_woken() {
        let (ours, theirs) = (Arc::new(Woken::default()), Arc::new(Woken::default()));
        let (our_waker, their_waker) = (Arc::clone(&ours).into(), Arc::clone(&theirs).into());
        let (mut here, mut there) = (Context::from_waker(&our_waker), Context::from_waker(&their_waker));
        let (writer, mut reader) = upload(Some(3));
        assert_eq!(writer.poll_wanted(&mut here), Poll::Pending);
        assert_eq!(poll(&mut reader, &mut there), Poll::Pending);
        assert_eq!(ours.0.load(Relaxed), 1);
        assert_eq!(writer.poll_wanted(&mut here), Poll::Ready(Wanted::Piece));
        writer.give(data("ab"), false, &mut here);
        assert_eq!(
            (theirs.0.load(Relaxed), writer.poll_wanted(&mut here)),
            (1, Poll::Pending)
        );
        assert_eq!(poll(&mut reader, &mut there), Poll::Ready(Some(Ok("ab".into()))));
        assert_eq!((reader.size_hint().exact(), reader.is_end_stream()), (Some(1), false));
        assert_eq!(poll(&mut reader, &mut there), Poll::Pending);
        writer.give(data("c"), true, &mut here);
        assert_eq!(poll(&mut reader, &mut there), Poll::Ready(Some(Ok("c".into()))));
        assert!(reader.is_end_stream());
        assert_eq!(poll(&mut reader, &mut there), Poll::Ready(None));
    }

    #[test]
    fn a_side_of_the_running_task_is_not_woken() {
        let woken = Arc::new(Woken::default());
        let waker = Arc::clone(&woken).into();
        let mut cx = Context::from_waker(&waker);
        let (writer, mut reader) = upload(None);
        assert_eq!(writer.poll_wanted(&mut cx), Poll::Pending);
        assert_eq!(poll(&mut reader, &mut cx), Poll::Pending);
        writer.give(data("a"), false, &mut cx);
        assert_eq!(poll(&mut reader, &mut cx), Poll::Ready(Some(Ok("a".into()))));
        writer.end(Ok(()), &mut cx);
        assert_eq!(poll(&mut reader, &mut cx), Poll::Ready(None));
        assert_eq!(woken.0.load(Relaxed), 0);
    }

    #[test]
    fn whichever_side_ends_first_is_noticed() {
        let mut cx = Context::from_waker(Waker::noop());
        let (writer, mut reader) = upload(None);
        writer.give(data("a"), false, &mut cx);
        drop(writer);
        assert_eq!(poll(&mut reader, &mut cx), Poll::Ready(Some(Ok("a".into()))));
        assert_eq!(poll(&mut reader, &mut cx), Poll::Ready(Some(Err(BodyError::Broken))));
        assert_eq!(poll(&mut reader, &mut cx), Poll::Ready(None), "it is told once");

        // It leaves before it wants anything, and while the piece that it wants has not come.
        for wants in [false, true] {
            let (writer, mut reader) = upload(None);
            let woken = Arc::new(Woken::default());
            if wants {
                assert_eq!(poll(&mut reader, &mut cx), Poll::Pending);
            }
            let wanted = writer.poll_wanted(&mut Context::from_waker(&Arc::clone(&woken).into()));
            assert_eq!(wanted == Poll::Ready(Wanted::Piece), wants);
            drop(reader);
            assert_eq!(woken.0.load(Relaxed), 1);
            assert_eq!(writer.poll_wanted(&mut cx), Poll::Ready(Wanted::Nothing));
        }
    }
}
