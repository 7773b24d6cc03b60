//! Pools the shared connections of one worker to one endpoint, and limits the exchanges on each.
//!
//! An exchange takes a slot on the newest connection that has room. Load gathers there, so that older connections
//! become idle and can be closed. If none has room, the exchange waits for a free slot or for a new connection. A
//! connection is opened only if those being opened do not suffice for all waiting exchanges, so that a burst does not
//! open one for each.
//!
//! Invariants: a connection carries at most as many exchanges as both the gateway and its peer allow. A slot counts
//! exactly once, until it is dropped. An exchange waits only while a connection is being opened. The bulkhead bounds
//! how many wait.
//!
//! Each worker has its own pool. Its lock is taken by that worker and by the control thread (sweep, admin API).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use policies::Moment;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::link::Link;
use crate::call::failure::Failure;
use crate::call::fault::Fault;
use crate::call::pool::PoolSettings;
use crate::clock;

#[derive(Default)]
pub(crate) struct Shared {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    settings: PoolSettings,
    /// Connections, oldest first.
    members: Vec<Member>,
    /// Number of connections being opened.
    dials: usize,
    /// Waiting exchanges, first come, first served.
    waiting: VecDeque<oneshot::Sender<Served>>,
    /// Number of exchanges that the newest connection can carry. The next one is expected to carry as many.
    expected: Option<usize>,
    /// Whether idle connections are closed at once.
    is_closed: bool,
}

struct Member {
    link: Arc<Link>,
    /// Number of exchanges on the connection.
    carries: usize,
    idle_since: Moment,
}

/// Result of waiting for a slot.
pub(super) type Served = Result<ExchangeSlot, Failure>;

pub(super) enum Taken {
    Now(ExchangeSlot),
    /// The slot comes later. A guard is included if the receiver of this value must open another connection.
    Later(oneshot::Receiver<Served>, Option<DialGuard>),
}

/// Right to one exchange on a connection. It counts until dropped.
pub(super) struct ExchangeSlot {
    pool: Arc<Shared>,
    link: Arc<Link>,
    abandoned: AtomicBool,
    /// Whether the whole request has been handed to the connection.
    asked: AtomicBool,
    /// Task that sends the body, or has sent it.
    carrier: OnceLock<AbortHandle>,
}

/// Duty to open a connection. Dropped before it is done, it counts as failed.
#[must_use]
pub(super) struct DialGuard {
    pool: Arc<Shared>,
    is_done: bool,
}

impl Shared {
    pub(super) fn take(self: &Arc<Self>, settings: &PoolSettings, now: Moment) -> Taken {
        let mut state = self.lock();
        state.settings = *settings;
        state.let_go(now);
        if let Some(link) = state.occupy(now) {
            return Taken::Now(ExchangeSlot::new(Arc::clone(self), link));
        }
        state.waiting.retain(|waiting| !waiting.is_closed());
        let (serve, served) = oneshot::channel();
        state.waiting.push_back(serve);
        let duty = state.is_short().then(|| self.duty(&mut state));
        Taken::Later(served, duty)
    }

    /// Closes connections that have been idle for too long.
    pub(crate) fn sweep(&self, settings: &PoolSettings, now: Moment) {
        let mut state = self.lock();
        state.settings = *settings;
        state.let_go(now);
    }

    /// Opens or closes the pool. A closed pool closes each connection as soon as it carries no exchange.
    pub(crate) fn set_open(&self, is_open: bool) {
        let mut state = self.lock();
        state.is_closed = !is_open;
        state.let_go(clock::now());
    }

    /// Returns the number of connections in use, of idle connections, and of exchanges.
    pub(crate) fn count(&self) -> (usize, usize, usize) {
        let state = self.lock();
        let busy = state.members.iter().filter(|member| member.carries > 0).count();
        let carried = state.members.iter().map(|member| member.carries).sum();
        (busy, state.members.len() - busy, carried)
    }

    fn duty(self: &Arc<Self>, state: &mut State) -> DialGuard {
        state.dials += 1;
        DialGuard {
            pool: Arc::clone(self),
            is_done: false,
        }
    }

