//! What one part puts at the root of the answer.

use std::fmt;

use crate::json::Document;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placed {
    /// One member.
    Member(MemberName, Document),
    /// The members of an object.
    Members(Document),
}

/// A name as it is written, quotes and all.
#[derive(Clone, PartialEq, Eq)]
pub struct MemberName(Document);

impl MemberName {
    pub(super) const fn written(&self) -> &Document {
        &self.0
    }
}

impl From<&str> for MemberName {
    fn from(name: &str) -> Self {
        Self(Document::of(&name))
    }
}

impl fmt::Debug for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.value(), f)
    }
}
