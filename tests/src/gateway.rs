//! Runs the gateway as a process: started from a config in its own folder, watched, signalled, and always stopped.
//!
//! Invariant: every port is a free one, so tests can run at the same time and in any order. A test that panics prints
//! the config, what the gateway wrote, and its metrics.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::client::{Ask, Client};
use crate::eventually;
use crate::metrics::Page;
use crate::raw::{Raw, raw};
use crate::setup::Setup;

/// Limit for a start or a stop, on a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(20);

/// Most bytes of a log that a failed test prints.
const SHOWN: usize = 20_000;

pub(crate) const CONFIG: &str = "gateway.yaml";
const READY: &str = "ready.json";
const STDOUT: &str = "stdout";
const STDERR: &str = "stderr";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Hup,
    Term,
    Int,
    Usr2,
    Kill,
}

/// Running gateway with one listener, named `public`. Dropping it kills the process.
pub struct Gateway {
    folder: TempDir,
    child: Child,
    ended: Option<ExitStatus>,
    public: Option<Client>,
    admin: Option<Client>,
}

impl Gateway {
    /// Starts the command with the arguments for serving, in a folder that holds its config.
    pub(crate) async fn spawn(folder: TempDir, command: Command) -> Self {
        let child = serve(command, folder.path());
        let mut gateway = Self {
            folder,
            child,
            ended: None,
            public: None,
            admin: None,
        };
        gateway.wait_until_ready().await;
        gateway
    }

    /// Starts a gateway with this config; returns when it serves.
    ///
    /// # Panics
    /// The gateway does not start.
    pub async fn start(config: impl AsRef<str>) -> Self {
        Setup::new(config).start().await
    }

    /// Starts another process that takes over, with this command; returns the process before once the new one serves.
    ///
    /// # Panics
    /// The new process does not serve.
    pub async fn replace(&mut self, setup: &Setup) -> Past {
        let child = serve(setup.serving(&self.folder), self.folder.path());
        let past = Past(std::mem::replace(&mut self.child, child));
        self.wait_until_served_by(self.child.id()).await;
        past
    }

    /// Starts another process beside this one, which is not waited for.
    pub fn beside(&self, setup: &Setup) -> Past {
        Past(serve(setup.serving(&self.folder), self.folder.path()))
    }

    /// Waits until the ready file is that of the process.
    ///
    /// # Panics
    /// It does not serve.
    pub async fn wait_until_served_by(&self, pid: u32) {
        eventually(LIMIT, "the new process serves", || async {
            (self.served_by() == Some(pid)).then_some(())
        })
        .await;
    }

    /// Returns the process that the ready file names.
    pub fn served_by(&self) -> Option<u32> {
        let ready: Value = serde_json::from_slice(&fs::read(self.path(READY)).ok()?).ok()?;
        u32::try_from(ready["pid"].as_u64()?).ok()
    }

    /// Returns a client of the public listener. Its clones share connections.
    pub fn client(&self) -> Client {
        self.public.clone().expect("set once it was ready")
    }

    /// Returns a client of the public listener with its own connections.
    pub fn another_client(&self) -> Client {
        Client::to(self.address())
    }

    pub fn get(&self, target: &str) -> Ask {
        self.client().get(target)
    }

    pub fn post(&self, target: &str) -> Ask {
        self.client().post(target)
    }

    /// Returns the address of the public listener.
    pub fn address(&self) -> SocketAddr {
        self.ready_at("/listeners/public").expect("it was ready")
    }

    /// Returns the address of the listener with this name.
    pub fn address_of(&self, listener: &str) -> SocketAddr {
        self.ready_at(&format!("/listeners/{listener}"))
            .expect("the config has the listener")
    }

    /// Returns the address of the admin API.
    pub fn admin_address(&self) -> SocketAddr {
        self.ready_at("/admin").expect("the config has an admin address")
    }

    /// Sends the bytes on a new connection and returns all bytes that come back. Closes the connection after the first
    /// answer unless the gateway does.
    pub async fn raw(&self, bytes: impl AsRef<[u8]>) -> String {
        raw(self.address(), bytes).await
    }

    pub async fn connect(&self) -> Raw {
        Raw::connect(self.address()).await
    }

    /// Returns the second address at which health probes are answered.
    pub fn health_address(&self) -> SocketAddr {
        self.ready_at("/health").expect("the config has a health address")
    }

    pub fn admin(&self, target: &str) -> Ask {
        self.admin.clone().expect("set once it was ready").get(target)
    }

    /// # Panics
    /// The answer is not a 200 with JSON.
    pub async fn admin_json(&self, target: &str) -> Value {
        self.admin(target).send().await.expect(200).json()
    }

    pub async fn metrics(&self) -> Page {
        Page::new(self.admin("/metrics").send().await.expect(200).text())
    }

