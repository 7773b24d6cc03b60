//! Closes routes whose guards have no counterpart, so that nothing is open that was not.

use serde_json::Value;

use super::left_out::LeftOut;
use crate::import::yaml::{Map, Yaml};

/// Sections that refuse requests, under their names of now and of before.
const GUARDS: [&str; 7] = [
    "auth/api-keys",
    "auth/basic",
    "auth/signer",
    "security/policies",
    "validation/cel",
    "github.com/devopsfaith/krakend-cel",
    "github.com/devopsfaith/krakend-jose/signer",
];

/// Returns whether a section of `extra_config` is a guard without a counterpart.
pub(super) fn is_guard(section: &str) -> bool {
    GUARDS.contains(&section)
}

/// Returns access that nobody has, and notes the guard that it stands for.
pub(super) fn closed(guard: &str, left: &mut LeftOut) -> Map {
    left.add(guard, "the route is closed until you say who may use it");
    let deny = Map::default().with("deny", Yaml::texts(["0.0.0.0/0", "::/0"]));
    Map::default()
        .with("any_of", Yaml::texts(["anonymous"]))
        .with("addresses", deny)
}

/// Returns the paths of the guards of a backend, whose place in the configuration is `at`.
pub(super) fn guards_of(backend: &Value, at: &str) -> Vec<String> {
    let extra = backend.get("extra_config").and_then(Value::as_object);
    let names = extra.into_iter().flatten().map(|(name, _)| name.as_str());
    names
        .filter(|name| is_guard(name))
        .map(|name| format!("{at}.extra_config.{name}"))
        .collect()
}
