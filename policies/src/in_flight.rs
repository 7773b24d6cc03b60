//! Counts the requests of one owner that are under way, and decides whether one more may start.
//!
//! Invariant: [`enter`](InFlight::enter) never raises the count above the cap that it is given, and each request that
//! entered, by either function, leaves once. Unlike a bulkhead it has no queue: it guards a tenant's fair use of the
//! gateway and not a backend, so a request over the cap is refused at once.

use crate::sync::{AtomicU32, Ordering::Relaxed};

#[derive(Debug, Default)]
pub struct InFlight {
    count: AtomicU32,
}

impl InFlight {
    pub fn new() -> InFlight {
        InFlight::default()
    }

    /// Enters if fewer than `cap` requests are under way, and returns the number under way, this one included. The
    /// error holds the number under way; it changes nothing.
    pub fn enter(&self, cap: u32) -> Result<u32, u32> {
        let mut count = self.count.load(Relaxed);
        while count < cap {
            match self.count.compare_exchange_weak(count, count + 1, Relaxed, Relaxed) {
                Ok(_) => return Ok(count + 1),
                Err(seen) => count = seen,
            }
        }
        Err(count)
    }

    /// Enters regardless of any cap, for a limit that is observed but not enforced yet. Returns the number under way,
    /// this one included.
    pub fn enter_anyway(&self) -> u32 {
        self.count.fetch_add(1, Relaxed) + 1
    }

    /// Leaves; to be called once for each request that entered.
    pub fn leave(&self) {
        let before = self.count.fetch_sub(1, Relaxed);
        debug_assert!(before > 0, "who leaves has come in");
    }

    pub fn count(&self) -> u32 {
        self.count.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn as_many_as_the_cap() {
        let in_flight = InFlight::new();
        assert_eq!(in_flight.enter(0), Err(0));
        assert_eq!(in_flight.enter(2), Ok(1));
        assert_eq!(in_flight.enter(2), Ok(2));
        assert_eq!(in_flight.enter(2), Err(2));
        in_flight.leave();
        assert_eq!(in_flight.enter(2), Ok(2));
        assert_eq!(in_flight.count(), 2);
    }

    #[test]
    fn one_too_many_counts_like_the_others() {
        let in_flight = InFlight::new();
        assert_eq!(in_flight.enter(1), Ok(1));
        assert_eq!(in_flight.enter_anyway(), 2);
        assert_eq!(in_flight.enter(2), Err(2));
        in_flight.leave();
        assert_eq!(in_flight.enter(1), Err(1));
        in_flight.leave();
        assert_eq!(in_flight.enter(1), Ok(1));
    }

    proptest! {
        #![proptest_config(cases::counted())]

        /// Compares with a plain number; the cap changes from step to step.
        #[test]
        fn counts_who_is_inside(steps in prop::collection::vec((0..4u8, 0..5u32), 1..300)) {
            let in_flight = InFlight::new();
            let mut inside = 0;
            for (step, cap) in steps {
                match step {
                    0 | 1 => {
                        let entered = in_flight.enter(cap);
                        prop_assert_eq!(entered, if inside < cap { Ok(inside + 1) } else { Err(inside) });
                        inside += u32::from(entered.is_ok());
                    }
                    2 => {
                        inside += 1;
                        prop_assert_eq!(in_flight.enter_anyway(), inside);
                    }
                    _ if inside > 0 => {
                        in_flight.leave();
                        inside -= 1;
                    }
                    _ => {}
                }
                prop_assert_eq!(in_flight.count(), inside);
            }
        }
    }
}
