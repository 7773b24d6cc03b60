//! Counts exactly what was taken in a sliding window, by remembering the time of each take.
//!
//! A token bucket allows a burst and then its rate, so some windows see up to twice the number that a contract names. A
//! sliding window sees at most `limit` in every window. It costs memory: sixteen bytes for each moment at which
//! something was taken and not yet forgotten.
//!
//! Invariant: in every span `[t - window, t)` at most `limit` tokens are taken or started with and not given back,
//! except tokens charged after the fact. A clock that runs backwards is treated as one that stands still.

use crate::decision::{Balance, Wait};
use crate::moment::Moment;
use crate::sync::{Mutex, lock};
use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

/// Number of tokens that may be taken in any window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowQuota {
    limit: u64,
    window: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowQuotaError {
    /// The limit is not in `1..=MOST`.
    Limit,
    /// The window is not in `1ns..=LONGEST`.
    Window,
}

impl WindowQuota {
    /// Largest limit. An owner's memory grows with its limit, to 4 MB at this one. Use a bucket for higher limits.
    pub const MOST: u64 = 100_000;

    /// Longest window, 31 days. The counts do not survive the process, so longer periods need a calendar quota.
    pub const LONGEST: Duration = Duration::from_secs(31 * 86_400);

    /// Returns a quota of `limit` tokens in any `window`.
    pub fn new(limit: u64, window: Duration) -> Result<WindowQuota, WindowQuotaError> {
        if !(1..=WindowQuota::MOST).contains(&limit) {
            return Err(WindowQuotaError::Limit);
        }
        if window.is_zero() || window > WindowQuota::LONGEST {
            return Err(WindowQuotaError::Window);
        }
        Ok(WindowQuota { limit, window })
    }

    pub const fn limit(&self) -> u64 {
        self.limit
    }

    pub const fn window(&self) -> Duration {
        self.window
    }

    /// Returns the part of one of so many replicas: a share of the limit, rounded down, but at least one token.
    pub fn divided(&self, replicas: NonZeroU32) -> WindowQuota {
        WindowQuota {
            limit: (self.limit / u64::from(replicas.get())).max(1),
            window: self.window,
        }
    }

    /// Returns the most tokens that are ever remembered: a full window, and as many again in debt or reserved.
    const fn deepest(&self) -> u64 {
        2 * self.limit
    }

    /// Returns the time for which tokens taken `at` still count; zero if they no longer do.
    fn counts_for(&self, at: Moment, now: Moment) -> Duration {
        (self.window + at.since(now)).saturating_sub(now.since(at))
    }
}

/// Tokens that one owner has taken. Its [`WindowQuota`] is an argument; after a reload the new quota applies to what is
/// remembered.
#[derive(Default)]
pub struct SlidingWindow {
    taken: Mutex<Taken>,
}

impl SlidingWindow {
    pub fn new() -> SlidingWindow {
        SlidingWindow::default()
    }

    /// Returns the moments of takes and their tokens, in rising order, for another process with the same
    /// [`Moment::ZERO`].
    pub fn saved(&self) -> Vec<(Moment, u64)> {
        let taken = lock(&self.taken);
        taken.runs.iter().map(|run| (run.at, run.tokens)).collect()
    }

    /// Adds what was taken in another process.
    pub fn restore(&self, at: Moment, tokens: u64) {
        let mut taken = lock(&self.taken);
        let most = u64::MAX / 2 - taken.total.min(u64::MAX / 2);
        taken.add(at, tokens.min(most));
    }

    /// Takes `cost` tokens, or none.
    pub fn take(&self, quota: &WindowQuota, now: Moment, cost: u64) -> Result<Balance, Wait> {
        let mut taken = lock(&self.taken);
        taken.admit(quota, now, cost, Duration::ZERO)?;
        Ok(taken.balance(quota, now))
    }

    /// Takes `cost` tokens for a caller that starts as soon as the window has room. Returns the time until the start,
    /// zero for a start now. Nothing is taken if the wait would exceed `max_wait`, or if a whole limit is reserved
    /// beyond the current window. The error then holds the wait after which the caller could start at once. The
    /// invariant holds for the moments at which callers start. A refund of the reservation needs the moment of its
    /// start.
    pub fn reserve(&self, quota: &WindowQuota, now: Moment, cost: u64, max_wait: Duration) -> Result<Duration, Wait> {
        lock(&self.taken).admit(quota, now, cost, max_wait)
    }

    /// Takes tokens that have been spent already, even if they are not there: at most one limit more than there is.
    /// Every other take is refused until enough tokens have passed out of the window.
    pub fn charge(&self, quota: &WindowQuota, now: Moment, cost: u64) -> Balance {
        let mut taken = lock(&self.taken);
        let now = taken.advance(quota, now);
        let room = quota.deepest().saturating_sub(taken.total);
        taken.add(now, cost.min(room));
        taken.balance(quota, now)
    }

