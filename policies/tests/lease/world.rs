//! A few replicas, one store and the messages between them, with every step that chance can take from a state.
//!
//! Messages are delayed for any time and overtake each other. One that is never delivered is lost. A message may be
//! delivered twice, a replica killed and started again, the store may forget everything or the last part of it. Nothing
//! is random: [`World::steps`] returns all that can happen next.

use policies::lease::{Central, Count, Lease, LeaseTerms, LeasedTokens, Owed, Reply, Request, Waiting};
use policies::{Moment, WallTime};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::time::Duration;

/// Mistake that is planted into the protocol, for the explorer to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// The store executes each copy of a request.
    CreditTwice,
    /// A replica spends tokens of a lease that has expired.
    SpendAfterExpiry,
    /// A replica counts a lease from the answer instead of the request.
    ExpiryFromAnswer,
    /// A refund goes to a lease that has been returned.
    RefundAfterReturn,
    /// A replica applies each copy of an answer.
    ApplyTwice,
    /// A replica returns what it goes on holding.
    ReturnAndKeep,
}

/// How much may happen in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Chances {
    /// Requests of each replica to the store.
    pub(crate) requests: u64,
    /// Messages that are delivered once more than they were sent.
    pub(crate) copies: u8,
    /// Replicas that are killed and started again.
    pub(crate) crashes: u8,
    /// Times that the store forgets everything.
    pub(crate) flushes: u8,
    /// Times that the store goes back to an earlier state.
    pub(crate) failovers: u8,
    pub(crate) refunds: u8,
    /// Replicas that return all that they hold.
    pub(crate) drains: u8,
}

/// What does not change in a run.
pub(crate) struct Setting<C> {
    pub(crate) terms: LeaseTerms,
    pub(crate) new_count: fn() -> C,
    pub(crate) replicas: u64,
    /// Time of one tick.
    pub(crate) tick: Duration,
    /// Time of the store at the start, in ticks.
    pub(crate) start: u64,
    /// Ticks of a run.
    pub(crate) horizon: u64,
    pub(crate) chances: Chances,
    pub(crate) bug: Option<Bug>,
}

impl<C> Setting<C> {
    pub(crate) fn moment(&self, tick: u64) -> Moment {
        Moment::ZERO + self.tick * tick as u32
    }

    pub(crate) fn wall(&self, tick: u64) -> WallTime {
        WallTime::since_epoch(self.tick * (self.start + tick) as u32)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Tick,
    /// A replica spends one token of its lease.
    Admit(usize),
    /// A replica gives one token back that it has spent.
    Refund(usize),
    /// A replica sends a request, or the last one again.
    Ask(usize),
    /// A replica returns what it holds.
    Drain(usize),
    Crash(usize),
    Execute {
        request: usize,
        copy: bool,
    },
    Apply {
        reply: usize,
        copy: bool,
    },
    Flush,
    /// From now on no write reaches the copy of the store that is promoted later.
    LagBehind,
    FailOver,
}

#[derive(Clone)]
pub(crate) struct World<C> {
    pub(crate) tick: u64,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) central: Central<C>,
    /// State to which the store can go back.
    behind: Option<Central<C>>,
    /// Messages under way, in order, each once.
    requests: Vec<Request>,
    replies: Vec<(u64, Reply)>,
    pub(crate) chances: Chances,
    epoch: u64,
    names: u64,
}

#[derive(Clone)]
pub(crate) struct Replica {
    pub(crate) name: u64,
    pub(crate) lease: Lease,
    pub(crate) tokens: LeasedTokens,
    /// Tokens spent that may be given back.
    spent: u8,
}

impl Replica {
    fn new(name: u64) -> Replica {
        Replica {
            name,
            lease: Lease::new(name),
            tokens: LeasedTokens::new(),
            spent: 0,
        }
    }
}

/// What a step has done, for the invariants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    None,
    Ticked,
    Admitted {
        replica: usize,
    },
    Refunded,
    /// The store has lost its memory.
    Forgot,
    /// The store has lost its last writes.
    WentBack,
}

