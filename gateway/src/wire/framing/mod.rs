//! Checks HTTP/1.1 framing strictly, before hyper reads the same bytes.
//!
//! Request smuggling uses messages that two readers frame differently. hyper accepts some of those in a defined way.
//! This check refuses them all: RFC 9112 without any MAY or SHOULD that allows lenience. Well-formed bytes pass
//! unchanged and without a copy, so that hyper remains the parser.
//!
//! Invariant: a head passes only if it is complete and valid. Of a body, everything before the first invalid byte
//! passes. The verdict depends on the bytes, never on how the network cuts them.
//!
//! Knows nothing of sockets that must be answered, of routes or of hosts; [`crate::routing`] reads those.

mod body;
mod field;
mod head;
mod octets;
mod screen;

#[cfg(test)]
mod tests;

use std::fmt;

pub use self::screen::{Awaited, Read, Screen};

/// Limits of a request's head, in bytes except `fields`.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Maximum length of the request target.
    pub target: usize,
    /// Maximum length from the request line to the empty line.
    pub head: usize,
    /// Maximum number of field lines.
    pub fields: usize,
}

/// Reason why bytes do not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Outside the grammar, or open to two readings. The text says what the sender should correct.
    Malformed(&'static str),
    TargetTooLong,
    HeadTooLarge,
    TooManyFields,
}

impl Refusal {
    pub const fn why(self) -> &'static str {
        match self {
            Self::Malformed(why) => why,
            Self::TargetTooLong => "the request target is longer than its limit",
            Self::HeadTooLarge => "the head has more bytes than its limit",
            Self::TooManyFields => "the head has more fields than may be",
        }
    }

    /// Finds the refusal among the causes of an error.
    pub fn behind(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(refusal) = error.downcast_ref::<Self>() {
                return Some(*refusal);
            }
            // An I/O error's `source` skips the error it holds and names that error's cause.
            let held = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
            cause = match held {
                Some(held) => Some(held as &(dyn std::error::Error + 'static)),
                None => error.source(),
            };
        }
        None
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.why())
    }
}

impl std::error::Error for Refusal {}

impl From<Refusal> for std::io::Error {
    fn from(refusal: Refusal) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, refusal)
    }
}

type Result<T> = std::result::Result<T, Refusal>;

const fn malformed<T>(why: &'static str) -> Result<T> {
    Err(Refusal::Malformed(why))
}
