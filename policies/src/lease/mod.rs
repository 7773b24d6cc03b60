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
//!    answers a repeated request as before, executes no request that is older than the last, and credits a return only
//!    against tokens that are on lease. It forgets a replica two lease times after the last request. What such a replica
//!    still returns is not credited.
//! 3. A replica applies the answer to its last request once, and ignores every other answer. Its lease expires one
//!    lease time (or [`Reply::usable_for`]) after it *sent* the request, so before the store thinks so. What it holds at
//!    that moment expires later too. An answer that comes after that is not used: its tokens are returned.
//! 4. Expired tokens are not spent. They go back with the next request. A refund goes to the tokens that are held, up
//!    to the size of a lease; without a lease it is lost.
//! 5. A refusal says when the next tokens come, and until then the replica refuses alone.
//! 6. If the store cannot be reached, a replica spends its lease, then its part of the limit ([`Quota::divided`]). What
//!    it admits in that way it owes ([`Owed`]), and pays with the first request that the store executes.
//!
//! Invariant: in any span of time `t` the replicas admit at most `burst + rate x t + tokens out on lease when it began`,
//! and at most the share on lease, beside tokens that callers wait for, is out ([`Bound`]): the store grants no more,
//! however many replicas it has seen. Tokens of a lost answer, or of a process that was killed, are lost, and never
//! credited twice. A store that loses its memory, or the last part of it, costs at most one burst for each loss. A
//! replica without the store adds `burst / replicas + rate / replicas x time`, of which it pays back up to one burst.
//! A window admits at most `limit + tokens out on lease when it began`. A calendar quota is not exceeded, because no
//! lease outlives its period, and its leases shrink to one token at the end; if the store is lost, see [`quota_share`].
//!
//! All tokens on lease are spent, returned or lost within one lease time, so a limit has its whole rate at every moment
//! at which the store can be reached, and its whole burst `lease / rate` after that. This module knows nothing of
//! connections, scripts or retries in time.
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
    /// Fewest new tokens that are of use; zero if nobody waits.
    pub needed: u64,
    /// Most new tokens.
    pub wanted: u64,
    /// Most tokens on lease by all replicas together, beyond what is needed.
    pub most: u64,
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
