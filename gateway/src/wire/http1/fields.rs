//! The fields of a head or of a trailer section: their bytes, and where each lies in them.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

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
        let name = place.kind.name();
        let name = name.or_else(|| HeaderName::from_bytes(self.at(place).name).ok());
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
