//! Reads numbers with units: `250ms`, `64KiB`, `10/s`, `100ms..1s`.
//!
//! A number that needs a unit and has none is refused, never guessed; the hint says what was probably meant. Knows
//! nothing of YAML.

use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

use super::mistake::Code;
use super::scalar::{Scalar, Wrong};

/// A rate: `count` per `per`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub count: NonZeroU64,
    /// One second, minute, hour or day.
    pub per: Duration,
}

/// An amount of data, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A fraction from 0 to 1, both included.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Ratio(f64);

/// A percentage from 0 to 100, with at most two decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent {
    /// Hundredths of a percent.
    hundredths: u16,
}

/// Range of waits, from the first to the longest. A single duration means a constant wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    pub first: Duration,
    /// Longest wait; at least `first`.
    pub cap: Duration,
}

/// Longest duration that is accepted in a config.
const MAX_DURATION: Duration = Duration::from_secs(366 * 24 * 3600);

impl Ratio {
    /// Returns `None` outside 0 to 1.
    pub fn new(share: f64) -> Option<Self> {
        (0.0..=1.0).contains(&share).then_some(Self(share))
    }

    pub const fn get(self) -> f64 {
        self.0
    }
}

impl Percent {
    pub const ALL: Self = Self { hundredths: 10_000 };

    /// Returns `None` above 100 %.
    pub const fn from_hundredths(hundredths: u16) -> Option<Self> {
        if hundredths <= Self::ALL.hundredths {
            Some(Self { hundredths })
        } else {
            None
        }
    }

    pub const fn hundredths(self) -> u16 {
        self.hundredths
    }
}

