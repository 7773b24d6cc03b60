//! Decides how many tokens a replica may hold, and computes what that costs in exactness and in calls of the store.

use crate::ratio::Ratio;
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

/// Terms of the leases of one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTerms {
    burst: u64,
    share: Ratio,
    time: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseTermsError {
    /// The share is zero.
    Share,
    /// The time is not in `SHORTEST..=LONGEST`.
    Time,
}

/// What leases of a limit mean for a number of replicas.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    /// Most tokens that one replica holds; zero if each decision asks the store.
    pub lease: u64,
    /// Most tokens on lease. In any span of time at most so many are admitted more than by one process.
    pub on_lease: u64,
    /// The same in percent of the burst.
    pub percent_of_burst: f64,
    /// Most calls of the store in a second at the full rate of the limit, by all replicas together.
    pub calls_per_second: f64,
}

impl LeaseTerms {
    /// Shortest and longest time for which tokens are leased.
    pub const SHORTEST: Duration = Duration::from_millis(100);
    pub const LONGEST: Duration = Duration::from_secs(60);

    /// Most tokens in one lease.
    pub const MOST: u64 = (1 << 25) - 1;

    /// Most calls a second by which one replica renews the leases of one limit.
    pub const MOST_CALLS: u32 = 500;

    /// Returns the terms for a limit of `burst` tokens at once. `share` of them may be on lease, each time for `time`.
    pub fn new(burst: u64, share: Ratio, time: Duration) -> Result<LeaseTerms, LeaseTermsError> {
        if share == Ratio::ZERO {
            return Err(LeaseTermsError::Share);
        }
        if !(LeaseTerms::SHORTEST..=LeaseTerms::LONGEST).contains(&time) {
            return Err(LeaseTermsError::Time);
        }
        Ok(LeaseTerms { burst, share, time })
    }

    /// Returns the terms of a limit of which nothing is on lease: each decision asks the store.
    pub fn exact(burst: u64, time: Duration) -> Result<LeaseTerms, LeaseTermsError> {
        let terms = LeaseTerms::new(burst, Ratio::ONE, time)?;
        Ok(LeaseTerms {
            share: Ratio::ZERO,
            ..terms
        })
    }

    pub const fn burst(&self) -> u64 {
        self.burst
    }

    pub const fn time(&self) -> Duration {
        self.time
    }

    /// Returns the most tokens that each of so many replicas holds. Zero means that a lease would be less than one
    /// token, so that each decision asks the store.
    pub fn size(&self, replicas: NonZeroU32) -> u64 {
        (self.most() / u64::from(replicas.get())).min(LeaseTerms::MOST)
    }

    /// Returns the most tokens that all replicas together hold.
    pub const fn most(&self) -> u64 {
        // No more than the burst, because the share is at most one.
        (self.burst as u128 * self.share.millionths() as u128 / 1_000_000) as u64
    }

    /// Returns what the leases mean for a limit of `rate` tokens a second.
    pub fn bound(&self, rate: f64, replicas: NonZeroU32) -> Bound {
        let lease = self.size(replicas);
        let on_lease = lease.saturating_mul(u64::from(replicas.get()));
        let most_calls = f64::from(LeaseTerms::MOST_CALLS) * f64::from(replicas.get());
        // A lease is renewed when no more than its reserve is left.
        let tokens_per_call = (lease - reserve(lease)).max(1);
        Bound {
            lease,
            on_lease,
            percent_of_burst: on_lease as f64 * 100.0 / self.burst.max(1) as f64,
            calls_per_second: (rate / tokens_per_call as f64).min(most_calls),
        }
    }
}

/// Returns the most tokens of a lease that are left when it is renewed: an eighth, so that a lease's worth of requests
/// costs at most 1.15 renewals.
pub(super) const fn reserve(lease: u64) -> u64 {
    lease / 8
}

