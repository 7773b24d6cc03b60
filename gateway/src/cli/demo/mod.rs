//! `gateway demo`: the whole gateway in one process, in front of a demo fleet whose backends can be made to fail or
//! respond slowly.
//!
//! It is for newcomers: everything it shows is a command to paste, and `--tour` checks that each command does what it
//! says. Its keys are public and its token issuer signs any token, so it listens only on 127.0.0.1. `gateway run`
//! cannot reach any part of it, because that command knows only config files, and the demo writes its own.

mod banner;
mod files;
mod folder;
mod ports;
mod running;
mod start;
mod steer;
mod tour;
mod walk;

use std::net::SocketAddr;

use clap::{Args, Subcommand};

use self::steer::FleetChange;

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
        whom: BackendArgs,
        /// Kind of fault: a 503, no answer, a reset, or refused connections.
        #[arg(long, default_value = "status", value_parser = ["status", "hang", "reset", "refuse"])]
        fault: String,
    },
    /// Make a backend of the running demo slow.
    Slow {
        #[command(flatten)]
        whom: BackendArgs,
        /// Time that the backend takes to answer, in milliseconds.
        #[arg(long, default_value_t = 3_000)]
        ms: u32,
    },
    /// Make a backend of the running demo work normally again.
    Heal {
        #[command(flatten)]
        whom: BackendArgs,
    },
}

#[derive(Args)]
struct BackendArgs {
    /// Backend: users, orders, inventory, recommendations or payments.
    backend: String,
    /// Address that controls the demo's fleet; found by itself if one demo runs.
    #[arg(long, value_name = "ADDRESS", env = CONTROL_VARIABLE)]
    control: Option<SocketAddr>,
}

/// Variable that selects the demo to control, if there are several.
const CONTROL_VARIABLE: &str = "GATEWAY_DEMO_CONTROL";

pub(super) fn demo(options: &Options) -> u8 {
    match &options.command {
        None if options.tour => walk::walk(),
        None => start::start(&options.serving),
        Some(Command::Break { whom, fault }) => steer::steer(whom.control, &whom.backend, FleetChange::Break(fault)),
        Some(Command::Slow { whom, ms }) => steer::steer(whom.control, &whom.backend, FleetChange::Slow { ms: *ms }),
        Some(Command::Heal { whom }) => steer::steer(whom.control, &whom.backend, FleetChange::Heal),
    }
}