impl Rate {
    const UNITS: [(&'static str, u64); 4] = [("s", 1), ("min", 60), ("h", 3600), ("d", 24 * 3600)];

    pub const fn per_second(count: NonZeroU64) -> Self {
        Self {
            count,
            per: Duration::from_secs(1),
        }
    }
}

/// Writes the rate in one form, however it is written: in lowest terms, per second.
impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut count, mut seconds) = (self.count.get(), self.per.as_secs());
        let (mut divisor, mut rest) = (count, seconds);
        while rest != 0 {
            (divisor, rest) = (rest, divisor % rest);
        }
        count /= divisor.max(1);
        seconds /= divisor.max(1);
        match seconds {
            1 => write!(f, "{count}/s"),
            _ => write!(f, "{count}/{seconds}s"),
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
        if is_negative(text) {
            return Err(Wrong::range("is negative"));
        }
        while !rest.is_empty() {
            let (number, unit, after) = number_and_unit(rest);
            rest = after;
            if number.is_empty() {
                return Err(not_a_duration(text));
            }
            if unit.is_empty() {
                return Err(if number == text {
                    needs_unit(text)
                } else {
                    not_a_duration(text)
                });
            }
            let Ok(number) = number.parse::<u64>() else {
                let meant = exact_duration(text).map(|meant| meant.show());
                let wrong = Wrong::kind("must be whole");
                return Err(match meant {
                    Some(meant) => wrong.hint(format!("did you mean `{meant}`?")),
                    None => wrong.hint("use a smaller unit, as in `1500ms`"),
                });
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

/// Returns whether a text is a negative number, with or without a unit.
fn is_negative(text: &str) -> bool {
    text.strip_prefix('-')
        .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit() || first == '.'))
}

/// Suggests a unit for a bare number: milliseconds for thousands, and both units for smaller numbers.
fn needs_unit(number: &str) -> Wrong {
    let wrong = Wrong::kind("needs a unit");
    let Ok(count) = number.parse::<u64>() else {
        return match exact_duration(&format!("{number}s")) {
            Some(seconds) => wrong.hint(format!("did you mean `{}`?", seconds.show())),
            None => wrong,
        };
    };
    let short = |duration: Duration| (duration <= MAX_DURATION).then(|| duration.show());
    let (seconds, millis) = (short(Duration::from_secs(count)), short(Duration::from_millis(count)));
    let words = match count {
        0 => vec![seconds],
        1..=120 => vec![seconds, millis],
        _ if count < 1000 => vec![millis, seconds],
        // The same duration in two forms, so that it can be recognised.
        _ if count % 1000 == 0 => vec![
            millis,
            short(Duration::from_millis(count)).map(|_| format!("{count}ms")),
        ],
        _ if count % 500 != 0 && count % 60 == 0 => vec![seconds, millis],
        _ => vec![millis],
    };
    let words: Vec<_> = words.into_iter().flatten().map(|word| format!("`{word}`")).collect();
    if words.is_empty() {
        return Wrong::range("is longer than a year");
    }
    wrong.hint(format!("did you mean {}?", words.join(" or ")))
}

fn not_a_duration(text: &str) -> Wrong {
    let wrong = Wrong::kind("is not a duration");
    // A duration of ISO 8601, as in `PT1M30S`.
    let iso = text
        .strip_prefix(['P', 'p'])
        .map(|rest| rest.replace(['T', 't'], "").to_lowercase());
    match iso.and_then(|iso| exact_duration(&iso)) {
        Some(meant) => wrong.hint(format!("did you mean `{}`?", meant.show())),
        None => wrong,
    }
}

/// Parses a duration with fractions, if it is a whole number of microseconds.
fn exact_duration(text: &str) -> Option<Duration> {
    let (mut total, mut rest) = (Duration::ZERO, text);
    while !rest.is_empty() {
        let (number, unit, after) = number_and_unit(rest);
        let one = scale(1, unit_meant(unit)?, text).ok()??;
        let nanos = exact(number, u64::try_from(one.as_nanos()).ok()?)?;
        total = total.checked_add(Duration::from_nanos(nanos))?;
        rest = after;
    }
    let fits = total <= MAX_DURATION && total.subsec_nanos() % 1000 == 0 && !text.is_empty();
    fits.then_some(total)
}

/// Multiplies a decimal number by `one`, if the result is whole.
fn exact(decimal: &str, one: u64) -> Option<u64> {
    let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.len() > 9 || fraction.contains('.') {
        return None;
    }
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let digits = |text: &str| {
        if text.is_empty() {
            Some(0)
        } else {
            text.parse::<u64>().ok()
        }
    };
    let parts = (u128::from(digits(whole)?) * scale + u128::from(digits(fraction)?)) * u128::from(one);
    (parts % scale == 0).then(|| u64::try_from(parts / scale).ok())?
}

/// Returns the unit for a spelling that is common elsewhere.
fn unit_meant(unit: &str) -> Option<&'static str> {
    Some(match unit.to_lowercase().as_str() {
        "sec" | "secs" | "second" | "seconds" | "s" => "s",
        "min" | "mins" | "minute" | "minutes" | "m" => "m",
        "hr" | "hrs" | "hour" | "hours" | "h" => "h",
        "day" | "days" | "d" => "d",
        "msec" | "msecs" | "milli" | "millis" | "millisecond" | "milliseconds" | "ms" => "ms",
        "usec" | "usecs" | "micros" | "microsecond" | "microseconds" | "\u{b5}s" | "\u{3bc}s" | "us" => "us",
        _ => return None,
    })
}

/// Returns `number` of `unit` as a duration, or `Ok(None)` if it overflows.
fn scale(number: u64, unit: &str, text: &str) -> Result<Option<Duration>, Wrong> {
    let (nanos, seconds) = match unit {
        "us" => (1000, 0),
        "ms" => (1_000_000, 0),
        "s" => (0, 1),
        "m" => (0, 60),
        "h" => (0, 3600),
        "d" => (0, 24 * 3600),
        _ => {
            let Some(meant) = unit_meant(unit) else {
                return Err(Wrong::kind("has an unknown unit").hint("units are `us`, `ms`, `s`, `m`, `h` and `d`"));
            };
            let fixed = text.replacen(unit, meant, 1);
            let wrong = Wrong::kind("has an unknown unit");
            return Err(match Duration::parse(&fixed) {
                Ok(_) => wrong.hint(format!("did you mean `{fixed}`?")),
                Err(another) => match another.hint {
                    Some(hint) => wrong.hint(hint),
                    None => wrong,
                },
            });
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
        if is_negative(text) {
            return Err(Wrong::range("is negative"));
        }
        if number.is_empty() || !rest.is_empty() {
            return Err(Wrong::kind("is not a size"));
        }
        if unit.is_empty() {
            return Err(size_needs_unit(number));
        }
        let Some(factor) = bytes_of(unit) else {
            let wrong = Wrong::kind("has an unknown unit");
            let meant = match unit.to_lowercase().as_str() {
                "b" | "byte" | "bytes" => "B",
                "k" | "kb" | "kib" | "ki" => "KiB",
                "m" | "mb" | "mib" | "mi" => "MiB",
                "g" | "gb" | "gib" | "gi" => "GiB",
                _ => return Err(wrong.hint("units are `B`, `KB`, `KiB`, `MB`, `MiB`, `GB` and `GiB`")),
            };
            let bytes = bytes_of(meant).and_then(|one| exact(number, one));
            return Err(match bytes {
                Some(_) if !number.contains('.') => wrong.hint(format!("did you mean `{number}{meant}`?")),
                Some(bytes) => wrong.hint(format!("did you mean `{}`?", shortest_size(bytes))),
                None => wrong,
            });
        };
        let Ok(number) = number.parse::<u64>() else {
            let wrong = Wrong::kind("must be whole");
            return Err(match exact(number, factor) {
                Some(bytes) => wrong.hint(format!("did you mean `{}`?", shortest_size(bytes))),
                None => wrong.hint("use a smaller unit, as in `1536KiB`"),
            });
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

fn bytes_of(unit: &str) -> Option<u64> {
    Some(match unit {
        "B" => 1,
        "KB" | "kB" => 1000,
        "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "GiB" => 1 << 30,
        _ => return None,
    })
}

/// Writes a size in the largest unit that keeps it whole.
fn shortest_size(bytes: u64) -> String {
    let binary = ByteSize(bytes).show();
    let decimal = [("GB", 1_000_000_000), ("MB", 1_000_000), ("KB", 1000)];
    match decimal
        .into_iter()
        .find(|(_, one)| bytes > 0 && bytes.is_multiple_of(*one))
    {
        Some((unit, one)) if binary == format!("{bytes}B") => format!("{}{unit}", bytes / one),
        _ => binary,
    }
}

/// Suggests a unit for a bare number: bytes for thousands, and several units for smaller numbers.
fn size_needs_unit(number: &str) -> Wrong {
    let wrong = Wrong::kind("needs a unit");
    match number.parse::<u64>() {
        Ok(0) => wrong.hint("did you mean `0B`?"),
        Ok(small @ 1..1000) => wrong.hint(format!("did you mean `{small}MiB`, `{small}KiB` or `{small}B`?")),
        Ok(bytes) if shortest_size(bytes) == format!("{bytes}B") => wrong.hint(format!("did you mean `{bytes}B`?")),
        Ok(bytes) => wrong.hint(format!("did you mean `{}` or `{bytes}B`?", shortest_size(bytes))),
        Err(_) => wrong.hint("units are `B`, `KB`, `KiB`, `MB`, `MiB`, `GB` and `GiB`"),
    }
}

impl Scalar for Rate {
    const EXPECTED: &'static str = "a rate such as `10/s`, `600/min` or `1000/h`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if is_negative(text) {
            return Err(Wrong::range("is negative"));
        }
        let meant = |label: &str| {
            let wrong = Wrong::kind(label);
            match rate_meant(text) {
                Some(rate) => wrong.hint(format!("did you mean `{}`?", rate.show())),
                None => wrong,
            }
        };
        let Some((count, unit)) = text.split_once('/') else {
            let is_number = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
            return Err(meant(if is_number { "needs a unit" } else { "is not a rate" }));
        };
        let Some((_, seconds)) = Self::UNITS.into_iter().find(|(known, _)| *known == unit) else {
            let wrong = meant("has an unknown unit");
            return Err(match wrong.hint {
                Some(_) => wrong,
                None => wrong.hint("units are `/s`, `/min`, `/h` and `/d`"),
            });
        };
        if count.contains('.') {
            let wrong = meant("must be whole");
            return Err(match wrong.hint {
                Some(_) => wrong,
                None => wrong.hint("use a longer unit: `0.5/s` is `30/min`"),
            });
        }
        let count = count.parse::<u64>().map_err(|_| meant("is not a rate"))?;
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

/// Parses a rate in another form: `10r/s`, `0.5/s`, `100/1m`, `10rps` or `10 per second`.
fn rate_meant(text: &str) -> Option<Rate> {
    let text: String = text
        .to_lowercase()
        .chars()
        .filter(|c| !matches!(c, '_' | ',' | ' '))
        .collect();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    let counted = ["requests", "request", "reqs", "req", "tokens", "calls", "r", ""];
    let rest = counted.into_iter().find_map(|word| rest.strip_prefix(word))?;
    let unit = ["/", "per", "p"].into_iter().find_map(|word| rest.strip_prefix(word));
    let unit = match unit {
        Some(unit) => unit,
        None if rest.is_empty() => "s",
        None => return None,
    };
    let seconds = match unit {
        "s" | "sec" | "secs" | "second" | "seconds" => 1,
        "m" | "min" | "mins" | "minute" | "minutes" => 60,
        "h" | "hr" | "hour" | "hours" => 3600,
        "d" | "day" | "days" => 24 * 3600,
        other => exact_duration(other).filter(|per| per.subsec_nanos() == 0)?.as_secs(),
    };
    // The shortest unit in which the number is whole.
    Rate::UNITS.into_iter().find_map(|(_, one)| {
        let scaled = exact(number, one)?;
        let count = (seconds > 0 && scaled % seconds == 0).then(|| scaled / seconds)?;
        let (count, per) = (NonZeroU64::new(count)?, Duration::from_secs(one));
        (one >= seconds || seconds > 24 * 3600).then_some(Rate { count, per })
    })
}

impl Scalar for Ratio {
    const EXPECTED: &'static str = "a ratio from 0 to 1, such as `0.6`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let hint = |wrong: Wrong, share: f64| match Self::new(share) {
            Some(share) => wrong.hint(format!("did you mean `{}`?", share.show())),
            None => wrong,
        };
        if let Some(percent) = text
            .strip_suffix('%')
            .and_then(|number| number.trim().parse::<f64>().ok())
        {
            return Err(hint(Wrong::kind("is a percentage"), percent / 100.0));
        }
        if let Some(share) = text
            .contains(',')
            .then(|| text.replace(',', ".").parse().ok())
            .flatten()
        {
            return Err(hint(Wrong::kind("is not a number"), share));
        }
        // The standard parser also accepts `inf`, `nan` and exponents, which are not allowed here.
        if !text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'+'))
        {
            return Err(Wrong::kind("is not a number"));
        }
        let share = text.parse::<f64>().map_err(|_| Wrong::kind("is not a number"))?;
        Self::new(share).ok_or_else(|| {
            let wrong = Wrong::range("is not between 0 and 1");
            // A whole number was probably meant as a percentage.
            if share >= 5.0 && share.fract() == 0.0 {
                hint(wrong, share / 100.0)
            } else {
                wrong
            }
        })
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

impl Scalar for Percent {
    const EXPECTED: &'static str = "a percentage such as `5` or `0.25`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if let Some(number) = text.strip_suffix('%') {
            let wrong = Wrong::kind("needs no sign");
            return Err(match Self::parse(number.trim()) {
                Ok(percent) => wrong.hint(format!("did you mean `{}`?", percent.show())),
                Err(_) => wrong,
            });
        }
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_digits(whole) || !is_digits(decimals) {
            return Err(Wrong::kind("is not a percentage"));
        }
        if decimals.len() > 2 {
            return Err(Wrong::range("has more than two decimals"));
        }
        let fraction = format!("{decimals:0<2}");
        let hundredths = whole
            .parse::<u16>()
            .ok()
            .and_then(|whole| whole.checked_mul(100)?.checked_add(fraction.parse().ok()?));
        hundredths
            .and_then(Self::from_hundredths)
            .ok_or_else(|| Wrong::range("is above 100"))
    }

    fn show(&self) -> String {
        let (whole, fraction) = (self.hundredths / 100, self.hundredths % 100);
        match fraction {
            0 => whole.to_string(),
            tenths if tenths % 10 == 0 => format!("{whole}.{}", tenths / 10),
            _ => format!("{whole}.{fraction:02}"),
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.show())
    }
}

impl Scalar for Backoff {
    const EXPECTED: &'static str = "a wait such as `100ms..1s` (first to longest), or one duration for a constant wait";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let (first, cap) = text.split_once("..").unwrap_or((text, text));
        let (first, cap) = (first.trim(), cap.trim());
        let (first, cap) = match (Duration::parse(first), Duration::parse(cap)) {
            (Ok(first), Ok(cap)) => (first, cap),
            (Err(wrong), _) | (_, Err(wrong)) => return Err(backoff_meant(text, wrong)),
        };
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

/// Describes a wrong wait, with a hint that contains both durations.
fn backoff_meant(text: &str, wrong: Wrong) -> Wrong {
    let between = ["...", "..", "-", ",", " to ", ":", ";", "/"];
    let parts = between.into_iter().find_map(|between| text.split_once(between));
    let Some((first, cap)) = parts else { return wrong };
    let meant = |part: &str| -> Option<Duration> {
        let part = part.trim().trim_matches(['[', ']']);
        match Duration::parse(part) {
            Ok(duration) => Some(duration),
            // A wait without a unit is taken as milliseconds.
            Err(_) => part
                .parse()
                .map(Duration::from_millis)
                .ok()
                .or_else(|| exact_duration(part)),
        }
    };
    let (Some(first), Some(cap)) = (meant(first), meant(cap)) else {
        return Wrong { hint: None, ..wrong };
    };
    if first > cap {
        return Wrong { hint: None, ..wrong };
    }
    wrong.hint(format!("did you mean `{}`?", Backoff { first, cap }.show()))
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

/// Writes a duration in the largest unit that keeps it whole, in the form used in a config.
pub fn duration_text(duration: Duration) -> String {
    duration.show()
}

/// Returns a size with its unit, as in a config.
pub fn size_text(bytes: u64) -> String {
    ByteSize(bytes).show()
}

/// Reads a duration in the form used in a config.
///
/// # Errors
/// Words that say what is wrong, without the text.
pub fn read_duration(text: &str) -> Result<Duration, String> {
    Duration::parse(text).map_err(|Wrong { label, hint, .. }| match hint {
        Some(hint) => format!("{label}; {hint}"),
        None => label,
    })
}

/// Returns what a text with spaces was probably meant to be.
fn without_spaces<T: Scalar>(text: &str) -> Option<String> {
    let joined: String = text.split_whitespace().collect();
    if joined == text {
        return None;
    }
    match T::parse(&joined) {
        Ok(_) => Some(joined),
        Err(wrong) => {
            let hint = wrong.hint?;
            let first = hint.strip_prefix("did you mean `")?.split('`').next()?;
            Some(first.to_owned())
        }
    }
}

/// Splits a text into digits and dots, then letters, then the rest.
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
    /// Creates the error for a value of another kind.
    fn kind(label: &str) -> Self {
        Self::new(Code::WrongType, label)
    }

    /// Creates the error for a value of the right kind that is not possible.
    fn range(label: &str) -> Self {
        Self::new(Code::OutOfRange, label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the value as it is shown, or the label and the hint.
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
        check::<Duration>("10", Err("needs a unit; did you mean `10s` or `10ms`?"));
        check::<Duration>("500", Err("needs a unit; did you mean `500ms` or `500s`?"));
        check::<Duration>("2000", Err("needs a unit; did you mean `2s` or `2000ms`?"));
        check::<Duration>("1500", Err("needs a unit; did you mean `1500ms`?"));
        check::<Duration>("3600", Err("needs a unit; did you mean `1h` or `3600ms`?"));
        check::<Duration>("30000", Err("needs a unit; did you mean `30s` or `30000ms`?"));
        check::<Duration>("0.5", Err("needs a unit; did you mean `500ms`?"));
        check::<Duration>("1.2.3", Err("needs a unit"));
        check::<Duration>("99999999999999", Err("is longer than a year"));
        check::<Duration>("1_000ms", Err("is not a duration"));
        check::<Duration>("PT1M30S", Err("is not a duration; did you mean `90s`?"));
        check::<Duration>("PT0.5S", Err("is not a duration; did you mean `500ms`?"));
        check::<Duration>("P1DT2H", Err("is not a duration; did you mean `26h`?"));
        check::<Duration>("00:00:30", Err("is not a duration"));
        check::<Duration>("2.5m", Err("must be whole; did you mean `150s`?"));
        check::<Duration>("1m1.5s", Err("must be whole; did you mean `61500ms`?"));
        check::<Duration>("1.5 seconds", Err("has spaces in it; did you mean `1500ms`?"));
        check::<Duration>("250micros", Err("has an unknown unit; did you mean `250us`?"));
        check::<Duration>("0.5sec", Err("must be whole; did you mean `500ms`?"));
        check::<Duration>("0", Err("needs a unit; did you mean `0s`?"));
        check::<Duration>("5min", Err("has an unknown unit; did you mean `5m`?"));
        check::<Duration>("5S", Err("has an unknown unit; did you mean `5s`?"));
        check::<Duration>(
            "5w",
            Err("has an unknown unit; units are `us`, `ms`, `s`, `m`, `h` and `d`"),
        );
        check::<Duration>("1.5s", Err("must be whole; did you mean `1500ms`?"));
        check::<Duration>("0.0000001s", Err("must be whole; use a smaller unit, as in `1500ms`"));
        check::<Duration>("-1s", Err("is negative"));
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
        check::<ByteSize>("64", Err("needs a unit; did you mean `64MiB`, `64KiB` or `64B`?"));
        check::<ByteSize>("10485760", Err("needs a unit; did you mean `10MiB` or `10485760B`?"));
        check::<ByteSize>("1000000", Err("needs a unit; did you mean `1MB` or `1000000B`?"));
        check::<ByteSize>("1234", Err("needs a unit; did you mean `1234B`?"));
        check::<ByteSize>("0", Err("needs a unit; did you mean `0B`?"));
        check::<ByteSize>("10Mi", Err("has an unknown unit; did you mean `10MiB`?"));
        check::<ByteSize>("10bytes", Err("has an unknown unit; did you mean `10B`?"));
        check::<ByteSize>("1.5M", Err("has an unknown unit; did you mean `1536KiB`?"));
        check::<ByteSize>("1.5MB", Err("must be whole; did you mean `1500KB`?"));
        check::<ByteSize>("0.5MiB", Err("must be whole; did you mean `512KiB`?"));
        check::<ByteSize>(
            "1T",
            Err("has an unknown unit; units are `B`, `KB`, `KiB`, `MB`, `MiB`, `GB` and `GiB`"),
        );
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
        check::<Rate>("0.5/s", Err("must be whole; did you mean `30/min`?"));
        check::<Rate>("0.01/s", Err("must be whole; did you mean `36/h`?"));
        check::<Rate>("1.5/min", Err("must be whole; did you mean `90/h`?"));
        check::<Rate>(
            "0.3333333/s",
            Err("must be whole; use a longer unit: `0.5/s` is `30/min`"),
        );
        check::<Rate>("0.5", Err("needs a unit; did you mean `30/min`?"));
        check::<Rate>("5/10s", Err("has an unknown unit; did you mean `30/min`?"));
        check::<Rate>("100/1m", Err("has an unknown unit; did you mean `100/min`?"));
        check::<Rate>("10/second", Err("has an unknown unit; did you mean `10/s`?"));
        check::<Rate>("10 / s", Err("has an unknown unit; did you mean `10/s`?"));
        check::<Rate>("10r/s", Err("is not a rate; did you mean `10/s`?"));
        check::<Rate>("100req/min", Err("is not a rate; did you mean `100/min`?"));
        check::<Rate>("1_000/s", Err("is not a rate; did you mean `1000/s`?"));
        check::<Rate>("10rps", Err("is not a rate; did you mean `10/s`?"));
        check::<Rate>("100rpm", Err("is not a rate; did you mean `100/min`?"));
        check::<Rate>("10 requests per second", Err("is not a rate; did you mean `10/s`?"));
        check::<Rate>("unlimited", Err("is not a rate"));
        check::<Rate>("0/s", Err("would let nothing through"));
        check::<Rate>("-1/s", Err("is negative"));
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
        check::<Ratio>("60", Err("is not between 0 and 1; did you mean `0.6`?"));
        check::<Ratio>("150", Err("is not between 0 and 1"));
        check::<Ratio>("150%", Err("is a percentage"));
        check::<Percent>("5", Ok("5"));
        check::<Percent>("0.25", Ok("0.25"));
        check::<Percent>("12.50", Ok("12.5"));
        check::<Percent>("100", Ok("100"));
        check::<Percent>("0", Ok("0"));
        check::<Percent>("5%", Err("needs no sign; did you mean `5`?"));
        check::<Percent>("100.01", Err("is above 100"));
        check::<Percent>("70000", Err("is above 100"));
        check::<Percent>("0.125", Err("has more than two decimals"));
        check::<Percent>("-1", Err("is not a percentage"));
        check::<Percent>("five", Err("is not a percentage"));
        check::<Ratio>("0,6", Err("is not a number; did you mean `0.6`?"));
        check::<Backoff>("100..1000", Err("needs a unit; did you mean `100ms..1s`?"));
        check::<Backoff>("100ms-1s", Err("is not a duration; did you mean `100ms..1s`?"));
        check::<Backoff>("100ms, 1s", Err("is not a duration; did you mean `100ms..1s`?"));
        check::<Backoff>("0.1s..1s", Err("must be whole; did you mean `100ms..1s`?"));
        check::<Backoff>("100", Err("needs a unit; did you mean `100s` or `100ms`?"));
        check::<Backoff>("100ms..1s", Ok("100ms..1s"));
        check::<Backoff>("100ms", Ok("100ms"));
        check::<Backoff>("1s..100ms", Err("begins above its end; did you mean `100ms..1s`?"));
        check::<Backoff>("1s..", Err("is empty"));
    }

    /// Checks that every suggested value is valid as it stands.
    fn suggestions_hold<T: Scalar>(text: &str) {
        let Err(Wrong { hint: Some(hint), .. }) = T::parse(text) else {
            return;
        };
        let Some(meant) = hint.strip_prefix("did you mean ") else {
            return;
        };
        for suggested in meant.split('`').skip(1).step_by(2) {
            assert!(T::parse(suggested).is_ok(), "{text:?}: {hint}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { cases: 500, ..cases::counted() })]

        #[test]
        fn what_is_suggested_can_be_written(
            number in "[0-9]{1,7}(\\.[0-9]{1,4})?",
            between in "( |/|\\.\\.|-|_| per | to )?",
            unit in "(s|S|m|M|ms|MS|h|d|sec|Seconds|min|millis|us|b|B|k|kb|Kb|KiB|Mi|mb|MB|G|gib|T|bytes|rps|rpm|r/s|req/min|10s|1m|hour|%|,5|w)?",
        ) {
            for text in [format!("{number}{between}{unit}"), format!("{number}{unit}{between}{number}{unit}"), format!("PT{number}{unit}")] {
                suggestions_hold::<Duration>(&text);
                suggestions_hold::<ByteSize>(&text);
                suggestions_hold::<Rate>(&text);
                suggestions_hold::<Ratio>(&text);
                suggestions_hold::<Backoff>(&text);
            }
        }
    }
}
