//! Makes cross-origin rules of KrakenD's.

use serde_json::Value;

use super::duration::{duration, millis};
use crate::import::yaml::{Map, Yaml};

/// Returns the rules; `None` if they have no counterpart.
pub(super) fn cors(value: &Value) -> Option<Map> {
    let list = |name: &str| {
        let list = value.get(name).and_then(Value::as_array);
        list.map(|list| {
            list.iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
    };
    let origins = list("allow_origins")
        .filter(|origins| !origins.is_empty())
        .unwrap_or_else(|| vec!["*".to_owned()]);
    let credentials = value.get("allow_credentials") == Some(&Value::Bool(true));
    // Whoever may send credentials has to be named.
    if credentials && origins.iter().any(|origin| origin.contains('*'))
        || origins.len() > 1 && origins.iter().any(|origin| origin == "*")
    {
        return None;
    }
    let mut cors = Map::default().with("origins", Yaml::texts(origins));
    if let Some(methods) = list("allow_methods").filter(|methods| !methods.is_empty()) {
        cors.put("methods", Yaml::texts(methods));
    }
    for (theirs, ours) in [("allow_headers", "request_headers"), ("expose_headers", "expose")] {
        if let Some(fields) =
            list(theirs).filter(|fields| !fields.is_empty() && !fields.iter().any(|field| field == "*"))
        {
            cors.put(
                ours,
                Yaml::texts(fields.into_iter().map(|field| field.to_ascii_lowercase())),
            );
        }
    }
    if credentials {
        cors.put("credentials", Yaml::plain(true));
    }
    if let Some(time) = value
        .get("max_age")
        .and_then(Value::as_str)
        .and_then(duration)
        .filter(|time| millis(time) >= 1000.0)
    {
        cors.put("max_age", Yaml::plain(time));
    }
    Some(cors)
}
