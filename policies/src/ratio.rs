//! Represents a share between 0 and 1, exact to a millionth, compared without floating point.
//!
//! Invariant: 6 of 10 reaches 0.6, and a part of zero reaches no ratio.

/// Share in millionths, `0..=1_000_000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ratio(u32);

const WHOLE: u32 = 1_000_000;

impl Ratio {
    pub const ZERO: Ratio = Ratio(0);
    pub const ONE: Ratio = Ratio(WHOLE);

    /// Returns the ratio, rounded to the nearest millionth; `None` unless `value` is in `0.0..=1.0`.
    pub fn new(value: f64) -> Option<Ratio> {
        (0.0..=1.0)
            .contains(&value)
            .then(|| Ratio((value * f64::from(WHOLE)).round() as u32))
    }

    /// Returns the ratio; `None` if `millionths` is more than a million.
    pub const fn from_millionths(millionths: u32) -> Option<Ratio> {
        if millionths <= WHOLE {
            Some(Ratio(millionths))
        } else {
            None
        }
    }

    pub const fn millionths(self) -> u32 {
        self.0
    }

    /// Returns whether `part` of `whole` is at least this ratio. If `whole` is zero, no ratio is reached.
    pub const fn reached_by(self, part: u64, whole: u64) -> bool {
        part > 0 && part as u128 * WHOLE as u128 >= whole as u128 * self.0 as u128
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reached_exactly() {
        let check = |ratio, part, whole, expected| {
            assert_eq!(
                Ratio::new(ratio).unwrap().reached_by(part, whole),
                expected,
                "{part} of {whole}"
            );
        };
        check(0.6, 6, 10, true);
        check(0.6, 5, 10, false);
        check(0.3, 3, 10, true);
        check(1.0, 9, 10, false);
        check(1.0, 10, 10, true);
        check(0.0, 0, 10, false);
        check(0.0, 1, 10, true);
        check(0.5, 0, 0, false);
        check(1.0, u64::MAX, u64::MAX, true);
    }

    #[test]
    fn only_from_none_to_all() {
        let check = |value, expected| assert_eq!(Ratio::new(value).map(Ratio::millionths), expected);
        check(0.0, Some(0));
        check(0.2, Some(200_000));
        check(1.0, Some(1_000_000));
        check(1.000_001, None);
        check(-0.1, None);
        check(f64::NAN, None);
    }

    proptest! {
        #![proptest_config(cases::counted())]

        #[test]
        fn agrees_with_the_fraction(millionths in 0..=WHOLE, part in 1..1_000u64, whole in 1..1_000u64) {
            let naive = part as f64 / whole as f64 - f64::from(millionths) / f64::from(WHOLE);
            prop_assume!(naive.abs() > 1e-9);
            prop_assert_eq!(Ratio::from_millionths(millionths).unwrap().reached_by(part, whole), naive > 0.0);
        }
    }
}
