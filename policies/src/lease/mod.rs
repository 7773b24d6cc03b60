//! Shares one limit between replicas: each takes tokens from a central count some at a time, and decides alone.
//!
//! The central count of a limit lies in a store that all replicas reach. Tokens leave it when they are leased, not when
//! they are spent, so a decision needs no round trip, and what a replica admits was paid before. Words of the protocol:
//! a *lease* is the tokens that a replica holds, which it may spend until they *expire*.
//!
//! The protocol:
//! 1. A replica sends one [`Request`] at a time for a limit: what it holds, what it returns, what it owes, what it
//!    needs and what it wants. It repeats the same request, with the same sequence number, until it is answered. The
//!    store executes a request in one step ([`Central::execute`]), in its own time. A replica chooses a new random name
//!    at each start.
//! 2. The store remembers, for each replica, the last sequence number, what it granted and the tokens on lease. It
//!    answers a repeated request as before, executes no request that is older than the last, and credits a return
//!    only against tokens that are on lease. It forgets a replica two lease times after the last request. What such a
//!    replica still returns is not credited.
//! 3. A replica applies the answer to its last request once, and ignores every other answer. Its lease expires one
//!    lease time (or [`Reply::usable_for`]) after it *sent* the request, so before the store thinks so. What it holds
//!    at that moment expires later too. An answer that comes after that is not used: its tokens are returned.
//! 4. Expired tokens are not spent. They go back with the next request. A refund goes to the tokens that are held, up
//!    to the size of a lease; without a lease it is lost.
//! 5. A refusal says when the next tokens come, and until then the replica refuses alone.
//! 6. If the store cannot be reached, a replica spends its lease, then its part of the limit ([`Quota::divided`]). What
//!    it admits in that way it owes ([`Owed`]), and pays with the first request that the store executes.
//!
//! Invariant: in any span of time `t` the replicas admit at most `burst + rate x t + tokens out on lease when it
//! began`. Out are at most the share on lease and what callers wait for ([`Bound`]): the store grants no more,
//! however many replicas it has seen. In a window they admit at most `limit + tokens out on lease when it began`. A
//! calendar quota is not exceeded, because no lease outlives its period; its leases shrink to one token at the end.
//!
//! What trouble costs:
//! - The tokens of a process that was killed are lost, and never credited twice.
//! - A store that loses its memory costs one burst each time. If it goes back to an earlier state, it costs the
//!   tokens on lease too, because returns that it does not remember are credited again.
//! - A replica without the store adds `burst / replicas + rate / replicas x time`, of which it pays back up to one
//!   burst. For a quota see [`quota_share`]. If a request that pays is repeated after the store has forgotten its
//!   replica, it may be charged twice.
//!
//! All tokens on lease are spent, returned or lost within one lease time. So a limit has its whole rate whenever the
//! store can be reached, and its whole burst `lease / rate` after that. This module knows nothing of connections and
//! scripts, nor of when a call is tried again.
//!
//! [`Quota::divided`]: crate::Quota::divided

mod central;
mod counts;
mod outage;
mod renewal;
mod slots;
mod terms;
mod tokens;

use std::time::Duration;

pub use central::Central;
pub use counts::{CentralBucket, CentralQuota, CentralWindow, Count};
pub use outage::{Owed, quota_share};
pub use renewal::Lease;
pub use slots::{CentralSlots, HeldSlots, SlotLease, SlotReply, SlotRequest};
pub use terms::{Bound, LeaseTerms, LeaseTermsError};
pub use tokens::{Held, LeasedTokens, Short, Spent};

/// Message of a replica to the store, for one limit of one owner. All amounts are tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Request {
    /// Random name of the process.
    pub replica: u64,
    /// Rises by one with each new request; a repeated request has the same.
    pub sequence: u64,
    /// Tokens that are held and not returned.
    pub held: u64,
    /// Tokens that were leased and not spent.
    pub returned: u64,
    /// Tokens that were admitted without a lease.
    pub charged: u64,
    /// Fewest new tokens that are of use; zero if no caller waits.
    pub needed: u64,
    /// New tokens that callers wait for in all.
    pub waiting: u64,
    /// Most new tokens.
    pub wanted: u64,
    /// Most tokens on lease by all replicas together, beyond those that callers wait for.
    pub most: u64,
}

/// Tokens that callers of one replica wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Cost of the cheapest of the requests that wait.
    pub least: u64,
    pub sum: u64,
}

impl Waiting {
    pub const NONE: Waiting = Waiting { least: 0, sum: 0 };

    /// Adds one caller.
    pub const fn and(self, cost: u64) -> Waiting {
        Waiting {
            least: if self.least == 0 || cost < self.least {
                cost
            } else {
                self.least
            },
            sum: self.sum.saturating_add(cost),
        }
    }
}

/// Answer of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reply {
    pub sequence: u64,
    /// Zero or at least what was needed.
    pub granted: u64,
    /// Time for which the lease may be used, from the moment at which the request was sent.
    pub usable_for: Duration,
    /// Tokens left in the central count.
    pub left: u64,
    /// Time until what was needed may be there; zero if it was granted, `None` if it never is.
    pub next: Option<Duration>,
    /// Replicas that the store has heard of within two lease times, this one included.
    pub replicas: u32,
    /// Name of the store's memory; another one means that everything was forgotten.
    pub epoch: u64,
    /// Whether the store remembered this replica.
    pub known: bool,
}

/// Answer of the store after the tokens used of a calendar quota were set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsedReply {
    /// Tokens used before, without those on lease.
    pub was: u64,
    /// Tokens that replicas may hold. They count on top until they come back.
    pub on_lease: u64,
    /// Tokens left in the central count.
    pub left: u64,
}
