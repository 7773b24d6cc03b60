//! Counts limits that several processes share: their tokens come from the store some at a time, and decisions are made
//! here.
//!
//! The rule is [`policies::lease`]. An account holds the tokens on lease of one owner, and a request spends them by one
//! atomic operation. The [renewer] asks the store for more before they run out. Where they are too few, a request waits
//! for the store, for at most the call limit. Where the store cannot be reached, `when_down` decides.
//!
//! Invariant: the accounts here keep nothing that must outlive the process, because the central count is in the store.
//! So they are in no state file, and no process hands them over: what is on lease is returned at the end of a drain.

mod part;
pub mod renewer;
mod slots;
mod tokens;
mod waiting;

use std::num::NonZeroU32;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use policies::{LeaseTerms, Moment};
use tokio::sync::mpsc;

pub use self::part::Leasable;
pub use self::slots::LeasedSlots;
pub use self::tokens::LeasedCount;
pub use self::waiting::{Ticket, Verdict};
use crate::clock::Now;
use crate::store::{Answer, Command, StoreKey, Trouble};

/// Treatment of requests that the tokens on lease do not cover, while the store cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenDown {
    /// The limit is divided by the number of replicas.
    Bounded,
    /// They are admitted.
    Open,
    /// They are refused.
    Closed,
}

/// Terms of a limit that replicas share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeasedTerms<T> {
    /// The same limit as one process would count it.
    pub own: T,
    pub lease: LeaseTerms,
    pub when_down: WhenDown,
}

/// Wait that is told where nothing says when the store can be reached again.
const COME_BACK: Duration = Duration::from_secs(1);

/// Largest number of accounts that wait to be renewed.
const MOST_QUEUED: usize = 1 << 16;

/// Time for which the largest number of replicas that any count has told is remembered.
const REMEMBERED: Duration = Duration::from_secs(10);

/// An account as the renewer sees it.
pub(in crate::limits) trait Renewed: Send + Sync {
    /// Returns the command that is to be sent now. `None` if there is nothing to ask, or a command is under way; the
    /// account is then tended again after the answer. With `drain`, everything is given back.
    fn command(&self, now: Moment, drain: bool) -> Option<Command>;
    /// Applies the answer to the last command.
    fn answer(&self, now: Now, answer: Result<Answer, Trouble>);
    /// Tells those who wait that the store does not answer.
    fn give_up(&self);
    /// Returns the moment at which the account is to be tended; `None` if it holds nothing and wants nothing.
    fn due(&self, now: Moment) -> Option<Moment>;
    /// Takes back what was granted to a caller that has left.
    fn take_back(&self, now: Now, tokens: u64);
    /// Returns the count in the store if it is confirmed from time to time. Such an account is tended together with
    /// others of the same owner, because the store executes all their commands in one call.
    fn confirmed(&self) -> Option<&StoreKey> {
        None
    }
    /// Whether the account is to be tended now if another one of its owner is.
    fn goes_along(&self, _now: Moment) -> bool {
        false
    }
}

/// The link of all accounts that share the store to the task that renews them.
#[derive(Debug, Default)]
pub struct Leasing {
    started: OnceLock<Started>,
    is_up: AtomicBool,
    /// Most replicas that a count has told of late, and the moment of that.
    replicas: AtomicU32,
    told_at: AtomicU64,
    pub stats: LeaseStats,
    /// Tokens on lease after the last renewal of each account.
    held: AtomicU64,
}

/// Mark of an account that is in the queue of the renewer, so that it is there once.
#[derive(Debug, Default)]
struct QueueMark(AtomicBool);

impl QueueMark {
    /// Queues the account for the renewer, unless it is queued already. Returns whether it is.
    fn queue<A: Renewed + 'static>(&self, account: &Weak<A>, leasing: &Leasing) -> bool {
        if self.0.swap(true, AcqRel) {
            return true;
        }
        let is_queued = account.upgrade().is_some_and(|account| leasing.queue(account));
        if !is_queued {
            self.clear();
        }
        is_queued
    }

    /// Clears the mark, before the account is looked at.
    fn clear(&self) {
        self.0.store(false, Relaxed);
    }
}

