//! Drives one connection, and publishes the limits of its peer.
//!
//! hyper splits a client connection into two tasks. The one that knows the peer's settings is not woken when they
//! change. Here both run in one task, so that new settings are seen as soon as they are read.
//!
//! A connection counts as open once the peer's SETTINGS frame has arrived. Hence no request is sent to a peer that
//! speaks another protocol, and none is refused because of a limit that was still on its way.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::client::conn::http2::{Builder, Connection};
use hyper::rt::{Executor, Read, Write};
use hyper_util::rt::TokioTimer;
use tokio::sync::oneshot;
use tokio::time::Sleep;

use super::link::{Link, Peer};
use super::request_body::{Begun, RequestBody};
use crate::call::failure::describe;
use crate::call::pool::PoolSettings;
use crate::clock;
use crate::wire::flow_control::FlowControlWindows;

/// Maximum size of an answer's head in bytes, as on HTTP/1.1.
const HEAD: u32 = 256 * 1024;

/// Maximum number of reset streams that are remembered for a second, in which more frames may arrive for them.
const RESET_STREAMS: usize = 1000;

/// Maximum time in which a peer must acknowledge a PING. A shorter `ping` interval also shortens this time.
const PONG: Duration = Duration::from_secs(10);

/// Time for the last frames on a connection that is no longer used.
const LEAVE: Duration = Duration::from_secs(5);

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Opens a connection. If the future is dropped earlier, the connection is closed.
///
/// # Errors
/// Returns an error if the peer does not speak HTTP/2, or closes the connection before its SETTINGS.
pub(super) async fn open<T>(stream: T, settings: &PoolSettings) -> io::Result<Link>
where
    T: Read + Write + Unpin + Send + 'static,
{
    let PoolSettings { ping, streams, .. } = *settings;
    let windows = FlowControlWindows::of_backend(streams);
    let tasks = Tasks::default();
    let begun = tasks.begun.clone();
    let (sender, client) = Builder::new(tasks.clone())
        .timer(TokioTimer::new())
        // No streams until the peer has stated its limit.
        .initial_max_send_streams(0)
        .initial_stream_window_size(windows.stream)
        .initial_connection_window_size(windows.connection)
        .max_header_list_size(HEAD)
        .max_concurrent_reset_streams(RESET_STREAMS)
        // Frames for a stream that is no longer remembered are answered with another reset. Counting those against the
        // peer would let callers who cancel break the connection for the others.
        .max_local_error_reset_streams(None)
        .keep_alive_interval(ping)
        .keep_alive_timeout(ping.min(PONG))
        .handshake(stream)
        .await
        .map_err(not_spoken)?;
    let peer = Arc::new(Peer::default());
    let (held, released) = oneshot::channel();
    let (opened, opens) = oneshot::channel();
    tokio::spawn(Driver {
        client: Some(client),
        connection: tasks.take(),
        peer: Arc::clone(&peer),
        opened: Some(opened),
        released: Some(released),
        leave: None,
    });
    match opens.await {
        Ok(Ok(())) => Ok(Link::new(sender, peer, begun, streams, held, clock::now())),
        Ok(Err(error)) => Err(not_spoken(error)),
        Err(_) => Err(io::Error::other("closed before it spoke HTTP/2")),
    }
}

fn not_spoken(error: hyper::Error) -> io::Error {
    io::Error::other(format!("does not speak HTTP/2: {}", describe(&error)))
}

/// Executor of hyper's tasks. The first task is the connection itself, which the driver runs; all others are spawned.
#[derive(Clone, Default)]
pub(super) struct Tasks {
    first: Arc<Mutex<First>>,
    /// Slot of the exchange whose body the next task sends.
    begun: Begun,
}

#[derive(Default)]
enum First {
    #[default]
    Awaited,
    Here(Task),
    Taken,
}

impl Tasks {
    fn take(&self) -> Task {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *first, First::Taken) {
            First::Here(task) => task,
            First::Awaited | First::Taken => Box::pin(std::future::ready(())),
        }
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*first, First::Awaited) {
            *first = First::Here(Box::pin(task));
            return;
        }
        let task = tokio::spawn(task);
        // If the body is sent at once, the task only waits for the answer's head. The exchange may end that task as
        // well.
        if let Some(slot) = self.begun.take() {
            slot.set_carrier(task.abort_handle());
        }
    }
}

struct Driver<T: Read + Write + Unpin + Send + 'static> {
    /// hyper's connection, until the peer takes no more requests.
    client: Option<Connection<T, RequestBody, Tasks>>,
    connection: Task,
    peer: Arc<Peer>,
    opened: Option<oneshot::Sender<hyper::Result<()>>>,
    released: Option<oneshot::Receiver<Infallible>>,
    leave: Option<Pin<Box<Sleep>>>,
}

impl<T: Read + Write + Unpin + Send + 'static> Driver<T> {
    fn poll_client(&mut self, cx: &mut Context<'_>) {
        let Some(client) = &mut self.client else { return };
        let Poll::Ready(ended) = Pin::new(client).poll(cx) else {
            return;
        };
        self.client = None;
        if let (Err(error), Some(opened)) = (ended, self.opened.take()) {
            // The receiver may be gone; then the error is dropped.
            let _ = opened.send(Err(error));
        }
    }

    fn publish(&mut self) {
        let Some(client) = &self.client else { return };
        let streams = client.current_max_send_streams();
        self.peer.streams.store(streams, Relaxed);
        self.peer
            .extended_connect
            .store(client.is_extended_connect_protocol_enabled(), Relaxed);
        if streams > 0
            && let Some(opened) = self.opened.take()
        {
            let _ = opened.send(Ok(()));
        }
    }

    /// Whether the last holder has released the connection and the time for the last frames is over.
    fn has_left(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(released) = &mut self.released
            && Pin::new(released).poll(cx).is_ready()
        {
            self.released = None;
            self.leave = Some(Box::pin(tokio::time::sleep(LEAVE)));
        }
        self.leave
            .as_mut()
            .is_some_and(|leave| leave.as_mut().poll(cx).is_ready())
    }
}

impl<T: Read + Write + Unpin + Send + 'static> Future for Driver<T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.poll_client(cx);
        let over = this.connection.as_mut().poll(cx).is_ready();
        // The data just read may have held a GOAWAY.
        this.poll_client(cx);
        this.publish();
        if over || this.has_left(cx) {
            return Poll::Ready(());
        }
        Poll::Pending
    }
}
