//! Runs a pretend backend as a process of its own, so that it can be killed and stopped as a real one.

use std::env;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use fixtures::fleet::{Fleet, Keep, Spec};
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::Result;
use crate::client::Client;

/// Backend in a process of its own. Dropping it kills the process.
pub struct BackendProcess {
    name: &'static str,
    child: Child,
    pub address: SocketAddr,
    control: SocketAddr,
}

#[derive(Clone, Copy, Debug)]
pub enum Signal {
    Kill,
    Stop,
    Continue,
}

/// Runs a backend in this process until its standard input ends. Prints its addresses as a line of JSON.
///
/// # Errors
/// The port is not available.
pub async fn serve(name: &str, port: u16) -> Result<()> {
    let fleet = Fleet::start([Spec::new(name).port(port).keep(Keep::NOTHING)]).await?;
    let addresses = json!({ "address": fleet.address(name), "control": fleet.control() });
    writeln!(io::stdout(), "{addresses}")?;
    // The fleet runs on its own thread, so this one may block.
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

impl BackendProcess {
    /// Starts a backend on this port; 0 takes a free one.
    ///
    /// # Errors
    /// The process does not start.
    pub(super) async fn start(name: &'static str, port: u16) -> Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .args(["backend", name, "--port", &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line).await?;
        }
        let addresses: Value =
            serde_json::from_str(&line).map_err(|error| format!("backend {name} did not start: {error}"))?;
        let read = |of: &str| -> Result<SocketAddr> { Ok(addresses[of].as_str().unwrap_or_default().parse()?) };
        Ok(Self {
            name,
            address: read("address")?,
            control: read("control")?,
            child,
        })
    }

    /// Sends a signal. The process was not waited for yet, so its id cannot belong to another one.
    pub(super) async fn signal(&self, signal: Signal) -> Result<()> {
        let Some(id) = self.child.id() else {
            return Err(format!("backend {} has ended", self.name).into());
        };
        let name = match signal {
            Signal::Kill => "-KILL",
            Signal::Stop => "-STOP",
            Signal::Continue => "-CONT",
        };
        let sent = Command::new("kill").arg(name).arg(id.to_string()).status().await?;
        if sent.success() {
            Ok(())
        } else {
            Err(format!("kill {name} {id}: {sent}").into())
        }
    }

    /// Kills the process, and returns when it is gone.
    pub(super) async fn kill(&mut self) -> Result<()> {
        self.signal(Signal::Kill).await?;
        self.child.wait().await?;
        Ok(())
    }

    /// Starts a killed backend again, on the same port.
    pub(super) async fn start_again(&mut self) -> Result<()> {
        *self = Self::start(self.name, self.address.port()).await?;
        Ok(())
    }

    /// Returns the number of requests that the process received so far, without health checks.
    pub(super) async fn requests(&self) -> Result<u64> {
        let path = format!("/fleet/{}", self.name);
        let request = Request::get(&path)
            .header("host", self.control.to_string())
            .body(Full::default())?;
        let answer = Client::new(self.control).ask(request, Duration::from_secs(5)).await;
        let answer = answer.map_err(|fault| format!("backend {}: {fault}", self.name))?;
        let page: Value = serde_json::from_slice(answer.body())?;
        page["counts"]["requests"]
            .as_u64()
            .ok_or_else(|| format!("backend {} does not say what it received: {page}", self.name).into())
    }
}
