//! Draws one frame of `gateway top` from two looks at the admin API.
//!
//! Names of tenants come from strangers, so control characters, which a terminal would obey, are replaced.

use policies::Moment;
use serde_json::Value;
use std::fmt::Write as _;

/// Answers of the admin API at one time.
pub(super) struct Sample {
    pub(super) status: Value,
    pub(super) routes: Value,
    pub(super) backends: Value,
    pub(super) groups: Value,
    pub(super) taken: Moment,
}

/// Size of the terminal in characters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) columns: usize,
    pub(super) lines: usize,
}

impl Default for Size {
    fn default() -> Self {
        Self {
            columns: 120,
            lines: 40,
        }
    }
}

/// Emphasis of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Title,
    Plain,
    Bad,
}

/// Returns the lines of the frame, at most as many as fit.
pub(super) fn draw(before: &Sample, now: &Sample, size: Size, has_colors: bool) -> String {
    let seconds = now.taken.since(before.taken).as_secs_f64().max(0.001);
    let frame = Frame { before, now, seconds };
    let mut lines = frame.head();
    // Half of what is left goes to the backends; what a section does not need goes to the next one.
    let mut left = size.lines.saturating_sub(lines.len());
    let sections = [frame.backends(), frame.routes(), frame.refusals()];
    let count = sections.len();
    for (number, section) in sections.into_iter().enumerate() {
        let share = (left / (count - number)).max(3);
        let shown = section.len().min(share).min(left);
        left -= shown;
        lines.extend(section.into_iter().take(shown));
    }
    let mut drawn = String::new();
    for (mood, text) in lines.into_iter().take(size.lines) {
        let text: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        let text: String = text.trim_end().chars().take(size.columns).collect();
        let _ = match mood {
            Mood::Title if has_colors => writeln!(drawn, "\x1b[1m{text}\x1b[0m"),
            Mood::Bad if has_colors => writeln!(drawn, "\x1b[31m{text}\x1b[0m"),
            _ => writeln!(drawn, "{text}"),
        };
    }
    drawn
}

type Line = (Mood, String);

struct Frame<'s> {
    before: &'s Sample,
    now: &'s Sample,
    seconds: f64,
}

