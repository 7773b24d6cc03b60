//! What an error on a shared connection says of one exchange: above all, whether it was begun.

use std::error::Error as _;
use std::io::{self, ErrorKind};

use h2::Reason;

use crate::call::classify::Fault;
use crate::call::replay::Upload;

/// Before the head of an answer.
pub(super) fn fault_of(error: &hyper::Error) -> Fault {
    let Some(cause) = cause::<h2::Error>(error) else {
        let is_invalid = cause::<io::Error>(error).is_some_and(|error| error.kind() == ErrorKind::InvalidData);
        // Of what came, and not of how it came.
        return if is_invalid { Fault::Invalid } else { Fault::Broken };
    };
    if was_refused(cause) || was_left_out(cause) {
        Fault::Unreached
    } else if cause.is_reset() && !cause.is_remote() && !cause.is_library() {
        // By us, since the body of the request has come to a bad end.
        Fault::Upload(Upload::Broken)
    } else if cause.is_library() {
        // What came was against the protocol.
        Fault::Invalid
    } else {
        Fault::Broken
    }
}

/// Whether a GOAWAY says that the exchange was not begun (RFC 9113 section 6.8).
pub(super) fn is_left_out(error: &hyper::Error) -> bool {
    cause(error).is_some_and(was_left_out)
}

/// Only streams above the last one that the GOAWAY names end with it.
fn was_left_out(cause: &h2::Error) -> bool {
    cause.is_go_away() && cause.is_remote()
}

/// RFC 9113 section 8.7: not processed, and safe to be sent again.
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
