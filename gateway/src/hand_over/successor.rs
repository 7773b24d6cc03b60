//! Takes the place of the process that answers at the hand-over socket.
//!
//! Invariant: until [`Predecessor::serving`], every way out leaves the other process serving as before. Dropping the
//! value closes the connection, which tells it so.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use policies::InFlight;

use super::guards::SavedBackend;
use super::message::{
    self, Charges, Hello, Nothing, PROTOCOL, Ready, Refused, Revocations, SetAside, Sockets, Welcome,
};
use super::socket::{self, HandOverSocket};
use super::wire::{Message, Wire};
use crate::clock::{self, Now};
use crate::limits::kinds::Account;
use crate::limits::owner::HashKeys;
use crate::limits::store::local::snapshot::{SavedCounts, SavedTerms};
use crate::plan::{Plan, State};
use crate::server::sockets::Inherited;

/// Longest wait for a message of the other process.
const ANSWER: Duration = Duration::from_secs(15);
/// Longest pause in what it sends while it drains. It sends something several times a second.
const SILENCE: Duration = Duration::from_secs(30);
/// Longest wait for the keys of an issuer.
const KEYS: Duration = Duration::from_secs(15);
/// Most clock difference between two processes that share a clock.
const SAME_CLOCK: u64 = 10_000_000_000;
/// Largest number of descriptors that are taken over.
const MOST_DESCRIPTORS: usize = 4_096;

/// The process that this one is to replace.
pub struct Predecessor {
    wire: Wire,
    path: PathBuf,
    pid: u32,
    /// Listeners that it serves, by name and address.
    listeners: Vec<(String, SocketAddr)>,
    /// Issuers whose keys it has.
    issuers: Vec<String>,
}

/// The descriptors that the other process has passed.
pub struct Passed {
    pub listeners: Vec<Inherited>,
    pub admin: Option<Inherited>,
    pub probes: Option<Inherited>,
    pub state_file_lock: Option<File>,
    socket: UnixListener,
}

/// State of the other process that is put in force once the plan is.
pub struct Guards(Vec<SavedBackend>);

/// Connects to the process that serves now; returns `None` if nobody answers at the path. To be called before the clock
/// is read and before any owner has a key, because both continue those of the other process.
///
/// # Errors
/// If it refuses, or cannot hand over to this version.
pub fn connect(path: &Path) -> io::Result<Option<Predecessor>> {
    let Some(mut wire) = socket::connect(path)? else {
        return Ok(None);
    };
    let hello = Hello {
        protocols: vec![PROTOCOL],
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
    };
    wire.send(message::HELLO, &hello, ANSWER)?;
    let welcome: Welcome = expect(&mut wire, message::WELCOME)?.body()?;
    if welcome.protocol != PROTOCOL {
        return Err(io::Error::other(format!(
            "it speaks version {} of the protocol, and this one version {PROTOCOL}",
            welcome.protocol
        )));
    }
    if welcome.now.abs_diff(clock::since_boot()) > SAME_CLOCK {
        return Err(io::Error::other(
            "its monotonic clock is another one: it runs on another machine or in another time namespace",
        ));
    }
    if welcome.hash_form != HashKeys::form() {
        return Err(io::Error::other(format!(
            "version {} names the owners of limits in another way: its counts cannot be taken over",
            welcome.version
        )));
    }
    let (first, second) = welcome.hash_keys;
    if !clock::continue_from(welcome.epoch) || !HashKeys(first, second).take_over() {
        return Err(io::Error::other("this process has begun to count already"));
    }
    Ok(Some(Predecessor {
        wire,
        path: path.to_owned(),
        pid: welcome.pid,
        listeners: Vec::new(),
        issuers: Vec::new(),
    }))
}

/// Receives a message of this kind.
fn expect(wire: &mut Wire, kind: &str) -> io::Result<Message> {
    let message = wire.receive(ANSWER)?;
    if message.kind == message::REFUSED {
        let Refused { why } = message.body()?;
        return Err(io::Error::other(format!("it refuses: {why}")));
    }
    if message.kind != kind {
        return Err(io::Error::other(format!(
            "it sent `{}` where `{kind}` was due",
            message.kind
        )));
    }
    Ok(message)
}

impl Predecessor {
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Tells the other process why it is not replaced.
    pub fn refuse(mut self, why: &str) {
        let _ = self
            .wire
            .send(message::REFUSED, &Refused { why: why.to_owned() }, ANSWER);
    }