/// Numbers since the start, for metrics.
#[derive(Debug, Default)]
pub struct LeaseStats {
    /// Commands that were sent to the store.
    pub commands: AtomicU64,
    /// Round trips in which they were sent.
    pub round_trips: AtomicU64,
    /// Commands that the store did not execute, as far as is known.
    pub failed: AtomicU64,
    /// Requests that waited for the store.
    pub waited: AtomicU64,
    /// Requests that were refused without asking the store, because it had told when the next token comes.
    pub refused_alone: AtomicU64,
    /// Requests that were decided without the store, because it could not be reached.
    pub decided_alone: AtomicU64,
}

#[derive(Debug)]
struct Started {
    queue: mpsc::Sender<Arc<dyn Renewed>>,
    /// Name of this process in the store.
    replica: u64,
    /// Longest time that a request waits for the store.
    call_limit: Duration,
    heartbeat: Duration,
}

impl std::fmt::Debug for dyn Renewed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Renewed")
    }
}

/// The other end of the queue, for the renewer.
pub struct Renewals(mpsc::Receiver<Arc<dyn Renewed>>);

impl Leasing {
    /// Begins to queue renewals. Until then, accounts count as they do while the store cannot be reached.
    ///
    /// # Panics
    /// At the second call.
    pub fn start(&self, replica: u64, call_limit: Duration, lease_time: Duration) -> Renewals {
        let (queue, renewals) = mpsc::channel(MOST_QUEUED);
        let started = Started {
            queue,
            replica,
            call_limit,
            heartbeat: heartbeat(lease_time),
        };
        self.started.set(started).expect("leasing is started once");
        Renewals(renewals)
    }

    /// Returns the tokens that were on lease after the last renewal of each account.
    pub fn held(&self) -> u64 {
        self.held.load(Relaxed)
    }

    /// Notes that an account holds so many tokens in place of as many as before.
    fn note_held(&self, before: u64, now: u64) {
        self.held.fetch_add(now.wrapping_sub(before), Relaxed);
    }

    /// Sets whether the store can be reached.
    pub fn set_up(&self, is_up: bool) {
        self.is_up.store(is_up, Relaxed);
    }

    pub fn is_up(&self) -> bool {
        self.is_up.load(Relaxed)
    }

    /// Returns the longest time that a request waits for the store.
    pub fn call_limit(&self) -> Duration {
        self.started.get().map_or(Duration::ZERO, |started| started.call_limit)
    }

    fn replica(&self) -> u64 {
        self.started.get().map_or(0, |started| started.replica)
    }

    fn heartbeat(&self) -> Duration {
        self.started
            .get()
            .map_or(heartbeat(LeaseTerms::SHORTEST), |started| started.heartbeat)
    }

    /// Queues an account. Returns false if there is no room.
    fn queue(&self, account: Arc<dyn Renewed>) -> bool {
        let started = self.started.get();
        started.is_some_and(|started| started.queue.try_send(account).is_ok())
    }

    /// Records the number of replicas that a count has told.
    fn note_replicas(&self, told: u32, now: Moment) {
        let is_old = now.since(Moment::from_nanos(self.told_at.load(Relaxed))) > REMEMBERED;
        if is_old || told >= self.replicas.load(Relaxed) {
            self.replicas.store(told, Relaxed);
            self.told_at.store(now.nanos(), Relaxed);
        }
    }

    /// Returns the number of replicas, as last heard of; one before anything was heard.
    pub fn replicas(&self) -> NonZeroU32 {
        NonZeroU32::new(self.replicas.load(Relaxed)).unwrap_or(NonZeroU32::MIN)
    }
}

/// Returns the interval in which slots are confirmed. The store gives slots to others after two of them, so that those
/// of a process that was killed are free as soon as its tokens are.
pub fn heartbeat(lease_time: Duration) -> Duration {
    lease_time / 2
}

/// Returns the name of an owner's count in the store.
fn store_key(owner: &crate::limits::owner::Owner<'_>, limit: &str) -> StoreKey {
    StoreKey::new(&owner.to_string(), limit)
}

#[cfg(test)]
mod tests;
