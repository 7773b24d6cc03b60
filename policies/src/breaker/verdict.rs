//! Decides whether the results of a closed breaker are bad enough to open it, and by which rule.
//!
//! One rule is enough. Every rule except failures in a row needs `min_calls` in the window: a ratio of a few calls says
//! little, and a ratio of no calls is not a number.

use super::Breaker;
use super::settings::AdaptiveRule;
use super::state::{Cause, Generation};
use super::window::{Sums, Tag};
use crate::moment::Moment;
use crate::ratio::Ratio;

impl Breaker {
    /// Returns the cause for which the breaker should open; `None` if it should stay closed.
    pub(super) fn verdict(&self, generation: Generation, now: Moment) -> Option<Cause> {
        let settings = &self.settings;
        let streak = self.streak.count(Tag::of_generation(generation));
        if settings.consecutive().is_some_and(|most| streak >= most) {
            return Some(Cause::ConsecutiveFailures);
        }
        let sums = self.window.sums(generation, settings.slice_nanos(), now);
        if sums.calls < settings.min_calls() {
            return None;
        }
        if settings
            .failure_ratio()
            .is_some_and(|ratio| ratio.reached_by(sums.failures, sums.calls))
        {
            return Some(Cause::FailureRatio);
        }
        if let Some(cause) = self.adaptive_verdict(generation, sums) {
            return Some(cause);
        }
        let too_slow = settings
            .slow_ratio()
            .is_some_and(|ratio| ratio.reached_by(sums.slow, sums.calls));
        too_slow.then_some(Cause::SlowRatio)
    }

    fn adaptive_verdict(&self, generation: Generation, sums: Sums) -> Option<Cause> {
        let window = self.settings.latency_window()?;
        let reaches = |ratio: Ratio| ratio.reached_by(sums.failures, sums.calls);
        if !reaches(AdaptiveRule::WHEN_SLOW) {
            return None;
        }
        match self.latencies.mean(generation, window) {
            None => reaches(AdaptiveRule::WHILE_FILLING).then_some(Cause::AdaptiveFilling),
            Some(mean) if mean > self.settings.latency_threshold() => Some(Cause::AdaptiveLatency),
            Some(_) => reaches(AdaptiveRule::ALWAYS).then_some(Cause::AdaptiveRatio),
        }
    }
}
