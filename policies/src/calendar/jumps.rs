//! Remembers what an owner used in the periods that a jump of the clock has left, in case the clock comes back to them.
//!
//! A clock that runs ahead for an hour may end the month and come back to it; a clock that starts in 1970 comes back
//! from there. Whichever time was right, tokens used in a period count again when the clock is in that period again.
//! Tokens used in later periods count as well, because those periods have not come yet. So no order of jumps adds a
//! token.
//!
//! Invariant: a token is remembered in one period only: the period in which it was taken; or, if the clock came there
//! from a later period and remembers nothing of it, the latest remembered period. When time passes normally from one
//! period to the next, the next begins with zero.

use super::{Every, Saved, WallTime};

/// Most periods that are remembered for one owner.
const MOST: usize = 4;

/// Periods that the clock has been in through jumps, and the tokens used in each. Empty while the clock has not jumped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftPeriods {
    /// Period that the last jump led to.
    at: WallTime,
    /// Remembered periods, in order of their starts.
    used: Vec<Saved>,
}

impl LeftPeriods {
    /// Returns the state from its saved form; the periods may be in any order.
    pub fn restore(at: WallTime, used: impl IntoIterator<Item = Saved>) -> LeftPeriods {
        let mut left = LeftPeriods { at, used: Vec::new() };
        for Saved { since, used } in used {
            left.add(since, used);
        }
        left
    }

    /// Returns the start of the period that the last jump led to, and the remembered periods.
    pub fn saved(&self) -> (WallTime, &[Saved]) {
        (self.at, &self.used)
    }

    pub fn is_empty(&self) -> bool {
        self.used.is_empty()
    }

    /// Notes a jump of the clock from one time to another while `counted` is the current count. Returns the tokens to
    /// add to the count once the clock is there.
    pub fn jump(&mut self, every: Every, counted: Saved, from: WallTime, to: WallTime) -> u64 {
        let counted = counted.word().at(every, from);
        let next = counted.at(every, to);
        if next.since() == counted.since() {
            return 0;
        }
        let (now, then) = (WallTime::of_minute(counted.since()), WallTime::of_minute(next.since()));
        if now != self.at {
            // Time has passed normally since the last jump. Forgets the periods that were ahead then: their tokens were
            // counted.
            let at = self.at;
            self.used.retain(|left| left.since <= at && left.since < now);
        }
        self.attribute(now, counted.used());
        self.at = then;
        self.since(then).saturating_sub(next.used())
    }

    /// Notes what has been taken or given back since the last jump.
    fn attribute(&mut self, now: WallTime, counted: u64) {
        let known = self.since(now);
        if counted >= known {
            let is_known = self.used.iter().any(|left| left.since == now);
            let latest = self.used.last().map_or(now, |latest| latest.since.max(now));
            self.add(if is_known { now } else { latest }, counted - known);
            return;
        }
        let mut back = known - counted;
        for left in self.used.iter_mut().rev().take_while(|left| left.since >= now) {
            let part = left.used.min(back);
            left.used -= part;
            back -= part;
        }
    }

    /// Returns the tokens that count in the period that begins at `then`.
    fn since(&self, then: WallTime) -> u64 {
        let counts = self.used.iter().filter(|left| left.since >= then);
        counts.fold(0, |sum, left| sum.saturating_add(left.used))
    }

