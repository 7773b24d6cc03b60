//! Splits requests among several targets by percent, so that a key stays with its target.
//!
//! Each key of a route has a [`Bucket`], a number below 10,000 that only the route's name and the key decide: 64-bit
//! FNV-1a over the route's name, a zero byte and the key, its bits mixed by the last step of `SplitMix64`, scaled to
//! 10,000. All replicas of the gateway agree on it, and so do its restarts. A share takes a range of buckets that begins
//! where the one before it ends.
//!
//! Invariant: a share that grows loses no key, as long as the shares before it stay the same.

use crate::balance::hash;

/// Number of buckets: one for each hundredth of a percent.
const BUCKETS: u16 = 10_000;

/// A part of all buckets, in hundredths of a percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u16);

/// The bucket of a key, below 10,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket(u16);

/// The part of the requests that a target takes of those that the targets before it leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// The requests in a range of buckets of this size.
    Part(Percent),
    /// All.
    Rest,
}

impl Percent {
    pub const ALL: Percent = Percent(BUCKETS);

    /// Returns a percentage given in hundredths of a percent; `None` above 100 %.
    pub const fn from_hundredths(hundredths: u16) -> Option<Percent> {
        if hundredths <= BUCKETS {
            Some(Percent(hundredths))
        } else {
            None
        }
    }

    pub const fn hundredths(self) -> u16 {
        self.0
    }
}

impl Bucket {
    /// Bucket of requests without a key. Only the last target takes it.
    pub const LAST: Bucket = Bucket(BUCKETS - 1);

    /// Returns the bucket of a route's key. `name` is the route's name, a zero byte and the key.
    pub const fn of(name: &[u8]) -> Bucket {
        Bucket::by_chance(hash::of(name))
    }

    /// Returns a bucket by chance, given as a number of which each is equally likely.
    pub const fn by_chance(chance: u64) -> Bucket {
        Bucket(((chance as u128 * BUCKETS as u128) >> 64) as u16)
    }

    pub const fn number(self) -> u16 {
        self.0
    }

    /// Whether the bucket is among the first `percent` of all buckets.
    pub const fn is_within(self, percent: Percent) -> bool {
        self.0 < percent.0
    }
}

/// Chooses a target for the bucket. `targets` are those that the request may go to, in order; `None` if none takes the
/// bucket.
pub fn choose<T>(bucket: Bucket, targets: impl IntoIterator<Item = (T, Share)>) -> Option<T> {
    let mut end = 0;
    targets.into_iter().find_map(|(target, share)| {
        let takes = match share {
            Share::Rest => true,
            Share::Part(percent) => {
                end += u32::from(percent.0);
                u32::from(bucket.0) < end
            }
        };
        takes.then_some(target)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn percent(hundredths: u16) -> Share {
        Share::Part(Percent::from_hundredths(hundredths).expect("at most 100 %"))
    }

    fn chosen(bucket: u16, shares: &[Share]) -> Option<usize> {
        choose(Bucket(bucket), shares.iter().copied().enumerate())
    }

    #[test]
    fn a_share_takes_the_buckets_after_those_of_the_shares_before() {
        let check = |shares: &[Share], expected: &[(u16, Option<usize>)]| {
            for &(bucket, target) in expected {
                assert_eq!(chosen(bucket, shares), target, "bucket {bucket} of {shares:?}");
            }
        };
        check(
            &[percent(500), Share::Rest],
            &[(0, Some(0)), (499, Some(0)), (500, Some(1)), (9_999, Some(1))],
        );
        check(
            &[percent(1), percent(2), Share::Rest],
            &[(0, Some(0)), (1, Some(1)), (2, Some(1)), (3, Some(2))],
        );
        check(
            &[percent(5_000), percent(5_000)],
            &[(4_999, Some(0)), (5_000, Some(1)), (9_999, Some(1))],
        );
        check(&[percent(0), Share::Rest], &[(0, Some(1))]);
        check(&[percent(10_000), Share::Rest], &[(9_999, Some(0))]);
        check(&[Share::Rest, percent(10_000)], &[(0, Some(0)), (9_999, Some(0))]);
        check(&[percent(100)], &[(99, Some(0)), (100, None)]);
        check(&[], &[(0, None)]);
    }

    #[test]
    fn a_bucket_is_the_same_on_each_replica_and_in_each_version() {
        let check = |name: &str, expected: u16| assert_eq!(Bucket::of(name.as_bytes()).number(), expected, "{name:?}");
        check("users\0acme", 9_246);
        check("users\0globex", 8_335);
        check("orders\0acme", 3_128);
        check("", 9_576);
    }

    #[test]
    fn chance_meets_each_bucket_and_no_other() {
        let check = |chance: u64, expected: u16| assert_eq!(Bucket::by_chance(chance).number(), expected);
        check(0, 0);
        check(u64::MAX / 2 + 1, 5_000);
        check(u64::MAX, 9_999);
        assert_eq!(Percent::from_hundredths(10_001), None);
        assert!(Bucket::LAST.is_within(Percent::ALL) && !Bucket(0).is_within(Percent::default()));
    }

    /// Returns which of `tenants` names go to the first target at this percentage.
    fn first(route: &str, tenants: u32, hundredths: u16) -> Vec<bool> {
        let shares = [percent(hundredths), Share::Rest];
        let is_first = |tenant: u32| {
            let bucket = Bucket::of(format!("{route}\0tenant-{tenant}").as_bytes());
            choose(bucket, shares.into_iter().enumerate()) == Some(0)
        };
        (0..tenants).map(is_first).collect()
    }

    #[test]
    fn ten_thousand_tenants_are_split_as_written() {
        for route in ["users", "orders", "a", "api-v1", "checkout"] {
            for (hundredths, fewest, most) in [(500, 450, 550), (1_000, 920, 1_080), (5_000, 4_850, 5_150)] {
                let count = first(route, 10_000, hundredths).into_iter().filter(|is| *is).count();
                assert!((fewest..=most).contains(&count), "{count} of {route} at {hundredths}");
            }
        }
    }

    #[test]
    fn routes_do_not_try_a_version_on_the_same_tenants() {
        let both = first("users", 10_000, 1_000)
            .into_iter()
            .zip(first("orders", 10_000, 1_000));
        let count = both.filter(|(one, other)| *one && *other).count();
        assert!((60..=140).contains(&count), "{count}");
    }

    proptest! {
        #![proptest_config(cases::counted())]

        #[test]
        fn a_share_that_grows_loses_nobody(
            bucket in 0..BUCKETS, shares in prop::collection::vec(0..4_000u16, 1..5), which in any::<prop::sample::Index>(), more in 0..3_000u16,
        ) {
            let to_shares = |hundredths: &[u16]| -> Vec<Share> {
                hundredths.iter().map(|hundredths| percent(*hundredths)).chain([Share::Rest]).collect()
            };
            let grown = which.index(shares.len());
            let before = chosen(bucket, &to_shares(&shares));
            let mut larger = shares;
            larger[grown] += more;
            let after = chosen(bucket, &to_shares(&larger));
            if before == Some(grown) {
                prop_assert_eq!(after, Some(grown));
            } else if before < Some(grown) {
                prop_assert_eq!(after, before, "shares before it stay as they are");
            }
        }

        /// Buckets are equally likely: by the number of buckets that a share has, over all chances.
        #[test]
        fn chance_and_bucket_grow_together(one in any::<u64>(), other in any::<u64>()) {
            let (low, high) = (one.min(other), one.max(other));
            prop_assert!(Bucket::by_chance(low).number() <= Bucket::by_chance(high).number());
        }
    }
}
