//! One connection to an endpoint: where requests go in, and what its peer allows.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};

use hyper::client::conn::http2::SendRequest;
use policies::Moment;
use tokio::sync::oneshot;

use super::request_body::{Begun, RequestBody};

/// Exchanges that may run out of time one after the other before nobody is believed to be there. Otherwise all would
/// be sent to a peer that has vanished, until a PING finds out.
const MOST_UNHEARD: u32 = 3;

/// An open connection. It takes no more exchanges once its peer has said GOAWAY; it is closed when nobody holds it.
pub(super) struct Link {
    sender: SendRequest<RequestBody>,
    peer: Arc<Peer>,
    begun: Begun,
    /// Exchanges at once for which there is room on our side.
    most: usize,
    born: Moment,
    used: AtomicBool,
    unheard: AtomicU32,
    /// Dropped with the link, which tells its driver that nobody will ask for more.
    _held: oneshot::Sender<Infallible>,
}

/// What the other end allows, as the driver has seen it last.
#[derive(Default)]
pub(super) struct Peer {
    pub(super) streams: AtomicUsize,
    pub(super) extended_connect: AtomicBool,
}

/// A connection on which an answer has not come in time. Whether that says something of the connection depends on whose
/// fault it is.
#[derive(Clone)]
pub(crate) struct Unanswered(pub(super) Arc<Link>);

impl Unanswered {
    /// It is the fault of the backend.
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
        sender: SendRequest<RequestBody>,
        peer: Arc<Peer>,
        begun: Begun,
        most: u32,
        held: oneshot::Sender<Infallible>,
        born: Moment,
    ) -> Self {
        Self {
            sender,
            peer,
            begun,
            most: most as usize,
            born,
            used: AtomicBool::new(false),
            unheard: AtomicU32::new(0),
            _held: held,
        }
    }

    pub(super) fn sender(&self) -> SendRequest<RequestBody> {
        self.sender.clone()
    }

    pub(super) const fn begun(&self) -> &Begun {
        &self.begun
    }

    pub(super) const fn born(&self) -> Moment {
        self.born
    }

    /// Whether it may be asked for more.
    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed() && self.unheard.load(Relaxed) < MOST_UNHEARD
    }

    /// Exchanges at once.
    pub(super) fn allows(&self) -> usize {
        self.peer.streams.load(Relaxed).min(self.most)
    }

    /// Whether a request may ask for another protocol (RFC 8441).
    pub(super) fn allows_switching(&self) -> bool {
        self.peer.extended_connect.load(Relaxed)
    }

    /// Whether an answer has come over it before.
    pub(super) fn is_used(&self) -> bool {
        self.used.load(Relaxed)
    }

    /// An answer has come.
    pub(super) fn note_answer(&self) {
        self.used.store(true, Relaxed);
        self.unheard.store(0, Relaxed);
    }

    /// An answer has not come in time.
    pub(super) fn note_silence(&self) {
        self.unheard.fetch_add(1, Relaxed);
    }
}
