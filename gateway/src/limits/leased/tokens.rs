//! Tokens of one owner under a limit that replicas share.
//!
//! Invariant: each admitted token was leased, or is owed and charged to the central count later. What is refunded goes
//! back to one of the two.
//!
//! A request reads atomics only. The lock is taken by a request that has to wait, and by the renewer.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use policies::lease::{Owed, Short};
use policies::{CalendarQuota, Lease, LeaseTerms, LeasedTokens, Moment, WallTime};

use super::part::{Known, Leasable};
use super::waiting::{Line, Ticket, Verdict};
use super::{COME_BACK, LeasedTerms, Leasing, QueueMark, Renewed, WhenDown, store_key};
use crate::clock::Now;
use crate::limits::kinds::{LimitCounter, NewAccount, NotTaken, QuotaCount, SavedCount, Taken, time};
use crate::rejection::{Rejection, Violation};
use crate::store::{Answer, Ask, Command, StoreKey, Trouble};

/// The count of one owner, counted in the store by the kind of limit that `C` counts in one process.
pub struct LeasedCount<C: Leasable> {
    tokens: LeasedTokens,
    /// Tokens that were admitted without a lease.
    owed: Owed,
    /// Tokens that were refunded after their lease had expired.
    late: AtomicU64,
    /// What the central count had left at the last answer, and when that was.
    left: AtomicU64,
    left_at: AtomicU64,
    left_at_wall: AtomicU64,
    /// Replicas that the store had heard of for this count at the last answer; 0 before.
    replicas: AtomicU32,
    /// What is admitted while the store cannot be reached.
    alone: C,
    mark: QueueMark,
    shared: Mutex<Shared<C::Terms>>,
    key: StoreKey,
    leasing: Arc<Leasing>,
    me: Weak<Self>,
}

/// State that the renewer changes.
struct Shared<T> {
    lease: Option<Lease>,
    /// Terms in force; `None` before the first request.
    terms: Option<LeasedTerms<T>>,
    line: Line,
    /// Whether a command is under way.
    is_called: bool,
    /// Whether somebody wanted the account to be tended meanwhile.
    again: bool,
    /// Whether everything on lease is to be given back with the next command.
    is_recalled: bool,
    /// Tokens held after the last answer.
    held: u64,
    /// Whether the lease was looked at since, a while before its end.
    is_looked_at: bool,
}

