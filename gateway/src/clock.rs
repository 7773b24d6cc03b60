//! The only file that reads a clock: every other part is told the time.
//!
//! [`now`] is monotonic and counts from the start of the process; it follows tokio's paused clock in tests.
//! [`unix_seconds`] is the wall clock, for tokens, certificates and the calendar alone.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use policies::{Moment, WallTime};
use tokio::time::Instant;

/// The instant that [`Moment::ZERO`] stands for: an hour before the first reading, so that a policy may look back.
fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(|| {
        let now = Instant::now();
        now.checked_sub(Duration::from_secs(3600)).unwrap_or(now)
    })
}

/// The two clocks at one instant: rates go by the one, the calendar by the other.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    pub moment: Moment,
    pub wall: WallTime,
}

impl Now {
    pub fn read() -> Self {
        Self {
            moment: now(),
            wall: WallTime::since_epoch(unix_time()),
        }
    }
}

/// The monotonic time.
#[inline]
pub fn now() -> Moment {
    Moment::from_nanos(u64::try_from(Instant::now().saturating_duration_since(epoch()).as_nanos()).unwrap_or(u64::MAX))
}

/// The instant a timer must be set to, to fire at `moment`.
#[inline]
pub fn instant(moment: Moment) -> Instant {
    // No timer is further away than this; the bound keeps the addition from overflowing.
    const FAR: Duration = Duration::from_secs(100 * 366 * 24 * 3600);
    epoch() + moment.since(Moment::ZERO).min(FAR)
}

/// Whole seconds since 1970-01-01T00:00:00Z.
pub fn unix_seconds() -> u64 {
    unix_time().as_secs()
}

/// Time since 1970-01-01T00:00:00Z.
pub fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Ready when `moment` has come.
pub async fn wait_until(moment: Moment) {
    tokio::time::sleep_until(instant(moment)).await;
}
