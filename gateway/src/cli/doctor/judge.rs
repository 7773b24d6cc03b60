//! Judges what a gateway has counted: ten symptoms, each with what was seen, the line to change and what to write there.
//!
//! Counts are those since the start, and a symptom needs a share and a number: few events are no symptom. Knows nothing
//! of how the counts were had.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::snapshot::{Snapshot, number, place, sum, text};

/// Fewest calls or requests from which a share says something.
const FEW: f64 = 20.0;

/// A trouble, and what helps.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Finding {
    /// Stable word.
    pub(super) symptom: &'static str,
    pub(super) title: &'static str,
    /// Backend, tenant or limit that has it.
    pub(super) subject: String,
    pub(super) evidence: String,
    /// Change that helps, in the words of the config.
    pub(super) advice: String,
    /// Path of the setting to change.
    pub(super) setting: String,
    /// File and line of the setting, or of the section around it.
    pub(super) at: Option<String>,
}

/// Returns all findings: those of backends, then those of tenants and of the gateway itself.
pub(super) fn judge(snapshot: &Snapshot) -> Vec<Finding> {
    let of_backend = [flapping, never_recovers, slow, crowded, retries, storm, shared];
    let backends = snapshot.backends.iter();
    let mut findings: Vec<_> = backends
        .flat_map(|backend| of_backend.iter().filter_map(|symptom| symptom(snapshot, backend)))
        .collect();
    findings.extend(snapshot.tenants.iter().filter_map(limited));
    findings.extend(snapshot.routes.iter().filter_map(left));
    findings.extend(ROOMS.iter().filter_map(|room| memory(snapshot, room)));
    findings
}

fn finding(symptom: &'static str, title: &'static str, subject: impl Into<String>) -> Finding {
    Finding {
        symptom,
        title,
        subject: subject.into(),
        evidence: String::new(),
        advice: String::new(),
        setting: String::new(),
        at: None,
    }
}

/// Returns the trouble of a backend, with the setting at its own line or at that of the backend.
fn of_backend(
    backend: &Value,
    (symptom, title): (&'static str, &'static str),
    (key, pointer): (&str, &str),
    evidence: String,
    advice: impl Into<String>,
) -> Finding {
    let name = text(backend, "/name");
    Finding {
        evidence,
        advice: advice.into(),
        setting: format!("backends.{name}.{key}"),
        at: place(backend, pointer).or_else(|| place(backend, "/at")),
        ..finding(symptom, title, format!("backend {name}"))
    }
}

fn percent(part: f64, whole: f64) -> String {
    format!("{:.0} %", 100.0 * part / whole.max(1.0))
}

/// Writes milliseconds as the config does, rounded up to two digits.
fn written(millis: f64) -> String {
    let unit = 10_f64.powf(millis.max(1.0).log10().floor() - 1.0).max(1.0);
    let millis = (millis / unit).ceil() * unit;
    let time = Duration::from_millis(millis as u64);
    match time.as_millis() {
        millis if millis % 1000 == 0 => format!("{}s", millis / 1000),
        millis => format!("{millis}ms"),
    }
}

/// Writes a rate as the config does, rounded up, in the unit in which it is at least one.
fn per(second: f64) -> String {
    let units = [("s", 1.0), ("min", 60.0), ("h", 3600.0)];
    let (unit, seconds) = units
        .into_iter()
        .find(|(_, seconds)| second * seconds >= 1.0)
        .unwrap_or(("d", 86_400.0));
    format!("{}/{unit}", (second * seconds).ceil())
}