impl<C: Count + Clone + Hash + Eq> World<C> {
    pub(crate) fn new(setting: &Setting<C>) -> World<C> {
        World {
            tick: 0,
            replicas: (0..setting.replicas).map(Replica::new).collect(),
            central: Central::new((setting.new_count)(), setting.terms.time(), 0),
            behind: None,
            requests: vec![],
            replies: vec![],
            chances: setting.chances,
            epoch: 0,
            names: setting.replicas,
        }
    }

    /// Returns all steps that can be taken from here.
    pub(crate) fn steps(&self, setting: &Setting<C>) -> Vec<Step> {
        let mut steps = vec![];
        if self.tick < setting.horizon {
            steps.push(Step::Tick);
        }
        for (index, replica) in self.replicas.iter().enumerate() {
            if self.balance(setting, replica) > 0 {
                steps.push(Step::Admit(index));
            }
            if self.chances.refunds > 0 && replica.spent > 0 {
                steps.push(Step::Refund(index));
            }
            let sent = match replica.lease.outstanding() {
                Some(request) => self.requests.contains(request),
                None => replica.lease.sequence() >= self.chances.requests,
            };
            if !sent {
                steps.push(Step::Ask(index));
                if replica.lease.outstanding().is_none() && self.chances.drains > 0 {
                    steps.push(Step::Drain(index));
                }
            }
            if self.chances.crashes > 0 {
                steps.push(Step::Crash(index));
            }
        }
        for request in 0..self.requests.len() {
            steps.push(Step::Execute { request, copy: false });
            if self.chances.copies > 0 {
                steps.push(Step::Execute { request, copy: true });
            }
        }
        for reply in 0..self.replies.len() {
            steps.push(Step::Apply { reply, copy: false });
            if self.chances.copies > 0 {
                steps.push(Step::Apply { reply, copy: true });
            }
        }
        if self.chances.flushes > 0 {
            steps.push(Step::Flush);
        }
        match self.behind {
            None if self.chances.failovers > 0 => steps.push(Step::LagBehind),
            Some(_) => steps.push(Step::FailOver),
            None => {}
        }
        steps
    }

    pub(crate) fn take(&mut self, setting: &Setting<C>, step: Step) -> Effect {
        let effect = self.change(setting, step);
        self.drop_messages(setting);
        effect
    }

    /// Drops the messages that can change nothing any more, so that states which differ only by them are one.
    fn drop_messages(&mut self, setting: &Setting<C>) {
        if setting.bug.is_some() {
            return;
        }
        let awaits = |name, sequence| {
            let replica = self.replicas.iter().find(|replica| replica.name == name);
            let request = replica.and_then(|replica| replica.lease.outstanding());
            request.is_some_and(|request| request.sequence == sequence)
        };
        self.replies.retain(|(name, reply)| awaits(*name, reply.sequence));
        let keeps_memory = self.chances.flushes == 0 && self.chances.failovers == 0 && self.behind.is_none();
        let end = setting.wall(setting.horizon).elapsed();
        self.requests.retain(|request| {
            let (last, ends) = (
                self.central.last(request.replica),
                self.central.lease_ends(request.replica),
            );
            let remembers = ends.is_some_and(|ends| ends.elapsed() + setting.terms.time() > end);
            let is_done = last.is_some_and(|last| last.sequence >= request.sequence);
            awaits(request.replica, request.sequence) || !(keeps_memory && remembers && is_done)
        });
    }

