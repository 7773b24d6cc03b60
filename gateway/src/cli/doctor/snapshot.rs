//! State of a running gateway: the lists of its admin API, and its metrics.

use serde_json::Value;

/// Answers of the admin API.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    pub(super) backends: Vec<Value>,
    pub(super) routes: Vec<Value>,
    pub(super) tenants: Vec<Value>,
    /// Page of metrics in Prometheus' text format.
    pub(super) metrics: String,
}

impl Snapshot {
    /// Returns the sum of a metric over the samples that have all of these labels.
    pub(super) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let wanted: Vec<_> = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{value}\""))
            .collect();
        let samples = self.metrics.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (own, labels) = series.split_once('{').unwrap_or((series, ""));
            let fits = own == name && wanted.iter().all(|wanted| labels.contains(wanted));
            fits.then(|| value.parse::<f64>().ok()).flatten()
        });
        samples.sum()
    }
}

/// Returns a number at this place, written as a JSON pointer; 0 if there is none.
pub(super) fn number(value: &Value, pointer: &str) -> f64 {
    value.pointer(pointer).and_then(Value::as_f64).unwrap_or_default()
}

/// Returns the sum of all numbers of the object at this place.
pub(super) fn sum(value: &Value, pointer: &str) -> f64 {
    let object = value.pointer(pointer).and_then(Value::as_object);
    object
        .into_iter()
        .flatten()
        .filter_map(|(_, number)| number.as_f64())
        .sum()
}

pub(super) fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Returns the file and the line at this place; `None` if there is none.
pub(super) fn place(value: &Value, pointer: &str) -> Option<String> {
    let at = value.pointer(pointer)?;
    Some(format!("{}:{}", at["file"].as_str()?, at["line"].as_u64()?))
}
