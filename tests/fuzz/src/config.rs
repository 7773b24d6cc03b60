//! Checks that a config text is accepted or refused, and that every mistake has a place in the text and can be printed.

use std::path::Path;

use gateway::config;

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // The folder does not exist, so files named in the text are missing.
    if let Err(invalid) = config::parse("fuzzed.yaml", text, Path::new("/nonexistent"), &|_| None) {
        let shown = invalid.to_string();
        assert!(shown.contains("fuzzed.yaml"), "a mistake without a place: {shown}");
    }
}
