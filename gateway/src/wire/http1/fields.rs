//! The fields of a head or of a trailer section: their bytes, and where each lies in them.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};

use super::kind::FieldKind;
use super::{Refusal, Result};
use crate::message::FieldMap;

/// Fields that the gateway usually adds to those of a message.
const ADDED: usize = 4;

/// Place of a field line in the bytes of its section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) name: u32,
    pub(crate) value: u32,
    pub(crate) value_end: u32,
    /// Length of the name, which `http` limits to 65,535 bytes.
    pub(crate) name_length: u16,
    pub(crate) kind: FieldKind,
}

/// Fields of a head or of a trailer section, in the order of their lines.
#[derive(Clone)]
pub struct Fields {
    bytes: Bytes,
    places: Vec<Place>,
}

/// One field line. `value` has no white space at its ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    pub kind: FieldKind,
    pub name: &'a [u8],
    pub value: &'a [u8],
}

impl Fields {
    /// Creates the fields that lie at `places` in `bytes`.
    pub(crate) const fn new(bytes: Bytes, places: Vec<Place>) -> Self {
        Self { bytes, places }
    }

    /// Returns the whole section, as it came.
    pub(crate) const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.places.iter().map(|place| self.at(place))
    }

    /// Returns the values of all fields of this kind.
    pub fn all(&self, kind: FieldKind) -> impl Iterator<Item = &[u8]> {
        self.iter()
            .filter(move |field| field.kind == kind)
            .map(|field| field.value)
    }

    /// Copies the names, and shares the bytes of the values. The map has room for the fields that the gateway adds.
    ///
    /// # Errors
    /// Refuses more fields than a map can hold.
    pub fn to_map(&self) -> Result<FieldMap> {
        self.to_map_of(|_| true)
    }

    /// Does the same for an answer, of which the fields are left out that concern only the connection and were read with
    /// the head. `states_length` says whether `Content-Length` stays.
    ///
    /// # Errors
    /// Refuses more fields than a map can hold.
    pub(crate) fn to_map_of_answer(&self, states_length: bool) -> Result<FieldMap> {
        self.to_map_of(|field| match field.kind {
            FieldKind::TransferEncoding | FieldKind::KeepAlive | FieldKind::ProxyConnection => false,
            FieldKind::ContentLength => states_length,
            // Any other option has more to say.
            FieldKind::Connection => {
                !(field.value.eq_ignore_ascii_case(b"keep-alive") || field.value.eq_ignore_ascii_case(b"close"))
            }
            _ => true,
        })
    }

    /// Does the same without the fields that frame the message.
    ///
    /// # Errors
    /// Refuses more fields than a map can hold.
    pub fn to_map_without_framing(&self) -> Result<FieldMap> {
        self.to_map_of(|field| !field.kind.is_framing())
    }

    fn to_map_of(&self, is_taken: impl Fn(Field<'_>) -> bool) -> Result<FieldMap> {
        let mut map = FieldMap::with_capacity(self.places.len() + ADDED);
        for place in &self.places {
            if is_taken(self.at(place)) {
                self.append_to(&mut map, place)?;
            }
        }
        Ok(map)
    }

    fn append_to(&self, map: &mut FieldMap, place: &Place) -> Result<()> {
        let name = self.at(place).name;
        let name = known(name).or_else(|| HeaderName::from_bytes(name).ok());
        let value = HeaderValue::from_maybe_shared(self.bytes.slice(place.value as usize..place.value_end as usize));
        let (Some(name), Ok(value)) = (name, value) else {
            return Err(Refusal::Malformed("a field name is too long"));
        };
        map.append(name, value);
        Ok(())
    }

    fn at(&self, place: &Place) -> Field<'_> {
        let name = place.name as usize;
        Field {
            kind: place.kind,
            name: &self.bytes[name..name + usize::from(place.name_length)],
            value: &self.bytes[place.value as usize..place.value_end as usize],
        }
    }

    /// Returns the memory of the places, for the next section.
    pub(crate) fn into_places(mut self) -> Vec<Place> {
        self.places.clear();
        self.places
    }
}

/// Returns the name if it is one of those that most messages have, which are found sooner than by a reader of any name.
fn known(name: &[u8]) -> Option<HeaderName> {
    let known = match (name.len(), name.first()? | 0x20) {
        (4, b'd') => header::DATE,
        (4, b'e') => header::ETAG,
        (4, b'h') => header::HOST,
        (4, b'v') => header::VARY,
        (6, b'a') => header::ACCEPT,
        (6, b'c') => header::COOKIE,
        (6, b's') => header::SERVER,
        (10, b'c') => header::CONNECTION,
        (10, b'u') => header::USER_AGENT,
        (12, b'c') => header::CONTENT_TYPE,
        (13, b'a') if name[1] | 0x20 == b'u' => header::AUTHORIZATION,
        (13, b'a') => header::ACCEPT_RANGES,
        (13, b'c') => header::CACHE_CONTROL,
        (13, b'l') => header::LAST_MODIFIED,
        (14, b'c') => header::CONTENT_LENGTH,
        (15, b'a') if name[7] | 0x20 == b'e' => header::ACCEPT_ENCODING,
        (15, b'a') => header::ACCEPT_LANGUAGE,
        (16, b'c') => header::CONTENT_ENCODING,
        (17, b't') => header::TRANSFER_ENCODING,
        _ => return None,
    };
    is_spelling(name, known.as_str().as_bytes()).then_some(known)
}

/// Whether two names of one length differ in the case of letters at most. `lower` has letters and hyphens alone; a byte
/// that becomes a hyphen by its bit for lower case is no byte of a name.
fn is_spelling(name: &[u8], lower: &[u8]) -> bool {
    const LOWER: u64 = 0x2020_2020_2020_2020;
    let ((words, rest), (lower_words, lower_rest)) = (name.as_chunks(), lower.as_chunks());
    let of_words = words.iter().zip(lower_words).fold(0, |all, (word, lower)| {
        all | (u64::from_ne_bytes(*word) | LOWER) ^ u64::from_ne_bytes(*lower)
    });
    let of_rest = rest
        .iter()
        .zip(lower_rest)
        .fold(0, |all, (byte, lower)| all | (byte | 0x20) ^ lower);
    of_words == 0 && of_rest == 0
}

impl std::fmt::Debug for Fields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let lines = self.iter().map(|field| (text(field.name), text(field.value)));
        f.debug_map().entries(lines).finish()
    }
}

impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Fields {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case() {
        let all = "date etag host vary accept cookie server connection user-agent content-type authorization accept-ranges \
                   cache-control last-modified content-length accept-encoding accept-language content-encoding \
                   transfer-encoding";
        for name in all.split(' ') {
            let found = known(name.to_ascii_uppercase().as_bytes());
            assert_eq!(found.as_ref().map(HeaderName::as_str), Some(name));
            for at in 0..name.len() {
                let mut other = name.as_bytes().to_vec();
                for byte in (b'!'..=b'~').filter(|byte| !byte.eq_ignore_ascii_case(&name.as_bytes()[at])) {
                    other[at] = byte;
                    let is_another =
                        known(&other).is_none_or(|found| other.eq_ignore_ascii_case(found.as_str().as_bytes()));
                    assert!(is_another, "{}", String::from_utf8_lossy(&other));
                }
            }
        }
    }
}
