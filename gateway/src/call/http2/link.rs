//! One connection to an endpoint: the sender of its requests, and the state of its peer.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use h2::client::SendRequest;
use policies::Moment;
use tokio::sync::oneshot;

/// Number of consecutive timeouts after which the peer counts as gone. Without this limit all exchanges would go to a
/// peer that has vanished, until a PING reveals it.
const MOST_UNHEARD: u32 = 3;

/// Open connection. It takes no more exchanges after the peer's GOAWAY, and is closed when nothing holds it any more.
pub(super) struct Link {
    sender: SendRequest<Bytes>,
    peer: Arc<Peer>,
    /// Maximum number of concurrent exchanges on the gateway's side.
    most: usize,
    born: Moment,
    used: AtomicBool,
    unheard: AtomicU32,
    /// Dropped with the link. The drop tells the driver that no more requests follow.
    _held: oneshot::Sender<Infallible>,
}

/// State of the peer, as last seen by the driver.
#[derive(Default)]
pub(super) struct Peer {
    streams: AtomicUsize,
    extended_connect: AtomicBool,
    is_closed: AtomicBool,
    /// Whether anything has come since the last call of `take_heard`.
    heard: AtomicBool,
    /// Number of exchanges on the connection.
    exchanges: AtomicUsize,
}

impl Peer {
    /// Sets the limit of concurrent exchanges, and whether the peer accepts an extended CONNECT.
    pub(super) fn publish(&self, streams: usize, extended_connect: bool) {
        self.streams.store(streams, Relaxed);
        self.extended_connect.store(extended_connect, Relaxed);
    }

    /// Records that no more requests are taken.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Relaxed);
    }

    /// Records that something has come.
    pub(super) fn note_heard(&self) {
        self.heard.store(true, Relaxed);
    }

    /// Returns whether anything has come since the last call.
    pub(super) fn take_heard(&self) -> bool {
        self.heard.swap(false, Relaxed)
    }

    /// Returns whether there is an exchange on the connection.
    pub(super) fn is_in_use(&self) -> bool {
        self.exchanges.load(Relaxed) > 0
    }
}

/// Connection on which an answer did not come in time. The timeout counts against the connection only if it is the
/// backend's fault.
#[derive(Clone)]
pub(crate) struct Unanswered(pub(super) Arc<Link>);

impl Unanswered {
    /// Counts the timeout as the backend's fault.
    pub(crate) fn blame(&self) {
        self.0.note_silence();
    }
}

impl std::fmt::Debug for Unanswered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Unanswered")
    }
}

impl Link {
    pub(super) const fn new(
        sender: SendRequest<Bytes>,
        peer: Arc<Peer>,
        most: u32,
        held: oneshot::Sender<Infallible>,
        born: Moment,
    ) -> Self {
        Self {
            sender,
            peer,
            most: most as usize,
            born,
            used: AtomicBool::new(false),
            unheard: AtomicU32::new(0),
            _held: held,
        }
    }

    pub(super) fn sender(&self) -> SendRequest<Bytes> {
        self.sender.clone()
    }

    pub(super) const fn born(&self) -> Moment {
        self.born
    }

    /// Whether the connection takes more requests.
    pub(super) fn is_open(&self) -> bool {
        !self.peer.is_closed.load(Relaxed) && self.unheard.load(Relaxed) < MOST_UNHEARD
    }

    /// Returns the maximum number of concurrent exchanges.
    pub(super) fn allows(&self) -> usize {
        self.peer.streams.load(Relaxed).min(self.most)
    }

    /// Whether the peer accepts an extended CONNECT, which asks for another protocol (RFC 8441).
    pub(super) fn allows_switching(&self) -> bool {
        self.peer.extended_connect.load(Relaxed)
    }

    /// Whether the connection has carried an answer before.
    pub(super) fn is_used(&self) -> bool {
        self.used.load(Relaxed)
    }

    /// Records that an answer has come.
    pub(super) fn note_answer(&self) {
        self.used.store(true, Relaxed);
        self.unheard.store(0, Relaxed);
    }

    /// Records that an answer has not come in time.
    pub(super) fn note_silence(&self) {
        self.unheard.fetch_add(1, Relaxed);
    }

    /// Records that an exchange has begun.
    pub(super) fn begin_exchange(&self) {
        self.peer.exchanges.fetch_add(1, Relaxed);
    }

    /// Records that an exchange has ended.
    pub(super) fn end_exchange(&self) {
        self.peer.exchanges.fetch_sub(1, Relaxed);
    }
}
