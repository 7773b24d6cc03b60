//! Runs the gateway as a process: started with its own config in its own folder, signalled, and stopped.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Request};
use http_body_util::Full;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::Result;
use crate::client::Client;
use crate::target::Target;

/// Head of every scenario's config; the listener and the admin address use free ports.
const COMMON: &str = "\
workers: 2
listeners: { main: { address: \"127.0.0.1:0\" } }
admin: { address: \"127.0.0.1:0\" }
access_log: off
";

const LOG: &str = "log";
const START_LIMIT: Duration = Duration::from_secs(20);

/// Gateway that serves. Dropping it kills the process.
pub struct Gateway {
    child: Child,
    folder: TempDir,
    pub address: SocketAddr,
    admin: SocketAddr,
}

#[derive(Clone, Copy, Debug)]
pub enum Signal {
    Reload,
    Terminate,
}

impl Gateway {
    /// Starts the binary with this config, to which `COMMON` is added, and this key file. Returns when it serves.
    ///
    /// # Errors
    /// The gateway does not start; the error contains its log.
    pub async fn start(binary: &Path, config: &str, keys: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (log, ready) = (folder.path().join(LOG), folder.path().join("ready.json"));
        fs::write(folder.path().join("keys.yaml"), keys)?;
        write_config(folder.path(), config)?;
        let output = File::options().create(true).append(true).open(&log)?;
        let mut child = Command::new(binary)
            .args(["run", "-c"])
            .arg(folder.path().join("gateway.yaml"))
            .arg("--ready-file")
            .arg(&ready)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{}: {error}", binary.display()))?;
        let started = Instant::now();
        while !ready.exists() {
            let ended = child.try_wait()?;
            if ended.is_some() || started.elapsed() > START_LIMIT {
                let log = fs::read_to_string(&log).unwrap_or_default();
                let how = ended.map_or_else(|| "it does not serve".to_owned(), |status| status.to_string());
                return Err(format!("the gateway did not start ({how}):\n{log}").into());
            }
            sleep(Duration::from_millis(5)).await;
        }
        let ready: Value = serde_json::from_slice(&fs::read(&ready)?)?;
        let read = |value: &Value| -> Result<SocketAddr> { Ok(value.as_str().unwrap_or_default().parse()?) };
        Ok(Self {
            address: read(&ready["listeners"]["main"])?,
            admin: read(&ready["admin"])?,
            child,
            folder,
        })
    }

    pub fn target(&self, path: &str) -> Result<Target> {
        Target::new(self.address, path)
    }

    /// Returns a GET request with an API key.
    pub fn get(&self, path: &str, key: &'static str) -> Result<Request<Full<Bytes>>> {
        let request = Request::get(path).header("host", self.address.to_string());
        Ok(request
            .header("x-api-key", HeaderValue::from_static(key))
            .body(Full::default())?)
    }

    /// Writes another config in one step; the next reload reads it.
    pub fn rewrite(&self, config: &str) -> Result<()> {
        write_config(self.folder.path(), config)
    }

    /// Sends a signal. The process was started here and not waited for yet, so its id cannot belong to another process.
    pub async fn signal(&self, signal: Signal) -> Result<()> {
        let Some(id) = self.child.id() else {
            return Err("the gateway has ended".into());
        };
        let name = match signal {
            Signal::Reload => "-HUP",
            Signal::Terminate => "-TERM",
        };
        let sent = Command::new("kill").arg(name).arg(id.to_string()).status().await?;
        if sent.success() {
            Ok(())
        } else {
            Err(format!("kill {name} {id}: {sent}").into())
        }
    }

    /// Waits until the process ends by itself.
    ///
    /// # Errors
    /// It does not end within `limit`.
    pub async fn ended(mut self, limit: Duration) -> Result<ExitStatus> {
        Ok(timeout(limit, self.child.wait())
            .await
            .map_err(|_| format!("it still ran after {limit:?}"))??)
    }

    /// Returns the log so far.
    pub fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.folder.path().join(LOG))?)
    }

    /// Returns the sum of a metric over the samples whose labels contain `labels`; `None` if there is none.
    pub async fn metric(&self, name: &str, labels: &str) -> Result<Option<f64>> {
        let page = self.admin_page("/metrics").await?;
        let values = page.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let own = series.split('{').next() == Some(name) && series.contains(labels);
            own.then(|| value.parse::<f64>().ok()).flatten()
        });
        Ok(values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value)))
    }

    /// Returns a page of the admin address.
    ///
    /// # Errors
    /// The status is not 200.
    pub async fn admin_page(&self, path: &str) -> Result<String> {
        let request = Request::get(path)
            .header("host", self.admin.to_string())
            .body(Full::default())?;
        let answer = Client::new(self.admin).ask(request, Duration::from_secs(5)).await;
        let answer = answer.map_err(|fault| format!("admin {path}: {fault}"))?;
        if answer.status() != http::StatusCode::OK {
            return Err(format!("admin {path}: {}", answer.status()).into());
        }
        Ok(String::from_utf8_lossy(answer.body()).into_owned())
    }
}

fn write_config(folder: &Path, config: &str) -> Result<()> {
    let (partial, whole): (PathBuf, PathBuf) = (folder.join("gateway.partial"), folder.join("gateway.yaml"));
    fs::write(&partial, format!("{COMMON}{config}"))?;
    fs::rename(partial, whole)?;
    Ok(())
}
