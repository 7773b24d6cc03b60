//! Limits how many calls of one backend run at once and how many wait, so that one backend's trouble cannot use up what
//! the others need.
//!
//! Entering and leaving without waiters is one compare-and-swap, and one more if a tenant may hold only a share of
//! the slots. The queue and its lock are used only when all slots are taken, or all slots of a tenant. A slot that
//! comes back while a caller waits is handed over and not freed, so no newcomer overtakes the queue. A waiter whose
//! tenant holds its whole share is passed over in favour of others.
//!
//! Invariant: the slots handed out never exceed the limit, except slots handed out before the limit was lowered. Each
//! slot comes back exactly once: on release, on drop or on unwinding. Every entrant has exactly one of four outcomes.
//!
//! The bulkhead orders the waiters and never waits itself: it signals a waiter, which then claims its slot.

use crate::moment::Moment;
use crate::queue::{FairQueue, Party, QueuePosition};
use crate::ratio::Ratio;
use crate::sync::{AtomicU8, AtomicU32, AtomicU64, Mutex, Ordering, lock};
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

mod shares;
mod slot;
mod ticket;

pub use shares::usual_tenant_share;
use shares::{Apart, Counted, Shares, tenant_cap};
pub use slot::Slot;
pub use ticket::{Ticket, Unserved};

pub struct Bulkhead<S: Signal> {
    /// Slots in use and number of waiters. The number of waiters changes only under the lock of `queue`.
    occupancy: AtomicU64,
    limit: AtomicU32,
    queue_limit: AtomicU32,
    /// Most slots that one tenant may hold; 0 for all. Changed only under the lock of `queue`.
    tenant_cap: AtomicU32,
    shares: Shares,
    queue: Mutex<Queue<S>>,
    admitted: AtomicU64,
    full: AtomicU64,
    timed_out: AtomicU64,
    left: AtomicU64,
}

/// Wakes a waiter, once: its ticket can then be claimed, and tells whether there is a slot.
pub trait Signal {
    fn signal(self);
}

/// Request for a slot.
#[derive(Clone, Copy, Debug)]
pub struct Entrant {
    /// Number of the tenant. Tenants of a tier are served in turn.
    pub tenant: u64,
    /// Number of the tier. Tiers are served by weight.
    pub tier: u32,
    /// Weight of the tier, at least 1.
    pub weight: u32,
    /// Last moment at which a slot is still useful: the end of the longest wait, or earlier.
    pub deadline: Moment,
}

impl Entrant {
    fn party(&self) -> Party {
        Party {
            tier: self.tier,
            weight: self.weight,
            tenant: self.tenant,
        }
    }
}

#[must_use = "what is dropped is given back"]
pub enum Entry<S: Signal> {
    Admitted(Slot<S>),
    Queued(Ticket<S>),
    /// All slots and all places in the queue are taken.
    Full,
}

/// What [`Bulkhead::enter`] would return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreseen {
    Admitted,
    Queued,
    Full,
}

/// Limits of a bulkhead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub slots: NonZeroU32,
    /// Places in the queue.
    pub places: u32,
    /// Largest share of the slots for one tenant, rounded down, but at least one slot.
    pub tenant_share: Ratio,
}

/// Numbers of entrants by outcome; each entrant is counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    pub admitted: u64,
    pub full: u64,
    pub timed_out: u64,
    /// Callers that left before their turn came.
    pub left: u64,
}

impl<S: Signal> Bulkhead<S> {
    /// Returns a bulkhead with `limit` slots and `queue` places to wait for a slot.
    pub fn new(limit: NonZeroU32, queue: u32) -> Bulkhead<S> {
        Bulkhead {
            occupancy: AtomicU64::new(0),
            limit: AtomicU32::new(limit.get()),
            queue_limit: AtomicU32::new(queue),
            tenant_cap: AtomicU32::new(0),
            shares: Shares::new(),
            queue: Mutex::new(Queue {
                waiters: FairQueue::new(),
                apart: Apart::default(),
                now: Moment::ZERO,
            }),
            admitted: AtomicU64::new(0),
            full: AtomicU64::new(0),
            timed_out: AtomicU64::new(0),
            left: AtomicU64::new(0),
        }
    }

