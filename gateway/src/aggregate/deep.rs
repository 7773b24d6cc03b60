//! Merges two JSON values into one: objects member by member, at any depth.
//!
//! The first value is read once. The second is read twice: to count its members at all depths, and to index them in an
//! outline.

use std::ops::Range;

use crate::json::{self, Cursor, Kind, Name, Value};

/// Objects with at most this number of members are searched linearly.
const FEW: usize = 16;

/// Members of an object and of its nested objects. Each member comes before its nested members.
struct Outline<'a> {
    of: Value<'a>,
    members: Vec<Member>,
}

struct Member {
    name: (u32, u32),
    value: (u32, u32),
    /// Index in the outline one past the member's nested members.
    end: u32,
    is_merged: bool,
}

/// Merges objects member by member. Appends arrays if `appends` is set. For any other pair, takes the later value.
pub(super) fn merged(present: Value<'_>, later: Value<'_>, appends: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(present.raw().len() + later.raw().len());
    let mut outline = Outline::of(later);
    let all = 0..outline.members.len();
    let mut merge = Merge {
        later: &mut outline,
        appends,
        out: &mut out,
    };
    merge.values(&mut Cursor::new(present), later, all);
    out
}

impl<'a> Outline<'a> {
    fn of(value: Value<'a>) -> Self {
        let mut outline = Self {
            of: value,
            // Count first, so that the vector gets exactly the capacity that it needs.
            members: Vec::with_capacity(count(&mut Cursor::new(value))),
        };
        outline.add(&mut Cursor::new(value));
        outline
    }

    /// Adds the members of the value at the cursor. The recursion is as deep as the document.
    fn add(&mut self, cursor: &mut Cursor<'_>) {
        if cursor.kind() != Kind::Object {
            cursor.skip();
            return;
        }
        cursor.enter();
        while let Some(name) = cursor.name() {
            let (own, start) = (self.members.len(), cursor.at());
            self.members.push(Member {
                name: json::range(self.of.raw(), name.raw()),
                value: (0, 0),
                end: 0,
                is_merged: false,
            });
            self.add(cursor);
            let end = self.members.len();
            self.members[own].value = (start as u32, cursor.at() as u32);
            self.members[own].end = end as u32;
        }
    }

    fn name(&self, member: usize) -> Name<'a> {
        let (start, end) = self.members[member].name;
        Name::from_checked(&self.of.raw()[start as usize..end as usize])
    }

    fn value(&self, member: usize) -> Value<'a> {
        let (start, end) = self.members[member].value;
        Value::from_checked(&self.of.raw()[start as usize..end as usize])
    }

    /// Outline range of a member's nested members.
    fn within(&self, member: usize) -> Range<usize> {
        member + 1..self.members[member].end as usize
    }

    /// Outermost members of a range of the outline.
    fn own(&self, of: Range<usize>) -> impl Iterator<Item = usize> {
        let next = move |member: usize| (member < of.end).then_some(member);
        std::iter::successors(next(of.start), move |member| next(self.members[*member].end as usize))
    }
}

/// Number of members in the outline of the value at the cursor.
fn count(cursor: &mut Cursor<'_>) -> usize {
    if cursor.kind() != Kind::Object {
        cursor.skip();
        return 0;
    }
    cursor.enter();
    let mut found = 0;
    while cursor.name().is_some() {
        found += 1 + count(cursor);
    }
    found
}

struct Merge<'m, 'a> {
    later: &'m mut Outline<'a>,
    appends: bool,
    out: &'m mut Vec<u8>,
}

impl Merge<'_, '_> {
    /// Merges two values. `members` is the outline range of the later value.
    fn values(&mut self, present: &mut Cursor<'_>, later: Value<'_>, members: Range<usize>) {
        match (present.kind(), later.kind()) {
            (Kind::Object, Kind::Object) => self.objects(present, members),
            (Kind::Array, Kind::Array) if self.appends => {
                let present = present.skip();
                self.arrays(present, later);
            }
            _ => {
                present.skip();
                self.out.extend_from_slice(later.raw());
            }
        }
    }

