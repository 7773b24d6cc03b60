//! The only file that reads clocks. All other code gets the time from here.
//!
//! [`now`] is monotonic, counts from the start of the process, and follows tokio's paused clock in tests. [`unix_time`]
//! is the time of day, for tokens, certificates, revocations and calendar quotas: the monotonic time plus an offset
//! that [`WallClock`] keeps. A jump of the wall clock is followed only after it has lasted for a while
//! ([`policies::clock_follower`] decides; the control thread asks it every second).

#![expect(clippy::disallowed_methods, reason = "the one place that reads clocks")]

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{LazyLock, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use policies::clock_follower::Offset;
use policies::{Moment, WallTime};
use tokio::time::Instant;

static EPOCH: OnceLock<Instant> = OnceLock::new();

/// Returns the instant of [`Moment::ZERO`]: an hour before the first reading, so that a policy can look back, or that of
/// the process that this one replaces.
fn epoch() -> Instant {
    *EPOCH.get_or_init(|| {
        let now = std::time::Instant::now();
        Instant::from_std(now.checked_sub(Duration::from_secs(3600)).unwrap_or(now))
    })
}

/// Returns the instant of [`Moment::ZERO`] in nanoseconds since the machine was started. Another process of the machine
/// can [continue](continue_from) with it, so that moments of this process mean the same there.
pub fn epoch_since_boot() -> i64 {
    since_boot() - i64::try_from(since_epoch(Instant::from_std(std::time::Instant::now())).nanos()).unwrap_or(i64::MAX)
}

/// Returns the nanoseconds since the machine was started, by `CLOCK_MONOTONIC`, the clock of [`std::time::Instant`].
pub fn since_boot() -> i64 {
    let rustix::time::Timespec { tv_sec, tv_nsec } = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    tv_sec * 1_000_000_000 + tv_nsec
}

/// Makes [`Moment::ZERO`] the instant that another process of this machine has. Returns false if the time was read
/// before, or if that instant is in the future; then nothing changes.
pub fn continue_from(epoch_since_boot: i64) -> bool {
    let now = std::time::Instant::now();
    let ago = u64::try_from(since_boot() - epoch_since_boot).ok();
    let epoch = ago.and_then(|ago| now.checked_sub(Duration::from_nanos(ago)));
    epoch.is_some_and(|epoch| EPOCH.set(Instant::from_std(epoch)).is_ok())
}

/// Both clocks at one instant: the monotonic time for rates, the time of day for the calendar.
#[derive(Debug, Default, Clone, Copy)]
pub struct Now {
    pub moment: Moment,
    pub wall: WallTime,
}

impl Now {
    pub fn read() -> Self {
        Self::at(now())
    }

    /// Returns the time of day at `moment`, by the current offset.
    pub fn at(moment: Moment) -> Self {
        Self {
            moment,
            wall: WallClock::of_process().at(moment),
        }
    }
}

/// Returns the monotonic time. Within a poll of [`held_in_each_poll`] it is that of the first reading.
#[inline]
pub fn now() -> Moment {
    match HELD.get() {
        Held::Off => since_epoch(Instant::now()),
        Held::Unread => {
            let now = since_epoch(Instant::now());
            HELD.set(Held::At(now));
            now
        }
        Held::At(now) => now,
    }
}

/// Reads the monotonic time also where it stands still, from where it then goes on. For the time of work that one poll
/// does.
pub fn read_anew() -> Moment {
    if let Held::At(_) = HELD.get() {
        HELD.set(Held::Unread);
    }
    now()
}

/// Whether the time stands still on a thread.
#[derive(Clone, Copy)]
enum Held {
    Off,
    Unread,
    At(Moment),
}

thread_local! {
    static HELD: Cell<Held> = const { Cell::new(Held::Off) };
}

/// Returns a future in each of whose polls the time is read at most once: a poll waits for nothing, so little time passes
/// in it.
pub fn held_in_each_poll<F: Future + ?Sized>(mut future: Pin<Box<F>>) -> impl Future<Output = F::Output> {
    poll_fn(move |cx| held(|| future.as_mut().poll(cx)))
}

/// Returns a future in whose polls every reading of the time is a new one, also within a poll of [`held_in_each_poll`].
pub fn read_anew_in_each_poll<F: Future + ?Sized>(mut future: Pin<Box<F>>) -> impl Future<Output = F::Output> {
    poll_fn(move |cx| {
        let before = HELD.replace(Held::Off);
        let polled = future.as_mut().poll(cx);
        if let Held::Unread | Held::At(_) = before {
            HELD.set(Held::Unread);
        }
        polled
    })
}

/// Runs a function in which the time is read at most once.
fn held<T>(poll: impl FnOnce() -> T) -> T {
    /// Lets the time go on, also after a panic.
    struct Release;
    impl Drop for Release {
        fn drop(&mut self) {
            HELD.set(Held::Off);
        }
    }
    HELD.set(Held::Unread);
    let _release = Release;
    poll()
}

fn since_epoch(instant: Instant) -> Moment {
    let since = instant.saturating_duration_since(epoch());
    Moment::from_nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// Returns the instant for a timer that fires at `moment`.
#[inline]
pub fn instant(moment: Moment) -> Instant {
    // Caps the distance at 100 years, so that the addition cannot overflow.
    const FAR: Duration = Duration::from_secs(100 * 366 * 24 * 3600);
    epoch() + moment.since(Moment::ZERO).min(FAR)
}

/// Returns the whole seconds since 1970-01-01T00:00:00Z.
pub fn unix_seconds() -> u64 {
    unix_time().as_secs()
}

/// Returns the time since 1970-01-01T00:00:00Z.
pub fn unix_time() -> Duration {
    Now::read().wall.elapsed()
}

/// Waits until `moment`.
pub async fn wait_until(moment: Moment) {
    tokio::time::sleep_until(instant(moment)).await;
}

/// The gateway's time of day, and statistics on jumps of the wall clock.
#[derive(Debug)]
pub struct WallClock {
    /// Offset in nanoseconds, as in [`Offset`].
    offset: AtomicI64,
    jumps: AtomicU64,
    /// Nanoseconds by which the wall clock is ahead of the gateway's time.
    ahead: AtomicI64,
}

impl WallClock {
    /// Returns the clock of the process. It starts with the wall clock at the first call.
    pub fn of_process() -> &'static Self {
        static CLOCK: LazyLock<WallClock> = LazyLock::new(|| {
            let Reading { moment, wall } = read();
            WallClock::new(Offset::between(moment, wall))
        });
        &CLOCK
    }

    pub const fn new(offset: Offset) -> Self {
        Self {
            offset: AtomicI64::new(offset.nanos()),
            jumps: AtomicU64::new(0),
            ahead: AtomicI64::new(0),
        }
    }

    #[inline]
    pub fn at(&self, moment: Moment) -> WallTime {
        Offset::from_nanos(self.offset.load(Relaxed)).at(moment)
    }

    /// Returns the number of jumps of the wall clock, forward or back.
    pub fn jumps(&self) -> u64 {
        self.jumps.load(Relaxed)
    }

    /// Returns by how many nanoseconds the wall clock is ahead of the gateway's time (negative: behind). It is zero
    /// unless a jump is not followed yet.
    pub fn ahead(&self) -> i64 {
        self.ahead.load(Relaxed)
    }

    pub(crate) fn tell(&self, offset: Offset) {
        self.offset.store(offset.nanos(), Relaxed);
    }

    pub(crate) fn note_jump(&self) {
        self.jumps.fetch_add(1, Relaxed);
    }

    pub(crate) fn note_ahead(&self, nanos: i64) {
        self.ahead.store(nanos, Relaxed);
    }
}

/// The readings of both clocks of the machine, independent of the gateway's time.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    pub moment: Moment,
    pub wall: WallTime,
}

