//! The phase of the process between its start and its end, and the numbers of connections and requests that delay the
//! end.
//!
//! Serving -> Noticed (readiness fails, callers are served as before) -> Draining (no new connections, every answer
//! closes its connection) -> Cut (open connections are dropped). The phase only moves forward.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};

use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Serving,
    Noticed,
    Draining,
    Cut,
}

impl Phase {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Noticed => "noticed",
            Self::Draining => "draining",
            Self::Cut => "cut",
        }
    }
}

pub struct Lifecycle {
    phase: watch::Sender<Phase>,
    /// Copy of the phase that is cheap to read, because every request reads it.
    glance: AtomicU8,
    connections: AtomicUsize,
    requests: AtomicUsize,
    opened: AtomicUsize,
    malformed: AtomicUsize,
    tunnels: AtomicUsize,
    /// Listeners whose sockets another process serves, by their number; set when this one hands over.
    passed_on: OnceLock<Vec<bool>>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self {
            phase: watch::Sender::new(Phase::Serving),
            glance: AtomicU8::new(Phase::Serving as u8),
            connections: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            opened: AtomicUsize::new(0),
            malformed: AtomicUsize::new(0),
            tunnels: AtomicUsize::new(0),
            passed_on: OnceLock::new(),
        }
    }
}

impl Lifecycle {
    pub fn phase(&self) -> Phase {
        match self.glance.load(Relaxed) {
            0 => Phase::Serving,
            1 => Phase::Noticed,
            2 => Phase::Draining,
            _ => Phase::Cut,
        }
    }

    /// Moves to a later phase; does nothing if that phase has passed.
    pub fn advance(&self, to: Phase) {
        self.glance.fetch_max(to as u8, Relaxed);
        self.phase.send_if_modified(|phase| {
            let forward = to > *phase;
            *phase = to.max(*phase);
            forward
        });
    }

    /// Begins to stop because another process serves. `passed_on` tells of each listener whether the other process accepts
    /// from its sockets; what waits in the queues of these is left to it.
    pub fn hand_over(&self, passed_on: Vec<bool>) {
        // A second hand-over cannot begin, so the first value stays.
        let _ = self.passed_on.set(passed_on);
        self.advance(Phase::Noticed);
    }

    /// Whether another process serves in place of this one.
    pub fn is_handed_over(&self) -> bool {
        self.passed_on.get().is_some()
    }

    /// Whether another process accepts from the sockets of the listener with this number.
    pub(crate) fn is_passed_on(&self, listener: usize) -> bool {
        let passed_on = self.passed_on.get();
        passed_on.is_some_and(|passed_on| passed_on.get(listener).copied().unwrap_or_default())
    }

    pub fn subscribe(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Waits until `phase` is reached.
    pub async fn reached(&self, phase: Phase) {
        // The sender lives as long as self, so waiting cannot fail.
        let _ = self.subscribe().wait_for(|now| *now >= phase).await;
    }

    pub(crate) fn connection_opened(&self) {
        self.opened.fetch_add(1, Relaxed);
        self.connections.fetch_add(1, Relaxed);
    }

    pub(crate) fn connection_closed(&self) {
        self.connections.fetch_sub(1, Relaxed);
    }

    pub(crate) fn request_began(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    pub(crate) fn request_ended(&self) {
        self.requests.fetch_sub(1, Relaxed);
    }

    pub(crate) fn malformed(&self) {
        self.malformed.fetch_add(1, Relaxed);
    }

    pub(crate) fn tunnel_opened(&self) {
        self.tunnels.fetch_add(1, Relaxed);
    }

    pub(crate) fn tunnel_closed(&self) {
        self.tunnels.fetch_sub(1, Relaxed);
    }

    /// Number of open tunnels: requests that have switched to WebSocket.
    pub fn tunnels(&self) -> usize {
        self.tunnels.load(Relaxed)
    }

    /// Number of open connections.
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// Number of requests whose head has arrived and whose answer is not completely sent.
    pub fn requests(&self) -> usize {
        self.requests.load(Relaxed)
    }

    /// Number of connections accepted since the start.
    pub fn opened(&self) -> usize {
        self.opened.load(Relaxed)
    }

    /// Number of connections ended because the caller did not send valid HTTP.
    pub fn malformed_connections(&self) -> usize {
        self.malformed.load(Relaxed)
    }
}
