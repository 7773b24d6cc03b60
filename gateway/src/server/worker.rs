//! What the connections of one worker share. A worker is a single-threaded runtime with its own sockets, connections
//! and pools.

use std::sync::Arc;

use super::handshakes::{HandshakeSlots, HandshakeTime};
use super::lifecycle::Lifecycle;
use super::per_address::PerAddress;
use super::reaper::Reaper;
use crate::observe::{ConnectionRefusal, Family};
use crate::overload::WorkerLoad;
use crate::plan::LivePlan;

/// State that all connections of one worker share.
pub(crate) struct Worker {
    pub(crate) index: usize,
    /// How late it is, and whom it refuses.
    pub(crate) load: Arc<WorkerLoad>,
    pub(crate) live: Arc<LivePlan>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) watch: Reaper,
    pub(crate) per_address: Arc<PerAddress>,
    pub(super) handshake_slots: Arc<HandshakeSlots>,
    pub(super) handshake_time: HandshakeTime,
}

impl Worker {
    /// Counts a refused connection.
    pub(crate) fn refuse(&self, reason: ConnectionRefusal) {
        tracing::debug!(reason = reason.as_str(), "a connection gets no further");
        self.live
            .load()
            .observer
            .registry
            .process
            .add(Family::RefusedConnections, reason);
    }
}
