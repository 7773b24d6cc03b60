//! Export of traces.

use std::path::PathBuf;
use std::time::Duration;

use super::ranges::MS;
use crate::config::reader::Read;
use crate::config::span::At;
use crate::config::units::Ratio;
use crate::config::value::Value;

/// Which traces are sent to a collector. Errors, refusals and slow requests are sent whatever `sample` says.
#[derive(Debug, Clone, PartialEq)]
pub struct Tracing {
    /// Collector that the traces are sent to.
    pub otlp: Otlp,
    /// Share of the traces that begin here. Of those that a caller has begun, the caller decides.
    pub sample: At<Ratio>,
    /// Whether requests are sent in any case that ended in an error, an incomplete answer or a refusal other than 429,
    /// or took longer than 99 of 100 of their route; 100 a second at most.
    pub tail: At<bool>,
    /// Name of the service in the traces.
    pub service: At<String>,
}

/// Collector that takes OpenTelemetry's protocol over HTTP, in JSON.
#[derive(Debug, Clone, PartialEq)]
pub struct Otlp {
    /// Whole address of the collector, such as `http://collector:4318/v1/traces`.
    pub url: At<String>,
    /// File with header fields for the collector, one `name: value` a line.
    pub headers_file: Option<At<PathBuf>>,
    /// Longest time of one export.
    pub time_limit: At<Duration>,
}

impl Read for Tracing {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let otlp = f.required("otlp");
            let ratio = |share| Ratio::new(share).expect("it is between 0 and 1");
            let tracing = Self {
                sample: f.within("sample", ratio(0.01), ratio(0.0)..=ratio(1.0)),
                tail: f.or("tail", true),
                service: f.or("service", "gateway".to_owned()),
                otlp: otlp?,
            };
            Some(tracing)
        })?
    }
}

impl Read for Otlp {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let url = f.required("url");
            let otlp = Self {
                headers_file: f.path("headers_file"),
                time_limit: f.within(
                    "time_limit",
                    Duration::from_secs(10),
                    100 * MS..=Duration::from_secs(60),
                ),
                url: url?,
            };
            Some(otlp)
        })?
    }
}
