//! Implements a token bucket in eight bytes, decided by one compare-and-swap.
//!
//! The word is the moment at which the bucket will be full again (the generic cell rate algorithm, ITU-T I.371, seen
//! from the other end). The tokens missing are the time from now until that moment, so nothing has to be refilled. An
//! idle bucket costs no work, and a full bucket equals one that does not exist.
//!
//! Invariant: in any span of time `t`, callers start with at most `burst + rate x t` tokens more than are given back in
//! that span. Rounding never favours the caller. A clock that runs backwards makes a bucket look emptier.

use crate::decision::{Balance, Wait};
use crate::moment::Moment;
use crate::sync::{AtomicU64, Ordering::Relaxed};
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

/// Ticks of the word in one nanosecond. The unit does not depend on the rate, so that a reload can rescale a bucket in
/// place. The word lasts for 36 years of uptime; after that every take is refused.
const TICKS_PER_NANO: u64 = 16;

/// Longest time to fill a bucket, in ticks: five years, which leaves the word room for uptime and debt.
const LONGEST_FILL: u64 = 5 * 365 * 86_400 * 1_000_000_000 * TICKS_PER_NANO;

/// Size and rate of a bucket, in the form that decides fastest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Ticks to earn one token, rounded up, so that the rate is never higher than configured.
    interval: u64,
    burst: u64,
    /// Ticks from empty to full: `burst * interval`.
    capacity: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaError {
    /// The count, the period or the burst is zero.
    Zero,
    /// The rate is higher than one token in a nanosecond.
    TooFast,
    /// An empty bucket would take more than five years to fill.
    TooSlow,
}

impl Quota {
    /// Returns a quota of `count` tokens every `per`, and at most `burst` at once.
    pub fn new(count: u64, per: Duration, burst: u64) -> Result<Quota, QuotaError> {
        if count == 0 || per.is_zero() || burst == 0 {
            return Err(QuotaError::Zero);
        }
        if per.as_nanos() < u128::from(count) {
            return Err(QuotaError::TooFast);
        }
        let period = per
            .as_nanos()
            .checked_mul(u128::from(TICKS_PER_NANO))
            .ok_or(QuotaError::TooSlow)?;
        let interval = period.div_ceil(u128::from(count));
        match interval.checked_mul(u128::from(burst)) {
            Some(capacity) if capacity <= u128::from(LONGEST_FILL) => Ok(Quota {
                interval: interval as u64,
                burst,
                capacity: capacity as u64,
            }),
            _ => Err(QuotaError::TooSlow),
        }
    }

    pub const fn burst(&self) -> u64 {
        self.burst
    }

    /// Returns the part of one of so many replicas: a share of the rate, and of the burst, rounded down, but at least one
    /// token.
    pub fn divided(&self, replicas: NonZeroU32) -> Quota {
        let replicas = u64::from(replicas.get());
        let burst = (self.burst / replicas).max(1);
        let interval = self.interval.saturating_mul(replicas).min(LONGEST_FILL / burst);
        Quota {
            interval,
            burst,
            capacity: burst * interval,
        }
    }

    /// Returns the ticks to earn one token and the burst, from which [`Quota::of_parts`] makes the same quota again.
    pub const fn parts(&self) -> (u64, u64) {
        (self.interval, self.burst)
    }

    /// Returns the quota of these parts; `None` if no quota has them.
    pub fn of_parts(interval: u64, burst: u64) -> Option<Quota> {
        let capacity = interval.checked_mul(burst)?;
        (interval >= TICKS_PER_NANO && burst > 0 && capacity <= LONGEST_FILL).then_some(Quota {
            interval,
            burst,
            capacity,
        })
    }

    /// Returns the time in which this many tokens are earned, rounded up to the nanosecond.
    pub const fn time_to_earn(&self, tokens: u64) -> Duration {
        ticks_to_duration(tokens.saturating_mul(self.interval))
    }

    /// Returns the ticks for `cost` tokens; `None` if the bucket never holds so many.
    fn price(&self, cost: u64) -> Option<u64> {
        (cost <= self.burst).then(|| cost * self.interval)
    }

