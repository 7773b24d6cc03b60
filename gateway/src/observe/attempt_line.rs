//! Shows the attempts of a request in JSON, for the access log and the list of rejections.
//!
//! Times count from the start of the request. Fields that do not apply are left out.

use std::time::Duration;

use policies::Moment;
use serde::{Serialize, Serializer};

use super::attempts::Attempt;
use super::timestamp::millis;

#[derive(Serialize)]
struct AttemptLine<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    element: Option<u32>,
    backend: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<&'a str>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backoff_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_byte_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    took_ms: Option<f64>,
}

/// Writes `attempts` as a list. `started` is the start of the request.
pub(super) fn list<'a, S: Serializer>(
    attempts: impl Iterator<Item = &'a Attempt>,
    started: Moment,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(attempts.map(|attempt| AttemptLine::of(attempt, started)))
}

impl<'a> AttemptLine<'a> {
    fn of(attempt: &'a Attempt, started: Moment) -> Self {
        let unless_zero = |time: Duration| (time.as_micros() > 0).then(|| millis(time));
        Self {
            part: attempt.part.as_deref(),
            element: attempt.element,
            backend: &attempt.backend,
            endpoint: attempt.endpoint.as_deref(),
            outcome: attempt.outcome.as_str(),
            status: (attempt.status != 0).then_some(attempt.status),
            reason: attempt.reason,
            start_ms: attempt.started().map(|start| millis(start.since(started))),
            queue_ms: unless_zero(attempt.queued()),
            backoff_ms: unless_zero(attempt.backoff()),
            connect_ms: unless_zero(attempt.connecting()),
            first_byte_ms: attempt.first_byte().map(millis),
            took_ms: attempt.took().map(millis),
        }
    }
}
