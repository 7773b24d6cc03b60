//! Computes the wait before a retry: longer each time, up to a cap, and spread at random.
//!
//! Callers that failed together would come back together; jitter spreads them. The jitter is applied after the cap, so
//! that retries at the cap are spread too. Chance is an argument.
//! after the cap, so that retries at the cap are spread too. Chance is an argument.

use crate::moment::nanos;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// Wait before the first retry.
    pub initial: Duration,
    /// Longest wait, before jitter.
    pub max: Duration,
    /// Factor by which each wait is longer than the one before; 1 means equal waits.
    pub factor: f64,
    pub jitter: Jitter,
}

/// Random spread of a wait.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Jitter {
    /// Evenly between wait x (1 - share) and wait x (1 + share). The share is in `0.0..=1.0`; 0 means no spread.
    Proportional(f64),
    /// Evenly between zero and the whole wait.
    Full,
    /// Evenly between half the wait and the whole wait.
    Equal,
}

impl Backoff {
    /// Returns the wait before retry number `retry_number`, from 1. `random` is in `0.0..1.0`.
    pub fn delay(&self, retry_number: u32, random: f64) -> Duration {
        let doublings = i32::try_from(retry_number.saturating_sub(1)).unwrap_or(i32::MAX);
        let (initial, max) = (nanos(self.initial) as f64, nanos(self.max) as f64);
        let wait = if initial == 0.0 {
            0.0
        } else {
            (initial * self.factor.powi(doublings)).min(max)
        };
        let spread = match self.jitter {
            Jitter::Proportional(share) => 1.0 + share * (2.0 * random - 1.0),
            Jitter::Full => random,
            Jitter::Equal => 0.5 + random / 2.0,
        };
        Duration::from_nanos((wait * spread).round() as u64)
    }

    /// Returns the longest wait that [`delay`](Backoff::delay) can return for this retry.
    pub fn longest(&self, retry_number: u32) -> Duration {
        self.delay(retry_number, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn waits_grow_to_the_cap() {
        let check = |initial, max, factor, retry_number, expected| {
            let backoff = Backoff {
                initial: ms(initial),
                max: ms(max),
                factor,
                jitter: Jitter::Proportional(0.0),
            };
            assert_eq!(
                backoff.delay(retry_number, 0.9),
                ms(expected),
                "retry {retry_number} x {factor}"
            );
        };
        check(100, 30_000, 2.0, 1, 100);
        check(100, 30_000, 2.0, 2, 200);
        check(100, 30_000, 2.0, 6, 3_200);
        check(100, 30_000, 2.0, 40, 30_000);
        check(50, 400, 3.0, 3, 400);
        check(100, 2_000, 1.0, 9, 100);
        check(100, 30_000, 2.0, 1_000, 30_000);
        check(100, 30_000, 2.0, u32::MAX, 30_000);
        check(100, 30_000, 2.0, 0, 100);
        check(0, 30_000, 2.0, u32::MAX, 0);
        check(500, 100, 2.0, 1, 100);
    }

    #[test]
    fn jitter_spreads_each_wait() {
        let check = |jitter, random, expected| {
            let backoff = Backoff {
                initial: ms(100),
                max: ms(1_000),
                factor: 2.0,
                jitter,
            };
            assert_eq!(backoff.delay(2, random), ms(expected), "{jitter:?} {random}");
        };
        check(Jitter::Proportional(0.1), 0.0, 180);
        check(Jitter::Proportional(0.1), 0.5, 200);
        check(Jitter::Proportional(0.1), 1.0, 220);
        check(Jitter::Full, 0.0, 0);
        check(Jitter::Full, 0.5, 100);
        check(Jitter::Equal, 0.0, 100);
        check(Jitter::Equal, 0.5, 150);
    }

    fn naive(initial: f64, max: f64, factor: f64, retry_number: u32) -> f64 {
        (1..retry_number)
            .fold(initial, |wait, _| (wait * factor).min(max))
            .min(max)
    }

    proptest! {
        #![proptest_config(cases::counted())]

        #[test]
        fn stays_within_its_bounds(
            initial in 1..10_000u64, max in 1..100_000u64, factor in 1.0..4.0f64,
            share in 0.0..=1.0f64, retry_number in 1..1_000u32, random in 0.0..1.0f64,
        ) {
            let jitter = Jitter::Proportional(share);
            let backoff = Backoff { initial: ms(initial), max: ms(max), factor, jitter };
            let delay = backoff.delay(retry_number, random).as_secs_f64() * 1e3;
            let middle = naive(initial as f64, max as f64, factor, retry_number);
            prop_assert!(delay >= middle * (1.0 - share) * (1.0 - 1e-9) - 1e-6, "{delay} {middle}");
            prop_assert!(delay <= middle * (1.0 + share) * (1.0 + 1e-9) + 1e-6, "{delay} {middle}");
            prop_assert!(backoff.delay(retry_number, random) <= backoff.longest(retry_number));
        }
    }
}
