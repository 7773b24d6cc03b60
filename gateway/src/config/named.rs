//! A map keyed by name that keeps the written order, and the place of each name.
//!
//! Logs, metrics, errors and saved state use these names, so a name is checked once, when it is read. Invariant: no two
//! entries have the same name.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::mistake::{Code, Mistake};
use super::span::At;
use super::{hint, variables};

#[derive(Clone, PartialEq)]
pub struct NamedMap<T> {
    entries: Vec<(At<Arc<str>>, T)>,
    places: HashMap<Arc<str>, usize>,
    /// Entries that have mistakes and are left out, with what could be read of them.
    unsound: Vec<(At<Arc<str>>, Option<T>)>,
    /// Whether the whole map could not be read.
    is_unread: bool,
}

impl<T> NamedMap<T> {
    pub fn get(&self, name: &str) -> Option<&T> {
        self.entry(name).map(|(_, value)| value)
    }

    /// Returns the name with its place, and the value.
    pub fn entry(&self, name: &str) -> Option<(&At<Arc<str>>, &T)> {
        self.places
            .get(name)
            .map(|place| &self.entries[*place])
            .map(|(name, value)| (name, value))
    }

    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Returns whether the name is written, or may be: its entry, or the map, could not be read.
    pub fn may_contain(&self, name: &str) -> bool {
        self.is_unread || self.contains(name) || self.unsound.iter().any(|(unsound, _)| *unsound.value == *name)
    }

    /// Returns a map that could not be read.
    pub(super) fn unreadable() -> Self {
        Self {
            is_unread: true,
            ..Self::default()
        }
    }

    /// Marks a map of which a part could not be read.
    pub(super) const fn doubt(&mut self) {
        self.is_unread = true;
    }

    /// Adds an entry that has mistakes, for checks of its names alone.
    pub(super) fn leave_out(&mut self, name: At<Arc<str>>, readable: Option<T>) {
        self.unsound.push((name, readable));
    }

    /// Iterates over what could be read of the entries that have mistakes. Their values may be out of range.
    pub fn unsound(&self) -> impl Iterator<Item = (&At<Arc<str>>, &T)> {
        self.unsound
            .iter()
            .filter_map(|(name, readable)| Some((name, readable.as_ref()?)))
    }

    /// Iterates in the written order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&At<Arc<str>>, &T)> {
        self.entries.iter().map(|(name, value)| (name, value))
    }

    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.entries.iter().map(|(name, _)| &*name.value)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the mistake for a reference to an unknown name. `kind` is the kind of entry, as in "backend".
    pub fn unknown(&self, kind: &str, wanted: &At<String>) -> Mistake {
        self.unknown_but(kind, wanted, None)
    }

    /// Returns the mistake for a reference to an unknown name, where `other` would be wrong as well.
    pub fn unknown_but(&self, kind: &str, wanted: &At<String>, other: Option<&str>) -> Mistake {
        let unread = self.unsound.iter().map(|(name, _)| &*name.value);
        let names = || self.names().chain(unread.clone()).filter(|name| Some(*name) != other);
        let hint = variables::meant(wanted)
            .or_else(|| hint::did_you_mean(wanted, names()))
            .or_else(|| hint::one_of(names()));
        Mistake::new(
            Code::UnknownName,
            wanted.span(),
            format!("there is no {kind} `{wanted}`"),
        )
        .hint(hint.unwrap_or_else(|| match other {
            Some(_) => format!("there is no other {kind}: take it out"),
            None => format!("no {kind} is configured"),
        }))
    }

    /// Adds an entry that is not written.
    pub fn put(&mut self, name: &str, value: T) {
        self.set(At::unwritten(Arc::from(name)), value);
    }

    /// Makes room for more entries, which may be large.
    pub(super) fn reserve(&mut self, more: usize) {
        self.entries.reserve(more);
        self.places.reserve(more);
    }

    /// Replaces the entry with that name, or appends it.
    pub(super) fn set(&mut self, name: At<Arc<str>>, value: T) {
        match self.places.get(&name.value) {
            Some(place) => self.entries[*place] = (name, value),
            None => {
                self.places.insert(Arc::clone(&name.value), self.entries.len());
                self.entries.push((name, value));
            }
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for NamedMap<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.entries.iter();
        f.debug_map()
            .entries(entries.map(|(name, value)| (&*name.value, value)))
            .finish()
    }
}

impl<T> Default for NamedMap<T> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            places: HashMap::new(),
            unsound: Vec::new(),
            is_unread: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_hints_at_the_known_ones() {
        let mut backends = NamedMap::default();
        let hint =
            |backends: &NamedMap<()>, wanted: &str| backends.unknown("backend", &At::unwritten(wanted.to_owned())).hint;
        assert_eq!(hint(&backends, "users").as_deref(), Some("no backend is configured"));
        for name in ["users", "orders"] {
            backends.set(At::unwritten(Arc::from(name)), ());
        }
        assert_eq!(hint(&backends, "user").as_deref(), Some("did you mean `users`?"));
        assert_eq!(hint(&backends, "billing").as_deref(), Some("one of `users`, `orders`"));
    }

    #[test]
    fn replacing_an_entry_keeps_its_place() {
        let mut map = NamedMap::default();
        for (name, value) in [("a", 1), ("b", 2), ("a", 3)] {
            map.set(At::unwritten(Arc::from(name)), value);
        }
        assert_eq!(map.names().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((map.get("a"), map.get("c"), map.len()), (Some(&3), None, 2));
    }
}
