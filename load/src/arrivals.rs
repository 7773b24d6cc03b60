//! Computes when to send requests: a schedule that is fixed before the first answer.
//!
//! Invariant: the schedule never waits for the server, so the load is open, like that of independent callers. Reads no
//! clock; chance is an argument.

use std::time::Duration;

use fastrand::Rng;

/// Distribution of the pauses between arrivals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Equal pauses.
    Constant,
    /// Exponentially distributed pauses: arrivals of independent callers.
    Poisson,
}

/// Endless iterator of the times of sending, from the start of the run.
#[derive(Clone, Debug)]
pub struct Arrivals {
    /// Mean seconds between two arrivals.
    mean: f64,
    pace: Pace,
    rng: Rng,
    /// Seconds since the start. The sum is kept in seconds, so that rounding errors do not change the rate.
    next: f64,
    sent: u64,
}

impl Arrivals {
    /// Returns a schedule of `rate` requests a second; the rate is above 0. Equal seeds give equal schedules.
    pub fn new(rate: f64, pace: Pace, seed: u64) -> Self {
        Self {
            mean: 1.0 / rate,
            pace,
            rng: Rng::with_seed(seed),
            next: 0.0,
            sent: 0,
        }
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let at = Duration::try_from_secs_f64(self.next).ok()?;
        self.sent += 1;
        self.next = match self.pace {
            Pace::Constant => self.sent as f64 * self.mean,
            // `f64` is below 1, so the argument of the logarithm is positive.
            Pace::Poisson => self.next - self.mean * (1.0 - self.rng.f64()).ln(),
        };
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::{Arrivals, Pace};
    use std::time::Duration;

    fn within(pace: Pace, rate: f64, seconds: u64) -> Vec<Duration> {
        Arrivals::new(rate, pace, 7)
            .take_while(|at| *at < Duration::from_secs(seconds))
            .collect()
    }

    #[test]
    fn a_constant_pace_sends_rate_times_time_evenly() {
        for (rate, seconds, expected) in [(10.0, 3, 30), (3.0, 10, 30), (4000.0, 3, 12_000), (0.5, 10, 5)] {
            let arrivals = within(Pace::Constant, rate, seconds);
            assert_eq!(arrivals.len(), expected, "{rate}/s for {seconds} s");
            let pause = Duration::from_secs_f64(1.0 / rate).as_secs_f64();
            let uneven = arrivals
                .windows(2)
                .find(|pair| ((pair[1] - pair[0]).as_secs_f64() - pause).abs() > 1e-6);
            assert_eq!(uneven, None, "{rate}/s");
        }
    }

    #[test]
    fn poisson_keeps_the_rate_and_varies_the_pauses() {
        let arrivals = within(Pace::Poisson, 1000.0, 20);
        // The standard deviation of the count is 141; this range is five of them.
        assert!((19_300..=20_700).contains(&arrivals.len()), "{}", arrivals.len());
        let short = arrivals
            .windows(2)
            .filter(|pair| pair[1] - pair[0] < Duration::from_micros(693))
            .count();
        // Half of all pauses are shorter than ln 2 of the mean.
        let share = short as f64 / arrivals.len() as f64;
        assert!((0.48..=0.52).contains(&share), "{share}");
    }

    #[test]
    fn equal_seeds_give_equal_schedules() {
        let first: Vec<_> = Arrivals::new(100.0, Pace::Poisson, 3).take(100).collect();
        let again: Vec<_> = Arrivals::new(100.0, Pace::Poisson, 3).take(100).collect();
        let other: Vec<_> = Arrivals::new(100.0, Pace::Poisson, 4).take(100).collect();
        assert_eq!(first, again);
        assert_ne!(first, other);
    }
}
