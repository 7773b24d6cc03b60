//! The byte stream to an endpoint, with or without TLS.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::memory_pipe::MemoryPipe;

pub enum Transport {
    Plain(TcpStream),
    /// Boxed, because a session takes a kilobyte and most connections have none.
    Tls(Box<TlsStream<TcpStream>>),
    /// Connection in memory, to a scripted backend.
    Memory(MemoryPipe),
}

impl Transport {
    /// Whether the endpoint has closed an idle connection, or has sent what was not asked for. May be asked from any
    /// thread, and changes nothing.
    pub(crate) fn is_closed(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        let (socket, is_plain) = match self {
            Self::Plain(socket) => (socket, true),
            // Messages of TLS itself may come at any time.
            Self::Tls(stream) => (stream.get_ref().0, false),
            Self::Memory(pipe) => return pipe.is_closed(),
        };
        match SockRef::from(socket).peek(&mut byte) {
            Ok(count) => count == 0 || is_plain,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

/// Calls the same method on either stream.
macro_rules! either {
    ($self:ident . $method:ident ( $($argument:expr),* )) => {
        match $self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).$method($($argument),*),
            Self::Tls(stream) => Pin::new(stream).$method($($argument),*),
            Self::Memory(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self.poll_read(cx, buf))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(self.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Memory(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.poll_shutdown(cx))
    }
}
