//! Limits one kind of work to a share of the processor time, so that a flood of it leaves the rest for other work.
//!
//! The cost of a piece of work is known only when it is done. So a piece may begin while the backlog of unpaid work is
//! small enough. When the piece is done its cost is added, and the share pays for it as time passes.
//!
//! Invariant: over any span of time, work takes at most its share of the span plus the allowed backlog, plus one piece
//! for each thread that ran one. This module does not know what the work is.

use std::time::Duration;

use crate::moment::Moment;
use crate::ratio::Ratio;
use crate::sync::{AtomicU64, Ordering::Relaxed};

/// Share of the time of all threads that may be spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Millionths of one thread's time: never zero, and more than a million if the share is more than one thread.
    millionths: u64,
}

/// Work that was done and is not paid for yet.
#[derive(Debug)]
pub struct TimeShare {
    /// Time at which all of it will have been paid for, in nanoseconds.
    paid_at: AtomicU64,
}

impl Share {
    /// Returns the share of this many threads; `None` if it is zero.
    pub fn new(ratio: Ratio, threads: u32) -> Option<Share> {
        let millionths = u64::from(ratio.millionths()) * u64::from(threads);
        (millionths > 0).then_some(Share { millionths })
    }

    /// Returns the nanoseconds that the share needs to pay for this work.
    fn time_to_pay(self, work: Duration) -> u64 {
        let nanos = work.as_nanos().saturating_mul(1_000_000) / u128::from(self.millionths);
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }
}

impl Default for TimeShare {
    fn default() -> TimeShare {
        TimeShare {
            paid_at: AtomicU64::new(0),
        }
    }
}

impl TimeShare {
    /// Returns whether a piece of work may begin now: it may if earlier work is paid for within `backlog`.
    ///
    /// # Errors
    /// The time until the work may begin, if no other work is done meanwhile.
    pub fn begin(&self, now: Moment, backlog: Duration) -> Result<(), Duration> {
        let due = self.backlog(now);
        if due <= backlog { Ok(()) } else { Err(due - backlog) }
    }

    /// Adds a piece of work that is done.
    pub fn spend(&self, share: Share, now: Moment, work: Duration) {
        let cost = share.time_to_pay(work);
        let add = |paid_at: u64| Some(paid_at.max(now.nanos()).saturating_add(cost));
        // The closure never returns `None`, so this cannot fail.
        let _ = self.paid_at.fetch_update(Relaxed, Relaxed, add);
    }

    /// Returns the time until all work is paid for.
    pub fn backlog(&self, now: Moment) -> Duration {
        Moment::from_nanos(self.paid_at.load(Relaxed)).since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn share(ratio: f64, threads: u32) -> Share {
        Share::new(Ratio::new(ratio).unwrap(), threads).unwrap()
    }

    #[test]
    fn work_is_paid_for_by_the_time_that_passes() {
        let done = TimeShare::default();
        let quarter = share(0.25, 1);
        assert_eq!(done.begin(at(1000), ms(0)), Ok(()));
        done.spend(quarter, at(1000), ms(100));
        let check = |now, backlog, expected| assert_eq!(done.begin(at(now), ms(backlog)), expected, "{now} {backlog}");
        check(1000, 400, Ok(()));
        check(1000, 399, Err(ms(1)));
        check(1000, 0, Err(ms(400)));
        check(1300, 0, Err(ms(100)));
        check(1400, 0, Ok(()));
        // A clock that runs backwards makes the wait longer, and nothing else.
        check(900, 400, Err(ms(100)));
        // Time without work cannot be saved for later: two pieces at once cost their full price.
        done.spend(quarter, at(9000), ms(100));
        done.spend(quarter, at(9000), ms(100));
        check(9000, 0, Err(ms(800)));
        done.spend(quarter, at(8000), ms(25));
        check(9000, 0, Err(ms(900)));
    }

    #[test]
    fn the_time_of_all_threads_is_shared() {
        let check = |ratio, threads, expected| {
            let done = TimeShare::default();
            done.spend(share(ratio, threads), at(0), ms(100));
            assert_eq!(done.backlog(at(0)), ms(expected), "{ratio} of {threads}");
        };
        check(0.25, 2, 200);
        check(0.25, 8, 50);
        check(1.0, 1, 100);
        assert_eq!(Share::new(Ratio::ZERO, 4), None);
        assert_eq!(Share::new(Ratio::ONE, 0), None);
        let endless = TimeShare::default();
        endless.spend(share(0.000_001, 1), at(1), Duration::MAX);
        assert!(endless.begin(at(1), ms(1000)).is_err());
    }

    proptest! {
        #![proptest_config(cases::counted())]

        /// Pieces arrive at random. Those that may begin take no more than the share of the span, the backlog and the
        /// last piece.
        #[test]
        fn no_flood_takes_more_than_its_share(
            arrivals in prop::collection::vec((0..200_u64, 1..50_u64), 1..200),
            percent in 1..=100_u32,
            threads in 1..8_u32,
            backlog in 0..1000_u64,
        ) {
            let ratio = Ratio::from_millionths(percent * 10_000).unwrap();
            let (done, share) = (TimeShare::default(), Share::new(ratio, threads).unwrap());
            let (mut now, mut spent, mut longest) = (0, 0, 0);
            for (pause, work) in arrivals {
                now += pause;
                match done.begin(at(now), ms(backlog)) {
                    Ok(()) => {
                        done.spend(share, at(now), ms(work));
                        spent += work;
                        longest = longest.max(work);
                    }
                    Err(wait) => prop_assert_eq!(done.begin(at(now) + wait, ms(backlog)), Ok(())),
                }
            }
            let allowed = (now + backlog) * u64::from(percent) * u64::from(threads) / 100 + longest + 1;
            prop_assert!(spent <= allowed, "{spent} of {allowed}");
        }
    }
}
