//! Carries over the rules that cut an answer to shape.

use std::collections::BTreeMap;

use serde_json::Value;

use super::left_out::LeftOut;
use super::object::text_of;
use crate::import::yaml::{Map, Yaml};

/// Rules by which an answer is cut to shape.
pub(super) struct Shape {
    /// Name of the part.
    pub(super) name: String,
    group: Option<String>,
    target: Option<String>,
    /// New name to old name.
    renamed: BTreeMap<String, String>,
    /// Name that an array is put under.
    collection: Option<String>,
}

impl Shape {
    pub(super) fn of(backend: &Value, name: String) -> Self {
        let is_collection = backend.get("is_collection") == Some(&Value::Bool(true));
        let mapping = backend.get("mapping").and_then(Value::as_object);
        let mut renamed: BTreeMap<_, _> = mapping
            .into_iter()
            .flatten()
            .filter_map(|(old, new)| Some((new.as_str()?.to_owned(), old.clone())))
            .collect();
        let collection = is_collection.then(|| {
            let named = renamed
                .iter()
                .find(|(_, old)| *old == "collection")
                .map(|(new, _)| new.clone());
            named.unwrap_or_else(|| "collection".to_owned())
        });
        if is_collection {
            renamed.retain(|_, old| old != "collection");
        }
        Self {
            name,
            group: text_of(backend, "group").map(str::to_owned),
            target: text_of(backend, "target").map(str::to_owned),
            renamed,
            collection,
        }
    }

    /// Returns the path into the answer itself of a path into the shaped one.
    pub(super) fn raw(&self, path: &str) -> String {
        let path = match &self.group {
            Some(group) => path
                .strip_prefix(group.as_str())
                .and_then(|rest| rest.strip_prefix('.'))
                .unwrap_or(path),
            None => path,
        };
        let path = match &self.collection {
            Some(collection) => path
                .strip_prefix(collection.as_str())
                .and_then(|rest| rest.strip_prefix('.'))
                .unwrap_or(path),
            None => path,
        };
        let (first, rest) = path.split_once('.').map_or((path, ""), |(first, rest)| (first, rest));
        let first = self.renamed.get(first).map_or(first, String::as_str);
        let mut raw = self
            .target
            .as_ref()
            .map_or(String::new(), |target| format!("{target}."));
        raw.push_str(first);
        if !rest.is_empty() {
            raw.push('.');
            raw.push_str(rest);
        }
        raw
    }

    pub(super) fn write(&self, backend: &Value, at: &str, part: &mut Map, left: &mut LeftOut) {
        if let Some(target) = &self.target {
            part.put("target", Yaml::text(target));
        }
        let list = |names: [&str; 2]| {
            let list = names.iter().find_map(|name| backend.get(name)?.as_array());
            list.map(|list| {
                list.iter()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })
            .unwrap_or_default()
        };
        let (keep, drop) = (list(["allow", "whitelist"]), list(["deny", "blacklist"]));
        if self.collection.is_some() && !(keep.is_empty() && drop.is_empty()) {
            left.note(format!("{at}: names in an array are those of its elements"));
        }
        let within = |paths: Vec<String>| {
            paths.into_iter().map(|path| match self.collection {
                Some(_) => path.strip_prefix("collection.").map_or(path.clone(), str::to_owned),
                None => path,
            })
        };
        if !keep.is_empty() {
            part.put("keep", Yaml::texts(within(keep)));
        }
        if !drop.is_empty() {
            part.put("drop", Yaml::texts(within(drop)));
        }
        if !self.renamed.is_empty() {
            let (deep, top): (Vec<_>, Vec<_>) = self.renamed.iter().partition(|(_, old)| old.contains('.'));
            for (_, old) in deep {
                left.add(&format!("{at}.mapping {old}"), "names at the top alone can be changed");
            }
            if !top.is_empty() {
                part.put(
                    "rename",
                    top.iter().fold(Map::default(), |all, (new, old)| {
                        all.with(old, Yaml::text(new.as_str()))
                    }),
                );
            }
        }
        part.put("group", Yaml::text(self.group.as_deref().unwrap_or(".")));
        if let Some(collection) = &self.collection {
            part.put("collection", Yaml::text(collection));
        }
        if text_of(backend, "encoding").is_some_and(|encoding| !matches!(encoding, "json" | "safejson" | "fast-json")) {
            left.add(&format!("{at}.encoding"), "a part is JSON");
        }
    }
}
