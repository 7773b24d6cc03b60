//! Cuts one part's document to what its recipe asks for: take a sub-document, keep, drop, rename, in this order.
//!
//! Invariant: fields that remain keep their order, their nesting and, in numbers, their digits.

use serde_json::{Map, Value};

use super::path::{Path, PathMistake, Rests, Segment, into_elements, into_field};

/// Shaping as written.
#[derive(Debug, Clone, Default)]
pub struct ShapeDraft {
    /// The sub-document to work on. Field names and array indexes between dots; no `*`.
    pub target: Option<String>,
    /// What to keep; empty keeps everything.
    pub keep: Vec<String>,
    pub drop: Vec<String>,
    /// From a path to the new last name.
    pub rename: Vec<(String, String)>,
}

/// Shaping as meant.
#[derive(Debug, Clone, Default)]
pub struct Shape {
    target: Vec<Box<str>>,
    keep: Vec<Path>,
    drop: Vec<Path>,
    renames: Vec<Renames>,
}

/// The new names of the fields of one object (or of each object that the path leads to).
#[derive(Debug, Clone)]
struct Renames {
    parent: Vec<Segment>,
    names: Vec<(Box<str>, Box<str>)>,
}

/// A path that cannot be followed, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeMistake {
    pub path: String,
    pub mistake: PathMistake,
}

impl Shape {
    /// Every mistake at once.
    pub fn compile(draft: &ShapeDraft) -> Result<Self, Vec<ShapeMistake>> {
        let mut mistakes = Vec::new();
        let mut parse = |text: &String| match Path::parse(text) {
            Ok(path) => Some(path),
            Err(mistake) => {
                mistakes.push(ShapeMistake {
                    path: text.clone(),
                    mistake,
                });
                None
            }
        };

        let target = draft.target.as_ref().and_then(|text| Some((text, parse(text)?)));
        let keep: Vec<Path> = draft.keep.iter().filter_map(&mut parse).collect();
        let mut drop: Vec<Path> = draft.drop.iter().filter_map(&mut parse).collect();
        let renames: Vec<_> = draft
            .rename
            .iter()
            .filter_map(|(from, to)| Some((from, parse(from)?, to)))
            .collect();

        let mut shape = Self::default();
        if let Some((text, path)) = target {
            match names(path.segments()) {
                Some(names) => shape.target = names,
                None => mistakes.push(ShapeMistake {
                    path: text.clone(),
                    mistake: PathMistake::Star,
                }),
            }
        }
        for (text, path, to) in renames {
            if let Err(mistake) = shape.add_rename(&path, to) {
                mistakes.push(ShapeMistake {
                    path: text.clone(),
                    mistake,
                });
            }
        }
        // What is kept by name is not dropped again by the same name or one above it; only what lies below.
        drop.retain(|dropped| !keep.iter().any(|kept| kept.is_within(dropped)));
        if mistakes.is_empty() {
            Ok(Self { keep, drop, ..shape })
        } else {
            Err(mistakes)
        }
    }

    fn add_rename(&mut self, path: &Path, to: &str) -> Result<(), PathMistake> {
        if to.is_empty() {
            return Err(PathMistake::EmptyName);
        }
        let Some((Segment::Name(from), parent)) = path.segments().split_last() else {
            return Err(PathMistake::Star);
        };
        let entry = (from.clone(), Box::from(to));
        match self.renames.iter_mut().find(|renames| renames.parent == parent) {
            Some(renames) if renames.names.iter().any(|(_, other)| **other == *to) => {
                return Err(PathMistake::SameName);
            }
            Some(renames) => renames.names.push(entry),
            None => self.renames.push(Renames {
                parent: parent.to_vec(),
                names: vec![entry],
            }),
        }
        Ok(())
    }

    /// Whether every document comes out as it went in, so that it need not be parsed.
    pub fn is_identity(&self) -> bool {
        self.target.is_empty() && self.keep.is_empty() && self.drop.is_empty() && self.renames.is_empty()
    }

