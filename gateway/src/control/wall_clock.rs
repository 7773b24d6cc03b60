//! Checks the wall clock every second, and adjusts quotas and revocations when it has jumped.
//!
//! [`ClockFollower`] decides what is a jump and when to follow it. It gets the readings of both clocks, so that a test
//! can invent them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use policies::ClockFollower;
use policies::clock_follower::{Change, PERSISTS};
use tokio::time::MissedTickBehavior;

use crate::clock::{self, Now, Reading, WallClock};
use crate::limits::store::local::clock_jump::Carried;
use crate::observe::timestamp::Timestamp;
use crate::plan::State;

/// Interval between checks.
const ROUND: Duration = Duration::from_secs(1);

/// Follows one wall clock.
pub(super) struct WallClockWatch {
    clock: &'static WallClock,
    follower: ClockFollower,
    state: Arc<State>,
}

/// Follows the wall clock of the process, forever.
pub(super) async fn follow(state: Arc<State>) {
    let watch = WallClockWatch::new(WallClock::of_process(), clock::read(), state);
    let watch = Arc::new(Mutex::new(watch));
    let mut round = tokio::time::interval(ROUND);
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        round.tick().await;
        let watch = Arc::clone(&watch);
        // A followed jump visits all quotas, so it runs on a blocking thread.
        let look = move || {
            let mut watch = watch.lock().unwrap_or_else(PoisonError::into_inner);
            watch.look(clock::read());
        };
        let _ = tokio::task::spawn_blocking(look).await;
    }
}

impl WallClockWatch {
    pub(super) fn new(clock: &'static WallClock, first: Reading, state: Arc<State>) -> Self {
        let follower = ClockFollower::new(first.moment, first.wall);
        clock.tell(follower.offset());
        Self { clock, follower, state }
    }

    pub(super) fn look(&mut self, Reading { moment, wall }: Reading) {
        let change = self.follower.look(moment, wall);
        let offset = self.follower.offset();
        match change {
            None => self.clock.tell(offset),
            Some(Change::Jumped(by)) => {
                self.clock.note_jump();
                tracing::warn!(
                    seconds = seconds(by),
                    wall_clock = %Timestamp(wall.elapsed()),
                    time_used = %Timestamp(offset.at(moment).elapsed()),
                    "the wall clock has jumped: it is followed if it stays there for {PERSISTS:?}"
                );
            }
            Some(Change::Returned(by)) => {
                self.clock.note_jump();
                tracing::warn!(
                    seconds = seconds(by),
                    "the wall clock has come back, and was not followed"
                );
            }
            Some(Change::Followed { from, to }) => {
                tracing::warn!(
                    from = %Timestamp(from.elapsed()),
                    to = %Timestamp(to.elapsed()),
                    "the wall clock has stayed where it jumped to, and is followed now"
                );
                let [from, to] = [from, to].map(|wall| Now { moment, wall });
                let accounts = &self.state.accounts;
                let carried = accounts.set_aside.jump(accounts, from, to, || self.clock.tell(offset));
                if carried != Carried::default() {
                    tracing::warn!(
                        from_the_future = carried.ahead,
                        counted_again = carried.again,
                        "quotas have counted in periods that the clock has left: it is carried over"
                    );
                }
                self.state.revocations.in_force().look_again();
            }
        }
        self.clock.note_ahead(self.follower.ahead());
    }
}

