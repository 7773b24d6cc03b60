//! Reads and changes the header fields of an answer that have to do with its coding.

use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    TRAILER, VARY,
};
use http::{HeaderName, HeaderValue};

use super::media_range::split;
use super::{Coding, MediaRange};
use crate::message::FieldMap;

/// Fields that hold for the bytes of the body as they are (RFC 9530, RFC 9421, RFC 1864, RFC 3230).
static OF_BYTES: [HeaderName; 5] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("signature"),
];

/// Whether the answer may be sent in another form: its type is one of `types`, nothing forbids it, and no field would
/// be wrong afterwards.
pub(super) fn may_change(headers: &FieldMap, types: &[MediaRange]) -> bool {
    let Some(content_type) = headers.get(CONTENT_TYPE) else {
        return false;
    };
    let content_type = content_type.as_bytes();
    types.iter().any(|range| range.contains(content_type))
        && !is_stream(content_type)
        && !is_encoded(headers)
        && !headers.contains_key(CONTENT_RANGE)
        && !forbids_changes(headers)
        && !OF_BYTES
            .iter()
            .any(|name| headers.contains_key(name) || lists(headers, &TRAILER, name.as_str()))
}

/// Whether a message of this type is one that its reader takes piece by piece: server-sent events, or gRPC in any form.
pub(super) fn is_stream(content_type: &[u8]) -> bool {
    let (kind, subtype) = split(content_type);
    let starts = |text: &[u8]| {
        subtype
            .get(..text.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(text))
    };
    (kind.eq_ignore_ascii_case(b"text") && subtype.eq_ignore_ascii_case(b"event-stream"))
        || (kind.eq_ignore_ascii_case(b"application") && starts(b"grpc"))
}

fn is_encoded(headers: &FieldMap) -> bool {
    let lines = headers.get_all(CONTENT_ENCODING).iter();
    let mut codings = lines.flat_map(items);
    codings.any(|coding| !coding.eq_ignore_ascii_case(b"identity"))
}

/// Whether `Cache-Control` forbids to change the content (RFC 9111 sections 5.2.1.6 and 5.2.2.6).
pub(super) fn forbids_changes(headers: &FieldMap) -> bool {
    lists(headers, &CACHE_CONTROL, "no-transform")
}

/// Whether a field lists `item`, without regard to case.
fn lists(headers: &FieldMap, name: &HeaderName, item: &str) -> bool {
    let mut items = headers.get_all(name).iter().flat_map(items);
    items.any(|listed| listed.eq_ignore_ascii_case(item.as_bytes()))
}

fn items(line: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let items = line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    items.filter(|item| !item.is_empty())
}

/// Says that the answer depends on what codings the caller accepts.
pub(super) fn vary(headers: &mut FieldMap) {
    if !lists(headers, &VARY, "*") && !lists(headers, &VARY, ACCEPT_ENCODING.as_str()) {
        headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

/// Writes the fields of an answer that is compressed.
pub(super) fn encode(headers: &mut FieldMap, coding: Coding) {
    headers.insert(CONTENT_ENCODING, coding.value());
    headers.remove(CONTENT_LENGTH);
    // Ranges would count the bytes of the answer as it came.
    headers.remove(ACCEPT_RANGES);
    weaken(headers);
}

/// Makes a strong entity tag weak: it stands for other bytes than before (RFC 9110 section 8.8.1).
pub(super) fn weaken(headers: &mut FieldMap) {
    let Some(tag) = headers.get_mut(ETAG) else { return };
    if tag.as_bytes().starts_with(b"\"")
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())
    {
        *tag = weak;
    }
}

/// Whether a caller's `If-None-Match` holds the answer's tag in weak form only.
pub(super) fn is_known_weakly(headers: &FieldMap, held: &[HeaderValue]) -> bool {
    let Some(tag) = headers
        .get(ETAG)
        .map(HeaderValue::as_bytes)
        .filter(|tag| tag.starts_with(b"\""))
    else {
        return false;
    };
    let mut is_known = false;
    for item in held.iter().flat_map(items) {
        match item.strip_prefix(b"W/") {
            Some(weak) => is_known |= weak == tag,
            None if item == tag => return false,
            None => {}
        }
    }
    is_known
}
