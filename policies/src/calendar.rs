//! Counts what was used in the current minute, hour, day, week or month of UTC, in eight bytes.
//!
//! This is for quotas that are sold by the calendar ("100 000 calls a month"), not for keeping a rate: at the start of
//! a period the whole quota is available at once. The word holds the minute in which the current period began, for
//! every kind of period, and the tokens used since. Hence it means the same to a state file, after a restart and under
//! another quota.
//!
//! Invariant: in a period at most `limit` tokens are taken and not given back, except tokens charged after the fact. A
//! clock that is set back adds no token. If it is set back by up to [`SLACK`], no other period begins: the current one
//! goes on to its end. If it is set back further, the count moves into the period of the new time. A period that begins
//! in the future is a clock's error, and no caller must be refused for years because a clock was set by mistake.
//! [`LeftPeriods`] handles the periods that a jump of the clock leaves. This module knows nothing of files.

use crate::decision::{Balance, Wait};
use crate::sync::{AtomicU64, Ordering::Relaxed};
use std::fmt;
use std::time::Duration;

mod jumps;
mod period;

pub use jumps::LeftPeriods;
pub use period::{Every, WallTime};

/// Longest time by which the current period may begin in the future. It goes on then: the clock was set back a little,
/// or `now` was read a while ago.
pub const SLACK: Duration = Duration::from_secs(60);

/// Number of tokens in each period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CalendarQuota {
    limit: u64,
    every: Every,
}

/// The limit is not in `1..=CalendarQuota::MOST`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CalendarQuotaError;

impl CalendarQuota {
    /// Largest limit that the word can hold, 137 billion.
    pub const MOST: u64 = Word::MOST_USED;

    pub fn new(limit: u64, every: Every) -> Result<CalendarQuota, CalendarQuotaError> {
        if (1..=CalendarQuota::MOST).contains(&limit) {
            Ok(CalendarQuota { limit, every })
        } else {
            Err(CalendarQuotaError)
        }
    }

    pub const fn limit(&self) -> u64 {
        self.limit
    }

    pub const fn every(&self) -> Every {
        self.every
    }
}

/// Tokens that one owner has used. Its [`CalendarQuota`] is an argument.
#[derive(Default)]
pub struct Usage {
    word: AtomicU64,
}

/// Form of a [`Usage`] in a state file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Start of the period in which the tokens were used.
    pub since: WallTime,
    pub used: u64,
}

impl Saved {
    /// Returns whether the period begins in the future, which is a clock's error.
    pub fn is_ahead(&self, now: WallTime) -> bool {
        Word::minute_of(self.since) > Word::latest(now)
    }

    /// Returns the tokens that count in the period of `now`.
    pub fn used_at(&self, every: Every, now: WallTime) -> u64 {
        self.word().at(every, now).used()
    }

    const fn word(self) -> Word {
        Word::new(Word::minute_of(self.since), self.used)
    }
}

impl Usage {
    pub fn new() -> Usage {
        Usage::default()
    }

    /// Takes `cost` tokens, or none.
    pub fn take(&self, quota: &CalendarQuota, now: WallTime, cost: u64) -> Result<Balance, Wait> {
        if cost > quota.limit {
            return Err(Wait::FOR_EVER);
        }
        let mut word = self.load();
        loop {
            let current = word.at(quota.every, now);
            let used = current.used() + cost;
            if used > quota.limit {
                return Err(Wait::of(current.time_left(quota.every, now)));
            }
            match self.replace(word, current.with_used(used)) {
                Ok(()) => {
                    return Ok(Balance {
                        tokens: quota.limit - used,
                    });
                }
                Err(seen) => word = seen,
            }
        }
    }

    /// Takes tokens that have been spent already, even if they are not there. Until the period ends every other take is
    /// refused; then the debt is forgotten.
    pub fn charge(&self, quota: &CalendarQuota, now: WallTime, cost: u64) -> Balance {
        self.change(quota, now, |current| {
            current.with_used(current.used().saturating_add(cost))
        })
    }

    /// Gives back up to `cost` tokens taken at `taken_at`, if the period of `taken_at` is still the current one.
    pub fn refund(&self, quota: &CalendarQuota, now: WallTime, taken_at: WallTime, cost: u64) -> Balance {
        let every = quota.every;
        self.change(quota, now, |current| {
            if every.first_minute(current.since()) == every.first_minute(Word::minute_of(taken_at)) {
                current.with_used(current.used().saturating_sub(cost))
            } else {
                current
            }
        })
    }

    /// Returns the tokens used in the current period; more than the limit if some were charged after the fact.
    pub fn used(&self, quota: &CalendarQuota, now: WallTime) -> u64 {
        self.load().at(quota.every, now).used()
    }

    /// Returns the number of tokens that could be taken now.
    pub fn balance(&self, quota: &CalendarQuota, now: WallTime) -> u64 {
        quota.limit.saturating_sub(self.used(quota, now))
    }

    /// Returns the time until `cost` tokens can be taken: zero if now, `None` if never.
    pub fn wait_for(&self, quota: &CalendarQuota, now: WallTime, cost: u64) -> Option<Duration> {
        if cost > quota.limit {
            return None;
        }
        let current = self.load().at(quota.every, now);
        let enough = current.used() + cost <= quota.limit;
        Some(if enough {
            Duration::ZERO
        } else {
            current.time_left(quota.every, now)
        })
    }

