//! Counts the tokens of one limit for all replicas, in the time of the store: what the script in the store computes.
//!
//! All numbers are whole and stay below 2^53, so that a script which knows only floating point computes the same.
//!
//! Invariant: over any span of time `t`, a bucket grants at most `burst + rate x t` tokens more than are given back, a
//! window at most its limit in each window, a quota at most its limit in each period.

use crate::bucket::Quota;
use crate::calendar::{CalendarQuota, WallTime};
use crate::sliding_window::WindowQuota;
use std::collections::VecDeque;
use std::time::Duration;

/// Central count of a limit.
pub trait Count {
    /// Advances to this time. To be called first in each step. Returns the time for which tokens granted now may be
    /// used; `None` if there is no such limit.
    fn advance(&mut self, now: WallTime) -> Option<Duration>;

    /// Returns the tokens that could be granted.
    fn left(&self) -> u64;

    /// Takes so many tokens, of those that are left.
    fn take(&mut self, tokens: u64);

    /// Takes tokens that were spent already, at most one burst more than there are.
    fn charge(&mut self, tokens: u64);

    /// Gives back tokens that were granted at `granted_at` or later.
    fn give_back(&mut self, tokens: u64, granted_at: WallTime);

    /// Returns the time until so many tokens can be granted, `None` if never. `returns_in` is the time until tokens on
    /// lease may come back.
    fn next(&self, tokens: u64, returns_in: Option<Duration>) -> Option<Duration>;

    /// Returns the most tokens for one of so many replicas that wants `wanted`.
    fn portion(&self, wanted: u64, replicas: u32) -> u64;

    /// Returns whether forgetting this count would change nothing.
    fn is_idle(&self) -> bool;
}

/// Token bucket: the time that it lacks until it is full.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CentralBucket {
    /// Nanoseconds to earn one token.
    interval: u64,
    burst: u64,
    at: WallTime,
    /// Nanoseconds until full, as of `at`.
    missing: u64,
}

impl CentralBucket {
    pub fn full(quota: &Quota) -> CentralBucket {
        CentralBucket {
            interval: u64::try_from(quota.time_to_earn(1).as_nanos()).unwrap_or(u64::MAX),
            burst: quota.burst(),
            at: WallTime::default(),
            missing: 0,
        }
    }

    const fn capacity(&self) -> u64 {
        self.interval.saturating_mul(self.burst)
    }

    /// Adapts to another quota, from now on. Nothing is refilled: the bucket stays full to the same share, rounded
    /// towards empty. So it may change back and forth, as while replicas take over a new config one after the other.
    pub fn change(&mut self, quota: &Quota) {
        let before = self.capacity();
        let full = CentralBucket::full(quota);
        (self.interval, self.burst) = (full.interval, full.burst);
        let missing = u128::from(self.missing) * u128::from(self.capacity());
        self.missing = u64::try_from(missing.div_ceil(u128::from(before.max(1)))).unwrap_or(u64::MAX);
    }
}

impl Count for CentralBucket {
    /// A clock that was set back earns nothing for that, and goes on from there.
    fn advance(&mut self, now: WallTime) -> Option<Duration> {
        let passed = now.elapsed().saturating_sub(self.at.elapsed()).as_nanos();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        self.missing = self.missing.saturating_sub(passed);
        self.at = now;
        None
    }

    fn left(&self) -> u64 {
        self.capacity().saturating_sub(self.missing) / self.interval
    }

    fn take(&mut self, tokens: u64) {
        self.missing = self.missing.saturating_add(tokens.saturating_mul(self.interval));
    }

    fn charge(&mut self, tokens: u64) {
        let deepest = self.capacity().saturating_mul(2).max(self.missing);
        self.take(tokens);
        self.missing = self.missing.min(deepest);
    }

    fn give_back(&mut self, tokens: u64, _: WallTime) {
        self.missing = self.missing.saturating_sub(tokens.saturating_mul(self.interval));
    }

    fn next(&self, tokens: u64, _: Option<Duration>) -> Option<Duration> {
        let needed = self.missing.saturating_add(tokens.saturating_mul(self.interval));
        (tokens <= self.burst).then(|| Duration::from_nanos(needed.saturating_sub(self.capacity())))
    }

    fn portion(&self, wanted: u64, _: u32) -> u64 {
        wanted.min(self.left())
    }

    fn is_idle(&self) -> bool {
        self.missing == 0
    }
}

/// Sliding window: the tokens granted in each cell, a 64th of the window. A cell counts until its last moment has left
/// the window, so a token counts for up to a 64th longer than the window, and memory does not grow with the limit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CentralWindow {
    limit: u64,
    window: Duration,
    now: WallTime,
    /// Number of each cell since the epoch, and its tokens; in rising order, none empty.
    cells: VecDeque<(u64, u64)>,
}

impl CentralWindow {
    /// Cells in one window.
    pub const CELLS: u32 = 64;

    pub fn new(quota: &WindowQuota) -> CentralWindow {
        CentralWindow {
            limit: quota.limit(),
            window: quota.window(),
            now: WallTime::default(),
            cells: VecDeque::new(),
        }
    }

    fn cell(&self) -> Duration {
        (self.window / CentralWindow::CELLS).max(Duration::from_nanos(1))
    }

