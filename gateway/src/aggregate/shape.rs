//! Shapes one part's document in steps: take a sub-document, keep, drop, rename, copy, move, shape elements, fill in
//! defaults, in this order.
//!
//! Each step reads the text of the step before once and writes the remaining text.
//!
//! Invariant: what no step changes keeps its order, its nesting and its spelling. The text never grows beyond the room
//! that is given, so no answer can make a few names of the config fill the memory.

use std::borrow::Cow;

use super::path::{Path, PathMistake, RemainingPaths, Segment, into_elements, into_field};
use super::rewrite::{at_elements, at_objects, each_element, each_member, fill, find, put, remove, write_name};
use crate::json::{self, Cursor, Document, Kind, Value};

/// Shaping as written in the config.
#[derive(Debug, Clone, Default)]
pub struct ShapeDraft {
    /// Path of the sub-document to work on: field names and array indexes, without `*`.
    pub target: Option<String>,
    /// Paths to keep. Empty keeps everything.
    pub keep: Vec<String>,
    pub drop: Vec<String>,
    /// Pairs of a path and the new name of its last field, or a new path from the object that has the field.
    pub rename: Vec<(String, String)>,
    /// Pairs of a path and the path that its value is copied to.
    pub copies: Vec<(String, String)>,
    /// Pairs of a path and the path that its value is moved to.
    pub moves: Vec<(String, String)>,
    pub maps: Vec<MapDraft>,
    /// Pairs of a path and the value that is put there if there is none.
    pub defaults: Vec<(String, Document)>,
}

/// Shaping of each element of an array, as written in the config.
#[derive(Debug, Clone, Default)]
pub struct MapDraft {
    /// Path of the array. `None`: the document is the array.
    pub at: Option<String>,
    pub shape: ShapeDraft,
}

/// Compiled shaping.
#[derive(Debug, Clone, Default)]
pub struct Shape {
    target: Vec<Box<str>>,
    keep: Vec<Path>,
    drop: Vec<Path>,
    changes: Vec<Change>,
}

/// A step after the fields have been chosen.
#[derive(Debug, Clone)]
enum Change {
    Rename(Renames),
    Relocate(Relocation),
    /// Shapes each element of the arrays that the path leads to.
    Map(Vec<Segment>, Shape),
    Fill {
        parent: Vec<Segment>,
        names: Vec<Box<str>>,
        value: Document,
    },
}

/// New names for the fields of one object, or of each object that the path leads to.
#[derive(Debug, Clone)]
struct Renames {
    parent: Vec<Segment>,
    names: Vec<(Box<str>, Box<str>)>,
}

/// A value that gets another place in one object, or in each object that the path leads to.
#[derive(Debug, Clone)]
struct Relocation {
    parent: Vec<Segment>,
    from: Vec<Box<str>>,
    to: Vec<Box<str>>,
    /// The value stays where it was, too.
    copies: bool,
}

/// Invalid path, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeMistake {
    /// Key that it is written under.
    pub key: &'static str,
    pub path: String,
    pub mistake: PathMistake,
}

/// The shaped document would be longer than there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

/// Collects mistakes, and the places that values are put at.
#[derive(Default)]
struct Compiler {
    mistakes: Vec<ShapeMistake>,
    places: Vec<Vec<Segment>>,
}

impl Compiler {
    fn mistake(&mut self, key: &'static str, path: &str, mistake: PathMistake) {
        self.mistakes.push(ShapeMistake {
            key,
            path: path.to_owned(),
            mistake,
        });
    }

    fn parse(&mut self, key: &'static str, text: &str) -> Option<Path> {
        Path::parse(text)
            .map_err(|mistake| self.mistake(key, text, mistake))
            .ok()
    }

    fn parse_all(&mut self, key: &'static str, texts: &[String]) -> Vec<Path> {
        texts.iter().filter_map(|text| self.parse(key, text)).collect()
    }

    /// Parses a path without `*` into its names.
    fn names(&mut self, key: &'static str, text: &str) -> Option<Vec<Box<str>>> {
        let path = self.parse(key, text)?;
        let names = names(path.segments());
        if names.is_none() {
            self.mistake(key, text, PathMistake::Star);
        }
        names
    }

