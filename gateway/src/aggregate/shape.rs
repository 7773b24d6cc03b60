//! Shapes one part's document in four steps: take a sub-document, keep, drop, rename, in this order.
//!
//! Each step reads the text of the step before once and writes the remaining text.
//!
//! Invariant: remaining fields keep their order, their nesting and their spelling.

use std::borrow::Cow;

use super::path::{Path, PathMistake, RemainingPaths, Segment, into_elements, into_field};
use crate::json::{self, Cursor, Kind, Name, Value};

/// Shaping as written in the config.
#[derive(Debug, Clone, Default)]
pub struct ShapeDraft {
    /// Path of the sub-document to work on: field names and array indexes, without `*`.
    pub target: Option<String>,
    /// Paths to keep. Empty keeps everything.
    pub keep: Vec<String>,
    pub drop: Vec<String>,
    /// Pairs of a path and the new name of its last field.
    pub rename: Vec<(String, String)>,
}

/// Compiled shaping.
#[derive(Debug, Clone, Default)]
pub struct Shape {
    target: Vec<Box<str>>,
    keep: Vec<Path>,
    drop: Vec<Path>,
    renames: Vec<Renames>,
}

/// New names for the fields of one object, or of each object that the path leads to.
#[derive(Debug, Clone)]
struct Renames {
    parent: Vec<Segment>,
    names: Vec<(Box<str>, Box<str>)>,
}

/// Invalid path, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeMistake {
    pub path: String,
    pub mistake: PathMistake,
}

impl Shape {
    /// Compiles the shaping. Returns all mistakes at once.
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
        // A kept path wins over a dropped path that is equal or above it. A dropped path below a kept one stays.
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

    /// Returns whether every document passes unchanged, so that it need not be parsed.
    pub fn is_identity(&self) -> bool {
        self.target.is_empty() && self.keep.is_empty() && self.drop.is_empty() && self.renames.is_empty()
    }

    fn target<'a>(&self, document: Value<'a>) -> Option<Value<'a>> {
        document.descend(self.target.iter().map(AsRef::as_ref))
    }

    /// Returns whether the document has a value at the target, possibly null.
    pub fn has_target(&self, document: Value<'_>) -> bool {
        self.target(document).is_some()
    }

    /// Appends the shaped document. A document without the target becomes an empty object; a null stays null.
    pub fn apply(&self, document: Value<'_>, out: &mut Vec<u8>) {
        let Some(target) = self.target(document) else {
            out.extend_from_slice(EMPTY);
            return;
        };
        if target.is_null() {
            out.extend_from_slice(target.raw());
            return;
        }
        let mut text = Cow::Borrowed(target.raw());
        if !self.keep.is_empty() {
            text = step(&text, |cursor, out| {
                if !keep(cursor, &rests(&self.keep), out) {
                    out.clear();
                    out.extend_from_slice(EMPTY);
                }
            });
        }
        if !self.drop.is_empty() {
            text = step(&text, |cursor, out| drop_from(cursor, &rests(&self.drop), out));
        }
        for Renames { parent, names } in &self.renames {
            text = step(&text, |cursor, out| rename(cursor, parent, names, out));
        }
        match text {
            Cow::Owned(text) if out.is_empty() => *out = text,
            text => out.extend_from_slice(&text),
        }
    }
}

const EMPTY: &[u8] = b"{}";

fn step<'a>(text: &[u8], change: impl FnOnce(&mut Cursor<'_>, &mut Vec<u8>)) -> Cow<'a, [u8]> {
    let mut out = Vec::with_capacity(text.len());
    change(&mut Cursor::new(Value::from_checked(text)), &mut out);
    Cow::Owned(out)
}

fn rests(paths: &[Path]) -> RemainingPaths<'_> {
    paths.iter().map(Path::segments).collect()
}

fn names(segments: &[Segment]) -> Option<Vec<Box<str>>> {
    let name = |segment: &Segment| match segment {
        Segment::Name(name) => Some(name.clone()),
        Segment::Every => None,
    };
    segments.iter().map(name).collect()
}

/// Writes the values that some path leads to. Returns whether there are any.
///
/// An object without kept fields is dropped. An array is kept, and so is each object in it, because the number and the
/// order of elements have a meaning.
fn keep(cursor: &mut Cursor<'_>, paths: &[&[Segment]], out: &mut Vec<u8>) -> bool {
    match cursor.kind() {
        Kind::Object => {
            let start = out.len();
            let mut is_empty = true;
            each_member(cursor, out, |cursor, name, out| {
                let rests = into_field(paths, &name.text());
                if rests.is_empty() {
                    cursor.skip();
                    return false;
                }
                write_name(name, out);
                let kept = if ends(&rests) {
                    out.extend_from_slice(cursor.skip().raw());
                    true
                } else {
                    keep(cursor, &rests, out)
                };
                is_empty &= !kept;
                kept
            });
            if is_empty {
                out.truncate(start);
            }
            !is_empty
        }
        Kind::Array => {
            let rests = into_elements(paths);
            if ends(&rests) {
                out.extend_from_slice(cursor.skip().raw());
                return true;
            }
            each_element(cursor, out, |cursor, out| {
                let is_object = cursor.kind() == Kind::Object;
                let kept = keep(cursor, &rests, out);
                if is_object && !kept {
                    out.extend_from_slice(EMPTY);
                }
                kept || is_object
            });
            true
        }
        _ => {
            cursor.skip();
            false
        }
    }
}

