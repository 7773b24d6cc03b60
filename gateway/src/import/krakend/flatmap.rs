//! Carries over flatmap filters, as far as they drop values or rename those at the top.

use std::collections::BTreeMap;

use serde_json::Value;

use super::left_out::LeftOut;
use super::object::proxy_of;

/// Changes that a filter makes, in terms of the answer as it came.
pub(super) struct Flatmap {
    /// Paths that are dropped.
    pub(super) drop: Vec<String>,
    /// New name to old name.
    pub(super) renamed: BTreeMap<String, String>,
    /// Name that an array is put under.
    pub(super) collection: String,
}

impl Flatmap {
    /// Returns whether a backend has a filter.
    pub(super) fn is_written(backend: &Value) -> bool {
        written(backend).is_some()
    }

    /// Reads the filter of a backend; `None` if it has none.
    pub(super) fn read(backend: &Value, at: &str, left: &mut LeftOut) -> Option<Self> {
        let operations = written(backend)?;
        let mut made = Self {
            drop: Vec::new(),
            renamed: BTreeMap::new(),
            collection: "collection".to_owned(),
        };
        for (number, operation) in operations.iter().enumerate() {
            let args = operation.get("args").and_then(Value::as_array);
            let args: Vec<_> = args.into_iter().flatten().filter_map(Value::as_str).collect();
            let is_made = match (operation.get("type").and_then(Value::as_str), args.as_slice()) {
                (Some("del"), paths) => paths.iter().all(|path| made.delete(path)),
                (Some("move"), [from, to]) => made.rename(from, to),
                _ => false,
            };
            if !is_made {
                let path = format!("{at}.extra_config.proxy.flatmap_filter[{number}] {}", args.join(" "));
                left.add(&path, "values can be dropped, and names at the top changed");
            }
        }
        Some(made)
    }

    /// Drops what is at a path; elements of an array are gone through without being named.
    fn delete(&mut self, path: &str) -> bool {
        let mut steps = path.split('.').filter(|step| *step != "*");
        let Some(first) = steps.next() else { return false };
        let rest: Vec<_> = steps.collect();
        if rest.iter().any(|step| step.bytes().all(|byte| byte.is_ascii_digit())) {
            return false;
        }
        let path = if first == self.collection {
            rest.join(".")
        } else {
            let first = self.renamed.get(first).map_or(first, String::as_str);
            [&[first], rest.as_slice()].concat().join(".")
        };
        if path.is_empty() {
            return false;
        }
        if !self.drop.contains(&path) {
            self.drop.push(path);
        }
        true
    }

    /// Gives what is at the top another name.
    fn rename(&mut self, from: &str, to: &str) -> bool {
        let is_name = |path: &str| !path.is_empty() && !path.contains(['.', '*']);
        if !is_name(from) || !is_name(to) || self.renamed.contains_key(to) {
            return false;
        }
        if from == self.collection {
            self.collection = to.to_owned();
        } else {
            let old = self.renamed.remove(from).unwrap_or_else(|| from.to_owned());
            self.renamed.insert(to.to_owned(), old);
        }
        true
    }
}

fn written(backend: &Value) -> Option<&Vec<Value>> {
    proxy_of(backend.get("extra_config")?)?
        .get("flatmap_filter")?
        .as_array()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(operations: Value) -> (Flatmap, Vec<String>) {
        let mut left = LeftOut::default();
        let backend = json!({ "extra_config": { "proxy": { "flatmap_filter": operations } } });
        let made = Flatmap::read(&backend, "b", &mut left).expect("there is one");
        (made, left.0)
    }

    #[test]
    fn paths_are_those_of_the_answer_as_it_came() {
        let (made, left) = read(json!([
            { "type": "move", "args": ["collection", "users"] },
            { "type": "del", "args": ["users.*.password", "users.*.address.*.zip"] },
            { "type": "move", "args": ["old", "new"] },
            { "type": "del", "args": ["new.secret", "other"] },
            { "type": "move", "args": ["new", "newest"] },
        ]));
        assert_eq!(made.collection, "users");
        assert_eq!(made.drop, ["password", "address.zip", "old.secret", "other"]);
        assert_eq!(made.renamed, BTreeMap::from([("newest".to_owned(), "old".to_owned())]));
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn changes_below_the_top_are_left_out() {
        let (made, left) = read(json!([
            { "type": "move", "args": ["a.b", "a.c"] },
            { "type": "append", "args": ["a", "b"] },
            { "type": "del", "args": ["collection", "a.0.b"] },
        ]));
        assert!(made.drop.is_empty() && made.renamed.is_empty(), "{:?}", made.drop);
        assert_eq!(left.len(), 3, "{left:?}");
    }
}
