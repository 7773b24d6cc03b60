//! Merges the values of parts that share an object of the answer on their group paths, such as `group: p.q` and
//! `group: p.r`.
//!
//! Invariant: at a place on the way of a group path, objects are merged name by name, whichever parts wrote them. At
//! any other place, the recipe's conflict rule decides between two values.

use super::deep;
use super::draft::Conflict;
use super::placed_member::MemberName;
use crate::json::{Kind, Name, Value};

/// Places in the answer on the way of group paths, as a tree.
#[derive(Debug, Clone, Default)]
pub(super) struct GroupPrefixes {
    below: Vec<(Box<str>, GroupPrefixes)>,
}

/// Two values at one place, which the recipe treats as an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Collision;

impl GroupPrefixes {
    /// Adds the places on the way to `path`: all of its names except the last.
    pub(super) fn add(&mut self, path: &[MemberName]) {
        let Some((_, way)) = path.split_last() else { return };
        let mut place = self;
        for name in way {
            let name = name.text();
            let index = place.below.iter().position(|(known, _)| **known == *name);
            let index = index.unwrap_or_else(|| {
                place.below.push((name.into(), Self::default()));
                place.below.len() - 1
            });
            place = &mut place.below[index].1;
        }
    }

    /// Returns the places within a member, if a group path leads through it.
    pub(super) fn within(&self, name: Name<'_>) -> Option<&Self> {
        let mut below = self.below.iter();
        below.find(|(known, _)| name.is(known)).map(|(_, within)| within)
    }
}

/// Merges two values at a place on the way of group paths.
pub(super) fn merged(
    present: Value<'_>,
    later: Value<'_>,
    passages: &GroupPrefixes,
    conflict: Conflict,
) -> Result<Vec<u8>, Collision> {
    let mut out = Vec::with_capacity(present.raw().len() + later.raw().len());
    add_merged(present, later, Some(passages), conflict, &mut out)?;
    Ok(out)
}

/// Appends the merge of two values. The recursion is as deep as the group paths, which are short.
fn add_merged(
    present: Value<'_>,
    later: Value<'_>,
    passages: Option<&GroupPrefixes>,
    conflict: Conflict,
    out: &mut Vec<u8>,
) -> Result<(), Collision> {
    let are_objects = present.kind() == Kind::Object && later.kind() == Kind::Object;
    let Some(passages) = passages.filter(|_| are_objects) else {
        match conflict {
            Conflict::First => out.extend_from_slice(present.raw()),
            Conflict::Last => out.extend_from_slice(later.raw()),
            Conflict::Deep | Conflict::Concat => {
                out.extend_from_slice(&deep::merged(present, later, conflict == Conflict::Concat));
            }
            Conflict::Error => return Err(Collision),
        }
        return Ok(());
    };
    let mut others: Vec<(Name<'_>, Value<'_>, bool)> = Vec::with_capacity(later.members().count());
    others.extend(later.members().map(|(name, value)| (name, value, false)));
    let mut by_name: Vec<u32> = (0..others.len() as u32).collect();
    by_name.sort_unstable_by(|one, other| others[*one as usize].0.cmp(&others[*other as usize].0));
    out.push(b'{');
    for (name, value) in present.members() {
        write_name(name, out);
        match by_name.binary_search_by(|other| others[*other as usize].0.cmp(&name)) {
            Ok(found) => {
                let other = &mut others[by_name[found] as usize];
                other.2 = true;
                add_merged(value, other.1, passages.within(name), conflict, out)?;
            }
            Err(_) => out.extend_from_slice(value.raw()),
        }
        out.push(b',');
    }
    for (name, value, _) in others.iter().filter(|(_, _, is_merged)| !is_merged) {
        write_name(*name, out);
        out.extend_from_slice(value.raw());
        out.push(b',');
    }
    match out.last_mut() {
        Some(last) if *last == b',' => *last = b'}',
        _ => out.push(b'}'),
    }
    Ok(())
}