/// The breaker opens again and again.
fn flapping(snapshot: &Snapshot, backend: &Value) -> Option<Finding> {
    const OFTEN: f64 = 3.0;
    let labels = [("backend", text(backend, "/name")), ("to", "open")];
    let opened = snapshot.metric("gateway_breaker_transitions_total", &labels);
    if opened < OFTEN {
        return None;
    }
    let (all, answered) = (sum(backend, "/attempts"), number(backend, "/attempts/answered"));
    let failed = all - answered;
    let ratio = number(backend, "/breaker/settings/failure_ratio");
    let min_calls = number(backend, "/breaker/settings/min_calls");
    let advice = if failed / all.max(1.0) >= ratio / 2.0 {
        let open_for = number(backend, "/breaker/settings/open_for_ms");
        format!(
            "mend the backend; until then ask it less often: `open_for: {}`",
            written(2.0 * open_for)
        )
    } else {
        format!("judge it by more calls: `min_calls: {}`", (2.0 * min_calls).max(20.0))
    };
    let evidence = format!(
        "opened {opened} times; {} of {all} attempts failed",
        percent(failed, all)
    );
    Some(of_backend(
        backend,
        ("breaker_flaps", "The breaker opens again and again"),
        ("breaker", "/breaker_at"),
        evidence,
        advice,
    ))
}

/// The breaker is open or half-open, and its probes fail.
fn never_recovers(_: &Snapshot, backend: &Value) -> Option<Finding> {
    const AGAIN: f64 = 3.0;
    let reopenings = number(backend, "/breaker/counts/reopenings");
    if reopenings < AGAIN || !matches!(text(backend, "/breaker/state"), "open" | "half_open") {
        return None;
    }
    let open_for = number(backend, "/breaker/settings/open_for_ms");
    let probes = number(backend, "/breaker/settings/probes");
    let advice = match probes {
        more if more > 1.0 => "let one good probe close it: `probes: 1`".to_owned(),
        _ => format!("ask more often: `open_for: {}`", written((open_for / 2.0).max(1000.0))),
    };
    let evidence = format!(
        "{reopenings} probes in a row have failed, with {} between them",
        written(open_for)
    );
    Some(of_backend(
        backend,
        ("breaker_never_recovers", "The breaker does not close any more"),
        ("breaker", "/breaker_at"),
        evidence,
        advice,
    ))
}

/// Many calls end at the time limit.
fn slow(_: &Snapshot, backend: &Value) -> Option<Finding> {
    const SHARE: f64 = 0.05;
    let (calls, late) = (sum(backend, "/calls"), number(backend, "/calls/timed_out"));
    if calls < FEW || late / calls < SHARE {
        return None;
    }
    let limit = number(backend, "/time_limit_ms").min(number(backend, "/attempt_limit_ms"));
    let (p50, p99) = (number(backend, "/duration/p50_ms"), number(backend, "/duration/p99_ms"));
    let advice = match p50 {
        p50 if 3.0 * p50 < limit => {
            format!(
                "most calls take {}: give the others up sooner with `attempt_limit: {}`, and retry or fall back",
                written(p50),
                written(3.0 * p50)
            )
        }
        _ => format!(
            "if callers can wait: `time_limit: {}`, twice the p99; else a `fallback` on its routes",
            written(2.0 * p99.max(limit))
        ),
    };
    let evidence = format!(
        "{} of {calls} calls timed out at {}; p50 {}, p99 {}",
        percent(late, calls),
        written(limit),
        written(p50),
        written(p99)
    );
    let key = if 3.0 * p50 < limit {
        "attempt_limit"
    } else {
        "time_limit"
    };
    Some(of_backend(
        backend,
        ("deadlines", "Time limits are exceeded"),
        (key, "/at"),
        evidence,
        advice,
    ))
}