    /// Returns the number of the cell that contains a time.
    fn number(&self, time: WallTime) -> u64 {
        u64::try_from(time.elapsed().as_nanos() / self.cell().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Returns the time until a cell no longer counts.
    fn counts_for(&self, number: u64) -> Duration {
        let end = self.cell().as_nanos() * (u128::from(number) + 1) + self.window.as_nanos();
        let left = end.saturating_sub(self.now.elapsed().as_nanos());
        Duration::from_nanos(u64::try_from(left).unwrap_or(u64::MAX))
    }

    fn counted(&self) -> u64 {
        self.cells.iter().map(|(_, tokens)| tokens).sum()
    }
}

impl Count for CentralWindow {
    /// A clock that was set back is treated as one that stands still.
    fn advance(&mut self, now: WallTime) -> Option<Duration> {
        self.now = self.now.max(now);
        while let Some((number, _)) = self.cells.front()
            && self.counts_for(*number).is_zero()
        {
            self.cells.pop_front();
        }
        None
    }

    fn left(&self) -> u64 {
        self.limit.saturating_sub(self.counted())
    }

    fn take(&mut self, tokens: u64) {
        if tokens == 0 {
            return;
        }
        let number = self.number(self.now);
        match self.cells.back_mut() {
            Some((last, counted)) if *last == number => *counted += tokens,
            _ => self.cells.push_back((number, tokens)),
        }
    }

    fn charge(&mut self, tokens: u64) {
        self.take(tokens.min(self.limit.saturating_mul(2).saturating_sub(self.counted())));
    }

    /// Removes the oldest tokens first. Those that stay leave the window no sooner than those that were spent.
    fn give_back(&mut self, tokens: u64, _: WallTime) {
        let mut tokens = tokens;
        while tokens > 0
            && let Some((_, counted)) = self.cells.front_mut()
        {
            let removed = tokens.min(*counted);
            (tokens, *counted) = (tokens - removed, *counted - removed);
            if *counted == 0 {
                self.cells.pop_front();
            }
        }
    }

    fn next(&self, tokens: u64, _: Option<Duration>) -> Option<Duration> {
        if tokens > self.limit {
            return None;
        }
        let mut too_many = (self.counted() + tokens).saturating_sub(self.limit);
        let mut wait = Duration::ZERO;
        for (number, counted) in &self.cells {
            if too_many == 0 {
                break;
            }
            too_many = too_many.saturating_sub(*counted);
            wait = self.counts_for(*number);
        }
        Some(wait)
    }

    fn portion(&self, wanted: u64, _: u32) -> u64 {
        wanted.min(self.left())
    }

    fn is_idle(&self) -> bool {
        self.cells.is_empty()
    }
}

/// Calendar quota: the tokens used and on lease in the current period of UTC.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CentralQuota {
    quota: CalendarQuota,
    now: WallTime,
    /// Start of the period that is counted.
    since: WallTime,
    used: u64,
}

impl CentralQuota {
    pub fn new(quota: CalendarQuota) -> CentralQuota {
        CentralQuota {
            quota,
            now: WallTime::default(),
            since: WallTime::default(),
            used: 0,
        }
    }

    /// Returns the start of the period that is counted.
    pub(super) const fn since(&self) -> WallTime {
        self.since
    }

    /// Sets what is used, and returns what was.
    pub(super) const fn set_used(&mut self, used: u64) -> u64 {
        std::mem::replace(&mut self.used, used)
    }

    fn ends_in(&self) -> Duration {
        let end = self.quota.every().end(self.since);
        end.elapsed().saturating_sub(self.now.elapsed())
    }
}

impl Count for CentralQuota {
    /// A clock that was set back begins no other period: the current one goes on to its end.
    fn advance(&mut self, now: WallTime) -> Option<Duration> {
        self.now = now;
        let start = self.quota.every().start(now);
        if start > self.since {
            (self.since, self.used) = (start, 0);
        }
        Some(self.ends_in())
    }

    fn left(&self) -> u64 {
        self.quota.limit().saturating_sub(self.used)
    }

    fn take(&mut self, tokens: u64) {
        self.used = self.used.saturating_add(tokens);
    }

    fn charge(&mut self, tokens: u64) {
        self.take(tokens);
    }

    /// Tokens of an earlier period are not given back to this one.
    fn give_back(&mut self, tokens: u64, granted_at: WallTime) {
        if granted_at >= self.since {
            self.used = self.used.saturating_sub(tokens);
        }
    }

    fn next(&self, tokens: u64, returns_in: Option<Duration>) -> Option<Duration> {
        if tokens > self.quota.limit() {
            return None;
        }
        if tokens <= self.left() {
            return Some(Duration::ZERO);
        }
        Some(returns_in.map_or(self.ends_in(), |returns_in| returns_in.min(self.ends_in())))
    }

    /// Shrinks to one token as the rest falls below what all replicas want.
    fn portion(&self, wanted: u64, replicas: u32) -> u64 {
        let fair = self.left() / u64::from(replicas.max(1));
        wanted.min(fair.max(1)).min(self.left())
    }

    fn is_idle(&self) -> bool {
        self.used == 0
    }
}

#[cfg(test)]
mod tests;
