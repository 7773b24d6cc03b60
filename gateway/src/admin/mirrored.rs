//! Converts the state of a route's mirror for the admin API.

use policies::Moment;
use serde::Serialize;
use serde_json::{Map, Value};

use super::breaker::word;
use super::traffic::{counts, occurred};
use crate::call::mirror::{Compare, Mirror};
use crate::observe::{Family, MirrorComparison, MirrorOutcome};

/// Copies of a route's requests since the start.
#[derive(Serialize)]
pub(super) struct Mirrored {
    in_flight: u32,
    /// State of the mirror's own breaker; `null` where the config turns the backend's breaker off.
    breaker: Option<&'static str>,
    /// Counts by outcome, without outcomes that never occurred.
    requests: Map<String, Value>,
    /// Counts by result; `null` if answers are not compared.
    comparisons: Option<Map<String, Value>>,
}

impl Mirrored {
    pub(super) fn of(mirror: &Mirror, now: Moment) -> Self {
        let metrics = &mirror.metrics;
        let comparisons = || counts(metrics.by::<MirrorComparison>(Family::MirrorComparisons));
        Self {
            in_flight: mirror.state.under_way(),
            breaker: mirror.breaker_state(now).map(word),
            requests: occurred(metrics.by::<MirrorOutcome>(Family::MirroredRequests)),
            comparisons: (mirror.compare != Compare::Off).then(comparisons),
        }
    }
}