    /// Limits one tenant to this share of the slots, rounded down, but at least one slot.
    pub fn with_tenant_share(mut self, share: Ratio) -> Bulkhead<S> {
        let limit = NonZeroU32::new(self.limit()).expect("it was made of one");
        self.tenant_cap = AtomicU32::new(tenant_cap(limit, share).map_or(0, NonZeroU32::get));
        self
    }

    /// Returns a slot or a place in the queue. `signal` is called only if the entrant has to wait. It is called under a
    /// lock, and must not call this bulkhead.
    pub fn enter(self: &Arc<Self>, now: Moment, entrant: Entrant, signal: impl FnOnce() -> S) -> Entry<S> {
        let tried = match self.enter_at_once(entrant.tenant) {
            Ok(slot) => return Entry::Admitted(slot),
            Err(tried) => tried,
        };
        if tried == Tried::Nothing && self.occupancy().is_full(self.limit()) && self.queue_limit() == 0 {
            count(&self.full);
            return Entry::Full;
        }
        self.enter_queue(now, entrant, tried, signal)
    }

    /// Returns what [`enter`](Bulkhead::enter) would return now. Takes and counts nothing.
    pub fn foresee(&self, entrant: Entrant) -> Foreseen {
        let queue = lock(&self.queue);
        let (occupancy, cap) = (self.occupancy(), self.tenant_cap());
        let may_pass = cap.is_some() || occupancy.waiting() == 0;
        if may_pass && !occupancy.is_full(self.limit()) && self.shares.has_room(&queue.apart, entrant.tenant, cap) {
            return Foreseen::Admitted;
        }
        let has_place = occupancy.waiting() < self.queue_limit();
        if has_place || queue.waiters.furthest_over_share(entrant.party()).is_some() {
            Foreseen::Queued
        } else {
            Foreseen::Full
        }
    }

    /// Returns a slot if this tenant can have one now. Otherwise nothing is counted as refused.
    pub fn try_enter(self: &Arc<Self>, tenant: u64) -> Option<Slot<S>> {
        let tried = match self.enter_at_once(tenant) {
            Ok(slot) => return Some(slot),
            Err(tried) => tried,
        };
        let mut left = Signals::default();
        let entered = {
            let mut queue = lock(&self.queue);
            self.make_good(tried, &mut queue, &mut left);
            self.take_counted(&mut queue, tenant, self.tenant_cap().is_some())
        };
        left.give();
        entered.map(|counted| self.slot(counted))
    }

    /// Returns the number of slots in use.
    pub fn in_use(&self) -> u32 {
        self.occupancy().in_use()
    }

    pub fn waiting(&self) -> u32 {
        self.occupancy().waiting()
    }

    /// Returns whether all slots are in use, or as many as one tenant may hold. More slots may then be of use.
    pub fn is_used(&self) -> bool {
        self.in_use() >= self.tenant_cap().map_or(self.limit(), NonZeroU32::get)
    }

    pub fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Returns the number of places in the queue.
    pub fn queue_limit(&self) -> u32 {
        self.queue_limit.load(Ordering::Relaxed)
    }

