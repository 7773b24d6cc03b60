//! `gateway run`: starts to serve from a config file, and stops cleanly.
//!
//! This thread is the control thread. Admin requests, reloads, key sets, name resolution and upkeep run here, and no
//! request of a caller waits for it.

use std::io::{Write, stderr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::signals::{self, SignalContext, Stops};
use super::start::{Gateway, failed, start, write_ready};
use super::take_over::{self, TakeOver};
use super::{CUT, ConfigFile, FAILED, OK, service_manager};
use crate::admin;
use crate::control::reload::{Following, Reloader, canary_time};
use crate::control::{self, Control, SharedStore};
use crate::files::Stamp;
use crate::hand_over::{Descriptors, Offer, Offering};
use crate::observe;
use crate::observe::log::Format;
use crate::plan::Plan;
use crate::server::{Lifecycle, Phase, Workers};

#[derive(clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) file: ConfigFile,
    /// Write the served addresses to this file once the gateway serves.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Take the sockets and counts of the gateway that answers at this Unix socket, and answer there from then on. If
    /// nobody answers, begin. SIGUSR2 starts the binary again to take over.
    #[arg(long, value_name = "SOCKET")]
    take_over: Option<PathBuf>,
    /// Read the config again whenever its file changes. A bad one changes nothing.
    #[arg(long)]
    watch: bool,
    /// After a reload, put the config before in force again if errors or refusals jump within this time, such as `60s`.
    #[arg(long, value_name = "TIME", value_parser = canary_time)]
    canary: Option<Duration>,
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
    let path = options.file.path();
    // Before the file is read, so that no later change is missed.
    let version = Stamp::of(path);
    match start(path, options.take_over.as_deref()) {
        Ok(gateway) => {
            gateway.introduce();
            Gateway {
                following: Following {
                    config: version.filter(|_| options.watch),
                    canary: options.canary,
                },
                ..gateway
            }
            .serve(options.ready_file.as_deref())
        }
        Err(code) => code,
    }
}

/// Longest time to write the counts of quotas at the end.
const LAST_WRITE: Duration = Duration::from_secs(5);
/// Longest time to export the last traces at the end.
const LAST_EXPORT: Duration = Duration::from_secs(2);

