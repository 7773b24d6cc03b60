//! Answers at the hand-over socket: passes this process's sockets and counts to the one that replaces it.
//!
//! Runs on a thread of its own, one hand-over at a time. Invariant: until the other process says that it serves, nothing
//! here has changed for callers, and every error leads back to that state.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::Duration;

use super::guards;
use super::message::{
    self, Charges, Hello, InFlight, Listener, MOST_CHARGES, Nothing, PROTOCOL, Ready, Refused, Revocations, SetAside,
    Sockets, Welcome,
};
use super::socket::{HandOverSocket, is_trusted};
use super::wire::{Message, Wire};
use crate::clock::{self, Now};
use crate::limits::owner::HashKeys;
use crate::limits::store::local::snapshot::{SavedCharge, Snapshot};
use crate::limits::store::local::state_file::StateFile;
use crate::plan::{LivePlan, State};
use crate::server::{Lifecycle, Phase, WorkerTurns};

/// Longest wait for the first message. A process that sends nothing keeps others waiting for as long.
const FIRST: Duration = Duration::from_secs(5);
/// Longest wait for the other process to read and check its config, and to bind what it needs.
const PREPARATION: Duration = Duration::from_secs(120);
/// Longest wait for the other process to read a message.
const ANSWER: Duration = Duration::from_secs(15);
/// Longest wait for all workers to finish what they do.
const TURNS: Duration = Duration::from_secs(5);
/// Time between two messages with charges.
const CHARGES_EVERY: Duration = Duration::from_millis(10);
/// Number of these between two messages with the requests in flight.
const IN_FLIGHT_EVERY: u32 = 10;

/// Largest number of owners whose requests in flight are told, so that the message is not too long.
const MOST_IN_FLIGHT: usize = 20_000;

/// What a process that takes over gets.
pub struct Offer {
    pub state: Arc<State>,
    pub live: Arc<LivePlan>,
    pub lifecycle: Arc<Lifecycle>,
    pub turns: WorkerTurns,
    pub counts: Option<Arc<Mutex<StateFile>>>,
    pub descriptors: Descriptors,
}

/// Further descriptors of all listening sockets.
#[derive(Default)]
pub struct Descriptors {
    /// Name, address and sockets of each listener, in the order of the plan.
    pub listeners: Vec<(String, SocketAddr, Vec<TcpListener>)>,
    pub admin: Option<TcpListener>,
    pub probes: Option<TcpListener>,
}

/// The thread that hands over.
pub struct Offering {
    /// Kept open only while another process may get them.
    descriptors: Arc<Mutex<Descriptors>>,
    path: PathBuf,
    inode: Option<u64>,
    finish: Sender<()>,
    finished: Receiver<()>,
}

/// Starts to answer at the socket.
///
/// # Errors
/// If the thread cannot be started.
pub(super) fn start(socket: HandOverSocket, mut offer: Offer) -> io::Result<Offering> {
    socket.listener.set_nonblocking(false)?;
    let (path, inode) = (socket.path().to_owned(), socket.inode());
    let (finish, to_finish) = channel();
    let (tell, finished) = channel();
    let descriptors = Arc::new(Mutex::new(std::mem::take(&mut offer.descriptors)));
    let kept = Arc::clone(&descriptors);
    let serve = move || {
        serve(&socket, &offer, &kept, &to_finish);
        drop(tell);
    };
    thread::Builder::new().name("hand-over".into()).spawn(serve)?;
    Ok(Offering {
        descriptors,
        path,
        inode,
        finish,
        finished,
    })
}

impl Offering {
    /// Stops to answer because this process ends without a successor.
    pub fn withdraw(&self) {
        *kept(&self.descriptors) = Descriptors::default();
        HandOverSocket::remove(&self.path, self.inode);
    }

    /// Waits until the other process has got every charge, for at most the limit. Blocks.
    pub fn finish(self, limit: Duration) {
        let _ = self.finish.send(());
        // The other half is dropped when all is sent.
        let _ = self.finished.recv_timeout(limit);
    }
}

