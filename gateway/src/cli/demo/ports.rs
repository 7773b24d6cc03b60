//! Finds free ports for the demo, the usual ones if possible.

use std::io::{Error, ErrorKind, Result};
use std::net::{Ipv4Addr, TcpListener};

/// Number of ports that are tried, from the wanted one on.
const TRIED: u16 = 100;

/// Returns `wanted`, or the next port that is free and not `spoken_for`. Returns 0 for 0, which the system replaces by
/// any free port.
///
/// # Errors
/// Fails if all tried ports are in use, or if 127.0.0.1 cannot be bound at all.
pub(super) fn free(wanted: u16, spoken_for: Option<u16>) -> Result<u16> {
    if wanted == 0 {
        return Ok(0);
    }
    for port in wanted..=wanted.saturating_add(TRIED) {
        if Some(port) == spoken_for {
            continue;
        }
        // The probe is closed at once. Nothing has connected to it, so the port can be bound again.
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => return Ok(port),
            // Ports below 1024 may be forbidden, and a later port is not.
            Err(error) if matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::PermissionDenied) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::new(
        ErrorKind::AddrInUse,
        format!("port {wanted} and the {TRIED} after it are taken; choose another"),
    ))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::free;

    #[test]
    fn a_taken_port_and_one_spoken_for_are_passed_over() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = taken.local_addr().expect("bound").port();
        let next = free(port, None).expect("one of many is free");
        assert!(next > port, "{next}");
        let after = free(port, Some(next)).expect("one of many is free");
        assert!(after > next, "{after}");
    }

    #[test]
    fn zero_is_left_to_the_kernel() {
        assert_eq!(free(0, None).expect("nothing is bound"), 0);
    }
}
