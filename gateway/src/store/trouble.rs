//! Kinds of trouble with the store.

use std::fmt;

use redis::{ErrorKind, RedisError, ServerError};

use crate::observe::labels::StoreOutcome;

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
        self.outcome().as_str()
    }

    pub(super) const fn outcome(self) -> StoreOutcome {
        match self {
            Trouble::Connecting => StoreOutcome::Connecting,
            Trouble::Unreached => StoreOutcome::Unreached,
            Trouble::Timeout => StoreOutcome::Timeout,
            Trouble::Closed => StoreOutcome::Closed,
            Trouble::Denied => StoreOutcome::Denied,
            Trouble::ReadOnly => StoreOutcome::ReadOnly,
            Trouble::Loading => StoreOutcome::Loading,
            Trouble::MasterDown => StoreOutcome::MasterDown,
            Trouble::OutOfMemory => StoreOutcome::OutOfMemory,
            Trouble::NoScript => StoreOutcome::NoScript,
            Trouble::Busy => StoreOutcome::Busy,
            Trouble::Misconfigured => StoreOutcome::Misconfigured,
            Trouble::ClusterDown => StoreOutcome::ClusterDown,
            Trouble::Unexpected => StoreOutcome::Unexpected,
            Trouble::TooMany => StoreOutcome::TooMany,
            Trouble::Inexact => StoreOutcome::Inexact,
        }
    }

    /// Returns the trouble that an error reply of the store tells, by its first word.
    pub(super) fn of_code(code: &str) -> Trouble {
        match code {
            "READONLY" => Trouble::ReadOnly,
            "LOADING" => Trouble::Loading,
            "MASTERDOWN" => Trouble::MasterDown,
            "OOM" => Trouble::OutOfMemory,
            "NOSCRIPT" => Trouble::NoScript,
            "BUSY" => Trouble::Busy,
            "MISCONF" | "NOREPLICAS" => Trouble::Misconfigured,
            "WRONGPASS" | "NOAUTH" | "NOPERM" => Trouble::Denied,
            "CLUSTERDOWN" | "TRYAGAIN" | "MOVED" | "ASK" => Trouble::ClusterDown,
            _ => Trouble::Unexpected,
        }
    }

    /// Whether the connection is of no use any more: another one may lead to another server. The client library keeps
    /// it.
    pub(super) const fn ends_connection(self) -> bool {
        matches!(
            self,
            Trouble::Closed
                | Trouble::Denied
                | Trouble::ReadOnly
                | Trouble::Loading
                | Trouble::MasterDown
                | Trouble::OutOfMemory
                | Trouble::Misconfigured
        )
    }
}

/// Trouble with its detail, for the log and the admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) trouble: Trouble,
    pub(super) detail: Box<str>,
}

impl Failure {
    /// Longest detail, in bytes: it may be text of the store.
    const LONGEST: usize = 200;

    pub(super) fn new(trouble: Trouble, detail: impl fmt::Display) -> Failure {
        let mut detail = detail.to_string();
        if let Some((end, _)) = detail.char_indices().find(|(at, _)| *at >= Failure::LONGEST) {
            detail.truncate(end);
        }
        Failure {
            trouble,
            detail: detail.into(),
        }
    }

    /// Returns the failure of an error reply.
    pub(super) fn of_reply(error: &ServerError) -> Failure {
        let detail = error.details().unwrap_or_default();
        Failure::new(
            Trouble::of_code(error.code()),
            format_args!("{} {detail}", error.code()),
        )
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Failure {
        let trouble = match (error.kind(), error.code()) {
            (ErrorKind::AuthenticationFailed, _) => Trouble::Denied,
            (_, Some(code)) => Trouble::of_code(code),
            _ if error.is_timeout() => Trouble::Timeout,
            (ErrorKind::Io | ErrorKind::Parse, _) => Trouble::Closed,
            (ErrorKind::ClusterConnectionNotFound, _) => Trouble::ClusterDown,
            _ => Trouble::Unexpected,
        };
        Failure::new(trouble, error)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
