//! Kinds of limits whose tokens can be leased: their terms in the store, and the part of one replica without it.

use std::num::NonZeroU32;
use std::time::Duration;

use policies::lease::quota_share;
use policies::{Bucket, CalendarQuota, SlidingWindow};

use crate::clock::Now;
use crate::limits::kinds::{LimitCounter, QuotaCount};
use crate::store::CentralTerms;

/// Tokens that the central count had left at a time.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    pub left: u64,
    pub at: Now,
}

/// A kind of limit whose tokens can be leased.
pub trait Leasable: LimitCounter {
    /// Returns the terms of the central count.
    fn central(terms: &Self::Terms) -> CentralTerms;

    /// Returns what one of so many replicas admits without the store; `None` if nothing. `left` is what the central count
    /// has left.
    fn part(terms: &Self::Terms, replicas: NonZeroU32, left: u64) -> Option<Self::Terms>;

    /// Returns the tokens that the central count has left now if nobody has taken any since.
    fn left(terms: &Self::Terms, known: Known, now: Now) -> u64;

    /// Returns the time in which an empty central count earns a token; `None` if only the store can tell.
    fn earns_in(_terms: &Self::Terms) -> Option<Duration> {
        None
    }

    /// Begins to count the part anew after an answer of the store, with `spent` tokens of it spent already.
    fn restart(&self, _terms: &Self::Terms, _now: Now, _spent: u64) {}
}

impl Leasable for Bucket {
    fn central(quota: &Self::Terms) -> CentralTerms {
        CentralTerms::Bucket(*quota)
    }

    fn part(quota: &Self::Terms, replicas: NonZeroU32, _left: u64) -> Option<Self::Terms> {
        Some(quota.divided(replicas))
    }

    fn earns_in(quota: &Self::Terms) -> Option<Duration> {
        Some(quota.time_to_earn(1))
    }

    fn left(quota: &Self::Terms, known: Known, now: Now) -> u64 {
        // Each answer tells the balance, so this is a division of 64 bits.
        let passed = now.moment.nanos().saturating_sub(known.at.moment.nanos());
        let interval = u64::try_from(quota.time_to_earn(1).as_nanos()).unwrap_or(u64::MAX);
        let earned = passed / interval.max(1);
        known.left.saturating_add(earned).min(quota.burst())
    }
}

impl Leasable for SlidingWindow {
    fn central(quota: &Self::Terms) -> CentralTerms {
        CentralTerms::Window(*quota)
    }

    fn part(quota: &Self::Terms, replicas: NonZeroU32, _left: u64) -> Option<Self::Terms> {
        Some(quota.divided(replicas))
    }

    fn left(quota: &Self::Terms, known: Known, now: Now) -> u64 {
        if now.moment.since(known.at.moment) < quota.window() {
            known.left.min(quota.limit())
        } else {
            quota.limit()
        }
    }
}

impl Leasable for QuotaCount {
    fn central(quota: &CalendarQuota) -> CentralTerms {
        CentralTerms::Calendar(*quota)
    }

    fn part(quota: &CalendarQuota, replicas: NonZeroU32, left: u64) -> Option<CalendarQuota> {
        CalendarQuota::new(quota_share(left, replicas), quota.every()).ok()
    }

    fn left(quota: &CalendarQuota, known: Known, now: Now) -> u64 {
        if quota.every().end(now.wall) == quota.every().end(known.at.wall) {
            known.left.min(quota.limit())
        } else {
            quota.limit()
        }
    }

    /// A part is what the central count has left, divided, so what was spent of the last part does not count again.
    fn restart(&self, quota: &CalendarQuota, now: Now, spent: u64) {
        self.usage.set(quota, now.wall, spent);
    }
}
