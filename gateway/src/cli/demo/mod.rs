//! `gateway demo`: the whole gateway in one process, in front of a pretend fleet that can be broken, slowed and healed.
//!
//! For newcomers: everything it shows is a line to paste, and `--tour` proves that each line does what it says.
//! Its keys are public and its token issuer signs for anybody, so it listens on 127.0.0.1 alone, and nothing of it is
//! reachable from `gateway run`: that knows only config files, and this writes one.

mod banner;
mod files;
mod folder;
mod ports;
mod start;
mod steer;
mod tour;
mod walk;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use self::steer::Steer;

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serving: start::Serving,
    /// Start a demo on free ports, paste every line of its banner, and check what comes back.
    #[arg(long, conflicts_with_all = ["port", "admin_port", "ready_file"])]
    tour: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Make a backend of the running demo fail.
    Break {
        #[command(flatten)]
        whom: Whom,
        /// How: with a 503, by silence, by a reset, or by refusing connections.
        #[arg(long, default_value = "status", value_parser = ["status", "hang", "reset", "refuse"])]
        fault: String,
    },
    /// Make a backend of the running demo slow.
    Slow {
        #[command(flatten)]
        whom: Whom,
        /// How long it takes to answer, in milliseconds.
        #[arg(long, default_value_t = 3_000)]
        ms: u32,
    },
    /// Make a backend of the running demo as it was at first.
    Heal {
        #[command(flatten)]
        whom: Whom,
    },
}

#[derive(Args)]
struct Whom {
    /// users, orders, inventory, recommendations or payments.
    backend: String,
    /// Where the demo's fleet is steered; found by itself if one demo runs.
    #[arg(long, value_name = "ADDRESS", env = CONTROL_VARIABLE)]
    control: Option<SocketAddr>,
}

/// Says which demo to steer, if there are several.
const CONTROL_VARIABLE: &str = "GATEWAY_DEMO_CONTROL";

pub(super) fn demo(options: &Options) -> u8 {
    match &options.command {
        None if options.tour => walk::walk(),
        None => start::start(&options.serving),
        Some(Command::Break { whom, fault }) => steer::steer(whom.control, &whom.backend, Steer::Break(fault)),
        Some(Command::Slow { whom, ms }) => steer::steer(whom.control, &whom.backend, Steer::Slow { ms: *ms }),
        Some(Command::Heal { whom }) => steer::steer(whom.control, &whom.backend, Steer::Heal),
    }
}

/// A demo that runs, as everyone outside of its process knows it.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct Running {
    pid: u32,
    public: SocketAddr,
    admin: SocketAddr,
    /// Where the fleet is steered.
    control: SocketAddr,
    /// Its config, tokens and access log.
    folder: PathBuf,
    /// Whether no other demo of this user ran when it was started.
    alone: bool,
}
