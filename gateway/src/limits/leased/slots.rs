//! Requests in flight of one owner under a cap that replicas share.
//!
//! A replica holds some of the slots and counts alone within them. It confirms them each heartbeat, as long as it has
//! requests in flight or slots, and earlier if it asks the store for tokens of the same owner: that costs no call more.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use policies::lease::{HeldSlots, SlotLease};
use policies::{InFlight, Moment};

use super::waiting::{Line, Ticket, Verdict};
use super::{COME_BACK, LeasedTerms, Leasing, QueueMark, Renewed, WhenDown, store_key};
use crate::clock::Now;
use crate::limits::kinds::{LimitCounter, NewAccount, NotTaken, SavedCount, Taken};
use crate::rejection::{Rejection, Violation};
use crate::store::{Answer, Ask, CentralTerms, Command, StoreKey, Trouble};

/// Requests of one owner in flight here, and the slots that the store has granted for them.
pub struct LeasedSlots {
    count: Arc<InFlight>,
    slots: HeldSlots,
    /// Most requests in flight since `peak_since`.
    peak: AtomicU32,
    /// Moment until which no more slots are asked for, because the store had none.
    refused_until: AtomicU64,
    mark: QueueMark,
    shared: Mutex<Shared>,
    key: StoreKey,
    leasing: Arc<Leasing>,
    me: Weak<Self>,
}

/// State that the renewer changes.
struct Shared {
    lease: Option<SlotLease>,
    /// Terms in force; `None` before the first request.
    terms: Option<LeasedTerms<u32>>,
    line: Line,
    is_called: bool,
    again: bool,
    /// Whether the last command is without an answer.
    is_behind: bool,
    /// Moment of the last command.
    sent: Moment,
    /// Moment from which the peak is measured, a heartbeat ago at most when a command is made.
    peak_since: Moment,
    /// Slots of the last answer.
    granted: u32,
    is_draining: bool,
}

impl LeasedSlots {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> bool {
        self.mark.queue(&self.me, &self.leasing)
    }

    /// Returns the counter of the requests that are in flight here.
    pub(in crate::limits) const fn count(&self) -> &Arc<InFlight> {
        &self.count
    }

    /// Enters if there is a slot.
    fn enter(&self, cap: u32) -> bool {
        let Ok(count) = self.count.enter(cap) else { return false };
        if count > self.peak.load(Relaxed) {
            self.peak.fetch_max(count, Relaxed);
        }
        true
    }

    /// Returns the cap of this replica now.
    fn cap(&self, terms: &LeasedTerms<u32>, now: Moment) -> u32 {
        self.slots.cap(now).min(terms.own)
    }

    /// Returns the part of this replica without the store, at least one request.
    fn part(&self, terms: &LeasedTerms<u32>, now: Moment) -> u32 {
        let part = (terms.own / self.leasing.replicas().get()).max(1);
        part.max(self.cap(terms, now))
    }

    fn decide_alone(&self, terms: &LeasedTerms<u32>, now: Moment) -> Result<Duration, NotTaken> {
        self.leasing.stats.decided_alone.fetch_add(1, Relaxed);
        match terms.when_down {
            WhenDown::Bounded if self.enter(self.part(terms, now)) => {}
            WhenDown::Bounded => return Err(NotTaken::Refused(COME_BACK)),
            WhenDown::Open => _ = self.count.enter_anyway(),
            WhenDown::Closed => return Err(NotTaken::Unavailable),
        }
        // The store is told of the requests as soon as it can be reached.
        self.shared().terms.get_or_insert(*terms);
        self.queue();
        Ok(Duration::ZERO)
    }

    fn is_refused(&self, now: Moment) -> bool {
        now.nanos() < self.refused_until.load(Relaxed)
    }
}

/// The own terms are the number of requests at once.
impl LimitCounter for LeasedSlots {
    type Terms = LeasedTerms<u32>;

    const WORD: &'static str = InFlight::WORD;
    const IS_TOLD: bool = InFlight::IS_TOLD;
    const COUNTS_TOKENS: bool = false;
    const CARRIES_OVER: bool = InFlight::CARRIES_OVER;
    const IS_SHARED: bool = true;

