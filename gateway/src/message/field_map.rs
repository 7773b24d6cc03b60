//! The fields of a message: a list of lines that is searched by name.
//!
//! A message has few fields, so a search along the list takes less time than a table of hashes, and adding a line is
//! little more than a push. Most names that are searched for are in no line; nearly all of these searches end before
//! the list, at a word with a bit for each name. The number of lines of what a stranger sends is limited by whoever
//! reads it.

use std::fmt;
use std::ops::Index;

use http::header::{HeaderMap, HeaderName, HeaderValue};

type Line = (HeaderName, HeaderValue);

/// Fields of a message, in the order of their lines. Several lines may have the same name.
#[derive(Clone, Default)]
pub struct FieldMap {
    lines: Vec<Line>,
    /// The bits of all names that have been added. Those of removed lines stay.
    bits: u64,
}

/// Values of all lines with one name, in their order.
#[derive(Clone)]
pub struct Values<'a> {
    /// Name that is searched for; `None` if no line has it.
    name: Option<&'a HeaderName>,
    /// The first line with the name and those after it.
    lines: std::slice::Iter<'a, Line>,
}

/// Name to search for.
pub trait FieldName {
    /// Returns the name, in any case.
    fn text(&self) -> &str;

    /// Whether the line has this name.
    fn is(&self, name: &HeaderName) -> bool;
}

/// Name to add a line with.
pub trait IntoFieldName {
    fn into_field_name(self) -> HeaderName;
}

impl FieldMap {
    pub const fn new() -> Self {
        Self {
            lines: Vec::new(),
            bits: 0,
        }
    }

    /// Creates a map with room for so many lines.
    pub fn with_capacity(lines: usize) -> Self {
        Self {
            lines: Vec::with_capacity(lines),
            bits: 0,
        }
    }

    /// Returns the number of lines.
    pub const fn len(&self) -> usize {
        self.lines.len()
    }

    pub const fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Makes room for so many lines more.
    pub fn reserve(&mut self, lines: usize) {
        self.lines.reserve(lines);
    }

    /// Returns the value of the first line with this name.
    pub fn get(&self, name: impl FieldName) -> Option<&HeaderValue> {
        self.place(&name).map(|place| &self.lines[place].1)
    }

    pub fn get_mut(&mut self, name: impl FieldName) -> Option<&mut HeaderValue> {
        self.place(&name).map(|place| &mut self.lines[place].1)
    }

    pub fn contains_key(&self, name: impl FieldName) -> bool {
        self.place(&name).is_some()
    }

    /// Returns the values of all lines with this name.
    pub fn get_all(&self, name: impl FieldName) -> Values<'_> {
        let place = self.place(&name);
        let lines = &self.lines[place.unwrap_or(self.lines.len())..];
        Values {
            name: lines.first().map(|(name, _)| name),
            lines: lines.iter(),
        }
    }

    /// Sets the only value of this name, in the place of the first line that had it. Returns the first value of before.
    pub fn insert(&mut self, name: impl IntoFieldName, value: HeaderValue) -> Option<HeaderValue> {
        let name = name.into_field_name();
        let Some(place) = self.place(&&name) else {
            self.push(name, value);
            return None;
        };
        let before = std::mem::replace(&mut self.lines[place].1, value);
        self.remove_after(place, &name);
        Some(before)
    }

    /// Sets a value unless there is one of this name.
    pub fn insert_missing(&mut self, name: impl IntoFieldName, value: impl FnOnce() -> HeaderValue) {
        let name = name.into_field_name();
        if !self.contains_key(&name) {
            self.push(name, value());
        }
    }

    /// Adds a line at the end.
    pub fn append(&mut self, name: impl IntoFieldName, value: HeaderValue) {
        self.push(name.into_field_name(), value);
    }

    /// Removes all lines with this name. Returns the value of the first.
    pub fn remove(&mut self, name: impl FieldName) -> Option<HeaderValue> {
        let place = self.place(&name)?;
        let name = self.lines[place].0.clone();
        self.remove_after(place, &name);
        Some(self.lines.remove(place).1)
    }

    /// Keeps only the lines for which `is_kept` holds.
    pub fn retain(&mut self, mut is_kept: impl FnMut(&HeaderName, &HeaderValue) -> bool) {
        self.lines.retain(|(name, value)| is_kept(name, value));
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&HeaderName, &HeaderValue)> + ExactSizeIterator {
        self.lines.iter().map(|(name, value)| (name, value))
    }

    /// Returns the name of each line; one that several lines have comes several times.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &HeaderName> + ExactSizeIterator {
        self.lines.iter().map(|(name, _)| name)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&HeaderName, &mut HeaderValue)> {
        self.lines.iter_mut().map(|(name, value)| (&*name, value))
    }

    pub fn values(&self) -> impl DoubleEndedIterator<Item = &HeaderValue> + ExactSizeIterator {
        self.lines.iter().map(|(_, value)| value)
    }

    fn push(&mut self, name: HeaderName, value: HeaderValue) {
        self.bits |= bit(name.as_str());
        self.lines.push((name, value));
    }

    fn place(&self, name: &impl FieldName) -> Option<usize> {
        if self.bits & bit(name.text()) == 0 {
            return None;
        }
        self.lines.iter().position(|(of_line, _)| name.is(of_line))
    }

    /// Removes the lines with this name that come after the first.
    fn remove_after(&mut self, first: usize, name: &HeaderName) {
        if self.lines[first + 1..].iter().any(|(of_line, _)| of_line == name) {
            let mut place = 0;
            self.lines.retain(|(of_line, _)| {
                let is_kept = place <= first || of_line != name;
                place += 1;
                is_kept
            });
        }
    }
}

