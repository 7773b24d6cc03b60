//! A running demo, as other processes know it: `running.json` in its folder.

use std::net::SocketAddr;
use std::path::PathBuf;

/// A running demo, as other processes know it.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(super) struct Running {
    pub(super) pid: u32,
    pub(super) public: SocketAddr,
    pub(super) admin: SocketAddr,
    /// Address that controls the fleet.
    pub(super) control: SocketAddr,
    /// Folder of its config, tokens and access log.
    pub(super) folder: PathBuf,
    /// Whether this user had no other demo running at its start.
    pub(super) alone: bool,
}
