//! A config text is read or refused: every mistake has a place in the text, and can be shown.

use std::path::Path;

use gateway::config;

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // A folder that holds nothing, so that files named in the text are not there.
    if let Err(invalid) = config::parse("fuzzed.yaml", text, Path::new("/nonexistent"), &|_| None) {
        let shown = invalid.to_string();
        assert!(shown.contains("fuzzed.yaml"), "a mistake without a place: {shown}");
    }
}
