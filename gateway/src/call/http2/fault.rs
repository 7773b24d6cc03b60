//! Maps an error on a shared connection to the fault of one exchange, and tells whether the request was begun.

use std::io::ErrorKind;

use h2::Reason;

use crate::call::fault::{Fault, Upload};

/// Returns the fault of an exchange that failed before the head of its answer.
pub(super) fn fault_of(error: &h2::Error) -> Fault {
    if let Some(io) = error.get_io() {
        // `InvalidData` describes what was received, all other kinds the connection.
        return match io.kind() {
            ErrorKind::InvalidData => Fault::Invalid,
            _ => Fault::Broken,
        };
    }
    if was_refused(error) || is_left_out(error) {
        Fault::Unreached
    } else if error.is_reset() && !error.is_remote() && !error.is_library() {
        // The gateway reset the stream because the request's body failed.
        Fault::Upload(Upload::Broken)
    } else if error.is_library() {
        // The peer violated the protocol.
        Fault::Invalid
    } else {
        Fault::Broken
    }
}

/// Whether the error is a GOAWAY of the peer, which says that the request was not begun: it only ends streams above the
/// last one that it names (RFC 9113 section 6.8).
pub(super) fn is_left_out(error: &h2::Error) -> bool {
    error.is_go_away() && error.is_remote()
}

/// Whether the peer refused the stream: it was not processed and may be sent again (RFC 9113 section 8.7).
fn was_refused(error: &h2::Error) -> bool {
    error.is_reset() && error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM)
}