impl<C: Leasable> LeasedCount<C> {
    fn shared(&self) -> MutexGuard<'_, Shared<C::Terms>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> bool {
        self.mark.queue(&self.me, &self.leasing)
    }

    fn note_held(&self, shared: &mut Shared<C::Terms>) {
        let held = self.tokens.held().tokens;
        self.leasing.note_held(std::mem::replace(&mut shared.held, held), held);
    }

    fn known(&self) -> Option<Known> {
        let at = self.left_at.load(Relaxed);
        (at > 0).then(|| Known {
            left: self.left.load(Relaxed),
            at: Now {
                moment: Moment::from_nanos(at),
                wall: WallTime::since_epoch(Duration::from_nanos(self.left_at_wall.load(Relaxed))),
            },
        })
    }

    /// Returns what the central count has left, as far as is known.
    fn left(&self, terms: &LeasedTerms<C::Terms>, now: Now) -> u64 {
        self.known()
            .map_or_else(|| C::most(&terms.own), |known| C::left(&terms.own, known, now))
    }

    fn replicas(&self) -> NonZeroU32 {
        let told = NonZeroU32::new(self.replicas.load(Relaxed)).unwrap_or(NonZeroU32::MIN);
        told.max(self.leasing.replicas())
    }

    /// Returns the part of this replica without the store.
    fn part(&self, terms: &LeasedTerms<C::Terms>, now: Now) -> Option<C::Terms> {
        C::part(&terms.own, self.replicas(), self.left(terms, now))
    }

    /// Owes tokens that were admitted without a lease.
    fn owe(&self, terms: &LeasedTerms<C::Terms>, tokens: u64) {
        let is_first = self.owed.tokens() == 0;
        self.owed.add(tokens);
        if is_first {
            self.shared().terms.get_or_insert(*terms);
            self.queue();
        }
    }

    /// Decides without the store.
    fn decide_alone(&self, terms: &LeasedTerms<C::Terms>, now: Now, cost: u64) -> Result<Duration, NotTaken> {
        self.leasing.stats.decided_alone.fetch_add(1, Relaxed);
        match terms.when_down {
            WhenDown::Bounded => {
                let taken = match self.part(terms, now) {
                    Some(part) => self.alone.take(&part, now, cost, Duration::ZERO),
                    None => Err(COME_BACK),
                };
                // A cost above the part never fits, but the store may be back soon.
                taken.map_err(|wait| NotTaken::Refused(if wait == Duration::MAX { COME_BACK } else { wait }))?;
            }
            WhenDown::Open => {}
            WhenDown::Closed => return Err(NotTaken::Unavailable),
        }
        self.owe(terms, cost);
        Ok(Duration::ZERO)
    }

    fn refused(&self, wait: policies::Wait) -> NotTaken {
        self.leasing.stats.refused_alone.fetch_add(1, Relaxed);
        NotTaken::Refused(time(wait))
    }

    /// Returns the tokens that were admitted without a lease and are not paid yet.
    pub fn owed(&self) -> u64 {
        self.owed.tokens()
    }

    /// Returns the tokens on lease here.
    pub fn held(&self, now: Now) -> u64 {
        self.tokens.balance(now.moment)
    }

    /// Gives back what is on lease, and forgets what the store has refused: its count was set, and had this left then.
    pub fn recall(&self, left: u64, now: Now) {
        self.note(left, now);
        self.tokens.refuse(Moment::ZERO, 0);
        self.shared().is_recalled = true;
        self.queue();
    }

    fn note(&self, left: u64, now: Now) {
        self.left.store(left, Relaxed);
        let wall = u64::try_from(now.wall.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.left_at_wall.store(wall, Relaxed);
        self.left_at.store(now.moment.nanos().max(1), Relaxed);
    }
}

impl LeasedCount<QuotaCount> {
    /// Returns the command that sets what is used of the quota, in the store.
    pub fn set_used(&self, terms: &LeasedTerms<CalendarQuota>, used: u64) -> Command {
        Command {
            key: self.key.clone(),
            terms: QuotaCount::central(&terms.own),
            ask: Ask::SetUsed(used),
        }
    }
}

impl<C: Leasable> Drop for LeasedCount<C> {
    fn drop(&mut self) {
        self.leasing.note_held(self.shared().held, 0);
    }
}

impl<C: Leasable> LimitCounter for LeasedCount<C> {
    type Terms = LeasedTerms<C::Terms>;

    const WORD: &'static str = C::WORD;
    const LONGEST_WAIT: Duration = C::LONGEST_WAIT;
    const IS_TOLD: bool = C::IS_TOLD;
    const CARRIES_OVER: bool = C::CARRIES_OVER;
    const IS_SHARED: bool = true;
    const WAITS: bool = C::WAITS;

    fn new(account: &NewAccount<'_>) -> Arc<Self> {
        let alone = C::new(account);
        let alone = Arc::into_inner(alone).expect("a new counter has one owner");
        Arc::new_cyclic(|me| Self {
            tokens: LeasedTokens::new(),
            owed: Owed::new(),
            late: AtomicU64::new(0),
            left: AtomicU64::new(0),
            left_at: AtomicU64::new(0),
            left_at_wall: AtomicU64::new(0),
            replicas: AtomicU32::new(0),
            alone,
            mark: QueueMark::default(),
            shared: Mutex::new(Shared {
                lease: None,
                terms: None,
                line: Line::default(),
                is_called: false,
                again: false,
                is_recalled: false,
                held: 0,
                is_looked_at: false,
            }),
            key: store_key(&account.owner, account.limit),
            leasing: Arc::clone(account.leasing),
            me: me.clone(),
        })
    }

