//! Fields that the gateway adds to a request for a backend, as the lines in which HTTP/1.1 sends them.
//!
//! On most routes nothing looks at these fields between here and the backend. There they are written once, and not kept
//! in a map.

use bytes::Bytes;
use http::header::FORWARDED;
use http::{HeaderName, HeaderValue};

use super::value_text::ValueText;
use super::{
    TRACEPARENT, X_CALLER_ID, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, X_TENANT_ID, X_TENANT_TIER,
};
use crate::message::FieldMap;

/// Which header fields the gateway adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddedHeaders {
    /// Tenant, tier and caller, for the backend.
    pub identity: bool,
    /// Address, scheme and host of the client, for the backend.
    pub forwarded: bool,
    /// Trace and request id, for the backend.
    pub trace: bool,
    /// Limits, for the caller.
    pub ratelimit: bool,
}

impl AddedHeaders {
    /// Returns the names of the groups that are added, as the config spells them.
    pub fn names(self) -> Vec<&'static str> {
        let groups = [
            ("identity", self.identity),
            ("forwarded", self.forwarded),
            ("trace", self.trace),
            ("ratelimit", self.ratelimit),
        ];
        groups
            .into_iter()
            .filter(|(_, is_added)| *is_added)
            .map(|(name, _)| name)
            .collect()
    }
}

/// Names of the fields that are written as lines. Clones of these names need no memory.
const NAMES: [&HeaderName; 8] = [
    &X_TENANT_ID,
    &X_TENANT_TIER,
    &X_CALLER_ID,
    &X_FORWARDED_FOR,
    &X_FORWARDED_PROTO,
    &X_FORWARDED_HOST,
    &FORWARDED,
    &TRACEPARENT,
];

/// Whether the gateway adds a field of this name as a line.
pub fn is_added(name: &HeaderName) -> bool {
    NAMES.contains(&name)
}

/// Complete field lines, each with its CRLF.
#[derive(Debug, Clone, Default)]
pub struct AddedFields(Bytes);

impl AddedFields {
    /// Takes the lines that were written with `put_line`.
    pub fn take(text: &mut ValueText) -> Self {
        Self(text.take())
    }

    pub fn as_lines(&self) -> &[u8] {
        &self.0
    }

    /// Returns the fields one by one, for a connection that takes them so.
    pub fn iter(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let mut rest = self.0.clone();
        std::iter::from_fn(move || {
            let colon = memchr::memchr(b':', &rest)?;
            let end = memchr::memchr(b'\r', &rest)?;
            let name = NAMES
                .into_iter()
                .find(|name| name.as_str().as_bytes() == &rest[..colon])?
                .clone();
            let value = HeaderValue::from_maybe_shared(rest.slice(colon + 2..end)).ok()?;
            let _ = rest.split_to(end + 2);
            Some((name, value))
        })
    }

    /// Inserts the fields in place of those that have the same names.
    pub fn insert_into(&self, headers: &mut FieldMap) {
        for (name, value) in self.iter() {
            headers.insert(name, value);
        }
    }
}

/// Writes a field line. The value is that of a field.
pub(super) fn put_line(text: &mut ValueText, name: &HeaderName, value: &[u8]) {
    text.put(name.as_str().as_bytes());
    text.put(b": ");
    text.put(value);
    text.put(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::tests::lines;
    use crate::headers::{TRACEPARENT, X_TENANT_ID};

    #[test]
    fn lines_and_fields_say_the_same() {
        let mut text = ValueText::default();
        put_line(&mut text, &X_TENANT_ID, b"acme: one");
        put_line(&mut text, &TRACEPARENT, b"");
        let added = AddedFields::take(&mut text);
        assert_eq!(added.as_lines(), b"x-tenant-id: acme: one\r\ntraceparent: \r\n");

        let mut map = FieldMap::new();
        map.insert(&X_TENANT_ID, HeaderValue::from_static("another"));
        added.insert_into(&mut map);
        assert_eq!(lines(&map, "x-tenant-id"), ["acme: one"]);
        assert_eq!(lines(&map, "traceparent"), [""]);
        assert_eq!(map.len(), 2);
        assert_eq!(AddedFields::default().iter().count(), 0);
    }
}
