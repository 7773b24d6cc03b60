//! `gateway run`: starts to serve from a config file, and stops cleanly.
//!
//! This thread is the control thread. Admin requests, reloads, key sets, name resolution and upkeep run here, and no
//! request of a caller waits for it.

use std::io::{IsTerminal, Write, stderr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::signals::{self, SignalContext, Stops};
use super::{CUT, ConfigFile, FAILED, INVALID_CONFIG, OK};
use crate::admin;
use crate::clock;
use crate::control::reload::{self, Reloader};
use crate::control::{self, Control};
use crate::files;
use crate::limits::store::local::state_file::StateFile;
use crate::observe::access_log::Opened;
use crate::observe::log::Format;
use crate::observe::{self, Observer};
use crate::plan::{LivePlan, Plan, State};
use crate::server::sockets::{self, Bound};
use crate::server::{Lifecycle, Phase, Workers, descriptors};

#[derive(clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) file: ConfigFile,
    /// Write the served addresses to this file once the gateway serves.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Log as JSON lines.
    #[arg(long)]
    json_log: bool,
}

pub(super) fn run(options: &Options) -> u8 {
    let format = if options.json_log { Format::Json } else { Format::Text };
    if let Err(error) = observe::log::start(format, None) {
        let _ = writeln!(stderr(), "gateway: the log cannot be started: {error}");
        return FAILED;
    }
    match start(options.file.path()) {
        Ok(gateway) => gateway.serve(options.ready_file.as_deref()),
        Err(code) => code,
    }
}

/// Longest time to write the counts of quotas at the end.
const LAST_WRITE: Duration = Duration::from_secs(5);

/// A gateway with its sockets bound and its plan in force.
pub(crate) struct Gateway {
    path: PathBuf,
    state: Arc<State>,
    live: Arc<LivePlan>,
    bound: Vec<Bound>,
    admin: Option<admin::Bound>,
    counts: Option<StateFile>,
}

/// Reads the config and binds its sockets. Binds nothing if the config has a mistake.
pub(crate) fn start(path: &Path) -> Result<Gateway, u8> {
    let state = Arc::new(State::new(
        Observer::start(&observe::Target::Off).map_err(|error| failed("the access log", &error))?,
    ));
    let (compiled, loaded) = reload::read(path, &state, 1).map_err(|invalid| {
        let _ = stderr().write_all(invalid.render(stderr().is_terminal()).as_bytes());
        INVALID_CONFIG
    })?;
    let _ = stderr().write_all(
        loaded
            .sources
            .render_warnings(&compiled.warnings, stderr().is_terminal())
            .as_bytes(),
    );
    let plan = compiled.plan;
    descriptors::make_room(plan.edge.most_connections);
    let bound = bind(&plan)?;
    let admin = match &loaded.config.admin {
        Some(written) => Some(admin::bind(written).map_err(|error| failed("admin", &error))?),
        None => None,
    };
    let log = Opened::open(&reload::access_log(&loaded)).map_err(|error| failed("the access log", &error))?;
    state.observer.access_log.point_at(log);
    reload::take_effect(&plan, &state);
    let now = clock::Now::read();
    let counts = plan
        .edge
        .state_file
        .as_ref()
        .map(|path| {
            let opened = StateFile::open(path, &state.accounts, &plan.terms, now);
            opened.map_err(|error| failed(&format!("the state file {}", path.display()), &error))
        })
        .transpose()?;
    Ok(Gateway {
        path: path.to_owned(),
        state,
        live: Arc::new(LivePlan::new(Arc::new(plan))),
        bound,
        admin,
        counts,
    })
}

fn bind(plan: &Plan) -> Result<Vec<Bound>, u8> {
    plan.edge
        .addresses()
        .map(|(name, address)| {
            sockets::bind(name, address, plan.edge.workers)
                .map_err(|error| failed(&format!("listener {name} on {address}"), &error))
        })
        .collect()
}

fn failed(what: &str, error: &std::io::Error) -> u8 {
    tracing::error!("{what}: {error}");
    FAILED
}

