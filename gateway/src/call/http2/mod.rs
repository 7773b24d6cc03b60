//! HTTP/2 to an endpoint: connections that carry many exchanges at once.
//!
//! Inside the gateway a request has the form of HTTP/1.1. This folder converts it to HTTP/2, and converts the answer
//! back. The gateway counts the exchanges on a connection, because the library queues without bound what exceeds the
//! peer's limit.
//!
//! Invariant: only a backend that floods the gateway with unrequested frames loses its connection. Any other fault ends
//! a single exchange. An abandoned exchange resets its own stream, and the other exchanges on the connection continue.

mod answer_stream;
mod convert;
mod dial;
mod driver;
mod exchange;
mod fault;
mod keep_alive;
mod link;
mod metered;
mod pool;
#[cfg(test)]
mod tests;
mod upload;

pub(super) use self::answer_stream::{AnswerStream, StreamFault};

pub(super) use self::convert::RequestTarget;
pub(super) use self::exchange::{StreamCheckout, Terms};
pub(super) use self::link::Unanswered;
pub(super) use self::pool::Shared;
