//! A caller's connection from which only well-formed requests can be read; anything else is answered with a refusal.
//!
//! hyper reads valid messages, and then an end. The refusal is written here after the answers to earlier requests,
//! because hyper would write a bare status line and drop the answers that are due. After the refusal the caller may
//! send for a moment longer: closing a socket with unread bytes resets the connection, and the refusal would be lost.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection_guard::ConnectionGuard;
use super::early_refusal::{self, EarlyRefusal};
use super::last_words::LastWords;
use super::reaper::ConnectionActivity;
use super::worker::Worker;
use crate::setting::Settings;
use crate::wire::framing::{Read, Screen};
use crate::wire::http1::Limits;

/// Bytes that are read and discarded after a malformed head was refused. The reaper limits the time.
const LEFT_OF_HEAD: usize = 256 * 1024;

/// The same while the caller is still sending the body of a well-formed request, which more callers do in good faith.
/// A caller that sends more than this without reading the answer may lose it.
const LEFT_OF_BODY: usize = 16 * 1024 * 1024;

pub(crate) struct Screened<S: LastWords> {
    socket: S,
    screen: Screen,
    /// Settings of the plan whose head limits hold on this connection.
    settings: Arc<Settings>,
    worker: Arc<Worker>,
    activity: Arc<ConnectionActivity>,
    address: SocketAddr,
    /// Whether the last read found nothing.
    blocked: bool,
    /// Whether hyper has bytes that are not written yet.
    unflushed: bool,
    /// Whether a refusal waits until earlier answers are written.
    waits: bool,
    leaving: Option<Leaving>,
}

/// Steps of closing a connection that may still write and read.
enum Leaving {
    Telling(Bytes),
    /// Holds the number of bytes that may be discarded afterwards.
    Closing(usize),
    /// Number of bytes that may still be read and discarded.
    Draining(usize),
    Gone,
}

impl<S: LastWords> Screened<S> {
    pub(crate) fn new(socket: S, address: SocketAddr, guard: &ConnectionGuard) -> Self {
        let worker = Arc::clone(guard.worker());
        let (limits, settings) = {
            let plan = worker.live.load();
            let edge = &plan.edge;
            let limits = Limits::of_heads(edge.uri_limit, edge.head_limit, edge.header_limit);
            (limits, Arc::clone(&plan.settings))
        };
        Self {
            socket,
            screen: Screen::new(limits),
            settings,
            worker,
            activity: Arc::clone(guard.activity()),
            address,
            blocked: false,
            unflushed: false,
            waits: false,
            leaving: None,
        }
    }

    fn answer(&self, unread: EarlyRefusal) -> Bytes {
        let settings = match unread {
            // The time limit of a head may change during the connection, so the settings in force are used.
            EarlyRefusal::TooSlow => None,
            _ => Some(&self.settings),
        };
        early_refusal::answer(&self.worker, self.address, self.screen.held(), unread, settings)
    }
}

impl<S: AsyncRead + AsyncWrite + LastWords + Unpin> Screened<S> {
    /// Returns true when a request can be read, and false when the connection has ended and nothing is due to the
    /// caller.
    pub(crate) fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        match ready!(self.screen.poll_head(&mut self.socket, cx))? {
            None => Poll::Ready(Ok(false)),
            Some(Read::Passed) => Poll::Ready(Ok(true)),
            Some(refused) => self.poll_heed(refused, cx).map_ok(|()| false),
        }
    }

    /// Acts on the result of the screen: reads on, fails, or closes the connection.
    fn poll_heed(&mut self, read: Read, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match read {
            Read::Passed => Poll::Ready(Ok(())),
            Read::NoBody(refusal) => Poll::Ready(Err(refusal.into())),
            Read::NoHead(refusal) => {
                self.poll_leave(cx, |this| Leaving::Telling(this.answer(EarlyRefusal::Refused(refusal))))
            }
            Read::Over => self.poll_leave(cx, |_| Leaving::Closing(LEFT_OF_HEAD)),
        }
    }

    /// Records that hyper has bytes to write.
    fn begins_to_write(&mut self) {
        self.unflushed = true;
        self.note_rest();
    }

    /// Records that hyper holds no byte: nothing to read, all written, and between two messages.
    fn note_rest(&self) {
        self.activity
            .set_at_rest(self.blocked && !self.unflushed && self.screen.is_between_messages());
    }

    /// Starts to close once earlier answers are written, and is ready when the close is complete.
    fn poll_leave(&mut self, cx: &mut Context<'_>, leaving: impl FnOnce(&Self) -> Leaving) -> Poll<io::Result<()>> {
        if self.leaving.is_none() {
            if self.activity.is_serving() || self.unflushed {
                self.waits = true;
                return Poll::Pending;
            }
            self.leaving = Some(leaving(self));
        }
        self.poll_left(cx)
    }

    /// Continues to close.
    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(leaving) = &mut self.leaving else {
            return Poll::Ready(Ok(()));
        };
        loop {
            *leaving = match leaving {
                Leaving::Telling(bytes) if bytes.is_empty() => {
                    ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
                    Leaving::Closing(LEFT_OF_HEAD)
                }
                Leaving::Telling(bytes) => match ready!(Pin::new(&mut self.socket).poll_write(cx, bytes))? {
                    0 => Leaving::Gone,
                    count => {
                        bytes.advance(count);
                        continue;
                    }
                },
                Leaving::Closing(left) => {
                    ready!(Pin::new(&mut self.socket).poll_shutdown(cx))?;
                    Leaving::Draining(*left)
                }
                Leaving::Draining(left) => {
                    let mut piece = [0; 4096];
                    let mut piece = ReadBuf::new(&mut piece);
                    ready!(Pin::new(&mut self.socket).poll_read(cx, &mut piece))?;
                    match left.checked_sub(piece.filled().len()) {
                        Some(left) if !piece.filled().is_empty() => Leaving::Draining(left),
                        _ => Leaving::Gone,
                    }
                }
                Leaving::Gone => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<S: LastWords> Drop for Screened<S> {
    fn drop(&mut self) {
        if self.activity.is_late() && self.leaving.is_none() && !self.screen.held().is_empty() {
            let answer = self.answer(EarlyRefusal::TooSlow);
            self.socket.say(&answer);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + LastWords + Unpin> AsyncRead for Screened<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.activity.has_switched() {
            this.screen.switch_off();
        }
        let polled = this.screen.poll_read(&mut this.socket, cx, buf);
        this.blocked = polled.is_pending();
        this.activity.notes_body(this.screen.is_within_body());
        this.note_rest();
        let read = ready!(polled)?;
        this.poll_heed(read, cx)
    }
}

impl<S: AsyncRead + AsyncWrite + LastWords + Unpin> AsyncWrite for Screened<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.begins_to_write();
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.begins_to_write();
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
        // hyper flushes after it has written all that it has.
        self.unflushed = false;
        self.note_rest();
        if !self.screen.held().is_empty() {
            // A head that began to come during the answer has the same time limit as any other head.
            self.activity.note_read();
        }
        if self.waits && !self.activity.is_serving() {
            self.waits = false;
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.leaving.is_none() {
            if this.activity.is_serving() || !this.screen.is_within_body() {
                return Pin::new(&mut this.socket).poll_shutdown(cx);
            }
            // The caller is still sending a body that is not used.
            this.activity.start_closing();
            this.leaving = Some(Leaving::Closing(LEFT_OF_BODY));
        }
        this.poll_left(cx)
    }
}
