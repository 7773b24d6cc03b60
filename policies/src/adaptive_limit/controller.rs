//! Decides on the limit, window by window.
//!
//! While the limit is used, the calls that wait in the backend are `in flight x (1 - long / short)`: `short` is the
//! latency now, `long` is the latency of a call that does not wait. The limit grows while few wait, and shrinks while
//! many do (the rule of TCP Vegas, Brakmo and Peterson 1994).
//!
//! The weak point of such a rule is `long`: learned under load it is too high, and the limit grows without end; learned
//! before the backend became slower by itself it is too low, and the limit shrinks without need. There are no probes
//! that empty the backend to measure it again. Instead shrinking is a question: the limit goes down step by step, and
//! if the throughput goes down with it, the calls did not wait. Then the last step is taken back, and if the throughput
//! comes back too, the latency seen below is the new `long`. A throughput that fell by chance would otherwise raise the
//! limit for good. The question is asked only when it is open: once after a start under load, and when many
//! calls seem to wait.
//!
//! Invariant: a limit that is not used does not change.

use super::AdaptiveSettings;
use std::num::NonZeroU32;

/// Weight of a new window in the short latency.
const SHORT: f64 = 0.3;
/// The same in the long latency.
const LONG: f64 = 0.05;
/// Latencies within this factor differ by chance.
const LIKE: f64 = 1.2;
/// A latency above this multiple of the long one comes rather from a slower backend than from waiting.
const DOUBTFUL: f64 = 2.0;
/// Largest step down, as a factor.
const STEP_DOWN: f64 = 0.75;
/// Two loads must be this far apart for their throughputs to be compared.
const APART: f64 = 0.85;
/// Part of a step down that the throughput must follow, for the calls not to have waited. Taken for waiting by mistake,
/// they cost one step more; the other mistake would last.
const FOLLOWS: f64 = 0.65;
/// A throughput that fell by this multiple of the step fell for another reason.
const OTHER_REASON: f64 = 2.0;
/// Results by which a throughput is known to a few percent, whatever the spread of the latencies.
const RESULTS: f64 = 400.0;
/// The same, as a multiple of the limit.
const ROUNDS: f64 = 4.0;
/// Longest time in which a throughput is measured, in seconds.
const LONGEST: f64 = 30.0;

/// What was seen while one window was open. Times are in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) elapsed: f64,
    /// Number of calls that succeeded.
    pub(super) results: f64,
    /// Their mean latency.
    pub(super) latency: f64,
    /// Mean of the calls in flight.
    pub(super) in_flight: f64,
    /// Whether the limit was in use at some time.
    pub(super) used: bool,
}

#[derive(Debug)]
pub(super) struct Controller {
    from: f64,
    to: f64,
    limit: f64,
    short: Option<f64>,
    long: f64,
    /// Whether the long latency is known to be that of a call that does not wait.
    is_long_sure: bool,
    descent: Option<Descent>,
}

/// Question whether fewer calls have the same throughput.
#[derive(Debug, Default)]
struct Descent {
    /// What was seen before the last step.
    before: Option<Seen>,
    /// What is seen since.
    since: Seen,
    /// Whether the window has passed in which the last step takes effect.
    has_settled: bool,
    /// Whether the last step was taken back, to see whether the throughput comes back with it.
    is_taken_back: bool,
}

/// Sums over several windows.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    elapsed: f64,
    results: f64,
    latencies: f64,
    in_flights: f64,
    used: bool,
}

impl Controller {
    /// Begins at `first`, or as near to it as the settings allow.
    pub(super) fn new(settings: AdaptiveSettings, first: NonZeroU32) -> Controller {
        let mut controller = Controller {
            from: 1.0,
            to: 1.0,
            limit: f64::from(first.get()),
            short: None,
            long: 0.0,
            is_long_sure: false,
            descent: None,
        };
        controller.reconfigure(settings);
        controller
    }

    pub(super) fn reconfigure(&mut self, settings: AdaptiveSettings) {
        self.from = f64::from(settings.from.get());
        self.to = f64::from(settings.to.get()).max(self.from);
        self.set(self.limit);
    }

    pub(super) fn limit(&self) -> NonZeroU32 {
        NonZeroU32::new(self.limit as u32).unwrap_or(NonZeroU32::MIN)
    }

