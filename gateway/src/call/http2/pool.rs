//! The shared connections of one worker to one endpoint, and who may use which.
//!
//! An exchange takes a place on the newest connection that has room, so that load gathers and what is left over can
//! age out. If none has room it waits: for a place that comes free, or for a connection that is being opened. One is
//! opened only when those under way would not do for all who wait, so a crowd does not open one each.
//!
//! Invariants: a connection carries at most as many exchanges as we and its peer allow; a place counts exactly once,
//! until it is dropped; nobody waits unless a connection is being opened. How many wait is bounded by the bulkhead.
//!
//! Each worker has its own, so its lock is taken by that worker alone (and for a look by the admin API).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use policies::Moment;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::link::Link;
use crate::call::attempt::Failure;
use crate::call::classify::Fault;
use crate::call::pool::PoolSettings;
use crate::clock;

#[derive(Default)]
pub(crate) struct Shared {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    settings: PoolSettings,
    /// Oldest first.
    members: Vec<Member>,
    /// Connections that are being opened.
    dials: usize,
    /// First come, first served.
    waiting: VecDeque<oneshot::Sender<Served>>,
    /// What the newest connection can carry, which is expected of the next.
    expected: Option<usize>,
}

struct Member {
    link: Arc<Link>,
    /// Exchanges that it carries.
    carries: usize,
    idle_since: Moment,
}

/// What comes of waiting.
pub(super) type Served = Result<Place, Failure>;

pub(super) enum Taken {
    Now(Place),
    /// It comes later; with a duty, if another connection is to be opened for that.
    Later(oneshot::Receiver<Served>, Option<DialGuard>),
}

/// The right to one exchange on a connection, which counts until this is dropped.
pub(super) struct Place {
    pool: Arc<Shared>,
    link: Arc<Link>,
    abandoned: AtomicBool,
    /// All of the request has been handed to the connection.
    asked: AtomicBool,
    /// What sends its body, or has sent it.
    carrier: OnceLock<AbortHandle>,
}

/// To open a connection. Dropped before that is done, it has failed.
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
            return Taken::Now(Place::new(Arc::clone(self), link));
        }
        state.waiting.retain(|waiting| !waiting.is_closed());
        let (serve, served) = oneshot::channel();
        state.waiting.push_back(serve);
        let duty = state.is_short().then(|| self.duty(&mut state));
        Taken::Later(served, duty)
    }

    /// Closes what has been idle for too long.
    pub(crate) fn sweep(&self, settings: &PoolSettings, now: Moment) {
        let mut state = self.lock();
        state.settings = *settings;
        state.let_go(now);
    }

    /// Connections that carry something, connections that carry nothing, exchanges.
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
        // Outside of the lock: one who has left meanwhile drops the place, which takes it.
        if let Some((serve, link)) = next {
            let _ = serve.send(Ok(Place::new(Arc::clone(self), link)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A place on the newest connection that has room.
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

    /// Whoever has waited longest, with a place if there is one.
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

    /// Whether the connections that are being opened will not do for all who wait.
    fn is_short(&self) -> bool {
        self.waiting.len() > self.dials.saturating_mul(self.expected())
    }

    fn expected(&self) -> usize {
        let most = self.settings.streams as usize;
        self.expected.map_or(most, |expected| expected.min(most)).max(1)
    }

    /// Lets go of the connections that are of no more use once they carry nothing.
    fn let_go(&mut self, now: Moment) {
        let settings = &self.settings;
        self.members
            .retain(|member| member.carries > 0 || member.is_good(settings, now));
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

impl Place {
    const fn new(pool: Arc<Shared>, link: Arc<Link>) -> Self {
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

    /// Nobody waits for the answer any more: no more of the request is sent.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Relaxed);
        if let Some(carrier) = self.carrier.get() {
            carrier.abort();
        }
    }

    /// The body is sent by this task, which is ended with the exchange.
    pub(super) fn set_carrier(&self, task: AbortHandle) {
        // One exchange has one body.
        let _ = self.carrier.set(task);
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Relaxed)
    }

    /// There is no more of the request.
    pub(super) fn end_request(&self) {
        self.asked.store(true, Relaxed);
    }

    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pool.free(&self.link, clock::now());
    }
}

impl DialGuard {
    /// The connection is open. Gives the duties that follow, if it does not do for all who wait.
    pub(super) fn done(mut self, link: Link, now: Moment) -> Vec<Self> {
        if !link.is_open() {
            // Otherwise who waits would open another at once, and another.
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
            let _ = serve.send(Ok(Place::new(Arc::clone(&self.pool), link)));
        }
        duties
    }

    /// It could not be opened, as those are told who would have used it.
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