/// The bulkhead refuses.
fn crowded(_: &Snapshot, backend: &Value) -> Option<Finding> {
    const SHARE: f64 = 0.01;
    let admitted = number(backend, "/bulkhead/outcomes/admitted");
    let refused = number(backend, "/bulkhead/outcomes/full") + number(backend, "/bulkhead/outcomes/timeout");
    let all = admitted + refused;
    if all < FEW || refused / all < SHARE {
        return None;
    }
    let limit = number(backend, "/bulkhead/limit");
    let needed = (limit * all / admitted.max(1.0))
        .min(4.0 * limit)
        .ceil()
        .max(limit + 1.0);
    let advice = match backend
        .pointer("/bulkhead/adaptive")
        .is_some_and(|bounds| !bounds.is_null())
    {
        true => format!(
            "if the backend can take more: `to: {}`",
            2.0 * number(backend, "/bulkhead/adaptive/to")
        ),
        false => format!("if the backend can take more at once: `limit: {needed}`; else it is too slow: add endpoints"),
    };
    let evidence = format!(
        "{refused} of {all} calls found no slot of {limit} ({})",
        percent(refused, all)
    );
    Some(of_backend(
        backend,
        ("bulkhead_rejections", "Calls find no slot"),
        ("bulkhead", "/bulkhead/at"),
        evidence,
        advice,
    ))
}

/// Retries multiply the calls.
fn retries(_: &Snapshot, backend: &Value) -> Option<Finding> {
    const SHARE: f64 = 0.15;
    let made = [
        "answered",
        "failed_status",
        "unreached",
        "broken",
        "invalid",
        "timed_out",
    ];
    let attempts: f64 = made
        .iter()
        .map(|outcome| number(backend, &format!("/attempts/{outcome}")))
        .sum();
    let calls: f64 = made
        .iter()
        .map(|outcome| number(backend, &format!("/calls/{outcome}")))
        .sum();
    let retried = attempts - calls;
    if calls < FEW || retried / calls < SHARE || number(backend, "/retry/attempts") < 2.0 {
        return None;
    }
    let share = number(backend, "/retry/budget/share");
    let advice = match number(backend, "/retry/attempts") {
        more if more > 2.0 => "repeat once at most: `attempts: 2`".to_owned(),
        _ => format!(
            "let retries be a smaller part: `share: {}`",
            (share * 50.0).round() / 100.0
        ),
    };
    let evidence = format!(
        "{attempts} attempts for {calls} calls: {} more",
        percent(retried, calls)
    );
    Some(of_backend(
        backend,
        ("retries_multiply", "Retries multiply the load"),
        ("retry", "/at"),
        evidence,
        advice,
    ))
}

/// The retry budget is empty: so much fails that retries would make it worse.
fn storm(_: &Snapshot, backend: &Value) -> Option<Finding> {
    const SHARE: f64 = 0.05;
    let (stopped, calls) = (number(backend, "/retry/stopped/budget_empty"), sum(backend, "/calls"));
    if calls < FEW || stopped / calls < SHARE {
        return None;
    }
    let advice = match number(backend, "/retry/budget/floor_per_second") {
        floor if floor > 1.0 => "wait longer between attempts: `backoff: 500ms..5s`, `jitter: 0.5`, `floor: 1/s`",
        _ => "wait longer between attempts: `backoff: 500ms..5s`, `jitter: 0.5`",
    };
    let evidence = format!(
        "{stopped} retries were not made because the budget was empty ({} of the calls)",
        percent(stopped, calls)
    );
    Some(of_backend(
        backend,
        ("retry_storm", "More fails than may be repeated"),
        ("retry", "/at"),
        evidence,
        advice,
    ))
}

/// A backend without room shares its servers with another one.
fn shared(snapshot: &Snapshot, backend: &Value) -> Option<Finding> {
    let trouble = crowded(snapshot, backend).or_else(|| slow(snapshot, backend))?;
    let urls = |backend: &Value| -> Vec<String> {
        let endpoints = backend["endpoints"].as_array().into_iter().flatten();
        endpoints.map(|endpoint| text(endpoint, "/url").to_owned()).collect()
    };
    let own = urls(backend);
    let other = snapshot
        .backends
        .iter()
        .find(|other| other["name"] != backend["name"] && urls(other).iter().any(|url| own.contains(url)))?;
    let (limit, of_other) = (number(backend, "/bulkhead/limit"), number(other, "/bulkhead/limit"));
    let evidence = format!(
        "{}; backend {} has the same endpoint, so {} calls may be there at once",
        trouble.evidence,
        text(other, "/name"),
        limit + of_other
    );
    let advice = format!(
        "give each its own servers, or share out what one can take: `limit: {}` here and there",
        (limit.min(of_other) / 2.0).ceil()
    );
    Some(of_backend(
        backend,
        ("shared_pool", "Two backends contend for one server"),
        ("endpoints", "/at"),
        evidence,
        advice,
    ))
}

