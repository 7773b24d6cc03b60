//! Reads the config and gets everything that serving needs: sockets, logs and counts. Nothing serves yet.
//!
//! Sockets come from the process that is replaced, from a service manager, or are bound.

use std::io::{IsTerminal, Write, stderr};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::take_over::TakeOver;
use super::{FAILED, INVALID_CONFIG};
use crate::admin::{self, InheritedAdmin};
use crate::clock;
use crate::config;
use crate::control::UsageKeeper;
use crate::control::reload::{self, Following};
use crate::files;
use crate::hand_over::{self, Passed};
use crate::limits::store::local::state_file::StateFile;
use crate::observe::access_log::Opened;
use crate::observe::{self, Observer};
use crate::plan::{LivePlan, Plan, State};
use crate::server::sockets::{self, Bound, Inherited};
use crate::server::{activation, descriptors};

/// A gateway with its sockets bound and its plan in force.
pub(crate) struct Gateway {
    pub(super) path: PathBuf,
    pub(super) state: Arc<State>,
    pub(super) live: Arc<LivePlan>,
    pub(super) bound: Vec<Bound>,
    pub(super) admin: Option<admin::Bound>,
    pub(super) counts: Option<StateFile>,
    pub(super) usage: UsageKeeper,
    pub(super) take_over: Option<TakeOver>,
    pub(super) following: Following,
    /// Number of warnings of the config, which have been printed.
    pub(super) warnings: usize,
}

/// Reads the config and binds its sockets. Binds nothing if the config has a mistake. With `take_over`, a process that
/// answers there passes its sockets, and serves on if anything fails here.
pub(crate) fn start(path: &Path, take_over: Option<&Path>) -> Result<Gateway, u8> {
    // The first thing of all, because the process continues the clock of the other one.
    let mut predecessor = match take_over {
        Some(socket) => hand_over::connect(socket)
            .map_err(|error| failed(&format!("nothing is taken over from {}", socket.display()), &error))?,
        None => None,
    };
    let state = Arc::new(State::new(
        Observer::start(&observe::Target::Off).map_err(|error| failed("the access log", &error))?,
    ));
    let (compiled, loaded) = match reload::read(path, &state, 1) {
        Ok(read) => read,
        Err(invalid) => {
            let _ = stderr().write_all(invalid.render(stderr().is_terminal()).as_bytes());
            if let Some(predecessor) = predecessor {
                predecessor.refuse("its config has mistakes");
            }
            return Err(INVALID_CONFIG);
        }
    };
    let _ = stderr().write_all(
        loaded
            .sources
            .render_warnings(&compiled.warnings, stderr().is_terminal())
            .as_bytes(),
    );
    let plan = compiled.plan;
    descriptors::make_room(plan.edge.most_connections);
    let mut passed = match &mut predecessor {
        Some(predecessor) => {
            let passed = predecessor.sockets();
            Some(passed.map_err(|error| failed("the sockets of the process before", &error))?)
        }
        None => None,
    };
    let (bound, admin) = bind(&plan, loaded.config.admin.as_ref(), passed.as_mut())?;
    let log = Opened::open(&reload::access_log(&loaded)).map_err(|error| failed("the access log", &error))?;
    state.observer.access_log.point_at(log);
    reload::take_effect(&plan, &state);
    state.observer.registry.config_loaded(plan.generation);
    let lock = passed.as_mut().and_then(|passed| passed.state_file_lock.take());
    let counts = plan.edge.state_file.as_ref().map(|path| {
        let opened = match lock {
            Some(lock) => StateFile::continue_from(path, lock),
            None => StateFile::open(path, &state.accounts, &plan.terms, clock::Now::read()),
        };
        opened.map_err(|error| failed(&format!("the state file {}", path.display()), &error))
    });
    let counts = counts.transpose()?;
    let usage = UsageKeeper::start(plan.edge.usage.as_deref(), Arc::clone(&state.observer.usage))
        .map_err(|error| failed("the folder of `usage`", &error))?;
    let from = predecessor.zip(passed);
    Ok(Gateway {
        path: path.to_owned(),
        state,
        live: Arc::new(LivePlan::new(Arc::new(plan))),
        bound,
        admin,
        counts,
        usage,
        take_over: take_over.map(|path| TakeOver::new(path, from)),
        following: Following::default(),
        warnings: compiled.warnings.len(),
    })
}

/// Binds the listeners and the admin address, as far as their sockets are not inherited.
fn bind(
    plan: &Plan,
    admin: Option<&config::Admin>,
    mut passed: Option<&mut Passed>,
) -> Result<(Vec<Bound>, Option<admin::Bound>), u8> {
    let mut activated = activation::take().map_err(|error| failed("the service manager's sockets", &error))?;
    let workers = plan.edge.workers;
    let listeners = plan.edge.addresses().map(|(name, address)| {
        let mut own = match &mut passed {
            Some(passed) => sockets::take_inherited(&mut passed.listeners, name, address, false),
            None => Vec::new(),
        };
        if own.is_empty() {
            own = sockets::take_inherited(&mut activated, name, address, true);
        }
        let bound = if own.is_empty() {
            sockets::bind(name, address, workers)
        } else {
            Bound::of(name, own, workers)
        };
        bound.map_err(|error| failed(&format!("listener {name} on {address}"), &error))
    });
    let bound = listeners.collect::<Result<_, _>>()?;
    let admin = admin.map(|written| {
        let mut of_admin = |passed: Option<Inherited>, name, address: SocketAddr| {
            let passed =
                passed.filter(|one| one.address == address || address.port() == 0 && one.address.ip() == address.ip());
            passed
                .map(|one| one.socket)
                .or_else(|| sockets::take_inherited(&mut activated, name, address, true).pop())
        };
        let (of_old, probes_of_old) = passed.map_or((None, None), |old| (old.admin.take(), old.probes.take()));
        let inherited = InheritedAdmin {
            admin: of_admin(of_old, "admin", *written.address),
            probes: written
                .health_address
                .as_ref()
                .and_then(|address| of_admin(probes_of_old, "probes", **address)),
        };
        admin::bind(written, inherited).map_err(|error| failed("admin", &error))
    });
    let admin = admin.transpose()?;
    if let Some(Inherited { name, address, .. }) = activated.first() {
        let name = name.as_deref().unwrap_or("without a name");
        tracing::error!(
            "the service manager has opened {address} ({name}), and no listener has this name or address: callers would \
             wait there for ever"
        );
        return Err(FAILED);
    }
    Ok((bound, admin))
}

pub(super) fn failed(what: &str, error: &std::io::Error) -> u8 {
    tracing::error!("{what}: {error}");
    FAILED
}

/// Writes the served addresses to the ready file. The file appears whole or not at all.
pub(super) fn write_ready(
    path: &Path,
    addresses: &[(String, SocketAddr)],
    admin: Option<SocketAddr>,
    health: Option<SocketAddr>,
) -> std::io::Result<()> {
    let listeners: serde_json::Map<_, _> = addresses
        .iter()
        .map(|(name, at)| (name.clone(), at.to_string().into()))
        .collect();
    let ready =
        serde_json::json!({ "listeners": listeners, "admin": admin, "health": health, "pid": std::process::id() });
    files::replace(path, ready.to_string().as_bytes(), files::Mode::Private)
}