    /// Returns the most slots that one tenant may hold at once; `None` for all.
    pub fn tenant_cap(&self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.tenant_cap.load(Ordering::Relaxed))
    }

    pub fn outcomes(&self) -> Outcomes {
        Outcomes {
            admitted: self.admitted.load(Ordering::Relaxed),
            full: self.full.load(Ordering::Relaxed),
            timed_out: self.timed_out.load(Ordering::Relaxed),
            left: self.left.load(Ordering::Relaxed),
        }
    }

    /// Applies other limits from now on. New slots go to the waiters. With a lower limit, surplus slots disappear when
    /// they come back, and no waiter is refused. Slots that a tenant got before there was a share do not count for its
    /// share.
    pub fn reconfigure(&self, limit: NonZeroU32, places: u32, tenant_share: Ratio, now: Moment) {
        let limits = Limits {
            slots: limit,
            places,
            tenant_share,
        };
        self.reconfigure_with(|| limits, now);
    }

    /// Applies the limits that `current` returns, like [`reconfigure`](Bulkhead::reconfigure). `current` is called under
    /// the lock, so of two threads that change what it returns and then call this, both leave the latest in force. It must
    /// not call this bulkhead.
    pub fn reconfigure_with(&self, current: impl FnOnce() -> Limits, now: Moment) {
        let mut signals = Signals::default();
        {
            let mut queue = lock(&self.queue);
            queue.now = now;
            let limits = current();
            self.limit.store(limits.slots.get(), Ordering::Relaxed);
            self.queue_limit.store(limits.places, Ordering::Relaxed);
            let cap = tenant_cap(limits.slots, limits.tenant_share).map_or(0, NonZeroU32::get);
            self.tenant_cap.store(cap, Ordering::Relaxed);
            self.serve_waiters(&mut queue, &mut signals);
        }
        signals.give();
    }

    fn slot(self: &Arc<Self>, counted: Option<Counted>) -> Slot<S> {
        count(&self.admitted);
        Slot::new(Arc::clone(self), counted)
    }

    /// Takes a free slot if there are no waiters, or if the call may go `past_waiters`. Otherwise returns the occupancy
    /// that it saw.
    fn take_free_slot(&self, past_waiters: bool) -> Result<(), Occupancy> {
        let mut occupancy = self.occupancy();
        while (past_waiters || occupancy.waiting() == 0) && occupancy.in_use() < self.limit() {
            match self.replace(occupancy, occupancy.with_one_more_in_use()) {
                Ok(()) => return Ok(()),
                Err(seen) => occupancy = seen,
            }
        }
        Err(occupancy)
    }

    /// Takes a slot without the lock, if there are no waiters and the tenant has room in its share.
    fn enter_at_once(self: &Arc<Self>, tenant: u64) -> Result<Slot<S>, Tried> {
        let Some(cap) = self.tenant_cap() else {
            return match self.take_free_slot(false) {
                Ok(()) => Ok(self.slot(None)),
                Err(_) => Err(Tried::Nothing),
            };
        };
        let occupancy = self.occupancy();
        if occupancy.waiting() > 0 || occupancy.is_full(self.limit()) || !self.shares.take(tenant, cap) {
            return Err(Tried::Nothing);
        }
        let counted = Counted { tenant, apart: false };
        if self.take_free_slot(false).is_err() {
            self.shares.give_back(tenant);
            return Err(Tried::Counted);
        }
        // A waiter of the same tenant may have been served meanwhile, on the basis of the earlier count.
        if self.shares.exceeds(tenant, cap) {
            self.give_back(Some(counted), None);
            return Err(Tried::Counted);
        }
        Ok(self.slot(Some(counted)))
    }

    fn enter_queue(
        self: &Arc<Self>,
        now: Moment,
        entrant: Entrant,
        tried: Tried,
        signal: impl FnOnce() -> S,
    ) -> Entry<S> {
        let party = entrant.party();
        let mut left = Signals::default();
        let mut queue = lock(&self.queue);
        queue.now = now;
        self.make_good(tried, &mut queue, &mut left);
        // With a cap, waiters exist while a slot is free only if their tenants hold all they may.
        let has_cap = self.tenant_cap().is_some();
        if let Some(counted) = self.take_counted(&mut queue, entrant.tenant, has_cap) {
            drop(queue);
            left.give();
            return Entry::Admitted(self.slot(counted));
        }
        let full = self.occupancy().waiting() >= self.queue_limit();
        let in_the_way = full.then(|| queue.waiters.furthest_over_share(party)).flatten();
        if full && in_the_way.is_none() {
            drop(queue);
            left.give();
            count(&self.full);
            return Entry::Full;
        }
        let turn = Arc::new(AtomicU8::new(WAITING));
        let waiter = Waiter {
            tenant: entrant.tenant,
            deadline: entrant.deadline,
            turn: Arc::clone(&turn),
            signal: signal(),
        };
        // A displaced waiter makes room in the queue, so the occupancy stays as it is.
        let displaced = in_the_way.and_then(|place| queue.waiters.remove(place));
        if displaced.is_none()
            && let Some(counted) = self.take_slot_or_place(&mut queue, entrant.tenant, has_cap)
        {
            drop(queue);
            left.give();
            return Entry::Admitted(self.slot(counted));
        }
        let place = queue.waiters.push(party, waiter);
        let displaced = displaced.map(|waiter| waiter.turn_to(DISPLACED));
        drop(queue);
        left.give();
        if let Some(signal) = displaced {
            count(&self.full);
            signal.signal();
        }
        Entry::Queued(Ticket::new(Arc::clone(self), place, entrant.deadline, turn))
    }

    /// Takes a free slot for the tenant and returns how it is counted; `None` if there is none. Called under the lock.
    fn take_counted(&self, queue: &mut Queue<S>, tenant: u64, past_waiters: bool) -> Option<Option<Counted>> {
        let Some(cap) = self.tenant_cap() else {
            return self.take_free_slot(past_waiters).is_ok().then_some(None);
        };
        let counted = self.shares.count_in(&mut queue.apart, tenant, cap)?;
        if self.take_free_slot(past_waiters).is_ok() {
            return Some(Some(counted));
        }
        self.shares.count_out(&mut queue.apart, counted);
        None
    }

    /// Takes a slot if one has come back meanwhile; otherwise takes a place in the queue. Called under the lock.
    fn take_slot_or_place(&self, queue: &mut Queue<S>, tenant: u64, past_waiters: bool) -> Option<Option<Counted>> {
        if self.tenant_cap().is_none() {
            loop {
                let occupancy = match self.take_free_slot(past_waiters) {
                    Ok(()) => return Some(None),
                    Err(occupancy) => occupancy,
                };
                if self.replace(occupancy, occupancy.with_one_waiting()).is_ok() {
                    return None;
                }
            }
        }
        self.occupancy.fetch_add(Occupancy::ONE_WAITING, Ordering::AcqRel);
        // A slot that came back before the number of waiters grew has woken nobody, so look again.
        let counted = self.take_counted(queue, tenant, past_waiters);
        if counted.is_some() {
            self.occupancy.fetch_sub(Occupancy::ONE_WAITING, Ordering::AcqRel);
        }
        counted
    }

    /// Serves the waiters again after a failed try without the lock. That try may have made its tenant look full for an
    /// instant, so that another thread passed over a waiter. Called under the lock.
    fn make_good(&self, tried: Tried, queue: &mut Queue<S>, signals: &mut Signals<S>) {
        if tried == Tried::Counted {
            self.serve_waiters(queue, signals);
        }
    }

    /// Hands free slots to waiters that may have one. Called under the lock.
    fn serve_waiters(&self, queue: &mut Queue<S>, signals: &mut Signals<S>) {
        // Takes the slot as if it had just come back, then hands it on.
        while self.occupancy().waiting() > 0 && self.take_free_slot(true).is_ok() {
            if !self.hand_over(queue, signals) {
                break;
            }
        }
    }

    /// Takes a slot back. Without `now`, the latest time that was given decides which waiters are too late.
    fn give_back(&self, counted: Option<Counted>, now: Option<Moment>) {
        let of_queue = counted.filter(|counted| counted.apart);
        if let (Some(counted), None) = (counted, of_queue) {
            self.shares.give_back(counted.tenant);
        }
        let mut occupancy = self.occupancy();
        while of_queue.is_none() && occupancy.waiting() == 0 {
            match self.replace(occupancy, occupancy.with_one_less_in_use()) {
                Ok(()) => return,
                Err(seen) => occupancy = seen,
            }
        }
        let mut signals = Signals::default();
        {
            let mut queue = lock(&self.queue);
            queue.now = now.unwrap_or(queue.now);
            if let Some(counted) = of_queue {
                self.shares.count_out(&mut queue.apart, counted);
            }
            if self.occupancy().in_use() > self.limit() {
                self.occupancy.fetch_sub(Occupancy::ONE_IN_USE, Ordering::AcqRel);
            } else {
                self.hand_over(&mut queue, &mut signals);
            }
        }
        signals.give();
    }

    /// Gives a slot in use to the next waiter that may have it, or frees the slot. Returns whether a waiter got it.
    /// Called under the lock.
    fn hand_over(&self, queue: &mut Queue<S>, signals: &mut Signals<S>) -> bool {
        let Queue { waiters, apart, now } = queue;
        let (waiting, now, cap) = (waiters.len(), *now, self.tenant_cap());
        let served = waiters.pop(
            |tenant| self.shares.has_room(apart, tenant, cap),
            |waiter| waiter.deadline < now,
            |waiter| {
                count(&self.timed_out);
                signals.late.push(waiter.turn_to(LATE));
            },
        );
        let is_served = served.is_some();
        if let Some(waiter) = served {
            // A concurrent `enter_at_once` counts first, and checks the count again when it has its slot.
            let counted = cap.and_then(|_| self.shares.count_in(apart, waiter.tenant, NonZeroU32::MAX));
            signals.served.push(waiter.turn_to(match counted {
                None => SERVED,
                Some(Counted { apart: false, .. }) => SERVED_OF_SHARE,
                Some(Counted { apart: true, .. }) => SERVED_OF_SHARE_APART,
            }));
        }
        let gone = (waiting - waiters.len()) as u64 * Occupancy::ONE_WAITING;
        let freed = if is_served { 0 } else { Occupancy::ONE_IN_USE };
        self.occupancy.fetch_sub(gone + freed, Ordering::AcqRel);
        is_served
    }

    /// Ends the wait at `place`, if it has not ended, and returns its state.
    fn leave_queue(&self, place: QueuePosition, turn: &AtomicU8) -> u8 {
        let stands = turn.load(Ordering::Acquire);
        if stands != WAITING {
            return stands;
        }
        let mut queue = lock(&self.queue);
        let left = queue.waiters.remove(place);
        if left.is_some() {
            self.occupancy.fetch_sub(Occupancy::ONE_WAITING, Ordering::AcqRel);
        }
        // Dropping the signal may wake a task, so it must not happen under the lock.
        drop(queue);
        drop(left);
        turn.load(Ordering::Acquire)
    }

    fn occupancy(&self) -> Occupancy {
        Occupancy(self.occupancy.load(Ordering::Acquire))
    }

    fn replace(&self, occupancy: Occupancy, by: Occupancy) -> Result<(), Occupancy> {
        self.occupancy
            .compare_exchange_weak(occupancy.0, by.0, Ordering::AcqRel, Ordering::Acquire)
            .map(|_| ())
            .map_err(Occupancy)
    }
}

