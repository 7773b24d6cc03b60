//! Gathers the bytes of messages, and writes them with as few writes as there can be.
//!
//! Small pieces are copied into one buffer, because a vectored write costs more than copying a few hundred bytes. A large
//! piece is written from where it lies.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

use crate::wire::http1::{BodyEncoder, Overrun};

/// Maximum size in bytes of a piece that is copied, and of the bytes from which on no more are gathered.
const SMALL: usize = 2048;

/// Bytes that wait to be written.
#[derive(Debug, Default)]
pub struct WriteQueue {
    /// Bytes to be written before `content`, which `after` ends as a chunk.
    out: BytesMut,
    content: Bytes,
    after: &'static [u8],
}

impl WriteQueue {
    /// Returns the buffer to which heads and ends of bodies are written. May only be used while there
    /// [is room](Self::has_room).
    pub const fn buffer(&mut self) -> &mut BytesMut {
        &mut self.out
    }

    /// Adds a piece of a body. May only be used while there [is room](Self::has_room).
    ///
    /// # Errors
    /// Refuses content beyond the end of the body.
    pub fn add(&mut self, encoder: &mut BodyEncoder, data: Bytes) -> Result<(), Overrun> {
        let frame = encoder.frame(data.len())?;
        self.out.extend_from_slice(frame.before());
        if data.len() <= SMALL {
            self.out.extend_from_slice(&data);
            self.out.extend_from_slice(frame.after);
        } else {
            self.content = data;
            self.after = frame.after;
        }
        Ok(())
    }

    /// Whether more may be added before something is written.
    pub fn has_room(&self) -> bool {
        !self.has_content() && self.out.len() < SMALL
    }

    pub fn is_empty(&self) -> bool {
        self.out.is_empty() && !self.has_content()
    }

    const fn has_content(&self) -> bool {
        !self.content.is_empty() || !self.after.is_empty()
    }

    /// Drops everything, and keeps the buffer for what comes next.
    pub fn clear(&mut self) {
        self.out.clear();
        self.content = Bytes::new();
        self.after = b"";
    }

    /// Drops everything, and gives the memory back.
    pub fn discard(&mut self) {
        *self = Self::default();
    }

    /// Writes a part of what waits, which must be something.
    ///
    /// # Errors
    /// Returns the socket's error.
    pub fn poll_write<S: AsyncWrite + Unpin>(&mut self, socket: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = Pin::new(socket);
        let mut count = if self.has_content() {
            let all = [&self.out[..], &self.content, self.after].map(IoSlice::new);
            ready!(socket.poll_write_vectored(cx, &all))?
        } else {
            ready!(socket.poll_write(cx, &self.out))?
        };
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let of_out = count.min(self.out.len());
        if of_out == self.out.len() {
            self.out.clear();
        } else {
            self.out.advance(of_out);
        }
        count -= of_out;
        let of_content = count.min(self.content.len());
        self.content.advance(of_content);
        if self.content.is_empty() {
            // An empty slice would keep the memory of all of it.
            self.content = Bytes::new();
        }
        self.after = &self.after[count - of_content..];
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::wire::http1::BodyLength;

    /// Record of the writes and of their bytes. Takes at most `room` bytes at once.
    struct Recorder {
        room: usize,
        plain: usize,
        gathered: usize,
        bytes: Vec<u8>,
    }

    impl AsyncWrite for Recorder {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.plain += 1;
            let count = buf.len().min(self.room);
            self.bytes.extend_from_slice(&buf[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.gathered += 1;
            let all: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
            let count = all.len().min(self.room);
            self.bytes.extend_from_slice(&all[..count]);
            Poll::Ready(Ok(count))
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Writes a head of 300 bytes and a chunk of `size` bytes. Returns the number of plain and of vectored writes.
    fn write(size: usize, room: usize) -> (usize, usize) {
        let mut recorder = Recorder {
            room,
            plain: 0,
            gathered: 0,
            bytes: Vec::new(),
        };
        let (head, content) = ([b'h'; 300], vec![b'c'; size]);
        let mut queue = WriteQueue::default();
        queue.buffer().extend_from_slice(&head);
        let mut encoder = BodyEncoder::new(Some(BodyLength::Chunked));
        queue.add(&mut encoder, content.clone().into()).expect("any size");
        let mut cx = Context::from_waker(Waker::noop());
        while !queue.is_empty() {
            assert!(matches!(queue.poll_write(&mut recorder, &mut cx), Poll::Ready(Ok(()))));
        }
        assert!(queue.has_room());
        let expected = [&head[..], format!("{size:x}\r\n").as_bytes(), &content, b"\r\n"].concat();
        assert!(recorder.bytes == expected, "{size} at {room}");
        (recorder.plain, recorder.gathered)
    }

    #[test]
    fn small_pieces_are_written_as_one_and_nothing_is_lost() {
        assert_eq!(write(1000, usize::MAX), (1, 0));
        assert_eq!(write(SMALL, usize::MAX), (1, 0));
        assert_eq!(write(SMALL + 1, usize::MAX), (0, 1));
        assert_eq!(write(100_000, usize::MAX), (0, 1));
        for room in [1, 7, 299, 305, 2349, 2350, 2351] {
            write(1000, room);
            write(SMALL + 1, room);
        }
    }
}