    fn most(terms: &Self::Terms) -> u64 {
        C::most(&terms.own)
    }

    fn period(terms: &Self::Terms) -> Option<Duration> {
        C::period(&terms.own)
    }

    fn per_second(terms: &Self::Terms) -> Option<f64> {
        C::per_second(&terms.own)
    }

    fn renewed_in(terms: &Self::Terms, now: Now) -> Option<Duration> {
        C::renewed_in(&terms.own, now)
    }

    fn rejection(violation: Box<Violation>) -> Rejection {
        C::rejection(violation)
    }

    /// Takes from the lease, or decides without the store.
    fn take(&self, terms: &Self::Terms, now: Now, cost: u64, _longest: Duration) -> Result<Duration, Duration> {
        let taken = self.take_alone(terms, now, cost);
        taken.map_err(|why| match why {
            NotTaken::Refused(wait) => wait,
            NotTaken::Short | NotTaken::Unavailable => COME_BACK,
        })
    }

    #[inline]
    fn take_or_ask(&self, terms: &Self::Terms, now: Now, cost: u64, longest: Duration) -> Result<Duration, NotTaken> {
        match self.tokens.take(now.moment, cost) {
            Ok(spent) => {
                if spent.renew {
                    self.queue();
                }
                Ok(Duration::ZERO)
            }
            // The request waits for the moment that the store has told, and asks then.
            Err(Short::Refused(wait)) if time(wait) <= longest => Err(NotTaken::Short),
            Err(Short::Refused(wait)) => Err(self.refused(wait)),
            Err(Short::Ask { .. }) if self.leasing.is_up() => Err(NotTaken::Short),
            Err(Short::Ask { .. }) => self.decide_alone(terms, now, cost),
        }
    }

