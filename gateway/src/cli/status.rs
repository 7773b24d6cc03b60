//! `gateway status`: what a running gateway does now, with its backends in trouble first.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Write as _, stderr, stdout};

use serde_json::{Value, json};

use super::admin_client::AdminOption;
use super::{FAILED, OK};

#[derive(clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    admin: AdminOption,
    /// Number of backends to show.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    backends: u16,
    /// Show all replicas that share a store with it, in place of its own state.
    #[arg(long)]
    all: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Prints the state. Returns the exit code.
pub(super) fn status(options: &Options) -> u8 {
    let asked = |path: &str| {
        let answer = options.admin.get(path)?;
        match answer.status {
            200 => Ok(answer.json()),
            _ => Err(answer.problem()),
        }
    };
    if options.all {
        return print(asked("/api/v1/replicas").map(|shown| match options.json {
            true => format!("{shown:#}\n"),
            false => replicas(&shown),
        }));
    }
    let both = asked("/api/v1/status").and_then(|status| {
        let backends = asked(&format!("/api/v1/backends?limit={}", options.backends))?;
        Ok((status, backends))
    });
    print(both.map(|(status, backends)| match options.json {
        true => format!("{:#}\n", json!({ "status": status, "backends": backends["backends"] })),
        false => page(&status, &backends),
    }))
}

fn print(shown: Result<String, String>) -> u8 {
    match shown {
        Ok(page) => {
            let _ = stdout().write_all(page.as_bytes());
            OK
        }
        Err(why) => {
            let _ = writeln!(stderr(), "gateway status: {why}");
            FAILED
        }
    }
}

/// Returns a line about replicas that have read different files; nothing if their files are the same.
fn differences(replicas: &[Value], name: &str, title: &str) -> String {
    let mut by_fingerprint: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for replica in replicas {
        let fingerprint = replica["changes"][name].as_u64().unwrap_or_default();
        let of = by_fingerprint.entry(fingerprint).or_default();
        of.push(replica["name"].as_str().unwrap_or_default());
    }
    if by_fingerprint.len() < 2 {
        return String::new();
    }
    let groups: Vec<_> = by_fingerprint.values().map(|names| names.join(" ")).collect();
    format!("\nThe {title} have different entries: {}\n", groups.join(" | "))
}

