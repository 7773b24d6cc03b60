//! Raises the limit of open files: each connection is a file, and so is the backend connection of its request.
//!
//! Systems start a process with far fewer files than it may have. When they run out, no connection is accepted and no
//! backend is reached. Then many idle callers would fail all others, whatever `connection_limits` says.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit to the most that the process may have. Logs a warning if that is too few for `connections` callers.
pub fn make_room(connections: usize) {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, all) {
        tracing::warn!(%error, "the number of files that may be open cannot be raised");
    }
    let needs = 2 * connections as u64;
    if let Some(files) = getrlimit(Resource::Nofile).current.filter(|&files| files < needs) {
        tracing::warn!(
            files,
            needs,
            connections,
            "fewer files may be open than connection_limits.total can need: raise the limit (LimitNOFILE, ulimit -n) or \
             lower the total"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_takes_what_it_may_have() {
        let before = getrlimit(Resource::Nofile);
        let fewer = Rlimit {
            // Other tests run at the same time and need files.
            current: before.maximum.map_or(Some(4096), |most| Some(most / 2)),
            ..before
        };
        setrlimit(Resource::Nofile, fewer).expect("it may be lowered");
        make_room(1);
        assert_eq!(getrlimit(Resource::Nofile).current, before.maximum);
    }
}
