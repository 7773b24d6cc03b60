//! Holds the connection of an exchange: an HTTP/1.1 connection for itself, or a slot on a shared HTTP/2 connection.

use http_body::Body as _;
use hyper::body::Incoming;
use policies::Moment;

use super::http2;
use super::pool::{self, PoolSettings};
use super::timer::Timer;

/// Connection of an exchange. It is given back once, when the exchange is complete; an earlier drop aborts the
/// exchange.
pub(crate) enum Checkout {
    Own(pool::PooledConnection),
    Shared(http2::StreamCheckout),
}

impl Checkout {
    /// Returns the timer of this exchange.
    pub(crate) fn timer(&mut self) -> &mut Timer {
        match self {
            Self::Own(lease) => &mut lease.connection().timer,
            Self::Shared(lease) => &mut lease.timer,
        }
    }

    /// Whether the answer, whose body `incoming` has ended, is incomplete.
    ///
    /// On HTTP/2 an answer is complete only at END_STREAM (RFC 9113 section 8.1). hyper also takes RST_STREAM with
    /// `NO_ERROR` for an end. A backend that has answered early sends it to make the gateway stop sending.
    pub(crate) fn is_cut_short(&self, incoming: &Incoming) -> bool {
        match self {
            Self::Own(_) => false,
            Self::Shared(_) => !incoming.is_end_stream(),
        }
    }

    pub(crate) fn give_back(self, settings: &PoolSettings, now: Moment) {
        match self {
            Self::Own(lease) => lease.give_back(settings, now),
            Self::Shared(lease) => lease.give_back(),
        }
    }

    /// Gives back the connection of an unused answer that has been received completely.
    pub(crate) fn discard(self, settings: &PoolSettings, now: Moment) {
        match self {
            Self::Own(lease) => lease.give_back(settings, now),
            // Aborts the exchange if its request is still being sent, because another attempt needs the same body.
            Self::Shared(lease) => drop(lease),
        }
    }
}