/// Returns the bit of a name in any case. The factors are such that few of the usual names share one.
fn bit(name: &str) -> u64 {
    let ends = |name: &[u8]| Some((name.first()? | 0x20, name.last()? | 0x20));
    let (first, last) = ends(name.as_bytes()).unwrap_or_default();
    1 << ((name.len() * 7 + usize::from(first) * 28 + usize::from(last) * 29) % 64)
}

impl<'a> Values<'a> {
    /// Returns the values from the first on.
    #[must_use]
    pub fn iter(&self) -> Self {
        self.clone()
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = &'a HeaderValue;

    fn next(&mut self) -> Option<&'a HeaderValue> {
        let wanted = self.name?;
        self.lines.find(|(name, _)| name == wanted).map(|(_, value)| value)
    }
}

impl<'a> DoubleEndedIterator for Values<'a> {
    fn next_back(&mut self) -> Option<&'a HeaderValue> {
        let wanted = self.name?;
        self.lines.rfind(|(name, _)| name == wanted).map(|(_, value)| value)
    }
}

impl FieldName for &HeaderName {
    fn text(&self) -> &str {
        self.as_str()
    }

    fn is(&self, name: &HeaderName) -> bool {
        *self == name
    }
}

impl FieldName for HeaderName {
    fn text(&self) -> &str {
        self.as_str()
    }

    fn is(&self, name: &HeaderName) -> bool {
        self == name
    }
}

impl FieldName for &str {
    fn text(&self) -> &str {
        self
    }

    fn is(&self, name: &HeaderName) -> bool {
        name.as_str().eq_ignore_ascii_case(self)
    }
}

impl IntoFieldName for HeaderName {
    fn into_field_name(self) -> HeaderName {
        self
    }
}

impl IntoFieldName for &HeaderName {
    fn into_field_name(self) -> HeaderName {
        self.clone()
    }
}

impl IntoFieldName for &'static str {
    fn into_field_name(self) -> HeaderName {
        HeaderName::from_static(self)
    }
}

impl Extend<Line> for FieldMap {
    /// Adds lines at the end.
    fn extend<T: IntoIterator<Item = Line>>(&mut self, lines: T) {
        for (name, value) in lines {
            self.push(name, value);
        }
    }
}

impl FromIterator<Line> for FieldMap {
    fn from_iter<T: IntoIterator<Item = Line>>(lines: T) -> Self {
        let mut fields = Self::new();
        fields.extend(lines);
        fields
    }
}

impl IntoIterator for FieldMap {
    type Item = Line;
    type IntoIter = std::vec::IntoIter<Line>;

    fn into_iter(self) -> Self::IntoIter {
        self.lines.into_iter()
    }
}

impl<'a> IntoIterator for &'a FieldMap {
    type Item = (&'a HeaderName, &'a HeaderValue);
    type IntoIter = std::iter::Map<std::slice::Iter<'a, Line>, fn(&'a Line) -> Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.lines.iter().map(|(name, value)| (name, value))
    }
}

impl<N: FieldName> Index<N> for FieldMap {
    type Output = HeaderValue;

    /// # Panics
    /// Panics if no line has this name.
    fn index(&self, name: N) -> &HeaderValue {
        self.get(name).expect("there is a field of this name")
    }
}

