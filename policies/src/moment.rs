//! Represents an instant on a clock that this crate never reads.
//!
//! Arithmetic saturates at both ends. A clock that stands still, jumps or runs backwards can make an answer early or
//! late, but never causes a panic.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

/// Nanoseconds since an epoch that the user of the crate chooses, best the start of the process: the buckets count 36
/// years from it and refuse everything after that.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    pub const ZERO: Moment = Moment(0);
    pub const MAX: Moment = Moment(u64::MAX);

    pub const fn from_nanos(nanos: u64) -> Moment {
        Moment(nanos)
    }

    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// Returns the time from `earlier` to this moment; zero if `earlier` is later.
    pub const fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    pub fn saturating_sub(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_sub(nanos(duration)))
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_add(nanos(duration)))
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{:?}", Duration::from_nanos(self.0))
    }
}

/// Returns a duration in nanoseconds, at most `u64::MAX` (584 years).
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn arithmetic_saturates() {
        let check = |moment: Moment, expected: u64| assert_eq!(moment.nanos(), expected);
        check(Moment::ZERO + Duration::from_nanos(7), 7);
        check(Moment::from_nanos(7).saturating_sub(Duration::from_nanos(2)), 5);
        check(Moment::from_nanos(7).saturating_sub(Duration::from_nanos(8)), 0);
        check(Moment::MAX + Duration::from_nanos(1), u64::MAX);
        check(Moment::ZERO + Duration::MAX, u64::MAX);
    }

    #[test]
    fn reads_as_the_time_since_the_epoch() {
        assert_eq!(format!("{:?}", Moment::from_nanos(1_500_000_000)), "@1.5s");
    }

    #[test]
    fn nothing_passes_while_time_runs_backwards() {
        assert_eq!(Moment::from_nanos(5).since(Moment::from_nanos(9)), Duration::ZERO);
    }

    proptest! {
        #![proptest_config(cases::counted())]

        #[test]
        fn since_undoes_add(start in 0..u64::MAX / 2, length in 0..u64::MAX / 2) {
            let (start, length) = (Moment::from_nanos(start), Duration::from_nanos(length));
            prop_assert_eq!((start + length).since(start), length);
        }
    }
}
