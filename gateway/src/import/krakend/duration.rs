//! Reads durations as Go writes them.

/// Returns a time of Go's as one of ours; `None` if it is none.
pub(super) fn duration(text: &str) -> Option<String> {
    let mut nanos = 0.0_f64;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit_end = rest[end..]
            .find(|c: char| c.is_ascii_digit())
            .map_or(rest.len(), |at| end + at);
        let factor = match &rest[end..unit_end] {
            "ns" => 1.0,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        nanos += number * factor;
        rest = &rest[unit_end..];
    }
    // The shortest time here is a millisecond.
    let millis = (nanos / 1e6).ceil().max(if nanos > 0.0 { 1.0 } else { 0.0 });
    Some(match millis {
        millis if millis >= 3_600_000.0 && millis % 3_600_000.0 == 0.0 => format!("{}h", millis / 3_600_000.0),
        millis if millis >= 60_000.0 && millis % 60_000.0 == 0.0 => format!("{}m", millis / 60_000.0),
        millis if millis >= 1000.0 && millis % 1000.0 == 0.0 => format!("{}s", millis / 1000.0),
        millis => format!("{millis}ms"),
    })
}

/// Returns the milliseconds of a time that [`duration`] wrote.
pub(super) fn millis(time: &str) -> f64 {
    let end = time.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(time.len());
    let number: f64 = time[..end].parse().unwrap_or(0.0);
    number
        * match &time[end..] {
            "h" => 3_600_000.0,
            "m" => 60_000.0,
            "s" => 1000.0,
            _ => 1.0,
        }
}
