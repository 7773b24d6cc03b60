//! Kinds of trouble with the store.

use std::fmt;

/// Reason why the store did not execute a command, as far as is known: after [`Timeout`](Trouble::Timeout) and
/// [`Closed`](Trouble::Closed) it may have been executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// Not connected yet since the start.
    Connecting,
    /// No address, or no connection.
    Unreached,
    /// No answer within the call limit.
    Timeout,
    /// The connection broke.
    Closed,
    /// Wrong password, or a command that the user may not call.
    Denied,
    /// `READONLY`: a replica, perhaps a primary that was replaced.
    ReadOnly,
    /// `LOADING`: reads its data from disk.
    Loading,
    /// `MASTERDOWN`: a replica without its primary.
    MasterDown,
    /// `OOM`: `maxmemory` is reached.
    OutOfMemory,
    /// `NOSCRIPT` right after the script was loaded.
    NoScript,
    /// `BUSY`: another client's script runs for too long.
    Busy,
    /// `MISCONF`: the store refuses writes because it cannot save them.
    Misconfigured,
    /// `CLUSTERDOWN` or `TRYAGAIN`: a part of the cluster has no primary.
    ClusterDown,
    /// Any other error, or an answer that is not one of the script's.
    Unexpected,
    /// More commands at once than are sent.
    TooMany,
    /// Terms that the store cannot count by exactly.
    Inexact,
}

impl Trouble {
    pub const ALL: [Trouble; 16] = [
        Trouble::Connecting,
        Trouble::Unreached,
        Trouble::Timeout,
        Trouble::Closed,
        Trouble::Denied,
        Trouble::ReadOnly,
        Trouble::Loading,
        Trouble::MasterDown,
        Trouble::OutOfMemory,
        Trouble::NoScript,
        Trouble::Busy,
        Trouble::Misconfigured,
        Trouble::ClusterDown,
        Trouble::Unexpected,
        Trouble::TooMany,
        Trouble::Inexact,
    ];

    /// Word for logs, metrics and the admin API.
    pub const fn word(self) -> &'static str {
        match self {
            Trouble::Connecting => "connecting",
            Trouble::Unreached => "unreached",
            Trouble::Timeout => "timeout",
            Trouble::Closed => "closed",
            Trouble::Denied => "denied",
            Trouble::ReadOnly => "read_only",
            Trouble::Loading => "loading",
            Trouble::MasterDown => "master_down",
            Trouble::OutOfMemory => "out_of_memory",
            Trouble::NoScript => "no_script",
            Trouble::Busy => "busy",
            Trouble::Misconfigured => "misconfigured",
            Trouble::ClusterDown => "cluster_down",
            Trouble::Unexpected => "unexpected",
            Trouble::TooMany => "too_many",
            Trouble::Inexact => "inexact",
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
