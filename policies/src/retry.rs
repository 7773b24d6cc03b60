//! Decides whether and when to try again: a retry must fit in the deadline and be paid for.
//!
//! Retries multiply the load on a backend when it can bear the least. Hence there are two separate decisions:
//! [`Retry::again`] decides whether this call may be tried again, [`RetryBudget`] whether all calls together may. This
//! module does not know which methods and faults may be repeated at all.

use crate::backoff::Backoff;
use crate::deadline::Deadline;
use crate::moment::Moment;
use std::time::Duration;

mod budget;
pub use budget::{RetryBudget, RetryBudgetSettings};

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retry {
    /// Most attempts, the first included; 1 means no retry.
    pub attempts: u32,
    pub backoff: Backoff,
}

/// Reason why there is no further attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// All attempts were made.
    Exhausted,
    /// After the wait, less than the minimum would be left of the deadline.
    OutOfTime,
    /// The backend asked for a longer wait than the deadline allows.
    RetryAfterTooLong,
}

impl Retry {
    /// Returns the wait before the next attempt, or why there is none.
    ///
    /// `attempts_made` counts the attempts started so far, from 1. `minimum` is the time of the `deadline` that the
    /// next attempt needs. `retry_after` is the wait that the backend asked for; if it fits in the deadline, the longer
    /// of it and the backoff's wait is returned. `random` is in `0.0..1.0`.
    pub fn again(
        &self,
        attempts_made: u32,
        deadline: Deadline,
        now: Moment,
        minimum: Duration,
        retry_after: Option<Duration>,
        random: f64,
    ) -> Result<Duration, Stop> {
        if attempts_made >= self.attempts {
            return Err(Stop::Exhausted);
        }
        let delay = self.backoff.delay(attempts_made, random);
        if !deadline.allows(now, delay, minimum) {
            return Err(Stop::OutOfTime);
        }
        match retry_after {
            Some(asked) if !deadline.allows(now, asked, minimum) => Err(Stop::RetryAfterTooLong),
            Some(asked) => Ok(delay.max(asked)),
            None => Ok(delay),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backoff::Jitter;
    use proptest::prelude::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn at(milliseconds: u64) -> Moment {
        Moment::ZERO + ms(milliseconds)
    }

    fn retry(attempts: u32) -> Retry {
        let backoff = Backoff {
            initial: ms(100),
            max: ms(1_000),
            factor: 2.0,
            jitter: Jitter::Proportional(0.0),
        };
        Retry { attempts, backoff }
    }

    #[test]
    fn waits_or_says_why_not() {
        // The deadline is at 500 ms, and an attempt needs 5 ms.
        let check = |attempts_made, now, retry_after: Option<u64>, expected: Result<u64, Stop>| {
            let answer = retry(3).again(
                attempts_made,
                Deadline::at(at(500)),
                at(now),
                ms(5),
                retry_after.map(ms),
                0.5,
            );
            assert_eq!(
                answer,
                expected.map(ms),
                "{attempts_made} made, at {now}, {retry_after:?}"
            );
        };
        check(1, 0, None, Ok(100));
        check(2, 0, None, Ok(200));
        check(3, 0, None, Err(Stop::Exhausted));
        check(u32::MAX, 0, None, Err(Stop::Exhausted));
        check(1, 395, None, Ok(100));
        check(1, 396, None, Err(Stop::OutOfTime));
        check(1, 600, None, Err(Stop::OutOfTime));
        check(1, 0, Some(300), Ok(300));
        check(1, 0, Some(20), Ok(100));
        check(1, 0, Some(495), Ok(495));
        check(1, 0, Some(496), Err(Stop::RetryAfterTooLong));
        check(1, 0, Some(3_600_000), Err(Stop::RetryAfterTooLong));
    }

    #[test]
    fn time_running_backwards_only_leaves_more_room() {
        let answer = |now| retry(3).again(1, Deadline::at(at(500)), at(now), ms(5), None, 0.5);
        assert_eq!(answer(450), Err(Stop::OutOfTime));
        assert_eq!(answer(100), Ok(ms(100)));
    }

    #[test]
    fn one_attempt_is_no_retry() {
        assert_eq!(
            retry(1).again(1, Deadline::at(at(500)), at(0), ms(0), None, 0.0),
            Err(Stop::Exhausted)
        );
    }

    proptest! {
        #![proptest_config(cases::counted())]

        #[test]
        fn no_attempt_starts_that_cannot_finish(
            attempts in 1..10u32, due in 0..5_000u64, minimum in 0..200u64, took in 0..400u64,
            retry_after in prop::option::of(0..2_000u64), random in 0.0..1.0f64,
        ) {
            let deadline = Deadline::at(at(due));
            let (mut now, mut made) = (Moment::ZERO, 1);
            loop {
                now = now + ms(took);
                match retry(attempts).again(made, deadline, now, ms(minimum), retry_after.map(ms), random) {
                    Ok(wait) => {
                        now = now + wait;
                        made += 1;
                        prop_assert!(made <= attempts);
                        prop_assert!(deadline.remaining(now) >= ms(minimum));
                        prop_assert!(retry_after.is_none_or(|asked| wait >= ms(asked)));
                    }
                    Err(Stop::Exhausted) => { prop_assert_eq!(made, attempts); break }
                    Err(_) => break,
                }
            }
        }
    }
}
