//! `gateway import`: makes a config of what another gateway or a description of an API says.

use std::fs;
use std::io::{Write as _, stderr, stdout};
use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::{FAILED, OK};
use crate::config;
use crate::import::{Imported, krakend, openapi};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make a config of a KrakenD configuration in JSON.
    Krakend(Options),
    /// Make a config of an OpenAPI description, version 3, in YAML or JSON.
    Openapi(Options),
}

#[derive(clap::Args)]
pub(super) struct Options {
    /// The file to read.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Largest file that is read, in bytes.
const LARGEST: u64 = 64 << 20;

/// Writes the config to standard output. Returns the exit code.
pub(super) fn import(command: &Command) -> u8 {
    let (file, done) = match command {
        Command::Krakend(options) => (&options.file, from_krakend(&options.file)),
        Command::Openapi(options) => (&options.file, from_openapi(&options.file)),
    };
    match done {
        Ok(Imported { config, left_out }) => {
            let written = stdout().write_all(config.as_bytes());
            let things = if left_out == 1 { "thing has" } else { "things have" };
            let _ = writeln!(
                stderr(),
                "gateway import: {left_out} {things} no counterpart: see the comments; then run `gateway check`"
            );
            if written.is_ok() { OK } else { FAILED }
        }
        Err(why) => {
            let _ = writeln!(stderr(), "gateway import: {}: {why}", file.display());
            FAILED
        }
    }
}

fn from_krakend(file: &Path) -> Result<Imported, String> {
    let text = read(file)?;
    let root = config::read_document(&text).map_err(|why| match text.contains("{{") {
        true => "this is a template: render it first (KrakenD writes the result where FC_OUT says)".to_owned(),
        false => why,
    })?;
    krakend::import(&root)
}

fn from_openapi(file: &Path) -> Result<Imported, String> {
    openapi::import(&config::read_document(&read(file)?)?)
}

/// Reads a file as text.
pub(super) fn read(file: &Path) -> Result<String, String> {
    let length = fs::metadata(file).map_err(|error| error.to_string())?.len();
    if length > LARGEST {
        return Err(format!("it is longer than {LARGEST} bytes"));
    }
    fs::read_to_string(file).map_err(|error| error.to_string())
}
