//! Tells the store that this replica is there, and lists all replicas.

use std::time::Duration;

use redis::{Cmd, Value};

use super::scripts::Script;
use super::spread::{SpreadKeys, text};

/// Time after its last word for which a replica is remembered.
const KEEP: Duration = Duration::from_secs(15);
/// Longest text of a replica, in bytes.
pub(super) const LONGEST: usize = 1_024;

/// A replica that uses the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Random name of the process.
    pub name: u64,
    /// Time since its last word.
    pub silent_for: Duration,
    /// What it tells of itself.
    pub text: Box<str>,
}

/// Returns the call that tells of this replica; an empty text says that it leaves.
pub(super) fn tell(keys: &SpreadKeys, name: u64, text: &str) -> Cmd {
    let mut call = redis::cmd("EVALSHA");
    call.arg(Script::Presence.name()).arg(1).arg(&keys.replicas);
    call.arg(format!("{name:016x}")).arg(text).arg(KEEP.as_micros() as u64);
    call
}

/// Returns the call that lists the replicas.
pub(super) fn list(keys: &SpreadKeys) -> Cmd {
    let mut call = redis::cmd("EVALSHA");
    call.arg(Script::Replicas.name()).arg(1).arg(&keys.replicas);
    call
}

/// Reads the reply to [`list`]. Entries that cannot be read are left out.
pub(super) fn read(listed: &Value) -> Option<Vec<Replica>> {
    let Value::Array(listed) = listed else { return None };
    let [now, Value::Array(all)] = &**listed else {
        return None;
    };
    let now: u64 = text(now)?.parse().ok()?;
    let replica = |pair: &[Value]| {
        let [name, told] = pair else { return None };
        let (seen, text_of_it) = text(told)?.split_once(' ')?;
        let silent_for = Duration::from_micros(now.saturating_sub(seen.parse().ok()?));
        Some(Replica {
            name: u64::from_str_radix(text(name)?, 16).ok()?,
            silent_for,
            text: text_of_it.into(),
        })
    };
    let replicas = all.chunks_exact(2).filter_map(replica);
    Some(replicas.filter(|replica| replica.silent_for <= KEEP).collect())
}
