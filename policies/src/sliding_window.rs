//! Counts exactly what was taken in the trailing window, by remembering when.
//!
//! A token bucket lets a burst through and then its rate, so some windows see up to twice the number a
//! contract may name. This one sees at most `limit` in every window, and pays with memory: sixteen bytes
//! for each moment at which something was taken and not yet forgotten.
//!
//! Invariant: in every stretch `[t - window, t)` at most `limit` tokens are taken or started with and not
//! given back, but for what was charged after the fact. To it a clock that runs backwards stands still.

use crate::decision::{Balance, Wait};
use crate::moment::Moment;
use crate::sync::{Mutex, lock};
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// How many tokens may be taken in any window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowQuota {
    limit: u64,
    window: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowQuotaError {
    /// Not in `1..=MOST`.
    Limit,
    /// Not in `1ns..=LONGEST`.
    Window,
}

impl WindowQuota {
    /// An owner's memory grows with the limit, to 4 MB at this one. Who needs more wants a bucket.
    pub const MOST: u64 = 100_000;

    /// A month. Nothing that is remembered here outlives the process, so longer ones are for a calendar.
    pub const LONGEST: Duration = Duration::from_secs(31 * 86_400);

    /// `limit` tokens in any `window`.
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

    /// The most that is ever remembered: a full window and as much again in debt or reserved.
    const fn deepest(&self) -> u64 {
        2 * self.limit
    }

    /// How long what was taken `at` still counts; zero if no longer.
    fn counts_for(&self, at: Moment, now: Moment) -> Duration {
        (self.window + at.since(now)).saturating_sub(now.since(at))
    }
}

/// What one owner has taken. Its [`WindowQuota`] is handed in; after a reload the new one applies to
/// what is remembered.
#[derive(Default)]
pub struct SlidingWindow {
    taken: Mutex<Taken>,
}

impl SlidingWindow {
    pub fn new() -> SlidingWindow {
        SlidingWindow::default()
    }

    /// Takes `cost` tokens, or none.
    pub fn take(&self, quota: &WindowQuota, now: Moment, cost: u64) -> Result<Balance, Wait> {
        let mut taken = lock(&self.taken);
        taken.admit(quota, now, cost, Duration::ZERO)?;
        Ok(taken.balance(quota, now))
    }

    /// Takes `cost` tokens for a taker that starts as soon as the window has room: how long until then,
    /// zero if at once. Refused, with nothing taken, if that were longer than `max_wait` or if a whole
    /// limit is spoken for beyond the window's; what is reported then is the wait after which it could
    /// start at once. The law holds for the moments at which takers start. To be given back with the
    /// moment of the start.
    pub fn reserve(&self, quota: &WindowQuota, now: Moment, cost: u64, max_wait: Duration) -> Result<Duration, Wait> {
        lock(&self.taken).admit(quota, now, cost, max_wait)
    }

    /// Takes what has been spent already, even what is not there: at most one limit more than there is.
    /// Everything else is refused until enough has passed out of the window.
    pub fn charge(&self, quota: &WindowQuota, now: Moment, cost: u64) -> Balance {
        let mut taken = lock(&self.taken);
        let now = taken.advance(quota, now);
        let room = quota.deepest().saturating_sub(taken.total);
        taken.add(now, cost.min(room));
        taken.balance(quota, now)
    }

    /// Gives back up to `cost` tokens of those taken at `taken_at`, if they still count. Takes that were
    /// told an earlier time than another before them count from the later one: they are not found.
    pub fn refund(&self, quota: &WindowQuota, now: Moment, taken_at: Moment, cost: u64) -> Balance {
        let mut taken = lock(&self.taken);
        taken.remove(taken_at, cost);
        taken.balance(quota, now)
    }

    /// Tokens that could be taken now.
    pub fn balance(&self, quota: &WindowQuota, now: Moment) -> u64 {
        lock(&self.taken).balance(quota, now).tokens
    }

    /// How long until `cost` tokens can be taken: zero if now, `None` if never.
    pub fn wait_for(&self, quota: &WindowQuota, now: Moment, cost: u64) -> Option<Duration> {
        lock(&self.taken).wait_for(quota, now, cost)
    }

    /// Whether forgetting this window would change nothing.
    pub fn is_idle(&self, quota: &WindowQuota, now: Moment) -> bool {
        let taken = lock(&self.taken);
        let newest = taken.runs.back();
        newest.is_none_or(|run| quota.counts_for(run.at, now).is_zero())
    }
}

#[derive(Default)]
struct Taken {
    /// By moment, rising, no two of the same. A reserved start may lie in the future.
    runs: VecDeque<Run>,
    /// The tokens of all runs.
    total: u64,
    /// The latest that this window was told while something was taken.
    latest: Moment,
}

struct Run {
    at: Moment,
    tokens: u64,
}

impl Taken {
    /// Takes for a start within `max_wait`; the wait until then.
    fn admit(&mut self, quota: &WindowQuota, now: Moment, cost: u64, max_wait: Duration) -> Result<Duration, Wait> {
        let latest = self.advance(quota, now);
        let wait = self.wait_for(quota, now, cost).ok_or(Wait::FOR_EVER)?;
        if wait > max_wait || self.total + cost > quota.deepest() {
            return Err(Wait::of(wait));
        }
        self.add(latest.max(now + wait), cost);
        Ok(wait)
    }

    /// Forgets what has passed out of the window; the time, which never runs backwards.
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
        // Those that must have passed out of the window, the oldest first.
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
