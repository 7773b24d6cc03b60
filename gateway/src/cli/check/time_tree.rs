//! Draws the time budget of a route as a tree that fits a terminal, with the config lines that set each limit.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use crate::plan::calls::{BackendCalls, FanOut, TierCalls};
use crate::plan::outline::{Outline, RouteOutline, TargetOutline};
use crate::plan::time_budget::{CallBudget, Limit, PartBudget, TimeBudget, Uses};

/// Appends the route's tree to `page`. Every line ends in a newline.
pub(super) fn draw(page: &mut String, route: &RouteOutline, outline: &Outline) {
    let tree = Tree { route, outline };
    let rows = tree.rows(&route.time_budget);
    let width = |column: fn(&Row) -> &str| rows.iter().map(|row| column(row).chars().count()).max();
    let labels = width(|row| &row.label).unwrap_or_default().max(20);
    let times = width(|row| &row.time).unwrap_or_default().max(7);
    let _ = writeln!(page, "routes.{}  {}", route.name, tree.matches());
    for Row { label, time, note } in rows {
        let line = format!("  {label:labels$}  {time:>times$}  {note}");
        page.push_str(line.trim_end());
        page.push('\n');
    }
}

struct Tree<'a> {
    route: &'a RouteOutline,
    outline: &'a Outline,
}

struct Row {
    /// Indented by the depth of the row.
    label: String,
    time: String,
    note: String,
}

impl Row {
    fn new(label: impl Into<String>, time: Duration, note: impl Into<String>) -> Self {
        Self {
            label: label.into(),
            time: time_text(time),
            note: note.into(),
        }
    }
}

