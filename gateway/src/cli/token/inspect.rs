//! `gateway token inspect`: shows which checks of a config a token passes.
//!
//! The token is read from standard input or a file, never from an argument. The signature is never shown, because the
//! output would then be a credential.

use std::fmt::Write as _;
use std::io::{IsTerminal, Read, Write, stderr, stdin, stdout};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::super::{ConfigOption, FAILED, INVALID_CONFIG, OK};
use crate::auth::caller::Caller;
use crate::auth::check::Category;
use crate::auth::jwt::inspect::{Inspection, Stage, inspect as judge, issuer_of};
use crate::auth::jwt::issuer::Issuer;
use crate::auth::jwt::key_fetch::{self, Source};
use crate::auth::revocations::Seen;
use crate::clock;
use crate::control::reload;
use crate::json::{Document, Kind, Value};
use crate::observe::timestamp::Timestamp;
use crate::observe::{Observer, Target};
use crate::plan::State;

#[derive(clap::Args)]
pub(in crate::cli) struct Options {
    #[command(flatten)]
    file: ConfigOption,
    /// File that holds the token; default: standard input.
    #[arg(value_name = "TOKEN_FILE")]
    token: Option<PathBuf>,
    /// Do not fetch keys that the config names by URL.
    #[arg(long)]
    offline: bool,
}

/// Largest input, in bytes; more than any token that the gateway accepts.
const MAX_INPUT: u64 = 64 * 1024;

pub(super) fn inspect(options: &Options) -> u8 {
    let Ok(observer) = Observer::start(&Target::Off) else {
        return FAILED;
    };
    let state = State::new(observer);
    let plan = match reload::read(options.file.path(), &state, 1) {
        Ok((compiled, _)) => compiled.plan,
        Err(invalid) => {
            let _ = stderr().write_all(invalid.render(stderr().is_terminal()).as_bytes());
            return INVALID_CONFIG;
        }
    };
    state.revocations.keep_in(plan.revocations.as_ref());
    let token = match read(options) {
        Ok(token) => token,
        Err(why) => {
            let _ = writeln!(stderr(), "gateway: {why}");
            return FAILED;
        }
    };
    let issuers = plan.authenticator.issuers();
    let keys = issuer_of(issuers, &token).map(|issuer| obtain(issuer, options.offline));
    let unix_now = clock::unix_seconds();
    let told = judge(issuers, &token, unix_now);
    let revoked = told
        .caller
        .as_ref()
        .map(|caller| state.revocations.in_force().check(caller, &Seen::nothing(), unix_now));
    let failed = told.first_failure().or(revoked.and_then(Result::err));

    let mut page = page(&told, keys.as_deref(), unix_now);
    if let Some(revoked) = revoked {
        row(
            &mut page,
            "revoked",
            &revoked.map_or_else(|check| format!("FAILED {}", check.as_str()), |()| "ok".to_owned()),
        );
    }
    page.push('\n');
    match failed {
        None => page.push_str("valid\n"),
        Some(check) => {
            let reason = match check.category() {
                Category::Expired => "credentials_expired",
                Category::Unverifiable => "keys_unavailable",
                _ => "credentials_invalid",
            };
            let _ = writeln!(
                page,
                "not valid: {} failed first; a caller is told {reason}",
                check.as_str()
            );
        }
    }
    let _ = stdout().write_all(page.as_bytes());
    if failed.is_none() { OK } else { FAILED }
}

/// Returns the token without surrounding white space, and without a scheme such as `Bearer` that was copied with it.
fn read(options: &Options) -> Result<String, String> {
    let mut text = String::new();
    let read = match &options.token {
        Some(path) => std::fs::File::open(path)
            .and_then(|file| file.take(MAX_INPUT).read_to_string(&mut text))
            .map_err(|error| format!("cannot read {}: {error}", path.display())),
        None => stdin()
            .take(MAX_INPUT)
            .read_to_string(&mut text)
            .map_err(|error| format!("cannot read the token: {error}")),
    };
    read?;
    let token = text.trim();
    let bare = token
        .split_once(' ')
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map_or(token, |(_, bare)| bare.trim_start());
    Ok(bare.to_owned())
}

/// Makes sure that the issuer has its keys. Returns a text that says where they come from.
fn obtain(issuer: &Issuer, offline: bool) -> String {
    let Some(source) = issuer.source() else {
        return format!("{} local", issuer.keys().current().len());
    };
    let url = source.url.as_str();
    if offline {
        return format!("none: {url} is not asked (--offline)");
    }
    match fetch(issuer, source) {
        Ok(()) => format!("{} from {url}", issuer.keys().current().len()),
        Err(error) => format!("none from {url}: {error}"),
    }
}

