//! Collects the members at the root of an answer, in the order in which their names first appeared.
//!
//! Members are ranges of the parts' texts, 32 bytes each. An answer of many small members therefore costs little more
//! than its text.

use std::sync::Arc;

use bytes::Bytes;

use super::deep;
use super::draft::Conflict;
use super::grouped::{self, GroupPrefixes};
use super::placed_member::{MemberName, PlacedMember, wrapped};
use super::recipe::Recipe;
use super::shape::Shape;
use crate::json::{self, Cursor, Document, Name, Value};

#[derive(Default)]
pub(super) struct Body {
    texts: Vec<Bytes>,
    members: Vec<Member>,
    /// Document that is the answer.
    whole: Option<Document>,
}

struct Member {
    /// Name without its quotes.
    name: Piece,
    value: Piece,
    part: u32,
    /// Merged into an earlier member of the same name.
    is_gone: bool,
}

/// Byte range in one of the texts.
#[derive(Clone, Copy)]
struct Piece {
    text: u32,
    start: u32,
    end: u32,
}

impl Body {
    /// Adds the members of one part. `part` is the part's index.
    pub(super) fn add(&mut self, part: usize, placed: PlacedMember) {
        let part = part as u32;
        let (name, value) = match placed {
            PlacedMember::Members(object) => return self.add_members(part, object),
            PlacedMember::Whole(document) => {
                self.whole = Some(document);
                return;
            }
            PlacedMember::Member(name, value) => (name, value.bytes().clone()),
            PlacedMember::Within(path, value) => (path[0].clone(), wrapped(&path[1..], value.bytes()).into()),
        };
        let mut name = self.push(name.written().bytes().clone());
        name.start += 1;
        name.end -= 1;
        let value = self.push(value);
        self.members.push(Member {
            name,
            value,
            part,
            is_gone: false,
        });
    }

    fn add_members(&mut self, part: u32, object: Document) {
        let whole = self.push(object.bytes().clone());
        let piece = |piece: &[u8]| {
            let (start, end) = json::range(object.bytes(), piece);
            Piece { start, end, ..whole }
        };
        // Count first, so that the vector gets exactly the capacity that it needs.
        self.members.reserve_exact(object.value().members().count());
        let mut cursor = Cursor::new(object.value());
        cursor.enter();
        while let Some(name) = cursor.name() {
            self.members.push(Member {
                name: piece(name.raw()),
                value: piece(cursor.skip().raw()),
                part,
                is_gone: false,
            });
        }
    }

    fn push(&mut self, text: Bytes) -> Piece {
        let end = text.len() as u32;
        self.texts.push(text);
        Piece {
            text: self.texts.len() as u32 - 1,
            start: 0,
            end,
        }
    }

    fn bytes(&self, piece: Piece) -> &[u8] {
        &self.texts[piece.text as usize][piece.start as usize..piece.end as usize]
    }