    pub(super) fn close(&mut self, window: Window) {
        let short = self
            .short
            .map_or(window.latency, |short| short + SHORT * (window.latency - short));
        let is_first = self.short.replace(short).is_none();
        if self.descent.is_some() {
            self.descend(window);
            return;
        }
        self.learn(is_first, short, window);
        if !window.used {
            return;
        }
        let waiting = self.waiting(window.in_flight, short);
        if !self.is_long_sure || waiting > self.most_waiting() {
            self.descent = Some(Descent {
                has_settled: true,
                ..Descent::default()
            });
        } else if waiting < self.fewest_waiting() / 2.0 {
            self.set(self.limit + (self.limit * 0.1).max(1.0));
        } else if waiting < self.fewest_waiting() {
            self.set(self.limit + 0.5);
        }
    }

    /// Learns the latency of a call that does not wait. With few waiting, a difference is chance, and must count in both
    /// directions: a latency that only falls ends below the true one, and a high limit feels every percent.
    fn learn(&mut self, is_first: bool, short: f64, window: Window) {
        let few_wait = !window.used || self.waiting(window.in_flight, short) < self.fewest_waiting() / 2.0;
        if is_first || short < self.long / LIKE {
            self.long = short;
            self.is_long_sure = !window.used;
        } else if short < self.long || (few_wait && short < self.long * LIKE) {
            self.long += LONG * (short - self.long);
        }
    }

    fn descend(&mut self, window: Window) {
        let Some(descent) = &mut self.descent else { return };
        if !std::mem::replace(&mut descent.has_settled, true) {
            return;
        }
        descent.since.add(window);
        let seen = descent.since;
        if seen.results < RESULTS.max(ROUNDS * self.limit) && seen.elapsed < LONGEST {
            return;
        }
        let (before, is_taken_back) = (descent.before, descent.is_taken_back);
        if !seen.used {
            self.descent = None;
            return;
        }
        let mut compare_with = before.unwrap_or(seen);
        match before {
            Some(low) if is_taken_back => {
                if low.in_flight() > APART * seen.in_flight() || follows(low, seen) {
                    self.long = low.latency();
                    self.short = Some(seen.latency());
                    self.is_long_sure = true;
                    self.descent = None;
                    return;
                }
                // It had fallen by chance.
                compare_with = seen;
            }
            Some(high) if seen.in_flight() <= APART * high.in_flight() => {
                if follows(seen, high) {
                    self.set(high.in_flight().ceil());
                    self.descent = Some(Descent {
                        before: Some(seen),
                        is_taken_back: true,
                        ..Descent::default()
                    });
                    return;
                }
                compare_with = seen;
            }
            _ => {}
        }
        let waiting = self.waiting(seen.in_flight(), seen.latency());
        let is_lowest = self.limit <= self.from;
        if is_lowest && !self.is_long_sure {
            self.long = self.long.min(seen.latency());
            self.is_long_sure = true;
        }
        let is_plausible = self.is_long_sure && seen.latency() <= self.long * DOUBTFUL;
        if is_lowest || (is_plausible && waiting <= self.most_waiting()) {
            self.descent = None;
            return;
        }
        let wanted = f64::midpoint(self.fewest_waiting(), self.most_waiting());
        let from = self.limit.min(seen.in_flight());
        let step = if is_plausible { waiting - wanted } else { f64::INFINITY };
        self.set((from - step).max(from * STEP_DOWN));
        self.descent = Some(Descent {
            before: Some(compare_with),
            ..Descent::default()
        });
    }

    /// Returns the number of calls that wait in the backend.
    fn waiting(&self, in_flight: f64, latency: f64) -> f64 {
        in_flight * (1.0 - self.long / latency).max(0.0)
    }

    fn fewest_waiting(&self) -> f64 {
        3.0 * self.limit.max(10.0).log10()
    }

    fn most_waiting(&self) -> f64 {
        2.0 * self.fewest_waiting()
    }

    fn set(&mut self, limit: f64) {
        self.limit = limit.clamp(self.from, self.to);
    }
}

/// Returns whether the throughput is lower as the calls in flight are, so that the calls do not wait.
fn follows(low: Seen, high: Seen) -> bool {
    let fell = (1.0 - low.throughput() / high.throughput()) / (1.0 - low.in_flight() / high.in_flight());
    (FOLLOWS..OTHER_REASON).contains(&fell)
}

impl Seen {
    fn add(&mut self, window: Window) {
        self.elapsed += window.elapsed;
        self.results += window.results;
        self.latencies += window.latency * window.results;
        self.in_flights += window.in_flight * window.results;
        self.used |= window.used;
    }

    fn throughput(&self) -> f64 {
        self.results / self.elapsed
    }

    fn latency(&self) -> f64 {
        self.latencies / self.results
    }

    fn in_flight(&self) -> f64 {
        self.in_flights / self.results
    }
}
