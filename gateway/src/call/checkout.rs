//! What an exchange holds of a connection: the whole of it, or a place on one that is shared.

use http_body::Body as _;
use hyper::body::Incoming;
use policies::Moment;

use super::http2;
use super::pool::{self, PoolSettings};
use super::timer::Timer;

/// Given back once, at the end of a whole exchange; dropped before that, the exchange is broken off.
pub(crate) enum Checkout {
    Own(pool::PooledConnection),
    Shared(http2::StreamCheckout),
}

impl Checkout {
    /// For what is waited for in this exchange.
    pub(crate) fn timer(&mut self) -> &mut Timer {
        match self {
            Self::Own(lease) => &mut lease.connection().timer,
            Self::Shared(lease) => &mut lease.timer,
        }
    }

    /// Whether an answer that ends as `incoming` has ended is less than the backend had to say.
    ///
    /// On HTTP/2 an answer is whole at END_STREAM and nowhere else (RFC 9113 section 8.1). hyper takes RST_STREAM with
    /// `NO_ERROR` for an end as well, by which a backend that has answered early tells us to stop sending.
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

    /// For an answer that nobody reads, if all of it has come.
    pub(crate) fn discard(self, settings: &PoolSettings, now: Moment) {
        match self {
            Self::Own(lease) => lease.give_back(settings, now),
            // Its request may still be on its way, and is broken off: another attempt needs the same body.
            Self::Shared(lease) => drop(lease),
        }
    }
}
