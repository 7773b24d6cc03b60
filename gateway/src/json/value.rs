//! Values found in a text that has been checked. Nothing is parsed but what is asked for; the rest is passed over.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use super::strings::{self, Decoded};

/// A JSON value as it was written, without space around it.
#[derive(Clone, Copy)]
pub struct Value<'a>(&'a [u8]);

/// What stands between the quotes of a name.
#[derive(Clone, Copy)]
pub struct Name<'a>(&'a [u8]);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

/// A place in a checked text from which it is read on: at the beginning of a value, or within an array or object.
#[derive(Clone, Copy)]
pub struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Value<'a> {
    /// `text` is one value that has been checked, or that we have written.
    pub const fn from_checked(text: &'a [u8]) -> Self {
        Self(text)
    }

    /// As it was written.
    pub const fn raw(self) -> &'a [u8] {
        self.0
    }

    pub fn kind(self) -> Kind {
        Kind::begun_by(self.0.first().copied())
    }

    pub fn is_null(self) -> bool {
        self.kind() == Kind::Null
    }

    pub fn bool(self) -> Option<bool> {
        (self.kind() == Kind::Bool).then(|| self.0 == b"true")
    }

    /// The digits of a number, as they were written.
    pub fn number(self) -> Option<&'a str> {
        (self.kind() == Kind::Number).then(|| std::str::from_utf8(self.0).unwrap_or_default())
    }

    /// A number; infinite if it is beyond what fits.
    pub fn f64(self) -> Option<f64> {
        self.number()?.parse().ok()
    }

    /// What a string says; none if it is no text: half a surrogate pair.
    pub fn text(self) -> Option<Cow<'a, str>> {
        let inside = self.0.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        strings::text(inside)
    }

    /// Whether it is a string that says this.
    /// A string's text, or the digits of a whole number as they were written: what names something. A number that could
    /// be written in several ways (`1e3`, `7.0`, `-0`) names nothing.
    pub fn name(self) -> Option<Cow<'a, str>> {
        let Some(number) = self.number() else {
            return self.text();
        };
        let digits = number.strip_prefix('-').unwrap_or(number);
        let is_whole = digits.bytes().all(|byte| byte.is_ascii_digit()) && number != "-0";
        is_whole.then_some(Cow::Borrowed(number))
    }

    pub fn is_text(self, text: &str) -> bool {
        let inside = self.0.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
        inside.is_some_and(|inside| Decoded::new(inside).eq(text.bytes()))
    }

    /// Whether every string in it is a text: no half of a surrogate pair (RFC 8259 section 8.2).
    pub fn is_unicode(self) -> bool {
        strings::are_texts(self.0)
    }

    /// How many arrays and objects there are within each other.
    pub fn depth(self) -> u32 {
        let (mut at, mut depth, mut most) = (0, 0_u32, 0);
        while let Some(byte) = self.0.get(at) {
            at += 1;
            match byte {
                b'"' => at = strings::end(self.0, at) + 1,
                b'[' | b'{' => {
                    depth += 1;
                    most = most.max(depth);
                }
                b']' | b'}' => depth -= 1,
                _ => {}
            }
        }
        most
    }

    /// None but for an array.
    pub fn elements(self) -> impl Iterator<Item = Self> {
        let mut cursor = self.within(Kind::Array);
        std::iter::from_fn(move || {
            let cursor = cursor.as_mut()?;
            cursor.element().then(|| cursor.skip())
        })
    }

    /// None but for an object.
    pub fn members(self) -> impl Iterator<Item = (Name<'a>, Self)> {
        let mut cursor = self.within(Kind::Object);
        std::iter::from_fn(move || {
            let cursor = cursor.as_mut()?;
            cursor.name().map(|name| (name, cursor.skip()))
        })
    }

    pub fn get(self, name: &str) -> Option<Self> {
        self.members().find(|(own, _)| own.is(name)).map(|(_, value)| value)
    }

    /// Follows names, and indexes into arrays.
    pub fn descend<'s>(self, steps: impl IntoIterator<Item = &'s str>) -> Option<Self> {
        steps.into_iter().try_fold(self, |value, step| match value.kind() {
            Kind::Object => value.get(step),
            Kind::Array => value.elements().nth(index(step)?),
            _ => None,
        })
    }

    /// The value that a JSON pointer leads to (RFC 6901).
    pub fn pointer(self, pointer: &str) -> Option<Self> {
        let Some(tokens) = pointer.strip_prefix('/') else {
            return pointer.is_empty().then_some(self);
        };
        tokens.split('/').try_fold(self, |value, token| match value.kind() {
            Kind::Object => value.get(&token.replace("~1", "/").replace("~0", "~")),
            Kind::Array => value.elements().nth(index(token)?),
            _ => None,
        })
    }

    fn within(self, kind: Kind) -> Option<Cursor<'a>> {
        (self.kind() == kind).then(|| {
            let mut cursor = Cursor::new(self);
            cursor.enter();
            cursor
        })
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(self.0).map_err(|_| fmt::Error)?)
    }
}

