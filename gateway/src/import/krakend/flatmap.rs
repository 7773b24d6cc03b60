//! Carries over flatmap filters: values that are dropped, renamed at the top, or moved.

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
    /// From where and to where, in order, after names have been changed.
    pub(super) moves: Vec<(String, String)>,
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
            moves: Vec::new(),
            collection: "collection".to_owned(),
        };
        for (number, operation) in operations.iter().enumerate() {
            let args = operation.get("args").and_then(Value::as_array);
            let args: Vec<_> = args.into_iter().flatten().filter_map(Value::as_str).collect();
            let is_made = match (operation.get("type").and_then(Value::as_str), args.as_slice()) {
                (Some("del"), paths) => paths.iter().all(|path| made.delete(path)),
                (Some("move"), [from, to]) => made.rename(from, to) || made.relocate(from, to),
                _ => false,
            };
            if !is_made {
                let path = format!("{at}.extra_config.proxy.flatmap_filter[{number}] {}", args.join(" "));
                left.add(&path, "values can be dropped, and moved within an object or an element");
            }
        }
        Some(made)
    }

    /// Drops what is at a path; elements of an array are gone through without being named.
    fn delete(&mut self, path: &str) -> bool {
        let Some(path) = self.before_moves(path) else {
            return false;
        };
        let mut steps = path.split('.').filter(|step| *step != "*");
        let Some(first) = steps.next() else { return false };
        let rest: Vec<_> = steps.collect();
        if rest.iter().any(|step| is_index(step)) {
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

    /// Returns where what is at a path was before the moves, which come after all that is dropped; `None` if it was not
    /// at one place.
    fn before_moves(&self, path: &str) -> Option<String> {
        let mut path = path.to_owned();
        for (from, to) in self.moves.iter().rev() {
            let within = |path: &str, place: &str| {
                let rest = path.strip_prefix(place)?;
                (rest.is_empty() || rest.starts_with('.')).then(|| rest.to_owned())
            };
            let (from, to) = (self.shown(from), self.shown(to));
            if let Some(rest) = within(&path, &to) {
                path = format!("{from}{rest}");
            } else if within(&to, &path).is_some() || within(&path, &from).is_some() {
                return None;
            }
        }
        Some(path)
    }

    /// Returns the path under which the filter sees a place of the answer.
    fn shown(&self, path: &str) -> String {
        match path.starts_with('*') {
            true => format!("{}.{path}", self.collection),
            false => path.to_owned(),
        }
    }

    /// Gives what is at the top another name.
    fn rename(&mut self, from: &str, to: &str) -> bool {
        let is_name = |path: &str| !path.is_empty() && !path.contains(['.', '*']);
        // After a move, the old name may be that of something else.
        let is_late = !self.moves.is_empty() && from != self.collection;
        if !is_name(from) || !is_name(to) || self.renamed.contains_key(to) || is_late {
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

impl Flatmap {
    /// Moves a value to another place of the same object or element.
    fn relocate(&mut self, from: &str, to: &str) -> bool {
        let own = |path: &str| -> Option<String> {
            let steps: Vec<_> = path.split('.').collect();
            let within = match steps.split_first() {
                Some((first, rest)) if *first == self.collection => rest.to_vec(),
                _ => steps,
            };
            let is_whole = within.len() == path.split('.').count();
            let is_sound = within.iter().all(|step| !step.is_empty() && !is_index(step));
            // A path into an array goes through its elements.
            let is_named = within.last().is_some_and(|last| *last != "*") && (is_whole || within[0] == "*");
            (is_sound && is_named).then(|| within.join("."))
        };
        let (Some(from), Some(to)) = (own(from), own(to)) else {
            return false;
        };
        let stars = |path: &str| path.rfind('*').map_or(String::new(), |end| path[..=end].to_owned());
        let is_taken = self.moves.iter().any(|(_, other)| *other == to) || self.renamed.contains_key(&to);
        if from == to || stars(&from) != stars(&to) || is_taken {
            return false;
        }
        self.moves.push((from, to));
        true
    }
}

fn is_index(step: &str) -> bool {
    step.bytes().all(|byte| byte.is_ascii_digit())
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
    fn values_move_within_their_object_or_element() {
        let (made, left) = read(json!([
            { "type": "move", "args": ["a", "renamed"] },
            { "type": "move", "args": ["renamed.b", "renamed.c.d"] },
            { "type": "move", "args": ["collection.*.x.y", "collection.*.y"] },
            { "type": "del", "args": ["renamed.c.d.secret", "collection.*.y.z", "other"] },
            { "type": "move", "args": ["deep.list.*.p", "deep.list.*.q.r"] },
        ]));
        let moves = [
            ("renamed.b", "renamed.c.d"),
            ("*.x.y", "*.y"),
            ("deep.list.*.p", "deep.list.*.q.r"),
        ];
        assert_eq!(made.moves, moves.map(|(from, to)| (from.to_owned(), to.to_owned())));
        assert_eq!(made.drop, ["a.b.secret", "x.y.z", "other"]);
        assert_eq!(made.renamed, BTreeMap::from([("renamed".to_owned(), "a".to_owned())]));
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn what_cannot_be_told_is_left_out() {
        let (made, left) = read(json!([
            { "type": "append", "args": ["a", "b"] },
            { "type": "del", "args": ["collection", "a.0.b"] },
            { "type": "move", "args": ["a.*.b", "c"] },
            { "type": "move", "args": ["a.0.b", "c"] },
            { "type": "move", "args": ["collection.*.b", "c"] },
            { "type": "move", "args": ["a.b", "a.c"] },
            { "type": "del", "args": ["a"] },
            { "type": "del", "args": ["a.b.c"] },
            { "type": "move", "args": ["x.y", "a.c"] },
        ]));
        assert!(made.drop.is_empty() && made.renamed.is_empty(), "{:?}", made.drop);
        assert_eq!(made.moves, [("a.b".to_owned(), "a.c".to_owned())]);
        assert_eq!(left.len(), 8, "{left:?}");
    }
}
