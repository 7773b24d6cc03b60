//! The keys that reading asked for: the config language as the reader knows it.
//!
//! Reading asks for each key of a section whether it is written or not, so one reading of a file with every section
//! in it tells the whole language. Hints for stray keys and the generated reference are made from it.

use std::collections::BTreeSet;

/// What one reading asked for.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub keys: Vec<Key>,
    /// Paths of the maps whose keys are names that the operator chose.
    pub named: BTreeSet<String>,
}

/// One question for a key of a section.
#[derive(Debug, Clone)]
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "the generator of the reference reads all of it")
)]
pub(super) struct Key {
    /// Path of the section, as messages name it.
    pub section: String,
    /// Rust type that the section is read into, with its modules.
    pub model: &'static str,
    pub name: &'static str,
    pub shape: Option<Shape>,
    /// What holds if the key is left out, as one would write it.
    pub default: Option<String>,
    /// Least and greatest value.
    pub range: Option<(String, String)>,
    pub required: bool,
    /// Whether `off` may stand in place of the value.
    pub off: bool,
}

/// What may be written as a value.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(test), expect(dead_code, reason = "the generator of the reference reads it"))]
pub(super) enum Shape {
    /// A single value; the text completes "must be ...".
    Value(&'static str),
    /// A map with keys of its own.
    Section,
    /// A list; one value may stand for a list of one.
    List(&'static Shape),
    /// A map from names to values.
    Named(&'static Shape),
    /// Any YAML, kept as it is.
    Anything,
}
