//! Decides which newcomers an overloaded worker refuses: those of the cheapest tier first, and no more than it has to.
//!
//! The signal is the time that a task which is ready waits until the worker runs it, since that is what overload means
//! whatever causes it: requests, handshakes, a slow disk or another process. The worker measures it with a timer. One
//! late tick is no overload, so the least delay of a period counts, as in CoDel (RFC 8289).
//!
//! What is controlled is the share of newcomers that are refused, by the delay and by how it grows (as in PIE, RFC 8033).
//! A rule that refused whole tiers would refuse too many or too few, and swing between the two. The share is taken from
//! the ranks in order, by how many newcomers each had lately, so a rank that has none costs no time.
//!
//! Invariant: a newcomer is refused only if a newcomer of a cheaper rank would be. Some of the dearest rank are always
//! admitted. While no tick is late, a newcomer costs one load.

use crate::moment::{Moment, nanos};
use crate::sync::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// Number of ranks that are told apart.
pub const RANKS: usize = 16;

/// Largest share of the newcomers that are refused.
const MOST: f64 = 0.95;
/// Growth of the share in a second, for each bound by which the delay is above the bound.
const BY_DELAY: f64 = 0.04;
/// Change of the share for a delay that changes by a second in a second.
const BY_GROWTH: f64 = 0.1;
/// The same, as a part of what would end the growth, for a delay so large that its changes are not chance.
const FAR_BY_GROWTH: f64 = 0.7;
/// The delay cannot fall as far below the bound as it can rise above it, so what it falls counts as a multiple.
const BELOW: f64 = 4.0;
/// Delay that is far above the bound, as a multiple of it.
const FAR_ABOVE: f64 = 10.0;
/// Smallest share worth refusing.
const LEAST: f64 = 0.005;
/// Factor of the share in a period whose delay is below half of the bound.
const EASES: f64 = 0.95;
/// Weight of what is known about the mix of newcomers, in each new period.
const REMEMBERED: f64 = 0.7;
/// Fewest ticks in a period while no newcomer is refused. One late tick is a single long task.
const TICKS: u32 = 2;
/// Longest time for which one period counts, as a multiple of the time it should take.
const LONGEST: f64 = 5.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverloadSettings {
    /// Delay above which a worker is overloaded.
    pub delay: Duration,
    /// Time for which all delays must be above it. The share is computed anew as often.
    pub period: Duration,
}

/// What newcomers of one worker meet. The guard writes it, requests read it.
#[derive(Debug, Default)]
pub struct Admission {
    /// Ranks refused, in [`PARTS`] of a rank, and [`COUNTS`] if newcomers are to be counted.
    level: AtomicU32,
    /// Newcomers by rank in this period.
    newcomers: [AtomicU32; RANKS],
}

/// Parts of a rank, by which its newcomers are refused.
const PARTS: f64 = 1024.0;
const COUNTS: u32 = 1 << 31;

impl Admission {
    /// Returns whether no newcomer is refused or counted.
    pub fn is_open(&self) -> bool {
        self.level.load(Relaxed) == 0
    }

    /// Returns whether a newcomer of this rank may enter, by a `chance` from 0 to 1. The cheapest rank is 0; ranks from
    /// [`RANKS`] on are one.
    pub fn admits(&self, rank: usize, chance: f64) -> bool {
        let level = self.level.load(Relaxed);
        if level == 0 {
            return true;
        }
        let rank = rank.min(RANKS - 1);
        self.newcomers[rank].fetch_add(1, Relaxed);
        chance >= refused_part(level, rank)
    }

    /// Returns the part of the newcomers of this rank that is refused now, from 0 to 1. Counts no newcomer.
    pub fn refused_part(&self, rank: usize) -> f64 {
        refused_part(self.level.load(Relaxed), rank.min(RANKS - 1)).clamp(0.0, 1.0)
    }

    /// Returns how many ranks are refused, the last one perhaps in part.
    pub fn refused_ranks(&self) -> f64 {
        f64::from(self.level.load(Relaxed) & !COUNTS) / PARTS
    }

    fn refuse(&self, ranks: f64) {
        self.level.store(COUNTS | (ranks * PARTS) as u32, Relaxed);
    }

    /// Refuses nobody until the next period says otherwise.
    pub fn open(&self) {
        self.level.store(0, Relaxed);
    }
}

/// Returns by how much the refused ranks exceed this one: the part of its newcomers to refuse, unless it is above 1 or
/// below 0.
fn refused_part(level: u32, rank: usize) -> f64 {
    f64::from(level & !COUNTS) / PARTS - rank as f64
}

/// Controller of one worker, driven by its ticks.
#[derive(Debug)]
pub struct OverloadGuard {
    settings: OverloadSettings,
    /// Share of the newcomers to refuse.
    share: f64,
    /// Ranks refused for it.
    ranks: f64,
    /// Newcomers by rank, of this and earlier periods.
    mix: [f64; RANKS],
    opened_at: Moment,
    ticks: u32,
    /// Least delay of this period, in nanoseconds.
    least: u64,
    /// Delay of the period before, in seconds.
    before: f64,
}

