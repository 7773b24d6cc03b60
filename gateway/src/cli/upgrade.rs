//! Starts the binary once more, so that it takes over: the answer to SIGUSR2.
//!
//! A service manager accepts another main process only from within the service, so the running process starts it.

use std::env;
use std::io;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Variables that describe this process and not another one.
const OWN: [&str; 4] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"];

static IS_RUNNING: AtomicBool = AtomicBool::new(false);

/// Starts the binary that is at the path of this one now, with the same arguments. Does nothing while such a process
/// prepares.
pub(super) fn start() {
    if IS_RUNNING.swap(true, Ordering::AcqRel) {
        tracing::warn!("another process prepares to take over already");
        return;
    }
    match spawn() {
        Ok(pid) => tracing::info!(pid, "started another process to take over"),
        Err(error) => {
            IS_RUNNING.store(false, Ordering::Release);
            tracing::error!(%error, "no other process can be started to take over");
        }
    }
}

fn spawn() -> io::Result<u32> {
    let mut arguments = env::args_os();
    let binary = arguments
        .next()
        .ok_or_else(|| io::Error::other("the binary has no name"))?;
    let mut command = Command::new(binary);
    command.args(arguments).stdin(Stdio::null());
    for name in OWN {
        command.env_remove(name);
    }
    let mut child = command.spawn()?;
    let pid = child.id();
    // It ends only if it has not taken over, or after this process.
    let wait = move || {
        let ended = child.wait();
        IS_RUNNING.store(false, Ordering::Release);
        match ended {
            Ok(status) => tracing::error!(pid, %status, "the process that was to take over has ended"),
            Err(error) => tracing::error!(pid, %error, "the process that was to take over cannot be waited for"),
        }
    };
    thread::Builder::new().name("upgrade".into()).spawn(wait)?;
    Ok(pid)
}
