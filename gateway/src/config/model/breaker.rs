//! When a backend, or one endpoint of it, is left alone for a while.

use std::num::NonZeroU32;
use std::time::Duration;

use super::ranges::{HOUR, MS, ratio, ratio_above_zero};
use crate::config::fields::Fields;
use crate::config::mistake::{Code, Mistake};
use crate::config::reader::Read;
use crate::config::single::Single;
use crate::config::span::At;
use crate::config::units::{Ratio, duration_text};
use crate::config::value::Value;

/// When calls to a failing service stop. The defaults are those of the resilience article: its `ReadyToTrip` and
/// settings, or with `adaptive` those of its `AdaptiveCircuitBreaker`.
#[derive(Debug, Clone, PartialEq)]
pub struct Breaker {
    /// Calls within this time count; the longer default holds without `adaptive`.
    pub window: At<Duration>,
    /// With fewer calls in the window it does not open.
    pub min_calls: At<NonZeroU32>,
    /// Share of failed calls that opens it; above 0. `adaptive` has ratios of its own.
    pub failure_ratio: At<Ratio>,
    /// Time until the first probe.
    pub open_for: At<Duration>,
    /// Factor from one open time to the next while probes fail.
    pub growth: At<f64>,
    /// Longest open time; ten times `open_for` unless it is written.
    pub open_for_max: At<Duration>,
    /// Share by which each open time varies, so that replicas do not probe at the same time.
    pub jitter: At<Ratio>,
    /// Probes at once, and successes that close it; the larger default holds with `adaptive`.
    pub probes: At<u32>,
    /// Opens on slow calls too. Left out, slow calls that succeed are successes.
    pub slow: Option<Slow>,
    /// Failures in a row that open it whatever the ratio. Left out, no number does.
    pub consecutive: Option<At<NonZeroU32>>,
    /// Opens by mean latency and failure ratio together. Left out, `failure_ratio` alone decides.
    pub adaptive: Option<Adaptive>,
    /// Statuses from 400 to 599 that count as failures.
    pub failure_statuses: Vec<At<u16>>,
}

/// Opens the breaker when this share of the calls is slow.
#[derive(Debug, Clone, PartialEq)]
pub struct Slow {
    /// A call that takes longer is slow.
    pub over: At<Duration>,
    /// Share of slow calls that opens it; above 0.
    pub ratio: At<Ratio>,
}

/// The rule of the article: opens at half of the calls while fewer than `latency_window` were seen; then at 0.3 of them
/// if they take longer than `threshold` on average, and at 0.6 in any case. `min_calls` holds for each.
#[derive(Debug, Clone, PartialEq)]
pub struct Adaptive {
    /// Calls that the mean latency is taken of.
    pub latency_window: At<u32>,
    /// Mean latency from which on the lower ratio holds.
    pub threshold: At<Duration>,
}

/// When calls to one failing endpoint stop for a while.
#[derive(Debug, Clone, PartialEq)]
pub struct Ejection {
    /// Failures in a row.
    pub consecutive: At<NonZeroU32>,
    /// How long the endpoint gets no calls the first time.
    pub eject_for: At<Duration>,
    /// Factor from one time to the next.
    pub growth: At<f64>,
    /// Longest time; ten times `eject_for` unless it is written. An endpoint that stays in for this long begins with
    /// `eject_for` again.
    pub eject_for_max: At<Duration>,
    /// Largest share of the endpoints that is out at a time, rounded down; one always stays in. Above 0.
    pub share: At<Ratio>,
}

impl Breaker {
    /// What counts as a failure of a backend unless something else is written.
    pub const FAILURE_STATUSES: [u16; 4] = [500, 502, 503, 504];
}

