//! Compiles the counts of usage and their delivery.

use std::fs;
use std::sync::Arc;

use http::HeaderValue;
use http::header::AUTHORIZATION;

use crate::config::{self, Code, Mistake};
use crate::plan::compile::compiler::Compiler;
use crate::plan::compile::{named_files, tracing};
use crate::usage::ledger::Bounds;
use crate::usage::{PushSettings, UsageSettings};

/// Longest name of a replica, in bytes.
const LONGEST_REPLICA: usize = 200;

/// Returns what is counted; `None` if usage is off, or after a mistake.
pub(super) fn compile(compiler: &mut Compiler<'_>) -> Option<Arc<UsageSettings>> {
    let config::Usage {
        folder,
        replica,
        series,
        records,
        push,
    } = compiler.config.usage.as_ref()?;
    if let Some(named) = replica
        && (named.is_empty() || named.len() > LONGEST_REPLICA)
    {
        let message = format!("`usage.replica` must have 1 to {LONGEST_REPLICA} bytes");
        compiler.mistake(Mistake::new(Code::BadValue, named.span(), message));
    }
    if records.value < series.value {
        let message = "`usage.records` has no room for one day of all `usage.series`";
        let mistake = Mistake::new(Code::OutOfRange, records.span().or(series.span()), message);
        compiler.mistake(mistake.hint("20 times as many are usual"));
    }
    let waiting = push.as_ref().map(|push| push.waiting.value as usize);
    let push = match push {
        Some(push) => Some(compile_push(compiler, push)?),
        None => None,
    };
    Some(Arc::new(UsageSettings {
        folder: folder.as_ref().map(|folder| folder.value.clone()),
        replica: replica.as_ref().map_or_else(host, |replica| replica.value.clone()),
        bounds: Bounds {
            series: series.value as usize,
            records: records.value as usize,
            waiting,
        },
        push,
    }))
}

fn compile_push(compiler: &mut Compiler<'_>, push: &config::UsagePush) -> Option<PushSettings> {
    let config::UsagePush {
        url,
        headers_file,
        token,
        batch,
        waiting: _,
        time_limit,
    } = push;
    let mut headers = match headers_file {
        Some(file) => {
            named_files::doubt_secret(compiler, file);
            let content = named_files::read_file(compiler, file)?;
            tracing::fields(compiler, file, &content)?
        }
        None => Vec::new(),
    };
    if let Some(token) = token {
        let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose())).expect("it is visible ASCII");
        value.set_sensitive(true);
        headers.push((AUTHORIZATION, value));
    }
    Some(PushSettings {
        url: tracing::address(compiler, url, "usage.push.url", "write `https://billing:8443/events`")?,
        headers,
        batch: batch.value as usize,
        time_limit: **time_limit,
    })
}

/// Returns the host's name.
fn host() -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match host.trim() {
        "" => "gateway".to_owned(),
        host => host.chars().take(50).collect(),
    }
}
