//! Builds the binary under test, once for a run of the tests.
//!
//! Invariant: the binary is never older than its sources. Cargo is asked each time, and answers at once if nothing has
//! changed. `GATEWAY_BIN` names another binary to test, which is then used as it is.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// # Panics
/// The gateway does not compile.
pub(crate) fn path() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| env::var_os("GATEWAY_BIN").map_or_else(build, PathBuf::from))
}

fn build() -> PathBuf {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args([
            "build",
            "--package",
            "gateway",
            "--bin",
            "gateway",
            "--features",
            "demo",
        ])
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .stderr(Stdio::piped());
    // Some build scripts would take the variables that cargo sets for a test's own package for a changed environment.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") || text == "LD_LIBRARY_PATH" {
            cargo.env_remove(&name);
        }
    }
    let built = cargo.output().expect("cargo can be started");
    assert!(
        built.status.success(),
        "the gateway does not build:\n{}",
        String::from_utf8_lossy(&built.stderr)
    );
    String::from_utf8_lossy(&built.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == "gateway")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .expect("cargo says where the binary is")
}
