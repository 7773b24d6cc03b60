//! The messages of a hand-over, by their kinds.
//!
//! ```text
//! new                    old
//! hello             ->                 versions of the protocol that it speaks
//!                   <-  welcome        the version, and what the new process must share: clock and hash keys
//!                                      (the new process reads and checks its config)
//! prepared          ->
//!                   <-  sockets        then the descriptors
//!                                      (the new process binds what it needs besides)
//! ready             ->                 the listeners that it serves on
//!                   <-  terms, counts, set_aside, backend, revocations, end
//!                                      (the new process starts to accept)
//! serving           ->                 from here on the new process is the gateway
//!                   <-  draining
//! settled           ->                 the new process is known to the service manager
//!                   <-  charges, in_flight ... until the old process has ended
//! ```
//!
//! Either side can end the hand-over before `serving` by `refused`, or by closing the connection.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::limits::store::local::snapshot::{SavedCharge, SavedInFlight, SavedLeft};

/// Version of the protocol. A change of a message's meaning makes another one.
pub(super) const PROTOCOL: u32 = 1;

pub(super) const HELLO: &str = "hello";
pub(super) const WELCOME: &str = "welcome";
pub(super) const PREPARED: &str = "prepared";
pub(super) const SOCKETS: &str = "sockets";
pub(super) const READY: &str = "ready";
pub(super) const TERMS: &str = "terms";
pub(super) const COUNTS: &str = "counts";
pub(super) const SET_ASIDE: &str = "set_aside";
pub(super) const BACKEND: &str = "backend";
pub(super) const REVOCATIONS: &str = "revocations";
pub(super) const END: &str = "end";
pub(super) const SERVING: &str = "serving";
pub(super) const DRAINING: &str = "draining";
pub(super) const SETTLED: &str = "settled";
pub(super) const CHARGES: &str = "charges";
pub(super) const IN_FLIGHT: &str = "in_flight";
pub(super) const REFUSED: &str = "refused";

/// Largest number of charges in a message.
pub(super) const MOST_CHARGES: usize = 1_000;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    /// Versions of the protocol that the process speaks.
    pub(super) protocols: Vec<u32>,
    /// Version of the gateway.
    pub(super) version: String,
    pub(super) pid: u32,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Welcome {
    pub(super) protocol: u32,
    pub(super) version: String,
    pub(super) pid: u32,
    /// Zero of the monotonic clock, in nanoseconds since the machine was started.
    pub(super) epoch: i64,
    /// Time of this message on the same clock.
    pub(super) now: i64,
    /// Keys of the hash by which owners are known.
    pub(super) hash_keys: (u64, u64),
    /// Number that differs if the versions hash owners differently.
    pub(super) hash_form: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// The descriptors that follow, in this order: those of the listeners, of `admin`, of `probes`, of the lock of the state
/// file, and of the hand-over socket.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sockets {
    pub(super) listeners: Vec<Listener>,
    pub(super) admin: Option<SocketAddr>,
    pub(super) probes: Option<SocketAddr>,
    /// Device and inode of the lock.
    pub(super) state_file_lock: Option<(u64, u64)>,
    /// Issuers of tokens whose keys the old process has fetched.
    pub(super) issuers: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listener {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    pub(super) sockets: usize,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ready {
    /// Whether the new process serves on the sockets of each listener, in the order of [`Sockets`].
    pub(super) listeners: Vec<bool>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Charges {
    pub(super) charges: Vec<SavedCharge>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InFlight {
    /// All owners with requests in flight.
    pub(super) owners: Vec<SavedInFlight>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetAside {
    pub(super) owners: Vec<SavedLeft>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Revocations {
    /// Entries that may not be in the file, in its form.
    pub(super) unwritten: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Refused {
    pub(super) why: String,
}
