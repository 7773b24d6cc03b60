//! What one part puts at the root of the answer.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::json::Document;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlacedMember {
    /// One member.
    Member(MemberName, Document),
    /// One member of an object within the root, by the names that lead to it.
    Within(Arc<[MemberName]>, Document),
    /// The members of an object.
    Members(Document),
}

impl PlacedMember {
    /// Bytes of what is placed.
    pub fn size(&self) -> usize {
        let (Self::Member(_, document) | Self::Within(_, document) | Self::Members(document)) = self;
        document.bytes().len()
    }
}

/// A value as the only member, at the end of these names, of objects within each other.
pub(super) fn wrapped(names: &[MemberName], value: &[u8]) -> Vec<u8> {
    let length: usize = names.iter().map(|name| name.written().bytes().len() + 3).sum();
    let mut out = Vec::with_capacity(length + value.len());
    for name in names {
        out.push(b'{');
        out.extend_from_slice(name.written().bytes());
        out.push(b':');
    }
    out.extend_from_slice(value);
    out.resize(out.len() + names.len(), b'}');
    out
}

/// A name as it is written, quotes and all.
#[derive(Clone, PartialEq, Eq)]
pub struct MemberName(Document);

impl MemberName {
    pub(super) const fn written(&self) -> &Document {
        &self.0
    }

    pub(super) fn text(&self) -> Cow<'_, str> {
        self.0.value().text().unwrap_or_default()
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