    fn add(&mut self, since: WallTime, used: u64) {
        match self.used.iter_mut().find(|left| left.since == since) {
            Some(left) => left.used = left.used.saturating_add(used),
            None => {
                let place = self.used.partition_point(|left| left.since < since);
                self.used.insert(place, Saved { since, used });
            }
        }
        self.used.retain(|left| left.used > 0);
        if self.used.len() > MOST {
            // Counts the tokens of the oldest period in a later one rather than not at all.
            let first = self.used.remove(0);
            self.used[0].used = self.used[0].used.saturating_add(first.used);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{CalendarQuota, Usage};
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    const LIMIT: u64 = 1 << 30;

    /// Returns a time in hours since the epoch. The quota counts every hour.
    fn at(hour: u64) -> WallTime {
        WallTime::since_epoch(Duration::from_secs(hour * 3_600 + 60 * 30))
    }

    fn quota() -> CalendarQuota {
        CalendarQuota::new(LIMIT, Every::Hour).unwrap()
    }

    /// One owner, on a clock that jumps.
    #[derive(Default)]
    struct World {
        usage: Usage,
        left: LeftPeriods,
        now: u64,
    }

    impl World {
        fn jump(&mut self, to: u64) {
            let (from, then) = (at(self.now), at(to));
            let add = self.left.jump(Every::Hour, self.usage.saved(), from, then);
            self.now = to;
            self.usage.charge(&quota(), then, add);
        }

        fn take(&self, cost: u64) {
            self.usage.take(&quota(), at(self.now), cost).unwrap();
        }

        fn used(&self) -> u64 {
            self.usage.used(&quota(), at(self.now))
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Take(u64),
        /// The clock jumps to this hour.
        Jump(u64),
        /// Time passes normally to this hour.
        Pass(u64),
        Used(u64),
    }

    #[test]
    fn what_was_used_in_a_period_counts_when_the_clock_is_in_it_again() {
        use Step::{Jump, Pass, Take, Used};
        let check = |steps: &[Step]| {
            let mut world = World::default();
            for (number, step) in steps.iter().enumerate() {
                match *step {
                    Take(cost) => world.take(cost),
                    Jump(hour) => world.jump(hour),
                    Pass(hour) => world.now = hour,
                    Used(expected) => assert_eq!(world.used(), expected, "step {number} of {steps:?}"),
                }
            }
        };
        // Ahead and back: tokens used ahead are carried back.
        check(&[Pass(100), Take(90), Jump(900), Used(0), Take(5), Jump(100), Used(95)]);
        // Ahead again: only the tokens used there since.
        check(&[
            Pass(100),
            Take(90),
            Jump(900),
            Take(5),
            Jump(100),
            Take(1),
            Jump(900),
            Used(5),
            Jump(100),
            Used(96),
        ]);
        // Ahead, further ahead, and back.
        check(&[
            Pass(100),
            Take(90),
            Jump(900),
            Take(5),
            Jump(950),
            Take(7),
            Jump(100),
            Used(102),
        ]);
        // Ahead, half of the way back, and back.
        check(&[
            Pass(100),
            Take(90),
            Jump(900),
            Take(5),
            Jump(500),
            Used(5),
            Take(2),
            Jump(100),
            Used(97),
        ]);
        // Set back by mistake: no tokens are free there or afterwards.
        check(&[Pass(100), Take(60), Jump(0), Used(60), Take(4), Jump(100), Used(64)]);
        check(&[
            Pass(100),
            Take(60),
            Jump(0),
            Take(4),
            Jump(50),
            Used(64),
            Take(1),
            Jump(100),
            Used(65),
        ]);
        // The period before ended normally, so it is not counted again.
        check(&[
            Pass(99),
            Take(40),
            Pass(100),
            Take(60),
            Jump(98),
            Used(60),
            Take(2),
            Jump(100),
            Used(62),
        ]);
        // After a jump to the right time nothing more happens.
        check(&[
            Pass(100),
            Take(90),
            Jump(900),
            Take(5),
            Pass(901),
            Used(0),
            Take(3),
            Pass(902),
            Used(0),
        ]);
        // Tokens that were carried into a period end with it.
        check(&[
            Pass(100),
            Take(90),
            Jump(900),
            Take(5),
            Jump(100),
            Pass(101),
            Used(0),
            Take(2),
            Jump(900),
            Used(0),
        ]);
        // A jump within a period changes nothing; after a small step back the period goes on.
        check(&[Pass(100), Take(9), Jump(100), Used(9)]);
        // An owner that used nothing is charged nothing.
        check(&[Pass(100), Jump(900), Jump(100), Used(0), Take(1), Used(1)]);
    }

    #[test]
    fn what_is_given_back_is_not_remembered() {
        let mut world = World {
            now: 100,
            ..World::default()
        };
        world.take(9);
        world.jump(0);
        world.usage.refund(&quota(), at(0), at(0), 4);
        world.jump(100);
        assert_eq!(world.used(), 5);
    }

    #[test]
    fn memory_is_bounded_and_forgets_no_token() {
        let mut world = World::default();
        for hour in [100, 90, 80, 70, 60, 50, 40, 30] {
            world.jump(hour);
            world.take(1);
        }
        for hour in [200, 300, 400, 500, 600, 700] {
            world.jump(hour);
            world.take(1);
            assert!(world.left.used.len() <= MOST);
        }
        world.jump(10);
        assert_eq!(world.used(), 14);
    }

    #[test]
    fn what_is_kept_is_what_is_restored() {
        let mut world = World::default();
        for hour in [100, 900, 50] {
            world.jump(hour);
            world.take(3);
        }
        world.jump(200);
        let (since, used) = world.left.saved();
        assert!(used.len() > 1);
        assert_eq!(LeftPeriods::restore(since, used.iter().rev().copied()), world.left);
        assert!(!world.left.is_empty() && LeftPeriods::default().is_empty());
    }

    proptest! {
        #![proptest_config(cases::counted())]

        /// Whatever the jumps: when the clock comes back to a period, its tokens count again, and no owner is charged
        /// for tokens that it never took.
        #[test]
        fn no_order_of_jumps_adds_a_token(
            steps in prop::collection::vec((0..9u64, 0..50u64), 1..60),
        ) {
            let mut world = World::default();
            let mut taken_in = [0u64; 9];
            for (hour, cost) in steps {
                world.jump(hour * 100);
                let all: u64 = taken_in.iter().sum();
                // Tokens taken in this period and in later ones.
                let least: u64 = taken_in[hour as usize..].iter().sum();
                prop_assert!((least..=all).contains(&world.used()), "{} of {taken_in:?} at {hour}", world.used());
                world.take(cost);
                taken_in[hour as usize] += cost;
            }
        }

        /// When time passes normally, each period begins with zero, whatever was before.
        #[test]
        fn the_next_period_begins_with_nothing(
            jumps in prop::collection::vec((0..9u64, 0..50u64), 0..20), pause in 1..5u64,
        ) {
            let mut world = World::default();
            for (hour, cost) in jumps {
                world.jump(hour * 100);
                world.take(cost);
            }
            world.now += pause;
            prop_assert_eq!(world.used(), 0);
        }
    }
}