    /// Returns the sum of the samples of a metric with these labels.
    ///
    /// # Panics
    /// There is no such sample.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let page = self.metrics().await;
        page.sum(name, labels)
            .unwrap_or_else(|| panic!("no sample of {name} with {labels:?}"))
    }

    /// Returns as soon as a metric has the value.
    pub async fn metric_becomes(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        let reason = format!("{name} with {labels:?} becomes {value}");
        eventually(LIMIT, &reason, || async {
            (self.metric(name, labels).await == value).then_some(())
        })
        .await;
    }

    pub fn signal(&self, signal: Signal) {
        signal.send(self.child.id());
    }

    /// Replaces the config in one step, so that no reload reads half of it.
    pub fn rewrite_config(&self, config: impl AsRef<str>) {
        let (new, old) = (self.folder.path().join("gateway.yaml.new"), self.path(CONFIG));
        fs::write(&new, config.as_ref()).expect("the folder takes files");
        fs::rename(new, old).expect("a file of ours can be renamed");
    }

    /// Rewrites the config, reloads it, and returns when it is in use.
    pub async fn reload(&self, config: impl AsRef<str>) {
        let before = self.metric("gateway_config_generation", &[]).await;
        self.rewrite_config(config);
        self.signal(Signal::Hup);
        eventually(LIMIT, "the new config is in use", || async {
            (self.metric("gateway_config_generation", &[]).await > before).then_some(())
        })
        .await;
    }

    /// Returns the path of a file beside the config.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns the exit code once the process has ended; `None` if a signal killed it.
    ///
    /// # Panics
    /// The process does not end.
    pub async fn wait_exit(&mut self) -> Option<i32> {
        let status = ended(&mut self.child).await;
        self.ended = Some(status);
        status.code()
    }

    /// Returns all it has written so far to stderr, its log.
    pub fn log(&self) -> String {
        self.written(STDERR)
    }

    /// Returns all it has written so far to stdout, the access log by default.
    pub fn stdout(&self) -> String {
        self.written(STDOUT)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the resident memory in bytes.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kilobytes.expect("Linux says how much memory a process has") * 1024
    }

    fn written(&self, name: &str) -> String {
        let bytes = fs::read(self.path(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    async fn wait_until_ready(&mut self) {
        let path = self.path(READY);
        let child = &mut self.child;
        let ended = eventually(LIMIT, "the gateway is ready", || {
            let ended = child.try_wait().expect("it is our child");
            let ready = Path::exists(&path);
            async move { (ready || ended.is_some()).then_some(ended) }
        })
        .await;
        self.ended = ended;
        if let Some(status) = ended {
            panic!("the gateway did not start: {status}");
        }
        self.public = Some(Client::to(self.address()));
        self.admin = self.ready_at("/admin").map(Client::to);
    }

    fn ready_at(&self, pointer: &str) -> Option<SocketAddr> {
        let ready: Value = serde_json::from_slice(&fs::read(self.path(READY)).ok()?).ok()?;
        ready.pointer(pointer)?.as_str()?.parse().ok()
    }

    fn print_all(&self) {
        let metrics = self.ready_at("/admin").and_then(scrape);
        let ended = self.ended.map_or("still runs".to_owned(), |status| status.to_string());
        let parts = [
            ("config", self.written(CONFIG)),
            ("stdout", tail(&self.stdout())),
            ("stderr", tail(&self.log())),
            ("metrics", metrics.unwrap_or_default()),
        ];
        let mut report = format!("== the gateway {ended}\n");
        for (what, text) in parts {
            report.push_str(&format!("== {what}\n{text}\n"));
        }
        // libtest captures only what `eprint!` writes.
        #[allow(clippy::print_stderr)]
        {
            eprint!("{report}");
        }
    }
}

/// A process beside the one that is watched: the one before or a new one. Dropping it kills it.
pub struct Past(Child);

impl Past {
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn signal(&self, signal: Signal) {
        signal.send(self.0.id());
    }

    pub fn is_running(&mut self) -> bool {
        self.0.try_wait().expect("it is our child").is_none()
    }

    /// Returns the exit code once the process has ended; `None` if a signal killed it.
    ///
    /// # Panics
    /// The process does not end.
    pub async fn wait_exit(&mut self) -> Option<i32> {
        ended(&mut self.0).await.code()
    }
}

impl Drop for Past {
    fn drop(&mut self) {
        // Fails only if the process has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Signal {
    /// # Panics
    /// There is no such process.
    pub fn send(self, pid: u32) {
        let name = match self {
            Self::Hup => "-HUP",
            Self::Term => "-TERM",
            Self::Int => "-INT",
            Self::Usr2 => "-USR2",
            Self::Kill => "-KILL",
        };
        // Every shell has a built-in `kill`; not every machine has a program of that name.
        let sent = Command::new("sh").args(["-c", &format!("kill {name} {pid}")]).status();
        assert!(sent.is_ok_and(|status| status.success()), "{self:?} could not be sent");
    }
}

/// Starts the command with the arguments for serving. Its log and its access log go on after those of others.
fn serve(mut command: Command, folder: &Path) -> Child {
    let log = |name| {
        let mut options = fs::OpenOptions::new();
        let opened = options.create(true).append(true).open(folder.join(name));
        opened.expect("the folder takes files")
    };
    command
        .args(["--ready-file", READY])
        .stdout(log(STDOUT))
        .stderr(log(STDERR))
        .spawn()
        .expect("the binary can be started")
}

async fn ended(child: &mut Child) -> ExitStatus {
    crate::within(LIMIT, "the gateway ends", async {
        loop {
            if let Some(status) = child.try_wait().expect("it is our child") {
                break status;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if thread::panicking() {
            self.print_all();
        }
        // Fails only if the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads the metrics from a thread that is panicking, where there may be no runtime.
fn scrape(admin: SocketAddr) -> Option<String> {
    let wait = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&admin, wait).ok()?;
    stream.set_read_timeout(Some(wait)).ok()?;
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n"
    )
    .ok()?;
    let mut page = Vec::new();
    // The bytes before an error are still worth printing.
    let _ = stream.read_to_end(&mut page);
    let page = String::from_utf8_lossy(&page);
    let told = page
        .lines()
        .filter(|line| !line.starts_with('#') && !line.ends_with(" 0"));
    Some(
        told.filter(|line| !line.contains("_bucket{"))
            .collect::<Vec<_>>()
            .join("\n"),
    )
}

fn tail(text: &str) -> String {
    let from = text.len().saturating_sub(SHOWN);
    let from = (from..text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    text[from..].to_owned()
}
