//! Counts the user instructions of a request with callgrind, which is repeatable where times are not.
//!
//! The gateway runs under valgrind, with one worker. Counted is the whole process between two moments, so the second
//! thread's share of a request is in it, and so is the little that the gateway does without requests.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bytes::Bytes;
use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Behaviour, Fault, Fleet, Keep, Spec};
use http::Request;
use http_body_util::Full;
use tokio::process::Command;

use crate::Result;
use crate::scenario::gateway::Gateway;
use crate::scenario::steady::steady;

/// `overload: off`, because under valgrind everything is late.
const CONFIG: &str = r#"
workers: 1
overload: off
callers: { api_keys: { file: keys.yaml }, anonymous: { by: client_address, tier: unbounded } }
tiers:
  unbounded: { rate: 1000000/s, burst: 1000000 }
  drained: { rate: 1/h, burst: 1 }
backends:
  a: { endpoints: [{ url: "http://@a@" }], retry: off, breaker: off, bulkhead: { limit: 1000 } }
routes:
  plain: { match: { path: /plain }, access: { any_of: [anonymous] }, backend: a }
  bare:
    match: { path: /bare }
    access: { any_of: [anonymous] }
    backend: a
    added_headers: { identity: false, forwarded: false, trace: false, ratelimit: false }
  key: { match: { path: /key }, access: { any_of: [api_key] }, backend: a }
  three:
    match: { path: /three }
    access: { any_of: [anonymous] }
    aggregate:
      parts:
        one: { backend: a, path: /1 }
        two: { backend: a, path: /2 }
        three: { backend: a, path: /3 }
"#;

/// Requests before the count, and requests that are counted.
const WARM: usize = 500;
const COUNTED: usize = 2_000;
const CALLERS: usize = 8;

/// Prints the instructions of each kind of request as rows of a Markdown table.
///
/// # Errors
/// valgrind or the gateway does not start, and any answer that is not the one wanted.
pub async fn count(binary: &Path) -> Result<()> {
    if Command::new("valgrind").arg("--version").output().await.is_err() {
        return Err("valgrind is not installed (Debian's package valgrind)".into());
    }
    writeln!(io::stdout(), "| request | user instructions |\n|---|--:|")?;
    for (what, path, key, status) in [
        ("plain, 1 KB", "/plain", None, 200),
        (
            "plain, without the fields that `added_headers` names",
            "/bare",
            None,
            200,
        ),
        ("with an API key and a limit", "/key", Some("caller"), 200),
        ("refused by a limit (429)", "/key", Some("drained"), 429),
        ("aggregate of three 1 KB parts", "/three", None, 200),
    ] {
        let instructions = of_request(binary, path, key, status).await?;
        writeln!(io::stdout(), "| {what} | {instructions} |")?;
    }
    Ok(())
}

async fn of_request(binary: &Path, path: &str, key: Option<&'static str>, status: u16) -> Result<u64> {
    let kilobyte = Behaviour::always(Fault::HugeBody { bytes: 1024 });
    let fleet = Fleet::start([Spec::new("a").keep(Keep::NOTHING).behaviour(kilobyte)]).await?;
    let config = CONFIG.replace("@a@", &fleet.address("a").to_string());
    let keys = key_file(&[
        KeyLine::new("caller", "caller", "caller").tier("unbounded"),
        KeyLine::new("drained", "drained", "drained").tier("drained"),
    ]);
    let folder = tempfile::tempdir()?;
    let (wrapper, counts) = (folder.path().join("gateway"), folder.path().join("counts"));
    fs::write(
        &wrapper,
        format!(
            "#!/bin/sh\nexec valgrind --tool=callgrind --instr-atstart=no --callgrind-out-file={} {} \"$@\"\n",
            counts.display(),
            std::path::absolute(binary)?.display()
        ),
    )?;
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o700))?;
    let gateway = Gateway::start(&wrapper, &config, &keys).await?;
    let request = match key {
        Some(key) => gateway.get(path, key)?,
        None => Request::get(path)
            .header("host", gateway.address.to_string())
            .body(Full::<Bytes>::default())?,
    };
    let send = async |count: usize| {
        let report = steady(&gateway, &request, CALLERS, move |sent| sent >= count / CALLERS).await?;
        // The first request of a drained limit takes its only token.
        let others = report.other_than(status);
        if others > 1 {
            return Err(format!("{path}: {}", report.endings()).into());
        }
        Result::Ok(report.sent())
    };
    send(WARM).await?;
    let id = gateway.id()?.to_string();
    control(&["-i", "on", &id]).await?;
    let sent = send(COUNTED).await?;
    control(&["-i", "off", &id]).await?;
    gateway.signal(crate::scenario::gateway::Signal::Terminate).await?;
    gateway.ended(std::time::Duration::from_secs(60)).await?;
    let counts = fs::read_to_string(&counts)?;
    let total = counts.lines().find_map(|line| line.strip_prefix("totals: "));
    let total: u64 = total.ok_or("callgrind wrote no totals")?.trim().parse()?;
    Ok(total / sent)
}

async fn control(arguments: &[&str]) -> Result<()> {
    let done = Command::new("callgrind_control").args(arguments).output().await?;
    if done.status.success() {
        return Ok(());
    }
    Err(format!("callgrind_control: {}", String::from_utf8_lossy(&done.stderr)).into())
}
