//! One connection to an endpoint: where requests go in, and what its peer allows.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use hyper::client::conn::http2::SendRequest;
use policies::Moment;
use tokio::sync::oneshot;

use super::carried::Carried;

/// An open connection. It takes no more exchanges once its peer has said GOAWAY; it is closed when nobody holds it.
pub(super) struct Link {
    sender: SendRequest<Carried>,
    peer: Arc<Peer>,
    born: Moment,
    used: AtomicBool,
    /// Dropped with the link, which tells its driver that nobody will ask for more.
    _held: oneshot::Sender<Infallible>,
}

/// What the other end allows, as the driver has seen it last.
#[derive(Default)]
pub(super) struct Peer {
    pub(super) streams: AtomicUsize,
    pub(super) extended_connect: AtomicBool,
}

impl Link {
    pub(super) const fn new(
        sender: SendRequest<Carried>,
        peer: Arc<Peer>,
        held: oneshot::Sender<Infallible>,
        born: Moment,
    ) -> Self {
        Self {
            sender,
            peer,
            born,
            used: AtomicBool::new(false),
            _held: held,
        }
    }

    pub(super) fn sender(&self) -> SendRequest<Carried> {
        self.sender.clone()
    }

    pub(super) const fn born(&self) -> Moment {
        self.born
    }

    /// Whether it may be asked for more.
    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Exchanges at once.
    pub(super) fn allows(&self) -> usize {
        self.peer.streams.load(Relaxed)
    }

    /// Whether a request may ask for another protocol (RFC 8441).
    pub(super) fn allows_switching(&self) -> bool {
        self.peer.extended_connect.load(Relaxed)
    }

    /// Whether an answer has come over it before.
    pub(super) fn is_used(&self) -> bool {
        self.used.load(Relaxed)
    }

    pub(super) fn set_used(&self) {
        self.used.store(true, Relaxed);
    }
}
