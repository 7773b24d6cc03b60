//! Reads and writes HTTP/1.1 messages (RFC 9112), for both sides of a connection.
//!
//! Request smuggling uses messages that two readers frame differently. So there is one reading of every message, and it
//! is strict: RFC 9112 without any MAY or SHOULD that allows lenience. What decides where a message ends is decided
//! here alone.
//!
//! Bytes and events come in, and events and bytes go out. Knows nothing of sockets, clocks or tasks, and nothing of
//! routes or hosts.
//!
//! Invariants: a head is an event only if it is complete and valid. After a refusal no byte is read as a message. Events
//! depend on the bytes, never on how the network cuts them.

mod body;
mod encode;
mod field;
mod fields;
mod head;
mod kind;
mod octets;
mod reader;

#[cfg(test)]
pub(crate) mod tests;

use std::fmt;

pub use self::body::BodyLength;
pub use self::encode::{BodyEncoder, ChunkFrame, Overrun, Short, write_answer_head, write_request_head};
pub(crate) use self::encode::{begin_answer_head, begin_request_head, end_head, write_field};
pub use self::fields::{Field, Fields};
pub use self::head::{Asked, Head, StartLine};
pub use self::kind::FieldKind;
pub use self::reader::{Cut, Event, Reader};

/// Bounds of a message.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Maximum length of the request target in bytes.
    pub target: usize,
    /// Maximum number of bytes from the first line to the empty line.
    pub head: usize,
    /// Maximum number of field lines.
    pub fields: usize,
    /// Maximum number of bytes of all chunk extensions of a body. Nobody uses them, so many of them are an attack.
    pub extensions: u32,
    /// Maximum number of bytes of a trailer section.
    pub trailers: usize,
    /// Maximum number of field lines in a trailer section.
    pub trailer_lines: u32,
    /// Maximum number of interim answers (1xx) to one request. No client needs many, and each costs as much as an
    /// answer.
    pub interim: u32,
}

impl Limits {
    /// Returns limits for heads of at most `head` bytes and `fields` field lines, and targets of at most `target` bytes.
    /// The other limits, which no well-meant message comes near, are fixed.
    pub const fn of_heads(target: usize, head: usize, fields: usize) -> Self {
        Self {
            target,
            head,
            fields,
            extensions: 8 * 1024,
            trailers: 4 * 1024,
            trailer_lines: 64,
            interim: 100,
        }
    }

    /// Returns the limits for answers with at most `fields` field lines.
    pub const fn of_answers(fields: usize) -> Self {
        Self::of_heads(0, 256 * 1024, fields)
    }
}

/// Reason why bytes are not a message.
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
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.why())
    }
}

impl std::error::Error for Refusal {}

type Result<T> = std::result::Result<T, Refusal>;

const fn malformed<T>(why: &'static str) -> Result<T> {
    Err(Refusal::Malformed(why))
}
