//! Settings of a breaker, in a form that a reload can change while calls are judged.

use crate::backoff::{Backoff, Jitter};
use crate::moment::nanos;
use crate::ratio::Ratio;
use crate::sync::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::num::NonZeroU32;
use std::time::Duration;

use super::latencies;
use super::state::MOST_PROBES;
use super::window::SLICES;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerSettings {
    /// Length of the rolling window. Results are forgotten in sixteenths of it, so 15 to 16 sixteenths count.
    pub window: Duration,
    /// Minimum number of results in the window before a ratio can open the breaker.
    pub min_calls: u32,
    /// Share of failed calls in the window that opens the breaker.
    pub failure_ratio: Option<Ratio>,
    pub slow: Option<SlowCalls>,
    /// Number of failures in a row that opens the breaker, regardless of `min_calls`.
    pub consecutive: Option<NonZeroU32>,
    pub adaptive: Option<AdaptiveRule>,
    pub open_for: Duration,
    /// Factor, at least 1, by which each open time is longer than the one before while probes fail. 1 means no growth.
    /// Closing resets the open time.
    pub growth: f64,
    /// Longest open time after growth, before jitter.
    pub open_for_max: Duration,
    /// Share by which each open time is made longer or shorter at random, so that replicas do not probe at the same
    /// time.
    pub jitter: Ratio,
    /// Number of successes in half-open that close the breaker; also the most probes at once.
    pub probes: NonZeroU32,
}

/// Opens the breaker when this share of the calls in the window took longer than the limit. A slow probe is a failed
/// probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowCalls {
    pub over: Duration,
    pub ratio: Ratio,
}

/// Opens the breaker by mean latency and failure ratio together: a slow backend may fail less often than a fast one.
///
/// This is `AdaptiveCircuitBreaker` of the resilience article, except that `min_calls` holds in each branch. In the
/// article a single failed call is a ratio of 1 once the window is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdaptiveRule {
    /// Number of calls in the mean, at most 1,000. Until this many calls were seen since the last change of state, only
    /// [`WHILE_FILLING`](AdaptiveRule::WHILE_FILLING) decides.
    pub latency_window: NonZeroU32,
    /// Mean latency above which [`WHEN_SLOW`](AdaptiveRule::WHEN_SLOW) decides.
    pub threshold: Duration,
}

impl AdaptiveRule {
    pub const WHILE_FILLING: Ratio = const { Ratio::from_millionths(500_000).unwrap() };
    pub const WHEN_SLOW: Ratio = const { Ratio::from_millionths(300_000).unwrap() };
    pub const ALWAYS: Ratio = const { Ratio::from_millionths(600_000).unwrap() };
}

impl Default for BreakerSettings {
    /// Returns the defaults of the resilience article: 60 % of at least 10 calls in a minute, 30 s open, 3 probes.
    fn default() -> BreakerSettings {
        BreakerSettings {
            window: Duration::from_secs(60),
            min_calls: 10,
            failure_ratio: Ratio::from_millionths(600_000),
            slow: None,
            consecutive: None,
            adaptive: None,
            open_for: Duration::from_secs(30),
            growth: 1.0,
            open_for_max: Duration::from_secs(300),
            jitter: Ratio::ZERO,
            probes: const { NonZeroU32::new(3).unwrap() },
        }
    }
}

/// Settings as one atomic each. A result that is judged during a reload may see some old and some new settings; each is
/// valid.
#[derive(Debug, Default)]
pub(super) struct SettingsInForce {
    slice_nanos: AtomicU64,
    min_calls: AtomicU32,
    failure_ratio: AtomicU32,
    slow_over: AtomicU64,
    slow_ratio: AtomicU32,
    consecutive: AtomicU32,
    latency_window: AtomicU32,
    latency_threshold: AtomicU64,
    open_for: AtomicU64,
    /// Bits of an `f64`.
    growth: AtomicU64,
    open_for_max: AtomicU64,
    jitter: AtomicU32,
    probes: AtomicU32,
}

/// Value that stands for "no ratio".
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
        let window = |rule: AdaptiveRule| rule.latency_window.get().min(latencies::MOST);
        self.latency_window.store(settings.adaptive.map_or(0, window), Relaxed);
        self.latency_threshold
            .store(settings.adaptive.map_or(0, |rule| nanos(rule.threshold)), Relaxed);
        self.open_for.store(nanos(settings.open_for), Relaxed);
        self.growth.store(settings.growth.max(1.0).to_bits(), Relaxed);
        self.open_for_max.store(nanos(settings.open_for_max), Relaxed);
        self.jitter.store(settings.jitter.millionths(), Relaxed);
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

    /// Returns the number of calls in the mean, if the adaptive rule is on.
    pub(super) fn latency_window(&self) -> Option<u32> {
        Some(self.latency_window.load(Relaxed)).filter(|window| *window > 0)
    }

    pub(super) fn latency_threshold(&self) -> Duration {
        Duration::from_nanos(self.latency_threshold.load(Relaxed))
    }

    pub(super) fn open_for(&self) -> Duration {
        Duration::from_nanos(self.open_for.load(Relaxed))
    }

    /// Returns the open time after this many failed probes in a row. `random` is in `0.0..1.0`.
    pub(super) fn open_time(&self, reopenings: u32, random: impl FnOnce() -> f64) -> Duration {
        let (initial, growth) = (self.open_for(), f64::from_bits(self.growth.load(Relaxed)));
        let jitter = self.jitter.load(Relaxed);
        if growth == 1.0 && jitter == 0 {
            return initial;
        }
        let growing = Backoff {
            initial,
            max: initial.max(Duration::from_nanos(self.open_for_max.load(Relaxed))),
            factor: growth,
            jitter: Jitter::Proportional(f64::from(jitter) / f64::from(Ratio::ONE.millionths())),
        };
        growing.delay(reopenings.saturating_add(1), random())
    }

    pub(super) fn probes(&self) -> u32 {
        self.probes.load(Relaxed)
    }
}
