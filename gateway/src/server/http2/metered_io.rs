//! Inspects the frames of an HTTP/2 connection in both directions.
//!
//! It reads frame headers, and changes two kinds of outgoing frames (see [`Widening`]). It passes nothing on after the
//! head of an upload until its request has been delivered. It reads nothing while the connection holds too many unread
//! bytes (see [`crate::wire::parked`]).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::frames::{Flood, Frames, Passed};
use super::unfinished_streams::UnfinishedStreams;
use super::uploads::Uploads;
use super::widening::{FrameSpan, Widening};
use crate::observe::Family;
use crate::server::connection_guard::ConnectionGuard;
use crate::server::reaper::ConnectionActivity;
use crate::server::worker::Worker;
use crate::wire::http2_frames::Met;

/// Time between two checks whether other connections hold less.
const LOOK: Duration = Duration::from_millis(100);

pub(super) struct MeteredIo<S> {
    socket: S,
    frames: Frames,
    owed: UnfinishedStreams,
    uploads: Uploads,
    widening: Widening,
    /// Bytes read from the socket and not yet passed to the library.
    ahead: Bytes,
    /// Bytes taken from the library, changed, and not yet written.
    changed: Vec<u8>,
    /// Time of the next check, while reading is paused.
    look: Option<Pin<Box<Sleep>>>,
    worker: Arc<Worker>,
    activity: Arc<ConnectionActivity>,
}

impl<S> MeteredIo<S> {
    pub(super) fn new(socket: S, guard: &ConnectionGuard, uploads: Uploads, widening: Widening) -> Self {
        Self {
            socket,
            frames: Frames::begin(guard.activity().tick()),
            owed: UnfinishedStreams::begin(),
            uploads,
            widening,
            ahead: Bytes::new(),
            changed: Vec::new(),
            look: None,
            worker: Arc::clone(guard.worker()),
            activity: Arc::clone(guard.activity()),
        }
    }

    /// Examines incoming bytes. Returns how many of them may be passed on now.
    fn look_at(&mut self, come: &[u8]) -> io::Result<usize> {
        let (owed, uploads, widening) = (&mut self.owed, &mut self.uploads, &mut self.widening);
        let activity = &self.activity;
        let passed = self.frames.pass(come, activity.tick(), activity.take_handed(), |met| {
            if let Met::Begin(head) = met {
                owed.comes(head);
            }
            uploads.meets(met);
            widening.meets(met);
        });
        let Passed {
            bytes,
            ends_with_upload,
        } = passed.map_err(|Flood(kind)| {
            self.worker
                .live
                .load()
                .observer
                .registry
                .process
                .add(Family::Floods, kind);
            io::Error::other("too many frames that ask for nothing")
        })?;
        if ends_with_upload {
            self.uploads.new_ones().pause_reading();
        }
        activity.set_unsent(!owed.is_nothing());
        if self.frames.is_within_head() {
            activity.begins_head();
        } else {
            activity.ends_head();
        }
        Ok(bytes)
    }

    /// Waits until the connection may be read further.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.uploads.parked().is_free() {
            let budget = self.worker.live.load().edge.parked_total;
            if self.uploads.parked().may_read(budget, cx.waker()) {
                break;
            }
            let look = self.look.get_or_insert_with(|| Box::pin(sleep(LOOK)));
            ready!(look.as_mut().poll(cx));
            self.look = None;
        }
        self.look = None;
        Poll::Ready(())
    }

    /// Records that the first `count` bytes of `pieces` are written, or wait in `changed`.
    fn note_sent(&mut self, count: usize, pieces: &[IoSlice<'_>]) {
        self.frames.note_sent(count);
        let mut left = count;
        for piece in pieces {
            let gone = left.min(piece.len());
            self.owed.goes(&piece[..gone], |stream| self.uploads.end(stream));
            left -= gone;
        }
        self.activity.set_unsent(!self.owed.is_nothing());
    }
}

impl<S: AsyncWrite + Unpin> MeteredIo<S> {
    /// Writes the changed bytes.
    fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.changed.is_empty() {
            let count = ready!(Pin::new(&mut self.socket).poll_write(cx, &self.changed))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.changed.drain(..count);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_pieces(&mut self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_changed(cx))?;
        let found = self.widening.find(self.owed.scan(), pieces, &self.uploads);
        let Some(FrameSpan { piece, offset, length }) = found else {
            let count = ready!(match pieces {
                [only] => Pin::new(&mut self.socket).poll_write(cx, only),
                pieces => Pin::new(&mut self.socket).poll_write_vectored(cx, pieces),
            })?;
            self.note_sent(count, pieces);
            return Poll::Ready(Ok(count));
        };
        let (before, rest) = pieces.split_at(piece);
        let frame = &rest[0][offset..offset + length];
        let count = if before.iter().any(|piece| !piece.is_empty()) {
            ready!(Pin::new(&mut self.socket).poll_write_vectored(cx, before))?
        } else if offset > 0 {
            ready!(Pin::new(&mut self.socket).poll_write(cx, &rest[0][..offset]))?
        } else {
            self.changed.extend_from_slice(frame);
            self.widening.change(&mut self.changed, &mut self.uploads);
            length
        };
        self.note_sent(count, pieces);
        Poll::Ready(Ok(count))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for MeteredIo<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.uploads.new_ones().is_paused() {
            // The connection lets reading go on by itself.
            return Poll::Pending;
        }
        ready!(this.poll_room(cx));
        if !this.ahead.is_empty() {
            let ahead = this.ahead.clone();
            let count = this.look_at(&ahead[..ahead.len().min(buf.remaining())])?;
            buf.put_slice(&this.ahead.split_to(count));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.socket).poll_read(cx, buf))?;
        let handed = before + this.look_at(&buf.filled()[before..])?;
        this.ahead = Bytes::copy_from_slice(&buf.filled()[handed..]);
        buf.set_filled(handed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for MeteredIo<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_pieces(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_pieces(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_changed(cx))?;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_changed(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
