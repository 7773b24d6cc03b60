//! Room for connections: each is a file to the system, and so is the one to a backend that its request goes on with.
//!
//! Systems begin a process with far fewer files than it may have. Where they run out nobody is accepted and no backend
//! is reached, so a crowd of idle callers would fail everybody else, whatever `connection_limits` says.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Takes all that the process may have, and says in the log if that is too little for so many connections of callers.
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
            // Enough for whatever else is tested at the same time.
            current: before.maximum.map_or(Some(4096), |most| Some(most / 2)),
            ..before
        };
        setrlimit(Resource::Nofile, fewer).expect("it may be lowered");
        make_room(1);
        assert_eq!(getrlimit(Resource::Nofile).current, before.maximum);
    }
}