    fn new(account: &NewAccount<'_>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            count: Arc::default(),
            slots: HeldSlots::new(),
            peak: AtomicU32::new(0),
            refused_until: AtomicU64::new(0),
            mark: QueueMark::default(),
            shared: Mutex::new(Shared {
                lease: None,
                terms: None,
                line: Line::default(),
                is_called: false,
                again: false,
                is_behind: false,
                sent: Moment::ZERO,
                peak_since: Moment::ZERO,
                granted: 0,
                is_draining: false,
            }),
            key: store_key(&account.owner, account.limit),
            leasing: Arc::clone(account.leasing),
            me: me.clone(),
        })
    }

    fn most(terms: &Self::Terms) -> u64 {
        terms.own.into()
    }

    fn period(_: &Self::Terms) -> Option<Duration> {
        None
    }

    fn rejection(violation: Box<Violation>) -> Rejection {
        InFlight::rejection(violation)
    }

    fn take(&self, terms: &Self::Terms, now: Now, cost: u64, _longest: Duration) -> Result<Duration, Duration> {
        self.take_alone(terms, now, cost).map_err(|_| COME_BACK)
    }

    #[inline]
    fn take_or_ask(&self, terms: &Self::Terms, now: Now, _: u64, _: Duration) -> Result<Duration, NotTaken> {
        if self.enter(self.cap(terms, now.moment)) {
            return Ok(Duration::ZERO);
        }
        if self.is_refused(now.moment) {
            self.leasing.stats.refused_alone.fetch_add(1, Relaxed);
            return Err(NotTaken::Refused(COME_BACK));
        }
        if self.leasing.is_up() {
            return Err(NotTaken::Short);
        }
        self.decide_alone(terms, now.moment)
    }

    fn take_alone(&self, terms: &Self::Terms, now: Now, _: u64) -> Result<Duration, NotTaken> {
        if self.enter(self.cap(terms, now.moment)) {
            return Ok(Duration::ZERO);
        }
        self.decide_alone(terms, now.moment)
    }

    fn ask(&self, terms: &Self::Terms, cost: u64) -> Option<Ticket> {
        let me = self.me.upgrade()?;
        let ticket = {
            let mut shared = self.shared();
            shared.terms.get_or_insert(*terms);
            shared.line.join(me, cost, self.leasing.call_limit())?
        };
        self.leasing.stats.waited.fetch_add(1, Relaxed);
        self.queue().then_some(ticket)
    }

    /// Does nothing: requests are counted, not tokens.
    fn charge(&self, _: &Self::Terms, _: Now, _: u64) {}

    /// Does nothing: the guard leaves.
    fn refund(&self, _: &Self::Terms, _: &Self::Terms, _: Now, _: Taken) {}

    /// Returns the number of further requests that fit if no other replica has any.
    fn balance(&self, terms: &Self::Terms, _: Now) -> u64 {
        terms.own.saturating_sub(self.count.count()).into()
    }

    fn taken(&self, _: &Self::Terms, _: Now) -> u64 {
        0
    }

    fn wait_for(&self, terms: &Self::Terms, now: Now, _: u64) -> Duration {
        let count = self.count.count();
        let is_full = count >= self.cap(terms, now.moment) && self.is_refused(now.moment);
        if is_full || count >= terms.own {
            COME_BACK
        } else {
            Duration::ZERO
        }
    }

    fn reset_in(&self, _: &Self::Terms, _: Now, _remaining: u64) -> Duration {
        COME_BACK
    }

    fn is_idle(&self, _: &Self::Terms, _: Now) -> bool {
        if self.count.count() > 0 {
            return false;
        }
        let shared = self.shared();
        shared.granted == 0 && shared.line.is_empty() && !shared.is_called && !shared.is_behind
    }

    fn change_terms(&self, _: &Self::Terms, new: &Self::Terms, _: Now) {
        self.shared().terms = Some(*new);
    }

    fn saved(&self) -> Option<SavedCount> {
        None
    }

    fn restore(&self, _: &Self::Terms, _: Now, _: &SavedCount) -> bool {
        false
    }

    fn add(&self, _: &Self::Terms, _: Taken) {}
}

