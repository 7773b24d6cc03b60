//! `gateway reload`: makes a running gateway read its config again.

use std::io::{Write, stderr, stdout};
use std::thread;
use std::time::Duration;

use super::admin_client::AdminOption;
use super::{FAILED, INVALID_CONFIG, OK};
use crate::config::duration_text;
use crate::control::reload::canary_time;

#[derive(clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    admin: AdminOption,
    /// Wait for this time, such as `60s`, and put the config before in force again if errors or refusals jump meanwhile.
    #[arg(long, value_name = "TIME", value_parser = canary_time)]
    canary: Option<Duration>,
}

/// Prints the number of the config in force, or every mistake. Returns the exit code.
pub(super) fn reload(options: &Options) -> u8 {
    let path = match options.canary {
        Some(time) => format!("/api/v1/reload?canary={}", duration_text(time)),
        None => "/api/v1/reload".to_owned(),
    };
    match options.admin.post(&path, None) {
        Ok(answer) if answer.status == 200 => {
            let generation = &answer.json()["generation"];
            let _ = writeln!(stdout(), "the config is in force, generation {generation}");
            match options.canary {
                Some(_) => watch(&options.admin),
                None => OK,
            }
        }
        Ok(answer) if matches!(answer.status, 401 | 403 | 404) => {
            let title = answer.json()["title"].as_str().unwrap_or("it is refused").to_owned();
            let problem = answer.problem();
            failed(&format!(
                "nothing is reloaded: {title}. {} The signal SIGHUP reloads too, without a token.",
                problem.trim_end()
            ))
        }
        Ok(answer) => {
            let _ = writeln!(stderr(), "{}", answer.problem().trim_end());
            if answer.status == 422 { INVALID_CONFIG } else { FAILED }
        }
        Err(why) => failed(&format!("{why}; the signal SIGHUP reloads too, without a token")),
    }
}

/// Waits until the config is not watched any more. Returns the exit code.
fn watch(admin: &AdminOption) -> u8 {
    loop {
        let config = match admin.get("/api/v1/status") {
            Ok(answer) if answer.status == 200 => answer.json()["config"].take(),
            Ok(answer) => return failed(&answer.problem()),
            Err(why) => return failed(&why),
        };
        match (config["canary_seconds"].as_u64(), &config["last_reload"]) {
            (Some(_), _) => thread::sleep(Duration::from_millis(500)),
            (None, last) if last["successful"] == true => {
                let _ = writeln!(stdout(), "it stays");
                return OK;
            }
            (None, last) => return failed(last["error"].as_str().unwrap_or_default()),
        }
    }
}

fn failed(why: &str) -> u8 {
    let _ = writeln!(stderr(), "gateway reload: {why}");
    FAILED
}