    fn whole_tokens(&self, missing: u64) -> u64 {
        self.capacity.saturating_sub(missing) / self.interval
    }
}

/// State of one bucket. Its [`Quota`] is an argument, so a million buckets can share a few quotas.
#[derive(Default)]
pub struct Bucket {
    full_at: AtomicU64,
}

impl Bucket {
    pub fn full() -> Bucket {
        Bucket::default()
    }

    /// Returns the state for another process with the same [`Moment::ZERO`]: the ticks from that moment until the bucket
    /// is full.
    pub fn saved(&self) -> u64 {
        self.full_at.load(Relaxed)
    }

    /// Takes over the state of another process. A bucket that lacks more tokens than that one keeps its own.
    pub fn restore(&self, saved: u64) {
        self.change(|full_at| full_at.max(saved));
    }

    /// Takes `cost` tokens, or none.
    pub fn take(&self, quota: &Quota, now: Moment, cost: u64) -> Result<Balance, Wait> {
        let price = quota.price(cost).ok_or(Wait::FOR_EVER)?;
        let now = ticks(now);
        let mut full_at = self.full_at.load(Relaxed);
        loop {
            let charged = full_at.max(now).checked_add(price).ok_or(Wait::FOR_EVER)?;
            let missing = charged - now;
            if missing > quota.capacity {
                return Err(Wait::of(ticks_to_duration(missing - quota.capacity)));
            }
            match self.full_at.compare_exchange_weak(full_at, charged, Relaxed, Relaxed) {
                Ok(_) => {
                    return Ok(Balance {
                        tokens: quota.whole_tokens(missing),
                    });
                }
                Err(seen) => full_at = seen,
            }
        }
    }

    /// Takes `cost` tokens now for a caller that starts when they are earned. Returns the time until the start, zero
    /// for a start now. If the wait would exceed `max_wait`, nothing is taken, and the error holds the wait after which
    /// the caller could start at once.
    ///
    /// The invariant holds for the moments at which callers start. A later reservation never starts sooner, and in any
    /// span of time `t` callers start with at most `burst + rate x t` tokens.
    pub fn reserve(&self, quota: &Quota, now: Moment, cost: u64, max_wait: Duration) -> Result<Duration, Wait> {
        let price = quota.price(cost).ok_or(Wait::FOR_EVER)?;
        let now = ticks(now);
        let mut full_at = self.full_at.load(Relaxed);
        loop {
            let charged = full_at.max(now).checked_add(price).ok_or(Wait::FOR_EVER)?;
            let early = (charged - now).saturating_sub(quota.capacity);
            let wait = ticks_to_duration(early);
            if wait > max_wait {
                return Err(Wait::of(wait));
            }
            // A start is a whole nanosecond. The part of a nanosecond by which it is late is charged too, because it
            // must not count for the next caller.
            let late = early.next_multiple_of(TICKS_PER_NANO) - early;
            let charged = charged.checked_add(late).ok_or(Wait::FOR_EVER)?;
            match self.full_at.compare_exchange_weak(full_at, charged, Relaxed, Relaxed) {
                Ok(_) => return Ok(wait),
                Err(seen) => full_at = seen,
            }
        }
    }

    /// Takes tokens that have been spent already, even if they are not there: the bucket goes into debt, at most one
    /// burst deep. Until the debt is earned back, every other take is refused.
    pub fn charge(&self, quota: &Quota, now: Moment, cost: u64) -> Balance {
        let now = ticks(now);
        let price = cost.saturating_mul(quota.interval);
        let deepest = now.saturating_add(2 * quota.capacity);
        let charged = self.change(|full_at| {
            let charged = full_at.max(now).saturating_add(price).min(deepest);
            charged.max(full_at)
        });
        Balance {
            tokens: quota.whole_tokens(charged.saturating_sub(now)),
        }
    }

    /// Gives back `cost` tokens of a caller that was to start at `start`, up to the burst. `start` is the moment of the
    /// take, plus the wait of a reservation.
    ///
    /// While another caller waits for reserved tokens, only the last reservation can be given back: a waiting caller
    /// cannot be told to start sooner, and a newcomer would start in addition to it. The same holds after a charge into
    /// debt.
    pub fn refund(&self, quota: &Quota, now: Moment, start: Moment, cost: u64) -> Balance {
        self.give_back(quota, now, start, cost.saturating_mul(quota.interval))
    }

