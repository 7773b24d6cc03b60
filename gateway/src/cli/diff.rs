//! `gateway diff`: what two configs decide differently, and which settings differ.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _, stderr, stdout};
use std::path::PathBuf;

use serde_json::{Value, json};

use super::admin_client::AdminOption;
use super::{FAILED, INVALID_CONFIG, OK};
use crate::diff::{Side, compare};
use crate::files;

#[derive(clap::Args)]
pub(super) struct Options {
    /// The config as it is.
    #[arg(value_name = "OLD", required_unless_present = "running", conflicts_with = "running")]
    old: Option<PathBuf>,
    /// The config as it may become.
    #[arg(value_name = "NEW", required_unless_present = "running", conflicts_with = "running")]
    new: Option<PathBuf>,
    /// Compare the config in force at --admin with its file as it is now, or with this file. Needs the token for changes.
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    running: Option<Option<PathBuf>>,
    #[command(flatten)]
    admin: AdminOption,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Prints the difference. Returns the exit code.
pub(super) fn diff(options: &Options) -> u8 {
    let difference = match (&options.running, &options.old, &options.new) {
        (Some(file), ..) => ask(options, file.as_ref()),
        (None, Some(old), Some(new)) => {
            let sides = [old, new].map(|path| Side::read(path));
            let [old, new] =
                sides.map(|side| side.map_err(|invalid| (INVALID_CONFIG, invalid.render(stderr().is_terminal()))));
            old.and_then(|old| new.map(|new| (old, new)))
                .and_then(|(old, new)| serde_json::to_value(compare(&old, &new)).map_err(failed))
        }
        (None, ..) => Err(failed("two configs are needed")),
    };
    match difference {
        Ok(difference) => {
            let text = match options.json {
                true => format!("{difference:#}\n"),
                false => page(&difference),
            };
            // Writing fails if the reader has closed the output.
            let _ = stdout().write_all(text.as_bytes());
            match is_empty(&difference) {
                true => OK,
                false => FAILED,
            }
        }
        Err((code, why)) => {
            let _ = stderr().write_all(why.as_bytes());
            code
        }
    }
}

fn failed(why: impl std::fmt::Display) -> (u8, String) {
    (FAILED, format!("gateway diff: {why}\n"))
}

/// Asks a running gateway to compare.
fn ask(options: &Options, file: Option<&PathBuf>) -> Result<Value, (u8, String)> {
    let body = match file {
        None => json!({}),
        Some(file) => {
            let content =
                files::read(file).map_err(|error| failed(format!("cannot read {}: {error}", file.display())))?;
            json!({ "config": String::from_utf8_lossy(&content.bytes) })
        }
    };
    let answer = options.admin.post("/api/v1/diff", Some(&body)).map_err(failed)?;
    match answer.status {
        200 => Ok(answer.json()),
        422 => Err((INVALID_CONFIG, format!("{}\n", answer.problem().trim_end()))),
        _ => Err(failed(answer.problem())),
    }
}

fn list<'v>(difference: &'v Value, name: &str) -> &'v [Value] {
    difference[name].as_array().map_or(&[], Vec::as_slice)
}

fn is_empty(difference: &Value) -> bool {
    list(difference, "effects").is_empty() && list(difference, "settings").is_empty()
}

/// Writes the difference for a terminal.
fn page(difference: &Value) -> String {
    let mut page = String::new();
    if is_empty(difference) {
        page.push_str("both decide alike on every request\n");
    }
    let effects = list(difference, "effects");
    if !effects.is_empty() {
        page.push_str("effects\n");
    }
    for effect in effects {
        let text = effect["text"].as_str().unwrap_or_default();
        let _ = writeln!(page, "  {text}{}", places(effect));
    }
    for (name, title) in [
        ("settings", "settings"),
        ("operation", "settings that decide on no request"),
    ] {
        let changes = list(difference, name);
        if !changes.is_empty() {
            let _ = writeln!(page, "{}{title}", if page.is_empty() { "" } else { "\n" });
        }
        for change in changes {
            let value = |side: &Value| side.as_str().unwrap_or("(absent)").to_owned();
            let setting = change["setting"].as_str().unwrap_or_default();
            let _ = writeln!(
                page,
                "  {setting}: {} -> {}{}",
                value(&change["old"]),
                value(&change["new"]),
                places(change)
            );
        }
    }
    page
}

/// Returns where both stand: `  (old.yaml:3, new.yaml:4)`.
fn places(of: &Value) -> String {
    let place = |at: &Value| Some(format!("{}:{}", at["file"].as_str()?, at["line"]));
    let mut places: Vec<_> = [&of["old_at"], &of["new_at"]].into_iter().filter_map(place).collect();
    places.dedup();
    match places.is_empty() {
        true => String::new(),
        false => format!("  ({})", places.join(", ")),
    }
}
