//! An HTTP/2 connection whose frames are counted on their way to the library.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::{Flood, Frames};
use crate::server::enrolled::Enrolled;
use crate::server::watch::Activity;
use crate::server::worker::Worker;

pub(super) struct Gauged<S> {
    socket: S,
    frames: Frames,
    worker: Arc<Worker>,
    activity: Arc<Activity>,
}

impl<S> Gauged<S> {
    pub(super) fn new(socket: S, enrolled: &Enrolled) -> Self {
        Self {
            socket,
            frames: Frames::begin(enrolled.activity().tick()),
            worker: Arc::clone(enrolled.worker()),
            activity: Arc::clone(enrolled.activity()),
        }
    }

    fn sent(&mut self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = &polled {
            self.frames.has_sent(*count);
        }
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gauged<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.socket).poll_read(cx, buf))?;
        if let Err(Flood(kind)) = this.frames.pass(&buf.filled()[before..], this.activity.tick()) {
            this.worker.live.load().observer.registry.floods.add(kind);
            return Poll::Ready(Err(io::Error::other("too many frames that ask for nothing")));
        }
        if this.frames.is_within_head() {
            this.activity.begins_head();
        } else {
            this.activity.ends_head();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gauged<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.socket).poll_write(cx, buf);
        this.sent(polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.socket).poll_write_vectored(cx, bufs);
        this.sent(polled)
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