    fn take_alone(&self, terms: &Self::Terms, now: Now, cost: u64) -> Result<Duration, NotTaken> {
        match self.tokens.take(now.moment, cost) {
            Ok(spent) => {
                if spent.renew {
                    self.queue();
                }
                Ok(Duration::ZERO)
            }
            Err(Short::Refused(wait)) => Err(self.refused(wait)),
            Err(Short::Ask { .. }) => self.decide_alone(terms, now, cost),
        }
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

    /// Spends from the lease as far as it covers the cost, and owes otherwise.
    fn charge(&self, terms: &Self::Terms, now: Now, cost: u64) {
        match self.tokens.take(now.moment, cost) {
            Ok(spent) if spent.renew => _ = self.queue(),
            Ok(_) => {}
            Err(_) => self.owe(terms, cost),
        }
    }

    fn refund(&self, _: &Self::Terms, new: &Self::Terms, now: Now, Taken { tokens, .. }: Taken) {
        if tokens == 0 {
            return;
        }
        let held = self.tokens.held();
        if now.moment < held.expires {
            // What exceeds the size of a lease is given back with the next request.
            self.tokens.refund(now.moment, tokens, LeaseTerms::MOST);
            if held.tokens == 0 {
                self.queue();
            }
        } else if self.owed.tokens() >= tokens {
            self.owed.refund(tokens);
            let part = self.part(new, now).unwrap_or(new.own);
            let taken = Taken {
                at: now,
                delay: Duration::ZERO,
                tokens,
            };
            self.alone.refund(&part, &part, now, taken);
        } else {
            // The store credits it as long as it remembers the lease.
            self.late.fetch_add(tokens, Relaxed);
            self.queue();
        }
    }

    /// Returns the tokens on lease here and those that the store had left when it was last heard of, with what has been
    /// earned since. The whole limit before the first answer.
    fn balance(&self, terms: &Self::Terms, now: Now) -> u64 {
        let held = self.tokens.balance(now.moment);
        let central = self.left(terms, now);
        let reachable = if self.leasing.is_up() || terms.when_down != WhenDown::Bounded {
            central
        } else {
            let part = self.part(terms, now);
            part.map_or(0, |part| self.alone.balance(&part, now)).min(central)
        };
        held.saturating_add(reachable).min(C::most(&terms.own))
    }

    /// Returns the wait that the store has told; the wait for the part of this replica without the store.
    fn wait_for(&self, terms: &Self::Terms, now: Now, cost: u64) -> Duration {
        if self.tokens.balance(now.moment) >= cost {
            return Duration::ZERO;
        }
        if let Some(wait) = self.tokens.refused_for(now.moment, cost) {
            return time(wait);
        }
        if self.leasing.is_up() || terms.when_down != WhenDown::Bounded {
            return Duration::ZERO;
        }
        let part = self.part(terms, now);
        let wait = part.map_or(COME_BACK, |part| self.alone.wait_for(&part, now, cost));
        if wait == Duration::MAX { COME_BACK } else { wait }
    }

    fn reset_in(&self, terms: &Self::Terms, now: Now, remaining: u64) -> Duration {
        self.alone.reset_in(&terms.own, now, remaining)
    }

    fn is_idle(&self, terms: &Self::Terms, now: Now) -> bool {
        let held = self.tokens.held();
        if held.tokens > 0
            || self.owed.tokens() > 0
            || self.late.load(Relaxed) > 0
            || self.left(terms, now) < C::most(&terms.own)
            || !self.alone.is_idle(&terms.own, now)
        {
            return false;
        }
        let shared = self.shared();
        let lease = shared.lease.as_ref();
        shared.line.is_empty()
            && !shared.is_called
            && lease.is_none_or(|lease| lease.outstanding().is_none() && lease.unused() == 0)
    }

    fn change_terms(&self, old: &Self::Terms, new: &Self::Terms, now: Now) {
        self.alone.change_terms(&old.own, &new.own, now);
        self.shared().terms = Some(*new);
    }

    /// Returns `None`: the store keeps the count.
    fn saved(&self) -> Option<SavedCount> {
        None
    }

    fn restore(&self, _: &Self::Terms, _: Now, _: &SavedCount) -> bool {
        false
    }
}

impl<C: Leasable> Renewed for LeasedCount<C> {
    fn command(&self, now: Moment, drain: bool) -> Option<Command> {
        self.mark.clear();
        let mut shared = self.shared();
        if shared.is_called {
            shared.again = true;
            return None;
        }
        let is_recalled = std::mem::take(&mut shared.is_recalled);
        let terms = shared.terms?;
        // Some of them may have come just before the last answer.
        self.tell(&mut shared.line, now);
        let waiting = shared.line.waiting();
        let held = self.tokens.held();
        let is_used = held.asked || held.tokens < shared.held || waiting.sum > 0;
        shared.is_looked_at = true;
        let replica = self.leasing.replica();
        let lease = shared.lease.get_or_insert_with(|| Lease::new(replica));
        lease.give_up(self.late.swap(0, Relaxed));
        // A request without an answer is repeated before anything else is asked.
        let waits_for_answer = is_recalled && lease.outstanding().is_some();
        let request = if is_used && !drain && !is_recalled {
            lease.renew(&terms.lease, &self.tokens, &self.owed, now, waiting)
        } else {
            lease.give_back(&terms.lease, &self.tokens, &self.owed, now, drain || is_recalled)
        };
        shared.is_recalled = waits_for_answer;
        let Some(request) = request else {
            // Nothing is wanted, so the next caller that finds too little may ask again.
            self.tokens.ask_again();
            self.note_held(&mut shared);
            return None;
        };
        shared.is_called = true;
        Some(Command {
            key: self.key.clone(),
            terms: C::central(&terms.own),
            ask: Ask::Tokens(request),
        })
    }

