//! Decides when a replica asks the store, how many tokens it wants, and what it does with the answer.
//!
//! One value belongs to one owner under one limit. It is changed by the one thread that talks to the store; requests
//! spend from its [`LeasedTokens`] at the same time.
//!
//! Invariant: each answer is applied at most once, and only before the lease time since the request was sent has
//! passed. What was collected is returned by exactly one request.

use super::terms::reserve;
use super::{LeaseTerms, LeasedTokens, Owed, Reply, Request, Waiting};
use crate::moment::Moment;
use std::num::NonZeroU32;
use std::time::Duration;

/// State of the lease of one owner under one limit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lease {
    replica: u64,
    sequence: u64,
    outstanding: Option<Outstanding>,
    /// Tokens that were leased and are neither held nor returned.
    unused: u64,
    answered: Option<Answered>,
    /// Moment until which the store's memory is so young that leases are half as large.
    learning_until: Moment,
}

/// Request without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Outstanding {
    request: Request,
    /// Moment at which it was sent first.
    sent: Moment,
}

/// What is known from the last answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Answered {
    at: Moment,
    /// Time from the first sending to the answer.
    took: Duration,
    /// Tokens held after it.
    held: u64,
    replicas: u32,
    epoch: u64,
}

/// Use of the lease since the last answer.
struct Use {
    tokens: u64,
    time: Duration,
}

impl Use {
    /// Returns the tokens used in `time` at this pace, rounded up.
    fn within(&self, time: Duration) -> u64 {
        let used = u128::from(self.tokens) * time.as_nanos();
        u64::try_from(used.div_ceil(self.time.as_nanos().max(1))).unwrap_or(u64::MAX)
    }
}

impl Lease {
    /// Begins without tokens. `replica` is a random name, new with each start of the process.
    pub fn new(replica: u64) -> Lease {
        Lease {
            replica,
            sequence: 0,
            outstanding: None,
            unused: 0,
            answered: None,
            learning_until: Moment::ZERO,
        }
    }

    /// Returns the request by which the lease is renewed, for callers that wait or for those to come. A request without
    /// an answer is returned again. To be called when no call of the store is under way. `None` if there is nothing to
    /// ask for.
    pub fn renew(
        &mut self,
        terms: &LeaseTerms,
        tokens: &LeasedTokens,
        owed: &Owed,
        now: Moment,
        waiting: Waiting,
    ) -> Option<Request> {
        if let Some(outstanding) = &self.outstanding {
            return Some(outstanding.request);
        }
        let size = self.size(terms, now);
        let used = self.used(tokens, now);
        self.unused += tokens.collect(now, size);
        let held = tokens.balance(now);
        // As much as is used within a lease time. A lease of no size leaves what callers wait for.
        let target = used.map_or(size, |used| used.within(terms.time()).max(1).min(size));
        self.send(terms, owed, now, held, waiting, target)
    }

    /// Returns the request that gives back what has expired; with `drain` everything, so that nothing is held then.
    /// `None` if there is nothing to give back or to pay.
    pub fn give_back(
        &mut self,
        terms: &LeaseTerms,
        tokens: &LeasedTokens,
        owed: &Owed,
        now: Moment,
        drain: bool,
    ) -> Option<Request> {
        if let Some(outstanding) = &self.outstanding {
            return Some(outstanding.request);
        }
        let keep = if drain { 0 } else { u64::MAX };
        self.unused += tokens.collect(now, keep);
        let held = tokens.balance(now);
        self.send(terms, owed, now, held, Waiting::NONE, 0)
    }