impl Tree<'_> {
    fn rows(&self, budget: &TimeBudget) -> Vec<Row> {
        let mut rows = vec![Row::new("route", budget.limit.time, self.source(&budget.limit))];
        if let Some(turn) = &budget.turn {
            rows.push(Row::new("  rate limit", turn.time, self.source(turn)));
        }
        match &budget.uses {
            Uses::Call(call) => self.steps(call, &mut rows),
            Uses::OneOf(calls) => {
                self.split(&mut rows);
                calls.iter().for_each(|call| self.steps(call, &mut rows));
            }
            Uses::Parts(parts) => parts.iter().for_each(|part| self.part(part, &mut rows)),
            Uses::Nothing => {}
        }
        self.mirror(&mut rows);
        rows.push(Row::new("worst case", budget.worst.time, verdict(budget)));
        if let Some(fan_out) = &self.route.fan_out {
            calls(fan_out, &mut rows);
        }
        if self.route.stream {
            rows.push(Row {
                label: "stream".to_owned(),
                time: String::new(),
                note: "goes on after its head, time_limits.idle_stream between two pieces, stream_limit in all"
                    .to_owned(),
            });
        }
        rows
    }

    /// Adds a row for each backend that shares the route's requests, with its share.
    fn split(&self, rows: &mut Vec<Row>) {
        let TargetOutline::Split { entries, .. } = &self.route.target else {
            return;
        };
        let key = entries
            .iter()
            .find_map(|entry| entry.key.as_deref())
            .unwrap_or("tenant");
        for entry in entries {
            let mut note = format!("to {}", entry.backend);
            if !entry.when.is_empty() {
                let _ = write!(note, " if {}", entry.when.join(" and "));
            }
            let time = match entry.percent {
                Some(percent) => {
                    let _ = match key {
                        "none" => write!(note, ", each request by chance"),
                        key => write!(note, ", by {key}"),
                    };
                    format!("{percent}%")
                }
                None if entry.when.is_empty() => "rest".to_owned(),
                None => "all".to_owned(),
            };
            rows.push(Row {
                label: "  split".to_owned(),
                time,
                note,
            });
        }
    }

    /// Adds a row for the copies of the route's requests, which take none of its time.
    fn mirror(&self, rows: &mut Vec<Row>) {
        let Some(mirror) = &self.route.mirror else { return };
        let methods = match mirror.methods.split_last() {
            Some((last, others)) if !others.is_empty() => format!("{} and {last}", others.join(", ")),
            _ => mirror.methods.concat(),
        };
        let by = match &*mirror.key {
            _ if mirror.percent >= 100.0 => "every request".to_owned(),
            "none" => "each request by chance".to_owned(),
            key => format!("by {key}"),
        };
        rows.push(Row {
            label: "  mirror".to_owned(),
            time: format!("{}%", mirror.percent),
            note: format!("{methods} to {}, {by}; never waited for", mirror.to),
        });
    }

    fn steps(&self, call: &CallBudget, rows: &mut Vec<Row>) {
        rows.push(Row::new(
            format!("  call {}", title(call)),
            call.limit.time,
            self.source(&call.limit),
        ));
        if !call.queue.is_zero() {
            let setting = format!("backends.{}.bulkhead.wait", call.backend);
            rows.push(Row::new("    queue", call.queue, self.place(&setting)));
        }
        rows.push(Row::new("    attempt 1", call.attempt.time, self.source(&call.attempt)));
        for (number, backoff) in (2..).zip(&call.backoffs) {
            let asked = if call.heeds_retry_after {
                "or what Retry-After asks for, if it fits"
            } else {
                ""
            };
            rows.push(Row::new("    backoff", *backoff, asked));
            rows.push(Row::new(format!("    attempt {number}"), call.attempt.time, ""));
        }
    }

    fn part(&self, part: &PartBudget, rows: &mut Vec<Row>) {
        let source = if part.limit.setting == part.call.limit.setting {
            self.source(&part.limit)
        } else {
            match self.outline.place(&part.limit.setting) {
                Some(at) => format!("its time_limit, {}:{}", file_name(&at.file), at.line),
                None => "its time_limit".to_owned(),
            }
        };
        rows.push(Row::new(format!("  part {}", part.name), part.limit.time, source));
        if !part.needs.is_empty() {
            let label = format!("    after {}", part.needs.join(", "));
            rows.push(Row::new(label, part.starts, "at the latest"));
        }
        let call = &part.call;
        let label = format!("    call {}", title(call));
        rows.push(Row::new(label, call.limit.time, steps_text(call)));
        for other in &part.stand_ins {
            let label = format!("    or else {}", title(other));
            rows.push(Row::new(label, other.limit.time, steps_text(other)));
        }
        if part.waves > 1 {
            rows.push(Row::new(
                "    for each",
                part.uncut(),
                format!("{} waves of calls", part.waves),
            ));
        }
    }

    /// Returns the setting that a limit comes from.
    fn source(&self, limit: &Limit) -> String {
        let place = self.place(&limit.setting);
        if limit.setting == "time_limits.request" {
            // The limit is what remains of the setting.
            let (setting, at) = place.split_at(limit.setting.len());
            format!("{setting} less reserve{at}")
        } else {
            place
        }
    }

    /// Returns a setting and the config line that it stands on.
    fn place(&self, setting: &str) -> String {
        match self.outline.place(setting) {
            Some(at) if self.outline.is_written(setting) => {
                format!("{setting}, {}:{}", file_name(&at.file), at.line)
            }
            _ => format!("{setting} (default)"),
        }
    }

    fn matches(&self) -> String {
        let matches = &self.route.matches;
        let (methods, one) = (
            matches.methods.join(","),
            matches.hosts.len() <= 1 && matches.paths.len() + matches.prefixes.len() <= 1,
        );
        let first = |all: &[String]| all.first().cloned().unwrap_or_default();
        let others = if one { "" } else { " and others" };
        let path = match matches.paths.first() {
            Some(path) => path.clone(),
            None => format!("{} and below", first(&matches.prefixes)),
        };
        format!("{methods} {}{path}{others}", first(&matches.hosts))
            .trim_start()
            .to_owned()
    }
}

/// Adds rows for the most calls of a request, and for the most calls per backend that one caller of each tier can
/// cause.
fn calls(fan_out: &FanOut, rows: &mut Vec<Row>) {
    let retries = match fan_out.attempts {
        attempts if attempts == fan_out.calls => String::new(),
        attempts => format!("{attempts} with all retries; "),
    };
    rows.push(Row {
        label: "calls a request".to_owned(),
        time: fan_out.calls.to_string(),
        note: format!("{retries}by backend, and of a caller at full rate"),
    });
    for BackendCalls { backend, calls } in &fan_out.backends {
        let of_tier = |tier: &TierCalls| {
            let rate = number_text(tier.requests_per_second * *calls as f64);
            format!("{} {rate}/s", tier.tier)
        };
        rows.push(Row {
            label: format!("  to {backend}"),
            time: calls.to_string(),
            note: fan_out.tiers.iter().map(of_tier).collect::<Vec<_>>().join(", "),
        });
    }
}