    fn objects(&mut self, present: &mut Cursor<'_>, members: Range<usize>) {
        let mut sorted: Vec<u32> = Vec::new();
        if self.later.own(members.clone()).nth(FEW).is_some() {
            sorted.reserve_exact(self.later.own(members.clone()).count());
            sorted.extend(self.later.own(members.clone()).map(|member| member as u32));
            sorted.sort_unstable_by_key(|member| self.later.name(*member as usize));
        }
        self.out.push(b'{');
        present.enter();
        while let Some(name) = present.name() {
            self.write_name(name);
            let same = if sorted.is_empty() {
                self.later
                    .own(members.clone())
                    .find(|member| self.later.name(*member) == name)
            } else {
                let found = sorted.binary_search_by_key(&name, |member| self.later.name(*member as usize));
                found.ok().map(|at| sorted[at] as usize)
            };
            match same {
                Some(member) => {
                    self.later.members[member].is_merged = true;
                    let (value, within) = (self.later.value(member), self.later.within(member));
                    self.values(present, value, within);
                }
                None => self.out.extend_from_slice(present.skip().raw()),
            }
            self.out.push(b',');
        }
        drop(sorted);
        let mut next = members.start;
        while next < members.end {
            if !self.later.members[next].is_merged {
                self.write_name(self.later.name(next));
                let value = self.later.value(next);
                self.out.extend_from_slice(value.raw());
                self.out.push(b',');
            }
            next = self.later.members[next].end as usize;
        }
        self.close(b'}');
    }

    fn arrays(&mut self, present: Value<'_>, later: Value<'_>) {
        self.out.push(b'[');
        for array in [present, later] {
            let inside = array.raw()[1..array.raw().len() - 1].trim_ascii();
            if !inside.is_empty() {
                self.out.extend_from_slice(inside);
                self.out.push(b',');
            }
        }
        self.close(b']');
    }

    fn write_name(&mut self, name: Name<'_>) {
        self.out.push(b'"');
        self.out.extend_from_slice(name.raw());
        self.out.extend_from_slice(b"\":");
    }

    /// Replaces the last comma with the closing bracket.
    fn close(&mut self, bracket: u8) {
        match self.out.last_mut() {
            Some(last) if *last == b',' => *last = bracket,
            _ => self.out.push(bracket),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use bytes::Bytes;

    use super::*;
    use crate::json::Document;

    fn document(text: &str) -> Document {
        Document::check(&Bytes::copy_from_slice(text.as_bytes()), usize::MAX).unwrap()
    }

    fn check(present: &str, later: &str, deep: &str, concat: &str) {
        for (appends, expected) in [(false, deep), (true, concat)] {
            let found = merged(document(present).value(), document(later).value(), appends);
            assert_eq!(String::from_utf8(found).unwrap(), expected, "{present} and {later}");
        }
    }

    #[test]
    fn objects_are_merged_and_arrays_appended() {
        check("1", "2.0", "2.0", "2.0");
        check("{}", "[]", "[]", "[]");
        check("[ 1 ]", "[ ]", "[ ]", "[1]");
        check("[ ]", "[{}]", "[{}]", "[{}]");
        check("[]", "[]", "[]", "[]");
        check("{}", "{}", "{}", "{}");
        check(
            r#"{ "a" : 1 , "b":{"x":[1 , 2],"y":{ }}}"#,
            r#"{"b":{"z":0,"x":[3]},"a":null,"c":[ ]}"#,
            r#"{"a":null,"b":{"x":[3],"y":{ },"z":0},"c":[ ]}"#,
            r#"{"a":null,"b":{"x":[1 , 2,3],"y":{ },"z":0},"c":[ ]}"#,
        );
        check(
            r#"{"a":{"b":1}}"#,
            r#"{"\u0061":{"\u0062":2}}"#,
            r#"{"a":{"b":2}}"#,
            r#"{"a":{"b":2}}"#,
        );
        check(
            r#"{"a":[{"b":1}]}"#,
            r#"{"a":{"b":2}}"#,
            r#"{"a":{"b":2}}"#,
            r#"{"a":{"b":2}}"#,
        );
    }

    #[test]
    fn many_members_find_their_own() {
        let mut expected = String::new();
        let (mut present, mut later) = (String::new(), String::new());
        for number in 0..100 {
            write!(present, "\"n{number}\":{number},").unwrap();
            write!(
                expected,
                "\"n{number}\":{},",
                if number % 2 == 0 { number } else { 1000 + number }
            )
            .unwrap();
            if number % 2 == 1 {
                let name = if number % 3 == 0 { "\\u006e" } else { "n" };
                write!(later, "\"{name}{number}\":{},", 1000 + number).unwrap();
            }
        }
        let object = |members: &str| format!("{{{}}}", members.trim_end_matches(','));
        check(
            &object(&present),
            &object(&later),
            &object(&expected),
            &object(&expected),
        );
    }

    #[test]
    fn what_is_as_deep_as_may_be_is_merged() {
        let nested = |value: &str| format!("{}{value}{}", "{\"a\":".repeat(127), "}".repeat(127));
        check(&nested("[1]"), &nested("[2]"), &nested("[2]"), &nested("[1,2]"));
    }
}
