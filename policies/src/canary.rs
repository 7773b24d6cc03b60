//! Judges whether outcomes got worse since a change: their share has jumped, and chance does not explain it.

/// Number of requests in a span of time, and of those that ended badly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    pub requests: u64,
    /// At most the number of requests.
    pub bad: u64,
}

impl Outcomes {
    /// Fewest bad outcomes that say anything.
    const FEWEST: u64 = 5;
    /// Growth of the share that is tolerated, beside its doubling.
    const TOLERATED: f64 = 0.02;
    /// Standard errors by which two shares must differ. Few, and thousands of routes that are judged each second for
    /// minutes would raise false alarms.
    const STANDARD_ERRORS: f64 = 6.0;

    /// Returns what happened after `earlier`, which counted the same things before.
    pub const fn since(self, earlier: Outcomes) -> Outcomes {
        Outcomes {
            requests: self.requests.saturating_sub(earlier.requests),
            bad: self.bad.saturating_sub(earlier.bad),
        }
    }

    /// Returns the share of bad outcomes, from 0 to 1; 0 without requests.
    pub fn share(self) -> f64 {
        self.bad as f64 / self.requests.max(1) as f64
    }

    /// Returns whether these outcomes are worse than those before: their share is more than twice as large and two points
    /// more, by the test of two proportions. Without requests before, nothing can be said.
    pub fn are_worse_than(self, before: Outcomes) -> bool {
        if before.requests == 0 || self.bad < Outcomes::FEWEST {
            return false;
        }
        let (share, usual) = (self.share(), before.share());
        if share <= 2.0 * usual + Outcomes::TOLERATED {
            return false;
        }
        let (now, then) = (self.requests as f64, before.requests as f64);
        let pooled = (self.bad + before.bad) as f64 / (now + then);
        let error = (pooled * (1.0 - pooled) * (1.0 / now + 1.0 / then)).sqrt();
        share - usual > Outcomes::STANDARD_ERRORS * error
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn outcomes(bad: u64, requests: u64) -> Outcomes {
        Outcomes { requests, bad }
    }

    #[test]
    fn a_jump_is_told_from_chance() {
        let check = |before: Outcomes, since: Outcomes, expected| {
            assert_eq!(since.are_worse_than(before), expected, "{before:?} {since:?}");
        };
        // A route that fails from now on.
        check(outcomes(0, 60), outcomes(4, 4), false);
        check(outcomes(0, 60), outcomes(5, 5), true);
        check(outcomes(10, 6000), outcomes(100, 200), true);
        // A share that doubles, or that is small.
        check(outcomes(100, 1000), outcomes(200, 1000), false);
        check(outcomes(0, 100_000), outcomes(19, 1000), false);
        check(outcomes(0, 100_000), outcomes(30, 1000), true);
        // Little is known of before, or nothing.
        check(outcomes(0, 3), outcomes(5, 5), false);
        check(outcomes(0, 0), outcomes(1000, 1000), false);
        // All was bad already.
        check(outcomes(50, 50), outcomes(500, 500), false);
    }

    proptest! {
        #![proptest_config(cases::counted())]

        #[test]
        fn fewer_bad_outcomes_are_never_worse(
            before in (0u64..1000, 0u64..1000), bad in 0u64..1000, good in 0u64..1000, fewer in 0u64..1000,
        ) {
            let before = outcomes(before.0, before.0 + before.1);
            let (more, fewer) = (outcomes(bad, bad + good), outcomes(bad.min(fewer), bad + good));
            prop_assert!(!fewer.are_worse_than(before) || more.are_worse_than(before) || more == fewer);
        }

        #[test]
        fn what_is_not_more_than_before_is_not_worse(bad in 0u64..1000, good in 0u64..1000, times in 1u64..1000) {
            let before = outcomes(bad * times, (bad + good) * times);
            prop_assert!(!outcomes(bad, bad + good).are_worse_than(before));
        }
    }
}