    /// Gives back up to `cost` tokens taken at `taken_at`, if they still count. A take that was given an earlier time
    /// than a take before it counts from the later time, so its tokens are not found.
    pub fn refund(&self, quota: &WindowQuota, now: Moment, taken_at: Moment, cost: u64) -> Balance {
        let mut taken = lock(&self.taken);
        taken.remove(taken_at, cost);
        taken.balance(quota, now)
    }

    /// Returns the number of tokens that could be taken now.
    pub fn balance(&self, quota: &WindowQuota, now: Moment) -> u64 {
        lock(&self.taken).balance(quota, now).tokens
    }

    /// Returns the time until `cost` tokens can be taken: zero if now, `None` if never.
    pub fn wait_for(&self, quota: &WindowQuota, now: Moment, cost: u64) -> Option<Duration> {
        lock(&self.taken).wait_for(quota, now, cost)
    }

    /// Returns whether forgetting this window would change nothing.
    pub fn is_idle(&self, quota: &WindowQuota, now: Moment) -> bool {
        let taken = lock(&self.taken);
        let newest = taken.runs.back();
        newest.is_none_or(|run| quota.counts_for(run.at, now).is_zero())
    }
}

#[derive(Default)]
struct Taken {
    /// Takes by moment, in rising order, at most one entry for each moment. A reserved start may lie in the future.
    runs: VecDeque<Run>,
    /// Sum of the tokens of all runs.
    total: u64,
    /// Latest time that this window was given with a take.
    latest: Moment,
}

struct Run {
    at: Moment,
    tokens: u64,
}

impl Taken {
    /// Takes tokens for a start within `max_wait`; returns the wait until the start.
    fn admit(&mut self, quota: &WindowQuota, now: Moment, cost: u64, max_wait: Duration) -> Result<Duration, Wait> {
        let latest = self.advance(quota, now);
        let wait = self.wait_for(quota, now, cost).ok_or(Wait::FOR_EVER)?;
        if wait > max_wait || self.total + cost > quota.deepest() {
            return Err(Wait::of(wait));
        }
        self.add(latest.max(now + wait), cost);
        Ok(wait)
    }

    /// Forgets what has passed out of the window; returns the time, which never runs backwards.
    fn advance(&mut self, quota: &WindowQuota, now: Moment) -> Moment {
        self.latest = self.latest.max(now);
        while let Some(run) = self.runs.front()
            && quota.counts_for(run.at, self.latest).is_zero()
        {
            self.total -= run.tokens;
            self.runs.pop_front();
        }
        self.latest
    }

    fn wait_for(&self, quota: &WindowQuota, now: Moment, cost: u64) -> Option<Duration> {
        if cost > quota.limit {
            return None;
        }
        // Tokens that must pass out of the window first, oldest first.
        let mut too_many = (self.total + cost).saturating_sub(quota.limit);
        let mut last = None;
        for run in &self.runs {
            if too_many == 0 {
                break;
            }
            too_many = too_many.saturating_sub(run.tokens);
            last = Some(run.at);
        }
        Some(last.map_or(Duration::ZERO, |at| quota.counts_for(at, now)))
    }

    fn balance(&self, quota: &WindowQuota, now: Moment) -> Balance {
        let passed = |run: &&Run| quota.counts_for(run.at, now).is_zero();
        let forgotten: u64 = self.runs.iter().take_while(passed).map(|run| run.tokens).sum();
        Balance {
            tokens: quota.limit.saturating_sub(self.total - forgotten),
        }
    }

    fn add(&mut self, at: Moment, tokens: u64) {
        if tokens == 0 {
            return;
        }
        self.total += tokens;
        let index = self.runs.partition_point(|run| run.at < at);
        match self.runs.get_mut(index) {
            Some(run) if run.at == at => run.tokens += tokens,
            _ => self.runs.insert(index, Run { at, tokens }),
        }
    }

    fn remove(&mut self, at: Moment, tokens: u64) {
        let Ok(index) = self.runs.binary_search_by_key(&at, |run| run.at) else {
            return;
        };
        let run = &mut self.runs[index];
        let removed = tokens.min(run.tokens);
        run.tokens -= removed;
        self.total -= removed;
        if run.tokens == 0 {
            self.runs.remove(index);
        }
    }
}

impl fmt::Debug for SlidingWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let taken = lock(&self.taken);
        f.debug_struct("SlidingWindow")
            .field("tokens", &taken.total)
            .field("moments", &taken.runs.len())
            .finish()
    }
}

impl fmt::Display for WindowQuotaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WindowQuotaError::Limit => write!(f, "the limit must be from 1 to {}", WindowQuota::MOST),
            WindowQuotaError::Window => f.write_str("the window must be more than zero and at most 31 days"),
        }
    }
}

impl std::error::Error for WindowQuotaError {}

#[cfg(test)]
mod tests;