    fn send(
        &mut self,
        terms: &LeaseTerms,
        owed: &Owed,
        now: Moment,
        held: u64,
        waiting: Waiting,
        target: u64,
    ) -> Option<Request> {
        let missing = waiting.sum.saturating_sub(held);
        let wanted = target.saturating_sub(held).max(missing);
        let charged = owed.collect(terms.burst());
        if self.unused == 0 && charged == 0 && wanted == 0 {
            return None;
        }
        self.sequence += 1;
        let request = Request {
            replica: self.replica,
            sequence: self.sequence,
            held,
            returned: std::mem::take(&mut self.unused),
            charged,
            needed: waiting.least.saturating_sub(held),
            waiting: missing,
            wanted,
            most: terms.most(),
        };
        self.outstanding = Some(Outstanding { request, sent: now });
        Some(request)
    }

    /// Applies an answer. Returns whether it was the awaited one; another one changes nothing.
    pub fn apply(&mut self, terms: &LeaseTerms, tokens: &LeasedTokens, now: Moment, reply: &Reply) -> bool {
        let Some(Outstanding { request, sent }) = self
            .outstanding
            .take_if(|outstanding| outstanding.request.sequence == reply.sequence)
        else {
            return false;
        };
        let used = self.used(tokens, now);
        self.learn(terms, now, reply);
        let expires = sent + reply.usable_for.min(terms.time());
        if now < expires {
            self.unused += tokens.grant(now, reply.granted, expires);
        } else {
            self.unused += reply.granted;
        }
        tokens.ask_again();
        // What never comes is asked for again after a lease time.
        let next = reply.next.unwrap_or(terms.time());
        if next > Duration::ZERO {
            let cost = match request.needed {
                0 => 1,
                needed => request.held.saturating_add(needed),
            };
            tokens.refuse(now + next, cost);
        }
        let took = now.since(sent);
        let low = used.map_or(0, |used| used.within(took.saturating_mul(2)));
        tokens.renew_at(low.min(reserve(self.size(terms, now))));
        self.answered = Some(Answered {
            at: now,
            took,
            held: tokens.balance(now),
            replicas: reply.replicas,
            epoch: reply.epoch,
        });
        true
    }

    /// Begins to learn if the store has lost its memory.
    fn learn(&mut self, terms: &LeaseTerms, now: Moment, reply: &Reply) {
        let Some(answered) = self.answered else { return };
        // The store remembers a replica for two lease times from a moment after the request was sent.
        let sent = answered.at.saturating_sub(answered.took);
        let forgotten = !reply.known && now < sent + terms.time().saturating_mul(2);
        if forgotten || answered.epoch != reply.epoch {
            self.learning_until = now + terms.time();
        }
    }

    /// Returns the most tokens that this replica holds. Zero means that each decision asks the store.
    pub fn size(&self, terms: &LeaseTerms, now: Moment) -> u64 {
        let size = terms.size(self.replicas());
        if self.is_learning(now) { size / 2 } else { size }
    }

    /// Returns the number of replicas that the store told last; one before it told any.
    pub fn replicas(&self) -> NonZeroU32 {
        let told = self.answered.and_then(|answered| NonZeroU32::new(answered.replicas));
        told.unwrap_or(NonZeroU32::MIN)
    }

    /// Returns whether the store's memory is younger than one lease time.
    pub fn is_learning(&self, now: Moment) -> bool {
        now < self.learning_until
    }

    /// Returns the request that has no answer yet.
    pub fn outstanding(&self) -> Option<&Request> {
        self.outstanding.as_ref().map(|outstanding| &outstanding.request)
    }

    /// Returns the number of requests so far.
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Returns the tokens that the next request returns beside those that expire until then.
    pub const fn unused(&self) -> u64 {
        self.unused
    }

    /// Adds tokens that were spent and are not owed after all, where the lease that they came from can hold them no
    /// longer. They are returned with the next request.
    pub fn give_up(&mut self, tokens: u64) {
        self.unused = self.unused.saturating_add(tokens);
    }

    /// Returns the use since the last answer; `None` before the first.
    fn used(&self, tokens: &LeasedTokens, now: Moment) -> Option<Use> {
        self.answered.map(|answered| Use {
            tokens: answered.held.saturating_sub(tokens.held().tokens),
            time: now.since(answered.at),
        })
    }
}

#[cfg(test)]
mod tests;
