//! The listening side: one worker per core, each with its own sockets, and an orderly shutdown.
//!
//! While a request is served, workers share nothing but atomics. A slow request on one worker never delays another
//! worker, and the control thread delays none.

mod acceptor;
pub mod activation;
pub mod descriptors;
mod last_words;
pub mod lifecycle;
mod memory;
pub mod sockets;

mod certificate_sweep;
mod connection;
mod connection_guard;
mod connection_state;
mod date;
mod delay_watch;
mod early_refusal;
mod guarded_io;
mod handshakes;
mod http1;
mod http2;
mod in_flight;
mod per_address;
mod preface;
mod proxied;
mod reaper;
mod tls;
mod tunnelled;
mod worker;

use std::io;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Handle;

use self::handshakes::HandshakeTime;
pub use self::lifecycle::{Lifecycle, Phase};
pub use self::memory::MemoryServer;
use self::reaper::Reaper;
use self::sockets::Bound;
use self::worker::Worker;
use crate::plan::LivePlan;

/// Worker threads that run until the lifecycle ends.
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
    turns: WorkerTurns,
}

/// Waits for all workers to finish the task that each of them runs now.
#[derive(Clone)]
pub struct WorkerTurns(Vec<Handle>);

impl WorkerTurns {
    /// Blocks until every worker has begun another task. What this thread has written before, each of them sees from then
    /// on. Returns false if that takes longer than `limit`.
    pub fn wait(&self, limit: Duration) -> bool {
        let (sender, turns) = mpsc::channel::<()>();
        for worker in &self.0 {
            let sender = sender.clone();
            worker.spawn(async move { drop(sender) });
        }
        drop(sender);
        // A worker that has ended has dropped its sender too.
        turns.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Disconnected)
    }
}

impl Workers {
    /// Starts `count` workers on sockets that are already bound.
    ///
    /// # Errors
    /// Fails if a thread cannot be started or a socket cannot be shared.
    pub fn start(
        count: usize,
        bound: Vec<Bound>,
        live: &Arc<LivePlan>,
        lifecycle: &Arc<Lifecycle>,
    ) -> io::Result<Self> {
        let sockets = sockets::spread(bound, count)?;
        let (per_address, handshake_slots) = (Arc::default(), Arc::default());
        let loads = &live.load().loads;
        let started: Vec<_> = sockets
            .into_iter()
            .enumerate()
            .map(|(index, sockets)| {
                let worker = Worker {
                    index,
                    load: loads.add(),
                    live: Arc::clone(live),
                    lifecycle: Arc::clone(lifecycle),
                    watch: Reaper::default(),
                    per_address: Arc::clone(&per_address),
                    handshake_slots: Arc::clone(&handshake_slots),
                    handshake_time: HandshakeTime::default(),
                };
                acceptor::spawn(worker, sockets)
            })
            .collect::<io::Result<_>>()?;
        let (handles, threads) = started.into_iter().unzip();
        Ok(Self {
            threads,
            turns: WorkerTurns(handles),
        })
    }

    pub fn turns(&self) -> WorkerTurns {
        self.turns.clone()
    }

    /// Waits until every worker has stopped.
    pub fn join(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker has panicked");
            }
        }
    }
}
