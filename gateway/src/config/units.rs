//! Numbers with units as people write them: `250ms`, `64KiB`, `10/s`, `100ms..1s`.
//!
//! A number that needs a unit and has none is refused, never guessed; the hint says what was probably meant.
//! Knows nothing of YAML.

use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

use super::mistake::Code;
use super::scalar::{Scalar, Wrong};

/// How often: `count` per `per`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub count: NonZeroU64,
    /// A second, minute, hour or day.
    pub per: Duration,
}

/// An amount of data in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A share, from 0 to 1 inclusive.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Ratio(f64);

/// From the first wait to the longest; one duration alone is a constant wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    pub first: Duration,
    /// At least `first`.
    pub cap: Duration,
}

/// The longest duration that makes sense anywhere in a config.
const MAX_DURATION: Duration = Duration::from_secs(366 * 24 * 3600);

impl Ratio {
    /// `None` outside 0 to 1.
    pub fn new(share: f64) -> Option<Self> {
        (0.0..=1.0).contains(&share).then_some(Self(share))
    }

    pub const fn get(self) -> f64 {
        self.0
    }
}

impl Rate {
    pub const fn per_second(count: NonZeroU64) -> Self {
        Self {
            count,
            per: Duration::from_secs(1),
        }
    }
}

impl Scalar for Duration {
    const EXPECTED: &'static str = "a duration such as `250ms`, `10s` or `1m30s`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let mut rest = text;
        let mut total = Self::ZERO;
        if rest.is_empty() {
            return Err(Wrong::kind("is empty"));
        }
        if let Some(fixed) = without_spaces::<Self>(text) {
            return Err(Wrong::kind("has spaces in it").hint(format!("did you mean `{fixed}`?")));
        }
        while !rest.is_empty() {
            let (number, unit, after) = number_and_unit(rest);
            rest = after;
            if number.is_empty() {
                return Err(Wrong::kind("is not a duration"));
            }
            if unit.is_empty() {
                return Err(Wrong::kind("needs a unit").hint(format!("did you mean `{text}s`?")));
            }
            let Ok(number) = number.parse::<u64>() else {
                return Err(Wrong::kind("must be whole").hint("use a smaller unit, as in `1500ms`"));
            };
            total = scale(number, unit, text)?
                .and_then(|part| total.checked_add(part))
                .filter(|total| *total <= MAX_DURATION)
                .ok_or_else(|| Wrong::range("is longer than a year"))?;
        }
        Ok(total)
    }

    fn show(&self) -> String {
        match self.as_nanos() {
            0 => "0s".to_owned(),
            n if n % 3_600_000_000_000 == 0 => format!("{}h", n / 3_600_000_000_000),
            n if n % 60_000_000_000 == 0 => format!("{}m", n / 60_000_000_000),
            n if n % 1_000_000_000 == 0 => format!("{}s", n / 1_000_000_000),
            n if n % 1_000_000 == 0 => format!("{}ms", n / 1_000_000),
            n => format!("{}us", n / 1000),
        }
    }
}

/// `Ok(None)` when the product overflows.
fn scale(number: u64, unit: &str, text: &str) -> Result<Option<Duration>, Wrong> {
    let (nanos, seconds) = match unit {
        "us" => (1000, 0),
        "ms" => (1_000_000, 0),
        "s" => (0, 1),
        "m" => (0, 60),
        "h" => (0, 3600),
        "d" => (0, 24 * 3600),
        _ => {
            let meant = match unit.to_lowercase().as_str() {
                "sec" | "secs" | "second" | "seconds" | "s" => "s",
                "min" | "mins" | "minute" | "minutes" | "m" => "m",
                "hr" | "hour" | "hours" | "h" => "h",
                "day" | "days" | "d" => "d",
                "msec" | "millis" | "milliseconds" | "ms" => "ms",
                _ => {
                    return Err(Wrong::kind("has an unknown unit").hint("units are `us`, `ms`, `s`, `m`, `h` and `d`"));
                }
            };
            let fixed = text.replacen(unit, meant, 1);
            return Err(Wrong::kind("has an unknown unit").hint(format!("did you mean `{fixed}`?")));
        }
    };
    Ok(number
        .checked_mul(nanos)
        .and_then(|nanos| Some(Duration::from_secs(number.checked_mul(seconds)?) + Duration::from_nanos(nanos))))
}

