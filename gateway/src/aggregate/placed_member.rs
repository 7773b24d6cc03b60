//! The members that one part adds to the root of the answer.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::json::Document;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlacedMember {
    /// One member of the root.
    Member(MemberName, Document),
    /// One member of an object below the root. The path leads from the root to the member.
    Within(Arc<[MemberName]>, Document),
    /// All members of an object.
    Members(Document),
    /// The answer itself.
    Whole(Document),
}

impl PlacedMember {
    /// Size of the placed document in bytes.
    pub fn size(&self) -> usize {
        let (Self::Member(_, document) | Self::Within(_, document) | Self::Members(document) | Self::Whole(document)) =
            self;
        document.bytes().len()
    }
}

/// Wraps a value into nested objects, one for each name, outermost first.
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

/// Member name as a JSON string with its quotes.
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