impl Frame<'_> {
    fn head(&self) -> Vec<Line> {
        let status = &self.now.status;
        let ready = if status["ready"] == true { "ready" } else { "not ready" };
        let mut lines = vec![(
            Mood::Title,
            format!(
                "gateway {}  {}, {ready}  up {}  {} config {}",
                text(&status["version"]),
                text(&status["phase"]),
                super::super::status::duration(status["uptime_seconds"].as_u64().unwrap_or_default()),
                text(&status["config"]["path"]),
                status["config"]["generation"],
            ),
        )];
        let totals = |sample: &Sample, of: &str| sum(&sample.routes["totals"][of]);
        let grown = |of: &str| totals(self.now, of).saturating_sub(totals(self.before, of));
        let single = |of: fn(&Value) -> u64| {
            let at = |sample: &Sample| of(&sample.routes["totals"]);
            at(self.now).saturating_sub(at(self.before))
        };
        let (requests, refused) = (grown("requests"), grown("rejections"));
        let failed = single(|totals| totals["requests"]["5xx"].as_u64().unwrap_or_default());
        let incomplete = single(|totals| totals["incomplete"].as_u64().unwrap_or_default());
        lines.push((
            Mood::Plain,
            format!(
                "requests {}/s  failed {}  refused {}/s  incomplete {}  in flight {}  connections {}",
                rate(requests as f64 / self.seconds),
                share(failed, requests),
                rate(refused as f64 / self.seconds),
                share(incomplete, requests),
                status["requests_in_flight"],
                status["connections"]["open"],
            ),
        ));
        let breakers = &status["breakers"];
        if let Some(open) = breakers["open"].as_u64().filter(|open| *open > 0) {
            let names: Vec<_> = list(&breakers["open_at"]).iter().take(8).map(text).collect();
            let word = if open == 1 { "breaker" } else { "breakers" };
            lines.push((Mood::Bad, format!("{open} {word} open: {}", names.join(", "))));
        }
        if status["config"]["last_reload"]["successful"] == false {
            lines.push((Mood::Bad, "the last reload failed: gateway status says why".to_owned()));
        }
        lines
    }

    fn backends(&self) -> Vec<Line> {
        let mut lines = title(
            "backend",
            "calls/s  failed   head p50    p99   last p50    p99   slots         breaker",
        );
        for backend in list(&self.now.backends["backends"]) {
            let before = named(&self.before.backends["backends"], backend);
            let calls = |of: Option<&Value>| of.map_or(0, |of| sum(&of["calls"]));
            let good = |of: Option<&Value>| {
                let count = |outcome: &str| of.and_then(|of| of["calls"][outcome].as_u64()).unwrap_or_default();
                count("answered") + count("cancelled") + count("refused")
            };
            let all = grown(calls, before, backend);
            let failed = all.saturating_sub(grown(good, before, backend));
            let times = |of: &str, share| quantile(before.map(|before| &before[of]), &backend[of], share);
            let state = backend["breaker"]["state"].as_str().unwrap_or("off");
            let slots = &backend["bulkhead"];
            let waiting = slots["waiting"].as_u64().filter(|waiting| *waiting > 0);
            let mut row = format!(
                "{} {:>7}  {:>6} {:>10} {:>6} {:>10} {:>6}   {:<13} {state}",
                name(backend),
                rate(all as f64 / self.seconds),
                share(failed, all),
                times("duration", 0.5),
                times("duration", 0.99),
                times("answer_duration", 0.5),
                times("answer_duration", 0.99),
                format!(
                    "{}/{}{}",
                    slots["in_use"],
                    slots["limit"],
                    waiting.map_or_else(String::new, |waiting| format!(" +{waiting}"))
                ),
            );
            if let Some(wait) = backend["breaker"]["retry_in_ms"].as_u64().filter(|_| state == "open") {
                let _ = write!(row, ", probe in {}", millis(wait as f64));
            }
            let endpoints = list(&backend["endpoints"]);
            let is_away = |endpoint: &&Value| {
                ["down", "ejected", "drained"]
                    .iter()
                    .any(|away| endpoint["state"] == *away)
            };
            let away = endpoints.iter().filter(is_away).count();
            if away > 0 {
                let _ = write!(row, ", {away} of {} endpoints away", endpoints.len());
            }
            let is_bad = matches!(state, "open" | "forced_open") || away == endpoints.len() && away > 0;
            lines.push((if is_bad { Mood::Bad } else { Mood::Plain }, row));
        }
        lines
    }

    fn routes(&self) -> Vec<Line> {
        let mut lines = title(
            "route",
            "  req/s     2xx    4xx    5xx  refused  incomplete    p50    p99",
        );
        for route in list(&self.now.routes["routes"]) {
            let before = named(&self.before.routes["routes"], route);
            let grown = |pick: &dyn Fn(&Value) -> u64| {
                let of = |of: Option<&Value>| of.map_or(0, pick);
                grown(of, before, route)
            };
            let class = |class: &str| grown(&|route| route["requests"][class].as_u64().unwrap_or_default());
            let all = grown(&|route| sum(&route["requests"]));
            let incomplete = grown(&|route| route["incomplete"].as_u64().unwrap_or_default());
            let times = |share| quantile(before.map(|before| &before["duration"]), &route["duration"], share);
            let row = format!(
                "{} {:>7} {:>7} {:>6} {:>6} {:>8} {:>11} {:>6} {:>6}",
                name(route),
                rate(all as f64 / self.seconds),
                class("2xx"),
                class("4xx"),
                class("5xx"),
                grown(&|route| sum(&route["rejections"])),
                share(incomplete, all),
                times(0.5),
                times(0.99),
            );
            lines.push((Mood::Plain, row));
        }
        lines
    }

    fn refusals(&self) -> Vec<Line> {
        let mut lines = title("refused because", "    now   in all  tenant                decided by");
        let groups = list(&self.now.groups["groups"]);
        let alike = |one: &Value, other: &Value| {
            ["reason", "tenant", "decided_by", "since"]
                .iter()
                .all(|fact| one[*fact] == other[*fact])
        };
        for group in groups {
            let before = list(&self.before.groups["groups"])
                .iter()
                .find(|before| alike(before, group));
            let count = |of: &Value| of["count"].as_u64().unwrap_or_default();
            let (decided, at) = (&group["decided_by"], &group["decided_by"]["at"]);
            let mut place = text(&decided["setting"]).to_owned();
            if let (Some(file), Some(line)) = (at["file"].as_str(), at["line"].as_u64()) {
                let file = file.rsplit('/').next().unwrap_or(file);
                let _ = write!(place, "  {file}:{line}");
            }
            let row = format!(
                "{} {:>7} {:>8}  {:<20}  {place}",
                fit(text(&group["reason"])),
                count(group).saturating_sub(before.map_or(0, count)),
                count(group),
                group["tenant"].as_str().unwrap_or("nobody"),
            );
            lines.push((Mood::Plain, row));
        }
        if groups.is_empty() {
            lines.clear();
        }
        lines
    }
}

