//! `gateway simulate`: what a config does with a recorded or a described load, on virtual time.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufReader, IsTerminal, Write as _, stderr, stdout};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde_json::json;

use super::{ConfigOption, FAILED, INVALID_CONFIG, OK};
use crate::config::{Invalid, duration_text};
use crate::simulation::report::{Limited, Outcome};
use crate::simulation::{Simulation, compile, on_virtual_time, policy_test, replay};

/// Most rows of a list.
const SHOWN: usize = 20;

#[derive(clap::Args)]
pub(super) struct Options {
    /// Loads, as a file of policy tests; what it expects is not looked at.
    #[arg(value_name = "FILE", required_unless_present = "log", conflicts_with = "log")]
    load: Option<PathBuf>,
    /// Access log of a gateway, as JSON lines.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Header field of every request of the log, which has none, such as `x-version: 2`. Can be repeated.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header, requires = "log")]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// JSON body of the requests of the log that had a body; else it is made up, of the same length.
    #[arg(long, value_name = "FILE", requires = "log")]
    body: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigOption,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Prints what has become of the requests. Returns the exit code.
pub(super) fn simulate(options: &Options) -> u8 {
    let outcomes = match (&options.log, &options.load) {
        (Some(log), _) => by_log(options, log),
        (None, Some(load)) => {
            policy_test::load(load, options.config.config.as_deref()).map_err(|error| invalid(&error))
        }
        (None, None) => Ok(Vec::new()),
    };
    match outcomes {
        Ok(outcomes) => {
            let text = match options.json {
                true => {
                    let all = outcomes
                        .iter()
                        .map(|(name, outcome)| json!({ "name": name, "outcome": outcome }));
                    format!("{:#}\n", all.collect::<serde_json::Value>())
                }
                false => outcomes
                    .iter()
                    .map(|(name, outcome)| page(name, outcome))
                    .collect::<Vec<_>>()
                    .join("\n"),
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

fn invalid(invalid: &Invalid) -> (u8, String) {
    (INVALID_CONFIG, invalid.render(stderr().is_terminal()))
}

/// Outcomes by name, or the exit code with what is wrong.
type Outcomes = Result<Vec<(Arc<str>, Outcome)>, (u8, String)>;

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write it as `NAME: VALUE`")?;
    let name = name
        .trim()
        .parse()
        .map_err(|_| "this is not the name of a header field")?;
    if name == "x-request-id" {
        return Err("each request has an id of its own".to_owned());
    }
    let value = value
        .trim()
        .parse()
        .map_err(|_| "this is not a value of a header field")?;
    Ok((name, value))
}

fn by_log(options: &Options, log: &Path) -> Outcomes {
    let failed = |why: String| (FAILED, format!("gateway simulate: {}: {why}\n", log.display()));
    let config = options.config.path();
    let (plan, _, _) = compile(config).map_err(|error| invalid(&error))?;
    let file = File::open(log).map_err(|error| failed(error.to_string()))?;
    let body = match &options.body {
        Some(file) => {
            let text =
                fs::read(file).map_err(|error| (FAILED, format!("gateway simulate: {}: {error}\n", file.display())))?;
            Some(Bytes::from(text))
        }
        None => None,
    };
    let (mut requests, others) =
        replay::read(BufReader::new(file), &plan).map_err(|error| failed(error.to_string()))?;
    drop(plan);
    if requests.is_empty() {
        return Err(failed("it has no line of an access log".to_owned()));
    }
    if others > 0 {
        let _ = writeln!(
            stderr(),
            "gateway simulate: {others} lines are not of an access log, and are left out"
        );
    }
    for request in &mut requests {
        request.complete(&options.headers, body.as_ref());
    }
    let starts = replay::starts(&requests);
    let outcome = on_virtual_time(async {
        let (plan, state, _) = compile(config)?;
        let simulation = Arc::new(Simulation::begin(plan, state, starts));
        Ok::<_, Box<Invalid>>(replay::replay(&simulation, requests).await)
    });
    let outcome = outcome.map_err(|error| failed(error.to_string()))?;
    let outcome = outcome.map_err(|error| invalid(&error))?;
    Ok(vec![(log.display().to_string().into(), outcome)])
}

/// Writes an outcome for a terminal.
fn page(name: &str, outcome: &Outcome) -> String {
    let mut page = format!(
        "{name}: {} requests over {} of virtual time\n\n",
        outcome.requests,
        duration_text(Duration::from_secs(outcome.virtual_ms / 1000))
    );
    match &outcome.logged {
        None => {
            for (word, count) in &outcome.here {
                let _ = writeln!(page, "  {word:24} {count:>9}");
            }
        }
        Some(logged) => {
            let _ = writeln!(page, "  {:24} {:>9} {:>11}", "", "here", "in the log");
            let words: BTreeSet<_> = outcome.here.keys().chain(logged.keys()).collect();
            for word in words {
                let count =
                    |counts: &std::collections::BTreeMap<String, u64>| counts.get(word).copied().unwrap_or_default();
                let _ = writeln!(page, "  {word:24} {:>9} {:>11}", count(&outcome.here), count(logged));
            }
        }
    }
    if !outcome.limited.is_empty() {
        page.push_str("\nlimited\n");
    }
    for limited in outcome.limited.iter().take(SHOWN) {
        let Limited {
            tenant,
            reason,
            setting,
            at,
            refused,
            of,
            first_ms,
            ..
        } = limited;
        let by = setting
            .as_ref()
            .map(|setting| format!(" by {setting}"))
            .unwrap_or_default();
        let place = at
            .as_ref()
            .map(|at| format!("  ({}:{})", at.file, at.line))
            .unwrap_or_default();
        let _ = writeln!(
            page,
            "  {}: {refused} of {of} {reason}{by}, first at {}{place}",
            tenant.as_deref().unwrap_or("callers that are not known"),
            duration_text(Duration::from_millis(*first_ms)),
        );
    }
    if outcome.limited.len() > SHOWN {
        let _ = writeln!(page, "  and {} more", outcome.limited.len() - SHOWN);
    }
    let _ = writeln!(
        page,
        "\n  {:24} {:>9} {:>13} {:>15} {:>17}",
        "backend", "calls", "most at once", "breaker opened", "refused by it"
    );
    for backend in &outcome.backends {
        let first = backend
            .breaker_first_ms
            .map(|at| format!(", first at {}", duration_text(Duration::from_millis(at))));
        let _ = writeln!(
            page,
            "  {:24} {:>9} {:>13} {:>15} {:>17}{}",
            backend.backend,
            backend.calls,
            backend.most_at_once,
            backend.breaker_opened,
            backend.breaker_refused,
            first.unwrap_or_default()
        );
    }
    page
}
