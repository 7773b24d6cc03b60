//! Formats a point in time by RFC 3339, in UTC with milliseconds.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// Time since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timestamp(pub Duration);

impl Timestamp {
    /// Formats the time without its fraction, as in the key file: `2027-01-31T00:00:00Z`.
    pub fn whole_seconds(self) -> String {
        let mut text = Self(Duration::from_secs(self.0.as_secs())).to_string();
        text.truncate(text.len() - ".000Z".len());
        text + "Z"
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (year, month, day) = civil(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        let millis = self.0.subsec_millis();
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z"
        )
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Converts days since 1970-01-01 to year, month and day. Years are counted from March, so that a leap day is the last
/// day of its year. A calendar cycle has 400 years, or 146,097 days.
const fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (cycle, day_of_cycle) = (shifted / 146_097, shifted % 146_097);
    let year_of_cycle = (day_of_cycle - day_of_cycle / 1460 + day_of_cycle / 36_524 - day_of_cycle / 146_096) / 365;
    let day_of_year = day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let march_based = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_based + 2) / 5 + 1;
    let month = if march_based < 10 {
        march_based + 3
    } else {
        march_based - 9
    };
    let year = cycle * 400 + year_of_cycle + (month <= 2) as u64;
    (year, month, day)
}

/// Returns milliseconds with three decimals.
pub(super) fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_instants_are_written_as_the_standard_says() {
        fn check(millis: u64, expected: &str) {
            assert_eq!(Timestamp(Duration::from_millis(millis)).to_string(), expected);
        }
        check(0, "1970-01-01T00:00:00.000Z");
        check(946_684_799_999, "1999-12-31T23:59:59.999Z");
        check(951_782_400_000, "2000-02-29T00:00:00.000Z");
        check(1_709_210_096_007, "2024-02-29T12:34:56.007Z");
        check(1_740_787_200_000, "2025-03-01T00:00:00.000Z");
        check(4_107_542_400_000, "2100-03-01T00:00:00.000Z");
        assert_eq!(
            Timestamp(Duration::from_millis(999)).whole_seconds(),
            "1970-01-01T00:00:00Z"
        );
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut expected = (1970, 1, 1);
        for days in 0..400 * 366 {
            assert_eq!(civil(days), expected);
            let (year, month, day) = expected;
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 => 28 + u64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            expected = match (month, day) {
                (12, 31) => (year + 1, 1, 1),
                (_, day) if day == length => (year, month + 1, 1),
                _ => (year, month, day + 1),
            };
        }
    }
}
