//! Registers a connection with its worker for as long as it exists.

use std::net::SocketAddr;
use std::sync::Arc;

use super::per_address::AddressSlot;
use super::reaper::ConnectionActivity;
use super::worker::Worker;
use crate::client::address;
use crate::headers::{ForwardedLines, Scheme};
use crate::observe::ConnectionRefusal;
use crate::pipeline::Peer;

/// Counts a connection from its acceptance to its end, and holds its place in the per-address limit.
pub(crate) struct ConnectionGuard {
    worker: Arc<Worker>,
    id: u64,
    activity: Arc<ConnectionActivity>,
    /// Set where the connections of one address are limited.
    member: Option<AddressSlot>,
    client_is_known: bool,
}

impl ConnectionGuard {
    pub(crate) fn new(worker: Arc<Worker>) -> Self {
        worker.lifecycle.connection_opened();
        let (id, activity) = worker.watch.begin();
        Self {
            worker,
            id,
            activity,
            member: None,
            client_is_known: true,
        }
    }

    /// Records that a load balancer has passed the connection on without naming the client.
    pub(crate) const fn client_is_unknown(&mut self) {
        self.client_is_known = false;
    }

    /// Sets the client. Returns `None`, and counts a refusal, if the client's address has too many connections.
    pub(crate) fn of(mut self, client: SocketAddr) -> Option<Self> {
        let edge = &self.worker.live.load().edge;
        if let Some(most) = edge.most_per_address {
            let address = address::key(client.ip(), edge.ipv6_prefix);
            self.member = self.worker.per_address.join(address, most);
            if self.member.is_none() {
                self.worker.refuse(ConnectionRefusal::TooManyFromAddress);
                return None;
            }
        }
        Some(self)
    }

    /// Describes the other side of the connection for the pipeline.
    pub(crate) fn peer(&self, address: SocketAddr, scheme: Scheme) -> Peer {
        Peer {
            address,
            client_is_known: self.client_is_known,
            worker: self.worker.index,
            load: Arc::clone(&self.worker.load),
            scheme,
            certificate: None,
            interim: Some(Arc::default()),
            forwarded: ForwardedLines::default(),
            assumed: None,
        }
    }

    pub(crate) const fn id(&self) -> u64 {
        self.id
    }

    pub(crate) const fn worker(&self) -> &Arc<Worker> {
        &self.worker
    }

    pub(crate) const fn activity(&self) -> &Arc<ConnectionActivity> {
        &self.activity
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.worker.watch.end(self.id);
        self.worker.lifecycle.connection_closed();
    }
}