/// What one period has shown.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Period {
    /// Least delay of its ticks.
    pub delay: Duration,
    /// Share of the newcomers that are refused from now on.
    pub share: f64,
}

impl OverloadGuard {
    pub fn new(settings: OverloadSettings, now: Moment) -> OverloadGuard {
        OverloadGuard {
            settings,
            share: 0.0,
            ranks: 0.0,
            mix: [0.0; RANKS],
            opened_at: now,
            ticks: 0,
            least: u64::MAX,
            before: 0.0,
        }
    }

    /// Applies other settings from now on.
    pub fn reconfigure(&mut self, settings: OverloadSettings) {
        self.settings = settings;
    }

    /// Records a tick that ran so late. Returns what the period has shown if it ends with this tick.
    pub fn tick(&mut self, delay: Duration, now: Moment, admission: &Admission) -> Option<Period> {
        let bound = nanos(self.settings.delay);
        self.ticks += 1;
        self.least = self.least.min(nanos(delay));
        if self.share == 0.0 && nanos(delay) > bound && admission.is_open() {
            // The mix of newcomers must be known by the end of the period.
            admission.refuse(0.0);
        }
        let elapsed = now.since(self.opened_at);
        let enough = if self.share == 0.0 { TICKS } else { 1 };
        if self.ticks < enough || elapsed < self.settings.period {
            return None;
        }
        let least = self.least;
        (self.opened_at, self.ticks, self.least) = (now, 0, u64::MAX);
        self.learn_mix(admission);
        self.close(least, elapsed.as_secs_f64());
        self.choose_ranks();
        if self.share > 0.0 {
            admission.refuse(self.ranks);
        } else {
            admission.open();
        }
        Some(Period {
            delay: Duration::from_nanos(least),
            share: self.share,
        })
    }

    fn learn_mix(&mut self, admission: &Admission) {
        for (known, counted) in self.mix.iter_mut().zip(&admission.newcomers) {
            let counted = match counted.load(Relaxed) {
                0 => 0,
                _ => counted.swap(0, Relaxed),
            };
            *known = *known * REMEMBERED + f64::from(counted);
        }
    }

    /// Changes the share after a period with this least delay, in nanoseconds, that took so long, in seconds.
    fn close(&mut self, least: u64, elapsed: f64) {
        let bound = self.settings.delay.as_secs_f64();
        let delay = least as f64 / 1e9;
        let growth = (delay - std::mem::replace(&mut self.before, delay)) / elapsed;
        if delay > bound {
            let far = bound * FAR_ABOVE;
            // A delay that grows by half a second in a second leaves half of those admitted waiting for ever.
            let by_growth = if delay > far {
                FAR_BY_GROWTH * (1.0 - self.share) * growth.clamp(0.0, 1.0)
            } else {
                BY_GROWTH * growth
            };
            let counted = elapsed.min(self.settings.period.as_secs_f64() * LONGEST);
            self.share += BY_DELAY * (delay.min(far) / bound - 1.0) * counted + by_growth;
        } else {
            let eases = if delay < bound / 2.0 { EASES } else { 1.0 };
            let step = BY_DELAY * BELOW * (delay / bound - 1.0) * elapsed
                + BY_GROWTH * growth.max(-bound * FAR_ABOVE / elapsed);
            self.share = self.share * eases + step.min(0.0);
        }
        self.share = self.share.clamp(0.0, MOST);
        if self.share < LEAST {
            self.share = 0.0;
        }
    }

    /// Chooses how many ranks are refused: as many as the share takes, but only one more than those that were refused
    /// wholly, however large the share has become. So the dear ones are spared while it is not known what the cheap ones
    /// bring.
    fn choose_ranks(&mut self) {
        let wanted = self.ranks_of_share();
        let whole = self.ranks as usize;
        let next = (whole..RANKS).find(|rank| self.mix[*rank] > 0.0);
        let most = next.map_or(RANKS, |rank| rank + 1) as f64;
        self.ranks = wanted.min(most);
        if wanted > most {
            let refused: f64 = self.mix[..most as usize].iter().sum();
            self.share = refused / self.mix.iter().sum::<f64>();
        }
    }

    /// Returns how many ranks must be refused for the share, by the mix of newcomers.
    fn ranks_of_share(&self) -> f64 {
        let mut left = self.share * self.mix.iter().sum::<f64>();
        let mut ranks = 0.0;
        for number in self.mix {
            if left <= 0.0 {
                break;
            }
            if left < number {
                return ranks + left / number;
            }
            left -= number;
            ranks += 1.0;
        }
        ranks
    }
}

#[cfg(test)]
mod tests;