    /// Takes over the descriptors. The config must have been checked.
    ///
    /// # Errors
    /// If the other process refuses or sends something else.
    pub fn sockets(&mut self) -> io::Result<Passed> {
        self.wire.send(message::PREPARED, &Nothing::default(), ANSWER)?;
        let sockets: Sockets = expect(&mut self.wire, message::SOCKETS)?.body()?;
        let of_listeners = sockets
            .listeners
            .iter()
            .fold(0, |sum: usize, one| sum.saturating_add(one.sockets));
        let count = of_listeners
            .saturating_add(usize::from(sockets.admin.is_some()))
            .saturating_add(usize::from(sockets.probes.is_some()))
            .saturating_add(usize::from(sockets.state_file_lock.is_some()))
            .saturating_add(1);
        if count > MOST_DESCRIPTORS {
            return Err(io::Error::other(format!("it announces {count} descriptors")));
        }
        let mut descriptors = self.wire.take(count, ANSWER)?.into_iter();
        let mut next = || {
            descriptors
                .next()
                .ok_or_else(|| io::Error::other("a descriptor is missing"))
        };
        let mut listeners = Vec::new();
        for listener in &sockets.listeners {
            self.listeners.push((listener.name.clone(), listener.address));
            for _ in 0..listener.sockets {
                let name = Some(listener.name.clone());
                listeners.push(inherited(name, listener.address, next()?)?);
            }
        }
        let mut of_admin =
            |address: Option<SocketAddr>| address.map(|address| inherited(None, address, next()?)).transpose();
        let (admin, probes) = (of_admin(sockets.admin)?, of_admin(sockets.probes)?);
        self.issuers = sockets.issuers;
        let state_file_lock = match sockets.state_file_lock {
            Some(_) => Some(File::from(next()?)),
            None => None,
        };
        Ok(Passed {
            listeners,
            admin,
            probes,
            state_file_lock,
            socket: UnixListener::from(next()?),
        })
    }

    /// Waits until the keys of every issuer are fetched whose keys the other process has. Without them, tokens that it
    /// accepts would be refused here.
    ///
    /// # Errors
    /// If they do not come in time.
    pub async fn keys(&self, plan: &Plan) -> io::Result<()> {
        let issuers = plan.authenticator.issuers().iter();
        for issuer in issuers.filter(|issuer| self.issuers.iter().any(|name| **name == **issuer.name())) {
            let mut status = issuer.keys().watch();
            if tokio::time::timeout(KEYS, status.wait_for(|status| status.keys > 0))
                .await
                .is_err()
            {
                return Err(io::Error::other(format!(
                    "the keys of issuer {} cannot be fetched",
                    issuer.name()
                )));
            }
        }
        Ok(())
    }

    /// Takes over the counts, now that everything is ready to serve. `served` are the names and addresses of the listeners
    /// that this process serves on the sockets of the other one.
    ///
    /// # Errors
    /// If the other process refuses, or sends what cannot be understood.
    pub fn counts(&mut self, state: &State, served: &[SocketAddr]) -> io::Result<Guards> {
        let listeners = self.listeners.iter();
        let listeners = listeners.map(|(_, address)| served.contains(address)).collect();
        self.wire.send(message::READY, &Ready { listeners }, ANSWER)?;
        let (mut terms, mut guards): (Vec<SavedTerms>, _) = (Vec::new(), Vec::new());
        let (accounts, now) = (&state.accounts, Now::read());
        loop {
            let message = self.wire.receive(ANSWER)?;
            match message.kind.as_str() {
                message::TERMS => terms.push(message.body()?),
                message::COUNTS => {
                    if !terms.is_empty() {
                        let terms = std::mem::take(&mut terms);
                        accounts.restore_terms(terms, now).map_err(io::Error::other)?;
                    }
                    let counts: SavedCounts = message.body()?;
                    accounts.restore_counts(counts, now).map_err(io::Error::other)?;
                }
                message::SET_ASIDE => {
                    let SetAside { owners } = message.body()?;
                    owners.into_iter().for_each(|saved| accounts.restore_left(saved, now));
                }
                message::BACKEND => guards.push(message.body()?),
                message::REVOCATIONS => {
                    let Revocations { unwritten } = message.body()?;
                    let revocations = &state.revocations;
                    revocations.take_over_unwritten(&unwritten).map_err(io::Error::other)?;
                }
                message::END => break,
                message::REFUSED => {
                    let Refused { why } = message.body()?;
                    return Err(io::Error::other(format!("it refuses: {why}")));
                }
                other => {
                    tracing::warn!(
                        kind = other,
                        "the process before sends something that this version does not know: left out"
                    );
                }
            }
        }
        if !terms.is_empty() {
            accounts.restore_terms(terms, now).map_err(io::Error::other)?;
        }
        Ok(Guards(guards))
    }