impl Gateway {
    /// Returns the name and bound address of each listener.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (&str, std::net::SocketAddr)> {
        self.bound.iter().map(|bound| (bound.name.as_str(), bound.address))
    }

    /// Returns the address of the admin API, unless it is off.
    pub(crate) fn admin_address(&self) -> Option<std::net::SocketAddr> {
        self.admin.as_ref().map(admin::Bound::address)
    }

    /// Serves until a signal ends it. Returns the exit code.
    pub(crate) fn serve(self, ready_file: Option<&Path>) -> u8 {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return failed("the control thread", &error),
        };
        let code = runtime.block_on(self.control(ready_file));
        // A process that waits for the next gateway must not read the addresses of this one.
        if let Some(path) = ready_file {
            let _ = std::fs::remove_file(path);
        }
        // Tasks that still wait for a file system end with the process.
        runtime.shutdown_background();
        code
    }

    async fn control(self, ready_file: Option<&Path>) -> u8 {
        let addresses: Vec<_> = self.addresses().map(|(name, at)| (name.to_owned(), at)).collect();
        let admin_address = self.admin_address();
        let health_address = self.admin.as_ref().and_then(admin::Bound::health_address);
        let lifecycle = Arc::new(Lifecycle::default());
        let reloader = Arc::new(Reloader::new(
            self.path,
            Arc::clone(&self.live),
            Arc::clone(&self.state),
        ));
        let heard = SignalContext {
            reloader: Arc::clone(&reloader),
            lifecycle: Arc::clone(&lifecycle),
            live: Arc::clone(&self.live),
        };
        let mut stops = match signals::listen(heard) {
            Ok(stops) => stops,
            Err(error) => return failed("signals", &error),
        };
        let control = Control::new(Arc::clone(&self.live), Arc::clone(&self.state));
        let sources = tokio::spawn(control::follow_sources(Arc::clone(&self.live)));
        // A name that does not resolve must not delay the start; its backend is unreachable until it resolves.
        let _ = tokio::time::timeout(Duration::from_secs(2), control.find_endpoints()).await;
        let upkeep = tokio::spawn(control.upkeep());
        let clock = tokio::spawn(control::follow_wall_clock(Arc::clone(&self.state)));
        let reacher = tokio::spawn(control::bring_back(Arc::clone(&self.live)));
        let prober = tokio::spawn(control::probe_endpoints(Arc::clone(&self.live)));
        let follower = tokio::spawn(control::follow_files(Arc::clone(&reloader)));
        let counts = self.counts.map(|file| Arc::new(Mutex::new(file)));
        let keeper = counts
            .as_ref()
            .map(|file| tokio::spawn(control::keep_counts(Arc::clone(file), Arc::clone(&self.state))));
        let workers = match Workers::start(self.live.load().edge.workers, self.bound, &self.live, &lifecycle) {
            Ok(workers) => workers,
            Err(error) => return failed("workers", &error),
        };
        let admin = self.admin.map(|bound| {
            tokio::spawn(bound.serve(admin::Gateway {
                live: Arc::clone(&self.live),
                state: Arc::clone(&self.state),
                lifecycle: Arc::clone(&lifecycle),
                reloader: Arc::clone(&reloader),
                listeners: addresses.clone(),
            }))
        });
        for (name, address) in &addresses {
            tracing::info!(listener = name, %address, "serving");
        }
        if let Some(address) = admin_address {
            tracing::info!(%address, "admin");
        }
        if let Some(address) = health_address {
            tracing::info!(%address, "probes");
        }
        if let Some(Err(error)) = ready_file.map(|path| write_ready(path, &addresses, admin_address, health_address)) {
            return failed("the ready file", &error);
        }

        lifecycle.reached(Phase::Noticed).await;
        let plan = self.live.load();
        let cut = drain(&lifecycle, &plan, &mut stops).await;
        // The workers end by themselves now. Joining blocks, but nothing else is left to do here.
        if tokio::task::spawn_blocking(move || workers.join()).await.is_err() {
            return FAILED;
        }
        upkeep.abort();
        clock.abort();
        reacher.abort();
        prober.abort();
        sources.abort();
        follower.abort();
        if let (Some(keeper), Some(counts)) = (keeper, counts) {
            keeper.abort();
            let written = tokio::time::timeout(LAST_WRITE, control::keep_counts_once(&counts, &self.state)).await;
            if written.is_err() {
                tracing::error!("the state file was not written: its file system does not answer");
            }
        }
        if let Some(admin) = admin {
            admin.abort();
        }
        let state = Arc::clone(&self.state);
        let write_out = tokio::task::spawn_blocking(move || state.revocations.write_out());
        let _ = tokio::time::timeout(LAST_WRITE, write_out).await;
        self.state.observer.access_log.close(Duration::from_secs(2));
        if cut == 0 {
            tracing::info!("stopped, no request was cut");
            OK
        } else {
            tracing::warn!(requests = cut, "stopped, requests were cut");
            CUT
        }
    }
}

/// Waits for open requests to finish. Returns how many had to be cut.
async fn drain(lifecycle: &Lifecycle, plan: &Plan, stops: &mut Stops) -> usize {
    tracing::info!(
        requests = lifecycle.requests(),
        "stopping: readiness fails, then no new connections"
    );
    lifecycle.advance(Phase::Noticed);
    let so_far = stops.so_far();
    let mut at_once = Box::pin(stops.more_than(so_far));
    tokio::select! {
        () = tokio::time::sleep(plan.edge.drain_notice) => {}
        () = &mut at_once => {}
    }
    lifecycle.advance(Phase::Draining);
    let drained = tokio::time::timeout(plan.edge.drain, async {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        // The task of a tunnel may end a moment after its connection.
        while lifecycle.connections() > 0 || lifecycle.requests() > 0 {
            tick.tick().await;
        }
    });
    tokio::select! {
        _ = drained => {}
        () = at_once => tracing::warn!("second signal: stopping at once"),
    }
    let cut = lifecycle.requests();
    lifecycle.advance(Phase::Cut);
    cut
}

/// Writes the served addresses to the ready file. The file appears whole or not at all.
fn write_ready(
    path: &Path,
    addresses: &[(String, std::net::SocketAddr)],
    admin: Option<std::net::SocketAddr>,
    health: Option<std::net::SocketAddr>,
) -> std::io::Result<()> {
    let listeners: serde_json::Map<_, _> = addresses
        .iter()
        .map(|(name, at)| (name.clone(), at.to_string().into()))
        .collect();
    let ready =
        serde_json::json!({ "listeners": listeners, "admin": admin, "health": health, "pid": std::process::id() });
    files::replace(path, ready.to_string().as_bytes(), files::Mode::Private)
}