impl Gateway {
    /// Returns the name and bound address of each listener.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (&str, std::net::SocketAddr)> {
        self.bound.iter().map(|bound| (bound.name.as_str(), bound.address))
    }

    /// Returns the address of the admin API, unless it is off.
    pub(crate) fn admin_address(&self) -> Option<std::net::SocketAddr> {
        self.admin.as_ref().map(admin::Bound::address)
    }

    /// Logs what has been read: version, config and how much is in it. The addresses follow once they are served.
    fn introduce(&self) {
        let plan = self.live.load();
        let keys = plan.authenticator.api_keys();
        tracing::info!(
            config = %self.path.display(),
            routes = plan.listed.len(),
            backends = plan.backends.len(),
            endpoints = plan.backends.iter().map(|backend| backend.written.all().len()).sum::<usize>(),
            api_keys = keys.map_or(0, |keys| keys.all().len()),
            tenants = plan.tiers.tenants.len() + plan.tiers.directory.as_ref().map_or(0, |part| part.tenants.len()),
            tiers = plan.tiers.by_name.len(),
            workers = plan.edge.workers,
            warnings = self.warnings,
            "gateway {}",
            env!("CARGO_PKG_VERSION"),
        );
    }

    /// Serves until a signal ends it. Returns the exit code.
    pub(crate) fn serve(self, ready_file: Option<&Path>) -> u8 {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return failed("the control thread", &error),
        };
        let (code, is_handed_over) = runtime.block_on(async {
            let lifecycle = Arc::new(Lifecycle::default());
            let code = self.control(ready_file, &lifecycle).await;
            (code, lifecycle.is_handed_over())
        });
        // A process that waits for the next gateway must not read the addresses of this one.
        if let Some(path) = ready_file.filter(|_| !is_handed_over) {
            let _ = std::fs::remove_file(path);
        }
        // Tasks that still wait for a file system end with the process.
        runtime.shutdown_background();
        code
    }

    async fn control(mut self, ready_file: Option<&Path>, lifecycle: &Arc<Lifecycle>) -> u8 {
        let addresses: Vec<_> = self.addresses().map(|(name, at)| (name.to_owned(), at)).collect();
        let admin_address = self.admin_address();
        let health_address = self.admin.as_ref().and_then(admin::Bound::health_address);
        let reloader = Arc::new(Reloader::new(
            self.path,
            Arc::clone(&self.live),
            Arc::clone(&self.state),
            self.following,
        ));
        let heard = SignalContext {
            reloader: Arc::clone(&reloader),
            lifecycle: Arc::clone(lifecycle),
            live: Arc::clone(&self.live),
            can_be_replaced: self.take_over.is_some(),
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
        let has_predecessor = self.take_over.as_ref().is_some_and(TakeOver::has_predecessor);
        if let Some(take_over) = &mut self.take_over {
            let served = addresses.iter().map(|(_, address)| *address).collect();
            if let Err(error) = take_over.take_state(served, &self.state, &self.live).await {
                return failed("not taken over", &error);
            }
        }
        if lifecycle.phase() != Phase::Serving {
            tracing::info!("stopped before it served");
            return OK;
        }
        let store = match self.live.load().edge.store.clone() {
            Some(settings) => match SharedStore::start(settings, &self.state).await {
                Ok(store) => Some(store),
                Err(error) => return failed("the store of limits", &error),
            },
            None => None,
        };
        let clock = tokio::spawn(control::follow_wall_clock(Arc::clone(&self.state)));
        let reacher = tokio::spawn(control::bring_back(Arc::clone(&self.live)));
        let notices = tokio::spawn(control::notices::follow_notices(
            Arc::clone(&self.live),
            Arc::clone(&self.state),
            Arc::clone(&reloader),
        ));
        let prober = tokio::spawn(control::probe_endpoints(Arc::clone(&self.live)));
        let (stop_export, stopping) = tokio::sync::watch::channel(false);
        let exporter = tokio::spawn(control::export_traces(
            Arc::clone(&self.live),
            Arc::clone(&self.state),
            stopping,
        ));
        let usage = Arc::new(self.usage);
        let usage_keeper = tokio::spawn(Arc::clone(&usage).keep());
        let (stop_push, stopping) = tokio::sync::watch::channel(false);
        let pusher = tokio::spawn(control::push_usage(
            Arc::clone(&self.live),
            Arc::clone(&self.state.observer.usage),
            stopping,
        ));
        let follower = tokio::spawn(control::follow_files(Arc::clone(&reloader)));
        let counts = self.counts.map(|file| Arc::new(Mutex::new(file)));
        // A process that takes over gets descriptors of its own, so this one keeps some.
        let kept = match &self.take_over {
            Some(_) => take_over::descriptors(&self.bound, self.admin.as_ref()),
            None => Ok(Descriptors::default()),
        };
        let descriptors = match kept {
            Ok(kept) => kept,
            Err(error) => return failed("sockets for the next process", &error),
        };
        let workers = match Workers::start(self.live.load().edge.workers, self.bound, &self.live, lifecycle) {
            Ok(workers) => workers,
            Err(error) => return failed("workers", &error),
        };
        let admin = self.admin.map(|bound| {
            tokio::spawn(bound.serve(admin::Gateway {
                live: Arc::clone(&self.live),
                state: Arc::clone(&self.state),
                lifecycle: Arc::clone(lifecycle),
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
        let offering = match self.take_over {
            Some(take_over) => {
                let offer = Offer {
                    state: Arc::clone(&self.state),
                    live: Arc::clone(&self.live),
                    lifecycle: Arc::clone(lifecycle),
                    turns: workers.turns(),
                    counts: counts.clone(),
                    descriptors,
                };
                match take_over.answer(offer).await {
                    Ok(offering) => Some(offering),
                    Err(error) => return failed("the socket for the next process", &error),
                }
            }
            None => None,
        };
        // The process before counts in the file until here.
        let keeper = counts
            .as_ref()
            .map(|file| tokio::spawn(control::keep_counts(Arc::clone(file), Arc::clone(&self.state))));
        let watchdog = tokio::spawn(service_manager::watch(has_predecessor));
        if let Some(Err(error)) = ready_file.map(|path| write_ready(path, &addresses, admin_address, health_address)) {
            let code = failed("the ready file", &error);
            if !has_predecessor {
                return code;
            }
        }
        if !has_predecessor {
            service_manager::serving();
        }

        lifecycle.reached(Phase::Noticed).await;
        if lifecycle.is_handed_over() {
            // The other process answers at the admin address. Requests that are being answered here go on.
            admin.iter().for_each(tokio::task::JoinHandle::abort);
            watchdog.abort();
        } else {
            service_manager::stopping();
            offering.iter().for_each(Offering::withdraw);
        }
        let plan = self.live.load();
        let cut = drain(lifecycle, &plan, &mut stops).await;
        // The workers end by themselves now. Joining blocks, but nothing else is left to do here.
        if tokio::task::spawn_blocking(move || workers.join()).await.is_err() {
            return FAILED;
        }
        if let Some(offering) = offering.filter(|_| lifecycle.is_handed_over()) {
            // What is charged from now on is charged by nobody.
            let _ = tokio::task::spawn_blocking(move || offering.finish(LAST_WRITE)).await;
        }
        if let Some(store) = &store {
            store.give_back().await;
        }
        upkeep.abort();
        clock.abort();
        reacher.abort();
        notices.abort();
        if let Some(store) = self.state.shared_store.get() {
            store.leave().await;
        }
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
        usage_keeper.abort();
        // A round that has begun ends first, because both hold the journal.
        if tokio::time::timeout(LAST_WRITE, usage.end()).await.is_err() {
            tracing::error!("the last usage was not written: its file system does not answer");
        }
        let _ = stop_push.send(true);
        let _ = tokio::time::timeout(LAST_EXPORT, pusher).await;
        // Again, because what was delivered since then need not be delivered again.
        let _ = tokio::time::timeout(LAST_WRITE, usage.end()).await;
        if let Some(admin) = admin {
            admin.abort();
        }
        if !lifecycle.is_handed_over() {
            let state = Arc::clone(&self.state);
            let write_out = tokio::task::spawn_blocking(move || state.revocations.write_out());
            let _ = tokio::time::timeout(LAST_WRITE, write_out).await;
        }
        let _ = stop_export.send(true);
        let _ = tokio::time::timeout(LAST_EXPORT, exporter).await;
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
    // Nobody has to learn that this process is not ready: another one is.
    let notice = if lifecycle.is_handed_over() {
        Duration::ZERO
    } else {
        plan.edge.drain_notice
    };
    // The first signal begins a drain. One that has begun by a hand-over goes on.
    let so_far = stops.so_far().max(u32::from(lifecycle.is_handed_over()));
    let mut at_once = Box::pin(stops.more_than(so_far));
    tokio::select! {
        () = tokio::time::sleep(notice) => {}
        () = &mut at_once => {}
    }
    lifecycle.advance(Phase::Draining);
    let drained = tokio::time::timeout(plan.edge.drain, async {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        // The task of a tunnel may end a moment after its connection.
        // A request with an idempotency key goes on without its caller.
        while lifecycle.connections() > 0 || lifecycle.requests() > 0 || plan.idempotency.under_way() > 0 {
            tick.tick().await;
        }
    });
    tokio::select! {
        _ = drained => {}
        () = at_once => tracing::warn!("second signal: stopping at once"),
    }
    let cut = lifecycle.requests().max(plan.idempotency.under_way());
    lifecycle.advance(Phase::Cut);
    cut
}
