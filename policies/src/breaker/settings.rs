//! What a breaker goes by, in a form that a reload can change while calls are being judged.

use crate::moment::nanos;
use crate::ratio::Ratio;
use crate::sync::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::num::NonZeroU32;
use std::time::Duration;

use super::state::MOST_PROBES;
use super::window::SLICES;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerSettings {
    /// How far back results count; forgotten in sixteenths, so it is the last 15 to 16 of them.
    pub window: Duration,
    /// With fewer results in the window no ratio opens it.
    pub min_calls: u32,
    /// Opens when this share of the calls in the window failed.
    pub failure_ratio: Option<Ratio>,
    pub slow: Option<SlowCalls>,
    /// Opens after this many failures in a row, however few the calls.
    pub consecutive: Option<NonZeroU32>,
    pub open_for: Duration,
    /// So many successes in half-open close it, and at most so many calls are under way then.
    pub probes: NonZeroU32,
}

/// Opens when this share of the calls in the window took longer. A slow probe is a failed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowCalls {
    pub over: Duration,
    pub ratio: Ratio,
}

impl Default for BreakerSettings {
    /// The article's: 60 % of at least 10 calls in a minute, 30 s open, 3 probes.
    fn default() -> BreakerSettings {
        BreakerSettings {
            window: Duration::from_secs(60),
            min_calls: 10,
            failure_ratio: Ratio::from_millionths(600_000),
            slow: None,
            consecutive: None,
            open_for: Duration::from_secs(30),
            probes: const { NonZeroU32::new(3).unwrap() },
        }
    }
}

/// One atomic per setting: a result that is judged during a reload may see some old and some new ones,
/// each of them valid.
#[derive(Debug, Default)]
pub(super) struct SettingsInForce {
    slice_nanos: AtomicU64,
    min_calls: AtomicU32,
    failure_ratio: AtomicU32,
    slow_over: AtomicU64,
    slow_ratio: AtomicU32,
    consecutive: AtomicU32,
    open_for: AtomicU64,
    probes: AtomicU32,
}

/// In place of a ratio.
const OFF: u32 = u32::MAX;

impl SettingsInForce {
    pub(super) fn new(settings: BreakerSettings) -> SettingsInForce {
        let in_force = SettingsInForce::default();
        in_force.store(settings);
        in_force
    }

    pub(super) fn store(&self, settings: BreakerSettings) {
        let ratio = |ratio: Option<Ratio>| ratio.map_or(OFF, Ratio::millionths);
        self.slice_nanos
            .store((nanos(settings.window) / SLICES).max(1), Relaxed);
        self.min_calls.store(settings.min_calls, Relaxed);
        self.failure_ratio.store(ratio(settings.failure_ratio), Relaxed);
        self.slow_over
            .store(settings.slow.map_or(u64::MAX, |slow| nanos(slow.over)), Relaxed);
        self.slow_ratio
            .store(ratio(settings.slow.map(|slow| slow.ratio)), Relaxed);
        self.consecutive
            .store(settings.consecutive.map_or(0, NonZeroU32::get), Relaxed);
        self.open_for.store(nanos(settings.open_for), Relaxed);
        self.probes.store(settings.probes.get().min(MOST_PROBES), Relaxed);
    }

    pub(super) fn slice_nanos(&self) -> u64 {
        self.slice_nanos.load(Relaxed)
    }

    pub(super) fn min_calls(&self) -> u64 {
        u64::from(self.min_calls.load(Relaxed))
    }

    pub(super) fn failure_ratio(&self) -> Option<Ratio> {
        Ratio::from_millionths(self.failure_ratio.load(Relaxed))
    }

    pub(super) fn is_slow(&self, took: Duration) -> bool {
        nanos(took) > self.slow_over.load(Relaxed)
    }

    pub(super) fn slow_ratio(&self) -> Option<Ratio> {
        Ratio::from_millionths(self.slow_ratio.load(Relaxed))
    }

    pub(super) fn consecutive(&self) -> Option<u64> {
        match self.consecutive.load(Relaxed) {
            0 => None,
            most => Some(u64::from(most)),
        }
    }

    pub(super) fn open_for(&self) -> Duration {
        Duration::from_nanos(self.open_for.load(Relaxed))
    }

    pub(super) fn probes(&self) -> u32 {
        self.probes.load(Relaxed)
    }
}
