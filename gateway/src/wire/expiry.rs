//! A time by which some work must end, for a sweep that ends work which has not ended itself.
//!
//! The work also watches this time, and can report properly that it is over. The sweep is for work that is no longer
//! polled, such as an answer whose caller reads nothing. It therefore waits one tick longer.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use policies::Moment;

use crate::wire::min_rate::TICK;

/// Time of expiry. Unset means never.
#[derive(Debug, Default)]
pub struct Expiry(AtomicU64);

impl Expiry {
    pub fn set(&self, moment: Option<Moment>) {
        // Moment zero lies before the start of the process, so 0 can stand for never.
        self.0.store(moment.map_or(0, Moment::nanos), Relaxed);
    }

    /// Whether the time passed at least one tick ago.
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