/// Reads both clocks at one instant. The monotonic clock is the real one, also in tests that pause time.
pub fn read() -> Reading {
    // A thread that is suspended between the two readings would see a jump, so a slow reading is repeated, up to 10
    // times.
    const CLOSE: Duration = Duration::from_millis(100);
    let mut tries = 0;
    loop {
        let before = std::time::Instant::now();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        tries += 1;
        if before.elapsed() < CLOSE || tries == 10 {
            return Reading {
                moment: since_epoch(Instant::from_std(before)),
                wall: WallTime::since_epoch(wall),
            };
        }
    }
}

/// Gives TLS the gateway's time of day to check certificates with, in place of the machine's wall clock.
#[derive(Debug)]
pub struct TlsTime;

impl rustls::time_provider::TimeProvider for TlsTime {
    fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
        Some(rustls::pki_types::UnixTime::since_unix_epoch(unix_time()))
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn the_time_of_day_is_that_of_the_wall_clock() {
        let told = unix_time();
        let read = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        assert!(read.abs_diff(told) < Duration::from_secs(60), "{read:?} {told:?}");
    }

    /// Reads the time until it has gone on.
    fn later(than: Moment, read: impl Fn() -> Moment) -> Moment {
        loop {
            let now = read();
            if now > than {
                return now;
            }
        }
    }

    #[test]
    fn the_time_stands_still_within_one_poll() {
        let (first, second) = held(|| {
            let first = now();
            later(first, || since_epoch(Instant::now()));
            (first, now())
        });
        assert_eq!(first, second);
        let (first, second, third) = held(|| {
            let first = now();
            let second = later(first, read_anew);
            (first, second, now())
        });
        assert!(first < second && second == third, "{first:?} {second:?} {third:?}");
        std::panic::catch_unwind(|| held(|| panic!("within a poll"))).unwrap_err();
        later(now(), now);
    }

    #[test]
    fn the_time_goes_on_where_each_reading_counts() {
        let mut cx = Context::from_waker(Waker::noop());
        let readings = Box::pin(async { later(now(), now) });
        let mut readings = pin!(read_anew_in_each_poll(readings));
        let (first, second) = held(|| {
            let Poll::Ready(inner) = readings.as_mut().poll(&mut cx) else {
                panic!("nothing is waited for");
            };
            let first = now();
            assert!(first >= inner);
            later(first, || since_epoch(Instant::now()));
            (first, now())
        });
        assert_eq!(first, second);
    }

    #[test]
    fn the_epoch_since_boot_stays_the_same() {
        let (first, second) = (epoch_since_boot(), epoch_since_boot());
        assert!(first.abs_diff(second) < 1_000_000_000, "{first} {second}");
        assert!(!continue_from(first), "the time was read before");
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_of_day_goes_on_as_the_monotonic_clock_does() {
        let before = Now::read();
        tokio::time::advance(Duration::from_secs(7)).await;
        let after = Now::read();
        let passed = after.wall.elapsed().checked_sub(before.wall.elapsed());
        assert_eq!(passed, Some(after.moment.since(before.moment)));
        assert!(passed >= Some(Duration::from_secs(7)));
    }

    #[test]
    fn a_moment_has_the_time_of_day_that_is_told_now() {
        let clock = WallClock::new(Offset::from_nanos(5_000_000_000));
        let moment = Moment::from_nanos(2_000_000_000);
        assert_eq!(clock.at(moment).elapsed(), Duration::from_secs(7));
        clock.tell(Offset::from_nanos(-1_000_000_000));
        assert_eq!(clock.at(moment).elapsed(), Duration::from_secs(1));
    }
}