/// Converts nanoseconds to seconds.
fn seconds(nanos: i64) -> f64 {
    nanos as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use policies::clock_follower::Offset;
    use policies::{CalendarQuota, Every, Moment, WallTime};

    use super::*;
    use crate::auth::caller::{Caller, Kind};
    use crate::auth::check::Check;
    use crate::auth::revocations::{self, List, Revoked, RevokedKind, Seen};
    use crate::limits::kinds::Terms;
    use crate::limits::owner::Owner;
    use crate::limits::store::{Origin, TermsByOwner};
    use crate::observe::{Observer, Target};

    /// Noon on 2026-11-24 (UTC).
    const NOON: u64 = 1_795_521_600;
    const HOUR: i64 = 3_600;
    const YEAR: i64 = 365 * 24 * HOUR;

    /// The state of a gateway with invented clocks.
    struct World {
        watch: WallClockWatch,
        /// Monotonic time since the start, in seconds.
        time: u64,
        /// Difference of the wall clock to the true time, in seconds.
        ahead: i64,
    }

    impl World {
        fn new() -> Self {
            let state = Arc::new(State::new(Observer::start(&Target::Off).unwrap()));
            let clock = Box::leak(Box::new(WallClock::new(Offset::default())));
            Self {
                watch: WallClockWatch::new(clock, reading(0, 0), state),
                time: 0,
                ahead: 0,
            }
        }

        /// Lets time pass, with a check every second.
        fn pass(&mut self, seconds: u64) {
            for _ in 0..seconds {
                self.time += 1;
                self.watch.look(reading(self.time, self.ahead));
            }
        }

        fn jump(&mut self, by: i64) {
            self.ahead += by;
        }

        fn state(&self) -> &State {
            &self.watch.state
        }

        /// Returns the gateway's time in seconds since 1970.
        fn unix_now(&self) -> u64 {
            self.watch.clock.at(reading(self.time, 0).moment).elapsed().as_secs()
        }

        /// Returns by how many seconds the gateway's time is ahead.
        fn followed(&self) -> i64 {
            self.unix_now() as i64 - (NOON + self.time) as i64
        }
    }

    fn reading(time: u64, ahead: i64) -> Reading {
        Reading {
            moment: Moment::ZERO + Duration::from_secs(HOUR as u64 + time),
            wall: WallTime::since_epoch(Duration::from_secs((NOON + time).saturating_add_signed(ahead))),
        }
    }

    #[test]
    fn a_jump_is_counted_there_and_back_and_shown_as_long_as_it_is_not_followed() {
        let mut world = World::new();
        let check = |world: &World, jumps, ahead, followed| {
            let clock = world.watch.clock;
            assert_eq!(
                (clock.jumps(), clock.ahead() / 1_000_000_000, world.followed()),
                (jumps, ahead, followed)
            );
        };
        world.pass(5);
        check(&world, 0, 0, 0);
        world.jump(HOUR);
        world.pass(1);
        check(&world, 1, HOUR, 0);
        world.jump(-HOUR);
        world.pass(1);
        check(&world, 2, 0, 0);
        world.jump(-50 * YEAR);
        world.pass(30);
        check(&world, 3, -50 * YEAR, 0);
        world.pass(1);
        check(&world, 3, 0, -50 * YEAR);
        world.jump(50 * YEAR);
        world.pass(31);
        check(&world, 4, 0, 0);
    }

    #[test]
    fn a_drift_is_followed_and_not_counted() {
        let mut world = World::new();
        for _ in 0..100 {
            world.jump(-1);
            world.pass(20);
        }
        assert_eq!((world.watch.clock.jumps(), world.followed()), (0, -100));
    }

    #[test]
    fn a_quota_neither_freezes_nor_forgets_while_the_clock_is_wrong() {
        let world = &mut World::new();
        let by_the_month =
            |limit| TermsByOwner::for_all(Terms::Calendar(CalendarQuota::new(limit, Every::Month).unwrap()));
        let terms = by_the_month(100);
        let table = world.state().accounts.table(&"monthly".into(), &terms);
        let account = table.account(Owner::Tenant("acme"), terms.usual, Origin::Written);
        // Takes `cost`, then checks how much is left and in how many days the quota restarts.
        let check = |world: &World, cost, left: u64, days: u64| {
            let now = Now {
                moment: reading(world.time, 0).moment,
                wall: world.watch.clock.at(reading(world.time, 0).moment),
            };
            account.take(now, cost, Duration::ZERO).unwrap();
            assert_eq!(account.balance(now), left, "at {}", world.time);
            assert_eq!(
                account.reset_in(now, left).as_secs() / 86_400,
                days,
                "at {}",
                world.time
            );
        };
        check(world, 50, 50, 6);
        // A jump that lasts one second counts in the current month.
        world.jump(68 * YEAR);
        world.pass(1);
        check(world, 5, 45, 6);
        world.jump(-68 * YEAR);
        world.pass(1);
        check(world, 5, 40, 6);
        // A jump that lasts minutes counts in another month, and nothing is lost when the clock returns.
        world.jump(68 * YEAR);
        world.pass(100);
        check(world, 3, 97, 23);
        world.jump(-68 * YEAR);
        world.pass(100);
        check(world, 1, 36, 6);
        // The clock goes back, and returns.
        world.jump(-50 * YEAR);
        world.pass(100);
        check(world, 2, 34, 25);
        world.jump(50 * YEAR);
        world.pass(100);
        check(world, 4, 30, 6);
        // After a suspension of a week it is December. Usage at wrong times may belong to December, so it counts there.
        world.jump(7 * 24 * HOUR);
        world.pass(100);
        check(world, 0, 95, 30);
    }

    #[test]
    fn a_revocation_holds_again_when_the_clock_comes_back() {
        let mut world = World::new();
        let revoked = Revoked::new(RevokedKind::Key, "k1", None).unwrap();
        let terms = revocations::Terms {
            until: Some(NOON + 2 * HOUR as u64),
            reason: None,
        };
        world
            .state()
            .revocations
            .revoke(List::from([(revoked, terms)]))
            .unwrap();
        let (caller, seen) = (caller(), Seen::nothing());
        let check = |world: &World, expected| {
            world.state().revocations.forget_ended(Now {
                moment: reading(world.time, 0).moment,
                wall: world.watch.clock.at(reading(world.time, 0).moment),
            });
            let answer = world
                .state()
                .revocations
                .in_force()
                .check(&caller, &seen, world.unix_now());
            assert_eq!(answer, expected, "at {}", world.time);
        };
        world.pass(1);
        check(&world, Err(Check::RevokedKey));
        // A jump that lasts one second has no effect.
        world.jump(YEAR);
        world.pass(1);
        check(&world, Err(Check::RevokedKey));
        world.jump(-YEAR);
        world.pass(1);
        check(&world, Err(Check::RevokedKey));
        // A long jump ends the revocation for as long as it lasts.
        world.jump(YEAR);
        world.pass(100);
        check(&world, Ok(()));
        world.jump(-YEAR);
        world.pass(100);
        check(&world, Err(Check::RevokedKey));
        world.pass(2 * HOUR as u64);
        check(&world, Ok(()));
    }

    fn caller() -> Caller {
        Caller {
            tenant: "acme".into(),
            id: "k1".into(),
            tier: None,
            scopes: Box::default(),
            kind: Kind::ApiKey,
            claims: None,
            configured: true,
            expires: None,
        }
    }
}
