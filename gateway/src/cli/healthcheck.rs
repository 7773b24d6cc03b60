//! `gateway healthcheck`: whether a running gateway takes requests, for an orchestrator that can only start a command.

use std::io::{Write, stderr, stdout};

use super::admin_client::AdminOption;
use super::{FAILED, OK};

#[derive(clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    admin: AdminOption,
    /// Ask only whether the process is alive, not whether it takes requests.
    #[arg(long)]
    live: bool,
}

/// Prints what the gateway says of itself. Returns the exit code.
pub(super) fn healthcheck(options: &Options) -> u8 {
    let path = if options.live { "/livez" } else { "/readyz" };
    match options.admin.get(path) {
        Ok(answer) => {
            let _ = writeln!(stdout(), "{}", String::from_utf8_lossy(&answer.body).trim_end());
            if answer.status == 200 { OK } else { FAILED }
        }
        Err(why) => {
            let _ = writeln!(stderr(), "gateway healthcheck: {why}");
            FAILED
        }
    }
}
