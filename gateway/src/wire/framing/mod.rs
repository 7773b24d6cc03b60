//! Checks the framing of HTTP/1.1 requests strictly, before hyper reads the same bytes.
//!
//! Request smuggling uses messages that two readers frame differently. hyper accepts some of those in a defined way.
//! This check refuses them all, with the reader of [`crate::wire::http1`]. Well-formed bytes pass unchanged and without a
//! copy, so that hyper remains the parser.
//!
//! Invariant: a head passes only if it is complete and valid. Of a body, everything before the first invalid byte
//! passes. The verdict depends on the bytes, never on how the network cuts them.
//!
//! Knows nothing of sockets that must be answered, of routes or of hosts; [`crate::routing`] reads those.

mod screen;

#[cfg(test)]
mod tests;

pub use self::screen::{Read, Screen};