impl fmt::Display for LeaseTermsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LeaseTermsError::Share => f.write_str("the share on lease must be more than zero"),
            LeaseTermsError::Time => f.write_str("the time of a lease must be from 100ms to 60s"),
        }
    }
}

impl std::error::Error for LeaseTermsError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn terms(burst: u64) -> LeaseTerms {
        LeaseTerms::new(burst, Ratio::new(0.1).unwrap(), Duration::from_secs(2)).unwrap()
    }

    fn replicas(count: u32) -> NonZeroU32 {
        NonZeroU32::new(count).unwrap()
    }

    /// Checks the tiers that are built in, whose bursts are twice their rates.
    #[test]
    fn the_bound_of_each_tier() {
        let check = |rate: u32, count, lease, on_lease, percent: f64, calls: f64| {
            let bound = terms(2 * u64::from(rate)).bound(f64::from(rate), replicas(count));
            let rounded = |number: f64| (number * 100.0).round() / 100.0;
            let seen = (
                bound.lease,
                bound.on_lease,
                rounded(bound.percent_of_burst),
                rounded(bound.calls_per_second),
            );
            assert_eq!(seen, (lease, on_lease, percent, calls), "{rate}/s over {count}");
        };
        check(10, 1, 2, 2, 10.0, 5.0);
        check(10, 3, 0, 0, 0.0, 10.0);
        check(50, 3, 3, 9, 9.0, 16.67);
        check(200, 3, 13, 39, 9.75, 16.67);
        check(1_000, 3, 66, 198, 9.9, 17.24);
        check(1_000, 1, 200, 200, 10.0, 5.71);
        check(1_000, 300, 0, 0, 0.0, 1_000.0);
    }

    #[test]
    fn calls_are_limited_for_each_replica() {
        let bound = terms(10).bound(100_000.0, replicas(2));
        assert_eq!((bound.lease, bound.calls_per_second), (0, 1_000.0));
    }

    #[test]
    fn a_lease_fits_its_word() {
        assert_eq!(terms(u64::MAX).size(replicas(1)), LeaseTerms::MOST);
        assert_eq!(terms(0).size(replicas(1)), 0);
    }

    #[test]
    fn nothing_of_an_exact_limit_is_on_lease() {
        let terms = LeaseTerms::exact(u64::MAX, Duration::from_secs(2)).unwrap();
        assert_eq!((terms.most(), terms.size(replicas(1))), (0, 0));
        let bound = terms.bound(70.0, replicas(3));
        assert_eq!((bound.on_lease, bound.calls_per_second), (0, 70.0));
    }

    #[test]
    fn terms_out_of_range() {
        let check = |share, milliseconds, expected| {
            let terms = LeaseTerms::new(9, Ratio::new(share).unwrap(), Duration::from_millis(milliseconds));
            assert_eq!(terms.err(), expected);
        };
        check(0.0, 2_000, Some(LeaseTermsError::Share));
        check(1.0, 99, Some(LeaseTermsError::Time));
        check(1.0, 100, None);
        check(0.5, 60_000, None);
        check(0.5, 60_001, Some(LeaseTermsError::Time));
    }

    proptest! {
        #![proptest_config(cases::counted())]

        #[test]
        fn no_more_than_the_share_is_on_lease(
            burst in 1..10_000_000u64, millionths in 1..=1_000_000u32, count in 1..500u32,
        ) {
            let share = Ratio::from_millionths(millionths).unwrap();
            let terms = LeaseTerms::new(burst, share, Duration::from_secs(1)).unwrap();
            let bound = terms.bound(1.0, replicas(count));
            prop_assert!(u128::from(bound.on_lease) * 1_000_000 <= u128::from(burst) * u128::from(millionths));
            let one_more = u128::from(bound.lease + 1) * u128::from(count) * 1_000_000;
            prop_assert!(one_more > u128::from(burst) * u128::from(millionths) || bound.lease == LeaseTerms::MOST);
        }
    }
}
