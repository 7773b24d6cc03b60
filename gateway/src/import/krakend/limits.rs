//! Makes limits of KrakenD's rate limits.

use serde_json::Value;

use super::duration::{duration, millis};
use super::left_out::LeftOut;
use crate::import::yaml::{Map, Yaml};

/// Returns a limit of a rate and a capacity.
pub(super) fn rate(value: &Value, rate: &str, capacity: &str) -> Option<Map> {
    let number = value.get(rate)?.as_f64().filter(|rate| *rate > 0.0)?;
    let every = value
        .get("every")
        .and_then(Value::as_str)
        .and_then(duration)
        .map_or(1000.0, |time| millis(&time));
    let per_second = number * 1000.0 / every;
    let (count, unit) = [(1.0, "s"), (60.0, "min"), (3600.0, "h")]
        .into_iter()
        .map(|(seconds, unit)| (per_second * seconds, unit))
        .find(|(count, _)| *count >= 1.0 && (count - count.round()).abs() < 1e-6)
        .unwrap_or(((per_second * 3600.0).ceil(), "h"));
    let burst = value
        .get(capacity)
        .and_then(Value::as_f64)
        .filter(|burst| *burst >= 1.0)
        .unwrap_or(number.max(1.0));
    Some(
        Map::default()
            .with("rate", Yaml::plain(format!("{}/{unit}", count.round())))
            .with("burst", Yaml::plain(burst.ceil())),
    )
}

/// Adds the limits of an endpoint.
pub(super) fn router_limits(value: &Value, path: &str, limits: &mut Map, left: &mut LeftOut) {
    if let Some(limit) = rate(value, "max_rate", "capacity").or_else(|| rate(value, "maxRate", "capacity")) {
        limits.put("endpoint", limit.with("per", Yaml::plain("route")));
        left.note(format!("{path}.max_rate: refused with 429, where KrakenD answers 503"));
    }
    if let Some(limit) =
        rate(value, "client_max_rate", "client_capacity").or_else(|| rate(value, "clientMaxRate", "client_capacity"))
    {
        match value.get("strategy").and_then(Value::as_str) {
            Some("ip") if value.get("key").is_none() => {
                limits.put("client", limit.with("per", Yaml::plain("client_address")))
            }
            _ => {
                limits.put("client", limit.with("per", Yaml::plain("caller")));
                left.add(
                    &format!("{path}.strategy"),
                    "counted for each caller, that is, for each credential or address",
                );
            }
        }
    }
}
