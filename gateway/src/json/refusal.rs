//! Reasons to refuse a text as JSON.

use std::fmt;

/// Reason to refuse a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The text is not JSON, or a name in it is not Unicode because half of a surrogate pair is missing (RFC 8259
    /// section 8.2).
    NotJson,
    /// The nesting is deeper than [`super::MAX_DEPTH`].
    TooDeep,
    /// Two members of one object have the same name. Two readers may take different ones (RFC 8259 section 4).
    DuplicateName,
    /// The text has more bytes or more values than allowed.
    TooLarge,
}

impl Refusal {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotJson => "it is not JSON",
            Self::TooDeep => "it is nested more than 128 levels deep",
            Self::DuplicateName => "an object in it has a name twice",
            Self::TooLarge => "it is longer, or has more values, than is taken",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for Refusal {}
