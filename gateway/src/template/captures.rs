//! What a path pattern cut out of a path, by name, and still as raw as it came.
//!
//! Invariant: a capture is a piece of the raw path between two slashes (or, for a wildcard, up to the end), so
//! splicing it into another path cannot say more than the request itself said.

use std::ops::Range;

use smallvec::SmallVec;

/// Byte ranges of captures, in the order of the pattern. Four fit without an allocation.
pub type Ranges = SmallVec<[Range<usize>; 4]>;

/// Named pieces of a raw path.
#[derive(Debug, Clone)]
pub struct Captures<'a> {
    raw: &'a str,
    names: &'a [Box<str>],
    ranges: Ranges,
}

impl<'a> Captures<'a> {
    /// `ranges` are in `raw`, one for each of `names`.
    ///
    /// # Panics
    /// If there are not as many names as ranges.
    pub fn new(raw: &'a str, names: &'a [Box<str>], ranges: Ranges) -> Self {
        assert_eq!(names.len(), ranges.len(), "a pattern names each of its captures");
        Self { raw, names, ranges }
    }

    /// For a request without captures.
    pub fn none() -> Self {
        Self {
            raw: "",
            names: &[],
            ranges: Ranges::new(),
        }
    }

    /// The raw text of a capture, percent-encodings and all.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.iter().find_map(|(known, text)| (known == name).then_some(text))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let raw = self.raw;
        let text = move |range: &Range<usize>| raw.get(range.clone()).unwrap_or_default();
        self.names.iter().map(AsRef::as_ref).zip(self.ranges.iter().map(text))
    }
}
