//! Where an HTTP/1.1 message ends: a strict reading, taken before hyper's, of the same bytes.
//!
//! A message that two readers could frame differently is how requests are smuggled past one of them. hyper reads some
//! of those in a defined way; here they have no reading at all (RFC 9112, with every MAY and SHOULD to be lenient left
//! out). What is well formed passes untouched and uncopied, so that hyper stays the one who parses.
//!
//! Invariant: a head passes whole and good, or nothing of it does; of a body, what precedes the first bad byte passes.
//! The verdict depends on the bytes and never on how the network cuts them.
//!
//! It knows nothing of sockets that must be answered, of routes or of hosts; [`crate::routing`] reads those.

mod body;
mod field;
mod head;
mod octets;
mod screen;

#[cfg(test)]
mod tests;

use std::fmt;

pub use self::screen::{Awaited, Read, Screen};

/// What bounds a request's head; all in bytes but `fields`.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The request target.
    pub target: usize,
    /// From the request line to the empty line.
    pub head: usize,
    /// Field lines.
    pub fields: usize,
}

/// Why bytes do not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Outside the grammar or open to two readings; says what to mend.
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

    /// The refusal that an error of hyper's was caused by, if one was.
    pub fn behind(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(refusal) = error.downcast_ref::<Self>() {
                return Some(*refusal);
            }
            // An I/O error names the cause of what it holds, and not what it holds.
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
