//! Takes single endpoints out of turn that keep failing while the others answer.
//!
//! A breaker guards a backend as a whole: one bad endpoint of several stays below its ratio, and fails
//! its share of the calls for as long as nobody leaves it out.
//!
//! Invariant: never more than a share of a backend's endpoints, rounded down, are out at a time, and one
//! is always in; an endpoint that is out returns by itself. An attempt counts only if it began while its
//! endpoint was in, and not before it was last out. It holds however the clock jumps.
//!
//! Knows neither addresses nor turns. A result is an atomic or two; the lock is taken only to eject.

use crate::backoff::{Backoff, Jitter};
use crate::moment::Moment;
use crate::ratio::Ratio;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Mutex, Ordering::Relaxed, lock};
use std::num::NonZeroU32;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EjectionSettings {
    /// Failures in a row that put an endpoint out.
    pub consecutive: NonZeroU32,
    /// For how long, the first time.
    pub eject_for: Duration,
    /// By how much longer each time, from 1. An endpoint that stays in for `eject_for_max` starts anew.
    pub growth: f64,
    pub eject_for_max: Duration,
    /// The greatest share of the endpoints that may be out at a time. One always stays in, also at 1.
    pub share: Ratio,
}

impl Default for EjectionSettings {
    /// Envoy's outlier detection: 5 failures in a row, 30 s, at most 5 minutes; growing twofold, and half of the endpoints.
    fn default() -> EjectionSettings {
        EjectionSettings {
            consecutive: const { NonZeroU32::new(5).unwrap() },
            eject_for: Duration::from_secs(30),
            growth: 2.0,
            eject_for_max: Duration::from_secs(300),
            share: const { Ratio::from_millionths(500_000).unwrap() },
        }
    }
}

/// Puts out the endpoints of one backend.
#[derive(Debug)]
pub struct Ejector {
    /// Without settings, nobody is ejected.
    settings: Mutex<Option<EjectionSettings>>,
    /// The setting of that name, to be read without the lock; 0 is off.
    consecutive: AtomicU32,
}

/// How one endpoint stands. It belongs to the endpoint, and outlives changes of the settings.
#[derive(Debug, Default)]
pub struct Standing {
    /// Failures since the last success.
    streak: AtomicU32,
    /// The last ejection, in nanoseconds. Written under the ejector's lock, as is what follows.
    from: AtomicU64,
    until: AtomicU64,
    ejections: AtomicU32,
    /// It was put out, and nobody has been told of its return yet.
    away: AtomicBool,
}

/// To be logged and counted once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// `ejections` counts this one and those before it, as far as each came before `eject_for_max` in good standing.
    Ejected { eject_for: Duration, ejections: u32 },
    /// It is in again, as the first result since then shows, or what [`Ejector::bring_back`] was told.
    Returned,
}

impl Ejector {
    pub fn new(settings: Option<EjectionSettings>) -> Ejector {
        let ejector = Ejector {
            settings: Mutex::new(None),
            consecutive: AtomicU32::new(0),
        };
        ejector.store(settings);
        ejector
    }

