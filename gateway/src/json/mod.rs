//! Reads JSON from outside: request bodies, backends' answers, tokens, key sets, bodies of the admin API.
//!
//! A text is checked once, byte by byte and without recursion ([`Document::check`]), and stays a text. Values are
//! located in it when they are needed ([`Value`], [`Selection`]) and written exactly as received. Numbers therefore
//! keep their digits, and a document costs little more memory than its bytes. A [`Workspace`] limits the memory and the
//! threads that all documents of the process may use.
//!
//! Invariant: accepted JSON is valid by RFC 8259 and has one meaning for all readers: no object has a duplicate name,
//! nothing is nested more deeply than [`MAX_DEPTH`], and no name has a special meaning to the reader.

#[cfg(test)]
mod compare;
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

/// Longest text that is read on a worker, in bytes. A longer text is read on a separate thread.
pub const LONG: usize = 64 << 10;
