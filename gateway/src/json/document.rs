//! A text that has been found to be one JSON value.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::reader;
use super::refusal::Refusal;
use super::strings;
use super::value::Value;

/// Exactly one JSON value, without space around it. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document(Bytes);

impl Document {
    /// Checks `text`; `limit` is the bytes that such a text may have, which bounds its values, too.
    ///
    /// # Errors
    /// It is not one JSON value, or one that is not taken.
    pub fn check(text: &Bytes, limit: usize) -> Result<Self, Refusal> {
        reader::check(text, limit).map(|place| Self(text.slice(place)))
    }

    /// What we write ourselves.
    pub fn of(value: &impl Serialize) -> Self {
        let text = serde_json::to_vec(value).expect("what we write has names that are texts, and a Vec takes it all");
        Self(text.into())
    }

    /// The bytes of a document.
    pub fn from_checked(text: Bytes) -> Self {
        debug_assert!(reader::check(&text, usize::MAX).is_ok(), "{text:?}");
        Self(text)
    }

    pub const fn empty_object() -> Self {
        Self(Bytes::from_static(b"{}"))
    }

    pub fn value(&self) -> Value<'_> {
        Value::from_checked(&self.0)
    }

    pub const fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// A value in this document, as a document that shares its bytes.
    pub fn share(&self, value: Value<'_>) -> Self {
        Self(self.0.slice_ref(value.raw()))
    }
}

/// The byte, from 0, at which a text is refused that [`Document::check`] does not take.
pub fn refused_at(text: &[u8], limit: usize) -> usize {
    reader::refused_at(text, limit)
}

/// The text without a byte order mark, which a reader may ignore (RFC 8259 section 8.1).
pub fn without_mark(text: Bytes) -> Bytes {
    const MARK: &[u8] = "\u{feff}".as_bytes();
    if text.starts_with(MARK) {
        text.slice(MARK.len()..)
    } else {
        text
    }
}

/// Where a piece of a text begins and ends in it.
///
/// # Panics
/// It is a piece of another text.
pub fn range(text: &[u8], piece: &[u8]) -> (u32, u32) {
    let start = piece.as_ptr() as usize - text.as_ptr() as usize;
    assert!(start + piece.len() <= text.len(), "it belongs to another text");
    (start as u32, (start + piece.len()) as u32)
}

/// Whether `text` is a JSON number and nothing else.
pub fn is_number(text: &str) -> bool {
    reader::is_number(text)
}

/// Appends `text` as a JSON string, quotes and all.
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    strings::write(text, out);
}

/// Adds a member to the object that `out` ends with, which has one at least.
///
/// # Panics
/// It ends with something else.
pub fn add_member(out: &mut Vec<u8>, name: &str, value: Value<'_>) {
    let end = out.pop();
    assert_eq!(end, Some(b'}'), "an object ends there");
    out.push(b',');
    write_string(name, out);
    out.push(b':');
    out.extend_from_slice(value.raw());
    out.push(b'}');
}

/// Reads what has a known form and is short, as the bodies of the admin API are.
///
/// # Errors
/// It is not JSON that is taken, or has another form; says what is wrong with it.
pub fn typed<T: DeserializeOwned>(text: &[u8], limit: usize) -> Result<T, String> {
    let place = reader::check(text, limit).map_err(|refusal| refusal.to_string())?;
    // Of a known form, and no deeper than it: what is there beside is passed over.
    #[expect(
        clippy::disallowed_methods,
        reason = "the text has been checked, and its form is known"
    )]
    serde_json::from_slice(&text[place]).map_err(|error| error.to_string())
}
