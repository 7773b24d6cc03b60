//! `gateway schema`: the JSON schema of the config.

use std::io::{Write, stdout};

use super::{FAILED, OK};

/// Generated from the config reader; a test keeps it up to date.
const SCHEMA: &str = include_str!("../../docs/config.schema.json");

/// Writes the schema to standard output. Returns the exit code.
pub(super) fn schema() -> u8 {
    match stdout().lock().write_all(SCHEMA.as_bytes()) {
        Ok(()) => OK,
        Err(_) => FAILED,
    }
}