impl Scalar for ByteSize {
    const EXPECTED: &'static str = "a size such as `512B`, `64KiB` or `1MB`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if let Some(fixed) = without_spaces::<Self>(text) {
            return Err(Wrong::kind("has spaces in it").hint(format!("did you mean `{fixed}`?")));
        }
        let (number, unit, rest) = number_and_unit(text);
        if number.is_empty() || !rest.is_empty() {
            return Err(Wrong::kind("is not a size"));
        }
        let Ok(number) = number.parse::<u64>() else {
            return Err(Wrong::kind("must be whole").hint("use a smaller unit, as in `1536KiB`"));
        };
        let factor: u64 = match unit {
            "B" => 1,
            "KB" | "kB" => 1000,
            "KiB" => 1 << 10,
            "MB" => 1_000_000,
            "MiB" => 1 << 20,
            "GB" => 1_000_000_000,
            "GiB" => 1 << 30,
            "" => return Err(Wrong::kind("needs a unit").hint(format!("did you mean `{number}B`?"))),
            other => {
                let hint = match other.to_lowercase().chars().next() {
                    Some(first @ ('k' | 'm' | 'g')) => format!("did you mean `{number}{}iB`?", first.to_uppercase()),
                    _ => "units are `B`, `KB`, `KiB`, `MB`, `MiB`, `GB` and `GiB`".to_owned(),
                };
                return Err(Wrong::kind("has an unknown unit").hint(hint));
            }
        };
        number
            .checked_mul(factor)
            .map(Self)
            .ok_or_else(|| Wrong::range("is too large"))
    }

    fn show(&self) -> String {
        match self.0 {
            0 => "0B".to_owned(),
            n if n % (1 << 30) == 0 => format!("{}GiB", n >> 30),
            n if n % (1 << 20) == 0 => format!("{}MiB", n >> 20),
            n if n % (1 << 10) == 0 => format!("{}KiB", n >> 10),
            n => format!("{n}B"),
        }
    }
}

impl Scalar for Rate {
    const EXPECTED: &'static str = "a rate such as `10/s`, `600/min` or `1000/h`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let Some((count, unit)) = text.split_once('/') else {
            return Err(match text.parse::<u64>() {
                Ok(count) => Wrong::kind("needs a unit").hint(format!("did you mean `{count}/s`?")),
                Err(_) => Wrong::kind("is not a rate"),
            });
        };
        let seconds = match unit {
            "s" => 1,
            "min" => 60,
            "h" => 3600,
            "d" => 24 * 3600,
            other => {
                let meant = match other.to_lowercase().trim() {
                    "sec" | "second" | "s" => "s",
                    "m" | "minute" | "min" => "min",
                    "hr" | "hour" | "h" => "h",
                    "day" | "d" => "d",
                    _ => return Err(Wrong::kind("has an unknown unit").hint("units are `/s`, `/min`, `/h` and `/d`")),
                };
                return Err(
                    Wrong::kind("has an unknown unit").hint(format!("did you mean `{}/{meant}`?", count.trim()))
                );
            }
        };
        if count.contains('.') {
            return Err(Wrong::kind("must be whole").hint("use a longer unit: `0.5/s` is `30/min`"));
        }
        let count = count.parse::<u64>().map_err(|_| Wrong::kind("is not a rate"))?;
        let count = NonZeroU64::new(count).ok_or_else(|| Wrong::range("would let nothing through"))?;
        Ok(Self {
            count,
            per: Duration::from_secs(seconds),
        })
    }

    fn show(&self) -> String {
        let unit = match self.per.as_secs() {
            60 => "min",
            3600 => "h",
            86_400 => "d",
            _ => "s",
        };
        format!("{}/{unit}", self.count)
    }
}

impl Scalar for Ratio {
    const EXPECTED: &'static str = "a ratio from 0 to 1, such as `0.6`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if let Some(percent) = text
            .strip_suffix('%')
            .and_then(|number| number.trim().parse::<f64>().ok())
        {
            return Err(Wrong::kind("is a percentage").hint(format!("did you mean `{}`?", percent / 100.0)));
        }
        // The standard parser also takes `inf`, `nan` and exponents; none of them is how one writes a share.
        if !text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'+'))
        {
            return Err(Wrong::kind("is not a number"));
        }
        let share = text.parse::<f64>().map_err(|_| Wrong::kind("is not a number"))?;
        Self::new(share).ok_or_else(|| Wrong::range("is not between 0 and 1"))
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

impl Scalar for Backoff {
    const EXPECTED: &'static str = "a wait such as `100ms..1s` (first to longest), or one duration for a constant wait";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let (first, cap) = text.split_once("..").unwrap_or((text, text));
        let (first, cap) = (Duration::parse(first.trim())?, Duration::parse(cap.trim())?);
        if first > cap {
            return Err(Wrong::range("begins above its end").hint(format!(
                "did you mean `{}..{}`?",
                cap.show(),
                first.show()
            )));
        }
        Ok(Self { first, cap })
    }

    fn show(&self) -> String {
        if self.first == self.cap {
            self.first.show()
        } else {
            format!("{}..{}", self.first.show(), self.cap.show())
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.show())
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.show())
    }
}

/// A duration in the largest unit that keeps it whole, as one would write it in a config.
pub fn duration_text(duration: Duration) -> String {
    duration.show()
}

/// What a text with spaces in it was probably meant to be.
fn without_spaces<T: Scalar>(text: &str) -> Option<String> {
    let joined: String = text.split_whitespace().collect();
    if joined == text {
        return None;
    }
    match T::parse(&joined) {
        Ok(_) => Some(joined),
        Err(wrong) => Some(
            wrong
                .hint?
                .strip_prefix("did you mean `")?
                .strip_suffix("`?")?
                .to_owned(),
        ),
    }
}

/// Digits and dots, then letters, then what is left.
fn number_and_unit(text: &str) -> (&str, &str, &str) {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    let letters = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(letters);
    (number, unit, rest)
}

