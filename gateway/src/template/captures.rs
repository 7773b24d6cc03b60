//! Captures of a path pattern by name, still raw.
//!
//! Invariant: a capture is a piece of the raw path between two slashes, or up to the end for a wildcard. Splicing it
//! into another path therefore adds nothing that the request did not contain.

use std::ops::Range;

use smallvec::SmallVec;

/// Byte ranges of captures, in pattern order. Four fit without an allocation.
pub type Ranges = SmallVec<[Range<usize>; 4]>;

/// Named pieces of a raw path.
#[derive(Debug, Clone)]
pub struct Captures<'a> {
    raw: &'a str,
    names: &'a [Box<str>],
    ranges: Ranges,
}

impl<'a> Captures<'a> {
    /// Makes captures from `ranges` in `raw`, one for each of `names`.
    ///
    /// # Panics
    /// If `names` and `ranges` differ in length.
    pub fn new(raw: &'a str, names: &'a [Box<str>], ranges: Ranges) -> Self {
        assert_eq!(names.len(), ranges.len(), "a pattern names each of its captures");
        Self { raw, names, ranges }
    }

    /// Makes the captures of a request that has none.
    pub fn none() -> Self {
        Self {
            raw: "",
            names: &[],
            ranges: Ranges::new(),
        }
    }

    /// Raw text of a capture, with its percent-encodings.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.iter().find_map(|(known, text)| (known == name).then_some(text))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let raw = self.raw;
        let text = move |range: &Range<usize>| raw.get(range.clone()).unwrap_or_default();
        self.names.iter().map(AsRef::as_ref).zip(self.ranges.iter().map(text))
    }
}
