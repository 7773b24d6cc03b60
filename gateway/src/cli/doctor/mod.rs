//! `gateway doctor`: looks for the troubles that limits, retries, time limits and guards can get into, in what a running
//! gateway has counted, and says which line to change and what to write there.

mod judge;
mod snapshot;

use std::fmt::Write as _;
use std::io::{Write as _, stderr, stdout};

use serde_json::json;

use self::judge::{Finding, judge};
use self::snapshot::Snapshot;
use super::admin_client::AdminOption;
use super::{FAILED, OK};

/// Lists are asked for in one page; the admin API gives no longer one.
const PAGE: &str = "limit=1000";

#[derive(clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    admin: AdminOption,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Prints the findings. Returns the exit code: 1 if there is one.
pub(super) fn doctor(options: &Options) -> u8 {
    let findings = match ask(options) {
        Ok(snapshot) => judge(&snapshot),
        Err(why) => {
            let _ = writeln!(stderr(), "gateway doctor: {why}");
            return FAILED;
        }
    };
    let page = match options.json {
        true => format!("{:#}\n", json!({ "findings": findings })),
        false => page(&findings),
    };
    let _ = stdout().write_all(page.as_bytes());
    if findings.is_empty() { OK } else { FAILED }
}

fn ask(options: &Options) -> Result<Snapshot, String> {
    let get = |path: &str| {
        let answer = options.admin.get(path)?;
        match answer.status {
            200 => Ok(answer),
            _ => Err(answer.problem()),
        }
    };
    let list = |name: &str| {
        let answer = get(&format!("/api/v1/{name}?{PAGE}"))?;
        Ok::<_, String>(answer.json()[name].as_array().cloned().unwrap_or_default())
    };
    let metrics = get("/metrics")?;
    Ok(Snapshot {
        backends: list("backends")?,
        routes: list("routes")?,
        tenants: list("tenants")?,
        metrics: String::from_utf8_lossy(&metrics.body).into_owned(),
    })
}

fn page(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "nothing found: no trouble in what was counted since the start\n".to_owned();
    }
    let mut page = String::new();
    for finding in findings {
        let place = match &finding.at {
            Some(at) => format!("{at} {}", finding.setting),
            None => format!("{} (default)", finding.setting),
        };
        let _ = writeln!(
            page,
            "{} ({})\n  seen    {}\n  change  {}\n  at      {place}\n",
            finding.title, finding.subject, finding.evidence, finding.advice
        );
    }
    page
}
