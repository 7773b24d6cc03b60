//! Carries over the rules that cut an answer to shape.

use std::collections::BTreeMap;

use serde_json::Value;

use super::flatmap::Flatmap;
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
    /// From where and to where, after names have been changed.
    moves: Vec<(String, String)>,
    /// Name that an array is put under.
    collection: Option<String>,
    keep: Vec<String>,
    drop: Vec<String>,
}

/// Keys of a backend that cut its answer to shape.
const KEYS: [&str; 8] = [
    "allow",
    "deny",
    "whitelist",
    "blacklist",
    "mapping",
    "group",
    "target",
    "is_collection",
];

/// Name that KrakenD puts an array under.
const COLLECTION: &str = "collection";

impl Shape {
    /// Returns whether a backend has rules for the shape of its answer.
    pub(super) fn is_written(backend: &Value) -> bool {
        let has = |key: &&str| backend.get(key).is_some_and(|value| *value != Value::Bool(false));
        KEYS.iter().any(has) || is_array_tolerated(backend) || Flatmap::is_written(backend)
    }

    /// Returns whether a backend declares an array, and has no other rule for its shape.
    pub(super) fn is_array_alone(backend: &Value) -> bool {
        let rest = || KEYS.iter().filter(|key| **key != "is_collection");
        let is_array = backend.get("is_collection") == Some(&Value::Bool(true));
        is_array && !Flatmap::is_written(backend) && rest().all(|key| backend.get(key).is_none())
    }

    pub(super) fn of(backend: &Value, name: String, at: &str, left: &mut LeftOut) -> Self {
        let is_collection = backend.get("is_collection") == Some(&Value::Bool(true));
        let list = |names: [&str; 2]| {
            let list = names.iter().find_map(|name| backend.get(name)?.as_array());
            let texts = list.into_iter().flatten().filter_map(Value::as_str);
            texts.map(str::to_owned).collect::<Vec<_>>()
        };
        let (mut keep, mut drop) = (list(["allow", "whitelist"]), list(["deny", "blacklist"]));
        let mapping = backend.get("mapping").and_then(Value::as_object);
        let mut renamed: BTreeMap<_, _> = mapping
            .into_iter()
            .flatten()
            .filter_map(|(old, new)| Some((new.as_str()?.split('.').next()?.to_owned(), old.clone())))
            .collect();
        let mut array = COLLECTION.to_owned();
        let mut moves = Vec::new();
        if let Some(flatmap) = Flatmap::read(backend, at, left) {
            if !(keep.is_empty() && drop.is_empty() && renamed.is_empty()) {
                left.note(format!(
                    "{at}: beside flatmap_filter, KrakenD uses no allow, deny or mapping"
                ));
            }
            (keep, drop, renamed, array) = (Vec::new(), flatmap.drop, flatmap.renamed, flatmap.collection);
            moves = flatmap.moves;
        } else if let Some(new) = renamed
            .iter()
            .find(|(_, old)| *old == COLLECTION)
            .map(|(new, _)| new.clone())
        {
            renamed.remove(&new);
            array = new;
        }
        let collection = (is_collection || is_array_tolerated(backend)).then_some(array);
        if is_collection && !(keep.is_empty() && drop.is_empty()) && !Flatmap::is_written(backend) {
            left.note(format!("{at}: names in an array are those of its elements"));
        }
        if collection.is_some() {
            // The array as a whole.
            if keep.iter().any(|path| path == COLLECTION) {
                keep.clear();
            }
            for path in keep.iter_mut().chain(&mut drop) {
                if let Some(within) = path.strip_prefix("collection.") {
                    *path = within.to_owned();
                }
            }
        }
        Self {
            name,
            group: text_of(backend, "group").map(str::to_owned),
            target: text_of(backend, "target").map(str::to_owned),
            renamed,
            moves,
            collection,
            keep,
            drop,
        }
    }

    /// Returns whether a value with these names at its top comes out of the rules at the root, as it is.
    pub(super) fn passes<'n>(&self, mut names: impl Iterator<Item = &'n str>) -> bool {
        let is_whole = self.group.is_none() && self.target.is_none() && self.keep.is_empty();
        let is_named = |name: &str| {
            self.drop.iter().any(|path| path.split('.').next() == Some(name))
                || self.renamed.values().any(|old| old == name)
                || self
                    .moves
                    .iter()
                    .any(|(from, to)| [from, to].iter().any(|path| path.split('.').next() == Some(name)))
        };
        is_whole && !names.any(is_named)
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
        let mut path = path.to_owned();
        for (from, to) in self.moves.iter().rev() {
            if let Some(rest) = path
                .strip_prefix(to.as_str())
                .filter(|rest| rest.is_empty() || rest.starts_with('.'))
            {
                path = format!("{from}{rest}");
            }
        }
        let (first, rest) = path.split_once('.').map_or((&*path, ""), |(first, rest)| (first, rest));
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

    /// Returns whether the answer of this backend alone, as `json-collection`, is its array.
    pub(super) fn is_array(&self) -> bool {
        self.group.is_none() && self.collection.as_deref() == Some(COLLECTION)
    }

    /// Writes the rules. A part that is the whole document has no place in one.
    pub(super) fn write(&self, backend: &Value, at: &str, is_document: bool, part: &mut Map, left: &mut LeftOut) {
        if let Some(target) = &self.target {
            part.put("target", Yaml::text(target));
        }
        if !self.keep.is_empty() {
            part.put("keep", Yaml::texts(&self.keep));
        }
        if !self.drop.is_empty() {
            part.put("drop", Yaml::texts(&self.drop));
        }
        let (deep, top): (Vec<_>, Vec<_>) = self.renamed.iter().partition(|(_, old)| old.contains('.'));
        for (_, old) in deep {
            left.add(&format!("{at}.mapping {old}"), "names at the top alone can be changed");
        }
        if !top.is_empty() {
            let names = top.iter().fold(Map::default(), |all, (new, old)| {
                all.with(old, Yaml::text(new.as_str()))
            });
            part.put("rename", names);
        }
        if !self.moves.is_empty() {
            let moves = self.moves.iter().fold(Map::default(), |all, (from, to)| {
                all.with(from, Yaml::text(to.as_str()))
            });
            part.put("move", moves);
        }
        if !is_document {
            part.put("group", Yaml::text(self.group.as_deref().unwrap_or(".")));
            if let Some(collection) = &self.collection {
                part.put("collection", Yaml::text(collection));
            }
        }
        if text_of(backend, "encoding").is_some_and(|encoding| !matches!(encoding, "json" | "safejson" | "fast-json")) {
            left.add(&format!("{at}.encoding"), "a part is JSON");
        }
    }
}

/// Returns whether an answer may be an array without being declared as one.
fn is_array_tolerated(backend: &Value) -> bool {
    text_of(backend, "encoding") == Some("safejson")
}