fn write_name(name: Name<'_>, out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(name.raw());
    out.extend_from_slice(b"\":");
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use bytes::Bytes;

    use super::*;
    use crate::json::Document;

    fn document(text: &str) -> Document {
        Document::check(&Bytes::copy_from_slice(text.as_bytes()), usize::MAX).unwrap()
    }

    /// Checks a merge. `paths` are group paths relative to the place of the two values.
    fn check(paths: &[&str], present: &str, later: &str, conflict: Conflict, expected: Option<&str>) {
        let mut passages = GroupPrefixes::default();
        for path in paths {
            let names: Vec<MemberName> = path.split('.').map(MemberName::from).collect();
            passages.add(&names);
        }
        let (one, other) = (document(present), document(later));
        let found = merged(one.value(), other.value(), &passages, conflict).ok();
        let found = found.map(|text| String::from_utf8(text).unwrap());
        assert_eq!(found.as_deref(), expected, "{present} and {later}, {conflict:?}");
    }

    #[test]
    fn objects_on_the_way_are_merged_and_conflicts_settled_at_the_end() {
        let all = [
            Conflict::Last,
            Conflict::First,
            Conflict::Deep,
            Conflict::Concat,
            Conflict::Error,
        ];
        for conflict in all {
            check(
                &["q"],
                r#"{"q":1.0}"#,
                r#"{ "r" : 2 }"#,
                conflict,
                Some(r#"{"q":1.0,"r":2}"#),
            );
            check(&["q"], "{}", "{}", conflict, Some("{}"));
            check(
                &["q.x", "q.y"],
                r#"{"a":[1],"q":{"x":{"n":1}}}"#,
                r#"{"q":{"y":2},"b":null}"#,
                conflict,
                Some(r#"{"a":[1],"q":{"x":{"n":1},"y":2},"b":null}"#),
            );
            check(
                &["\u{e9}.x"],
                r#"{"\u00e9":{"x":1}}"#,
                "{\"\u{e9}\":{\"y\":2}}",
                conflict,
                Some(r#"{"\u00e9":{"x":1,"y":2}}"#),
            );
        }
        let (present, later) = (r#"{"q":{"x":{"n":1,"l":[1]}}}"#, r#"{"q":{"x":{"m":2,"l":[2]}}}"#);
        for (conflict, expected) in [
            (Conflict::Last, Some(r#"{"q":{"x":{"m":2,"l":[2]}}}"#)),
            (Conflict::First, Some(r#"{"q":{"x":{"n":1,"l":[1]}}}"#)),
            (Conflict::Deep, Some(r#"{"q":{"x":{"n":1,"l":[2],"m":2}}}"#)),
            (Conflict::Concat, Some(r#"{"q":{"x":{"n":1,"l":[1,2],"m":2}}}"#)),
            (Conflict::Error, None),
        ] {
            check(&["q.x"], present, later, conflict, expected);
        }
        for (conflict, expected) in [
            (Conflict::Last, Some(r#"{"q":{"x":1}}"#)),
            (Conflict::First, Some(r#"{"q":7}"#)),
            (Conflict::Deep, Some(r#"{"q":{"x":1}}"#)),
            (Conflict::Concat, Some(r#"{"q":{"x":1}}"#)),
            (Conflict::Error, None),
        ] {
            check(&["q.x"], r#"{"q":7}"#, r#"{"q":{"x":1}}"#, conflict, expected);
        }
    }

    #[test]
    fn many_members_find_their_own() {
        let (mut present, mut later, mut expected) = (String::new(), String::new(), String::new());
        for number in 0..500 {
            write!(present, "\"n{number}\":{number},").unwrap();
            write!(
                later,
                "\"{}\":-{number},",
                if number % 2 == 0 {
                    format!("n{number}")
                } else {
                    format!("m{number}")
                }
            )
            .unwrap();
            let sign = if number % 2 == 0 { "-" } else { "" };
            write!(expected, "\"n{number}\":{sign}{number},").unwrap();
        }
        for number in (1..500).step_by(2) {
            write!(expected, "\"m{number}\":-{number},").unwrap();
        }
        let object = |members: &str| format!("{{{}}}", members.trim_end_matches(','));
        check(
            &["x"],
            &object(&present),
            &object(&later),
            Conflict::Last,
            Some(&object(&expected)),
        );
    }
}
