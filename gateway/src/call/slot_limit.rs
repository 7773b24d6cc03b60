//! Sets how many calls of a backend may run at once: a number, or one that is found while calls succeed.
//!
//! Two threads may change the number at the same time, and a reload may replace the rule itself. So the number is not
//! passed to the bulkhead: the bulkhead reads it here under its own lock, and the last one that asks it to do so brings
//! the latest.

use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use policies::bulkhead::{Limits, usual_tenant_share};
use policies::{AdaptiveLimit, AdaptiveSettings, Bulkhead, Moment, Ratio};

use super::guards::SlotNotifier;

/// Rule for the number of slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotLimit {
    Fixed(NonZeroU32),
    Adaptive(AdaptiveSettings),
}

/// Operator's settings of the slots for calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotSettings {
    pub limit: SlotLimit,
    /// Maximum number of waiting calls; `None` for as many as there are slots.
    pub queue: Option<u32>,
    /// Maximum share of the slots for one tenant; `None` for the usual share.
    pub tenant_share: Option<Ratio>,
}

impl SlotSettings {
    /// Returns what the bulkhead is to apply while there are this many slots.
    pub(super) fn limits(&self, slots: NonZeroU32) -> Limits {
        Limits {
            slots,
            places: self.queue.unwrap_or(slots.get()),
            tenant_share: self.tenant_share.unwrap_or_else(|| usual_tenant_share(slots.get())),
        }
    }

    /// Whether a call may wait for a slot.
    pub const fn has_queue(&self) -> bool {
        !matches!(self.queue, Some(0))
    }

    /// Returns the bounds of a number that is found; `None` if it is written.
    pub const fn adaptive(&self) -> Option<AdaptiveSettings> {
        match self.limit {
            SlotLimit::Adaptive(bounds) => Some(bounds),
            SlotLimit::Fixed(_) => None,
        }
    }
}

/// Settings in force, and what has been learned under them.
pub struct SlotControl {
    in_force: Mutex<SlotSettings>,
    /// Used while the settings ask for it, kept otherwise.
    adaptive: AdaptiveLimit,
}

impl SlotControl {
    pub fn new(settings: SlotSettings, now: Moment) -> Self {
        let bounds = match settings.limit {
            SlotLimit::Adaptive(bounds) => bounds,
            SlotLimit::Fixed(number) => AdaptiveSettings {
                from: number,
                to: number,
            },
        };
        Self {
            in_force: Mutex::new(settings),
            adaptive: AdaptiveLimit::new(bounds, now),
        }
    }

    /// Returns the limits in force.
    pub(super) fn current(&self) -> Limits {
        let settings = *self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        settings.limits(match settings.limit {
            SlotLimit::Fixed(number) => number,
            SlotLimit::Adaptive(_) => self.adaptive.limit(),
        })
    }

    /// Applies other settings. A number that was found stays as near as the new bounds allow, and a search that begins
    /// starts at the number written before.
    pub(super) fn take_effect(&self, settings: SlotSettings, bulkhead: &Bulkhead<SlotNotifier>, now: Moment) {
        {
            let mut in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
            match (in_force.limit, settings.limit) {
                (SlotLimit::Adaptive(_), SlotLimit::Adaptive(bounds)) => {
                    self.adaptive.reconfigure(bounds);
                }
                (SlotLimit::Fixed(number), SlotLimit::Adaptive(bounds)) => self.adaptive.restart(bounds, number, now),
                (_, SlotLimit::Fixed(_)) => {}
            }
            *in_force = settings;
        }
        bulkhead.reconfigure_with(|| self.current(), now);
    }

    /// Learns from a call that succeeded and still holds its slot. A changed number takes effect at once.
    pub(super) fn record(&self, took: Duration, bulkhead: &Bulkhead<SlotNotifier>, now: Moment) {
        let changed = self.adaptive.record(took, bulkhead.in_use(), bulkhead.is_used(), now);
        if changed.is_some() {
            bulkhead.reconfigure_with(|| self.current(), now);
        }
    }
}

#[cfg(test)]
mod tests;
