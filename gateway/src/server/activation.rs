//! Takes over the listening sockets that a service manager has opened, as `sd_listen_fds(3)` describes.
//!
//! The variables `LISTEN_PID`, `LISTEN_FDS` and `LISTEN_FDNAMES` say which descriptors these are. They apply only to the
//! process that `LISTEN_PID` names.

use std::env;
use std::io;

use listenfd::ListenFd;

use super::sockets::Inherited;

/// Name that `sd_listen_fds_with_names(3)` gives to a descriptor without a name.
const UNKNOWN: &str = "unknown";

/// Returns the sockets that were passed to this process; none if there are none. To be called once.
///
/// # Errors
/// Fails if a descriptor is no listening TCP socket.
pub fn take() -> io::Result<Vec<Inherited>> {
    let is_ours = env::var("LISTEN_PID").is_ok_and(|pid| pid.parse() == Ok(std::process::id()));
    if !is_ours {
        return Ok(Vec::new());
    }
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut passed = ListenFd::from_env();
    let mut sockets = Vec::new();
    for number in 0..passed.len() {
        // The unit's own name stands in for a missing one, and names no listener.
        let name = names.next().filter(|name| !name.is_empty());
        let name = name.filter(|name| *name != UNKNOWN && !name.ends_with(".socket"));
        let failed = |error: io::Error| {
            let descriptor = number + 3;
            io::Error::new(
                error.kind(),
                format!("descriptor {descriptor} cannot be listened on: {error}"),
            )
        };
        if let Some(socket) = passed.take_tcp_listener(number).map_err(failed)? {
            socket.set_nonblocking(true).map_err(failed)?;
            sockets.push(Inherited {
                name: name.map(str::to_owned),
                address: socket.local_addr().map_err(failed)?,
                socket,
            });
        }
    }
    Ok(sockets)
}