    /// Notes that a value is put at a place. No two values may have the same one.
    fn take(&mut self, parent: &[Segment], to: &[Box<str>]) -> Result<(), PathMistake> {
        if to.len() > MOST_NAMES {
            return Err(PathMistake::TooLong);
        }
        let names = to.iter().map(|name| Segment::Name(name.clone()));
        let place: Vec<_> = parent.iter().cloned().chain(names).collect();
        if self.places.contains(&place) {
            return Err(PathMistake::SameName);
        }
        self.places.push(place);
        Ok(())
    }

    fn rename(&mut self, path: &Path, to: &str, changes: &mut Vec<Change>) -> Result<(), PathMistake> {
        if to.is_empty() {
            return Err(PathMistake::EmptyName);
        }
        let Some((Segment::Name(from), parent)) = path.segments().split_last() else {
            return Err(PathMistake::Star);
        };
        let to = names(Path::parse(to)?.segments()).ok_or(PathMistake::Star)?;
        self.take(parent, &to)?;
        let [name] = &*to else {
            changes.push(Change::Relocate(Relocation {
                parent: parent.to_vec(),
                from: vec![from.clone()],
                to,
                copies: false,
            }));
            return Ok(());
        };
        let entry = (from.clone(), name.clone());
        let known = changes.iter_mut().find_map(|change| match change {
            Change::Rename(renames) if renames.parent == parent => Some(renames),
            _ => None,
        });
        match known {
            Some(renames) => renames.names.push(entry),
            None => changes.push(Change::Rename(Renames {
                parent: parent.to_vec(),
                names: vec![entry],
            })),
        }
        Ok(())
    }

    fn relocation(&mut self, from: &Path, to: &str, copies: bool) -> Result<Change, PathMistake> {
        let to = Path::parse(to)?;
        if *from == to {
            return Err(PathMistake::Itself);
        }
        let (from, to) = (from.segments(), to.segments());
        let most = from.len().min(to.len()) - 1;
        let common = (0..most).take_while(|at| from[*at] == to[*at]).count();
        let (parent, from) = from.split_at(common);
        let (Some(from), Some(to)) = (names(from), names(&to[common..])) else {
            return Err(PathMistake::UnequalStars);
        };
        self.take(parent, &to)?;
        Ok(Change::Relocate(Relocation {
            parent: parent.to_vec(),
            from,
            to,
            copies,
        }))
    }

    fn fill(path: &Path, value: &Document) -> Result<Change, PathMistake> {
        let segments = path.segments();
        let stars = segments.iter().rposition(|segment| *segment == Segment::Every);
        let (parent, rest) = segments.split_at(stars.map_or(0, |last| last + 1));
        match names(rest) {
            Some(names) if names.len() > MOST_NAMES => Err(PathMistake::TooLong),
            Some(names) if !names.is_empty() => Ok(Change::Fill {
                parent: parent.to_vec(),
                names,
                value: value.clone(),
            }),
            _ => Err(PathMistake::Star),
        }
    }

