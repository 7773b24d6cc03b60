//! Derives the time of day (the told time) from the monotonic clock, by an offset that follows the wall clock slowly.
//!
//! A wall clock can be set by a time server, by an operator or by a host that resumes a machine, and sometimes it is
//! wrong for a second or an hour. Decisions that depend on the time of day (quotas, expiry, revocations) must not
//! follow it there and back. So between two calls of [`ClockFollower::look`] the time advances as the monotonic clock
//! does. A look lets the offset follow a drift, by at most a tenth of the time since the last look. A difference of
//! more than [`JUMP`] is a jump: it is reported at once, and followed only when it has lasted for [`PERSISTS`]. A wall
//! clock that returns earlier is never followed.
//!
//! Invariant: the told time moves by more than a drift only where [`Change::Followed`] is returned.

use std::time::Duration;

use crate::calendar::WallTime;
use crate::moment::Moment;

/// Difference between the wall clock and the told time above which there is a jump.
pub const JUMP: Duration = Duration::from_secs(2);
/// Time on the monotonic clock after which a jump is followed: the machine was suspended, or the clock was wrong
/// before.
pub const PERSISTS: Duration = Duration::from_secs(30);

/// Nanoseconds from a [`Moment`] to the [`WallTime`] at the same instant, up to the year 2262.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offset(i64);

/// Change of the wall clock that a look has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The wall clock has jumped by this many nanoseconds. The told time continues as before.
    Jumped(i64),
    /// The wall clock has jumped back to the told time, by this many nanoseconds.
    Returned(i64),
    /// A jump has lasted long enough: from now on [`ClockFollower::offset`] is the offset of the wall clock.
    Followed { from: WallTime, to: WallTime },
}

/// Decides which time of day the gateway uses.
#[derive(Debug)]
pub struct ClockFollower {
    offset: Offset,
    looked_at: Moment,
    jump: Option<Jump>,
}

/// Jump that is not followed yet.
#[derive(Clone, Copy, Debug)]
struct Jump {
    since: Moment,
    /// Offset of the wall clock at the last look.
    offset: Offset,
}

impl Offset {
    pub fn between(moment: Moment, wall: WallTime) -> Offset {
        let wall = i128::try_from(wall.elapsed().as_nanos()).unwrap_or(i128::MAX);
        Offset(saturate(wall.saturating_sub(i128::from(moment.nanos()))))
    }

    pub const fn from_nanos(nanos: i64) -> Offset {
        Offset(nanos)
    }

    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// Returns the time of day at this moment; not before 1970.
    pub fn at(self, moment: Moment) -> WallTime {
        WallTime::since_epoch(Duration::from_nanos(moment.nanos().saturating_add_signed(self.0)))
    }

