//! Drives one connection, and publishes the state of its peer.
//!
//! A connection counts as open once the peer's SETTINGS frame has arrived. Hence no request is sent to a peer that
//! speaks another protocol, and none is refused because of a limit that was still on its way.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::Sleep;

use super::keep_alive::KeepAlive;
use super::link::{Link, Peer};
use crate::call::pool::PoolSettings;
use crate::clock;
use crate::wire::flow_control::FlowControlWindows;
use crate::wire::gathered_io::{GatheredIo, GatheredWrites, gathered};

/// Maximum size of an answer's head in bytes, as on HTTP/1.1.
const HEAD: u32 = 256 * 1024;

/// Maximum number of reset streams that are remembered for a second, in which more frames may arrive for them.
const RESET_STREAMS: usize = 1000;

/// Time for the last frames on a connection that is no longer used.
const LEAVE: Duration = Duration::from_secs(5);

/// Opens a connection. If the future is dropped earlier, the connection is closed.
///
/// # Errors
/// Returns an error if the peer does not speak HTTP/2, or closes the connection before its SETTINGS.
pub(super) async fn open<T>(stream: T, peer: Arc<Peer>, settings: &PoolSettings) -> io::Result<Link>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let PoolSettings { ping, streams, .. } = *settings;
    let windows = FlowControlWindows::of_backend(streams);
    let (stream, writes) = gathered(stream);
    let (sender, mut connection) = Builder::new()
        // No streams until the peer has stated its limit.
        .initial_max_send_streams(0)
        .initial_window_size(windows.stream)
        .initial_connection_window_size(windows.connection)
        .max_header_list_size(HEAD)
        .max_concurrent_reset_streams(RESET_STREAMS)
        // Frames for a stream that is no longer remembered are answered with another reset. Counting those against the
        // peer would let callers who cancel break the connection for the others.
        .max_local_error_reset_streams(None)
        .enable_push(false)
        .handshake(stream)
        .await
        .map_err(not_spoken)?;
    let (held, released) = oneshot::channel();
    let (opened, opens) = oneshot::channel();
    tokio::spawn(Driver {
        keep_alive: connection.ping_pong().map(|pings| KeepAlive::new(pings, ping)),
        connection,
        writes,
        sender: Some(sender.clone()),
        peer: Arc::clone(&peer),
        opened: Some(opened),
        released: Some(released),
        leave: None,
    });
    match opens.await {
        Ok(Ok(())) => Ok(Link::new(sender, peer, streams, held, clock::now())),
        Ok(Err(error)) => Err(not_spoken(error)),
        Err(_) => Err(io::Error::other("does not speak HTTP/2: it closed the connection")),
    }
}

fn not_spoken(error: h2::Error) -> io::Error {
    io::Error::other(format!("does not speak HTTP/2: {error}"))
}

struct Driver<T: AsyncRead + AsyncWrite + Unpin> {
    connection: Connection<GatheredIo<T>, Bytes>,
    writes: GatheredWrites<T>,
    keep_alive: Option<KeepAlive>,
    /// `None` once the peer takes no more requests.
    sender: Option<SendRequest<Bytes>>,
    peer: Arc<Peer>,
    opened: Option<oneshot::Sender<Result<(), h2::Error>>>,
    released: Option<oneshot::Receiver<Infallible>>,
    leave: Option<Pin<Box<Sleep>>>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Driver<T> {
    /// Publishes whether the peer takes more requests, and how many at once.
    fn publish(&mut self, cx: &mut Context<'_>) {
        let Some(sender) = &mut self.sender else { return };
        if let Poll::Ready(Err(error)) = sender.poll_ready(cx) {
            self.end(Some(error));
            return;
        }
        let streams = sender.current_max_send_streams();
        self.peer
            .publish(streams, sender.is_extended_connect_protocol_enabled());
        if streams > 0
            && let Some(opened) = self.opened.take()
        {
            let _ = opened.send(Ok(()));
        }
    }

    /// Notes that the peer takes no more requests.
    fn end(&mut self, error: Option<h2::Error>) {
        self.sender = None;
        self.peer.close();
        if let (Some(error), Some(opened)) = (error, self.opened.take()) {
            // The receiver may be gone; then the error is dropped.
            let _ = opened.send(Err(error));
        }
    }

    /// Whether the last holder has released the connection and the time for the last frames is over.
    fn has_left(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(released) = &mut self.released
            && Pin::new(released).poll(cx).is_ready()
        {
            self.released = None;
            // Without a sender the library says goodbye once no stream is left.
            self.sender = None;
            self.leave = Some(Box::pin(tokio::time::sleep(LEAVE)));
            cx.waker().wake_by_ref();
        }
        self.leave
            .as_mut()
            .is_some_and(|leave| leave.as_mut().poll(cx).is_ready())
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Future for Driver<T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let ended = Pin::new(&mut this.connection).poll(cx);
        if let Poll::Ready(ended) = ended {
            this.end(ended.err());
            return Poll::Ready(());
        }
        this.publish(cx);
        if let Some(keep_alive) = &mut this.keep_alive
            && keep_alive.poll(&this.peer, cx).is_ready()
        {
            tracing::debug!("a backend did not answer a PING in time: the connection is closed");
            this.end(None);
            return Poll::Ready(());
        }
        this.writes.write(cx);
        match this.has_left(cx) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}
