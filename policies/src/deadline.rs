//! Holds the moment by which an answer is due. It is passed down and can only become earlier.
//!
//! Invariant: no child is later than its parent, however long its own limit. A deadline holds no timer.

use crate::moment::Moment;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Moment);

impl Deadline {
    pub const fn at(moment: Moment) -> Deadline {
        Deadline(moment)
    }

    pub const fn moment(self) -> Moment {
        self.0
    }

    /// Returns the deadline of work that starts at `start` and may take `limit`, but not later than this deadline.
    pub fn child(self, start: Moment, limit: Duration) -> Deadline {
        Deadline(self.0.min(start + limit))
    }

    /// Returns the time left; zero once the deadline has passed.
    pub const fn remaining(self, now: Moment) -> Duration {
        self.0.since(now)
    }

    pub const fn has_passed(self, now: Moment) -> bool {
        self.remaining(now).is_zero()
    }

    /// Returns whether work that starts after `wait` still has `minimum` left.
    pub fn allows(self, now: Moment, wait: Duration, minimum: Duration) -> bool {
        wait.checked_add(minimum)
            .is_some_and(|needed| needed <= self.remaining(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn at(milliseconds: u64) -> Moment {
        Moment::ZERO + ms(milliseconds)
    }

    #[test]
    fn a_child_is_due_at_the_sooner_of_its_limit_and_its_parent() {
        let check = |parent, start, limit: Duration, expected| {
            assert_eq!(
                Deadline::at(at(parent)).child(at(start), limit),
                Deadline::at(at(expected))
            );
        };
        check(30_000, 0, ms(10_000), 10_000);
        check(30_000, 25_000, ms(10_000), 30_000);
        check(30_000, 31_000, ms(10_000), 30_000);
        check(30_000, 0, Duration::MAX, 30_000);
        check(30_000, 500, Duration::ZERO, 500);
    }

    #[test]
    fn allows_what_leaves_the_minimum() {
        let check = |now, wait: Duration, minimum, expected| {
            assert_eq!(
                Deadline::at(at(100)).allows(at(now), wait, ms(minimum)),
                expected,
                "{now} {wait:?}"
            );
        };
        check(0, ms(95), 5, true);
        check(0, ms(96), 5, false);
        check(96, ms(0), 5, false);
        check(100, ms(0), 0, true);
        check(101, ms(0), 5, false);
        check(0, Duration::MAX, 5, false);
    }

    #[test]
    fn time_running_backwards_leaves_more_and_moves_nothing() {
        let deadline = Deadline::at(at(100));
        assert_eq!(deadline.remaining(at(90)), ms(10));
        assert_eq!(deadline.remaining(at(50)), ms(50));
        assert_eq!(deadline.remaining(at(150)), Duration::ZERO);
        assert!(!deadline.has_passed(at(99)));
        assert!(deadline.has_passed(at(100)));
    }

    proptest! {
        #![proptest_config(cases::counted())]

        #[test]
        fn nothing_outlives_an_ancestor(limits in prop::collection::vec((0..1_000u64, 0..1_000u64), 1..9)) {
            let root = Deadline::at(at(500));
            let (mut now, mut deadline, mut naive) = (0, root, 500);
            for (pause, limit) in limits {
                now += pause;
                deadline = deadline.child(at(now), ms(limit));
                naive = naive.min(now + limit);
                prop_assert_eq!(deadline, Deadline::at(at(naive)));
                prop_assert!(deadline <= root);
            }
        }

        /// Work that is allowed and takes its minimum ends by the deadline; work that takes a nanosecond more does not.
        #[test]
        fn what_is_allowed_ends_in_time(due in 0..5_000u64, now in 0..5_000u64, wait in 0..5_000u64, minimum in 1..5_000u64) {
            let deadline = Deadline::at(at(due));
            let end = at(now) + ms(wait) + ms(minimum);
            prop_assert_eq!(deadline.allows(at(now), ms(wait), ms(minimum)), end <= deadline.moment());
            let exactly = Deadline::at(end);
            prop_assert!(exactly.allows(at(now), ms(wait), ms(minimum)));
            prop_assert!(!exactly.allows(at(now), ms(wait), ms(minimum) + Duration::from_nanos(1)));
        }
    }
}