    /// Gives back `cost` tokens that were taken under `old`, after the bucket was rescaled to `new`. The tokens were
    /// rescaled with the bucket: what comes back is the same share of the burst, rounded down.
    pub fn refund_rescaled(&self, old: &Quota, new: &Quota, now: Moment, start: Moment, cost: u64) -> Balance {
        let price = u128::from(cost.saturating_mul(old.interval));
        let scaled = price * u128::from(new.capacity) / u128::from(old.capacity);
        self.give_back(new, now, start, u64::try_from(scaled).unwrap_or(u64::MAX))
    }

    /// Gives back a price in ticks.
    fn give_back(&self, quota: &Quota, now: Moment, start: Moment, price: u64) -> Balance {
        let (now, last) = (ticks(now), ticks(start).saturating_add(quota.capacity));
        let refunded = self.change(|full_at| {
            let someone_waits = full_at > now.saturating_add(quota.capacity);
            if someone_waits && full_at != last {
                full_at
            } else {
                full_at.saturating_sub(price).max(full_at.min(now))
            }
        });
        Balance {
            tokens: quota.whole_tokens(refunded.saturating_sub(now)),
        }
    }

    /// Returns the number of whole tokens that could be taken now.
    pub fn balance(&self, quota: &Quota, now: Moment) -> u64 {
        quota.whole_tokens(self.missing(now))
    }

    /// Returns the time until `cost` tokens can be taken: zero if now, `None` if never.
    pub fn wait_for(&self, quota: &Quota, now: Moment, cost: u64) -> Option<Duration> {
        let needed = self.missing(now).checked_add(quota.price(cost)?)?;
        Some(ticks_to_duration(needed.saturating_sub(quota.capacity)))
    }

    /// Returns whether forgetting this bucket would change nothing.
    pub fn is_full(&self, now: Moment) -> bool {
        self.missing(now) == 0
    }

    /// Converts a bucket of `old` into a bucket of `new` that is full in the same proportion, rounded down. To be
    /// called once for a change, by one thread; takes under `old` may run at the same time.
    pub fn rescale(&self, old: &Quota, new: &Quota, now: Moment) {
        let now = ticks(now);
        self.change(|full_at| {
            let missing = u128::from(full_at.saturating_sub(now));
            let scaled = (missing * u128::from(new.capacity)).div_ceil(u128::from(old.capacity));
            let scaled = u64::try_from(scaled).unwrap_or(u64::MAX);
            if scaled == 0 {
                full_at
            } else {
                now.saturating_add(scaled)
            }
        });
    }

    fn missing(&self, now: Moment) -> u64 {
        self.full_at.load(Relaxed).saturating_sub(ticks(now))
    }

    /// Replaces the word by `next` of the word; returns the new word.
    fn change(&self, next: impl Fn(u64) -> u64) -> u64 {
        let mut full_at = self.full_at.load(Relaxed);
        loop {
            let changed = next(full_at);
            match self.full_at.compare_exchange_weak(full_at, changed, Relaxed, Relaxed) {
                Ok(_) => return changed,
                Err(seen) => full_at = seen,
            }
        }
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let full_at = Moment::from_nanos(self.full_at.load(Relaxed) / TICKS_PER_NANO);
        f.debug_struct("Bucket").field("full_at", &full_at).finish()
    }
}

fn ticks(now: Moment) -> u64 {
    now.nanos().saturating_mul(TICKS_PER_NANO)
}

const fn ticks_to_duration(ticks: u64) -> Duration {
    Duration::from_nanos(ticks.div_ceil(TICKS_PER_NANO))
}

impl fmt::Display for QuotaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            QuotaError::Zero => "the rate and the burst must be more than zero",
            QuotaError::TooFast => "the rate must be at most one a nanosecond",
            QuotaError::TooSlow => "an empty bucket must be full again within five years",
        })
    }
}

impl std::error::Error for QuotaError {}

#[cfg(test)]
mod tests;
