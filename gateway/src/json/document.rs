//! A text that has been checked to be exactly one JSON value.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::reader;
use super::refusal::Refusal;
use super::strings;
use super::value::Value;

/// Exactly one JSON value, without whitespace around it. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document(Bytes);

impl Document {
    /// Checks `text`. `limit` is the most bytes of the text; it also limits the number of values.
    ///
    /// # Errors
    /// The text is not one JSON value, or is refused for another [`Refusal`].
    pub fn check(text: &Bytes, limit: usize) -> Result<Self, Refusal> {
        reader::check(text, limit).map(|place| Self(text.slice(place)))
    }

    /// Serializes a value of this gateway.
    pub fn of(value: &impl Serialize) -> Self {
        let text = serde_json::to_vec(value).expect("what we write has names that are texts, and a Vec takes it all");
        Self(text.into())
    }

    /// Wraps bytes that are already known to be one JSON value. Checked only in debug builds. A value that was put into
    /// another one may be nested more deeply than one that is received.
    pub fn from_checked(text: Bytes) -> Self {
        debug_assert!(
            matches!(reader::check(&text, usize::MAX), Ok(_) | Err(Refusal::TooDeep)),
            "{text:?}"
        );
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

    /// Returns a value of this document as a document that shares the bytes.
    pub fn share(&self, value: Value<'_>) -> Self {
        Self(self.0.slice_ref(value.raw()))
    }
}

/// Offset in bytes, from 0, at which [`Document::check`] refuses a text.
pub fn refused_at(text: &[u8], limit: usize) -> usize {
    reader::refused_at(text, limit)
}

/// Removes a leading byte order mark, which a reader may ignore (RFC 8259 section 8.1).
pub fn without_mark(text: Bytes) -> Bytes {
    const MARK: &[u8] = "\u{feff}".as_bytes();
    if text.starts_with(MARK) {
        text.slice(MARK.len()..)
    } else {
        text
    }
}

/// Returns the start and end of `piece` within `text`, in bytes.
///
/// # Panics
/// If `piece` is not a slice of `text`.
pub fn range(text: &[u8], piece: &[u8]) -> (u32, u32) {
    let start = piece.as_ptr() as usize - text.as_ptr() as usize;
    assert!(start + piece.len() <= text.len(), "it belongs to another text");
    (start as u32, (start + piece.len()) as u32)
}

/// Returns whether `text` is a JSON number and nothing else.
pub fn is_number(text: &str) -> bool {
    reader::is_number(text)
}

/// Appends `text` as a JSON string with its quotes.
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    strings::write(text, out);
}

/// Adds a member to the object at the end of `out`. The object has at least one member.
///
/// # Panics
/// If `out` does not end with an object.
pub fn add_member(out: &mut Vec<u8>, name: &str, value: Value<'_>) {
    let end = out.pop();
    assert_eq!(end, Some(b'}'), "an object ends there");
    out.push(b',');
    write_string(name, out);
    out.push(b':');
    out.extend_from_slice(value.raw());
    out.push(b'}');
}

/// Deserializes a short text of a known type, such as a body of the admin API.
///
/// # Errors
/// The text is not accepted as JSON, or does not fit the type. The error describes the problem.
pub fn typed<T: DeserializeOwned>(text: &[u8], limit: usize) -> Result<T, String> {
    let place = reader::check(text, limit).map_err(|refusal| refusal.to_string())?;
    // The type limits the depth; unknown members are skipped.
    #[expect(
        clippy::disallowed_methods,
        reason = "the text has been checked, and its form is known"
    )]
    serde_json::from_slice(&text[place]).map_err(|error| error.to_string())
}
