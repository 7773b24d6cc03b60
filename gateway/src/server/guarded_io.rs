//! A caller's socket that notes its reads and writes for the watch, and otherwise passes them through.
//!
//! It lies beneath TLS where there is any, so that what is watched is what the network does.
//!
//! Whoever serves the connection reads no further than it has use for, and cannot see past what it has not read that the
//! caller has left. Here that is told by the socket's state, whatever lies unread in it.

use std::io::{self, Read as _};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Interest, ReadBuf, Ready};
use tokio::net::TcpStream;

use super::reaper::ConnectionActivity;
use super::screened::LastWords;

pub(crate) struct GuardedIo {
    stream: TcpStream,
    activity: Arc<ConnectionActivity>,
    /// Taken out of the socket already, and read before what is still in it.
    ahead: Vec<u8>,
    /// There was nothing more to read.
    is_drained: bool,
    /// Something may lie in the socket of which the runtime has been told to forget.
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

    /// Looks at what comes next in the socket, without taking it; waits until there is something. 0 is its end.
    pub(crate) async fn peek(&self, piece: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.peek(piece).await?;
        self.activity.note_read();
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

    pub(crate) fn activity(&self) -> &ConnectionActivity {
        &self.activity
    }

    /// Writes what goes out at once, for whoever cannot wait.
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

    /// Whether the caller is still there to be answered; wakes the task when it leaves.
    ///
    /// # Errors
    /// It has left.
    fn check_presence(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.activity.is_serving() {
            return Ok(());
        }
        loop {
            let state = self.state();
            if has_left(state, self.activity.has_switched()) {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            // Whoever has found nothing to read is woken by what comes. Once the other direction has been closed nothing
            // comes any more, and what we write will tell.
            if self.is_drained || state.is_read_closed() {
                return Ok(());
            }
            match self.stream.poll_read_ready(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Ready(Ok(())) => {}
            }
            // There would be no further word from the runtime while it believes that there is something to be read.
            let _ = self.stream.try_io(Interest::READABLE, || -> io::Result<()> {
                Err(io::ErrorKind::WouldBlock.into())
            });
            self.is_forgotten = true;
        }
    }

    /// What the runtime knows of the socket.
    fn state(&self) -> Ready {
        let state = pin!(self.stream.ready(Interest::READABLE | Interest::WRITABLE));
        match state.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(state)) => state,
            Poll::Ready(Err(_)) => Ready::READ_CLOSED | Ready::WRITE_CLOSED,
            Poll::Pending => Ready::EMPTY,
        }
    }

    /// Reads what the runtime has been told to forget; nothing if there is none.
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
                // A socket that gives less than there is room for is empty, and its next byte is news to the runtime.
                self.is_forgotten = count == room;
                buf.advance(count);
                Some(Ok(()))
            }
        }
    }
}

/// Whether nobody is left on the other side. On HTTP, who closes its side before it has its answer counts as gone; once
/// the connection is `switched` to another protocol, either side may end first.
fn has_left(state: Ready, switched: bool) -> bool {
    if switched {
        state.is_write_closed()
    } else {
        state.is_read_closed()
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

    /// Nothing is held here. Whoever serves the connection asks for it whenever it has nothing else to do.
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
    /// An answer that ends with its connection and is cut must not look whole: the connection is reset.
    fn drop(&mut self) {
        if self.activity.has_unframed_answer() {
            // Fails only if the caller was faster.
            let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}
