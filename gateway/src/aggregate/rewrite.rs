//! Writes JSON anew with some of its values changed. Everything else is copied as it was written.
//!
//! The recursion is as deep as the document or the paths, whose depths are bounded.

use super::path::Segment;
use crate::json::{self, Cursor, Kind, Name, Value};

/// Writes an object. `write` writes one member with its name and returns whether to keep it. The cursor is at its
/// value.
pub(super) fn each_member<'a>(
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
pub(super) fn each_element<'a>(
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

pub(super) fn write_name(name: Name<'_>, out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(name.raw());
    out.extend_from_slice(b"\":");
}

/// Writes everything, with `change` applied to each object that `path` leads to.
pub(super) fn at_objects(
    cursor: &mut Cursor<'_>,
    path: &[Segment],
    out: &mut Vec<u8>,
    change: &mut dyn FnMut(Value<'_>, &mut Vec<u8>),
) {
    match (cursor.kind(), path.split_first()) {
        (Kind::Object, None) => change(cursor.skip(), out),
        (Kind::Object, Some((segment, rest))) => each_member(cursor, out, |cursor, name, out| {
            write_name(name, out);
            if segment.admits(&name.text()) {
                at_objects(cursor, rest, out, change);
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
                at_objects(cursor, rest, out, change);
                true
            });
        }
        _ => out.extend_from_slice(cursor.skip().raw()),
    }
}

/// Writes everything, with `change` applied to each element of each array that `path` leads to.
pub(super) fn at_elements(
    cursor: &mut Cursor<'_>,
    path: &[Segment],
    out: &mut Vec<u8>,
    change: &mut dyn FnMut(Value<'_>, &mut Vec<u8>),
) {
    match (cursor.kind(), path.split_first()) {
        (Kind::Array, None) => each_element(cursor, out, |cursor, out| {
            change(cursor.skip(), out);
            true
        }),
        (Kind::Array, Some((segment, rest))) => {
            let rest = if *segment == Segment::Every { rest } else { path };
            each_element(cursor, out, |cursor, out| {
                at_elements(cursor, rest, out, change);
                true
            });
        }
        (Kind::Object, Some((segment, rest))) => each_member(cursor, out, |cursor, name, out| {
            write_name(name, out);
            if segment.admits(&name.text()) {
                at_elements(cursor, rest, out, change);
            } else {
                out.extend_from_slice(cursor.skip().raw());
            }
            true
        }),
        _ => out.extend_from_slice(cursor.skip().raw()),
    }
}

/// Returns the value that names lead to from an object through objects.
pub(super) fn find<'a>(value: Value<'a>, names: &[Box<str>]) -> Option<Value<'a>> {
    names.iter().try_fold(value, |value, name| value.get(name))
}

/// Writes an object with `value` at the place that names lead to. Missing objects on the way are made. A value that is
/// on the way and is no object is replaced.
pub(super) fn put(object: Value<'_>, names: &[Box<str>], value: &[u8], out: &mut Vec<u8>) {
    let Some((first, rest)) = names.split_first() else {
        out.extend_from_slice(value);
        return;
    };
    if object.kind() != Kind::Object {
        nest(names, value, out);
        return;
    }
    let mut is_there = false;
    each_member(&mut Cursor::new(object), out, |cursor, name, out| {
        let own = cursor.skip();
        write_name(name, out);
        if name.is(first) {
            is_there = true;
            put(own, rest, value, out);
        } else {
            out.extend_from_slice(own.raw());
        }
        true
    });
    if !is_there {
        append(names, value, out);
    }
}

/// Writes an object without the member that names lead to.
pub(super) fn remove(object: Value<'_>, names: &[Box<str>], out: &mut Vec<u8>) {
    let (Some((first, rest)), Kind::Object) = (names.split_first(), object.kind()) else {
        out.extend_from_slice(object.raw());
        return;
    };
    each_member(&mut Cursor::new(object), out, |cursor, name, out| {
        let own = cursor.skip();
        if !name.is(first) {
            write_name(name, out);
            out.extend_from_slice(own.raw());
            return true;
        }
        if rest.is_empty() {
            return false;
        }
        write_name(name, out);
        remove(own, rest, out);
        true
    });
}

/// Writes everything, with `value` at the place that names lead to, unless there is one. Names pass through arrays.
/// Missing objects on the way are made. A value that is on the way and is neither object nor array stays. The value is
/// not added any more when more than `room` bytes are written.
pub(super) fn fill(whole: Value<'_>, names: &[Box<str>], (value, room): (&[u8], usize), out: &mut Vec<u8>) {
    let Some((first, rest)) = names.split_first().filter(|_| out.len() <= room) else {
        out.extend_from_slice(whole.raw());
        return;
    };
    match whole.kind() {
        Kind::Object => {
            let mut is_there = false;
            each_member(&mut Cursor::new(whole), out, |cursor, name, out| {
                let own = cursor.skip();
                write_name(name, out);
                if name.is(first) {
                    is_there = true;
                    fill(own, rest, (value, room), out);
                } else {
                    out.extend_from_slice(own.raw());
                }
                true
            });
            if !is_there {
                append(names, value, out);
            }
        }
        Kind::Array => each_element(&mut Cursor::new(whole), out, |cursor, out| {
            fill(cursor.skip(), names, (value, room), out);
            true
        }),
        _ => out.extend_from_slice(whole.raw()),
    }
}

/// Adds a member to the object at the end of `out`, which may be empty. The value is nested in objects, one for each
/// name after the first.
fn append(names: &[Box<str>], value: &[u8], out: &mut Vec<u8>) {
    let Some((first, rest)) = names.split_first() else {
        return;
    };
    out.pop();
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    json::write_string(first, out);
    out.push(b':');
    nest(rest, value, out);
    out.push(b'}');
}

/// Writes a value inside nested objects, one for each name, outermost first.
fn nest(names: &[Box<str>], value: &[u8], out: &mut Vec<u8>) {
    for name in names {
        out.push(b'{');
        json::write_string(name, out);
        out.push(b':');
    }
    out.extend_from_slice(value);
    out.resize(out.len() + names.len(), b'}');
}
