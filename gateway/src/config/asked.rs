//! Records the keys that reading asks for, which together are the config language.
//!
//! Reading asks for each key of a section, whether it is written or not. So one reading of a file with every section
//! shows the whole language. Hints for unknown keys and the generated reference are made from this record.

use std::collections::BTreeSet;

/// Keys that one reading asked for.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub keys: Vec<Key>,
    /// Paths of the maps whose keys are names that the operator chose.
    pub named: BTreeSet<String>,
}

/// A key of a section that reading asked for.
#[derive(Debug, Clone)]
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "the generator of the reference reads all of it")
)]
pub(super) struct Key {
    /// Path of the section, in the form that messages use.
    pub section: String,
    /// Rust type that the section is read into, with its modules.
    pub model: &'static str,
    pub name: &'static str,
    pub shape: Option<Shape>,
    /// Default value, in the form used in a config.
    pub default: Option<String>,
    /// Smallest and largest value.
    pub range: Option<(String, String)>,
    pub required: bool,
    /// Whether `off` is allowed instead of the value.
    pub off: bool,
}

/// Kind of value that may be written.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(test), expect(dead_code, reason = "the generator of the reference reads it"))]
pub(super) enum Shape {
    /// A single value; the text completes "must be ...".
    Value(&'static str),
    /// A map with keys of its own.
    Section,
    /// A list; a single value counts as a list of one.
    List(&'static Shape),
    /// One of several kinds.
    Either(&'static [Shape]),
    /// A map from names to values.
    Named(&'static Shape),
    /// Any YAML, kept as it is.
    Anything,
}
