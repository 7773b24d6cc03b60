//! A connection to a backend that passes on only well-formed answers, each to a request that was sent.
//!
//! The first invalid byte ends the connection, so that nothing after it is taken for the answer to another request.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::transport::Transport;
use crate::wire::framing::{Awaited, Read, Refusal, Screen};

pub(crate) struct Screened {
    socket: Transport,
    screen: Screen,
}

impl Screened {
    pub(crate) const fn new(socket: Transport, awaited: Arc<Awaited>) -> Self {
        Self {
            socket,
            screen: Screen::answers(awaited),
        }
    }
}

impl AsyncRead for Screened {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        Poll::Ready(match ready!(this.screen.poll_read(&mut this.socket, cx, buf))? {
            Read::Passed => Ok(()),
            Read::NoHead(refusal) | Read::NoBody(refusal) => Err(refusal.into()),
            Read::Over => Err(Refusal::Malformed("there is more after the last answer").into()),
        })
    }
}

impl AsyncWrite for Screened {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
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
