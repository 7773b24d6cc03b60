//! HTTP/1.1 to an endpoint: connections that carry one exchange at a time.
//!
//! The task of the call writes the request, and reads the answer, with the reader of [`crate::wire::http1`]. Only if an
//! answer begins before its request has ended, a task of its own carries both on.
//!
//! Invariants: an answer that has arrived is the answer, although the rest of its request could not be sent (RFC 9112
//! section 9.5). A connection carries another exchange only if this one is complete in both directions and nothing else
//! has come.

mod early_answer;
mod exchange;
mod head;
mod message_stream;

pub(super) use self::early_answer::EarlyAnswer;
pub(super) use self::exchange::exchange;
pub(super) use self::head::AttemptHead;
pub(super) use self::message_stream::ExchangeError;
pub(super) use self::message_stream::MessageStream;
use crate::call::transport::Transport;
use crate::wire::switched_stream::SwitchedStream;

/// Connection to an endpoint after a switch to another protocol.
pub type BackendStream = SwitchedStream<Transport>;
