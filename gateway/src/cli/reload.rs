//! `gateway reload`: makes a running gateway read its config again.

use std::io::{Write, stderr, stdout};

use super::admin_client::AdminOption;
use super::{FAILED, INVALID_CONFIG, OK};

#[derive(clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    admin: AdminOption,
}

/// Prints the number of the config in force, or every mistake. Returns the exit code.
pub(super) fn reload(options: &Options) -> u8 {
    match options.admin.post("/api/v1/reload", None) {
        Ok(answer) if answer.status == 200 => {
            let generation = &answer.json()["generation"];
            let _ = writeln!(stdout(), "the config is in force, generation {generation}");
            OK
        }
        Ok(answer) => {
            let _ = writeln!(stderr(), "{}", answer.problem().trim_end());
            if answer.status == 422 { INVALID_CONFIG } else { FAILED }
        }
        Err(why) => {
            let _ = writeln!(stderr(), "gateway reload: {why}");
            FAILED
        }
    }
}