    /// A target that is missing or null leaves an empty object.
    pub fn apply(&self, document: Value) -> Value {
        let mut value = document;
        if !self.target.is_empty() {
            value = descend(value, &self.target).unwrap_or_else(empty);
        }
        if !self.keep.is_empty() && !keep(&mut value, &rests(&self.keep)) {
            value = empty();
        }
        if !self.drop.is_empty() {
            drop_from(&mut value, &rests(&self.drop));
        }
        for Renames { parent, names } in &self.renames {
            each_object(&mut value, parent, &mut |object| rename(object, names));
        }
        value
    }
}

fn empty() -> Value {
    Value::Object(Map::new())
}

fn rests(paths: &[Path]) -> Rests<'_> {
    paths.iter().map(Path::segments).collect()
}

fn names(segments: &[Segment]) -> Option<Vec<Box<str>>> {
    let name = |segment: &Segment| match segment {
        Segment::Name(name) => Some(name.clone()),
        Segment::Every => None,
    };
    segments.iter().map(name).collect()
}

/// The value at the end of `names`; none where it is missing or null.
fn descend(mut value: Value, names: &[Box<str>]) -> Option<Value> {
    for name in names {
        value = match value {
            Value::Object(mut fields) => fields.swap_remove(&**name)?,
            Value::Array(mut elements) => {
                let index = name.parse::<usize>().ok().filter(|index| *index < elements.len())?;
                elements.swap_remove(index)
            }
            _ => return None,
        };
    }
    Some(value).filter(|value| !value.is_null())
}

/// Removes what no path leads to; says whether anything is left.
///
/// An object left empty goes too. An array stays, and so does each of its objects, since the number of elements
/// and their order mean something.
fn keep(value: &mut Value, paths: &[&[Segment]]) -> bool {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, field| {
                let rests = into_field(paths, name);
                !rests.is_empty() && (ends(&rests) || keep(field, &rests))
            });
            !fields.is_empty()
        }
        Value::Array(elements) => {
            let rests = into_elements(paths);
            if !ends(&rests) {
                elements.retain_mut(|element| {
                    let kept = keep(element, &rests);
                    kept || element.is_object()
                });
            }
            true
        }
        _ => false,
    }
}

/// Removes what a path leads to.
fn drop_from(value: &mut Value, paths: &[&[Segment]]) {
    match value {
        Value::Object(fields) => fields.retain(|name, field| {
            let rests = into_field(paths, name);
            if ends(&rests) {
                return false;
            }
            if !rests.is_empty() {
                drop_from(field, &rests);
            }
            true
        }),
        Value::Array(elements) => {
            let rests = into_elements(paths);
            if ends(&rests) {
                elements.clear();
            }
            for element in elements {
                drop_from(element, &rests);
            }
        }
        _ => {}
    }
}

fn ends(rests: &[&[Segment]]) -> bool {
    rests.iter().any(|rest| rest.is_empty())
}

fn each_object(value: &mut Value, path: &[Segment], change: &mut impl FnMut(&mut Map<String, Value>)) {
    match (value, path.split_first()) {
        (Value::Object(fields), None) => change(fields),
        (Value::Object(fields), Some((Segment::Name(name), rest))) => {
            if let Some(field) = fields.get_mut(&**name) {
                each_object(field, rest, change);
            }
        }
        (Value::Object(fields), Some((Segment::Every, rest))) => {
            for field in fields.values_mut() {
                each_object(field, rest, change);
            }
        }
        (Value::Array(elements), step) => {
            let rest = match step {
                Some((Segment::Every, rest)) => rest,
                _ => path,
            };
            for element in elements {
                each_object(element, rest, change);
            }
        }
        _ => {}
    }
}

