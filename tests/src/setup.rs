//! Collects the inputs of a gateway: a config, the files it refers to, and variables, in its own folder.

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::binary;
use crate::gateway::{CONFIG, Gateway};

/// Config with the files it refers to.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Setup {
    files: Vec<(String, Vec<u8>)>,
    variables: Vec<(String, String)>,
}

impl Setup {
    pub fn new(config: impl AsRef<str>) -> Self {
        Self::default().file(CONFIG, config.as_ref())
    }

    /// Adds a file beside the config.
    pub fn file(mut self, name: &str, content: impl AsRef<[u8]>) -> Self {
        self.files.push((name.to_owned(), content.as_ref().to_vec()));
        self
    }

    /// Adds an environment variable.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts a gateway; returns when it serves.
    ///
    /// # Panics
    /// The gateway does not start.
    pub async fn start(self) -> Gateway {
        let folder = self.write();
        let command = self.command(&folder);
        Gateway::spawn(folder, command).await
    }

    /// Returns the command of the binary in this folder, without standard input.
    fn command(&self, folder: &TempDir) -> Command {
        let mut command = Command::new(binary::path());
        command
            .current_dir(folder.path())
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    fn write(&self) -> TempDir {
        let folder = tempfile::tempdir().expect("there is room for temporary files");
        for (name, content) in &self.files {
            fs::write(folder.path().join(name), content).expect("the folder takes files");
        }
        folder
    }
}

/// Result of a command of the gateway.
#[derive(Debug)]
pub struct Cli {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Like [`cli`], for a command that reads this text from standard input.
///
/// # Panics
/// The command cannot be started.
pub fn cli_reading(input: &str, arguments: &[&str], setup: &Setup) -> Cli {
    let folder = setup.write();
    let mut child = setup
        .command(&folder)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary can be started");
    // A command that ends without reading explains this in its output.
    let _ = child.stdin.take().expect("it is piped").write_all(input.as_bytes());
    Cli::of(child.wait_with_output().expect("it is our child"))
}

/// Runs a command beside the setup's files until it ends.
///
/// # Panics
/// The command cannot be started.
pub fn cli(arguments: &[&str], setup: &Setup) -> Cli {
    let folder = setup.write();
    let output = setup
        .command(&folder)
        .args(arguments)
        .output()
        .expect("the binary can be started");
    Cli::of(output)
}

impl Cli {
    fn of(Output { status, stdout, stderr }: Output) -> Self {
        Self {
            code: status.code(),
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        }
    }
}
