//! Executes the requests of replicas on the central count of one limit: the rule that the script in the store follows.
//!
//! All state of a limit is one value, so a store that loses its last writes goes back to an earlier state of all of it.
//!
//! Invariant: a request is executed at most once while its replica is remembered, and a return is credited only against
//! tokens that are on lease. A replica is remembered for longer than its lease, so what is on lease here is never less
//! than what can be spent.

use super::{CentralQuota, Count, Reply, Request, UsedReply};
use crate::calendar::WallTime;
use std::collections::BTreeMap;
use std::time::Duration;

/// Central count of one limit of one owner, with what is on lease.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Central<C> {
    count: C,
    lease_time: Duration,
    epoch: u64,
    /// Last request of each replica.
    leases: BTreeMap<u64, Record>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Record {
    /// Tokens that the replica may hold.
    out: u64,
    /// Time of the last request.
    at: WallTime,
    /// Time from which none of the tokens can be spent.
    until: WallTime,
    reply: Reply,
}

impl<C: Count> Central<C> {
    /// Begins with nothing on lease. `epoch` is a random name of the store's memory.
    pub fn new(count: C, lease_time: Duration, epoch: u64) -> Central<C> {
        Central {
            count,
            lease_time,
            epoch,
            leases: BTreeMap::new(),
        }
    }

    /// Executes a request. `None` if it is older than the last one of its replica; then nothing is changed, and nobody
    /// waits for an answer.
    pub fn execute(&mut self, now: WallTime, request: &Request) -> Option<Reply> {
        let ends_in = self.count.advance(now);
        self.forget(now);
        let record = self.leases.get(&request.replica);
        if let Some(record) = record
            && request.sequence <= record.reply.sequence
        {
            return (request.sequence == record.reply.sequence).then_some(record.reply);
        }
        let known = record.is_some();
        if let Some(record) = record {
            let credit = request.returned.min(record.out.saturating_sub(request.held));
            self.count.give_back(credit, record.at);
        }
        self.count.charge(request.charged);
        let others = self
            .leases
            .keys()
            .filter(|&&replica| replica != request.replica)
            .count();
        let replicas = u32::try_from(others + 1).unwrap_or(u32::MAX);
        let granted = self.portion(now, request, replicas);
        self.count.take(granted);
        let usable_for = ends_in.map_or(self.lease_time, |ends_in| ends_in.min(self.lease_time));
        let reply = Reply {
            sequence: request.sequence,
            granted,
            usable_for,
            left: self.count.left(),
            next: if granted >= request.needed.max(request.wanted.min(1)) {
                Some(Duration::ZERO)
            } else {
                let returns_in = self.returns_in(now, request.replica);
                self.count.next(request.needed.max(1), returns_in)
            },
            replicas,
            epoch: self.epoch,
            known,
        };
        let record = Record {
            out: request.held.saturating_add(granted),
            at: now,
            until: WallTime::since_epoch(now.elapsed() + self.lease_time),
            reply,
        };
        self.leases.insert(request.replica, record);
        Some(reply)
    }

    /// Changes the terms of the count at this time.
    pub fn change(&mut self, now: WallTime, change: impl FnOnce(&mut C)) {
        self.count.advance(now);
        change(&mut self.count);
    }

    /// Returns what is granted: nothing, or from what is needed to what is wanted. Beyond what callers wait for, a
    /// replica has its part of all tokens on lease, if others have left so many.
    fn portion(&self, now: WallTime, request: &Request, replicas: u32) -> u64 {
        let left = self.count.left();
        if left < request.needed {
            return 0;
        }
        let running = self.leases.iter().filter(|(_, record)| now < record.until);
        let others = running.filter(|(name, _)| **name != request.replica);
        let out: u64 = others.map(|(_, record)| record.out).sum();
        let part = (request.most / u64::from(replicas)).min(request.most.saturating_sub(out));
        let room = request.wanted.min(part.saturating_sub(request.held));
        self.count.portion(room, replicas).max(request.waiting).min(left)
    }

    /// Forgets the replicas that were silent for two lease times. A record of the future, from before the clock was set
    /// back, counts as one of now.
    fn forget(&mut self, now: WallTime) {
        let keep = self.lease_time * 2;
        self.leases.retain(|_, record| {
            if record.at > now {
                record.at = now;
                record.until = WallTime::since_epoch(now.elapsed() + self.lease_time);
            }
            now.elapsed() < record.at.elapsed() + keep
        });
    }

    /// Returns the time until tokens of another replica may come back, just after the first lease has ended.
    fn returns_in(&self, now: WallTime, replica: u64) -> Option<Duration> {
        let others = self
            .leases
            .iter()
            .filter(|(name, record)| **name != replica && record.out > 0);
        let ends = others.map(|(_, record)| record.until.elapsed().saturating_sub(now.elapsed()));
        // What has ended is returned at any moment.
        ends.min().map(|end| end.max(self.lease_time / 8))
    }

    pub const fn count(&self) -> &C {
        &self.count
    }

    /// Returns the tokens that replicas may spend at `now`.
    pub fn on_lease(&self, now: WallTime) -> u64 {
        let running = self.leases.values().filter(|record| now < record.until);
        running.map(|record| record.out).sum()
    }

    /// Returns the time from which a replica can spend nothing, while it is remembered.
    pub fn lease_ends(&self, replica: u64) -> Option<WallTime> {
        self.leases.get(&replica).map(|record| record.until)
    }

    /// Returns the answer to the last request of a replica, while it is remembered.
    pub fn last(&self, replica: u64) -> Option<&Reply> {
        self.leases.get(&replica).map(|record| &record.reply)
    }

    /// Returns whether forgetting this limit would change nothing: the time to live of its key has passed.
    pub fn is_idle(&self) -> bool {
        self.leases.is_empty() && self.count.is_idle()
    }
}

impl Central<CentralQuota> {
    /// Sets what is used of the quota. Tokens on lease count on top until they come back, because replicas may spend
    /// them meanwhile. So what was spent of a lease before, and not told yet, counts too.
    pub fn set_used(&mut self, now: WallTime, used: u64) -> UsedReply {
        self.count.advance(now);
        self.forget(now);
        let since = self.count.since();
        let current = self.leases.values().filter(|record| record.at >= since);
        let on_lease: u64 = current.map(|record| record.out).sum();
        let was = self
            .count
            .set_used(used.saturating_add(on_lease))
            .saturating_sub(on_lease);
        UsedReply {
            was,
            on_lease,
            left: self.count.left(),
        }
    }
}

#[cfg(test)]
mod tests;
