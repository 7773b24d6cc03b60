//! Ejects single endpoints of a backend that keep failing while the others answer.
//!
//! A breaker guards a backend as a whole. One bad endpoint of several stays below the breaker's ratio, and fails its
//! share of the calls until it is left out.
//!
//! Invariant: never more than a share of a backend's endpoints, rounded down, are ejected at a time, and at least one
//! is not. An ejected endpoint returns by itself. An attempt counts only if it began after the last ejection of its
//! endpoint had ended. This holds however the clock jumps.
//!
//! This module knows neither addresses nor load balancing. A result is one or two atomic operations; the lock is taken
//! only to eject.

use crate::backoff::{Backoff, Jitter};
use crate::moment::Moment;
use crate::ratio::Ratio;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Mutex, Ordering::Relaxed, lock};
use std::num::NonZeroU32;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EjectionSettings {
    /// Number of failures in a row that ejects an endpoint.
    pub consecutive: NonZeroU32,
    /// Length of the first ejection.
    pub eject_for: Duration,
    /// Factor, at least 1, by which each ejection is longer than the one before. It starts again after `eject_for_max`
    /// without an ejection.
    pub growth: f64,
    pub eject_for_max: Duration,
    /// Largest share of the endpoints that may be ejected at a time. One endpoint always stays, also if the share is 1.
    pub share: Ratio,
}

impl Default for EjectionSettings {
    /// Returns the defaults of Envoy's outlier detection: 5 failures in a row, 30 s, at most 5 minutes. Each ejection
    /// is twice as long as the one before, and half of the endpoints may be ejected.
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

/// Ejects the endpoints of one backend.
#[derive(Debug)]
pub struct Ejector {
    /// `None` if ejection is off.
    settings: Mutex<Option<EjectionSettings>>,
    /// Copy of the setting with this name, read without the lock; 0 means off.
    consecutive: AtomicU32,
}

/// Health of one endpoint. It belongs to the endpoint, and survives changes of the settings.
#[derive(Debug, Default)]
pub struct Standing {
    /// Number of failures since the last success.
    streak: AtomicU32,
    /// Start of the last ejection, in nanoseconds. Written under the ejector's lock, like the fields below.
    from: AtomicU64,
    until: AtomicU64,
    ejections: AtomicU32,
    /// Whether the endpoint was ejected and its return is not reported yet.
    away: AtomicBool,
}

/// Ejection of an endpoint that is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    pub from: Moment,
    pub until: Moment,
    /// Counts this ejection and those before it, as long as less than `eject_for_max` lay between two.
    pub number: u32,
}

/// Change to be logged and counted once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The endpoint is ejected. `ejections` counts this ejection and those before it, as long as less than
    /// `eject_for_max` lay between two.
    Ejected { eject_for: Duration, ejections: u32 },
    /// The endpoint is back, as the first result since the ejection shows, or because of [`Ejector::bring_back`].
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

    /// Judges an attempt at the endpoint `of`. `all` are the endpoints of its backend.
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

    /// Ends an ejection early, because a new connection has shown that the endpoint can be reached.
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

    /// Applies other settings to the current endpoints. No endpoint stays ejected for longer than the new settings
    /// allow; `None` ends all ejections.
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
        // The endpoints that would return first come first.
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
            // Counts also an ejection that has not begun yet, which happens after a clock ran backwards.
            out += usize::from(standing.until() > now);
        }
        let last_out = of.until();
        // Another failure may have ejected the endpoint meanwhile.
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
    /// Returns the length of the ejection of this number, from 1.
    fn time(&self, ejections: u32) -> Duration {
        let growing = Backoff {
            initial: self.eject_for,
            max: self.eject_for_max,
            factor: self.growth.max(1.0),
            jitter: Jitter::Proportional(0.0),
        };
        growing.delay(ejections, 0.0)
    }

    /// Returns the most of `count` endpoints that may be ejected.
    fn most_out(&self, count: usize) -> usize {
        let share = count as u128 * u128::from(self.share.millionths()) / 1_000_000;
        usize::try_from(share).unwrap_or(count).min(count.saturating_sub(1))
    }
}

impl Standing {
    pub fn is_ejected(&self, now: Moment) -> bool {
        self.left(now).is_some()
    }

    /// Returns the time until the endpoint returns; `None` if it is not ejected. A clock that runs back to before the
    /// ejection ends it.
    pub fn left(&self, now: Moment) -> Option<Duration> {
        let until = self.until();
        let is_out = now < until && Moment::from_nanos(self.from.load(Relaxed)) <= now;
        is_out.then(|| until.since(now))
    }

    /// Returns the ejection in force; `None` if the endpoint is not ejected.
    pub fn ejection(&self, now: Moment) -> Option<Ejection> {
        self.is_ejected(now).then(|| Ejection {
            from: Moment::from_nanos(self.from.load(Relaxed)),
            until: self.until(),
            number: self.ejections.load(Relaxed),
        })
    }

    /// Takes over an ejection of another process with the same [`Moment::ZERO`].
    pub fn restore(&self, ejection: Ejection) {
        self.ejections.store(ejection.number, Relaxed);
        self.away.store(true, Relaxed);
        self.from.store(ejection.from.nanos(), Relaxed);
        self.until.store(ejection.until.nanos(), Relaxed);
    }

    /// Returns the end of the last ejection; zero if there was none.
    fn until(&self) -> Moment {
        Moment::from_nanos(self.until.load(Relaxed))
    }

    /// Sets the end of the ejection. An ejection that has ended at `now` cannot begin again, whatever the clock does.
    fn return_at(&self, until: Moment, now: Moment) {
        if until <= now {
            self.from.store(until.nanos(), Relaxed);
        }
        self.until.store(until.nanos(), Relaxed);
    }
}

#[cfg(test)]
mod tests;
