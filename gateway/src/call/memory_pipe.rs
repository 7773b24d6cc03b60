//! A connection in memory in place of one to an endpoint, for plans that run on virtual time.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// Bytes that each direction holds.
const CAPACITY: usize = 64 * 1024;

/// Opens connections to an endpoint without a network.
pub trait Dial: fmt::Debug + Send + Sync {
    /// Opens a connection; `None` means that connecting never ends.
    ///
    /// # Errors
    /// The connection was refused.
    fn dial(&self) -> io::Result<Option<MemoryPipe>>;
}

/// The gateway's end of a connection in memory.
pub struct MemoryPipe {
    stream: DuplexStream,
    /// Whether the other end is gone.
    is_closed: Arc<AtomicBool>,
}

/// The endpoint's end. Dropping it closes the connection.
pub struct FarEnd {
    stream: DuplexStream,
    is_closed: Arc<AtomicBool>,
}

impl MemoryPipe {
    /// Returns both ends of a new connection.
    pub fn new() -> (Self, FarEnd) {
        let (stream, far) = tokio::io::duplex(CAPACITY);
        let is_closed = Arc::<AtomicBool>::default();
        let far = FarEnd {
            stream: far,
            is_closed: Arc::clone(&is_closed),
        };
        (Self { stream, is_closed }, far)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Relaxed)
    }
}

impl Drop for FarEnd {
    fn drop(&mut self) {
        self.is_closed.store(true, Relaxed);
    }
}

/// Passes reads and writes on to the stream.
macro_rules! passes_on {
    ($end:ident) => {
        impl AsyncRead for $end {
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
            }
        }

        impl AsyncWrite for $end {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.get_mut().stream).poll_flush(cx)
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
            }
        }
    };
}

passes_on!(MemoryPipe);
passes_on!(FarEnd);
