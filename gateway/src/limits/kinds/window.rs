//! A limit that is a sliding window: at most so many tokens in any stretch of its time.

use std::sync::Arc;
use std::time::Duration;

use policies::{Moment, SlidingWindow, WindowQuota};

use super::{LimitCounter, NewAccount, SavedCount, Taken, time};
use crate::clock::Now;

impl LimitCounter for SlidingWindow {
    type Terms = WindowQuota;

    const WORD: &'static str = "sliding_window";
    const WAITS: bool = true;

    fn new(_: &NewAccount<'_>) -> Arc<Self> {
        Arc::new(Self::new())
    }

    fn most(quota: &WindowQuota) -> u64 {
        quota.limit()
    }

    fn period(quota: &WindowQuota) -> Option<Duration> {
        Some(quota.window())
    }

    fn per_second(quota: &WindowQuota) -> Option<f64> {
        Some(quota.limit() as f64 / quota.window().as_secs_f64())
    }

    fn take(&self, quota: &WindowQuota, now: Now, cost: u64, longest: Duration) -> Result<Duration, Duration> {
        self.reserve(quota, now.moment, cost, longest).map_err(time)
    }

    fn charge(&self, quota: &WindowQuota, now: Now, cost: u64) {
        self.charge(quota, now.moment, cost);
    }

    fn refund(&self, _: &WindowQuota, new: &WindowQuota, now: Now, Taken { at, delay, tokens }: Taken) {
        self.refund(new, now.moment, at.moment + delay, tokens);
    }

    fn balance(&self, quota: &WindowQuota, now: Now) -> u64 {
        self.balance(quota, now.moment)
    }

    fn wait_for(&self, quota: &WindowQuota, now: Now, cost: u64) -> Duration {
        self.wait_for(quota, now.moment, cost).unwrap_or(Duration::MAX)
    }

    /// Returns the length of the window, after which all of it has passed.
    fn reset_in(&self, quota: &WindowQuota, _: Now, _remaining: u64) -> Duration {
        quota.window()
    }

    fn is_idle(&self, quota: &WindowQuota, now: Now) -> bool {
        self.is_idle(quota, now.moment)
    }

    fn saved(&self) -> Option<SavedCount> {
        let taken = self.saved().into_iter();
        Some(SavedCount::SlidingWindow(
            taken.map(|(at, tokens)| (at.nanos(), tokens)).collect(),
        ))
    }

    fn restore(&self, _: &WindowQuota, _: Now, saved: &SavedCount) -> bool {
        let SavedCount::SlidingWindow(taken) = saved else {
            return false;
        };
        for (at, tokens) in taken {
            self.restore(Moment::from_nanos(*at), *tokens);
        }
        true
    }

    /// Adds the charge at its own moment, by which a refund finds it.
    fn add(&self, _: &WindowQuota, Taken { at, delay, tokens }: Taken) {
        self.restore(at.moment + delay, tokens);
    }
}
