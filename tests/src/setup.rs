//! Collects the inputs of a gateway: a config, the files it refers to, and variables, in its own folder.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use tempfile::TempDir;

use crate::binary;
use crate::gateway::{CONFIG, Gateway};

/// Config with the files it refers to.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Setup {
    files: Vec<(String, Vec<u8>)>,
    variables: Vec<(String, String)>,
    options: Vec<String>,
    socket: Option<(String, Arc<TcpListener>)>,
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

    /// Adds an option of the command `run`.
    pub fn option(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    /// Passes a listening socket under this name, as a service manager does.
    pub fn socket(mut self, name: &str, socket: TcpListener) -> Self {
        self.socket = Some((name.to_owned(), Arc::new(socket)));
        self
    }

    /// Starts a gateway; returns when it serves.
    ///
    /// # Panics
    /// The gateway does not start.
    pub async fn start(self) -> Gateway {
        let folder = self.write();
        let command = self.serving(&folder);
        Gateway::spawn(folder, command).await
    }

    /// Returns the command that serves in this folder.
    pub(crate) fn serving(&self, folder: &TempDir) -> Command {
        let mut command = self.command(folder);
        command.args(["run", "-c", CONFIG]).args(&self.options);
        command
    }

    /// Returns the command of the binary in this folder, without standard input.
    fn command(&self, folder: &TempDir) -> Command {
        // A shell makes its standard input the first descriptor that a service manager would pass.
        const PASS: &str = "exec 3<&0 </dev/null; export LISTEN_PID=$$; exec \"$0\" \"$@\"";
        let mut command = match &self.socket {
            None => Command::new(binary::path()),
            Some((name, _)) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", PASS]).arg(binary::path());
                shell.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", name);
                shell
            }
        };
        let input = match &self.socket {
            None => Stdio::null(),
            Some((_, socket)) => OwnedFd::from(socket.try_clone().expect("files are free")).into(),
        };
        command
            .current_dir(folder.path())
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(input);
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