    fn shape(&mut self, draft: &ShapeDraft) -> Shape {
        let ShapeDraft {
            target,
            keep,
            drop,
            rename,
            copies,
            moves,
            maps,
            defaults,
        } = draft;
        let target = target.as_ref().and_then(|text| self.names("target", text));
        let keep = self.parse_all("keep", keep);
        let mut drop = self.parse_all("drop", drop);
        // A kept path wins over a dropped path that is equal or above it. A dropped path below a kept one stays.
        drop.retain(|dropped| !keep.iter().any(|kept| kept.is_within(dropped)));
        let mut changes = Vec::new();
        // First names that values may have.
        let mut known: Vec<Segment> = keep.iter().map(|path| path.segments()[0].clone()).collect();
        for (from, to) in rename {
            let Some(path) = self.parse("rename", from) else {
                continue;
            };
            let left_out = self.why_gone(&path, &keep, &drop, &known);
            let made = left_out.map_or_else(|| self.rename(&path, to, &mut changes), Err);
            if let Err(mistake) = made {
                self.mistake("rename", from, mistake);
            }
        }
        let firsts = |texts: &[(String, String)]| {
            let first = |(_, to): &(String, String)| Segment::Name(to.split('.').next().unwrap_or_default().into());
            texts.iter().map(first).collect::<Vec<_>>()
        };
        known.extend(firsts(rename));
        for (key, all, copy) in [("copy", copies, true), ("move", moves, false)] {
            for (from, to) in all {
                let Some(path) = self.parse(key, from) else { continue };
                let left_out = self.why_gone(&path, &keep, &drop, &known);
                match left_out.map_or_else(|| self.relocation(&path, to, copy), Err) {
                    Ok(change) => changes.push(change),
                    Err(mistake) => self.mistake(key, from, mistake),
                }
                known.extend(firsts(&[(from.clone(), to.clone())]));
            }
        }
        for MapDraft { at, shape } in maps {
            let at = match at {
                Some(text) => self.parse("map.at", text).map(|path| path.segments().to_vec()),
                None => Some(Vec::new()),
            };
            let mut inner = Self::default();
            let shape = inner.shape(shape);
            self.mistakes.append(&mut inner.mistakes);
            changes.extend(at.map(|at| Change::Map(at, shape)));
        }
        for (text, value) in defaults {
            let Some(path) = self.parse("defaults", text) else {
                continue;
            };
            match Self::fill(&path, value) {
                Ok(change) => changes.push(change),
                Err(mistake) => self.mistake("defaults", text, mistake),
            }
        }
        Shape {
            target: target.unwrap_or_default(),
            keep,
            drop,
            changes,
        }
    }

    /// Returns why there is never a value at a path, if that is certain: another step takes it away before.
    fn why_gone(&self, path: &Path, keep: &[Path], drop: &[Path], known: &[Segment]) -> Option<PathMistake> {
        let first = &path.segments()[0];
        let is_same = |other: &Segment| other == first || *other == Segment::Every || *first == Segment::Every;
        if !keep.is_empty() && !known.iter().any(is_same) {
            return Some(PathMistake::NotKept);
        }
        let is_new = known[keep.len()..].contains(first);
        let is_dropped = drop.iter().any(|dropped| path.is_within(dropped)) && !is_new;
        is_dropped.then_some(PathMistake::Dropped)
    }
}

/// Most names on the way to a value's new place. Keeps the document within a nesting depth that common parsers accept.
const MOST_NAMES: usize = 16;

impl Shape {
    /// Compiles the shaping. Returns all mistakes at once.
    pub fn compile(draft: &ShapeDraft) -> Result<Self, Vec<ShapeMistake>> {
        let mut compiler = Compiler::default();
        let shape = compiler.shape(draft);
        match compiler.mistakes.is_empty() {
            true => Ok(shape),
            false => Err(compiler.mistakes),
        }
    }

    /// Makes a shaping that keeps what is at these paths.
    pub(super) fn keeping(keep: Vec<Path>) -> Self {
        Self {
            keep,
            ..Self::default()
        }
    }

    /// Returns whether every document passes unchanged, so that it need not be parsed.
    pub fn is_identity(&self) -> bool {
        self.target.is_empty() && self.keep.is_empty() && self.drop.is_empty() && self.changes.is_empty()
    }

