//! Detects duplicate names in one object.
//!
//! Names are stored as ranges of the text, eight bytes each, and only for open objects. Few names are compared with
//! each other as they arrive; many names are sorted when their object ends. There is no hash function, so no input can
//! provoke collisions.

use smallvec::SmallVec;

use super::refusal::Refusal;
use super::strings;

/// Objects with at most this number of names compare them one by one.
const FEW: usize = 16;

/// Bit that marks offsets into [`Names::decoded`].
const DECODED: u32 = 1 << 31;

/// Exclusive upper limit for the length of a text, so that offsets and the mark fit into 32 bits.
pub(super) const MAX_TEXT: usize = DECODED as usize;

/// Names of all open objects.
#[derive(Default)]
pub(super) struct Names {
    places: SmallVec<[NameSpan; 32]>,
    /// Decoded form of the names that contain escapes.
    decoded: Vec<u8>,
    /// Start of each open object's names in `places` and in `decoded`.
    objects: SmallVec<[(u32, u32); 8]>,
}

#[derive(Clone, Copy)]
struct NameSpan {
    start: u32,
    length: u32,
}

impl NameSpan {
    fn bytes<'a>(self, text: &'a [u8], decoded: &'a [u8]) -> &'a [u8] {
        let (of, start) = match self.start & DECODED {
            0 => (text, self.start),
            _ => (decoded, self.start & !DECODED),
        };
        &of[start as usize..][..self.length as usize]
    }
}

impl Names {
    /// Opens an object.
    pub(super) fn open(&mut self) {
        self.objects.push((self.places.len() as u32, self.decoded.len() as u32));
    }

    /// Adds a name to the innermost object. The name is the text between its quotes.
    pub(super) fn add(&mut self, text: &[u8], start: usize, end: usize, has_escapes: bool) -> Result<(), Refusal> {
        let place = if has_escapes {
            let before = self.decoded.len();
            strings::decode(&text[start..end], &mut self.decoded).ok_or(Refusal::NotJson)?;
            NameSpan {
                start: before as u32 | DECODED,
                length: (self.decoded.len() - before) as u32,
            }
        } else {
            NameSpan {
                start: start as u32,
                length: (end - start) as u32,
            }
        };
        let first = self.objects.last().map_or(0, |(first, _)| *first as usize);
        let own = &self.places[first..];
        if own.len() < FEW {
            let name = place.bytes(text, &self.decoded);
            let is_same = |other: &NameSpan| other.length == place.length && other.bytes(text, &self.decoded) == name;
            if own.iter().any(is_same) {
                return Err(Refusal::DuplicateName);
            }
        }
        self.places.push(place);
        Ok(())
    }

    /// Closes the innermost object.
    pub(super) fn close(&mut self, text: &[u8]) -> Result<(), Refusal> {
        let Some((first, decoded)) = self.objects.pop() else {
            return Ok(());
        };
        let own = &mut self.places[first as usize..];
        if own.len() > FEW {
            let bytes = |place: &NameSpan| place.bytes(text, &self.decoded);
            // Lengths are compared first, because that does not read the text.
            own.sort_unstable_by(|one, other| one.length.cmp(&other.length).then_with(|| bytes(one).cmp(bytes(other))));
            let is_twice = |pair: &[NameSpan]| pair[0].length == pair[1].length && bytes(&pair[0]) == bytes(&pair[1]);
            if own.windows(2).any(is_twice) {
                return Err(Refusal::DuplicateName);
            }
        }
        self.places.truncate(first as usize);
        self.decoded.truncate(decoded as usize);
        Ok(())
    }
}
