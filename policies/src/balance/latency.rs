//! Estimates the latency of an endpoint: it jumps to a peak at once, and comes down within ten seconds.
//!
//! An average reacts too late: until it has risen, an endpoint that became slow has got too many calls. A maximum never
//! forgets. So a sample above the estimate replaces it, and a sample below moves it by a weight that grows with the time
//! since the last change. The number of samples does not matter, so an endpoint that is rarely asked recovers as fast as
//! a busy one.
//!
//! Invariant: right after a sample the estimate is not below it, within one unit. The estimate changes by one
//! compare-and-swap; a sample counts wholly or, if it would move the estimate by less than one unit, not at all. A clock
//! that runs backwards moves nothing but peaks.

use crate::moment::Moment;
use crate::sync::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Time constant of the way down: after ten seconds 2 % of a peak is left.
const TIME_CONSTANT: Duration = Duration::from_millis(2_500);

/// Latency in nanoseconds, and the time of its last change, in one word.
#[derive(Debug, Default)]
pub struct Latency {
    estimate: AtomicU64,
}

impl Latency {
    /// Records the latency of one call.
    pub fn record(&self, took: Duration, now: Moment) {
        self.change(|estimate| estimate.after(took, now));
    }

    /// Records that a call took longer than this: only a peak counts.
    pub fn record_at_least(&self, took: Duration, now: Moment) {
        self.change(|estimate| estimate.after_at_least(took, now));
    }

    /// Returns the estimate in nanoseconds; 0 if there was no sample.
    pub fn nanos(&self) -> u64 {
        Estimate(self.estimate.load(Relaxed)).nanos()
    }

    fn change(&self, next: impl Fn(Estimate) -> Option<Estimate>) {
        // An error means that the sample changes nothing.
        let _ = self
            .estimate
            .fetch_update(Relaxed, Relaxed, |word| next(Estimate(word)).map(|next| next.0));
    }
}

/// Layout: latency in units of 1.024 us (32 bits) | time of the last change in units of 1.05 ms (32 bits)
///
/// The time wraps after 52 days. A difference of more than half of that is taken as a clock that ran backwards.
#[derive(Clone, Copy)]
struct Estimate(u64);

impl Estimate {
    const UNIT_BITS: u32 = 10;
    const TICK_BITS: u32 = 20;

    fn new(units: u32, tick: u32) -> Estimate {
        Estimate(u64::from(units) << 32 | u64::from(tick))
    }

    const fn units(self) -> u32 {
        (self.0 >> 32) as u32
    }

    const fn tick(self) -> u32 {
        self.0 as u32
    }

    const fn nanos(self) -> u64 {
        (self.units() as u64) << Estimate::UNIT_BITS
    }

    /// Returns the estimate after this sample; `None` if it stays the same.
    fn after(self, took: Duration, now: Moment) -> Option<Estimate> {
        let (sample, tick) = (units(took), tick(now));
        if sample >= self.units() {
            return self.peak(sample, tick);
        }
        let ticks = tick.wrapping_sub(self.tick());
        if ticks > u32::MAX / 2 {
            return Some(Estimate::new(self.units(), tick));
        }
        let elapsed = f64::from(ticks) * f64::from(1u32 << Estimate::TICK_BITS) / 1e9;
        let kept = (-elapsed / TIME_CONSTANT.as_secs_f64()).exp();
        let above = f64::from(self.units() - sample);
        let next = sample + (above * kept).round() as u32;
        // A smaller step waits until enough time has passed for a whole unit.
        (next != self.units()).then(|| Estimate::new(next, tick))
    }

    fn after_at_least(self, took: Duration, now: Moment) -> Option<Estimate> {
        let sample = units(took);
        (sample > self.units()).then(|| Estimate::new(sample, tick(now)))
    }

    fn peak(self, sample: u32, tick: u32) -> Option<Estimate> {
        let next = Estimate::new(sample, tick);
        (next.0 != self.0).then_some(next)
    }
}

/// Returns a latency in units, at least one, so that a known latency is never zero.
fn units(took: Duration) -> u32 {
    let units = took.as_nanos() >> Estimate::UNIT_BITS;
    u32::try_from(units).unwrap_or(u32::MAX).max(1)
}

const fn tick(now: Moment) -> u32 {
    (now.nanos() >> Estimate::TICK_BITS) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn at(milliseconds: u64) -> Moment {
        Moment::ZERO + ms(milliseconds)
    }

    fn after(samples: &[(u64, u64)]) -> u64 {
        let latency = Latency::default();
        for (now, took) in samples {
            latency.record(ms(*took), at(*now));
        }
        (latency.nanos() + 500_000) / 1_000_000
    }

    #[test]
    fn a_peak_counts_at_once_and_fades_within_ten_seconds() {
        let check = |samples: &[(u64, u64)], expected| assert_eq!(after(samples), expected, "{samples:?}");
        check(&[], 0);
        check(&[(0, 20)], 20);
        check(&[(0, 20), (0, 200)], 200);
        check(&[(0, 200), (0, 20)], 200);
        check(&[(0, 200), (2_500, 20)], 86);
        check(&[(0, 200), (10_000, 20)], 23);
        check(&[(0, 20), (60_000, 20)], 20);
        // Time that runs backwards lets nothing fade.
        check(&[(20_000, 200), (10_000, 20)], 200);
        check(&[(20_000, 200), (10_000, 300)], 300);
        check(&[(20_000, 200), (10_000, 20), (20_000, 20)], 23);
        // The clock of ticks wraps after 52 days.
        let wrap = 1_u64 << 52;
        let latency = Latency::default();
        latency.record(ms(200), Moment::from_nanos(wrap - 1));
        latency.record(ms(20), Moment::from_nanos(wrap - 1) + ms(10_000));
        assert_eq!(latency.nanos() / 1_000_000, 23);
    }

    #[test]
    fn many_samples_fade_a_peak_as_fast_as_few() {
        let every = |step: usize| {
            after(
                &[(0, 1_000)]
                    .into_iter()
                    .chain((1..=10_000).step_by(step).map(|now| (now, 10)))
                    .collect::<Vec<_>>(),
            )
        };
        let (many, few) = (every(1), every(999));
        assert!((20..=35).contains(&many) && (20..=35).contains(&few), "{many} {few}");
    }

    #[test]
    fn a_call_that_has_not_ended_can_only_raise_the_estimate() {
        let latency = Latency::default();
        latency.record_at_least(ms(30), at(0));
        latency.record_at_least(ms(10), at(9_000));
        assert_eq!(latency.nanos() / 100_000, 299);
    }

    #[test]
    fn extreme_latencies_saturate() {
        let latency = Latency::default();
        latency.record(Duration::ZERO, at(0));
        assert!(latency.nanos() > 0, "a known latency is not zero");
        latency.record(Duration::MAX, Moment::MAX);
        assert!(latency.nanos() > 4_000_000_000_000);
    }

    proptest! {
        #![proptest_config(cases::counted())]

        /// The estimate lies between the sample and the highest earlier one, whatever the clock does.
        #[test]
        fn stays_between_the_sample_and_the_peak(samples in prop::collection::vec((0..100_000_u64, 0..10_000_u64), 1..100)) {
            let (latency, mut highest) = (Latency::default(), 0);
            for (now, took) in samples {
                highest = highest.max(took);
                latency.record(ms(took), at(now));
                let (nanos, unit) = (latency.nanos(), 1_024);
                prop_assert!(nanos + unit >= took * 1_000_000 && nanos <= (highest * 1_000_000).max(unit), "{nanos}");
            }
        }
    }
}