impl Read for Breaker {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ consecutive: $ }", "{ failure_ratio: $ }", "{ open_for: $ }"],
        sample: "{ min_calls: 10, failure_ratio: 0.6 }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let adaptive: Option<Adaptive> = f.optional("adaptive");
            let (window, probes) = if adaptive.is_some() { (10, 5) } else { (60, 3) };
            let open_for = f.within("open_for", Duration::from_secs(30), MS..=HOUR);
            let grows = f.value("growth").is_some();
            let open_for_max = longest(f, "open_for_max", "open_for", &open_for);
            if let Some(span) = open_for_max.span().filter(|_| !grows) {
                f.push(
                    Mistake::new(Code::Conflict, span, format!("`{}.open_for_max` does nothing", f.path))
                        .label("without `growth` no open time is longer than `open_for`")
                        .hint("add `growth: 2`, or leave it out"),
                );
            }
            let breaker = Self {
                window: f.within("window", Duration::from_secs(window), Duration::from_secs(1)..=HOUR),
                min_calls: f.or("min_calls", NonZeroU32::new(10).expect("not 0")),
                failure_ratio: f.or("failure_ratio", ratio(0.6)),
                open_for,
                growth: f.within("growth", 1.0, 1.0..=10.0),
                open_for_max,
                jitter: f.or("jitter", ratio(0.0)),
                probes: f.within("probes", probes, 1..=1000),
                slow: f.optional("slow"),
                consecutive: f.optional("consecutive"),
                adaptive,
                failure_statuses: f.list_or("failure_statuses", &Self::FAILURE_STATUSES),
            };
            ratio_above_zero(f, "failure_ratio", &breaker.failure_ratio);
            if let Some(span) = breaker.failure_ratio.span().filter(|_| breaker.adaptive.is_some()) {
                f.push(
                    Mistake::new(Code::Conflict, span, format!("`{}.failure_ratio` does nothing", f.path))
                        .label("`adaptive` has ratios of its own: 0.5, 0.3 and 0.6")
                        .hint("leave out one of the two"),
                );
            }
            for status in breaker
                .failure_statuses
                .iter()
                .filter(|status| !(400..=599).contains(&***status))
            {
                let message = format!("`{}.failure_statuses` takes statuses from 400 to 599", f.path);
                f.push(Mistake::new(Code::OutOfRange, status.span(), message));
            }
            breaker
        })
    }
}

impl Read for Slow {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ over: $, ratio: 0.8 }", "{ over: 2s, ratio: $ }"],
        sample: "{ over: 2s, ratio: 0.8 }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let (over, ratio) = (f.required("over"), f.required("ratio"));
            let slow = Self {
                over: over?,
                ratio: ratio?,
            };
            ratio_above_zero(f, "ratio", &slow.ratio);
            Some(slow)
        })?
    }
}

impl Read for Adaptive {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ threshold: $ }"],
        sample: "{ threshold: 2s }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let latency_window = f.within("latency_window", 100, 1..=1000);
            let threshold = f.required("threshold");
            Some(Self {
                latency_window,
                threshold: threshold?,
            })
        })?
    }
}

impl Read for Ejection {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ consecutive: $ }", "{ eject_for: $ }"],
        sample: "{ consecutive: 5 }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let consecutive = f.or("consecutive", NonZeroU32::new(5).expect("not 0"));
            let eject_for = f.within("eject_for", Duration::from_secs(30), MS..=HOUR);
            let ejection = Self {
                consecutive,
                growth: f.within("growth", 2.0, 1.0..=10.0),
                eject_for_max: longest(f, "eject_for_max", "eject_for", &eject_for),
                eject_for,
                share: f.or("share", ratio(0.5)),
            };
            ratio_above_zero(f, "share", &ejection.share);
            ejection
        })
    }
}

/// What a time grows to: ten times as much, unless it is written; never less than it begins with.
fn longest(f: &mut Fields<'_>, name: &'static str, of: &'static str, first: &At<Duration>) -> At<Duration> {
    let longest = f.within(name, first.saturating_mul(10), MS..=24 * HOUR);
    if let Some(span) = longest.span().filter(|_| *longest < **first) {
        f.push(
            Mistake::new(
                Code::OutOfRange,
                span,
                format!("`{}.{name}` is less than `{of}`", f.path),
            )
            .label("is what it grows to")
            .hint(format!("`{of}` is {}", duration_text(**first))),
        );
    }
    longest
}