fn kept(descriptors: &Mutex<Descriptors>) -> MutexGuard<'_, Descriptors> {
    descriptors.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(socket: &HandOverSocket, offer: &Offer, descriptors: &Mutex<Descriptors>, finish: &Receiver<()>) {
    loop {
        let wire = match socket.listener.accept() {
            Ok((stream, _)) => Wire::new(stream),
            Err(error) => Err(error),
        };
        let handed_over = wire.and_then(|mut wire| {
            let done = offer.hand_over(&mut wire, socket, descriptors);
            if let Err(error) = &done {
                let why = error.to_string();
                let _ = wire.send(message::REFUSED, &Refused { why }, FIRST);
            }
            done.map(|()| wire)
        });
        match handed_over {
            Ok(wire) => {
                forward(wire, &offer.state, finish);
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "not handed over, this process serves on");
                // A failing accept must not spin.
                thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// Receives a message of this kind.
fn expect(wire: &mut Wire, kind: &str, limit: Duration) -> io::Result<Message> {
    let message = wire.receive(limit).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::other("the other process has gone"),
        _ => error,
    })?;
    if message.kind == message::REFUSED {
        let Refused { why } = message.body()?;
        return Err(io::Error::other(format!("the other process gives up: {why}")));
    }
    if message.kind != kind {
        let found = &message.kind;
        return Err(io::Error::other(format!("it sent `{found}` where `{kind}` was due")));
    }
    Ok(message)
}

impl Offer {
    /// Hands over. Once this returns, the other process serves and this one drains.
    fn hand_over(&self, wire: &mut Wire, socket: &HandOverSocket, descriptors: &Mutex<Descriptors>) -> io::Result<()> {
        is_trusted(wire)?;
        self.greet(wire)?;
        expect(wire, message::PREPARED, PREPARATION)?;
        let passed = self.pass_sockets(wire, socket, descriptors)?;
        let Ready { listeners } = expect(wire, message::READY, PREPARATION)?.body()?;
        if listeners.len() != passed {
            return Err(io::Error::other("it names other listeners"));
        }
        self.is_serving()?;
        let handing_over = HandingOver::begin(&self.state, self.counts.as_ref())?;
        self.send_state(wire)?;
        expect(wire, message::SERVING, PREPARATION)?;
        handing_over.done();
        // Once the workers have closed theirs, only the other process has the sockets.
        *kept(descriptors) = Descriptors::default();
        self.lifecycle.hand_over(listeners);
        tracing::info!("handed over: another process serves, this one drains");
        // If the other process is gone, nothing can be taken back: it may have accepted connections.
        let _ = wire.send(message::DRAINING, &Nothing::default(), ANSWER);
        Ok(())
    }

    fn is_serving(&self) -> io::Result<()> {
        if self.lifecycle.phase() == Phase::Serving {
            Ok(())
        } else {
            Err(io::Error::other("this process is stopping"))
        }
    }

    fn greet(&self, wire: &mut Wire) -> io::Result<()> {
        let Hello {
            protocols,
            version,
            pid,
        } = expect(wire, message::HELLO, FIRST)?.body()?;
        self.is_serving()?;
        if !protocols.contains(&PROTOCOL) {
            return Err(io::Error::other(format!(
                "version {version} speaks versions {protocols:?} of the protocol, and this one version {PROTOCOL}"
            )));
        }
        tracing::info!(pid, %version, "another process prepares to take over");
        let HashKeys(first, second) = HashKeys::of_process();
        let welcome = Welcome {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            epoch: clock::epoch_since_boot(),
            now: clock::since_boot(),
            hash_keys: (first, second),
            hash_form: HashKeys::form(),
        };
        wire.send(message::WELCOME, &welcome, ANSWER)
    }

    /// Passes all descriptors; returns the number of listeners.
    fn pass_sockets(
        &self,
        wire: &mut Wire,
        socket: &HandOverSocket,
        descriptors: &Mutex<Descriptors>,
    ) -> io::Result<usize> {
        let kept = kept(descriptors);
        self.is_serving()?;
        let Descriptors {
            listeners,
            admin,
            probes,
        } = &*kept;
        let address = |socket: &Option<TcpListener>| socket.as_ref().map(TcpListener::local_addr).transpose();
        let lock = match &self.counts {
            Some(counts) => Some(state_file(counts)?.lock()?),
            None => None,
        };
        let identity = lock.as_ref().map(|lock| lock.metadata()).transpose()?;
        let sockets = Sockets {
            listeners: listeners
                .iter()
                .map(|(name, address, sockets)| Listener {
                    name: name.clone(),
                    address: *address,
                    sockets: sockets.len(),
                })
                .collect(),
            admin: address(admin)?,
            probes: address(probes)?,
            state_file_lock: identity.map(|lock| (lock.dev(), lock.ino())),
            issuers: self.issuers_with_keys(),
        };
        wire.send(message::SOCKETS, &sockets, ANSWER)?;
        let of_listeners = listeners.iter().flat_map(|(_, _, sockets)| sockets);
        let mut descriptors: Vec<_> = of_listeners.chain(admin).chain(probes).map(AsFd::as_fd).collect();
        descriptors.extend(lock.as_ref().map(AsFd::as_fd));
        descriptors.push(socket.listener.as_fd());
        wire.pass(&descriptors, ANSWER)?;
        Ok(listeners.len())
    }

    fn issuers_with_keys(&self) -> Vec<String> {
        let plan = self.live.load();
        let issuers = plan.authenticator.issuers().iter();
        let with_keys = issuers.filter(|issuer| issuer.keys().status().keys > 0);
        with_keys.map(|issuer| issuer.name().to_string()).collect()
    }

    /// Sends the counts as of now. From this instant on, every charge is logged too.
    fn send_state(&self, wire: &mut Wire) -> io::Result<()> {
        if !self.turns.wait(TURNS) {
            return Err(io::Error::other("a worker of this process does not come to an end"));
        }
        self.state.revocations.write_out();
        let accounts = &self.state.accounts;
        let (now, began) = (Now::read(), clock::now());
        let (terms, left, snapshot) = accounts.log.begin_with(|| {
            (
                accounts.saved_terms(),
                accounts.saved_left(),
                Snapshot::of(accounts, now),
            )
        });
        let (owners, took) = (snapshot.owners(), clock::now().since(began));
        tracing::info!(owners, ?took, "counts copied");
        for terms in &terms {
            wire.send(message::TERMS, terms, ANSWER)?;
        }
        snapshot.counts(|counts| wire.send(message::COUNTS, &counts, ANSWER))?;
        let mut left = left.into_iter().peekable();
        while left.peek().is_some() {
            let owners = left.by_ref().take(MOST_CHARGES).collect();
            wire.send(message::SET_ASIDE, &SetAside { owners }, ANSWER)?;
        }
        for backend in guards::saved(&self.live.load(), now.moment) {
            wire.send(message::BACKEND, &backend, ANSWER)?;
        }
        for unwritten in self.state.revocations.unwritten() {
            wire.send(message::REVOCATIONS, &Revocations { unwritten }, ANSWER)?;
        }
        wire.send(message::END, &Nothing::default(), ANSWER)
    }
}

/// The time from the copy of the counts until the other process serves. Dropping it before means that it does not.
struct HandingOver<'h> {
    state: &'h State,
    counts: Option<&'h Arc<Mutex<StateFile>>>,
    is_done: bool,
}

