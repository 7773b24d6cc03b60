//! The listening side: one worker per core, each with its own sockets, and an orderly shutdown.
//!
//! While a request is served, workers share nothing but atomics. A slow request on one worker never delays another
//! worker, and the control thread delays none.

mod acceptor;
pub mod descriptors;
mod last_words;
pub mod lifecycle;
pub mod sockets;

mod certificate_sweep;
mod connection;
mod connection_guard;
mod delay_watch;
mod early_refusal;
mod guarded_io;
mod handshakes;
mod http1;
mod http2;
mod in_flight;
mod loan;
mod per_address;
mod preface;
mod proxied;
mod reaper;
mod screened;
mod tls;
mod tunnelled;
mod worker;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use self::handshakes::HandshakeTime;
pub use self::lifecycle::{Lifecycle, Phase};
use self::reaper::Reaper;
use self::sockets::Bound;
use self::worker::Worker;
use crate::plan::LivePlan;

/// Worker threads that run until the lifecycle ends.
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `count` workers on sockets that are already bound.
    ///
    /// # Errors
    /// Fails if a thread cannot be started.
    pub fn start(
        count: usize,
        bound: Vec<Bound>,
        live: &Arc<LivePlan>,
        lifecycle: &Arc<Lifecycle>,
    ) -> io::Result<Self> {
        let mut sockets: Vec<Vec<std::net::TcpListener>> = (0..count).map(|_| Vec::new()).collect();
        for listener in bound {
            for (own, socket) in sockets.iter_mut().zip(listener.sockets) {
                own.push(socket);
            }
        }
        let (per_address, handshake_slots) = (Arc::default(), Arc::default());
        let loads = &live.load().loads;
        let threads = sockets
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
        Ok(Self { threads })
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