/// A tenant is refused by its limits.
fn limited(tenant: &Value) -> Option<Finding> {
    const SHARE: f64 = 0.05;
    let (total, refused) = (number(tenant, "/requests/total"), number(tenant, "/requests/limited"));
    if total < FEW || refused / total < SHARE {
        return None;
    }
    let limits = tenant["limits"].as_array()?;
    let left = |limit: &&Value| number(limit, "/balance") / number(limit, "/most").max(1.0);
    let tightest = limits.iter().min_by(|one, other| left(one).total_cmp(&left(other)))?;
    let (most, name, setting) = (
        number(tightest, "/most"),
        text(tightest, "/name"),
        text(tightest, "/setting"),
    );
    let more = total / (total - refused).max(1.0);
    let advice = match number(tightest, "/per_second") {
        0.0 => format!("if it may do more: `limit: {}`", (most * more).ceil()),
        rate => format!(
            "if it may send as much: `rate: {}`, `burst: {}`; else nothing",
            per(rate * more),
            (most * more).ceil()
        ),
    };
    let subject = format!("tenant {}", text(tenant, "/name"));
    Some(Finding {
        evidence: format!("{refused} of {total} requests were refused, {name} is the tightest limit"),
        advice,
        setting: setting.to_owned(),
        at: place(tightest, "/at"),
        ..finding("too_many_requests", "A tenant is refused by its limits", subject)
    })
}

/// Callers leave before they are answered.
fn left(route: &Value) -> Option<Finding> {
    const SHARE: f64 = 0.2;
    let (requests, gone) = (sum(route, "/requests"), number(route, "/rejections/caller_gone"));
    if requests < FEW || gone / requests < SHARE {
        return None;
    }
    let (p50, limit) = (number(route, "/duration/p50_ms"), number(route, "/time_limit_ms"));
    Some(Finding {
        evidence: format!(
            "{gone} of {requests} callers left; the route may take {}",
            written(limit)
        ),
        advice: format!(
            "end the work when nobody waits any more: `time_limit: {}`, and tell callers to wait as long",
            written((2.0 * p50).clamp(1.0, limit))
        ),
        setting: format!("routes.{}.time_limit", text(route, "/name")),
        at: place(route, "/at"),
        ..finding(
            "callers_leave",
            "Callers do not wait for the answer",
            format!("route {}", text(route, "/name")),
        )
    })
}

/// Groups of owners whose accounts are bounded.
const ROOMS: [&str; 4] = ["addresses", "networks", "tenants", "callers"];

/// The accounts of limits are nearly all taken.
fn memory(snapshot: &Snapshot, room: &&'static str) -> Option<Finding> {
    const FULL: f64 = 0.9;
    let labels = [("owners", *room)];
    let (used, most) = (
        snapshot.metric("gateway_limit_room_in_use", &labels),
        snapshot.metric("gateway_limit_room", &labels),
    );
    if most == 0.0 || used / most < FULL {
        return None;
    }
    Some(Finding {
        evidence: format!("{used} of {most} accounts are in use; further {room} share one"),
        advice: format!(
            "if memory allows: `{room}: {}`, else fewer limits that are counted by {room}",
            2.0 * most
        ),
        setting: format!("account_limits.{room}"),
        at: None,
        ..finding(
            "limiter_memory",
            "The limits count more owners than there is room for",
            *room,
        )
    })
}

#[cfg(test)]
mod tests;