    fn answer(&self, now: Now, answer: Result<Answer, Trouble>) {
        let mut shared = self.shared();
        let Shared { lease, terms, line, .. } = &mut *shared;
        let (Some(lease), Some(terms)) = (lease, terms) else {
            return;
        };
        match answer {
            Ok(Answer::Tokens(Some(reply))) => {
                if lease.apply(&terms.lease, &self.tokens, now.moment, &reply) {
                    self.replicas.store(reply.replicas, Relaxed);
                    self.leasing.note_replicas(reply.replicas, now.moment);
                    self.note(reply.left, now);
                    if reply.left == 0 {
                        self.rest(terms, reply.next, now.moment);
                    }
                    self.alone.restart(&terms.own, now, self.owed.tokens());
                }
                self.tell(line, now.moment);
            }
            // The store knows a later request of this name, so the name is somebody else's too.
            Ok(_) => {
                tracing::warn!(key = ?self.key, "the store knows a later request of this process: its lease begins anew");
                *lease = Lease::new(fastrand::u64(..));
                self.tokens.ask_again();
                line.tell(|_| Some(Verdict::Trouble), |_| ());
            }
            Err(_) => {
                self.tokens.ask_again();
                line.tell(|_| Some(Verdict::Trouble), |_| ());
            }
        }
        self.note_held(&mut shared);
        shared.is_called = false;
        shared.is_looked_at = false;
    }

    fn give_up(&self) {
        self.mark.clear();
        self.tokens.ask_again();
        self.shared().line.tell(|_| Some(Verdict::Trouble), |_| ());
    }

    fn due(&self, now: Moment) -> Option<Moment> {
        let mut shared = self.shared();
        if shared.is_called {
            return None;
        }
        let Shared { lease, terms, line, .. } = &*shared;
        let (lease, time) = (lease.as_ref(), terms.as_ref().map(|terms| terms.lease.time()));
        let time = time.unwrap_or(COME_BACK);
        let is_behind = lease.is_some_and(|lease| lease.outstanding().is_some() || lease.unused() > 0);
        let has_more = !line.is_empty() || shared.is_recalled;
        if std::mem::take(&mut shared.again) || has_more {
            return Some(now);
        }
        let held = self.tokens.held();
        let mut due = (held.tokens > 0).then(|| {
            let is_used = held.tokens < shared.held || held.asked;
            let early = held.expires.saturating_sub(time / 8);
            if is_used && !shared.is_looked_at && early > now {
                early
            } else {
                held.expires.max(now + Duration::from_millis(1))
            }
        });
        if is_behind || self.owed.tokens() > 0 || self.late.load(Relaxed) > 0 {
            let soon = now + time / 8;
            due = Some(due.map_or(soon, |due| due.min(soon)));
        }
        due
    }

    fn take_back(&self, now: Now, tokens: u64) {
        let terms = self.shared().terms;
        if let Some(terms) = terms {
            let (at, delay) = (now, Duration::ZERO);
            self.refund(&terms, &terms, now, Taken { at, delay, tokens });
        }
    }
}

impl<C: Leasable> LeasedCount<C> {
    /// Leaves an empty central count alone until it has earned a token, and for a while at least: no token is lost by
    /// that, and replicas that all want more than there is ask less often.
    fn rest(&self, terms: &LeasedTerms<C::Terms>, told: Option<Duration>, now: Moment) {
        const SHORTEST: Duration = Duration::from_millis(4);
        if let Some(earned) = C::earns_in(&terms.own)
            && told.is_some_and(|told| told < SHORTEST)
        {
            self.tokens.refuse(now + earned.max(SHORTEST), 1);
        }
    }

    /// Tells those who wait what they get of the lease. Those that the store must be asked for stay.
    fn tell(&self, line: &mut Line, now: Moment) {
        line.tell(
            |tokens| match self.tokens.take(now, tokens) {
                Ok(spent) => {
                    if spent.renew {
                        self.queue();
                    }
                    Some(Verdict::Granted)
                }
                Err(Short::Refused(wait)) => Some(Verdict::Refused(time(wait))),
                Err(Short::Ask { .. }) => None,
            },
            |tokens| {
                self.late.fetch_add(tokens, Relaxed);
            },
        );
    }
}
