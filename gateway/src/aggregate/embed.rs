//! Puts the answers to the calls of a `for_each` part into the elements of the list that it was called for.
//!
//! Invariant: the list keeps its elements and their order. Everything but the places where answers are put is copied as
//! it was received.

use super::path::{Path, PathMistake, Segment};
use super::rewrite::{each_element, put};
use crate::json::{self, Cursor, Kind, Value};

/// Place in each element of a list in another part's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElementPlace {
    /// Steps from the top of the answer to the list: names and array indexes.
    list: Vec<Box<str>>,
    /// Names from an element to the place. No names: the element itself is replaced.
    names: Vec<Box<str>>,
    /// A null is not put anywhere.
    leaves_out_null: bool,
}

/// Reason why a path leads to no place in the elements of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PlaceMistake {
    Path(PathMistake),
    /// The path does not begin with that of the list and `*`.
    Elsewhere,
}

impl ElementPlace {
    /// Parses the path from the top of the answer to the place, such as `items.*.product` for the list at `items`.
    pub(super) fn parse(text: &str, list: &[Box<str>], leaves_out_null: bool) -> Result<Self, PlaceMistake> {
        let path = Path::parse(text).map_err(PlaceMistake::Path)?;
        let rest = path.segments().strip_prefix(&*named(list));
        let Some((Segment::Every, names)) = rest.and_then(<[_]>::split_first) else {
            return Err(PlaceMistake::Elsewhere);
        };
        let name = |segment: &Segment| match segment {
            Segment::Name(name) => Ok(name.clone()),
            Segment::Every => Err(PlaceMistake::Path(PathMistake::Star)),
        };
        if path.segments().len() > MOST_STEPS {
            return Err(PlaceMistake::Path(PathMistake::TooLong));
        }
        Ok(Self {
            list: list.to_vec(),
            names: names.iter().map(name).collect::<Result<_, _>>()?,
            leaves_out_null,
        })
    }

    /// Path to the place as written, from the top of the answer.
    pub fn path(&self) -> String {
        let word = |segment: &Segment| match segment {
            Segment::Name(name) => name.to_string(),
            Segment::Every => "*".to_owned(),
        };
        self.segments().iter().map(word).collect::<Vec<_>>().join(".")
    }

    /// Returns whether one of two values would be put into or over the other.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let is_within = |one: &[Box<str>], other: &[Box<str>]| one.starts_with(other) || other.starts_with(one);
        self.list == other.list && is_within(&self.names, &other.names)
    }

    /// Path to the place, from the top of the answer.
    pub(super) fn segments(&self) -> Vec<Segment> {
        let names = self.names.iter().map(|name| Segment::Name(name.clone()));
        named(&self.list)
            .into_iter()
            .chain([Segment::Every])
            .chain(names)
            .collect()
    }

    /// Returns whether an element can take an answer: it is an object, as is all that is on the way to the place. If
    /// the element is replaced, it may be anything.
    pub(super) fn fits(&self, element: Value<'_>) -> bool {
        fits(element, &self.names)
    }

    /// Writes an answer with `values` put into the elements of its list, one for each element in order. Without the
    /// list, the answer stays as it is.
    pub(super) fn embed(&self, answer: Value<'_>, values: Value<'_>) -> Vec<u8> {
        let text = answer.raw();
        let mut out = Vec::with_capacity(text.len() + values.raw().len() + 64);
        let list = answer.descend(self.list.iter().map(AsRef::as_ref));
        let Some(list) = list.filter(|list| list.kind() == Kind::Array) else {
            out.extend_from_slice(text);
            return out;
        };
        let (start, end) = json::range(text, list.raw());
        out.extend_from_slice(&text[..start as usize]);
        let mut values = values.elements();
        each_element(&mut Cursor::new(list), &mut out, |cursor, out| {
            let element = cursor.skip();
            let value = values.next().filter(|value| !(self.leaves_out_null && value.is_null()));
            match value.filter(|_| self.fits(element)) {
                Some(value) => put(element, &self.names, value.raw(), out),
                None => out.extend_from_slice(element.raw()),
            }
            true
        });
        out.extend_from_slice(&text[end as usize..]);
        out
    }
}

/// Most names and indexes of a path. Bounds how much deeper than the answers the whole is nested.
const MOST_STEPS: usize = 32;

fn named(steps: &[Box<str>]) -> Vec<Segment> {
    steps.iter().map(|step| Segment::Name(step.clone())).collect()
}

