//! Writes times, rates and lists for people.

use std::time::Duration;

use crate::limits::kinds::{Account, Kind};

/// Returns a duration with its unit: `250ms`, `1.5s`, `2h`.
pub(super) fn time(time: Duration) -> String {
    let (seconds, millis) = (time.as_secs(), time.as_millis());
    match () {
        () if time == Duration::MAX => "for ever".to_owned(),
        () if millis < 1000 => format!("{millis}ms"),
        () if seconds % 3600 == 0 => format!("{}h", seconds / 3600),
        () if seconds % 60 == 0 => format!("{}min", seconds / 60),
        () => format!("{}s", (time.as_secs_f64() * 100.0).round() / 100.0),
    }
}

/// Returns a rate in the unit in which it is at least one: `10/s`, `30/min`, `5/h`.
fn rate(per_second: f64) -> String {
    let units = [("s", 1.0), ("min", 60.0), ("h", 3600.0)];
    let (unit, seconds) = units
        .into_iter()
        .find(|(_, seconds)| per_second * seconds >= 0.999)
        .unwrap_or(("day", 86_400.0));
    format!("{}/{unit}", (per_second * seconds * 100.0).round() / 100.0)
}

/// Returns the terms of an account: `5/s, burst 10`, `100 in 1min`, `1000 every 24h`, `5 in flight`.
pub(super) fn terms(account: &Account) -> String {
    let terms = account.terms();
    let (most, period) = (terms.most(), terms.period().map(time).unwrap_or_default());
    match (terms.kind(), terms.per_second()) {
        (Kind::Bucket, Some(per_second)) => format!("{}, burst {most}", rate(per_second)),
        (Kind::Window, _) => format!("{most} in {period}"),
        (Kind::InFlight, _) => format!("{most} in flight"),
        _ => format!("{most} every {period}"),
    }
}

/// Returns the words as a list: `a`, `a and b`, `a, b and c`.
pub(super) fn list<S: AsRef<str>>(words: &[S], last: &str) -> String {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    match words.split_last() {
        None => String::new(),
        Some((only, [])) => (*only).to_owned(),
        Some((end, others)) => format!("{} {last} {end}", others.join(", ")),
    }
}

/// Returns a number with its noun: `1 slot`, `2 slots`.
pub(super) fn count(number: u64, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_rates_have_fitting_units() {
        for (millis, expected) in [
            (0, "0ms"),
            (250, "250ms"),
            (1_500, "1.5s"),
            (60_000, "1min"),
            (90_000, "90s"),
            (7_200_000, "2h"),
        ] {
            assert_eq!(time(Duration::from_millis(millis)), expected);
        }
        for (per_second, expected) in [
            (10.0, "10/s"),
            (1.0 / 0.999_999, "1/s"),
            (0.5, "30/min"),
            (1.0 / 3600.0, "1/h"),
            (1.0 / 86_400.0, "1/day"),
        ] {
            assert_eq!(rate(per_second), expected);
        }
        assert_eq!(list(&["a"], "or"), "a");
        assert_eq!(list(&["a", "b", "c"], "or"), "a, b or c");
        assert_eq!(
            (count(1, "slot"), count(0, "slot")),
            ("1 slot".to_owned(), "0 slots".to_owned())
        );
    }
}