/// Writes everything except the values that a path leads to.
fn drop_from(cursor: &mut Cursor<'_>, paths: &[&[Segment]], out: &mut Vec<u8>) {
    match cursor.kind() {
        Kind::Object if !paths.is_empty() => each_member(cursor, out, |cursor, name, out| {
            let rests = into_field(paths, &name.text());
            if ends(&rests) {
                cursor.skip();
                return false;
            }
            write_name(name, out);
            drop_from(cursor, &rests, out);
            true
        }),
        Kind::Array if !paths.is_empty() => {
            let rests = into_elements(paths);
            if ends(&rests) {
                cursor.skip();
                out.extend_from_slice(b"[]");
                return;
            }
            each_element(cursor, out, |cursor, out| {
                drop_from(cursor, &rests, out);
                true
            });
        }
        _ => out.extend_from_slice(cursor.skip().raw()),
    }
}

fn ends(rests: &[&[Segment]]) -> bool {
    rests.iter().any(|rest| rest.is_empty())
}

/// Writes everything, with new field names in each object that `path` leads to.
fn rename(cursor: &mut Cursor<'_>, path: &[Segment], names: &[(Box<str>, Box<str>)], out: &mut Vec<u8>) {
    match (cursor.kind(), path.split_first()) {
        (Kind::Object, None) => rename_members(cursor, names, out),
        (Kind::Object, Some((segment, rest))) => each_member(cursor, out, |cursor, name, out| {
            write_name(name, out);
            if segment.admits(&name.text()) {
                rename(cursor, rest, names, out);
            } else {
                out.extend_from_slice(cursor.skip().raw());
            }
            true
        }),
        (Kind::Array, step) => {
            let rest = match step {
                Some((Segment::Every, rest)) => rest,
                _ => path,
            };
            each_element(cursor, out, |cursor, out| {
                rename(cursor, rest, names, out);
                true
            });
        }
        _ => out.extend_from_slice(cursor.skip().raw()),
    }
}

/// Renames all fields at once, so that two names can be swapped. A renamed field replaces a field that had its new
/// name.
fn rename_members(cursor: &mut Cursor<'_>, names: &[(Box<str>, Box<str>)], out: &mut Vec<u8>) {
    let object = cursor.skip();
    let is_there = |(from, _): &&(Box<str>, Box<str>)| object.members().any(|(name, _)| name.is(from));
    let found: Vec<_> = names.iter().filter(is_there).collect();
    if found.is_empty() {
        out.extend_from_slice(object.raw());
        return;
    }
    each_member(&mut Cursor::new(object), out, |cursor, name, out| {
        let field = cursor.skip();
        if let Some((_, to)) = found.iter().find(|(from, _)| name.is(from)) {
            json::write_string(to, out);
            out.push(b':');
        } else if found.iter().any(|(_, to)| name.is(to)) {
            return false;
        } else {
            write_name(name, out);
        }
        out.extend_from_slice(field.raw());
        true
    });
}

/// Writes an object. `write` writes one member with its name and returns whether to keep it. The cursor is at its
/// value.
fn each_member<'a>(
    cursor: &mut Cursor<'a>,
    out: &mut Vec<u8>,
    mut write: impl FnMut(&mut Cursor<'a>, Name<'a>, &mut Vec<u8>) -> bool,
) {
    out.push(b'{');
    cursor.enter();
    let mut before = out.len();
    while let Some(name) = cursor.name() {
        if write(cursor, name, out) {
            out.push(b',');
            before = out.len();
        } else {
            out.truncate(before);
        }
    }
    close(out, b'}');
}

/// Writes an array. `write` writes one element and returns whether to keep it.
fn each_element<'a>(
    cursor: &mut Cursor<'a>,
    out: &mut Vec<u8>,
    mut write: impl FnMut(&mut Cursor<'a>, &mut Vec<u8>) -> bool,
) {
    out.push(b'[');
    cursor.enter();
    let mut before = out.len();
    while cursor.element() {
        if write(cursor, out) {
            out.push(b',');
            before = out.len();
        } else {
            out.truncate(before);
        }
    }
    close(out, b']');
}

/// Replaces the last comma with the closing bracket.
fn close(out: &mut Vec<u8>, bracket: u8) {
    match out.last_mut() {
        Some(last) if *last == b',' => *last = bracket,
        _ => out.push(bracket),
    }
}

fn write_name(name: Name<'_>, out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(name.raw());
    out.extend_from_slice(b"\":");
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::json::Document;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    /// Compares the text, so that order and digits count.
    fn check(draft: &ShapeDraft, input: &str, expected: &str) {
        let shape = Shape::compile(draft).unwrap();
        let input = Document::check(&Bytes::copy_from_slice(input.as_bytes()), usize::MAX).unwrap();
        let mut output = b"before ".to_vec();
        shape.apply(input.value(), &mut output);
        let output = String::from_utf8(output).unwrap();
        assert_eq!(output, format!("before {expected}"), "{draft:?} on {input:?}");
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
        check("a", r#"{"a":null}"#, "null");
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
