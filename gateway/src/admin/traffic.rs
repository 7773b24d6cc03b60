//! Converts counters and histograms for the admin API.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::observe::RouteMetrics;
use crate::observe::families::Family;
use crate::observe::histogram::Histogram;
use crate::observe::labels::{Class, Label};
use crate::rejection::Reason;

/// Outcomes of a route's requests since the start.
#[derive(Serialize)]
pub(super) struct Traffic {
    /// Counts by status class.
    requests: Map<String, Value>,
    /// Counts by reason, without reasons that never occurred.
    rejections: Map<String, Value>,
    /// Aggregates that were answered without all of their parts.
    incomplete: u64,
    duration: Times,
}

/// Requests and rejections since the start, of one route or of several.
#[derive(Serialize)]
pub(super) struct Totals {
    /// Counts by status class.
    requests: BTreeMap<&'static str, u64>,
    /// Counts by reason, without reasons that never occurred.
    rejections: BTreeMap<&'static str, u64>,
    /// Aggregates that were answered without all of their parts.
    incomplete: u64,
}

/// A histogram and its quantiles.
#[derive(Serialize)]
pub(super) struct Times {
    count: u64,
    sum_ms: f64,
    /// Estimated within a bucket; `null` while nothing is counted.
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    /// Upper bound of each bucket, in milliseconds; `null` for the last bucket, which has none.
    le_ms: Vec<Option<f64>>,
    /// Number of times at or below each bound.
    at_or_below: Vec<u64>,
}

impl Traffic {
    pub(super) fn of(route: &RouteMetrics) -> Self {
        Self {
            requests: counts(route.by::<Class>(Family::Requests)),
            rejections: occurred(route.by::<Reason>(Family::Rejections)),
            incomplete: route.count(Family::PartialResponses, ()),
            duration: Times::of(&route.duration),
        }
    }
}

impl Totals {
    pub(super) fn of(route: &RouteMetrics) -> Self {
        let mut totals = Self {
            requests: BTreeMap::new(),
            rejections: BTreeMap::new(),
            incomplete: 0,
        };
        totals.add(route);
        totals
    }

    pub(super) fn add(&mut self, route: &RouteMetrics) {
        for (class, count) in route.by::<Class>(Family::Requests) {
            *self.requests.entry(class.as_str()).or_default() += count;
        }
        for (reason, count) in route.by::<Reason>(Family::Rejections).filter(|(_, count)| *count > 0) {
            *self.rejections.entry(reason.as_str()).or_default() += count;
        }
        self.incomplete += route.count(Family::PartialResponses, ());
    }
}

/// Returns the number of 5xx answers and of all requests.
pub(super) fn failures_and_requests(route: &RouteMetrics) -> (u64, u64) {
    let all = route.by::<Class>(Family::Requests).map(|(_, count)| count).sum();
    (route.count(Family::Requests, Class::ServerError), all)
}

impl Times {
    pub(super) fn of(histogram: &Histogram) -> Self {
        let points: Vec<_> = histogram
            .cumulative()
            .map(|(bound, count)| (bound * 1e3, count))
            .collect();
        Self {
            count: points.last().map_or(0, |(_, total)| *total),
            sum_ms: histogram.sum_seconds() * 1e3,
            p50_ms: quantile(&points, 0.5),
            p99_ms: quantile(&points, 0.99),
            le_ms: points
                .iter()
                .map(|(bound, _)| bound.is_finite().then_some(*bound))
                .collect(),
            at_or_below: points.iter().map(|(_, count)| *count).collect(),
        }
    }
}

/// Returns the count of every label.
pub(super) fn counts<L: Label>(counted: impl Iterator<Item = (L, u64)>) -> Map<String, Value> {
    counted
        .map(|(label, count)| (label.as_str().to_owned(), count.into()))
        .collect()
}

/// Returns the counts that are not zero.
pub(super) fn occurred<L: Label>(counted: impl Iterator<Item = (L, u64)>) -> Map<String, Value> {
    counted
        .filter(|(_, count)| *count > 0)
        .map(|(label, count)| (label.as_str().to_owned(), count.into()))
        .collect()
}

/// Estimates a quantile, as Prometheus' `histogram_quantile` does: values are spread evenly within a bucket. Returns
/// the last bound for a value above it.
fn quantile(points: &[(f64, u64)], share: f64) -> Option<f64> {
    let total = points.last().map(|(_, total)| *total).filter(|total| *total > 0)?;
    let rank = share * total as f64;
    let mut below = (0.0, 0);
    for &(bound, count) in points {
        if count as f64 >= rank {
            if !bound.is_finite() {
                return Some(below.0);
            }
            let within = (rank - below.1 as f64) / (count - below.1).max(1) as f64;
            return Some(below.0 + (bound - below.0) * within);
        }
        below = (bound, count);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_lies_within_its_bucket() {
        let points = |counts: [u64; 3]| [(10.0, counts[0]), (20.0, counts[1]), (f64::INFINITY, counts[2])];
        for (counts, share, expected) in [
            ([0, 0, 0], 0.5, None),
            ([10, 10, 10], 0.5, Some(5.0)),
            ([0, 10, 10], 0.5, Some(15.0)),
            ([5, 10, 10], 0.5, Some(10.0)),
            ([0, 0, 10], 0.5, Some(20.0)),
            ([98, 100, 100], 0.99, Some(15.0)),
        ] {
            assert_eq!(quantile(&points(counts), share), expected, "{counts:?} {share}");
        }
    }
}
