//! A limit that is a token bucket: a burst at once, and a rate in the long run.

use std::sync::Arc;
use std::time::Duration;

use policies::{Bucket, Quota};

use super::{LimitCounter, NewAccount, SavedCount, Taken, time};
use crate::clock::Now;

impl LimitCounter for Bucket {
    type Terms = Quota;

    const WORD: &'static str = "token_bucket";
    const WAITS: bool = true;

    fn new(_: &NewAccount<'_>) -> Arc<Self> {
        Arc::new(Self::full())
    }

    fn most(quota: &Quota) -> u64 {
        quota.burst()
    }

    /// Returns the time in which a whole burst is earned.
    fn period(quota: &Quota) -> Option<Duration> {
        Some(quota.time_to_earn(quota.burst()))
    }

    fn per_second(quota: &Quota) -> Option<f64> {
        Some(1.0 / quota.time_to_earn(1).as_secs_f64())
    }

    fn take(&self, quota: &Quota, now: Now, cost: u64, longest: Duration) -> Result<Duration, Duration> {
        if longest.is_zero() {
            self.take(quota, now.moment, cost).map(|_| Duration::ZERO).map_err(time)
        } else {
            self.reserve(quota, now.moment, cost, longest).map_err(time)
        }
    }

    fn charge(&self, quota: &Quota, now: Now, cost: u64) {
        self.charge(quota, now.moment, cost);
    }

    fn refund(&self, old: &Quota, new: &Quota, now: Now, Taken { at, delay, tokens }: Taken) {
        let start = at.moment + delay;
        if old == new {
            self.refund(new, now.moment, start, tokens);
        } else {
            self.refund_rescaled(old, new, now.moment, start, tokens);
        }
    }

    fn balance(&self, quota: &Quota, now: Now) -> u64 {
        self.balance(quota, now.moment)
    }

    fn wait_for(&self, quota: &Quota, now: Now, cost: u64) -> Duration {
        self.wait_for(quota, now.moment, cost).unwrap_or(Duration::MAX)
    }

    /// Returns the time in which as many tokens again are earned.
    fn reset_in(&self, quota: &Quota, _: Now, remaining: u64) -> Duration {
        quota.time_to_earn(remaining)
    }

    fn is_idle(&self, _: &Quota, now: Now) -> bool {
        self.is_full(now.moment)
    }

    /// Keeps the share to which the bucket is full.
    fn change_terms(&self, old: &Quota, new: &Quota, now: Now) {
        if old != new {
            self.rescale(old, new, now.moment);
        }
    }

    fn saved(&self) -> Option<SavedCount> {
        Some(SavedCount::TokenBucket(self.saved()))
    }

    fn restore(&self, _: &Quota, _: Now, saved: &SavedCount) -> bool {
        let SavedCount::TokenBucket(ticks) = saved else {
            return false;
        };
        self.restore(*ticks);
        true
    }
}