    fn free(self: &Arc<Self>, link: &Arc<Link>, now: Moment) {
        let next = {
            let mut state = self.lock();
            if let Some(member) = state.members.iter_mut().find(|member| Arc::ptr_eq(&member.link, link)) {
                member.carries -= 1;
                member.idle_since = now;
            }
            let next = state.next_served(now);
            state.let_go(now);
            next
        };
        // Sent outside the lock: if the receiver has left, the slot is dropped here, and its drop takes the lock.
        if let Some((serve, link)) = next {
            let _ = serve.send(Ok(ExchangeSlot::new(Arc::clone(self), link)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes a slot on the newest connection that has room.
    fn occupy(&mut self, now: Moment) -> Option<Arc<Link>> {
        let settings = &self.settings;
        let member = self
            .members
            .iter_mut()
            .rev()
            .find(|member| member.has_room(settings, now))?;
        member.carries += 1;
        Some(Arc::clone(&member.link))
    }

    /// Returns the exchange that has waited longest, with the connection of its slot, if there is one.
    fn next_served(&mut self, now: Moment) -> Option<(oneshot::Sender<Served>, Arc<Link>)> {
        while self.waiting.front().is_some_and(oneshot::Sender::is_closed) {
            self.waiting.pop_front();
        }
        if self.waiting.is_empty() {
            return None;
        }
        let link = self.occupy(now)?;
        Some((self.waiting.pop_front()?, link))
    }

    /// Whether the connections being opened do not suffice for all waiting exchanges.
    fn is_short(&self) -> bool {
        self.waiting.len() > self.dials.saturating_mul(self.expected())
    }

    fn expected(&self) -> usize {
        let most = self.settings.streams as usize;
        self.expected.map_or(most, |expected| expected.min(most)).max(1)
    }

    /// Removes idle connections that are closed, too old or idle for too long, and those beyond the idle limit.
    fn let_go(&mut self, now: Moment) {
        let settings = &self.settings;
        let is_closed = self.is_closed;
        self.members
            .retain(|member| member.carries > 0 || !is_closed && member.is_good(settings, now));
        let idle = self.members.iter().filter(|member| member.carries == 0).count();
        for _ in self.settings.idle_limit..idle {
            let oldest = self.members.iter().position(|member| member.carries == 0);
            oldest.map(|oldest| self.members.remove(oldest));
        }
    }
}

impl Member {
    fn takes_more(&self, settings: &PoolSettings, now: Moment) -> bool {
        self.link.is_open() && now.since(self.link.born()) <= settings.max_age
    }

    fn has_room(&self, settings: &PoolSettings, now: Moment) -> bool {
        self.carries < self.link.allows().min(settings.streams as usize) && self.takes_more(settings, now)
    }

    fn is_good(&self, settings: &PoolSettings, now: Moment) -> bool {
        self.takes_more(settings, now) && now.since(self.idle_since) <= settings.idle_for
    }
}

impl ExchangeSlot {
    fn new(pool: Arc<Shared>, link: Arc<Link>) -> Self {
        link.begin_exchange();
        Self {
            pool,
            link,
            abandoned: AtomicBool::new(false),
            asked: AtomicBool::new(false),
            carrier: OnceLock::new(),
        }
    }

    pub(super) const fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// Stops sending the request, because the answer is no longer needed.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Relaxed);
        if let Some(carrier) = self.carrier.get() {
            carrier.abort();
        }
    }

    /// Records the task that sends the body. It is aborted with the exchange.
    pub(super) fn set_carrier(&self, task: AbortHandle) {
        // An exchange has only one body.
        let _ = self.carrier.set(task);
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Relaxed)
    }

    /// Records that the whole request has been handed over.
    pub(super) fn end_request(&self) {
        self.asked.store(true, Relaxed);
    }

    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Relaxed)
    }
}

impl Drop for ExchangeSlot {
    fn drop(&mut self) {
        self.link.end_exchange();
        self.pool.free(&self.link, clock::now());
    }
}

impl DialGuard {
    /// Adds the opened connection and serves the waiting exchanges. Returns further duties if the connection does not
    /// suffice.
    pub(super) fn done(mut self, link: Link, now: Moment) -> Vec<Self> {
        if !link.is_open() {
            // A failure ends the waiting. Otherwise the waiting exchanges would open one connection after another.
            self.fail(&Failure::new(Fault::Unreached, "closed as soon as it was open"));
            return Vec::new();
        }
        self.is_done = true;
        let (mut served, mut duties) = (Vec::new(), Vec::new());
        {
            let mut state = self.pool.lock();
            state.dials -= 1;
            state.expected = Some(link.allows());
            state.members.push(Member {
                link: Arc::new(link),
                carries: 0,
                idle_since: now,
            });
            while let Some(next) = state.next_served(now) {
                served.push(next);
            }
            while state.is_short() {
                duties.push(self.pool.duty(&mut state));
            }
        }
        for (serve, link) in served {
            let _ = serve.send(Ok(ExchangeSlot::new(Arc::clone(&self.pool), link)));
        }
        duties
    }

    /// Reports a failed connection to the exchanges that would have used it.
    pub(super) fn failed(mut self, failure: &Failure) {
        self.fail(failure);
    }

    fn fail(&mut self, failure: &Failure) {
        self.is_done = true;
        let told: Vec<_> = {
            let mut state = self.pool.lock();
            state.dials -= 1;
            let told = match state.dials {
                0 => state.waiting.len(),
                _ => state.expected().min(state.waiting.len()),
            };
            state.waiting.drain(..told).collect()
        };
        for serve in told {
            let _ = serve.send(Err(failure.clone()));
        }
    }
}

impl Drop for DialGuard {
    fn drop(&mut self) {
        if !self.is_done {
            self.fail(&Failure::new(Fault::Unreached, "given up"));
        }
    }
}
