//! Gathers what the library writes during one poll of an HTTP/2 connection, for one system call.
//!
//! The library flushes after each DATA frame, and one poll of a connection often carries answers of many streams. So a
//! flush does nothing here, and [`GatheredWrites::write`] is called after each poll. The first poll is an exception: its
//! SETTINGS are written before anything of the peer is read.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most bytes that are gathered.
const MOST: usize = 64 * 1024;
/// Size from which bytes are written at once, because copying them would cost more than a system call.
const LARGE: usize = 8 * 1024;
/// Capacity that is kept for the next poll.
const KEPT: usize = 4 * 1024;

/// Stream whose writes are gathered.
pub struct GatheredIo<S>(Arc<Mutex<Gathered<S>>>);

/// Writes what is gathered.
pub struct GatheredWrites<S>(Arc<Mutex<Gathered<S>>>);

struct Gathered<S> {
    socket: S,
    waiting: Vec<u8>,
    /// Whether the first poll is over.
    is_begun: bool,
    /// Number of the waiting bytes that are written already.
    written: usize,
    /// Error of a write that the library has not seen.
    error: Option<io::Error>,
}

/// Returns the stream for the library, and what writes to the socket.
pub fn gathered<S>(socket: S) -> (GatheredIo<S>, GatheredWrites<S>) {
    let gathered = Gathered {
        socket,
        waiting: Vec::new(),
        is_begun: false,
        written: 0,
        error: None,
    };
    let shared = Arc::new(Mutex::new(gathered));
    (GatheredIo(Arc::clone(&shared)), GatheredWrites(shared))
}

