//! Serves a caller's HTTP/2 connection: many requests at once, each on its own stream.
//!
//! One task does everything: the library reads requests and writes answers, and the exchanges are polled in between.
//! Only tunnels have a task of their own.
//!
//! Invariant: a stream cannot end another stream. A connection ends for too many frames that ask for nothing, for a
//! head that is never completed, and for a caller that reads nothing; any other fault ends only its own stream.
//!
//! Before the gateway closes a connection it sends GOAWAY, so that the caller knows which requests were not served.

mod answer;
mod connection;
mod exchange;
mod frames;
mod metered_io;
mod unfinished_streams;
mod uploads;
mod wakes;
mod widening;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;

use h2::server::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;

use self::connection::{Connection, Exchange};
use self::exchange::{Incoming, exchange};
use self::metered_io::MeteredIo;
use self::uploads::{NewUploads, Uploads};
use self::widening::Widening;
use super::connection_guard::ConnectionGuard;
use super::lifecycle::Phase;
use crate::clock;
use crate::pipeline::Peer;
use crate::plan::Edge;
use crate::wire::flow_control::FlowControlWindows;
use crate::wire::gathered_io::gathered;
use crate::wire::parked::ParkedOfConnection;

/// Bytes of one answer that are buffered while the caller's window is full.
const SEND_BUFFER: usize = 64 * 1024;
/// Largest payload of a frame from the caller, in bytes.
const FRAME: u32 = 16 * 1024;
/// Number of resets that a caller may provoke before its connection is closed (CVE-2025-8671).
const OWN_RESETS: usize = 100;

/// Serves requests until either side closes the connection.
pub(super) async fn serve<S>(stream: S, mut peer: Peer, guard: ConnectionGuard)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Each stream has its own.
    peer.interim = None;
    let worker = Arc::clone(guard.worker());
    let farewell = Arc::new(Notify::new());
    guard.activity().share(Arc::clone(&farewell));
    let new_uploads = NewUploads::default();
    let (handshake, writes) = {
        let plan = worker.live.load();
        let windows = FlowControlWindows::of_caller(plan.edge.most_streams);
        let parked = Arc::new(ParkedOfConnection::new(Arc::clone(&plan.parked)));
        let uploads = Uploads::new(parked, new_uploads.clone(), windows);
        let (stream, writes) = gathered(MeteredIo::new(stream, &guard, uploads, Widening::new(windows)));
        (http(&plan.edge, windows).handshake(stream), writes)
    };
    let mut leaving = pin!(async {
        tokio::select! {
            () = worker.lifecycle.reached(Phase::Draining) => {}
            () = farewell.notified() => {}
        }
    });
    let mut connection = Connection::new(handshake, writes, new_uploads.clone());
    let ended = poll_fn(|cx| {
        let begin = |request, caller| {
            let incoming = Incoming::new(request, caller, &new_uploads, &guard);
            let flow = Arc::clone(incoming.flow());
            let exchange = Box::pin(exchange(incoming, &peer, &farewell));
            Exchange::new(clock::held_in_each_poll(exchange), flow)
        };
        connection.poll(begin, leaving.as_mut(), cx)
    })
    .await;
    if ended.is_err_and(|error| is_callers_fault(&error)) {
        worker.lifecycle.malformed();
    }
}

/// Returns whether the connection ended because of invalid input, and not because a side closed it.
fn is_callers_fault(error: &h2::Error) -> bool {
    error.is_library() && error.reason().is_some()
}

/// Bytes by which a head may exceed its limit and still be read, so that its rejection names the reason. A longer head
/// is answered with a bare 431.
const BEYOND_HEAD_LIMIT: usize = 16 * 1024;

/// Configures the library with the limits of the plan in force when the connection began.
fn http(edge: &Edge, windows: FlowControlWindows) -> Builder {
    let mut http = Builder::new();
    http.max_concurrent_streams(edge.most_streams)
        .max_header_list_size(u32::try_from(edge.head_limit + BEYOND_HEAD_LIMIT).unwrap_or(u32::MAX))
        .initial_window_size(windows.stream)
        .initial_connection_window_size(windows.connection)
        .max_frame_size(FRAME)
        .max_send_buffer_size(SEND_BUFFER)
        .max_local_error_reset_streams(Some(OWN_RESETS))
        .enable_connect_protocol();
    http
}