    /// Returns the time until the current count ends.
    pub fn ends_in(&self, quota: &CalendarQuota, now: WallTime) -> Duration {
        self.load().at(quota.every, now).time_left(quota.every, now)
    }

    /// Sets the tokens used in the current period; returns the count before.
    pub fn set(&self, quota: &CalendarQuota, now: WallTime, used: u64) -> u64 {
        let mut word = self.load();
        loop {
            let current = word.at(quota.every, now);
            match self.replace(word, current.with_used(used)) {
                Ok(()) => return current.used(),
                Err(seen) => word = seen,
            }
        }
    }

    /// Returns whether forgetting this usage would change nothing.
    pub fn is_idle(&self, quota: &CalendarQuota, now: WallTime) -> bool {
        self.used(quota, now) == 0
    }

    /// Returns what a state file keeps over a restart.
    pub fn saved(&self) -> Saved {
        let word = self.load();
        Saved {
            since: WallTime::of_minute(word.since()),
            used: word.used(),
        }
    }

    /// Adds what was used before a restart, if its period is the current one or begins in the future. To be called
    /// once; takes may run at the same time.
    pub fn restore(&self, quota: &CalendarQuota, now: WallTime, saved: Saved) {
        let saved = saved.word().at(quota.every, now);
        self.change(quota, now, |current| {
            Word::new(
                current.since().max(saved.since()),
                current.used().saturating_add(saved.used()),
            )
        });
    }

    /// Carries the tokens used in the current period of `old` into the current period of `new`. To be called once for a
    /// change, by one thread. Takes under `old` may run at the same time until a period of `old` begins: a take that
    /// sees a new period may lose what was taken under `new` until then.
    pub fn carry_over(&self, old: &CalendarQuota, new: &CalendarQuota, now: WallTime) {
        self.change(old, now, |current| {
            // The later of the two starts lies in the current period of both.
            let minute = current.since().max(Word::minute_of(now));
            let since = new.every.first_minute(minute).max(current.since());
            Word::new(since, current.used())
        });
    }

    /// Replaces the word of the current period by `next` of the word; returns the balance.
    fn change(&self, quota: &CalendarQuota, now: WallTime, next: impl Fn(Word) -> Word) -> Balance {
        let mut word = self.load();
        loop {
            let changed = next(word.at(quota.every, now));
            match self.replace(word, changed) {
                Ok(()) => {
                    return Balance {
                        tokens: quota.limit.saturating_sub(changed.used()),
                    };
                }
                Err(seen) => word = seen,
            }
        }
    }

    fn load(&self) -> Word {
        Word(self.word.load(Relaxed))
    }

    fn replace(&self, word: Word, by: Word) -> Result<(), Word> {
        self.word
            .compare_exchange_weak(word.0, by.0, Relaxed, Relaxed)
            .map(|_| ())
            .map_err(Word)
    }
}

impl fmt::Debug for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Saved { since, used } = self.saved();
        f.debug_struct("Usage")
            .field("since", &since)
            .field("used", &used)
            .finish()
    }
}

/// Layout: minute in which the period began (27 bits, to the year 2225) | tokens used since (37 bits)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word(u64);

impl Word {
    const USED_BITS: u32 = 37;
    const MOST_USED: u64 = (1 << Word::USED_BITS) - 1;
    const LAST_MINUTE: u64 = (1 << (64 - Word::USED_BITS)) - 1;

    const fn new(since: u64, used: u64) -> Word {
        let since = if since > Word::LAST_MINUTE {
            Word::LAST_MINUTE
        } else {
            since
        };
        let used = if used > Word::MOST_USED { Word::MOST_USED } else { used };
        Word(since << Word::USED_BITS | used)
    }

    const fn since(self) -> u64 {
        self.0 >> Word::USED_BITS
    }

    const fn used(self) -> u64 {
        self.0 & Word::MOST_USED
    }

    fn with_used(self, used: u64) -> Word {
        Word::new(self.since(), used)
    }

    /// Returns the minute of a time. The last minute that fits lasts for ever, so that no period begins after it.
    const fn minute_of(time: WallTime) -> u64 {
        let minute = time.minute();
        if minute > Word::LAST_MINUTE {
            Word::LAST_MINUTE
        } else {
            minute
        }
    }

    /// Returns the last minute in which the current period may have begun.
    const fn latest(now: WallTime) -> u64 {
        Word::minute_of(WallTime::since_epoch(now.elapsed().saturating_add(SLACK)))
    }

    /// Returns the word at `now`: the same while its period goes on or begins within the slack; else the word of a new
    /// period. The count of a period that begins later is carried into it.
    fn at(self, every: Every, now: WallTime) -> Word {
        let start = every.first_minute(Word::minute_of(now));
        if self.since() > Word::latest(now) {
            Word::new(start, self.used())
        } else if self.since() >= start {
            self
        } else {
            Word::new(start, 0)
        }
    }

    /// Returns the time left of the period that is counted now.
    fn time_left(self, every: Every, now: WallTime) -> Duration {
        every
            .end(WallTime::of_minute(self.since()))
            .elapsed()
            .saturating_sub(now.elapsed())
    }
}

impl fmt::Display for CalendarQuotaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the limit must be from 1 to {}", CalendarQuota::MOST)
    }
}

impl std::error::Error for CalendarQuotaError {}

#[cfg(test)]
mod tests;
