//! Bounds of values that several sections share.

use std::time::Duration;

use crate::config::fields::Fields;
use crate::config::mistake::{Code, Mistake};
use crate::config::span::At;
use crate::config::units::Ratio;

pub(super) const MS: Duration = Duration::from_millis(1);
pub(super) const HOUR: Duration = Duration::from_secs(3600);

/// A ratio of 0 would be met by a backend that never fails, and a share of 0 by no one.
pub(super) fn ratio_above_zero(f: &Fields<'_>, name: &str, ratio: &At<Ratio>) {
    if ratio.get() <= 0.0 {
        f.push(Mistake::new(
            Code::OutOfRange,
            ratio.span(),
            format!("`{}.{name}` must be above 0", f.path),
        ));
    }
}

pub(super) fn ratio(share: f64) -> Ratio {
    Ratio::new(share).expect("the defaults lie between 0 and 1")
}

/// Zero time would refuse every request.
pub(super) fn time_above_zero(f: &Fields<'_>, name: &str, limit: Option<&At<Duration>>) {
    if let Some(limit) = limit.filter(|limit| limit.is_zero()) {
        f.push(Mistake::new(
            Code::OutOfRange,
            limit.span(),
            format!("`{}.{name}` must be above 0", f.path),
        ));
    }
}