    fn name(&self, member: u32) -> Name<'_> {
        Name::from_checked(self.bytes(self.members[member as usize].name))
    }

    /// Merges members of the same name into one. Under [`Conflict::Error`], returns the index of the first colliding
    /// part.
    pub(super) fn settle(&mut self, conflict: Conflict, passages: &GroupPrefixes) -> Result<(), usize> {
        let mut sorted: Vec<u32> = (0..self.members.len() as u32).collect();
        sorted.sort_unstable_by(|one, other| self.name(*one).cmp(&self.name(*other)).then(one.cmp(other)));
        let mut colliding: Option<u32> = None;
        let mut rest = &sorted[..];
        while let Some((first, others)) = rest.split_first() {
            let count = others
                .iter()
                .take_while(|other| self.name(**other) == self.name(*first))
                .count();
            let (same, next) = others.split_at(count);
            rest = next;
            if let Err(member) = self.settle_one(*first, same, conflict, passages) {
                colliding = Some(colliding.map_or(member, |before| before.min(member)));
            }
        }
        match colliding {
            Some(member) => Err(self.members[member as usize].part as usize),
            None => Ok(()),
        }
    }

    /// Merges `others`, which have the name of `first` and come after it, into `first`. Under [`Conflict::Error`],
    /// returns the first colliding member.
    fn settle_one(
        &mut self,
        first: u32,
        others: &[u32],
        conflict: Conflict,
        passages: &GroupPrefixes,
    ) -> Result<(), u32> {
        for other in others {
            let (present, later) = (self.members[first as usize].value, self.members[*other as usize].value);
            let value = |piece| Value::from_checked(self.bytes(piece));
            let value = match (passages.within(self.name(first)), conflict) {
                (Some(within), _) => {
                    let merged = grouped::merged(value(present), value(later), within, conflict);
                    let merged = merged.map_err(|_| *other)?;
                    self.push(merged.into())
                }
                (None, Conflict::First) => present,
                (None, Conflict::Last) => later,
                (None, Conflict::Error) => return Err(*other),
                (None, Conflict::Deep | Conflict::Concat) => {
                    let merged = deep::merged(value(present), value(later), conflict == Conflict::Concat);
                    self.push(merged.into())
                }
            };
            self.members[first as usize].value = value;
            self.members[*other as usize].is_gone = true;
        }
        Ok(())
    }

    /// Returns a body with only these fields of the document.
    pub(super) fn cut(self, wrap: Option<&Arc<[MemberName]>>, fields: &Shape) -> Self {
        let whole = self.write(None, None);
        let document = Value::from_checked(&whole);
        let steps: Vec<_> = wrap
            .map(|names| names.iter().map(MemberName::text).collect())
            .unwrap_or_default();
        let document = document.descend(steps.iter().map(AsRef::as_ref)).unwrap_or(document);
        let mut text = Vec::new();
        // Nothing is added, so there is room.
        let _ = fields.apply(document, usize::MAX, &mut text);
        let kept = Document::from_checked(text.into());
        let mut cut = Self::default();
        match wrap {
            Some(names) => cut.add(0, PlacedMember::Within(Arc::clone(names), kept)),
            None if self.whole.is_some() => cut.whole = Some(kept),
            None => cut.add(0, PlacedMember::Members(kept)),
        }
        cut
    }

    /// Writes the answer: a document that is the answer as it is, otherwise a JSON object. `wrap` gives the names that enclose everything except `errors`. A member with the
    /// errors' name is replaced by `errors`.
    pub(super) fn write(&self, wrap: Option<&[MemberName]>, errors: Option<&Document>) -> Bytes {
        if let Some(whole) = &self.whole {
            return whole.bytes().clone();
        }
        let members = || self.members.iter().filter(|member| !member.is_gone);
        let length = |piece: Piece| (piece.end - piece.start) as usize;
        let size = members().map(|member| length(member.name) + length(member.value) + 4);
        let names = wrap
            .unwrap_or_default()
            .iter()
            .map(|name| name.written().bytes().len() + 3);
        let around = 64 + names.sum::<usize>() + errors.map_or(0, |errors| errors.bytes().len());
        let mut out = Vec::with_capacity(size.sum::<usize>() + around);
        let mut errors = errors;
        out.push(b'{');
        for name in wrap.unwrap_or_default() {
            out.extend_from_slice(name.written().bytes());
            out.extend_from_slice(b":{");
        }
        for member in members() {
            let name = self.bytes(member.name);
            let is_errors = wrap.is_none() && Name::from_checked(name).is(Recipe::ERRORS);
            let value = match errors.take_if(|_| is_errors) {
                Some(errors) => errors.bytes(),
                None => self.bytes(member.value),
            };
            out.push(b'"');
            out.extend_from_slice(name);
            out.extend_from_slice(b"\":");
            out.extend_from_slice(value);
            out.push(b',');
        }
        if let Some(wrap) = wrap {
            close(&mut out);
            out.resize(out.len() + wrap.len() - 1, b'}');
            out.push(b',');
        }
        if let Some(errors) = errors {
            out.extend_from_slice(MemberName::from(Recipe::ERRORS).written().bytes());
            out.push(b':');
            out.extend_from_slice(errors.bytes());
        }
        close(&mut out);
        out.into()
    }
}

/// Replaces the last comma with the closing brace.
fn close(out: &mut Vec<u8>) {
    match out.last_mut() {
        Some(last) if *last == b',' => *last = b'}',
        _ => out.push(b'}'),
    }
}