    fn change(&mut self, setting: &Setting<C>, step: Step) -> Effect {
        let now = setting.moment(self.tick);
        match step {
            Step::Tick => {
                self.tick += 1;
                return Effect::Ticked;
            }
            Step::Admit(index) => {
                let spends_at = self.spends_at(setting);
                let replica = &mut self.replicas[index];
                replica.tokens.take(spends_at, 1).expect("there is a token");
                replica.spent = (replica.spent + 1).min(self.chances.refunds);
                return Effect::Admitted { replica: index };
            }
            Step::Refund(index) => {
                self.chances.refunds -= 1;
                let replica = &mut self.replicas[index];
                replica.spent -= 1;
                let size = replica.lease.size(&setting.terms, now);
                if setting.bug == Some(Bug::RefundAfterReturn) && replica.tokens.balance(now) == 0 {
                    replica.tokens.grant(now, 1, now + setting.terms.time());
                } else {
                    replica.tokens.refund(now, 1, size.max(1));
                }
                return Effect::Refunded;
            }
            Step::Ask(index) => self.ask(setting, index, false),
            Step::Drain(index) => {
                self.chances.drains -= 1;
                self.ask(setting, index, true);
            }
            Step::Crash(index) => {
                self.chances.crashes -= 1;
                self.replicas[index] = Replica::new(self.names);
                self.names += 1;
            }
            Step::Execute { request, copy } => self.execute(setting, request, copy),
            Step::Apply { reply, copy } => self.apply(setting, reply, copy),
            Step::Flush => {
                self.chances.flushes -= 1;
                self.epoch += 1;
                self.central = Central::new((setting.new_count)(), setting.terms.time(), self.epoch);
                return Effect::Forgot;
            }
            Step::LagBehind => {
                self.chances.failovers -= 1;
                self.behind = Some(self.central.clone());
            }
            Step::FailOver => {
                self.central = self.behind.take().expect("there is a copy");
                return Effect::WentBack;
            }
        }
        Effect::None
    }

    fn ask(&mut self, setting: &Setting<C>, index: usize, drain: bool) {
        let now = setting.moment(self.tick);
        let replica = &mut self.replicas[index];
        let (lease, tokens, owed) = (&mut replica.lease, &replica.tokens, Owed::new());
        let kept = tokens.clone();
        let request = if drain {
            lease.give_back(&setting.terms, tokens, &owed, now, true)
        } else {
            let waiting = Waiting::NONE.and(u64::from(tokens.balance(now) == 0));
            lease.renew(&setting.terms, tokens, &owed, now, waiting)
        };
        if setting.bug == Some(Bug::ReturnAndKeep) {
            replica.tokens = kept;
        }
        if let Some(request) = request {
            insert(&mut self.requests, request);
        }
    }

    fn execute(&mut self, setting: &Setting<C>, index: usize, copy: bool) {
        let request = self.requests[index];
        if copy {
            self.chances.copies -= 1;
        } else {
            self.requests.remove(index);
        }
        let now = setting.wall(self.tick);
        if setting.bug == Some(Bug::CreditTwice)
            && let Some(last) = self.central.last(request.replica)
            && last.sequence == request.sequence
        {
            // The store does not know that it has executed this one.
            let again = Request {
                sequence: request.sequence + 1,
                wanted: 0,
                needed: 0,
                waiting: 0,
                ..request
            };
            self.central.execute(now, &again);
            return;
        }
        if let Some(reply) = self.central.execute(now, &request) {
            insert(&mut self.replies, (request.replica, reply));
        }
    }

    fn apply(&mut self, setting: &Setting<C>, index: usize, copy: bool) {
        let (name, reply) = self.replies[index];
        if copy {
            self.chances.copies -= 1;
        } else {
            self.replies.remove(index);
        }
        let now = setting.moment(self.tick);
        let Some(replica) = self.replicas.iter_mut().find(|replica| replica.name == name) else {
            return;
        };
        let expires = now + setting.terms.time();
        match setting.bug {
            Some(Bug::ApplyTwice) if replica.lease.outstanding().is_none() => {
                replica.tokens.grant(now, reply.granted, expires);
            }
            Some(Bug::ExpiryFromAnswer) => {
                if replica.lease.apply(&setting.terms, &replica.tokens, now, &reply) {
                    replica.tokens.grant(now, 0, expires);
                }
            }
            _ => {
                replica.lease.apply(&setting.terms, &replica.tokens, now, &reply);
            }
        }
    }

