//! Replaces a running gateway by another process without losing a connection or a count.
//!
//! The new process connects to the Unix socket of the old one and gets its listening sockets, the very descriptors,
//! because closing one of several sockets of a port resets what waits in its queue. It gets the counts of limits, the
//! state of breakers and endpoints, and the lock of the state file. Then it accepts, and the old one drains.
//!
//! Invariant: exactly one process is the gateway at any time. Until the new one says that it serves, the old one serves
//! as before, whatever fails. From then on the old one accepts nothing, and what it still charges for requests on its
//! open connections is sent to the new one and counted there.
//!
//! The two processes share the zero of the monotonic clock and the keys of the hash of owners, so counts mean the same in
//! both and need no names. The file `message.rs` lists the messages in their order.

mod guards;
mod message;
mod predecessor;
mod socket;
mod successor;
mod wire;

use std::io;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

pub use self::predecessor::{Descriptors, Offer, Offering};
use self::socket::HandOverSocket;
pub use self::successor::{Guards, Passed, Predecessor, connect};
use crate::plan::State;

/// Begins to answer at the path, where nobody answers now.
///
/// # Errors
/// If the socket cannot be bound.
pub fn begin(path: &Path, offer: Offer) -> io::Result<Offering> {
    predecessor::start(HandOverSocket::bind(path)?, offer)
}

/// Makes this process the gateway in place of the other one, and answers at the socket from now on. `known` is called when
/// this process serves, before the other one may end.
///
/// # Errors
/// If a thread cannot be started.
pub fn replace(
    predecessor: Predecessor,
    socket: UnixListener,
    offer: Offer,
    known: impl FnOnce(),
) -> io::Result<Offering> {
    let state: Arc<State> = Arc::clone(&offer.state);
    let (socket, follower) = predecessor.serving(socket);
    known();
    follower.start(state)?;
    predecessor::start(socket, offer)
}
