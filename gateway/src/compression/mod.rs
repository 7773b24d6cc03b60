//! Compresses answers for callers: decides whether and with which coding, and makes the bytes.
//!
//! Invariant: an answer is either sent exactly as it came, or with all of the header fields that its new form needs. A
//! compressed answer that breaks off has no valid end in any coding.
//!
//! Knows nothing of backends and connections. Bodies of requests are never changed.

mod accepted;
mod coding;
mod encoder;
mod fields;
mod gzip;
mod media_range;
mod memory;
mod pending;
#[cfg(test)]
mod properties;
mod spare;
mod zstd_codec;

pub use self::accepted::AcceptedCodings;
pub use self::coding::{Coding, Levels};
pub use self::encoder::{Encoder, PIECE};
pub use self::media_range::MediaRange;
pub use self::memory::held as memory_held;
pub use self::pending::PendingCompression;

/// Rules by which answers are compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compression {
    /// Codings on offer. The first one wins among those that a caller wants equally.
    pub codings: Vec<Coding>,
    pub levels: Levels,
    /// Media types of answers that are compressed.
    pub types: Vec<MediaRange>,
    /// Length in bytes from which on an answer is compressed. Where the length is unknown, it is compressed.
    pub minimum: u64,
    /// Memory of all compressed answers of the process, in bytes, beyond which an answer is not compressed.
    pub memory: u64,
}
