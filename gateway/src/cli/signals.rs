//! Handles signals on its own thread, and ends the process if it does not end by itself.
//!
//! The control thread may be blocked by its work; SIGTERM is handled all the same. From the start of the shutdown the
//! process has the drain time, and a little more, to end by itself.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use policies::Moment;
use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::{CUT, service_manager, upgrade};
use crate::clock;
use crate::control::reload::Reloader;
use crate::plan::LivePlan;
use crate::server::{Lifecycle, Phase};

/// Time to end after the drain: workers are joined, and counts and the log are written.
const ENDING: Duration = Duration::from_secs(20);
/// Time to end after the second signal, when no request is waited for.
const HURRIED: Duration = Duration::from_secs(10);

/// State that the signal thread uses.
pub(super) struct SignalContext {
    pub(super) reloader: Arc<Reloader>,
    pub(super) lifecycle: Arc<Lifecycle>,
    pub(super) live: Arc<LivePlan>,
    /// Whether the process answers at a hand-over socket.
    pub(super) can_be_replaced: bool,
}

/// Number of SIGTERM and SIGINT signals so far.
pub(super) struct Stops(watch::Receiver<u32>);

impl Stops {
    pub(super) fn so_far(&self) -> u32 {
        *self.0.borrow()
    }

    /// Waits until there are more than `count` signals.
    pub(super) async fn more_than(&mut self, count: u32) {
        // The sending thread lives as long as the process, so waiting does not fail.
        let _ = self.0.wait_for(|now| *now > count).await;
    }
}

/// Starts to handle signals. SIGHUP reloads the config. SIGUSR2 starts a process that takes over. The first SIGTERM or SIGINT begins to stop, the second stops
/// without a drain, and the third ends the process at once.
///
/// # Errors
/// Fails if the signal handlers cannot be installed.
pub(super) fn listen(heard: SignalContext) -> io::Result<Stops> {
    let (sender, stops) = watch::channel(0);
    let (ready, started) = channel();
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || hear(&heard, &sender, &ready))?;
    wait(&started)?;
    Ok(Stops(stops))
}

fn wait(started: &Receiver<io::Result<()>>) -> io::Result<()> {
    started
        .recv()
        .unwrap_or_else(|_| Err(io::Error::other("the thread has ended")))
}

fn hear(heard: &SignalContext, stops: &watch::Sender<u32>, ready: &Sender<io::Result<()>>) {
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    runtime.block_on(async {
        match Signals::new() {
            Ok(signals) => {
                let _ = ready.send(Ok(()));
                signals.hear(heard, stops).await;
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        }
    });
}

struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
    upgrade: Signal,
    /// Ignored: a file that may not grow is an error of its write, and must not end the process.
    _file_size: Signal,
}

enum Event {
    Reload,
    Upgrade,
    Stop,
    /// The admin API has started the shutdown.
    Stopping,
    TimeIsUp,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            upgrade: signal(SignalKind::user_defined2())?,
            _file_size: signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?,
        })
    }

    async fn hear(mut self, heard: &SignalContext, stops: &watch::Sender<u32>) {
        let mut end: Option<Moment> = None;
        loop {
            let at = end.unwrap_or_else(clock::now);
            let event = tokio::select! {
                _ = self.terminate.recv() => Event::Stop,
                _ = self.interrupt.recv() => Event::Stop,
                _ = self.hangup.recv() => Event::Reload,
                _ = self.upgrade.recv() => Event::Upgrade,
                () = heard.lifecycle.reached(Phase::Noticed), if end.is_none() => Event::Stopping,
                () = clock::wait_until(at), if end.is_some() => Event::TimeIsUp,
            };
            let edge = || heard.live.load();
            let in_full = || clock::now() + edge().edge.drain_notice + edge().edge.drain + ENDING;
            match event {
                Event::Reload => {
                    service_manager::reloading();
                    let reloader = Arc::clone(&heard.reloader);
                    tokio::spawn(async move { service_manager::reloaded(reloader.reload().await.is_ok()) });
                }
                Event::Upgrade if heard.lifecycle.phase() != Phase::Serving => {}
                Event::Upgrade if heard.can_be_replaced => upgrade::start(),
                Event::Upgrade => tracing::warn!("SIGUSR2 is ignored: the process was started without --take-over"),
                Event::Stopping => end = Some(in_full()),
                Event::Stop => {
                    stops.send_modify(|count| *count += 1);
                    heard.lifecycle.advance(Phase::Noticed);
                    match *stops.borrow() {
                        1 => end = end.or_else(|| Some(in_full())),
                        2 => end = Some(clock::now() + HURRIED),
                        _ => give_up("third signal"),
                    }
                }
                Event::TimeIsUp => give_up("the process has not ended in time"),
            }
        }
    }
}

/// Ends the process at once, with exit code [`CUT`].
fn give_up(why: &'static str) {
    // Logged on another thread, because the log may be blocked.
    let _ = thread::Builder::new().spawn(move || tracing::error!("{why}: ended as it is"));
    thread::sleep(Duration::from_millis(100));
    std::process::exit(i32::from(CUT));
}