impl<'h> HandingOver<'h> {
    fn begin(state: &'h State, counts: Option<&'h Arc<Mutex<StateFile>>>) -> io::Result<Self> {
        // The file must hold nothing later than what the other process writes first.
        if let Some(counts) = counts {
            state_file(counts)?.hand_over(true);
        }
        state.accounts.log.turn(true);
        Ok(Self {
            state,
            counts,
            is_done: false,
        })
    }

    fn done(mut self) {
        self.is_done = true;
    }
}

impl Drop for HandingOver<'_> {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        self.state.accounts.log.turn(false);
        if let Some(Ok(mut counts)) = self.counts.map(state_file) {
            counts.hand_over(false);
        }
    }
}

/// Locks the state file, unless a file system that does not answer holds up its writer.
fn state_file(counts: &Arc<Mutex<StateFile>>) -> io::Result<MutexGuard<'_, StateFile>> {
    const TRIES: u32 = 500;
    for _ in 0..TRIES {
        match counts.try_lock() {
            Ok(counts) => return Ok(counts),
            Err(TryLockError::Poisoned(counts)) => return Ok(counts.into_inner()),
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(10)),
        }
    }
    Err(io::Error::other(
        "the state file is being written, and its file system does not answer",
    ))
}

/// Sends what this process still charges until it has ended.
fn forward(mut wire: Wire, state: &State, finish: &Receiver<()>) {
    // The service manager must know the other process before this one can end.
    if let Err(error) = expect(&mut wire, message::SETTLED, ANSWER) {
        tracing::warn!(%error, "the process that has taken over does not answer");
    }
    for round in 0u32.. {
        let is_last = !matches!(finish.recv_timeout(CHARGES_EVERY), Err(RecvTimeoutError::Timeout));
        let (charges, lost) = state.accounts.log.take();
        if lost > 0 {
            tracing::error!(
                lost,
                "too many charges at once: these are not counted by the process that has taken over"
            );
        }
        let sent = charges.chunks(MOST_CHARGES).try_for_each(|some| {
            let charges = some.iter().map(SavedCharge::new).collect();
            wire.send(message::CHARGES, &Charges { charges }, ANSWER)
        });
        let in_flight = || state.accounts.saved_in_flight().into_iter().take(MOST_IN_FLIGHT);
        let sent = sent.and_then(|()| {
            if round % IN_FLIGHT_EVERY == 0 {
                let owners = in_flight().collect();
                wire.send(message::IN_FLIGHT, &InFlight { owners }, ANSWER)
            } else {
                Ok(())
            }
        });
        if let Err(error) = sent {
            tracing::warn!(%error, "the process that has taken over does not hear what this one still charges");
            state.accounts.log.turn(false);
            return;
        }
        if is_last {
            return;
        }
    }
}
