//! The moment by which something has to be over, for a sweep that ends what has not ended itself.
//!
//! Whoever carries out the work watches the moment as well, and can say properly that it has come. The sweep is for
//! work that is not polled any more, such as an answer whose caller takes no byte, so it waits a tick longer.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use policies::Moment;

use crate::wire::min_rate::TICK;

/// Unset at first, which is never.
#[derive(Debug, Default)]
pub struct Expiry(AtomicU64);

impl Expiry {
    pub fn set(&self, moment: Option<Moment>) {
        // The process has not begun at moment zero, so that can stand for never.
        self.0.store(moment.map_or(0, Moment::nanos), Relaxed);
    }

    /// Whether the moment lies more than a tick back.
    pub fn has_passed(&self, now: Moment) -> bool {
        match self.0.load(Relaxed) {
            0 => false,
            nanos => now >= Moment::from_nanos(nanos) + TICK,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_passes_a_tick_after_its_moment() {
        let at = |millis: u64| Moment::from_nanos(millis * 1_000_000);
        let expiry = Expiry::default();
        let check = |now: Moment, passed| assert_eq!(expiry.has_passed(now), passed, "{now:?}");
        check(Moment::MAX, false);
        expiry.set(Some(at(1000)));
        check(at(0), false);
        check(at(1249), false);
        check(at(1250), true);
        expiry.set(Some(Moment::MAX));
        check(at(1_000_000), false);
        expiry.set(None);
        check(Moment::MAX, false);
    }
}