/// All names change at once, so that two can be swapped; a renamed field takes the place of one that had its name.
fn rename(object: &mut Map<String, Value>, names: &[(Box<str>, Box<str>)]) {
    let found: Vec<_> = names.iter().filter(|(from, _)| object.contains_key(&**from)).collect();
    if found.is_empty() {
        return;
    }
    for (name, field) in std::mem::take(object) {
        if let Some((_, to)) = found.iter().find(|(from, _)| **from == *name) {
            object.insert(to.to_string(), field);
        } else if !found.iter().any(|(_, to)| **to == *name) {
            object.insert(name, field);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    /// Compares the text, so that order and digits count.
    fn check(draft: &ShapeDraft, input: &str, expected: &str) {
        let shape = Shape::compile(draft).unwrap();
        let output = shape.apply(serde_json::from_str(input).unwrap());
        assert_eq!(
            serde_json::to_string(&output).unwrap(),
            expected,
            "{draft:?} on {input}"
        );
    }

    #[test]
    fn target_takes_one_place() {
        let check = |path: &str, input, expected| {
            check(
                &ShapeDraft {
                    target: Some(path.into()),
                    ..ShapeDraft::default()
                },
                input,
                expected,
            );
        };
        check("a", r#"{"a":{"b":1},"c":2}"#, r#"{"b":1}"#);
        check("a.b", r#"{"a":{"b":[1,2]}}"#, "[1,2]");
        check("a.1.b", r#"{"a":[{"b":1},{"b":2}]}"#, "2");
        check("a.2", r#"{"a":[1,2]}"#, "{}");
        check("a.b", r#"{"a":1}"#, "{}");
        check("a", r#"{"a":null}"#, "{}");
        check("a", "7", "{}");
    }

    #[test]
    fn keep_leaves_only_what_is_named() {
        let check = |paths: &[&str], input, expected| {
            check(
                &ShapeDraft {
                    keep: strings(paths),
                    ..Default::default()
                },
                input,
                expected,
            )
        };
        check(&["b", "a"], r#"{"a":1,"b":2,"c":3}"#, r#"{"a":1,"b":2}"#);
        check(&["a.b"], r#"{"a":{"b":1,"c":2},"d":3}"#, r#"{"a":{"b":1}}"#);
        check(&["a.b", "a"], r#"{"a":{"b":1,"c":2}}"#, r#"{"a":{"b":1,"c":2}}"#);
        check(&["a.z", "b"], r#"{"a":{"b":1},"b":2}"#, r#"{"b":2}"#);
        check(&["a.z"], r#"{"a":{"b":1}}"#, "{}");
        check(&["a.z"], r#"{"a":1}"#, "{}");
        check(&["n"], r#"{"n":null,"m":1}"#, r#"{"n":null}"#);
        check(
            &["i.p"],
            r#"{"i":[{"p":1.50,"q":2},{"q":3},4]}"#,
            r#"{"i":[{"p":1.50},{}]}"#,
        );
        check(&["i.*.p"], r#"{"i":[{"p":1,"q":2}]}"#, r#"{"i":[{"p":1}]}"#);
        check(&["i.*"], r#"{"i":[1,[2]]}"#, r#"{"i":[1,[2]]}"#);
        check(&["i.p"], r#"{"i":[]}"#, r#"{"i":[]}"#);
        check(&["i.p"], r#"{"i":[[{"p":1,"q":2}]]}"#, r#"{"i":[[{"p":1}]]}"#);
        check(&["*.p"], r#"{"a":{"p":1,"q":2},"b":{"q":2}}"#, r#"{"a":{"p":1}}"#);
        check(
            &["*.p", "b.q"],
            r#"{"a":{"p":1,"q":2},"b":{"p":3,"q":4,"r":5}}"#,
            r#"{"a":{"p":1},"b":{"p":3,"q":4}}"#,
        );
        check(&["p"], r#"[{"p":1,"q":2}]"#, r#"[{"p":1}]"#);
    }

    #[test]
    fn drop_removes_what_is_named() {
        let check = |paths: &[&str], input, expected| {
            check(
                &ShapeDraft {
                    drop: strings(paths),
                    ..Default::default()
                },
                input,
                expected,
            )
        };
        check(&["a", "c"], r#"{"a":1,"b":2,"c":3}"#, r#"{"b":2}"#);
        check(&["a.b"], r#"{"a":{"b":1}}"#, r#"{"a":{}}"#);
        check(&["a.a", "a.a.c"], r#"{"a":{"a":{"c":1},"b":2}}"#, r#"{"a":{"b":2}}"#);
        check(&["z", "a.z", "b.z"], r#"{"a":{},"b":1}"#, r#"{"a":{},"b":1}"#);
        check(&["i.p"], r#"{"i":[{"p":1,"q":2},3]}"#, r#"{"i":[{"q":2},3]}"#);
        check(&["i.*.p"], r#"{"i":[{"p":1,"q":2}]}"#, r#"{"i":[{"q":2}]}"#);
        check(&["i.*"], r#"{"i":[1,2]}"#, r#"{"i":[]}"#);
        check(&["*.p"], r#"{"a":{"p":1,"q":2},"b":3}"#, r#"{"a":{"q":2},"b":3}"#);
    }

    #[test]
    fn drop_reaches_below_what_is_kept_and_no_further() {
        let check = |keep: &[&str], drop: &[&str], expected| {
            let draft = ShapeDraft {
                keep: strings(keep),
                drop: strings(drop),
                ..Default::default()
            };
            check(&draft, r#"{"a":{"b":1,"c":2},"d":3}"#, expected);
        };
        check(&["a"], &["a.c"], r#"{"a":{"b":1}}"#);
        check(&["a"], &["a"], r#"{"a":{"b":1,"c":2}}"#);
        check(&["a.b"], &["a"], r#"{"a":{"b":1}}"#);
    }

    #[test]
    fn rename_changes_names_in_place() {
        let check = |names: &[(&str, &str)], input, expected| {
            let rename = names
                .iter()
                .map(|(from, to)| (from.to_string(), to.to_string()))
                .collect();
            check(
                &ShapeDraft {
                    rename,
                    ..Default::default()
                },
                input,
                expected,
            );
        };
        check(&[("a", "z")], r#"{"a":1,"b":2}"#, r#"{"z":1,"b":2}"#);
        check(&[("q", "z")], r#"{"a":1}"#, r#"{"a":1}"#);
        check(&[("a", "b"), ("b", "a")], r#"{"a":1,"b":2}"#, r#"{"b":1,"a":2}"#);
        check(&[("a", "b")], r#"{"a":1,"b":2,"c":3}"#, r#"{"b":1,"c":3}"#);
        check(&[("a", "b")], r#"{"b":2,"a":1}"#, r#"{"b":1}"#);
        check(&[("q", "b")], r#"{"b":2,"a":1}"#, r#"{"b":2,"a":1}"#);
        check(
            &[("i.p", "price")],
            r#"{"i":[{"p":1},{"q":2}]}"#,
            r#"{"i":[{"price":1},{"q":2}]}"#,
        );
        check(
            &[("*.p", "price")],
            r#"{"a":{"p":1},"b":2}"#,
            r#"{"a":{"price":1},"b":2}"#,
        );
    }

    #[test]
    fn every_mistake_is_reported() {
        let draft = ShapeDraft {
            target: Some("a.*".into()),
            keep: strings(&["", "fine"]),
            drop: strings(&["a..b"]),
            rename: [("*", "x"), ("a", ""), ("b", "y"), ("c", "y")]
                .map(|(from, to)| (from.into(), to.into()))
                .into(),
        };
        let mistakes = Shape::compile(&draft).unwrap_err();
        let found: Vec<_> = mistakes
            .iter()
            .map(|ShapeMistake { path, mistake }| (path.as_str(), *mistake))
            .collect();
        let expected = [
            ("", PathMistake::Empty),
            ("a..b", PathMistake::EmptyName),
            ("a.*", PathMistake::Star),
            ("*", PathMistake::Star),
            ("a", PathMistake::EmptyName),
            ("c", PathMistake::SameName),
        ];
        assert_eq!(found, expected);
    }
}