fn fetch(issuer: &Issuer, source: &Source) -> Result<(), String> {
    let client = key_fetch::client().map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime.block_on(key_fetch::fetch_once(issuer.keys(), source, &client))
}

fn page(told: &Inspection<'_>, keys: Option<&str>, unix_now: u64) -> String {
    let mut page = String::new();
    row(
        &mut page,
        "header",
        &told.header.as_ref().map_or("not readable".to_owned(), object),
    );
    row(
        &mut page,
        "claims",
        &told.claims.as_ref().map_or("not readable".to_owned(), object),
    );
    for name in ["exp", "nbf", "iat"] {
        let at = told.claims.as_ref().and_then(|claims| claims.value().get(name)?.f64());
        if let Some(at) = at.filter(|at| (0.0..1e11).contains(at)) {
            row(&mut page, name, &instant(at as u64, unix_now));
        }
    }
    match told.issuer {
        Some(issuer) => row(
            &mut page,
            "issuer",
            &format!("callers.jwt.{}, {}", issuer.name(), issuer.issuer()),
        ),
        None => row(&mut page, "issuer", "none of the config"),
    }
    if let Some(keys) = keys {
        row(&mut page, "keys", keys);
    }
    if let Some(caller) = &told.caller {
        row(&mut page, "caller", &speaks_for(caller));
    }
    page.push('\n');
    for stage in &told.stages {
        stage_rows(&mut page, stage);
    }
    page
}

fn row(page: &mut String, name: &str, text: &str) {
    let _ = writeln!(page, "{name:<10} {}", text.replace('\n', "\n           "));
}

/// Returns the object over several lines. Control characters are escaped, so that a token cannot control the terminal.
fn object(object: &Document) -> String {
    let mut out = String::new();
    pretty(object.value(), "\n", &mut out);
    out
}

/// Appends a value. `line` is the line break and the indentation of the value's own line.
fn pretty(value: Value<'_>, line: &str, out: &mut String) {
    let inner = format!("{line}  ");
    let (open, shut) = match value.kind() {
        Kind::Object => ('{', '}'),
        Kind::Array => ('[', ']'),
        _ => return visible(value.raw(), out),
    };
    let mut is_empty = true;
    out.push(open);
    let elements = value.elements().map(|element| (None, element));
    for (name, value) in elements.chain(value.members().map(|(name, value)| (Some(name), value))) {
        out.push_str(if is_empty { "" } else { "," });
        out.push_str(&inner);
        if let Some(name) = name {
            out.push('"');
            visible(name.raw(), out);
            out.push_str("\": ");
        }
        pretty(value, &inner, out);
        is_empty = false;
    }
    out.push_str(if is_empty { "" } else { line });
    out.push(shut);
}

fn visible(text: &[u8], out: &mut String) {
    for char in String::from_utf8_lossy(text).chars() {
        match char {
            control if control.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            plain => out.push(plain),
        }
    }
}

fn instant(at: u64, unix_now: u64) -> String {
    let written = Timestamp(Duration::from_secs(at)).whole_seconds();
    let distance = |seconds: u64| match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    };
    if at >= unix_now {
        format!("{written}, in {}", distance(at - unix_now))
    } else {
        format!("{written}, {} ago", distance(unix_now - at))
    }
}

fn speaks_for(caller: &Caller) -> String {
    let scopes: Vec<&str> = caller.scopes.iter().map(Arc::as_ref).collect();
    let text = format!(
        "{} of tenant {}, tier {}, scopes [{}]",
        caller.id,
        caller.tenant,
        caller.tier.as_deref().unwrap_or("as the config says"),
        scopes.join(", ")
    );
    let mut shown = String::with_capacity(text.len());
    visible(text.as_bytes(), &mut shown);
    shown
}

/// Appends a row for each check: those before the failed one have passed, those after it did not run.
fn stage_rows(page: &mut String, stage: &Stage) {
    let words = |checks: &[crate::auth::check::Check]| -> String {
        let words: Vec<_> = checks.iter().map(|check| check.as_str()).collect();
        words.join(", ")
    };
    let text = match stage.result {
        None => "not checked".to_owned(),
        Some(Ok(())) => format!("ok     ({})", words(stage.checks)),
        Some(Err(failed)) => {
            let at = stage.checks.iter().position(|check| *check == failed).unwrap_or(0);
            let mut text = format!("FAILED {}", failed.as_str());
            if at > 0 {
                let _ = write!(text, " (ok: {})", words(&stage.checks[..at]));
            }
            if let Some(rest) = stage.checks.get(at + 1..).filter(|rest| !rest.is_empty()) {
                let _ = write!(text, " (not checked: {})", words(rest));
            }
            text
        }
    };
    row(page, stage.name, &text);
}
