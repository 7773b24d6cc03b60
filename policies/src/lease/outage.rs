//! Counts what a replica admits while the store cannot be reached, so that an outage is not paid twice.
//!
//! Invariant: what is owed is charged by one request, and never more than one burst.

use crate::sync::{AtomicU64, Ordering::Relaxed};
use std::num::NonZeroU32;

/// Tokens that were admitted without the store, and are to be charged to the central count.
#[derive(Debug, Default)]
pub struct Owed {
    tokens: AtomicU64,
}

impl Owed {
    pub fn new() -> Owed {
        Owed::default()
    }

    /// Adds tokens that were admitted.
    pub fn add(&self, tokens: u64) {
        self.change(|owed| owed.saturating_add(tokens));
    }

    /// Removes tokens of a caller that is refunded.
    pub fn refund(&self, tokens: u64) {
        self.change(|owed| owed.saturating_sub(tokens));
    }

    /// Returns what is owed, at most `burst`, and forgets all of it.
    pub fn collect(&self, burst: u64) -> u64 {
        if self.tokens.load(Relaxed) == 0 {
            return 0;
        }
        self.tokens.swap(0, Relaxed).min(burst)
    }

    pub fn tokens(&self) -> u64 {
        self.tokens.load(Relaxed)
    }

    fn change(&self, next: impl Fn(u64) -> u64) {
        let mut owed = self.tokens.load(Relaxed);
        while let Err(seen) = self.tokens.compare_exchange_weak(owed, next(owed), Relaxed, Relaxed) {
            owed = seen;
        }
    }
}

/// Returns the tokens of a calendar quota that one of so many replicas may admit without the store, from what was left
/// when the store was last heard of. Together the replicas admit no more than was left, unless one of them heard of it
/// earlier than others leased from it: the quota is then exceeded by at most what the others leased since.
pub const fn quota_share(left: u64, replicas: NonZeroU32) -> u64 {
    left / replicas.get() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_owed_is_collected_once() {
        let owed = Owed::new();
        assert_eq!(owed.collect(10), 0);
        owed.add(3);
        owed.add(4);
        owed.refund(1);
        assert_eq!(owed.tokens(), 6);
        assert_eq!((owed.collect(10), owed.collect(10)), (6, 0));
    }

    #[test]
    fn at_most_one_burst_is_owed() {
        let owed = Owed::new();
        owed.add(u64::MAX);
        owed.add(1);
        assert_eq!((owed.collect(10), owed.collect(10)), (10, 0));
        owed.refund(1);
        assert_eq!(owed.tokens(), 0);
    }

    #[test]
    fn the_shares_of_a_quota_are_no_more_than_the_quota() {
        let check = |left, replicas, expected| {
            assert_eq!(quota_share(left, NonZeroU32::new(replicas).unwrap()), expected);
        };
        check(1_000, 3, 333);
        check(2, 3, 0);
        check(7, 1, 7);
    }
}
