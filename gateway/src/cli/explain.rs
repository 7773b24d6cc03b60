//! `gateway explain`: what a config decides on a request, and why; or what a running gateway would do with it now.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _, stderr, stdout};
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::admin_client::AdminOption;
use super::{ConfigOption, FAILED, INVALID_CONFIG, OK};
use crate::control::reload;
use crate::json;
use crate::observe::{Observer, Target};
use crate::pipeline::explain::{Described, LINK, Question, explain};
use crate::plan::State;

#[derive(clap::Args)]
pub(super) struct Options {
    /// Method of the request.
    method: String,
    /// URL of the request, or its path with the query.
    url: String,
    #[command(flatten)]
    config: ConfigOption,
    /// Ask the running gateway at --admin, with its counts of now, in place of a config file.
    #[arg(long, conflicts_with = "config")]
    live: bool,
    #[command(flatten)]
    admin: AdminOption,
    /// API key of the caller.
    #[arg(long = "as", value_name = "KEY", conflicts_with_all = ["tenant", "claims"])]
    key: Option<String>,
    /// Tenant of the caller, in place of a credential.
    #[arg(long, value_name = "TENANT", conflicts_with = "claims")]
    tenant: Option<String>,
    /// Tier that the tenant's credential names.
    #[arg(long, value_name = "TIER", requires = "tenant")]
    tier: Option<String>,
    /// Claims of the caller's token as a JSON object, in place of a token; `iss`, `aud` and `exp` are filled in.
    #[arg(long, value_name = "JSON", value_parser = object)]
    claims: Option<Map<String, Value>>,
    /// Address of the client; default: 127.0.0.1.
    #[arg(long, value_name = "ADDRESS")]
    from: Option<IpAddr>,
    /// Header field of the request, as `name: value`; may be repeated.
    #[arg(long = "header", short = 'H', value_name = "FIELD")]
    headers: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    json::typed(text.as_bytes(), text.len()).map_err(|error| format!("not a JSON object: {error}"))
}

/// Prints the explanation. Returns the exit code.
pub(super) fn explain_request(options: &Options) -> u8 {
    let described = Described {
        method: Some(options.method.clone()),
        url: options.url.clone(),
        headers: options.headers.clone(),
        key: options.key.clone(),
        tenant: options.tenant.clone(),
        tier: options.tier.clone(),
        claims: options.claims.clone(),
        from: options.from,
    };
    let explained = match options.live {
        true => ask(options, &described),
        false => by_config(options, &described),
    };
    match explained {
        Ok(explanation) => {
            let text = match options.json {
                true => format!("{explanation:#}\n"),
                false => page(&explanation, options.live),
            };
            // Writing fails if the reader has closed the output.
            let _ = stdout().write_all(text.as_bytes());
            OK
        }
        Err((code, why)) => {
            let _ = stderr().write_all(why.as_bytes());
            code
        }
    }
}

fn failed(why: impl std::fmt::Display) -> (u8, String) {
    (FAILED, format!("gateway explain: {why}\n"))
}

/// Explains what the config decides, with nothing counted yet.
fn by_config(options: &Options, described: &Described) -> Result<Value, (u8, String)> {
    let observer = Observer::start(&Target::Off).map_err(failed)?;
    let state = State::new(observer);
    let (compiled, _) = reload::read(options.config.path(), &state, 1)
        .map_err(|invalid| (INVALID_CONFIG, invalid.render(stderr().is_terminal())))?;
    let question = Question::read(described, &compiled.plan).map_err(failed)?;
    let explanation = explain(&compiled.plan, Arc::default(), question, false);
    serde_json::to_value(explanation).map_err(failed)
}

/// Asks a running gateway; needs no token for changes as long as the request has no credential.
fn ask(options: &Options, described: &Described) -> Result<Value, (u8, String)> {
    let answer = match described.link() {
        Some(link) => options.admin.get(&link),
        None => {
            let body = serde_json::to_value(described).map_err(failed)?;
            options.admin.post(LINK, Some(&body))
        }
    };
    let answer = answer.map_err(failed)?;
    match answer.status {
        200 => Ok(answer.json()),
        _ => Err(failed(answer.problem())),
    }
}

/// One line of the page.
struct Row {
    label: String,
    text: String,
    /// The setting and its place.
    source: String,
}

/// Widest text that the settings stand beside; longer ones push theirs to the right.
const WIDEST: usize = 72;

/// Writes the explanation for a terminal.
fn page(explanation: &Value, is_live: bool) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let outcome = &explanation["outcome"];
    let mut page = format!(
        "{} {}{} from {}, {}\n\n",
        text(&explanation["method"]),
        text(&explanation["host"]),
        text(&explanation["path"]),
        text(&explanation["client"]),
        match is_live {
            true => format!(
                "by the config in force (generation {}), as the counts are now",
                explanation["generation"]
            ),
            false => "by the config, with nothing counted yet".to_owned(),
        }
    );
    let mut rows = vec![Row {
        label: "outcome".to_owned(),
        text: text(&outcome["text"]),
        source: source(outcome),
    }];
    let gap = || Row {
        label: String::new(),
        text: String::new(),
        source: String::new(),
    };
    // A fact with others within it stands by itself.
    let mut is_apart = true;
    for step in explanation["steps"].as_array().into_iter().flatten() {
        let has_inner = step["steps"].is_array();
        if is_apart || has_inner {
            rows.push(gap());
        }
        add(step, 0, &mut rows);
        is_apart = has_inner;
    }
    let width = |column: fn(&Row) -> &str, most: usize| {
        let widths = rows
            .iter()
            .map(|row| column(row).chars().count())
            .filter(|width| *width <= most);
        widths.max().unwrap_or_default()
    };
    let (labels, texts) = (width(|row| &row.label, usize::MAX), width(|row| &row.text, WIDEST));
    for Row { label, text, source } in &rows {
        let line = format!("{label:labels$}  {text:texts$}  {source}");
        let _ = writeln!(page, "{}", line.trim_end());
    }
    page
}

/// Adds a step and those within it.
fn add(step: &Value, depth: usize, rows: &mut Vec<Row>) {
    let topic = step["topic"].as_str().unwrap_or_default().replace('_', " ");
    rows.push(Row {
        label: format!("{}{topic}", "  ".repeat(depth)),
        text: step["text"].as_str().unwrap_or_default().to_owned(),
        source: source(step),
    });
    for inner in step["steps"].as_array().into_iter().flatten() {
        add(inner, depth + 1, rows);
    }
}

/// Returns where the setting of a step stands, and its path.
fn source(step: &Value) -> String {
    let Some(setting) = step["setting"].as_str() else {
        return String::new();
    };
    let at = &step["at"];
    match (at["file"].as_str(), step["is_default"] == true) {
        (Some(file), false) => format!("{file}:{} {setting}", at["line"]),
        (Some(file), true) => format!("{file}:{} {setting} (default)", at["line"]),
        (None, _) => format!("{setting} (default)"),
    }
}