    /// Returns the moment at which a replica believes to be when it spends.
    fn spends_at(&self, setting: &Setting<C>) -> Moment {
        match setting.bug {
            Some(Bug::SpendAfterExpiry) => setting.moment(self.tick).saturating_sub(setting.tick),
            _ => setting.moment(self.tick),
        }
    }

    fn balance(&self, setting: &Setting<C>, replica: &Replica) -> u64 {
        replica.tokens.balance(self.spends_at(setting))
    }

    /// Returns the tokens that replicas could spend now.
    pub(crate) fn usable(&self, setting: &Setting<C>) -> u64 {
        self.replicas.iter().map(|replica| self.balance(setting, replica)).sum()
    }

    /// Returns the tokens that were leased, and can still be spent or credited.
    pub(crate) fn out(&self, setting: &Setting<C>) -> u64 {
        let held = self.replicas.iter().map(|replica| {
            let last = self.central.last(replica.name);
            let held = match last {
                Some(_) => replica.tokens.held().tokens + replica.lease.unused(),
                None => replica.tokens.balance(setting.moment(self.tick)),
            };
            let Some(request) = replica.lease.outstanding() else {
                return held;
            };
            let under_way = self.replies.iter().filter(|(name, _)| *name == replica.name);
            let under_way = under_way.filter(|(_, reply)| reply.sequence == request.sequence);
            let granted = under_way.map(|(_, reply)| reply.granted).max().unwrap_or(0);
            let granted = match last {
                Some(last) if last.sequence == request.sequence => granted.max(last.granted),
                _ => granted,
            };
            held + granted
        });
        let is_creditable = |request: &&Request| {
            let last = self.central.last(request.replica);
            last.is_some_and(|last| last.sequence < request.sequence)
        };
        let repeated = self.replicas.iter().filter_map(|replica| replica.lease.outstanding());
        let mut returns: Vec<&Request> = self.requests.iter().chain(repeated).filter(is_creditable).collect();
        returns.sort_unstable();
        returns.dedup();
        held.sum::<u64>() + returns.iter().map(|request| request.returned).sum::<u64>()
    }

    /// Returns how many names replicas have had.
    pub(crate) fn names(&self) -> u64 {
        self.names
    }

    /// Drops all messages, and lets every replica ask in each tick. Returns the tokens that are admitted in the last
    /// `ticks` ticks, after `settling` ticks.
    pub(crate) fn recover(mut self, setting: &Setting<C>, settling: u64, ticks: u64) -> u64 {
        let mut admitted = 0;
        for tick in 1..=settling + ticks {
            self.tick += 1;
            (self.requests, self.replies) = (vec![], vec![]);
            for index in 0..self.replicas.len() {
                self.ask(setting, index, false);
                while !self.requests.is_empty() {
                    self.execute(setting, 0, false);
                }
                while !self.replies.is_empty() {
                    self.apply(setting, 0, false);
                }
                let now = setting.moment(self.tick);
                while self.replicas[index].tokens.take(now, 1).is_ok() {
                    admitted += u64::from(tick > settling);
                }
            }
        }
        admitted
    }
}

fn insert<T: Ord>(messages: &mut Vec<T>, message: T) {
    if let Err(index) = messages.binary_search(&message) {
        messages.insert(index, message);
    }
}

impl<C: Hash> Hash for World<C> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.tick, self.chances, self.epoch, self.names).hash(state);
        for replica in &self.replicas {
            let held = replica.tokens.held();
            (replica.name, &replica.lease, held.tokens, held.expires).hash(state);
            replica.spent.hash(state);
        }
        (&self.central, &self.behind, &self.requests, &self.replies).hash(state);
    }
}

impl<C> fmt::Debug for World<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tick {}", self.tick)?;
        for replica in &self.replicas {
            write!(
                f,
                "\n  replica {}: {:?}, {:?}",
                replica.name, replica.tokens, replica.lease
            )?;
        }
        for request in &self.requests {
            write!(f, "\n  {request:?}")?;
        }
        for (name, reply) in &self.replies {
            write!(f, "\n  to {name}: {reply:?}")?;
        }
        Ok(())
    }
}
