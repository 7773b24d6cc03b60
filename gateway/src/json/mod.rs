//! JSON that others write: request bodies, backends' answers, tokens, key sets, bodies of the admin API.
//!
//! A text is checked once, byte by byte and without recursion ([`Document::check`]), and stays a text: values are found
//! in it where they are needed ([`Value`], [`Selection`]) and written as they came, so that numbers keep their digits
//! and a document costs little more than its bytes. What all documents of the process may take, in memory and in time,
//! is bounded by a [`Workspace`].
//!
//! Invariant: what is accepted is valid by RFC 8259 and reads the same to everyone: no object has a name twice, nothing
//! is nested more deeply than [`MAX_DEPTH`], and no name means anything to the reader.

mod document;
mod gather;
mod names;
mod reader;
mod refusal;
mod select;
#[cfg(test)]
mod strict;
mod strings;
#[cfg(test)]
mod tests;
mod threads;
mod value;
mod workspace;

pub use document::{Document, add_member, is_number, range, refused_at, typed, without_mark, write_string};
pub use gather::{GatherError, Gathered, gather};
pub use reader::MAX_DEPTH;
pub use refusal::Refusal;
pub use select::{Paths, Selection};
pub use value::{Cursor, Kind, Name, Value};
pub use workspace::{Reservation, Workspace, WorkspaceError};

/// The longest text that is read on a worker, in bytes. A longer one is read on a thread that serves nobody.
pub const LONG: usize = 64 << 10;
