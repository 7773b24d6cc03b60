//! Serves connections in memory, for requests on virtual time. From the first byte on they are served as others are;
//! the limits on connections and on slow callers do not apply.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::DuplexStream;

use super::connection_guard::ConnectionGuard;
use super::handshakes::HandshakeTime;
use super::http1;
use super::last_words::LastWords;
use super::lifecycle::Lifecycle;
use super::reaper::Reaper;
use super::worker::Worker;
use crate::headers::Scheme;
use crate::pipeline::Peer;
use crate::pipeline::explain::AssumedCaller;
use crate::plan::LivePlan;

/// Bytes that each direction of a connection holds.
const CAPACITY: usize = 64 * 1024;

/// A worker without sockets.
pub struct MemoryServer(Arc<Worker>);

impl MemoryServer {
    pub fn new(live: &Arc<LivePlan>) -> Self {
        Self(Arc::new(Worker {
            index: 0,
            load: live.load().loads.add(),
            live: Arc::clone(live),
            lifecycle: Arc::new(Lifecycle::default()),
            watch: Reaper::default(),
            per_address: Arc::default(),
            handshake_slots: Arc::default(),
            handshake_time: HandshakeTime::default(),
        }))
    }

    /// Opens an HTTP/1.1 connection from `client`. `assumed` is the caller of its requests in place of credentials.
    pub fn connect(&self, client: SocketAddr, scheme: Scheme, assumed: Option<AssumedCaller>) -> DuplexStream {
        let (theirs, mut ours) = tokio::io::duplex(CAPACITY);
        let guard = ConnectionGuard::new(Arc::clone(&self.0));
        let peer = Peer {
            assumed: assumed.map(Box::new),
            ..guard.peer(client, scheme)
        };
        tokio::spawn(async move { http1::serve(&mut ours, &peer, &guard).await });
        theirs
    }
}

/// No caller of virtual time is told that it was too slow.
impl LastWords for DuplexStream {
    fn say(&mut self, _: &[u8]) {}
}