impl<S: Signal> fmt::Debug for Bulkhead<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bulkhead")
            .field("in_use", &self.in_use())
            .field("limit", &self.limit())
            .field("waiting", &self.waiting())
            .field("outcomes", &self.outcomes())
            .finish()
    }
}

struct Queue<S> {
    waiters: FairQueue<Waiter<S>>,
    apart: Apart,
    /// Latest time that this bulkhead was given.
    now: Moment,
}

/// Effect of a failed try to get a slot without the lock.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tried {
    Nothing,
    /// The tenant's count was raised by one for a moment, and lowered again.
    Counted,
}

/// Signals to give once the lock is released: first to waiters with a slot, then to waiters that are too late.
struct Signals<S> {
    served: Vec<S>,
    late: Vec<S>,
}

impl<S> Default for Signals<S> {
    fn default() -> Signals<S> {
        Signals {
            served: vec![],
            late: vec![],
        }
    }
}

impl<S: Signal> Signals<S> {
    fn give(self) {
        self.served.into_iter().chain(self.late).for_each(Signal::signal);
    }
}

struct Waiter<S> {
    tenant: u64,
    deadline: Moment,
    /// State of the wait, shared with the ticket. Changed once, under the lock.
    turn: Arc<AtomicU8>,
    signal: S,
}