/// Width of the first column.
const NAME: usize = 22;

fn title(what: &str, columns: &str) -> Vec<Line> {
    vec![
        (Mood::Plain, String::new()),
        (Mood::Title, format!("{what:NAME$} {columns}")),
    ]
}

fn name(entry: &Value) -> String {
    fit(text(&entry["name"]))
}

/// Returns the text as wide as the first column; the end of a longer one is cut.
fn fit(text: &str) -> String {
    let cut: String = text.chars().take(NAME).collect();
    format!("{cut:NAME$}")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn sum(counts: &Value) -> u64 {
    let counts = counts.as_object();
    counts.map_or(0, |counts| counts.values().filter_map(Value::as_u64).sum())
}

fn named<'v>(entries: &'v Value, wanted: &Value) -> Option<&'v Value> {
    list(entries).iter().find(|entry| entry["name"] == wanted["name"])
}

/// Returns how much a count has grown; 0 if the entry was not listed before, because then it is not known.
fn grown(count: impl Fn(Option<&Value>) -> u64, before: Option<&Value>, now: &Value) -> u64 {
    before.map_or(0, |before| count(Some(now)).saturating_sub(count(Some(before))))
}

fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate >= 9.95 => format!("{rate:.0}"),
        rate => format!("{rate:.1}"),
    }
}

fn share(part: u64, of: u64) -> String {
    match of {
        0 => "-".to_owned(),
        of => match 100.0 * part as f64 / of as f64 {
            share if share >= 9.95 || part == 0 => format!("{share:.0} %"),
            share => format!("{share:.1} %"),
        },
    }
}

/// Estimates a quantile of the times since `before`, spread evenly within a bucket.
fn quantile(before: Option<&Value>, now: &Value, share: f64) -> String {
    let counts = |times: &Value| -> Vec<u64> { list(&times["at_or_below"]).iter().filter_map(Value::as_u64).collect() };
    let old = before.map(counts).unwrap_or_default();
    let counts = counts(now).into_iter().enumerate();
    let counts: Vec<u64> = counts
        .map(|(at, count)| count.saturating_sub(old.get(at).copied().unwrap_or(0)))
        .collect();
    let bounds = list(&now["le_ms"]);
    let rank = share * counts.last().copied().unwrap_or(0) as f64;
    let found = counts.iter().position(|count| rank > 0.0 && *count as f64 >= rank);
    let Some(found) = found else { return "-".to_owned() };
    let bound = |at: usize| bounds.get(at).and_then(Value::as_f64);
    let (low, below) = match found {
        0 => (0.0, 0),
        found => (bound(found - 1).unwrap_or(0.0), counts[found - 1]),
    };
    let Some(high) = bound(found) else { return millis(low) };
    millis(low + (high - low) * (rank - below as f64) / (counts[found] - below).max(1) as f64)
}

