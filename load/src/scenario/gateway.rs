//! Runs the gateway as a process: started with its own config in its own folder, signalled, and stopped.

use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response};
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
listeners: { main: { address: \"127.0.0.1:0\" } }
admin: { address: \"127.0.0.1:0\", token_file: admin.token }
access_log: off
";

/// Number of workers of a config that does not say it.
const WORKERS: &str = "workers: 2\n";

const LOG: &str = "log";
/// Token for changes through the admin API.
const TOKEN: &str = "token-of-the-scenarios";
const START_LIMIT: Duration = Duration::from_secs(20);

/// Gateway that serves. Dropping it kills the process.
pub struct Gateway {
    process: Process,
    folder: TempDir,
    pub address: SocketAddr,
    admin: SocketAddr,
    options: &'static [&'static str],
    /// Time from the start of the process until it served.
    pub started_in: Duration,
}

/// Endpoint of a backend as the admin API shows it.
#[derive(Clone, Debug)]
pub struct EndpointView {
    pub address: SocketAddr,
    pub state: String,
    pub in_flight: u64,
}

/// Process of the gateway. Dropping it kills the process.
pub struct Process(Child);

impl Process {
    /// Waits until the process ends by itself.
    ///
    /// # Errors
    /// It does not end within `limit`.
    pub async fn ended(mut self, limit: Duration) -> Result<ExitStatus> {
        Ok(timeout(limit, self.0.wait())
            .await
            .map_err(|_| format!("it still ran after {limit:?}"))??)
    }
}

#[derive(Clone, Copy, Debug)]
pub enum Signal {
    Reload,
    Terminate,
    Kill,
}

impl Gateway {
    /// Starts the binary with this config, to which `COMMON` is added, and this key file. Returns when it serves.
    ///
    /// # Errors
    /// The gateway does not start; the error contains its log.
    pub async fn start(binary: &Path, config: &str, keys: &str) -> Result<Self> {
        Self::start_with(binary, config, &[("keys.yaml", keys)]).await
    }

    /// Like [`Gateway::start`], with these files beside the config, each with its name and its text.
    ///
    /// # Errors
    /// As for [`Gateway::start`].
    pub async fn start_with(binary: &Path, config: &str, files: &[(&str, &str)]) -> Result<Self> {
        Self::start_with_options(binary, config, files, &[]).await
    }

    /// Like [`Gateway::start_with`], with further options of the command.
    ///
    /// # Errors
    /// As for [`Gateway::start`].
    pub async fn start_with_options(
        binary: &Path,
        config: &str,
        files: &[(&str, &str)],
        options: &'static [&'static str],
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        for (name, text) in files {
            fs::write(folder.path().join(name), text)?;
        }
        let token = folder.path().join("admin.token");
        let mut token = File::options().create_new(true).write(true).mode(0o600).open(token)?;
        token.write_all(TOKEN.as_bytes())?;
        write_config(folder.path(), config)?;
        let started = Instant::now();
        let (process, ready) = serve(binary, folder.path(), options).await?;
        let started_in = started.elapsed();
        Ok(Self {
            address: public(&ready)?,
            admin: admin(&ready)?,
            process,
            folder,
            options,
            started_in,
        })
    }

    /// Returns the path of the config file.
    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("gateway.yaml")
    }

    /// Starts another process with the same options; returns the one before when the new one serves.
    ///
    /// # Errors
    /// It does not start; the error contains its log.
    pub async fn hand_over(&mut self, binary: &Path) -> Result<Process> {
        let (process, _) = serve(binary, self.folder.path(), self.options).await?;
        Ok(std::mem::replace(&mut self.process, process))
    }

    /// Starts a process in the place of one that ends, which is waited for.
    ///
    /// # Errors
    /// It does not start; the error contains its log.
    pub async fn start_again(&mut self, binary: &Path) -> Result<()> {
        self.process.0.wait().await?;
        let (process, ready) = serve(binary, self.folder.path(), self.options).await?;
        (self.process, self.address, self.admin) = (process, public(&ready)?, admin(&ready)?);
        Ok(())
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

    /// Replaces a file beside the config in one step.
    pub fn replace(&self, name: &str, text: &str) -> Result<()> {
        let partial = self.folder.path().join("partial");
        fs::write(&partial, text)?;
        Ok(fs::rename(partial, self.folder.path().join(name))?)
    }

    /// Writes another config in one step; the next reload reads it.
    pub fn rewrite(&self, config: &str) -> Result<()> {
        write_config(self.folder.path(), config)
    }

    /// Sends a signal. The process was started here and not waited for yet, so its id cannot belong to another process.
    pub async fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.id()?;
        let name = match signal {
            Signal::Reload => "-HUP",
            Signal::Terminate => "-TERM",
            Signal::Kill => "-KILL",
        };
        let sent = Command::new("kill").arg(name).arg(id.to_string()).status().await?;
        if sent.success() {
            Ok(())
        } else {
            Err(format!("kill {name} {id}: {sent}").into())
        }
    }

    /// Returns the id of the process.
    ///
    /// # Errors
    /// It has ended.
    pub fn id(&self) -> Result<u32> {
        Ok(self.process.0.id().ok_or("the gateway has ended")?)
    }

    /// Returns the processor time that the process has used, in seconds, without asking it.
    pub fn processor_seconds(&self) -> Result<f64> {
        let id = self.id()?;
        let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
        processor_seconds(&stat, 0)
    }

    /// Waits until the process ends by itself.
    ///
    /// # Errors
    /// It does not end within `limit`.
    pub async fn ended(self, limit: Duration) -> Result<ExitStatus> {
        self.process.ended(limit).await
    }

    /// Returns the log so far.
    pub fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.folder.path().join(LOG))?)
    }

    /// Returns the text of a file beside the config.
    pub fn file(&self, name: &str) -> Result<String> {
        Ok(fs::read_to_string(self.folder.path().join(name))?)
    }

    /// Sends a request to the admin API with the token, and returns the answer, whatever its status.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        if_match: Option<&HeaderValue>,
    ) -> Result<Response<Bytes>> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.admin.to_string())
            .header("authorization", format!("Bearer {TOKEN}"));
        if let Some(tag) = if_match {
            request = request.header("if-match", tag);
        }
        let request = request.body(Full::from(body.map(Value::to_string).unwrap_or_default()))?;
        let answer = Client::new(self.admin).ask(request, Duration::from_secs(10)).await;
        answer.map_err(|fault| format!("admin {path}: {fault}").into())
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
        self.ask_admin(path, request).await
    }

    /// Changes something through the admin API.
    ///
    /// # Errors
    /// The status is not 200.
    pub async fn admin_post(&self, path: &str, body: &Value) -> Result<String> {
        let request = Request::post(path)
            .header("host", self.admin.to_string())
            .header("authorization", format!("Bearer {TOKEN}"))
            .body(Full::from(body.to_string()))?;
        self.ask_admin(path, request).await
    }

    async fn ask_admin(&self, path: &str, request: Request<Full<Bytes>>) -> Result<String> {
        let answer = Client::new(self.admin).ask(request, Duration::from_secs(5)).await;
        let answer = answer.map_err(|fault| format!("admin {path}: {fault}"))?;
        if answer.status() != http::StatusCode::OK {
            let body = String::from_utf8_lossy(answer.body());
            return Err(format!("admin {path}: {}: {body}", answer.status()).into());
        }
        Ok(String::from_utf8_lossy(answer.body()).into_owned())
    }

    /// Returns the endpoints of a backend as the admin API shows them.
    pub async fn endpoints(&self, backend: &str) -> Result<Vec<EndpointView>> {
        let page: Value = serde_json::from_str(&self.admin_page("/api/v1/backends").await?)?;
        let backends = page["backends"].as_array().map(Vec::as_slice).unwrap_or_default();
        let Some(found) = backends.iter().find(|entry| entry["name"] == *backend) else {
            return Err(format!("the admin API shows no backend {backend}").into());
        };
        let endpoints = found["endpoints"].as_array().map(Vec::as_slice).unwrap_or_default();
        let views = endpoints.iter().map(|endpoint| {
            Ok(EndpointView {
                address: endpoint["address"].as_str().unwrap_or_default().parse()?,
                state: endpoint["state"].as_str().unwrap_or_default().to_owned(),
                in_flight: endpoint["in_flight"].as_u64().unwrap_or_default(),
            })
        });
        views.collect()
    }

    /// Puts another config in force, and waits until it is.
    ///
    /// # Errors
    /// It is not in force within ten seconds.
    pub async fn reload(&self, config: &str) -> Result<()> {
        const GENERATION: &str = "gateway_config_generation";
        let before = self.metric(GENERATION, "").await?;
        self.rewrite(config)?;
        self.signal(Signal::Reload).await?;
        let started = Instant::now();
        while self.metric(GENERATION, "").await? <= before {
            if started.elapsed() > Duration::from_secs(10) {
                return Err(format!("a config was not put in force:\n{}", self.log()?).into());
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

/// Returns the user and system time of a line of `/proc/PID/stat`, in seconds; with `skip: 2` that of its children that
/// have ended.
pub fn processor_seconds(stat: &str, skip: usize) -> Result<f64> {
    /// Ticks a second, which Linux promises to user space.
    const TICKS: f64 = 100.0;
    // The name stands in brackets and may contain blanks. The user time is the twelfth field after it.
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
    let times: Vec<f64> = fields
        .split_whitespace()
        .skip(11 + skip)
        .take(2)
        .filter_map(|field| field.parse().ok())
        .collect();
    match times[..] {
        [user, system] => Ok((user + system) / TICKS),
        _ => Err(format!("not a line of /proc/PID/stat: {stat}").into()),
    }
}

fn public(ready: &Value) -> Result<SocketAddr> {
    address(&ready["listeners"]["main"])
}

fn admin(ready: &Value) -> Result<SocketAddr> {
    address(&ready["admin"])
}

fn address(written: &Value) -> Result<SocketAddr> {
    Ok(written.as_str().unwrap_or_default().parse()?)
}

/// Starts the binary in the folder; returns the process and its ready file when it serves.
async fn serve(binary: &Path, folder: &Path, options: &[&str]) -> Result<(Process, Value)> {
    let (log, ready) = (folder.join(LOG), folder.join("ready.json"));
    let output = File::options().create(true).append(true).open(&log)?;
    let mut child = Command::new(std::path::absolute(binary)?)
        .current_dir(folder)
        .args(["run", "-c", "gateway.yaml", "--ready-file", "ready.json"])
        .args(options)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{}: {error}", binary.display()))?;
    let started = Instant::now();
    loop {
        let found = fs::read(&ready)
            .ok()
            .and_then(|ready| serde_json::from_slice(&ready).ok());
        let own = found.filter(|ready: &Value| ready["pid"].as_u64() == child.id().map(Into::into));
        if let Some(ready) = own {
            return Ok((Process(child), ready));
        }
        let ended = child.try_wait()?;
        if ended.is_some() || started.elapsed() > START_LIMIT {
            let log = fs::read_to_string(&log).unwrap_or_default();
            let how = ended.map_or_else(|| "it does not serve".to_owned(), |status| status.to_string());
            return Err(format!("the gateway did not start ({how}):\n{log}").into());
        }
        sleep(Duration::from_millis(1)).await;
    }
}

fn write_config(folder: &Path, config: &str) -> Result<()> {
    let (partial, whole): (PathBuf, PathBuf) = (folder.join("gateway.partial"), folder.join("gateway.yaml"));
    let says_workers = config.lines().any(|line| line.starts_with("workers:"));
    let workers = if says_workers { "" } else { WORKERS };
    fs::write(&partial, format!("{workers}{COMMON}{config}"))?;
    fs::rename(partial, whole)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::processor_seconds;

    #[test]
    fn processor_time_is_read_after_the_name() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 20 10 20 0 9 0";
        assert_eq!(processor_seconds(stat, 0).ok(), Some(2.0));
        assert_eq!(processor_seconds(stat, 2).ok(), Some(0.3));
        assert!(processor_seconds("7 (a) S", 0).is_err());
    }
}
