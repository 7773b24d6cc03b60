//! Describes a breaker, and the ejection of endpoints, for the admin API.

use policies::breaker::{AdaptiveRule, Cause, Counts, State};
use policies::{BreakerSettings, EjectionSettings};
use serde::Serialize;

use super::numbers::{millis, share};
use crate::call::backend::Backend;
use crate::clock;

#[derive(Serialize)]
pub(super) struct BreakerView {
    /// `closed` means that traffic flows.
    state: &'static str,
    /// Cause of the last change of state; `null` if the state has never changed.
    cause: Option<&'static str>,
    /// Milliseconds until the next probe; `null` unless the breaker is open.
    retry_in_ms: Option<u64>,
    counts: CountsView,
    /// Mean latency that `adaptive` compares; `null` without `adaptive`, and until enough calls are counted in this
    /// state.
    mean_latency_ms: Option<u64>,
    settings: SettingsView,
}

/// Counts of the present state; every change of state resets them.
#[derive(Serialize)]
struct CountsView {
    calls: u64,
    failures: u64,
    slow: u64,
    consecutive_failures: u64,
    /// Number of failed probes in a row that have opened the breaker again.
    reopenings: u32,
    /// Number of probes that hold a place.
    probes_under_way: u32,
    /// Number of probes without a place: the caller is late with its part, or another tenant has taken the place.
    probes_without_place: u32,
    probe_successes: u32,
}

#[derive(Serialize)]
struct SettingsView {
    window_ms: u64,
    min_calls: u32,
    failure_ratio: Option<f64>,
    slow: Option<SlowView>,
    consecutive: Option<u32>,
    adaptive: Option<AdaptiveView>,
    open_for_ms: u64,
    growth: f64,
    open_for_max_ms: u64,
    jitter: f64,
    probes: u32,
}

/// Failure ratios that open the breaker: until the window is full, then while the mean exceeds the threshold, and
/// always.
#[derive(Serialize)]
struct AdaptiveView {
    latency_window: u32,
    threshold_ms: u64,
    failure_ratios: [f64; 3],
}

#[derive(Serialize)]
pub(super) struct EjectionView {
    consecutive: u32,
    eject_for_ms: u64,
    growth: f64,
    eject_for_max_ms: u64,
    share: f64,
}

#[derive(Serialize)]
struct SlowView {
    over_ms: u64,
    ratio: f64,
}

impl BreakerView {
    /// Returns `None` where the config turns the breaker off.
    pub(super) fn of(backend: &Backend) -> Option<Self> {
        let settings = backend.guard_settings.breaker?;
        let (breaker, now) = (&backend.guards.breaker, clock::now());
        let Counts {
            calls,
            failures,
            slow,
            consecutive_failures,
            reopenings,
            probes_under_way,
            probes_without_place,
            probe_successes,
        } = breaker.counts(now);
        Some(Self {
            state: word(breaker.state(now)),
            cause: breaker.cause().map(cause_word),
            retry_in_ms: breaker.retry_in(now).map(millis),
            counts: CountsView {
                calls,
                failures,
                slow,
                consecutive_failures,
                reopenings,
                probes_under_way,
                probes_without_place,
                probe_successes,
            },
            mean_latency_ms: breaker.mean_latency().map(millis),
            settings: SettingsView::of(&settings),
        })
    }
}

impl SettingsView {
    fn of(settings: &BreakerSettings) -> Self {
        Self {
            window_ms: millis(settings.window),
            min_calls: settings.min_calls,
            failure_ratio: settings.failure_ratio.map(share),
            slow: settings.slow.map(|slow| SlowView {
                over_ms: millis(slow.over),
                ratio: share(slow.ratio),
            }),
            consecutive: settings.consecutive.map(Into::into),
            adaptive: settings.adaptive.map(|rule| AdaptiveView {
                latency_window: rule.latency_window.get(),
                threshold_ms: millis(rule.threshold),
                failure_ratios: [
                    AdaptiveRule::WHILE_FILLING,
                    AdaptiveRule::WHEN_SLOW,
                    AdaptiveRule::ALWAYS,
                ]
                .map(share),
            }),
            open_for_ms: millis(settings.open_for),
            growth: settings.growth,
            open_for_max_ms: millis(settings.open_for_max),
            jitter: share(settings.jitter),
            probes: settings.probes.get(),
        }
    }
}

impl EjectionView {
    pub(super) fn of(settings: &EjectionSettings) -> Self {
        Self {
            consecutive: settings.consecutive.get(),
            eject_for_ms: millis(settings.eject_for),
            growth: settings.growth,
            eject_for_max_ms: millis(settings.eject_for_max),
            share: share(settings.share),
        }
    }
}

pub(super) const fn word(state: State) -> &'static str {
    match state {
        State::Closed => "closed",
        State::Open => "open",
        State::HalfOpen => "half_open",
        State::ForcedOpen => "forced_open",
        State::ForcedClosed => "forced_closed",
    }
}

const fn cause_word(cause: Cause) -> &'static str {
    match cause {
        Cause::FailureRatio => "failure_ratio",
        Cause::SlowRatio => "slow_ratio",
        Cause::ConsecutiveFailures => "consecutive_failures",
        Cause::AdaptiveFilling => "adaptive_filling",
        Cause::AdaptiveLatency => "adaptive_latency",
        Cause::AdaptiveRatio => "adaptive_ratio",
        Cause::OpenTimeOver => "open_time_over",
        Cause::ProbesSucceeded => "probes_succeeded",
        Cause::ProbeFailed => "probe_failed",
        Cause::Forced => "forced",
        Cause::Unforced => "unforced",
    }
}