impl<'a> Name<'a> {
    /// `raw` is what stands between the quotes of a string that has been checked.
    pub const fn from_checked(raw: &'a [u8]) -> Self {
        Self(raw)
    }

    /// As it was written, without its quotes.
    pub const fn raw(self) -> &'a [u8] {
        self.0
    }

    /// Whether it reads `name`.
    pub fn is(self, name: &str) -> bool {
        if self.0 == name.as_bytes() {
            // What is written with a backslash never reads as it is written.
            !name.contains('\\')
        } else {
            self.has_escapes() && Decoded::new(self.0).eq(name.bytes())
        }
    }

    /// As it reads. Names that are no text have been refused.
    pub fn text(self) -> Cow<'a, str> {
        strings::text(self.0).unwrap_or_default()
    }

    fn has_escapes(self) -> bool {
        self.0.contains(&b'\\')
    }
}

/// In the order of what they read.
impl Ord for Name<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        if self.has_escapes() || other.has_escapes() {
            Decoded::new(self.0).cmp(Decoded::new(other.0))
        } else {
            self.0.cmp(other.0)
        }
    }
}

impl PartialOrd for Name<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Name<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Name<'_> {}

impl Kind {
    fn begun_by(first: Option<u8>) -> Self {
        match first {
            Some(b'{') => Self::Object,
            Some(b'[') => Self::Array,
            Some(b'"') => Self::String,
            Some(b't' | b'f') => Self::Bool,
            Some(b'-' | b'0'..=b'9') => Self::Number,
            _ => Self::Null,
        }
    }
}

impl<'a> Cursor<'a> {
    /// At the beginning of `value`.
    pub const fn new(value: Value<'a>) -> Self {
        Self { text: value.0, at: 0 }
    }

    /// Of the value at hand.
    pub fn kind(&self) -> Kind {
        Kind::begun_by(self.text.get(self.at).copied())
    }

    /// Bytes from where it began.
    pub const fn at(&self) -> usize {
        self.at
    }

    /// Into the array or object at hand.
    pub fn enter(&mut self) {
        self.at += 1;
    }

    /// To the next member of an object: its name; the cursor is then at its value. At the end it leaves the object.
    pub fn name(&mut self) -> Option<Name<'a>> {
        if !self.next() {
            return None;
        }
        let start = self.at + 1;
        let end = strings::end(self.text, start);
        self.at = end + 1;
        // The colon and the space around it.
        self.space();
        self.at += 1;
        self.space();
        Some(Name(self.text.get(start..end)?))
    }

    /// To the next element of an array; at the end it leaves the array.
    pub fn element(&mut self) -> bool {
        self.next()
    }

    /// Passes over the value at hand.
    pub fn skip(&mut self) -> Value<'a> {
        let start = self.at;
        self.at = match self.kind() {
            Kind::String => strings::end(self.text, start + 1) + 1,
            Kind::Array | Kind::Object => nested_end(self.text, start),
            _ => scalar_end(self.text, start),
        };
        Value(self.text.get(start..self.at).unwrap_or_default())
    }

    /// Over a comma, or over the bracket that ends what is being read: then there is no next.
    fn next(&mut self) -> bool {
        self.space();
        match self.text.get(self.at) {
            Some(b',') => {
                self.at += 1;
                self.space();
                true
            }
            Some(b']' | b'}') | None => {
                self.at += 1;
                false
            }
            Some(_) => true,
        }
    }

    fn space(&mut self) {
        while matches!(self.text.get(self.at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }
}

/// Where the array or object ends that begins at `start`.
fn nested_end(text: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0_u32);
    while let Some(byte) = text.get(at) {
        at += 1;
        match byte {
            b'"' => at = strings::end(text, at) + 1,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => {
                depth -= 1;
                if depth == 0 {
                    return at;
                }
            }
            _ => {}
        }
    }
    text.len()
}

fn scalar_end(text: &[u8], start: usize) -> usize {
    let is_end = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\n' | b'\r' | b'\t');
    text.get(start..)
        .and_then(|rest| rest.iter().position(is_end))
        .map_or(text.len(), |length| start + length)
}

/// A step as an index: digits without leading zeros, so that no two steps are the same one.
pub(super) fn index(step: &str) -> Option<usize> {
    let is_plain = step == "0" || !step.starts_with(['0', '+']);
    step.parse().ok().filter(|_| is_plain)
}
