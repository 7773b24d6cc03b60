//! What an exchange holds of a connection: the whole of it, or a place on one that is shared.

use policies::Moment;

use super::http2;
use super::pool::{self, PoolSettings};
use super::timer::Timer;

/// Given back once, at the end of a whole exchange; dropped before that, the exchange is broken off.
pub(crate) enum Lease {
    Own(pool::Lease),
    Shared(http2::Lease),
}

impl Lease {
    /// For what is waited for in this exchange.
    pub(crate) fn timer(&mut self) -> &mut Timer {
        match self {
            Self::Own(lease) => &mut lease.connection().timer,
            Self::Shared(lease) => &mut lease.timer,
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
