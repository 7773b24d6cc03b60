//! A caller's socket that notes its reads and writes for the watch, and otherwise passes them through.
//!
//! It lies beneath TLS where there is any, so that what is watched is what the network does.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::screened::LastWords;
use super::watch::Activity;

pub(crate) struct GuardedIo {
    stream: TcpStream,
    activity: Arc<Activity>,
    /// Taken out of the socket already, and read before what is still in it.
    ahead: Vec<u8>,
}

impl GuardedIo {
    pub(crate) fn new(stream: TcpStream, activity: Arc<Activity>) -> Self {
        Self {
            stream,
            activity,
            ahead: Vec::new(),
        }
    }

    /// Looks at what comes next in the socket, without taking it; waits until there is something. 0 is its end.
    pub(crate) async fn peek(&self, piece: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.peek(piece).await?;
        self.activity.has_read();
        Ok(count)
    }

    /// Takes so many bytes out of the socket, where they are; they are read before what follows.
    pub(crate) async fn take_ahead(&mut self, count: usize) -> io::Result<()> {
        let held = self.ahead.len();
        self.ahead.resize(held + count, 0);
        self.stream.read_exact(&mut self.ahead[held..]).await?;
        Ok(())
    }

    pub(crate) fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    pub(crate) fn activity(&self) -> &Activity {
        &self.activity
    }

    /// Writes what goes out at once, for whoever cannot wait.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.try_write(bytes)
    }

    fn written(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &polled {
            Poll::Pending => self.activity.cannot_write(),
            Poll::Ready(written) => self.activity.has_written(*written.as_ref().unwrap_or(&0)),
        }
        polled
    }
}

impl LastWords for GuardedIo {
    fn say(&mut self, bytes: &[u8]) {
        // If there is no room the other side does not read, and would not read this either.
        let _ = self.try_write(bytes);
    }
}

impl AsyncRead for GuardedIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let count = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead[..count]);
            self.ahead.drain(..count);
            return Poll::Ready(Ok(()));
        }
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if polled.is_ready() {
            self.activity.has_read();
        }
        polled
    }
}

impl AsyncWrite for GuardedIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