/// Returns a table of the replicas, with the one that answered marked.
fn replicas(shown: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let listed = shown["replicas"].as_array().map_or(&[][..], Vec::as_slice);
    let head = [
        "replica",
        "version",
        "config",
        "on lease",
        "revoked",
        "forced",
        "drained",
        "started",
        "last heard",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    for replica in listed {
        let mark = if replica["this"] == true { " *" } else { "" };
        let silent = replica["silent_for_ms"].as_u64().unwrap_or_default();
        let changes = &replica["changes"];
        rows.push([
            format!("{}{mark}", text(&replica["name"])),
            text(&replica["version"]),
            replica["config_generation"].to_string(),
            replica["on_lease"].to_string(),
            changes["revoked"].to_string(),
            changes["forced"].to_string(),
            changes["drained"].to_string(),
            text(&replica["started"]),
            format!("{:.1} s ago", silent as f64 / 1e3),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    let mut page = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        let _ = writeln!(page, "{}", line.trim_end());
    }
    for (name, title) in [("tenants", "files of tenants"), ("keys", "key files")] {
        page.push_str(&differences(listed, name, title));
    }
    let store = &shown["limits_store"];
    let up = if store["up"] == true {
        "up".to_owned()
    } else {
        format!("down: {}", text(&store["trouble"]))
    };
    let _ = writeln!(page, "\nstore     {}, {up}", text(&store["address"]));
    if let Some(warning) = store["warning"].as_str() {
        let _ = writeln!(page, "          {warning}");
    }
    page
}

fn page(status: &Value, backends: &Value) -> String {
    let mut page = String::new();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let ready = if status["ready"] == true { "ready" } else { "not ready" };
    let _ = writeln!(
        page,
        "gateway {}, {}, {ready}, up {}",
        text(&status["version"]),
        text(&status["phase"]),
        duration(status["uptime_seconds"].as_u64().unwrap_or_default()),
    );
    let config = &status["config"];
    let reload = &config["last_reload"];
    let _ = writeln!(
        page,
        "config    {}, generation {}",
        text(&config["path"]),
        config["generation"]
    );
    if reload["successful"] == false {
        let _ = writeln!(page, "          the last reload failed at {}:", text(&reload["at"]));
        for line in text(&reload["error"]).lines() {
            let _ = writeln!(page, "          {line}");
        }
    }
    let _ = writeln!(
        page,
        "now       {} requests in flight, {} connections, {} workers",
        status["requests_in_flight"], status["connections"]["open"], status["workers"],
    );
    let shown = backends["backends"].as_array().map_or(&[][..], Vec::as_slice);
    let width = shown
        .iter()
        .map(|backend| text(&backend["name"]).len())
        .max()
        .unwrap_or(0);
    page.push_str("\nbackends\n");
    for backend in shown {
        let _ = writeln!(page, "  {:width$}  {}", text(&backend["name"]), state(backend));
    }
    if backends["next_offset"].is_u64() {
        let _ = writeln!(
            page,
            "  {} more",
            backends["total"]
                .as_u64()
                .unwrap_or_default()
                .saturating_sub(shown.len() as u64)
        );
    }
    page
}

/// Returns what a backend does now, in a line.
fn state(backend: &Value) -> String {
    let endpoints = backend["endpoints"].as_array().map_or(&[][..], Vec::as_slice);
    let up = endpoints
        .iter()
        .filter(|endpoint| ["up", "warming"].iter().any(|usable| endpoint["state"] == *usable))
        .count();
    let (breaker, bulkhead) = (&backend["breaker"], &backend["bulkhead"]);
    let mut state = match breaker["state"].as_str() {
        Some(state) => format!("breaker {state}"),
        None => "no breaker".to_owned(),
    };
    let _ = write!(state, ", {up} of {} endpoints up", endpoints.len());
    if bulkhead.is_object() {
        let _ = write!(state, ", {} of {} slots", bulkhead["in_use"], bulkhead["limit"]);
        if bulkhead["waiting"].as_u64().is_some_and(|waiting| waiting > 0) {
            let _ = write!(state, ", {} waiting", bulkhead["waiting"]);
        }
    }
    state
}

/// Returns a time in its two largest units.
pub(super) fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_a_table() {
        let shown = json!({
            "replicas": [
                { "name": "a:1", "this": true, "version": "0.1.0", "config_generation": 4, "on_lease": 12,
                    "changes": { "revoked": 3, "forced": 1, "drained": 0 },
                    "started": "2026-11-30T12:00:00Z", "silent_for_ms": 1240 },
                { "name": "host-b:22", "this": false, "version": "0.1.0", "config_generation": 3, "on_lease": 0,
                    "changes": { "revoked": 3, "forced": 1, "drained": 2 },
                    "started": "2026-11-30T11:00:00Z", "silent_for_ms": 0 },
            ],
            "limits_store": { "address": "redis://cache:6379/0", "up": true, "warning": null },
        });
        let expected = "\
replica    version  config  on lease  revoked  forced  drained  started               last heard
a:1 *      0.1.0    4       12        3        1       0        2026-11-30T12:00:00Z  1.2 s ago
host-b:22  0.1.0    3       0         3        1       2        2026-11-30T11:00:00Z  0.0 s ago

store     redis://cache:6379/0, up
";
        assert_eq!(replicas(&shown), expected);
        let mut other = shown;
        other["replicas"][0]["changes"]["tenants"] = json!(77);
        let expected = expected.replace(
            "\n\nstore",
            "\n\nThe files of tenants have different entries: host-b:22 | a:1\n\nstore",
        );
        assert_eq!(replicas(&other), expected);
    }

    #[test]
    fn what_is_told_fits_on_a_screen() {
        let status = json!({
            "version": "0.1.0", "phase": "serving", "ready": true, "uptime_seconds": 3723, "workers": 2,
            "connections": { "open": 12 }, "requests_in_flight": 3,
            "config": { "path": "gateway.yaml", "generation": 4,
                "last_reload": { "successful": false, "at": "2026-11-30T12:00:00Z", "error": "gateway.yaml:3: no" } },
        });
        let backends = json!({ "total": 3, "next_offset": 2, "backends": [
            { "name": "orders", "breaker": { "state": "open" }, "endpoints": [{ "state": "ejected" }, { "state": "up" }],
              "bulkhead": { "in_use": 1, "limit": 100, "waiting": 7 } },
            { "name": "users", "breaker": null, "endpoints": [{ "state": "warming" }], "bulkhead": null },
        ] });
        let expected = "gateway 0.1.0, serving, ready, up 1 h 2 min
config    gateway.yaml, generation 4
          the last reload failed at 2026-11-30T12:00:00Z:
          gateway.yaml:3: no
now       3 requests in flight, 12 connections, 2 workers

backends
  orders  breaker open, 1 of 2 endpoints up, 1 of 100 slots, 7 waiting
  users   no breaker, 1 of 1 endpoints up
  1 more
";
        assert_eq!(page(&status, &backends), expected);
    }

    #[test]
    fn a_time_has_two_units() {
        let cases = [
            (59, "59 s"),
            (61, "1 min 1 s"),
            (7260, "2 h 1 min"),
            (90_000, "1 d 1 h"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(duration(seconds), expected);
        }
    }
}
