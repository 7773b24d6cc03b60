//! A caller's socket that reports its reads and writes to the reaper, and otherwise passes them through.
//!
//! It lies below TLS, so that the reaper sees what the network does.
//!
//! While a request is served, nothing is read beyond it, so no read tells that the caller has left. This file detects that
//! from the socket's state, whatever lies unread in it.

use std::io::{self, Read as _};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Interest, ReadBuf, Ready};
use tokio::net::TcpStream;

use super::last_words::LastWords;
use super::reaper::ConnectionActivity;

pub(crate) struct GuardedIo {
    stream: TcpStream,
    activity: Arc<ConnectionActivity>,
    /// Bytes already taken out of the socket; they are read first.
    ahead: Vec<u8>,
    /// Whether the last read found nothing.
    is_drained: bool,
    /// Whether the socket may hold bytes although the runtime's readiness flag was cleared.
    is_forgotten: bool,
}

impl GuardedIo {
    pub(crate) fn new(stream: TcpStream, activity: Arc<ConnectionActivity>) -> Self {
        Self {
            stream,
            activity,
            ahead: Vec::new(),
            is_drained: false,
            is_forgotten: false,
        }
    }

    /// Waits for the next bytes and copies them without taking them out of the socket. Returns 0 at the end of the
    /// stream.
    pub(crate) async fn peek(&self, piece: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.peek(piece).await?;
        self.activity.note_read();
        Ok(count)
    }

    /// Takes `count` bytes, which must have arrived, out of the socket. They are read before all later bytes.
    pub(crate) async fn take_ahead(&mut self, count: usize) -> io::Result<()> {
        let held = self.ahead.len();
        self.ahead.resize(held + count, 0);
        self.stream.read_exact(&mut self.ahead[held..]).await?;
        Ok(())
    }

    pub(crate) fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    pub(crate) fn activity(&self) -> &ConnectionActivity {
        &self.activity
    }

    /// Writes what the socket accepts at once, without waiting.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.try_write(bytes)
    }

    fn written(&mut self, polled: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match &polled {
            Poll::Pending => {
                self.activity.cannot_write();
                self.check_presence(cx)?;
            }
            Poll::Ready(written) => self.activity.note_written(*written.as_ref().unwrap_or(&0)),
        }
        polled
    }

    /// Checks that the caller is still connected. Wakes the task when the caller leaves.
    ///
    /// # Errors
    /// Fails if the caller has left.
    fn check_presence(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.activity.is_serving() {
            return Ok(());
        }
        loop {
            let state = self.state();
            if self.has_left(state) {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            // After a read that found nothing, the next bytes wake the task. After the caller has closed its direction
            // no bytes come, and a failing write shows when it has left.
            if self.is_drained || state.is_read_closed() {
                return Ok(());
            }
            match self.stream.poll_read_ready(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Ready(Ok(())) => {}
            }
            // Clears the runtime's readiness flag; while it is set, the runtime does not wake the task again.
            let _ = self.stream.try_io(Interest::READABLE, || -> io::Result<()> {
                Err(io::ErrorKind::WouldBlock.into())
            });
            self.is_forgotten = true;
        }
    }

    /// Returns whether the caller has left. On HTTP/2 a caller that closes its direction has; on HTTP/1.1 it may still wait
    /// for its answer, and after a switch to another protocol either direction may end first.
    fn has_left(&self, state: Ready) -> bool {
        if state.is_write_closed() {
            return true;
        }
        state.is_read_closed() && !self.activity.has_switched() && !self.activity.half_closes()
    }

    /// Returns the socket's state as the runtime knows it, without waiting.
    fn state(&self) -> Ready {
        let state = pin!(self.stream.ready(Interest::READABLE | Interest::WRITABLE));
        match state.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(state)) => state,
            Poll::Ready(Err(_)) => Ready::READ_CLOSED | Ready::WRITE_CLOSED,
            Poll::Pending => Ready::EMPTY,
        }
    }

    /// Reads bytes for which the readiness flag was cleared. Returns `None` if there are none.
    fn read_forgotten(&mut self, buf: &mut ReadBuf<'_>) -> Option<io::Result<()>> {
        let piece = buf.initialize_unfilled();
        let room = piece.len();
        match (&*SockRef::from(&self.stream)).read(piece) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.is_forgotten = false;
                None
            }
            Err(error) => Some(Err(error)),
            Ok(count) => {
                // A read that does not fill the buffer has emptied the socket. The runtime then reports the next byte.
                self.is_forgotten = count == room;
                buf.advance(count);
                Some(Ok(()))
            }
        }
    }
}

impl LastWords for GuardedIo {
    fn say(&mut self, bytes: &[u8]) {
        // A full socket means that the caller does not read, so it would not read this either.
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
        if self.is_forgotten
            && let Some(read) = self.read_forgotten(buf)
        {
            self.is_drained = false;
            self.activity.note_read();
            return Poll::Ready(read);
        }
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.is_drained = polled.is_pending();
        ready!(polled)?;
        self.activity.note_read();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for GuardedIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(polled, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Buffers nothing, so only checks the caller. Called whenever there is nothing else to do.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_presence(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = ready!(Pin::new(&mut self.stream).poll_shutdown(cx));
        self.activity.end_unframed_answer();
        Poll::Ready(closed)
    }
}

impl Drop for GuardedIo {
    /// Resets the connection if it is cut within an answer that ends with the connection: the answer must not look
    /// complete.
    fn drop(&mut self) {
        if self.activity.has_unframed_answer() {
            // This fails only if the caller has closed the connection already.
            let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}
