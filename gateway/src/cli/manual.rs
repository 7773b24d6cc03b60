//! `gateway man` and `gateway completions`: what a package installs beside the binary, made from the commands.

use std::io::{Write, stdout};

use super::{FAILED, OK, command};

#[derive(clap::Args)]
pub(super) struct CompletionOptions {
    /// The shell to complete in.
    shell: clap_complete::Shell,
}

/// Prints a script that completes commands and options. Returns the exit code.
pub(super) fn completions(options: &CompletionOptions) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut command(), "gateway", &mut script);
    print(&script)
}

/// Prints the manual page. Returns the exit code.
pub(super) fn man() -> u8 {
    let mut page = Vec::new();
    match clap_mangen::Man::new(command()).render(&mut page) {
        Ok(()) => print(&page),
        Err(_) => FAILED,
    }
}

fn print(text: &[u8]) -> u8 {
    match stdout().lock().write_all(text) {
        Ok(()) => OK,
        Err(_) => FAILED,
    }
}