fn fits(element: Value<'_>, names: &[Box<str>]) -> bool {
    let Some((first, rest)) = names.split_first() else {
        return true;
    };
    element.kind() == Kind::Object
        && element
            .get(first)
            .is_none_or(|within| rest.is_empty() || fits(within, rest))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::json::Document;

    fn document(text: &str) -> Document {
        Document::check(&Bytes::copy_from_slice(text.as_bytes()), usize::MAX).unwrap()
    }

    fn place(list: &str, path: &str, leaves_out_null: bool) -> Result<ElementPlace, PlaceMistake> {
        let steps: Vec<Box<str>> = list
            .split('.')
            .filter(|step| !step.is_empty())
            .map(Into::into)
            .collect();
        ElementPlace::parse(path, &steps, leaves_out_null)
    }

    fn check(list: &str, path: &str, answer: &str, values: &str, expected: &str) {
        let place = place(list, path, false).unwrap();
        let found = place.embed(document(answer).value(), document(values).value());
        assert_eq!(String::from_utf8(found).unwrap(), expected, "{values} into {answer}");
    }

    #[test]
    fn each_element_gets_its_own_answer() {
        check(
            "items",
            "items.*.product",
            r#"{ "n": 1.0, "items": [ {"sku":"a"} , { }, {"sku":"c"}], "z":[ ] }"#,
            r#"[{"price":1.50},7,null]"#,
            r#"{ "n": 1.0, "items": [{"sku":"a","product":{"price":1.50}},{"product":7},{"sku":"c","product":null}], "z":[ ] }"#,
        );
        check("", "*", "[1, 2]", r#"[{"a":1},[]]"#, r#"[{"a":1},[]]"#);
        check("", "*.a.b", "[{}]", "[1]", r#"[{"a":{"b":1}}]"#);
        check("", "*.a.b", r#"[{"a":{"c":0}}]"#, "[1]", r#"[{"a":{"c":0,"b":1}}]"#);
        check(
            "o.1.l",
            "o.1.l.*.x",
            r#"{"o":[{},{"l":[{}]}]}"#,
            "[1]",
            r#"{"o":[{},{"l":[{"x":1}]}]}"#,
        );
        // Escaped names are the same names, and what is there is replaced.
        check("", "*.x", r#"[{"\u0078":1}]"#, "[2]", r#"[{"\u0078":2}]"#);
    }

    #[test]
    fn nothing_is_put_where_it_does_not_fit() {
        check("items", "items.*.x", r#"{"items":{}}"#, "[1]", r#"{"items":{}}"#);
        check("items", "items.*.x", "{}", "[1]", "{}");
        check("", "*.x", r#"[1,[],{},null]"#, "[1,2,3,4]", r#"[1,[],{"x":3},null]"#);
        check(
            "",
            "*.x.y",
            r#"[{"x":1},{"x":{}}]"#,
            "[1,2]",
            r#"[{"x":1},{"x":{"y":2}}]"#,
        );
        check("", "*.x", "[{},{}]", "[1]", r#"[{"x":1},{}]"#);
        check("", "*.x", "[]", "[1]", "[]");
    }

    #[test]
    fn nulls_can_be_left_out() {
        let place = place("", "*.x", true).unwrap();
        let found = place.embed(document("[{},{}]").value(), document("[null,0]").value());
        assert_eq!(found, br#"[{},{"x":0}]"#);
    }

    #[test]
    fn the_path_leads_into_elements_of_the_list() {
        use PlaceMistake::{Elsewhere, Path};
        for (list, path, mistake) in [
            ("items", "items.product", Elsewhere),
            ("items", "product", Elsewhere),
            ("items", "lines.*.product", Elsewhere),
            ("items", "items", Elsewhere),
            ("", "product", Elsewhere),
            ("items", "items.*.*.x", Path(PathMistake::Star)),
            ("items", "items..x", Path(PathMistake::EmptyName)),
            ("items", "", Path(PathMistake::Empty)),
        ] {
            assert_eq!(place(list, path, false), Err(mistake), "{path} under {list}");
        }
    }

    #[test]
    fn places_in_each_other_overlap() {
        let check = |one: &str, other: &str, expected| {
            let [one, other] = [one, other].map(|path| {
                let list = path.split(".*").next().unwrap();
                place(list, path, false).unwrap()
            });
            assert_eq!(one.overlaps(&other), expected);
            assert_eq!(other.overlaps(&one), expected);
        };
        check("i.*.a", "i.*.a", true);
        check("i.*.a", "i.*.a.b", true);
        check("i.*", "i.*.a", true);
        check("i.*.a", "i.*.b", false);
        check("i.*.a", "j.*.a", false);
    }
}