    fn target<'a>(&self, document: Value<'a>) -> Option<Value<'a>> {
        document.descend(self.target.iter().map(AsRef::as_ref))
    }

    /// Returns whether the document has a value at the target, possibly null.
    pub fn has_target(&self, document: Value<'_>) -> bool {
        self.target(document).is_some()
    }

    /// Returns the kind of the shaped document.
    pub(super) fn kind(&self, document: Value<'_>) -> Kind {
        match self.target(document).map(Value::kind) {
            None => Kind::Object,
            Some(kind @ (Kind::Null | Kind::Array | Kind::Object)) => kind,
            Some(scalar) if self.keep.is_empty() => scalar,
            Some(_) => Kind::Object,
        }
    }

    /// Appends the shaped document. A document without the target becomes an empty object; a null stays null.
    ///
    /// # Errors
    /// The document would become longer than `room` bytes. What has been appended is of no use.
    pub fn apply(&self, document: Value<'_>, room: usize, out: &mut Vec<u8>) -> Result<(), TooLong> {
        let Some(target) = self.target(document) else {
            out.extend_from_slice(EMPTY);
            return Ok(());
        };
        if target.is_null() {
            out.extend_from_slice(target.raw());
            return Ok(());
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
        for change in &self.changes {
            text = step(&text, |cursor, out| change.apply(cursor, room, out));
            if text.len() > room {
                return Err(TooLong);
            }
        }
        match text {
            Cow::Owned(text) if out.is_empty() => *out = text,
            text => out.extend_from_slice(&text),
        }
        Ok(())
    }
}

impl Change {
    /// Writes the changed document. Stops changing it when more than `room` bytes are written.
    fn apply(&self, cursor: &mut Cursor<'_>, room: usize, out: &mut Vec<u8>) {
        let unless_full = |value: Value<'_>, out: &mut Vec<u8>, change: &dyn Fn(Value<'_>, &mut Vec<u8>)| {
            if out.len() > room {
                out.extend_from_slice(EMPTY);
            } else {
                change(value, out);
            }
        };
        match self {
            Self::Rename(Renames { parent, names }) => at_objects(cursor, parent, out, &mut |object, out| {
                unless_full(object, out, &|object, out| rename_members(object, names, out));
            }),
            Self::Relocate(relocation) => at_objects(cursor, &relocation.parent, out, &mut |object, out| {
                unless_full(object, out, &|object, out| relocation.apply(object, out));
            }),
            Self::Map(at, shape) => at_elements(cursor, at, out, &mut |element, out| {
                unless_full(element, out, &|element, out| {
                    if element.is_null() {
                        out.extend_from_slice(element.raw());
                    } else if shape.apply(element, room, out).is_err() {
                        out.resize(room + 1, b' ');
                    }
                });
            }),
            Self::Fill { parent, names, value } if parent.is_empty() => {
                fill(cursor.skip(), names, (value.bytes(), room), out);
            }
            Self::Fill { parent, names, value } => at_objects(cursor, parent, out, &mut |object, out| {
                fill(object, names, (value.bytes(), room), out);
            }),
        }
    }
}