impl Renewed for LeasedSlots {
    fn command(&self, now: Moment, drain: bool) -> Option<Command> {
        self.mark.clear();
        let mut shared = self.shared();
        if shared.is_called {
            shared.again = true;
            return None;
        }
        let terms = shared.terms?;
        shared.is_draining = drain;
        let _ = shared.line.waiting();
        let waiting = u32::try_from(shared.line.len()).unwrap_or(u32::MAX);
        let in_flight = self.count.count();
        let heartbeat = self.leasing.heartbeat();
        let spare = if drain {
            0
        } else {
            let peak = if now.since(shared.peak_since) >= heartbeat {
                shared.peak_since = now;
                self.peak.swap(in_flight, Relaxed)
            } else {
                self.peak.load(Relaxed)
            };
            let is_idle = in_flight == 0 && peak == 0 && waiting == 0;
            let size = if is_idle { 0 } else { self.size(&terms) };
            waiting.max(peak.saturating_sub(in_flight)).saturating_add(size)
        };
        let spare = spare.min(terms.own.saturating_sub(in_flight));
        let has_slots = shared.granted > 0 || shared.is_behind;
        if in_flight == 0 && spare == 0 && !has_slots {
            return None;
        }
        let replica = self.leasing.replica();
        let lease = shared.lease.get_or_insert_with(|| SlotLease::new(replica, heartbeat));
        let request = lease.request(&self.slots, now, in_flight, spare);
        (shared.is_called, shared.is_behind, shared.sent) = (true, true, now);
        Some(Command {
            key: self.key.clone(),
            terms: CentralTerms::Slots(terms.own),
            ask: Ask::Slots(request),
        })
    }

    fn answer(&self, now: Now, answer: Result<Answer, Trouble>) {
        let mut shared = self.shared();
        shared.is_called = false;
        let Shared {
            lease,
            terms,
            line,
            is_behind,
            granted,
            ..
        } = &mut *shared;
        let (Some(lease), Some(terms)) = (lease, terms) else {
            return;
        };
        match answer {
            Ok(Answer::Slots(Some(reply))) if lease.apply(&self.slots, &reply) => {
                (*is_behind, *granted) = (false, reply.granted);
                let cap = self.cap(terms, now.moment);
                let is_full = !lease.is_satisfied() || self.count.count() >= terms.own;
                let mut refuses = false;
                line.tell(
                    |_| {
                        if self.enter(cap) {
                            return Some(Verdict::Granted);
                        }
                        refuses = true;
                        // Without a full cap it came after the command, which did not ask for it. The next one does.
                        is_full.then_some(Verdict::Refused(COME_BACK))
                    },
                    |_| self.count.leave(),
                );
                if is_full && refuses {
                    let until = now.moment + self.leasing.heartbeat() / 8;
                    self.refused_until.store(until.nanos(), Relaxed);
                }
            }
            Ok(_) => {
                tracing::warn!(key = ?self.key, "the store knows a later request of this process: its slots begin anew");
                *lease = SlotLease::new(fastrand::u64(..), self.leasing.heartbeat());
                line.tell(|_| Some(Verdict::Trouble), |_| ());
            }
            Err(_) => line.tell(|_| Some(Verdict::Trouble), |_| ()),
        }
    }

    fn give_up(&self) {
        self.mark.clear();
        self.shared().line.tell(|_| Some(Verdict::Trouble), |_| ());
    }

    fn due(&self, now: Moment) -> Option<Moment> {
        let mut shared = self.shared();
        if shared.is_called {
            return None;
        }
        let has_more = !shared.line.is_empty();
        if std::mem::take(&mut shared.again) || has_more {
            return Some(now);
        }
        let heartbeat = self.leasing.heartbeat();
        if shared.is_behind {
            return Some(now + heartbeat / 4);
        }
        if shared.is_draining && shared.granted > 0 {
            return Some(now);
        }
        let is_used = shared.granted > 0 || self.count.count() > 0;
        is_used.then(|| (shared.sent + heartbeat).max(now + Duration::from_millis(1)))
    }

    fn take_back(&self, _: Now, _tokens: u64) {
        self.count.leave();
    }

    fn confirmed(&self) -> Option<&StoreKey> {
        Some(&self.key)
    }

    fn goes_along(&self, now: Moment) -> bool {
        let shared = self.shared();
        !shared.is_called && now.since(shared.sent) >= self.leasing.heartbeat() / 2
    }
}

impl LeasedSlots {
    /// Returns the slots that are held beyond those in use.
    fn size(&self, terms: &LeasedTerms<u32>) -> u32 {
        let replicas: NonZeroU32 = self.leasing.replicas();
        u32::try_from(terms.lease.size(replicas)).unwrap_or(u32::MAX)
    }
}