    /// Returns the nanoseconds from `earlier` to this offset.
    fn since(self, earlier: Offset) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl ClockFollower {
    /// Starts with the wall clock as it is now, because there is no earlier time to compare with.
    pub fn new(now: Moment, wall: WallTime) -> ClockFollower {
        ClockFollower {
            offset: Offset::between(now, wall),
            looked_at: now,
            jump: None,
        }
    }

    /// Returns the offset that gives the time of day until the next look.
    pub const fn offset(&self) -> Offset {
        self.offset
    }

    /// Returns how far the wall clock is ahead of the told time, in nanoseconds; zero unless it has jumped.
    pub fn ahead(&self) -> i64 {
        self.jump.map_or(0, |jump| jump.offset.since(self.offset))
    }

    /// Compares both clocks; to be called about once a second.
    pub fn look(&mut self, now: Moment, wall: WallTime) -> Option<Change> {
        let passed = now.since(self.looked_at);
        self.looked_at = self.looked_at.max(now);
        let seen = Offset::between(now, wall);
        let is_close = is_close(seen, self.offset);
        match self.jump {
            None if is_close => {
                self.drift(seen, passed);
                None
            }
            None => {
                self.jump = Some(Jump {
                    since: now,
                    offset: seen,
                });
                Some(Change::Jumped(seen.since(self.offset)))
            }
            Some(jump) if is_close => {
                self.jump = None;
                Some(Change::Returned(seen.since(jump.offset)))
            }
            Some(jump) if !self::is_close(seen, jump.offset) => {
                self.jump = Some(Jump {
                    since: now,
                    offset: seen,
                });
                Some(Change::Jumped(seen.since(jump.offset)))
            }
            Some(jump) if now.since(jump.since) >= PERSISTS => {
                let from = self.offset.at(now);
                (self.offset, self.jump) = (seen, None);
                Some(Change::Followed { from, to: seen.at(now) })
            }
            Some(jump) => {
                // A clock that has jumped still drifts, like any clock.
                self.jump = Some(Jump { offset: seen, ..jump });
                None
            }
        }
    }

    fn drift(&mut self, seen: Offset, passed: Duration) {
        let most = saturate(i128::try_from(passed.as_nanos() / 10).unwrap_or(i128::MAX));
        let step = seen.since(self.offset).clamp(-most, most);
        self.offset = Offset(self.offset.0.saturating_add(step));
    }
}

fn is_close(one: Offset, other: Offset) -> bool {
    u128::from(one.0.abs_diff(other.0)) <= JUMP.as_nanos()
}

fn saturate(nanos: i128) -> i64 {
    i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MILLI: i64 = 1_000_000;
    const SECOND: i64 = 1_000 * MILLI;
    const YEAR: i64 = 365 * 86_400 * SECOND;
    /// 2026-11-24, noon.
    const NOON: Duration = Duration::from_secs(1_795_521_600);

    /// Returns both clocks this many milliseconds after the start. The wall clock is `ahead` by this many milliseconds.
    fn at(milliseconds: u64, ahead: i64) -> (Moment, WallTime) {
        let since = Duration::from_millis(milliseconds);
        let wall = (NOON + since).as_millis() as i64 + ahead;
        (
            Moment::ZERO + Duration::from_secs(3_600) + since,
            WallTime::since_epoch(Duration::from_millis(wall.max(0) as u64)),
        )
    }

    fn follower() -> ClockFollower {
        let (now, wall) = at(0, 0);
        ClockFollower::new(now, wall)
    }

    /// Looks at each instant (in milliseconds) at a wall clock that is ahead by the second number (in milliseconds).
    /// Checks the change that is reported, and how far the wall clock is then ahead of the told time, in milliseconds.
    fn check(rows: &[(u64, i64, Option<&str>, i64)]) {
        let mut follower = follower();
        for &(time, ahead, told, expected) in rows {
            let (now, wall) = at(time, ahead);
            let change = follower.look(now, wall).map(|change| match change {
                Change::Jumped(by) => format!("jumped {}", by / MILLI),
                Change::Returned(by) => format!("returned {}", by / MILLI),
                Change::Followed { from, to } => {
                    let by = to.elapsed().as_millis() as i64 - from.elapsed().as_millis() as i64;
                    format!("followed {by}")
                }
            });
            assert_eq!(change.as_deref(), told, "at {time}, {ahead} ahead");
            let told = follower.offset().at(now).elapsed().as_millis() as i64;
            assert_eq!(
                told - at(time, 0).1.elapsed().as_millis() as i64,
                expected,
                "at {time}, {ahead} ahead"
            );
        }
    }

    #[test]
    fn a_clock_that_comes_back_was_never_followed() {
        for far in [3_000, -3_000, 3_600_000, YEAR / MILLI * 68, -YEAR / MILLI * 50] {
            check(&[
                (1_000, 0, None, 0),
                (2_000, far, Some(&format!("jumped {far}")), 0),
                (3_000, far, None, 0),
                (4_000, 0, Some(&format!("returned {}", -far)), 0),
                (5_000, 0, None, 0),
                (60_000, 0, None, 0),
            ]);
        }
    }

    #[test]
    fn a_jump_that_stands_is_followed_once() {
        for far in [3_000, -3_000, 7 * 3_600_000, -7 * 3_600_000] {
            check(&[
                (2_000, far, Some(&format!("jumped {far}")), 0),
                (12_000, far, None, 0),
                (31_999, far, None, 0),
                (32_000, far, Some(&format!("followed {far}")), far),
                (33_000, far, None, far),
            ]);
        }
    }

    #[test]
    fn one_jump_after_another_waits_for_the_last_to_stand() {
        check(&[
            (1_000, 60_000, Some("jumped 60000"), 0),
            (20_000, 90_000, Some("jumped 30000"), 0),
            (40_000, 90_000, None, 0),
            (50_000, 90_000, Some("followed 90000"), 90_000),
            (51_000, -5_000, Some("jumped -95000"), 90_000),
            (52_000, 90_000, Some("returned 95000"), 90_000),
            (53_000, 0, Some("jumped -90000"), 90_000),
            (83_000, 0, Some("followed -90000"), 0),
        ]);
    }

    #[test]
    fn a_jump_that_drifts_is_the_same_jump() {
        check(&[
            (1_000, 60_000, Some("jumped 60000"), 0),
            (11_000, 61_500, None, 0),
            (21_000, 63_000, None, 0),
            (31_000, 64_500, Some("followed 64500"), 64_500),
        ]);
    }

    #[test]
    fn a_step_of_up_to_two_seconds_is_walked() {
        check(&[
            (1_000, 2_000, None, 100),
            (2_000, 2_000, None, 200),
            (3_000, 0, None, 100),
            (4_000, 0, None, 0),
            (5_000, -150, None, -100),
            (6_000, -150, None, -150),
            (7_000, 2_001, Some("jumped 2151"), -150),
        ]);
    }

    #[test]
    fn a_drift_is_no_jump_however_far_it_leads() {
        for per_second in [-90, -1, 1, 90] {
            let mut follower = follower();
            for second in 1..20_000_i64 {
                let (now, wall) = at(second as u64 * 1_000, second * per_second);
                assert_eq!(follower.look(now, wall), None, "{per_second} ms/s after {second} s");
                assert_eq!(follower.offset().at(now), wall);
            }
        }
    }

    #[test]
    fn a_clock_that_runs_at_twice_the_pace_is_told() {
        let mut follower = follower();
        let told: Vec<_> = (1..10)
            .filter_map(|second| {
                let (now, wall) = at(second * 1_000, second as i64 * 1_000);
                follower.look(now, wall).map(|change| (second, change))
            })
            .collect();
        // The wall clock is more than two seconds ahead of a time that follows by a tenth of a second in each second.
        assert_eq!(told, [(3, Change::Jumped(2_800 * MILLI))]);
    }

    #[test]
    fn nothing_moves_while_the_monotonic_clock_runs_backwards() {
        let mut follower = follower();
        let (_, wall) = at(1_000, 1_000);
        assert_eq!(follower.look(at(1_000, 0).0, wall), None);
        let before = follower.offset();
        assert_eq!(follower.look(at(500, 0).0, at(500, 1_500).1), None);
        assert_eq!(follower.offset(), before);
    }

    #[test]
    fn the_ends_of_time_saturate() {
        let last = WallTime::since_epoch(Duration::MAX);
        assert_eq!(Offset::between(Moment::ZERO, last).nanos(), i64::MAX);
        assert_eq!(Offset::between(Moment::MAX, WallTime::default()).nanos(), i64::MIN);
        assert_eq!(Offset::from_nanos(i64::MIN).at(Moment::ZERO), WallTime::default());
        assert_eq!(
            Offset::from_nanos(i64::MAX).at(Moment::MAX).elapsed(),
            Duration::from_nanos(u64::MAX)
        );
        let mut follower = ClockFollower::new(Moment::ZERO, last);
        for wall in [WallTime::default(), last] {
            follower.look(Moment::ZERO, wall);
            follower.look(Moment::MAX, wall);
        }
    }

    proptest! {
        #![proptest_config(cases::counted())]

        /// Whatever the wall clock does, the told time moves by a drift, or the move is reported.
        #[test]
        fn time_moves_by_a_drift_or_is_told(
            steps in prop::collection::vec((1..40_000u64, prop_oneof![
                3 => Just(0_i64), 2 => -3_000..3_000_i64, 1 => -100_000_000..100_000_000_i64,
            ]), 1..60),
        ) {
            let mut follower = follower();
            let (mut time, mut ahead) = (0, 0);
            for (pause, step) in steps {
                (time, ahead) = (time + pause, ahead + step);
                let (now, wall) = at(time, ahead);
                let before = follower.offset();
                let change = follower.look(now, wall);
                let moved = follower.offset().since(before);
                match change {
                    Some(Change::Followed { from, to }) => {
                        prop_assert_eq!((from, to), (before.at(now), follower.offset().at(now)));
                        prop_assert_eq!(to, wall);
                    }
                    Some(_) => prop_assert_eq!(moved, 0),
                    None => prop_assert!(moved.unsigned_abs() <= pause * MILLI as u64 / 10),
                }
                let distance = Offset::between(now, wall).since(follower.offset());
                prop_assert_eq!(distance.abs() > 2 * SECOND, follower.ahead() != 0);
            }
        }

        /// If the wall clock stays, the told time reaches it within a bounded time.
        #[test]
        fn the_time_arrives_at_a_wall_clock_that_stays(
            before in prop::collection::vec((1..40_000u64, -100_000_000..100_000_000_i64), 0..20),
        ) {
            let mut follower = follower();
            let (mut time, mut ahead) = (0, 0);
            for (pause, step) in before {
                (time, ahead) = (time + pause, ahead + step);
                let (now, wall) = at(time, ahead);
                follower.look(now, wall);
            }
            for _ in 0..52 {
                time += 1_000;
                let (now, wall) = at(time, ahead);
                follower.look(now, wall);
            }
            let (now, wall) = at(time, ahead);
            prop_assert_eq!(follower.offset().at(now), wall);
        }
    }
}