impl Relocation {
    fn apply(&self, object: Value<'_>, out: &mut Vec<u8>) {
        let Some(value) = find(object, &self.from) else {
            out.extend_from_slice(object.raw());
            return;
        };
        if self.copies {
            put(object, &self.to, value.raw(), out);
            return;
        }
        let mut rest = Vec::with_capacity(object.raw().len());
        remove(object, &self.from, &mut rest);
        put(Value::from_checked(&rest), &self.to, value.raw(), out);
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

/// Renames all fields at once, so that two names can be swapped. A renamed field replaces a field that had its new
/// name.
fn rename_members(object: Value<'_>, names: &[(Box<str>, Box<str>)], out: &mut Vec<u8>) {
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
        shape.apply(input.value(), usize::MAX, &mut output).unwrap();
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

    fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
        all.iter()
            .map(|(from, to)| (from.to_string(), to.to_string()))
            .collect()
    }

    #[test]
    fn a_new_name_may_be_a_path() {
        let check = |names: &[(&str, &str)], input, expected| {
            let draft = ShapeDraft {
                rename: pairs(names),
                ..ShapeDraft::default()
            };
            check(&draft, input, expected);
        };
        check(&[("a", "b.c")], r#"{"a":1.0,"d":2}"#, r#"{"d":2,"b":{"c":1.0}}"#);
        check(&[("a", "b.c")], r#"{"a":1,"b":{"d":2}}"#, r#"{"b":{"d":2,"c":1}}"#);
        check(
            &[("i.p", "net.p")],
            r#"{"i":[{"p":1},{}]}"#,
            r#"{"i":[{"net":{"p":1}},{}]}"#,
        );
        check(&[("a", "a.a")], r#"{"a":1}"#, r#"{"a":{"a":1}}"#);
    }

    #[test]
    fn values_are_moved_and_copied_between_paths() {
        let check = |from: &str, to: &str, input, moved, copied| {
            let pair = pairs(&[(from, to)]);
            let moves = ShapeDraft {
                moves: pair.clone(),
                ..ShapeDraft::default()
            };
            check(&moves, input, moved);
            let copies = ShapeDraft {
                copies: pair,
                ..ShapeDraft::default()
            };
            check(&copies, input, copied);
        };
        check(
            "a.b",
            "c",
            r#"{"a":{"b":1.50}}"#,
            r#"{"a":{},"c":1.50}"#,
            r#"{"a":{"b":1.50},"c":1.50}"#,
        );
        check(
            "a",
            "b.c",
            r#"{"a":[ 1 ],"b":{}}"#,
            r#"{"b":{"c":[ 1 ]}}"#,
            r#"{"a":[ 1 ],"b":{"c":[ 1 ]}}"#,
        );
        // What is there is replaced, also what is in the way.
        check(
            "a",
            "b.c",
            r#"{"a":1,"b":2}"#,
            r#"{"b":{"c":1}}"#,
            r#"{"a":1,"b":{"c":1}}"#,
        );
        check("a", "b", r#"{"b":0,"a":1}"#, r#"{"b":1}"#, r#"{"b":1,"a":1}"#);
        // Into itself, and out of itself.
        check(
            "a",
            "a.b",
            r#"{"a":{"c":1}}"#,
            r#"{"a":{"b":{"c":1}}}"#,
            r#"{"a":{"c":1,"b":{"c":1}}}"#,
        );
        check("a.b", "a", r#"{"a":{"b":1,"c":2}}"#, r#"{"a":1}"#, r#"{"a":1}"#);
        // In each element.
        check(
            "i.*.p.n",
            "i.*.n",
            r#"{"i":[{"p":{"n":1}},{"p":2},3]}"#,
            r#"{"i":[{"p":{},"n":1},{"p":2},3]}"#,
            r#"{"i":[{"p":{"n":1},"n":1},{"p":2},3]}"#,
        );
        check(
            "i.p",
            "i.n",
            r#"{"i":[{"p":1}]}"#,
            r#"{"i":[{"n":1}]}"#,
            r#"{"i":[{"p":1,"n":1}]}"#,
        );
        // Nowhere to take it from.
        for nothing in [r#"{"a":1}"#, r#"{"i":[1]}"#, "[]", "7"] {
            check("i.*.p", "i.*.q", nothing, nothing, nothing);
        }
    }

    #[test]
    fn moves_follow_each_other() {
        let draft = ShapeDraft {
            rename: pairs(&[("x", "a")]),
            copies: pairs(&[("a", "copy")]),
            moves: pairs(&[("a", "b"), ("b", "c.d")]),
            ..ShapeDraft::default()
        };
        check(&draft, r#"{"x":1}"#, r#"{"copy":1,"c":{"d":1}}"#);
    }

    #[test]
    fn defaults_stand_in_for_absent_values() {
        let check = |path: &str, input, expected| {
            let draft = ShapeDraft {
                defaults: vec![(path.into(), Document::of(&serde_json::json!({ "n": 0 })))],
                ..ShapeDraft::default()
            };
            check(&draft, input, expected);
        };
        check("a", "{}", r#"{"a":{"n":0}}"#);
        check("a", r#"{"a":null,"b":1}"#, r#"{"a":null,"b":1}"#);
        check("a.b", "{}", r#"{"a":{"b":{"n":0}}}"#);
        check("a.b", r#"{"a":{"c":1.0}}"#, r#"{"a":{"c":1.0,"b":{"n":0}}}"#);
        check("a.b", r#"{"a":7}"#, r#"{"a":7}"#);
        check("i.*.p", r#"{"i":[{"p":1},{},3]}"#, r#"{"i":[{"p":1},{"p":{"n":0}},3]}"#);
        check("i.p", r#"{"i":[{"p":1},{}]}"#, r#"{"i":[{"p":1},{"p":{"n":0}}]}"#);
        // Whether there should be a list is not known without `*`.
        check("i.*.p", "{}", "{}");
        check("i.p", "{}", r#"{"i":{"p":{"n":0}}}"#);
        check("*.p", r#"[{},{"p":1}]"#, r#"[{"p":{"n":0}},{"p":1}]"#);
    }

    #[test]
    fn a_map_shapes_each_element() {
        let element = ShapeDraft {
            target: Some("node".into()),
            keep: strings(&["id", "name"]),
            rename: pairs(&[("name", "title")]),
            defaults: vec![("title".into(), Document::of(&"none"))],
            ..ShapeDraft::default()
        };
        let check = |at: Option<&str>, input, expected| {
            let maps = vec![MapDraft {
                at: at.map(Into::into),
                shape: element.clone(),
            }];
            let draft = ShapeDraft {
                maps,
                ..ShapeDraft::default()
            };
            check(&draft, input, expected);
        };
        check(
            Some("edges"),
            r#"{"edges":[{"node":{"id":1.0,"name":"a","x":0}},{"node":{"id":2}},{},null],"n":3}"#,
            r#"{"edges":[{"id":1.0,"title":"a"},{"id":2,"title":"none"},{},null],"n":3}"#,
        );
        check(None, r#"[{"node":{"id":1,"name":"a"}}]"#, r#"[{"id":1,"title":"a"}]"#);
        check(None, r#"{"node":{"id":1}}"#, r#"{"node":{"id":1}}"#);
        check(
            Some("o.l"),
            r#"{"o":[{"l":[{"node":{}}]},{"l":7}]}"#,
            r#"{"o":[{"l":[{"title":"none"}]},{"l":7}]}"#,
        );
    }

    #[test]
    fn every_mistake_is_reported() {
        let draft = ShapeDraft {
            target: Some("a.*".into()),
            keep: strings(&["", "fine", "a", "b", "c", "d"]),
            drop: strings(&["a..b", "d.e"]),
            rename: pairs(&[
                ("*", "x"),
                ("a", ""),
                ("b", "y"),
                ("c", "y"),
                ("c.a", "b..c"),
                ("gone", "z"),
                ("d.e.f", "z"),
            ]),
            copies: pairs(&[("a.*.b", "a.c"), ("a", "a"), ("y", "b.y"), ("d.e", "d.f")]),
            moves: pairs(&[
                ("a", "b.y"),
                ("a.b", ""),
                ("gone", "a.z"),
                ("a", &vec!["x"; 17].join(".")),
            ]),
            maps: vec![MapDraft {
                at: Some("l.".into()),
                shape: ShapeDraft {
                    keep: strings(&["k"]),
                    moves: pairs(&[("m", "n")]),
                    ..ShapeDraft::default()
                },
            }],
            defaults: ["", "a.*", "*"].map(|path| (path.to_owned(), Document::of(&1))).into(),
        };
        let mistakes = Shape::compile(&draft).unwrap_err();
        let found: Vec<_> = mistakes
            .iter()
            .map(|ShapeMistake { path, mistake, .. }| (path.as_str(), *mistake))
            .collect();
        let expected = [
            ("a.*", PathMistake::Star),
            ("", PathMistake::Empty),
            ("a..b", PathMistake::EmptyName),
            ("*", PathMistake::Star),
            ("a", PathMistake::EmptyName),
            ("c", PathMistake::SameName),
            ("c.a", PathMistake::EmptyName),
            ("gone", PathMistake::NotKept),
            ("d.e.f", PathMistake::Dropped),
            ("a.*.b", PathMistake::UnequalStars),
            ("a", PathMistake::Itself),
            ("d.e", PathMistake::Dropped),
            ("a", PathMistake::SameName),
            ("a.b", PathMistake::Empty),
            ("gone", PathMistake::NotKept),
            ("a", PathMistake::TooLong),
            ("l.", PathMistake::EmptyName),
            ("m", PathMistake::NotKept),
            ("", PathMistake::Empty),
            ("a.*", PathMistake::Star),
            ("*", PathMistake::Star),
        ];
        assert_eq!(found, expected);
    }
}
