//! Maps an error on a shared connection to the fault of one exchange, and tells whether the request was begun.

use std::error::Error as _;
use std::io::{self, ErrorKind};

use h2::Reason;

use crate::call::fault::{Fault, Upload};

/// Returns the fault of an exchange that failed before the head of its answer.
pub(super) fn fault_of(error: &hyper::Error) -> Fault {
    let Some(cause) = cause::<h2::Error>(error) else {
        let is_invalid = cause::<io::Error>(error).is_some_and(|error| error.kind() == ErrorKind::InvalidData);
        // `InvalidData` describes what was received, all other kinds the connection.
        return if is_invalid { Fault::Invalid } else { Fault::Broken };
    };
    if was_refused(cause) || was_left_out(cause) {
        Fault::Unreached
    } else if cause.is_reset() && !cause.is_remote() && !cause.is_library() {
        // The gateway reset the stream because the request's body failed.
        Fault::Upload(Upload::Broken)
    } else if cause.is_library() {
        // The peer violated the protocol.
        Fault::Invalid
    } else {
        Fault::Broken
    }
}

/// Whether a GOAWAY says that the request was not begun (RFC 9113 section 6.8).
pub(super) fn is_left_out(error: &hyper::Error) -> bool {
    cause(error).is_some_and(was_left_out)
}

/// Whether the error is a GOAWAY of the peer. It only ends streams above the last one that it names.
fn was_left_out(cause: &h2::Error) -> bool {
    cause.is_go_away() && cause.is_remote()
}

/// Whether the peer refused the stream: it was not processed and may be sent again (RFC 9113 section 8.7).
fn was_refused(cause: &h2::Error) -> bool {
    cause.is_reset() && cause.is_remote() && cause.reason() == Some(Reason::REFUSED_STREAM)
}

fn cause<E: std::error::Error + 'static>(error: &hyper::Error) -> Option<&E> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref() {
            return Some(error);
        }
        cause = error.source();
    }
    None
}
