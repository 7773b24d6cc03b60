//! Hears signals on a thread of its own, and ends the process if nothing else does.
//!
//! The control thread may be held up by what it looks after; SIGTERM is heard all the same. From the moment the gateway
//! begins to stop, the process has as long as draining may take, and a little more, to end by itself.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use policies::Moment;
use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::CUT;
use crate::clock;
use crate::control::reload::Reloader;
use crate::plan::LivePlan;
use crate::server::{Lifecycle, Phase};

/// What ending takes beside the drain: workers are joined, counts and the log are written.
const ENDING: Duration = Duration::from_secs(20);
/// The same once nothing is waited for any more.
const HURRIED: Duration = Duration::from_secs(10);

/// What the thread works with.
pub(super) struct Heard {
    pub(super) reloader: Arc<Reloader>,
    pub(super) lifecycle: Arc<Lifecycle>,
    pub(super) live: Arc<LivePlan>,
}

/// How often SIGTERM or SIGINT has come.
pub(super) struct Stops(watch::Receiver<u32>);

impl Stops {
    pub(super) fn so_far(&self) -> u32 {
        *self.0.borrow()
    }

    /// Waits until there were more of them.
    pub(super) async fn more_than(&mut self, count: u32) {
        // The thread that sends lives as long as the process.
        let _ = self.0.wait_for(|now| *now > count).await;
    }
}

/// Listens from now on. SIGHUP reloads; SIGTERM and SIGINT begin to stop, twice at once, three times without anything
/// being waited for.
///
/// # Errors
/// Signals cannot be listened to.
pub(super) fn listen(heard: Heard) -> io::Result<Stops> {
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

fn hear(heard: &Heard, stops: &watch::Sender<u32>, ready: &Sender<io::Result<()>>) {
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
}

enum Event {
    Reload,
    Stop,
    /// By the admin API.
    Stopping,
    TimeIsUp,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn hear(mut self, heard: &Heard, stops: &watch::Sender<u32>) {
        let mut end: Option<Moment> = None;
        loop {
            let at = end.unwrap_or_else(clock::now);
            let event = tokio::select! {
                _ = self.terminate.recv() => Event::Stop,
                _ = self.interrupt.recv() => Event::Stop,
                _ = self.hangup.recv() => Event::Reload,
                () = heard.lifecycle.reached(Phase::Noticed), if end.is_none() => Event::Stopping,
                () = clock::wait_until(at), if end.is_some() => Event::TimeIsUp,
            };
            let edge = || heard.live.load();
            let in_full = || clock::now() + edge().edge.drain_notice + edge().edge.drain + ENDING;
            match event {
                Event::Reload => heard.reloader.ask(),
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

/// Ends the process whatever it is waiting for.
fn give_up(why: &'static str) {
    // On another thread, as the log may be what everything waits for.
    let _ = thread::Builder::new().spawn(move || tracing::error!("{why}: ended as it is"));
    thread::sleep(Duration::from_millis(100));
    std::process::exit(i32::from(CUT));
}
