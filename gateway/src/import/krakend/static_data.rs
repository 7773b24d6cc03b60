//! Carries over static data as what stands in for an answer.

use serde_json::{Map as Object, Value};

use super::left_out::LeftOut;
use crate::import::yaml::{Map, Yaml};

/// Data that KrakenD adds to answers.
pub(super) struct StaticData<'v> {
    data: &'v Object<String, Value>,
    /// Whether it is added when there is no good answer, or a part of it is missing.
    stands_in: bool,
    /// Whether it is added to good answers too.
    is_added: bool,
}

impl<'v> StaticData<'v> {
    /// Reads the data with its strategy; `None` if there is none, as KrakenD reads it.
    pub(super) fn read(value: &'v Value) -> Option<Self> {
        let data = value.get("data")?.as_object()?;
        let (stands_in, is_added) = match value.get("strategy").and_then(Value::as_str) {
            Some("success" | "complete") => (false, true),
            Some("errored" | "incomplete") => (true, false),
            _ => (true, true),
        };
        Some(Self {
            data,
            stands_in,
            is_added,
        })
    }

    /// Returns the names at the top of the data.
    pub(super) fn names(&self) -> impl Iterator<Item = &'v str> {
        self.data.keys().map(String::as_str)
    }

    /// Adds the data as the `fallback` of a route or of its parts, if there can be one. Returns whether it did.
    pub(super) fn put(&self, targets: &mut [&mut Map], is_possible: bool, at: &str, left: &mut LeftOut) -> bool {
        let path = format!("{at}.extra_config.proxy.static");
        if !self.stands_in || !is_possible {
            left.add(
                &path,
                "write a `fallback: [{ value: ... }]`, or `respond: { body: ... }`",
            );
            return false;
        }
        let data = Yaml::json(&Value::Object(self.data.clone()));
        let list = Yaml::List(vec![Map::default().with("value", data).into()]);
        for target in targets {
            target.put("fallback", list.clone());
        }
        if self.is_added {
            left.add(&path, "it stands in for a failed answer; good answers stay as they are");
        }
        true
    }
}
