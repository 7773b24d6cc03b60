//! Starts a demo: fleet, folder, gateway and banner. Stops all of them at the end.

use std::io::{self, IsTerminal, Write, stderr, stdout};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use fixtures::fleet::{self, Fleet};

use super::folder::Folder;
use super::running::Running;
use super::{banner, files, folder, ports, tour};
use crate::cli::{FAILED, start};
use crate::config;
use crate::observe::log::{self, Format};

#[derive(clap::Args)]
pub(super) struct Serving {
    /// The port to serve on; a taken one moves on to the next, 0 is any.
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    port: u16,
    /// The port of the admin address; a taken one moves on to the next, 0 is any.
    #[arg(long, value_name = "PORT", default_value_t = 9900)]
    admin_port: u16,
    /// Write the served addresses to this file once the demo serves.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

pub(super) fn start(options: &Serving) -> u8 {
    if let Err(error) = log::start(Format::Text, None) {
        return failed(&format!("the log cannot be started: {error}"));
    }
    match set_up(options) {
        Ok(stage) => perform(&stage, options.ready_file.as_deref()),
        Err(error) => failed(&error.to_string()),
    }
}

/// All parts of a demo but the gateway. They are dropped after the gateway has ended, the folder last.
struct Stage {
    fleet: Fleet,
    config: PathBuf,
    notes: Vec<String>,
    alone: bool,
    folder: Folder,
}

fn set_up(options: &Serving) -> io::Result<Stage> {
    let others = folder::running();
    let public = ports::free(options.port, None)?;
    let admin = ports::free(options.admin_port, Some(public).filter(|port| *port != 0))?;
    let notes = [
        ("port", options.port, public),
        ("admin port", options.admin_port, admin),
    ]
    .into_iter()
    .filter(|(_, wanted, taken)| wanted != taken)
    .map(|(what, wanted, taken)| format!("{what} {wanted} is taken, so this is {taken}"))
    .chain(
        others
            .iter()
            .map(|demo| format!("another demo runs at {} (process {})", demo.public, demo.pid)),
    )
    .collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // The fleet has its own thread and runtime; this runtime only waits until the fleet listens.
    let fleet = runtime.block_on(Fleet::start(fleet::demo::specs()))?;
    let folder = Folder::create()?;
    let backends = fleet
        .backends()
        .iter()
        .map(|backend| (backend.name(), backend.address()));
    let config = files::write(&folder, &files::Ports { public, admin }, backends)?;
    Ok(Stage {
        fleet,
        config,
        notes,
        alone: others.is_empty(),
        folder,
    })
}

/// Serves until a signal ends it. Returns the exit code.
fn perform(stage: &Stage, ready_file: Option<&Path>) -> u8 {
    let gateway = match start::start(&stage.config, None) {
        Ok(gateway) => gateway,
        Err(code) => return code,
    };
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let demo = Running {
        pid: std::process::id(),
        public: gateway.addresses().next().map_or(nowhere, |(_, address)| address),
        admin: gateway.admin_address().unwrap_or(nowhere),
        control: stage.fleet.control(),
        folder: stage.folder.path().to_owned(),
        alone: stage.alone,
    };
    let written = match config::load(&stage.config) {
        Ok(loaded) => loaded.config,
        Err(invalid) => return failed(&invalid.render(false)),
    };
    let steps = tour::steps(&demo, &tour::program(&demo));
    let colour = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let text = banner::banner(&demo, &written, &steps, &stage.notes, colour);
    // The sockets are bound, so pasted commands are answered as soon as the workers run.
    let told = stage.folder.announce(&demo);
    let _ = stdout().write_all(text.as_bytes()).and_then(|()| stdout().flush());
    match told {
        Ok(()) => gateway.serve(ready_file),
        Err(error) => failed(&format!("{}: {error}", stage.folder.path().display())),
    }
}

fn failed(why: &str) -> u8 {
    let _ = writeln!(stderr(), "gateway demo: {why}");
    FAILED
}