/// Formats a number with only the digits it needs: `40`, `0.5`, `3.333`.
fn number_text(number: f64) -> String {
    let text = format!("{number:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Returns the name of a backend, and its protocol if that is not HTTP/1.1.
fn title(call: &CallBudget) -> String {
    match call.protocol {
        "http1" => call.backend.to_string(),
        other => format!("{} ({other})", call.backend),
    }
}

/// Returns the steps of a part's call, which the part's limit cuts.
fn steps_text(call: &CallBudget) -> String {
    let mut text = String::new();
    if !call.queue.is_zero() {
        let _ = write!(text, "queue {}, ", time_text(call.queue));
    }
    let attempt = time_text(call.attempt.time);
    match call.backoffs.as_slice() {
        [] => {
            let _ = write!(text, "1 attempt of {attempt}");
        }
        backoffs => {
            let _ = write!(text, "{} attempts of {attempt}, ", backoffs.len() + 1);
            let all: Vec<_> = backoffs.iter().map(|wait| time_text(*wait)).collect();
            let _ = write!(text, "backoff {}", all.join(", "));
        }
    }
    text
}

fn verdict(budget: &TimeBudget) -> String {
    let worst = &budget.worst;
    let (uncut, decider) = (time_text(worst.uncut), &worst.decided_by);
    match &budget.uses {
        Uses::Nothing => "answered by the gateway itself".to_owned(),
        Uses::Parts(parts) => {
            let chain: Vec<_> = parts.iter().filter(|part| part.critical).collect();
            let mut order: Vec<_> = chain.iter().map(|part| (part.starts, &*part.name)).collect();
            order.sort_by_key(|(starts, _)| *starts);
            let names: Vec<_> = order.into_iter().map(|(_, name)| name).collect();
            let names = names.join(", then ");
            if worst.uncut > worst.time {
                format!("cut by {decider}; uncut it could take {uncut}: {names}")
            } else {
                format!("the longest way: {names}")
            }
        }
        Uses::Call(_) | Uses::OneOf(_) if worst.uncut > worst.time => {
            format!("cut by {decider}; uncut it could take {uncut}")
        }
        Uses::Call(_) | Uses::OneOf(_) if worst.uncut < worst.time => {
            format!("if Retry-After asks for it, up to {decider}; {uncut} otherwise")
        }
        Uses::Call(_) | Uses::OneOf(_) => "nothing is cut".to_owned(),
    }
}

/// Formats a time rounded up to the next millisecond: `800ms`, `1.3s`, `2m5s`, `1h30m`.
fn time_text(time: Duration) -> String {
    let millis = time.as_nanos().div_ceil(1_000_000);
    if millis < 1000 && millis > 0 {
        return format!("{millis}ms");
    }
    let (hours, minutes) = (millis / 3_600_000, millis / 60_000 % 60);
    let mut text = String::new();
    for (amount, unit) in [(hours, 'h'), (minutes, 'm')] {
        if amount > 0 {
            let _ = write!(text, "{amount}{unit}");
        }
    }
    let millis = millis % 60_000;
    if millis > 0 || text.is_empty() {
        let seconds = format!("{}.{:03}", millis / 1000, millis % 1000);
        let _ = write!(text, "{}s", seconds.trim_end_matches('0').trim_end_matches('.'));
    }
    text
}

/// Returns the name of a file without its folder, which is the config's folder or near it.
fn file_name(path: &str) -> &str {
    Path::new(path)
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short_and_never_too_small() {
        for (time, text) in [
            (Duration::ZERO, "0s"),
            (Duration::from_nanos(1), "1ms"),
            (Duration::from_millis(800), "800ms"),
            (Duration::from_nanos(999_000_001), "1s"),
            (Duration::from_millis(1300), "1.3s"),
            (Duration::from_millis(11_110), "11.11s"),
            (Duration::from_secs(125), "2m5s"),
            (Duration::from_secs(5400), "1h30m"),
            (Duration::from_millis(3_600_001), "1h0.001s"),
        ] {
            assert_eq!(time_text(time), text);
        }
    }
}