    /// Makes this process the gateway: the other one drains. Returns the socket for the next hand-over, and what follows
    /// the charges of the other process.
    pub(super) fn serving(mut self, passed: UnixListener) -> (HandOverSocket, Follower) {
        let drains = self
            .wire
            .send(message::SERVING, &Nothing::default(), ANSWER)
            .and_then(|()| expect(&mut self.wire, message::DRAINING));
        if let Err(error) = drains {
            // Killed at this moment, it serves no more either.
            tracing::warn!(%error, pid = self.pid, "the process before does not say that it drains");
        }
        (HandOverSocket::of(passed, &self.path), Follower(self.wire))
    }
}

fn inherited(name: Option<String>, address: SocketAddr, descriptor: OwnedFd) -> io::Result<Inherited> {
    let socket = TcpListener::from(descriptor);
    if socket.local_addr()? != address {
        return Err(io::Error::other(format!("a socket is not that of {address}")));
    }
    socket.set_nonblocking(true)?;
    Ok(Inherited { name, address, socket })
}

impl Passed {
    /// Returns the socket at which the next process asks.
    pub fn into_socket(self) -> UnixListener {
        self.socket
    }
}

impl Guards {
    /// Puts the state of breakers and endpoints in force, as far as the plan has them.
    pub fn restore(self, plan: &Plan) {
        let now = clock::now();
        self.0.into_iter().for_each(|saved| saved.restore(plan, now));
    }
}

/// Follows what the process before still charges.
pub(super) struct Follower(Wire);

impl Follower {
    /// Tells the other process that it may end, and starts a thread that adds its charges until it has.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(super) fn start(mut self, state: Arc<State>) -> io::Result<()> {
        if let Err(error) = self.0.send(message::SETTLED, &Nothing::default(), ANSWER) {
            tracing::debug!(%error, "the process before has ended");
            return Ok(());
        }
        let follow = move || {
            let mut in_flight = RequestsElsewhere::default();
            let ended = self.follow(&state, &mut in_flight);
            match ended.kind() {
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
                    tracing::info!("the process before has ended");
                }
                _ => tracing::warn!(error = %ended, "what the process before still charges is not counted"),
            }
        };
        thread::Builder::new().name("charges".into()).spawn(follow)?;
        Ok(())
    }

    fn follow(&mut self, state: &State, in_flight: &mut RequestsElsewhere) -> io::Error {
        loop {
            let done = self.0.receive(SILENCE).and_then(|message| match message.kind.as_str() {
                message::CHARGES => {
                    let Charges { charges } = message.body()?;
                    let mut charges = charges.into_iter();
                    charges
                        .try_for_each(|charge| state.accounts.restore_charge(charge))
                        .map_err(io::Error::other)
                }
                message::IN_FLIGHT => {
                    let message::InFlight { owners } = message.body()?;
                    let found = owners.iter().map(|owner| state.accounts.account_in_flight(owner));
                    in_flight.change_to(found.collect::<Result<_, _>>().map_err(io::Error::other)?);
                    Ok(())
                }
                _ => Ok(()),
            });
            if let Err(error) = done {
                return error;
            }
        }
    }
}

/// Requests of the other process that are in flight, by the address of their counter. They count here until it says
/// otherwise or has ended.
#[derive(Default)]
struct RequestsElsewhere(HashMap<usize, (Arc<InFlight>, u32)>);

impl RequestsElsewhere {
    /// Makes these the numbers of requests that count.
    fn change_to(&mut self, found: Vec<(Account, u32)>) {
        let mut before = std::mem::take(&mut self.0);
        for (account, requests) in found {
            if let Account::InFlight(count, _) = account {
                let (_, known) = before
                    .remove(&(Arc::as_ptr(&count) as usize))
                    .unwrap_or((Arc::clone(&count), 0));
                (known..requests).for_each(|_| _ = count.enter_anyway());
                (requests..known).for_each(|_| count.leave());
                let both = self.0.entry(Arc::as_ptr(&count) as usize).or_insert((count, 0));
                both.1 += requests;
            }
        }
        leave(before);
    }
}

fn leave(all: HashMap<usize, (Arc<InFlight>, u32)>) {
    for (count, requests) in all.into_values() {
        (0..requests).for_each(|_| count.leave());
    }
}

impl Drop for RequestsElsewhere {
    fn drop(&mut self) {
        leave(std::mem::take(&mut self.0));
    }
}