    /// Judges an attempt at the endpoint `of`, one of `all` of its backend.
    pub fn record<'a>(
        &self,
        of: &'a Standing,
        all: impl IntoIterator<Item = &'a Standing>,
        began: Moment,
        failed: bool,
        now: Moment,
    ) -> Option<Change> {
        let most = self.consecutive.load(Relaxed);
        let last_out = of.until();
        if most == 0 || began < last_out {
            return None;
        }
        let returned = last_out > Moment::ZERO && of.away.load(Relaxed) && of.away.swap(false, Relaxed);
        let streak = if failed {
            of.streak.fetch_add(1, Relaxed).saturating_add(1)
        } else {
            if of.streak.load(Relaxed) > 0 {
                of.streak.store(0, Relaxed);
            }
            0
        };
        let ejected = if streak >= most {
            self.eject(of, all, began, now)
        } else {
            None
        };
        ejected.or(returned.then_some(Change::Returned))
    }

    /// Lets an endpoint in before its time is over: something cheaper than a request has shown that it can be reached.
    pub fn bring_back(&self, of: &Standing, now: Moment) -> Option<Change> {
        let in_force = lock(&self.settings);
        if !of.is_ejected(now) {
            return None;
        }
        of.return_at(now, now);
        of.away.store(false, Relaxed);
        drop(in_force);
        Some(Change::Returned)
    }

    /// Other settings for the endpoints that there are now. Nobody stays out for longer than is possible
    /// by them; `None` brings all back.
    pub fn reconfigure<'a>(
        &self,
        settings: Option<EjectionSettings>,
        all: impl IntoIterator<Item = &'a Standing>,
        now: Moment,
    ) {
        self.store(settings);
        let in_force = lock(&self.settings);
        let longest = settings.map_or(Duration::ZERO, |settings| settings.eject_for_max);
        let mut count = 0;
        let mut out = Vec::new();
        for standing in all {
            count += 1;
            standing.return_at(standing.until().min(now + longest), now);
            if standing.until() > now {
                out.push(standing);
            }
        }
        // Those that would be back first.
        out.sort_by_key(|standing| standing.until());
        let too_many = out
            .len()
            .saturating_sub(settings.map_or(0, |settings| settings.most_out(count)));
        out.iter()
            .take(too_many)
            .for_each(|standing| standing.return_at(now, now));
        drop(in_force);
    }

    fn store(&self, settings: Option<EjectionSettings>) {
        *lock(&self.settings) = settings;
        let consecutive = settings.map_or(0, |settings| settings.consecutive.get());
        self.consecutive.store(consecutive, Relaxed);
    }

    fn eject<'a>(
        &self,
        of: &Standing,
        all: impl IntoIterator<Item = &'a Standing>,
        began: Moment,
        now: Moment,
    ) -> Option<Change> {
        let in_force = lock(&self.settings);
        let settings = (*in_force)?;
        let (mut count, mut out) = (0, 0);
        for standing in all {
            count += 1;
            // Also one whose time out has not begun yet, as a clock that ran back may show it.
            out += usize::from(standing.until() > now);
        }
        let last_out = of.until();
        // Another failure may have been faster to eject it.
        if began < last_out || out >= settings.most_out(count) {
            return None;
        }
        let is_new = last_out == Moment::ZERO || now.since(last_out) >= settings.eject_for_max;
        let ejections = if is_new { 0 } else { of.ejections.load(Relaxed) }.saturating_add(1);
        let eject_for = settings.time(ejections);
        of.ejections.store(ejections, Relaxed);
        of.streak.store(0, Relaxed);
        of.away.store(true, Relaxed);
        of.from.store(now.nanos(), Relaxed);
        of.until.store((now + eject_for).nanos(), Relaxed);
        Some(Change::Ejected { eject_for, ejections })
    }
}

impl EjectionSettings {
    /// The time that the ejection of this number lasts, from 1.
    fn time(&self, ejections: u32) -> Duration {
        let growing = Backoff {
            initial: self.eject_for,
            max: self.eject_for_max,
            factor: self.growth.max(1.0),
            jitter: Jitter::Proportional(0.0),
        };
        growing.delay(ejections, 0.0)
    }

    /// The most of `count` endpoints that may be out.
    fn most_out(&self, count: usize) -> usize {
        let share = count as u128 * u128::from(self.share.millionths()) / 1_000_000;
        usize::try_from(share).unwrap_or(count).min(count.saturating_sub(1))
    }
}

impl Standing {
    pub fn is_ejected(&self, now: Moment) -> bool {
        self.left(now).is_some()
    }

    /// The time to its return; nothing if it is in. A clock that runs back behind the ejection ends it.
    pub fn left(&self, now: Moment) -> Option<Duration> {
        let until = self.until();
        let is_out = now < until && Moment::from_nanos(self.from.load(Relaxed)) <= now;
        is_out.then(|| until.since(now))
    }

    /// The end of the last time out; zero if there was none.
    fn until(&self) -> Moment {
        Moment::from_nanos(self.until.load(Relaxed))
    }

    /// What is over at `now` cannot come back, whatever the clock does.
    fn return_at(&self, until: Moment, now: Moment) {
        if until <= now {
            self.from.store(until.nanos(), Relaxed);
        }
        self.until.store(until.nanos(), Relaxed);
    }
}

#[cfg(test)]
mod tests;
