//! A breaker as the admin API shows it.

use policies::BreakerSettings;
use policies::breaker::{Counts, State};
use serde::Serialize;

use super::backends::millis;
use crate::call::backend::Backend;
use crate::clock;

#[derive(Serialize)]
pub(super) struct BreakerView {
    /// `closed` means that traffic flows.
    state: &'static str,
    /// To the next probe; `null` unless it is open.
    retry_in_ms: Option<u64>,
    counts: CountsView,
    settings: SettingsView,
}

/// Of the present state; it starts anew with every change.
#[derive(Serialize)]
struct CountsView {
    calls: u64,
    failures: u64,
    slow: u64,
    consecutive_failures: u64,
    probes_under_way: u32,
    probe_successes: u32,
}

#[derive(Serialize)]
struct SettingsView {
    window_ms: u64,
    min_calls: u32,
    failure_ratio: Option<f64>,
    slow: Option<SlowView>,
    consecutive: Option<u32>,
    open_for_ms: u64,
    probes: u32,
}

#[derive(Serialize)]
struct SlowView {
    over_ms: u64,
    ratio: f64,
}

impl BreakerView {
    /// `None` where the config turns the breaker off.
    pub(super) fn of(backend: &Backend) -> Option<Self> {
        let settings = backend.guard_settings.breaker?;
        let (breaker, now) = (&backend.guards.breaker, clock::now());
        let Counts {
            calls,
            failures,
            slow,
            consecutive_failures,
            probes_under_way,
            probe_successes,
        } = breaker.counts(now);
        Some(Self {
            state: word(breaker.state(now)),
            retry_in_ms: breaker.retry_in(now).map(millis),
            counts: CountsView {
                calls,
                failures,
                slow,
                consecutive_failures,
                probes_under_way,
                probe_successes,
            },
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
            open_for_ms: millis(settings.open_for),
            probes: settings.probes.get(),
        }
    }
}

pub(super) fn share(ratio: policies::Ratio) -> f64 {
    f64::from(ratio.millionths()) / 1e6
}

const fn word(state: State) -> &'static str {
    match state {
        State::Closed => "closed",
        State::Open => "open",
        State::HalfOpen => "half_open",
        State::ForcedOpen => "forced_open",
        State::ForcedClosed => "forced_closed",
    }
}
