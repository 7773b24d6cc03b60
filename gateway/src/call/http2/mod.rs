//! HTTP/2 toward an endpoint: connections that many exchanges share.
//!
//! Within the gateway a request has the form of HTTP/1.1; here it is put into that of HTTP/2, and the answer back. We
//! count what a connection carries, since hyper queues whatever is more than its peer allows, without bound.
//!
//! Invariant: a backend that sends frames without end, and nothing that was asked for, loses its connection; all else
//! ends one exchange alone. One that is given up resets its stream, and its neighbours go on.

mod convert;
mod dial;
mod driver;
mod exchange;
mod fault;
mod link;
mod metered;
mod pool;
mod request_body;
#[cfg(test)]
mod tests;

pub(super) use self::convert::RequestTarget;
pub(super) use self::exchange::{StreamCheckout, Terms};
pub(super) use self::link::Unanswered;
pub(super) use self::pool::Shared;
