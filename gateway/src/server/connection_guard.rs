//! A connection's entry in the books of its worker.

use std::net::SocketAddr;
use std::sync::Arc;

use super::per_address::AddressSlot;
use super::reaper::ConnectionActivity;
use super::worker::Worker;
use crate::client::address;
use crate::headers::Scheme;
use crate::observe::ConnectionRefusal;
use crate::pipeline::Peer;

/// From the acceptance of a connection to its end, whatever ends it.
pub(crate) struct ConnectionGuard {
    worker: Arc<Worker>,
    id: u64,
    activity: Arc<ConnectionActivity>,
    /// Where connections of one address are limited.
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

    /// A load balancer has passed it on without saying for whom.
    pub(crate) const fn client_is_unknown(&mut self) {
        self.client_is_known = false;
    }

    /// Now that its client is known; `None` if that has too many connections already, which is counted.
    pub(crate) fn of(mut self, client: SocketAddr) -> Option<Self> {
        let edge = &self.worker.live.load().edge;
        if let Some(most) = edge.most_per_address {
            let address = address::key(client.ip(), edge.ipv6_prefix);
            self.member = self.worker.crowd.join(address, most);
            if self.member.is_none() {
                self.worker.refuse(ConnectionRefusal::TooManyFromAddress);
                return None;
            }
        }
        Some(self)
    }

    /// Whom it comes from.
    pub(crate) fn peer(&self, address: SocketAddr, scheme: Scheme) -> Peer {
        Peer {
            address,
            client_is_known: self.client_is_known,
            worker: self.worker.index,
            scheme,
            certificate: None,
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