const WAITING: u8 = 0;
const SERVED: u8 = 1;
/// Served with a slot that counts for its tenant's share.
const SERVED_OF_SHARE: u8 = 2;
/// Served with a slot that counts for its tenant's share in [`Apart`].
const SERVED_OF_SHARE_APART: u8 = 3;
const DISPLACED: u8 = 4;
const LATE: u8 = 5;

impl<S> Waiter<S> {
    /// Sets the state and returns the signal, to be given after the lock is released.
    fn turn_to(self, turn: u8) -> S {
        self.turn.store(turn, Ordering::Release);
        self.signal
    }
}

/// Layout: waiters (32 bits) | slots in use (32 bits)
#[derive(Clone, Copy)]
struct Occupancy(u64);

impl Occupancy {
    const ONE_IN_USE: u64 = 1;
    const ONE_WAITING: u64 = 1 << 32;

    const fn in_use(self) -> u32 {
        self.0 as u32
    }

    const fn is_full(self, limit: u32) -> bool {
        self.in_use() >= limit
    }

    const fn waiting(self) -> u32 {
        (self.0 >> 32) as u32
    }

    const fn with_one_more_in_use(self) -> Occupancy {
        Occupancy(self.0 + Occupancy::ONE_IN_USE)
    }

    const fn with_one_less_in_use(self) -> Occupancy {
        Occupancy(self.0 - Occupancy::ONE_IN_USE)
    }

    const fn with_one_waiting(self) -> Occupancy {
        Occupancy(self.0 + Occupancy::ONE_WAITING)
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests;
