//! Copies one direction of a tunnel, from one side to the other, through a buffer of fixed size.
//!
//! Invariant: nothing is read without room for it. A side that does not read therefore slows the other side down, and
//! memory is bounded. After a stop, the direction ends between two frames.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::response::tunnel::frames::Frames;
use crate::wire::slow_caller::LIVELY;

/// Size of the buffer of each direction in bytes.
const BUFFER: usize = 8 * 1024;

pub(crate) struct CopyBuffer {
    buffer: Box<[u8]>,
    /// Start of the bytes that are read but not yet written; `to` is their end.
    from: usize,
    to: usize,
    needs_flush: bool,
    frames: Frames,
    /// Whether to stop reading after the current frame.
    stopping: bool,
    /// Whether the source has closed, or the direction was stopped and stands between two frames.
    at_rest: bool,
}

impl CopyBuffer {
    pub(crate) fn new() -> Self {
        Self {
            buffer: vec![0; BUFFER].into(),
            from: 0,
            to: 0,
            needs_flush: false,
            frames: Frames::default(),
            stopping: false,
            at_rest: false,
        }
    }

    pub(crate) const fn stop(&mut self) {
        self.stopping = true;
    }

    /// Whether a close frame was carried in this direction.
    pub(crate) const fn said_close(&self) -> bool {
        self.frames.said_close()
    }

    /// Returns a count of a caller's signs of life: whole frames, and pieces as large as [`LIVELY`]. Single bytes do
    /// not change it.
    pub(crate) const fn signs_of_life(&self) -> u64 {
        self.frames.whole().wrapping_add(self.frames.said() / LIVELY)
    }

    /// Returns the bytes from a backend, without pongs, which only echo.
    pub(crate) const fn said(&self) -> u64 {
        self.frames.said().wrapping_add(self.frames.pinged())
    }

    /// Copies what is available. Ready when nothing more will come. `carried` counts the bytes written.
    pub(crate) fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut R,
        sink: &mut W,
        carried: &mut u64,
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            if self.at_rest {
                return Poll::Ready(Ok(()));
            }
            while self.from < self.to {
                let count = ready!(Pin::new(&mut *sink).poll_write(cx, &self.buffer[self.from..self.to]))?;
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                *carried += count as u64;
                self.from += count;
                self.needs_flush = true;
            }
            if self.stopping && self.frames.until_boundary() == 0 {
                ready!(Pin::new(&mut *sink).poll_flush(cx))?;
                self.at_rest = true;
                continue;
            }
            let room = match self.stopping {
                true => self.frames.until_boundary().min(BUFFER),
                false => BUFFER,
            };
            let mut buffer = ReadBuf::new(&mut self.buffer[..room]);
            match Pin::new(&mut *source).poll_read(cx, &mut buffer) {
                Poll::Ready(read) => read?,
                Poll::Pending => {
                    if self.needs_flush {
                        ready!(Pin::new(&mut *sink).poll_flush(cx))?;
                        self.needs_flush = false;
                    }
                    return Poll::Pending;
                }
            }
            let read = buffer.filled().len();
            if read == 0 {
                ready!(Pin::new(&mut *sink).poll_flush(cx))?;
                self.at_rest = true;
                continue;
            }
            (self.from, self.to) = (0, read);
            self.frames.pass(&self.buffer[..read]);
        }
    }
}
