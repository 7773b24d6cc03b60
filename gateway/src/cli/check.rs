//! `gateway check`: is this config good, and what does it mean?

use std::io::{IsTerminal, Write, stderr, stdout};

use super::{ConfigFile, INVALID_CONFIG, OK};
use crate::observe::{Observer, Target};
use crate::plan::{State, reload};

#[derive(clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    file: ConfigFile,
}

pub(super) fn check(options: &Options) -> u8 {
    let Ok(observer) = Observer::start(&Target::Off) else {
        return super::FAILED;
    };
    let state = State::new(observer);
    let path = &options.file.config;
    match reload::read(path, &state, 1) {
        Ok((compiled, loaded)) => {
            let warnings = loaded
                .sources
                .render_warnings(&compiled.warnings, stderr().is_terminal());
            // A closed output is the reader's wish to hear no more.
            let _ = stderr().write_all(warnings.as_bytes());
            let (routes, backends) = (loaded.config.routes.len(), compiled.plan.backends.len());
            let _ = writeln!(
                stdout(),
                "{}: good: {routes} routes, {backends} backends",
                path.display()
            );
            OK
        }
        Err(invalid) => {
            let _ = stderr().write_all(invalid.render(stderr().is_terminal()).as_bytes());
            INVALID_CONFIG
        }
    }
}