impl Wrong {
    /// Not of the kind expected.
    fn kind(label: &str) -> Self {
        Self::new(Code::WrongType, label)
    }

    /// Of the right kind, but impossible.
    fn range(label: &str) -> Self {
        Self::new(Code::OutOfRange, label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `Ok` shows the value back; `Err` is the label and hint.
    fn read<T: Scalar>(text: &str) -> Result<String, String> {
        match T::parse(text) {
            Ok(value) => Ok(value.show()),
            Err(wrong) => Err(wrong
                .hint
                .map_or(wrong.label.clone(), |hint| format!("{}; {hint}", wrong.label))),
        }
    }

    #[track_caller]
    fn check<T: Scalar>(text: &str, expected: Result<&str, &str>) {
        assert_eq!(
            read::<T>(text),
            expected.map(str::to_owned).map_err(str::to_owned),
            "{text:?}"
        );
    }

    #[test]
    fn durations() {
        check::<Duration>("250ms", Ok("250ms"));
        check::<Duration>("10s", Ok("10s"));
        check::<Duration>("90s", Ok("90s"));
        check::<Duration>("120s", Ok("2m"));
        check::<Duration>("1m30s", Ok("90s"));
        check::<Duration>("1h", Ok("1h"));
        check::<Duration>("1d", Ok("24h"));
        check::<Duration>("0s", Ok("0s"));
        check::<Duration>("10", Err("needs a unit; did you mean `10s`?"));
        check::<Duration>("0", Err("needs a unit; did you mean `0s`?"));
        check::<Duration>("5min", Err("has an unknown unit; did you mean `5m`?"));
        check::<Duration>("5S", Err("has an unknown unit; did you mean `5s`?"));
        check::<Duration>(
            "5w",
            Err("has an unknown unit; units are `us`, `ms`, `s`, `m`, `h` and `d`"),
        );
        check::<Duration>("1.5s", Err("must be whole; use a smaller unit, as in `1500ms`"));
        check::<Duration>("-1s", Err("is not a duration"));
        check::<Duration>("", Err("is empty"));
        check::<Duration>("2 seconds", Err("has spaces in it; did you mean `2s`?"));
        check::<Duration>("1m 30s", Err("has spaces in it; did you mean `1m30s`?"));
        check::<Duration>("a while", Err("is not a duration"));
        check::<Duration>("367d", Err("is longer than a year"));
        check::<Duration>("18446744073709551615h", Err("is longer than a year"));
        check::<Duration>(
            "99999999999999999999s",
            Err("must be whole; use a smaller unit, as in `1500ms`"),
        );
    }

    #[test]
    fn sizes() {
        check::<ByteSize>("512B", Ok("512B"));
        check::<ByteSize>("64KiB", Ok("64KiB"));
        check::<ByteSize>("1MB", Ok("1000000B"));
        check::<ByteSize>("2048KiB", Ok("2MiB"));
        check::<ByteSize>("64", Err("needs a unit; did you mean `64B`?"));
        check::<ByteSize>("64k", Err("has an unknown unit; did you mean `64KiB`?"));
        check::<ByteSize>("1mb", Err("has an unknown unit; did you mean `1MiB`?"));
        check::<ByteSize>("10 MB", Err("has spaces in it; did you mean `10MB`?"));
        check::<ByteSize>("many", Err("is not a size"));
        check::<ByteSize>("99999999999GiB", Err("is too large"));
    }

    #[test]
    fn rates() {
        check::<Rate>("10/s", Ok("10/s"));
        check::<Rate>("600/min", Ok("600/min"));
        check::<Rate>("1000/h", Ok("1000/h"));
        check::<Rate>("1/d", Ok("1/d"));
        check::<Rate>("10", Err("needs a unit; did you mean `10/s`?"));
        check::<Rate>("10/m", Err("has an unknown unit; did you mean `10/min`?"));
        check::<Rate>(
            "10/fortnight",
            Err("has an unknown unit; units are `/s`, `/min`, `/h` and `/d`"),
        );
        check::<Rate>("0.5/s", Err("must be whole; use a longer unit: `0.5/s` is `30/min`"));
        check::<Rate>("0/s", Err("would let nothing through"));
        check::<Rate>("-1/s", Err("is not a rate"));
    }

    #[test]
    fn ratios_and_backoffs() {
        check::<Ratio>("0", Ok("0"));
        check::<Ratio>("0.6", Ok("0.6"));
        check::<Ratio>("1", Ok("1"));
        check::<Ratio>("60%", Err("is a percentage; did you mean `0.6`?"));
        check::<Ratio>("1.1", Err("is not between 0 and 1"));
        check::<Ratio>("-0.1", Err("is not between 0 and 1"));
        check::<Ratio>("nan", Err("is not a number"));
        check::<Backoff>("100ms..1s", Ok("100ms..1s"));
        check::<Backoff>("100ms", Ok("100ms"));
        check::<Backoff>("1s..100ms", Err("begins above its end; did you mean `100ms..1s`?"));
        check::<Backoff>("1s..", Err("is empty"));
    }
}
