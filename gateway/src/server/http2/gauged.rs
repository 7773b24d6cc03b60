//! An HTTP/2 connection whose frames are counted on their way to the library.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::{Flood, Frames};
use super::owed::Owed;
use crate::server::enrolled::Enrolled;
use crate::server::watch::Activity;
use crate::server::worker::Worker;

pub(super) struct Gauged<S> {
    socket: S,
    frames: Frames,
    owed: Owed,
    worker: Arc<Worker>,
    activity: Arc<Activity>,
}

impl<S> Gauged<S> {
    pub(super) fn new(socket: S, enrolled: &Enrolled) -> Self {
        Self {
            socket,
            frames: Frames::begin(enrolled.activity().tick()),
            owed: Owed::begin(),
            worker: Arc::clone(enrolled.worker()),
            activity: Arc::clone(enrolled.activity()),
        }
    }

    /// As many bytes of `bufs` as were written.
    fn sent<'b>(
        &mut self,
        polled: Poll<io::Result<usize>>,
        bufs: impl Iterator<Item = &'b [u8]>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = &polled {
            self.frames.note_sent(*count);
            let mut left = *count;
            for buf in bufs {
                let gone = left.min(buf.len());
                self.owed.goes(&buf[..gone]);
                left -= gone;
            }
            self.activity.owes(!self.owed.is_nothing());
        }
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gauged<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.socket).poll_read(cx, buf))?;
        let (frames, owed, activity) = (&mut this.frames, &mut this.owed, &this.activity);
        let come = &buf.filled()[before..];
        let passed = frames.pass(come, activity.tick(), activity.take_handed(), |head| owed.comes(head));
        if let Err(Flood(kind)) = passed {
            this.worker.live.load().observer.registry.floods.add(kind);
            return Poll::Ready(Err(io::Error::other("too many frames that ask for nothing")));
        }
        activity.owes(!owed.is_nothing());
        if frames.is_within_head() {
            activity.begins_head();
        } else {
            activity.ends_head();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gauged<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.socket).poll_write(cx, buf);
        this.sent(polled, std::iter::once(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.socket).poll_write_vectored(cx, bufs);
        this.sent(polled, bufs.iter().map(|buf| &**buf))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