fn millis(time: f64) -> String {
    match time {
        time if time >= 9_950.0 => format!("{:.0}s", time / 1e3),
        time if time >= 995.0 => format!("{:.1}s", time / 1e3),
        time if time >= 9.95 => format!("{time:.0}ms"),
        time => format!("{time:.1}ms"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn sample(seconds: u64, requests: u64, failed: u64) -> Sample {
        let times = json!({ "le_ms": [10.0, 20.0, null], "at_or_below": [requests / 2, requests, requests] });
        Sample {
            taken: Moment::ZERO + Duration::from_secs(seconds),
            status: json!({
                "version": "0.1.0", "phase": "serving", "ready": true, "uptime_seconds": 61 + seconds,
                "requests_in_flight": 3, "connections": { "open": 12 }, "breakers": { "open": 1, "open_at": ["orders"] },
                "config": { "path": "gateway.yaml", "generation": 1, "last_reload": { "successful": true } },
            }),
            routes: json!({
                "routes": [{
                    "name": "home", "requests": { "2xx": requests - failed, "5xx": failed }, "incomplete": failed / 2,
                    "rejections": { "breaker_open": failed }, "duration": times,
                }],
                "totals": { "requests": { "2xx": requests - failed, "5xx": failed }, "rejections": { "breaker_open": failed }, "incomplete": failed / 2 },
            }),
            backends: json!({ "backends": [{
                "name": "orders", "calls": { "answered": requests - failed, "failed_status": failed }, "duration": times,
                "answer_duration": times, "breaker": { "state": "open", "retry_in_ms": 2500 },
                "bulkhead": { "in_use": 3, "limit": 20, "waiting": 1 },
                "endpoints": [{ "state": "up" }, { "state": "ejected" }],
            }] }),
            groups: json!({ "groups": [{
                "reason": "breaker_open", "tenant": "acme\u{1b}[2J", "count": failed, "since": "2026-11-30T12:00:00Z",
                "decided_by": { "setting": "backends.orders.breaker", "at": { "file": "/etc/gateway.yaml", "line": 12 } },
            }] }),
        }
    }

    #[test]
    fn a_frame_says_what_happens_now() {
        let frame = |size| draw(&sample(0, 100, 0), &sample(2, 300, 20), size, false);
        let expected = "\
gateway 0.1.0  serving, ready  up 1 min 3 s  gateway.yaml config 1
requests 100/s  failed 10 %  refused 10/s  incomplete 5.0 %  in flight 3  connections 12
1 breaker open: orders

backend                calls/s  failed   head p50    p99   last p50    p99   slots         breaker
orders                     100    10 %       10ms   20ms       10ms   20ms   3/20 +1       open, probe in 2.5s, 1 of 2 endpoints away

route                    req/s     2xx    4xx    5xx  refused  incomplete    p50    p99
home                       100     180      0     20       20       5.0 %   10ms   20ms

refused because            now   in all  tenant                decided by
breaker_open                20       20  acme?[2J              backends.orders.breaker  gateway.yaml:12
";
        let wide = Size {
            columns: 200,
            lines: 40,
        };
        assert_eq!(frame(wide), expected);
        let small = Size { columns: 40, lines: 6 };
        let drawn = frame(small);
        assert!(
            drawn.lines().count() <= 6 && drawn.lines().all(|line| line.chars().count() <= 40),
            "{drawn}"
        );
    }

    #[test]
    fn colors_are_for_terminals() {
        let (before, now) = (sample(0, 100, 0), sample(2, 300, 20));
        let drawn = draw(&before, &now, Size::default(), true);
        assert!(drawn.contains("\x1b[31m1 breaker open: orders\x1b[0m\n"), "{drawn:?}");
        assert!(!drawn.contains("\x1b[2J"), "a name is not obeyed");
        assert!(!draw(&before, &now, Size::default(), false).contains('\x1b'));
    }

    #[test]
    fn numbers_are_short() {
        let cases = [(0.4, "0.4ms"), (12.3, "12ms"), (1234.0, "1.2s"), (25_000.0, "25s")];
        for (time, expected) in cases {
            assert_eq!(millis(time), expected);
        }
        assert_eq!(
            [share(0, 0), share(0, 5), share(1, 100), share(1, 3)],
            ["-", "0 %", "1.0 %", "33 %"]
        );
        assert_eq!([rate(0.0), rate(9.94), rate(1234.5)], ["0.0", "9.9", "1234"]);
    }
}
