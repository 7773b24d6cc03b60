//! Computes the minutes, hours, days, weeks and months of UTC.
//!
//! Leap seconds do not exist here, as in Unix time. Weeks begin on Monday (ISO 8601). The days of a month come from
//! Howard Hinnant's `days_from_civil` and `civil_from_days` (<https://howardhinnant.github.io/date_algorithms.html>).
//! Their year begins in March, so that the leap day comes last.
//!
//! Invariant: the periods of a kind follow each other without gap or overlap; each begins on a full minute.

use std::time::Duration;

/// Date and time of day, as the time since 1970-01-01T00:00Z. Unlike a [`Moment`](crate::Moment) it can be set forwards
/// and backwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(Duration);

impl WallTime {
    pub const fn since_epoch(elapsed: Duration) -> WallTime {
        WallTime(elapsed)
    }

    pub const fn elapsed(self) -> Duration {
        self.0
    }

    pub(super) const fn minute(self) -> u64 {
        self.0.as_secs() / 60
    }

    pub(super) const fn of_minute(minute: u64) -> WallTime {
        WallTime(Duration::from_secs(minute.saturating_mul(60)))
    }
}

/// Length of a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Every {
    Minute,
    Hour,
    Day,
    Week,
    Month,
}

impl Every {
    /// Returns the start of the period that contains `time`; for the week of the epoch, the epoch.
    pub fn start(self, time: WallTime) -> WallTime {
        WallTime::of_minute(self.first_minute(time.minute()))
    }

    /// Returns the start of the next period.
    pub fn end(self, time: WallTime) -> WallTime {
        WallTime::of_minute(self.next_minute(time.minute()))
    }

    /// Returns the first minute of the period that contains `minute`.
    pub(super) const fn first_minute(self, minute: u64) -> u64 {
        let day = minute / MINUTES_OF_DAY;
        match self {
            Every::Minute => minute,
            Every::Hour => minute - minute % 60,
            Every::Day => day * MINUTES_OF_DAY,
            Every::Week => day.saturating_sub(weekday(day)) * MINUTES_OF_DAY,
            Every::Month => {
                let (year, month) = month_of_day(day);
                first_day(year, month) * MINUTES_OF_DAY
            }
        }
    }

    /// Returns the first minute of the next period.
    pub(super) const fn next_minute(self, minute: u64) -> u64 {
        let day = minute / MINUTES_OF_DAY;
        match self {
            Every::Minute => minute + 1,
            Every::Hour => minute - minute % 60 + 60,
            Every::Day => (day + 1) * MINUTES_OF_DAY,
            Every::Week => (day + 7 - weekday(day)) * MINUTES_OF_DAY,
            Every::Month => {
                let (year, month) = month_of_day(day);
                let (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
                first_day(year, month) * MINUTES_OF_DAY
            }
        }
    }
}

const MINUTES_OF_DAY: u64 = 24 * 60;

/// Returns the days since Monday; the epoch was a Thursday.
const fn weekday(day: u64) -> u64 {
    (day + 3) % 7
}

/// Days from 0000-03-01 to the epoch.
const DAYS_BEFORE_EPOCH: u64 = 719_468;
/// Days in 400 years.
const DAYS_OF_ERA: u64 = 146_097;

/// Returns the year and the month (1 to 12) of a day since the epoch: `civil_from_days` for days from the epoch on.
const fn month_of_day(day: u64) -> (u64, u64) {
    let day = day + DAYS_BEFORE_EPOCH;
    let (era, day_of_era) = (day / DAYS_OF_ERA, day % DAYS_OF_ERA);
    let leap_days = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let year = era * 400 + year_of_era;
    if from_march < 10 {
        (year, from_march + 3)
    } else {
        (year + 1, from_march - 9)
    }
}

/// Returns the first day of a month, as days since the epoch: `days_from_civil`.
const fn first_day(year: u64, month: u64) -> u64 {
    let (year, from_march) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * from_march + 2) / 5;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * DAYS_OF_ERA + day_of_era - DAYS_BEFORE_EPOCH
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: u64 = 86_400;

    fn at(seconds: u64) -> WallTime {
        WallTime::since_epoch(Duration::from_secs(seconds))
    }

    /// Seconds since the epoch as `date -u +%s` prints them.
    #[test]
    fn periods_of_the_calendar() {
        let check = |every: Every, time: u64, start: u64, end: u64| {
            assert_eq!(
                (every.start(at(time)), every.end(at(time))),
                (at(start), at(end)),
                "{every:?} at {time}"
            );
        };
        // 2024-02-29T12:34:56Z, a Thursday.
        let leap_day = 1_709_210_096;
        check(Every::Minute, leap_day, 1_709_210_040, 1_709_210_100);
        check(Every::Hour, leap_day, 1_709_208_000, 1_709_211_600);
        check(Every::Day, leap_day, 1_709_164_800, 1_709_251_200);
        // Monday, 26 February to Monday, 4 March.
        check(Every::Week, leap_day, 1_708_905_600, 1_709_510_400);
        check(Every::Month, leap_day, 1_706_745_600, 1_709_251_200);
        // The last second of 2023 and the first second of 2024, a Monday.
        check(Every::Month, 1_704_067_199, 1_701_388_800, 1_704_067_200);
        check(Every::Week, 1_704_067_199, 1_703_462_400, 1_704_067_200);
        check(Every::Month, 1_704_067_200, 1_704_067_200, 1_706_745_600);
        check(Every::Week, 1_704_067_200, 1_704_067_200, 1_704_672_000);
        // 2100 has no 29 February.
        check(Every::Month, 4_107_542_399, 4_105_123_200, 4_107_542_400);
        // The epoch was a Thursday.
        check(Every::Week, 0, 0, 4 * DAY);
        check(Every::Week, 4 * DAY, 4 * DAY, 11 * DAY);
        check(Every::Month, 0, 0, 31 * DAY);
    }

    /// Counts day by day for 500 years and compares.
    #[test]
    fn months_as_a_calendar_on_the_wall_has_them() {
        let mut day = 0;
        for year in 1970..2_470u64 {
            let leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
            for (month, days) in (1..).zip([31, 28 + u64::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]) {
                assert_eq!(first_day(year, month), day);
                for _ in 0..days {
                    assert_eq!(month_of_day(day), (year, month), "day {day}");
                    day += 1;
                }
            }
        }
    }

    proptest! {
        #![proptest_config(cases::counted())]

        #[test]
        fn periods_follow_each_other(seconds in 0..20_000_000_000u64, nanos in 0..1_000_000_000u32) {
            let time = WallTime::since_epoch(Duration::new(seconds, nanos));
            for every in [Every::Minute, Every::Hour, Every::Day, Every::Week, Every::Month] {
                let (start, end) = (every.start(time), every.end(time));
                prop_assert!(start <= time && time < end);
                prop_assert_eq!((every.start(start), every.end(start)), (start, end));
                let last = WallTime::since_epoch(end.elapsed() - Duration::from_nanos(1));
                prop_assert_eq!((every.start(last), every.end(last)), (start, end));
                prop_assert_eq!(every.start(end), end);
            }
        }

        #[test]
        fn weeks_begin_on_monday(seconds in 7 * DAY..20_000_000_000u64) {
            // 2024-01-01 was a Monday.
            let (week, monday) = (7 * DAY, 1_704_067_200 % (7 * DAY));
            prop_assert_eq!(Every::Week.start(at(seconds)).elapsed().as_secs() % week, monday);
        }
    }
}