impl From<HeaderMap> for FieldMap {
    fn from(map: HeaderMap) -> Self {
        let mut fields = Self::with_capacity(map.len() + 4);
        for (name, value) in map {
            // The name is left out of all lines but the first of that name.
            if let Some(name) = name.or_else(|| fields.lines.last().map(|(name, _)| name.clone())) {
                fields.push(name, value);
            }
        }
        fields
    }
}

impl From<FieldMap> for HeaderMap {
    fn from(fields: FieldMap) -> Self {
        let mut map = Self::with_capacity(fields.len());
        for (name, value) in fields {
            map.append(name, value);
        }
        map
    }
}

/// Maps are equal if each name has the same values in the same order, whatever lines of other names stand between.
impl PartialEq for FieldMap {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.keys().all(|name| self.get_all(name).eq(other.get_all(name)))
    }
}

impl Eq for FieldMap {}

impl fmt::Debug for FieldMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 5] = ["via", "x-a", "X-B", "Content-Type", "x-c"];

    /// A change that both kinds of map know.
    #[derive(Debug, Clone)]
    enum Change {
        Append(HeaderName, HeaderValue),
        Insert(HeaderName, HeaderValue),
        InsertMissing(HeaderName, HeaderValue),
        Remove(HeaderName),
    }

    fn changes() -> impl Strategy<Value = Vec<Change>> {
        let name = prop::sample::select(&NAMES[..]).prop_map(|name| HeaderName::from_bytes(name.as_bytes()).unwrap());
        let line = (name, any::<u16>().prop_map(HeaderValue::from));
        let change = (0..5_u8, line).prop_map(|(kind, (name, value))| match kind {
            0 => Change::Insert(name, value),
            1 => Change::InsertMissing(name, value),
            2 => Change::Remove(name),
            _ => Change::Append(name, value),
        });
        vec(change, 0..40)
    }

    proptest! {
        #![proptest_config(cases::counted())]

        /// The map of `http` is another implementation of the same operations.
        #[test]
        fn the_map_of_http_holds_the_same(changes in changes()) {
            let (mut ours, mut theirs) = (FieldMap::new(), HeaderMap::new());
            for change in changes {
                match change {
                    Change::Append(name, value) => {
                        ours.append(&name, value.clone());
                        theirs.append(name, value);
                    }
                    Change::Insert(name, value) => {
                        prop_assert_eq!(ours.insert(&name, value.clone()), theirs.insert(name, value));
                    }
                    Change::InsertMissing(name, value) => {
                        ours.insert_missing(&name, || value.clone());
                        theirs.entry(name).or_insert(value);
                    }
                    Change::Remove(name) => prop_assert_eq!(ours.remove(&name), theirs.remove(name)),
                }
                prop_assert_eq!(ours.len(), theirs.len());
                for name in NAMES {
                    prop_assert_eq!(ours.get(name), theirs.get(name));
                    prop_assert_eq!(ours.contains_key(name), theirs.contains_key(name));
                    prop_assert!(ours.get_all(name).eq(theirs.get_all(name)));
                    prop_assert!(ours.get_all(name).rev().eq(theirs.get_all(name).iter().rev()));
                }
            }
            prop_assert_eq!(HeaderMap::from(ours.clone()), theirs.clone());
            prop_assert_eq!(FieldMap::from(theirs), ours);
        }
    }

    #[test]
    fn lines_stay_in_order() {
        let line = |name: &'static str, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let mut fields = FieldMap::from_iter([line("a", "1"), line("b", "2"), line("a", "3"), line("c", "4")]);
        fields.insert("b", HeaderValue::from_static("5"));
        fields.remove("c");
        fields.append("b", HeaderValue::from_static("6"));
        let lines: Vec<_> = fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        assert_eq!(lines, [("a", "1"), ("b", "5"), ("a", "3"), ("b", "6")]);
    }

    #[test]
    fn maps_are_equal_by_name() {
        let line = |name: &'static str, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let fields = FieldMap::from_iter([line("a", "1"), line("b", "2"), line("a", "3")]);
        assert_eq!(
            fields,
            FieldMap::from_iter([line("b", "2"), line("a", "1"), line("a", "3")])
        );
        assert_ne!(
            fields,
            FieldMap::from_iter([line("b", "2"), line("a", "3"), line("a", "1")])
        );
        assert_ne!(
            fields,
            FieldMap::from_iter([line("b", "2"), line("a", "1"), line("b", "3")])
        );
    }
}