/// The two sides belong to one task, so nothing ever waits for the lock.
fn lock<S>(shared: &Mutex<Gathered<S>>) -> MutexGuard<'_, Gathered<S>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: AsyncWrite + Unpin> GatheredWrites<S> {
    /// Writes what the socket takes, and flushes it. The task is woken when it takes more, or when the peer leaves,
    /// which a flush finds out. An error is reported to the library.
    pub fn write(&self, cx: &mut Context<'_>) {
        let mut gathered = lock(&self.0);
        gathered.is_begun = true;
        if let Poll::Ready(Err(error)) = gathered.poll_all(cx) {
            gathered.error = Some(error);
            cx.waker().wake_by_ref();
        }
    }
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    /// Writes and flushes everything.
    fn poll_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_waiting(cx))?;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    /// Writes what waits.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(error) = self.error.take() {
            return Poll::Ready(Err(error));
        }
        while self.written < self.waiting.len() {
            let count = ready!(Pin::new(&mut self.socket).poll_write(cx, &self.waiting[self.written..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
        }
        self.written = 0;
        self.waiting.clear();
        self.waiting.shrink_to(KEPT);
        Poll::Ready(Ok(()))
    }

    fn poll_pieces(&mut self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if let Some(error) = self.error.take() {
            return Poll::Ready(Err(error));
        }
        let total: usize = pieces.iter().map(|piece| piece.len()).sum();
        let is_direct = total >= LARGE || !self.is_begun;
        if is_direct || self.waiting.len() + total > MOST {
            ready!(self.poll_waiting(cx))?;
        }
        if is_direct {
            return Pin::new(&mut self.socket).poll_write_vectored(cx, pieces);
        }
        pieces.iter().for_each(|piece| self.waiting.extend_from_slice(piece));
        Poll::Ready(Ok(total))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for GatheredIo<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).socket).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for GatheredIo<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        lock(&self.0).poll_pieces(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        lock(&self.0).poll_pieces(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Does nothing after the first poll but report an error.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathered = lock(&self.0);
        match gathered.is_begun {
            true => Poll::Ready(gathered.error.take().map_or(Ok(()), Err)),
            false => gathered.poll_all(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathered = lock(&self.0);
        ready!(gathered.poll_all(cx))?;
        Pin::new(&mut gathered.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Socket that takes `room` bytes in all, and fails beyond if `fails`.
    #[derive(Default)]
    struct Socket {
        taken: Vec<u8>,
        writes: usize,
        flushes: usize,
        room: usize,
        fails: bool,
    }

    impl AsyncWrite for Socket {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            let count = buf.len().min(self.room - self.taken.len());
            match count {
                0 if self.fails => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                0 => Poll::Pending,
                _ => {
                    self.writes += 1;
                    self.taken.extend_from_slice(&buf[..count]);
                    Poll::Ready(Ok(count))
                }
            }
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushes += 1;
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn of_room(room: usize) -> (GatheredIo<Socket>, GatheredWrites<Socket>) {
        let socket = Socket {
            room,
            ..Socket::default()
        };
        let (stream, writes) = gathered(socket);
        lock(&writes.0).is_begun = true;
        (stream, writes)
    }

    fn context() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    fn put(stream: &mut GatheredIo<Socket>, piece: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(stream).poll_write(&mut context(), piece)
    }

    fn ends(stream: &mut GatheredIo<Socket>) -> Poll<io::Result<()>> {
        Pin::new(stream).poll_shutdown(&mut context())
    }

    #[test]
    fn many_small_pieces_are_one_write_after_the_poll() {
        let (mut stream, writes) = of_room(1000);
        for piece in [&b"one "[..], b"two ", b"three"] {
            assert!(put(&mut stream, piece).is_ready());
            assert!(Pin::new(&mut stream).poll_flush(&mut context()).is_ready());
        }
        assert_eq!(lock(&writes.0).socket.writes, 0);
        writes.write(&mut context());
        assert_eq!(lock(&writes.0).socket.writes, 1);
        assert_eq!(lock(&writes.0).socket.taken, b"one two three");
        writes.write(&mut context());
        let socket = &lock(&writes.0).socket;
        assert_eq!((socket.writes, socket.flushes), (1, 2));
    }

    #[test]
    fn the_first_poll_writes_at_once() {
        let socket = Socket {
            room: 100,
            ..Socket::default()
        };
        let (mut stream, writes) = gathered(socket);
        assert!(put(&mut stream, b"settings").is_ready());
        assert!(Pin::new(&mut stream).poll_flush(&mut context()).is_ready());
        assert_eq!(lock(&writes.0).socket.taken, b"settings");
        writes.write(&mut context());
        assert!(put(&mut stream, b"answer").is_ready());
        assert_eq!(lock(&writes.0).socket.taken, b"settings");
    }

    #[test]
    fn a_large_piece_comes_after_what_is_gathered_and_is_not_copied() {
        let (mut stream, writes) = of_room(1 << 20);
        let large = vec![b'x'; LARGE];
        assert!(put(&mut stream, b"head").is_ready());
        assert!(put(&mut stream, &large).is_ready());
        assert!(put(&mut stream, b"tail").is_ready());
        assert_eq!(lock(&writes.0).waiting, b"tail");
        writes.write(&mut context());
        assert_eq!(lock(&writes.0).socket.taken, [&b"head"[..], &large, b"tail"].concat());
        let socket = &lock(&writes.0).socket;
        assert_eq!((socket.writes, socket.flushes), (3, 1));
    }

    #[test]
    fn what_is_gathered_is_bounded_and_nothing_is_lost() {
        let (mut stream, writes) = of_room(10);
        let piece = [b'a'; 1000];
        let mut accepted = 0;
        while let Poll::Ready(count) = put(&mut stream, &piece) {
            accepted += count.unwrap();
        }
        assert!((MOST - piece.len()..=MOST).contains(&accepted), "{accepted}");
        writes.write(&mut context());
        assert!(ends(&mut stream).is_pending());
        lock(&writes.0).socket.room = 1 << 20;
        assert!(ends(&mut stream).is_ready());
        assert_eq!(lock(&writes.0).socket.taken.len(), accepted);
        assert!(lock(&writes.0).waiting.capacity() <= KEPT);
    }

    #[test]
    fn an_error_reaches_the_library() {
        let (mut stream, writes) = of_room(0);
        lock(&writes.0).socket.fails = true;
        assert!(put(&mut stream, b"lost").is_ready());
        writes.write(&mut context());
        let flushed = Pin::new(&mut stream).poll_flush(&mut context());
        assert!(matches!(flushed, Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset));
    }
}
