//! Locates values in a checked text. Only requested values are read; everything else is skipped.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use super::strings::{self, Decoded};

/// JSON value as written, without whitespace around it.
#[derive(Clone, Copy)]
pub struct Value<'a>(&'a [u8]);

/// Text between the quotes of a member name.
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

/// Read position in a checked text: at the start of a value, or inside an array or object.
#[derive(Clone, Copy)]
pub struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Value<'a> {
    /// Wraps a text that is one value. It has been checked, or this gateway has written it.
    pub const fn from_checked(text: &'a [u8]) -> Self {
        Self(text)
    }

    /// Text of the value, as written.
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

    /// Digits of a number, as written.
    pub fn number(self) -> Option<&'a str> {
        (self.kind() == Kind::Number).then(|| std::str::from_utf8(self.0).unwrap_or_default())
    }

    /// Value of a number. Infinite if it does not fit.
    pub fn f64(self) -> Option<f64> {
        self.number()?.parse().ok()
    }

    /// Decoded content of a string, or `None` if it has an unpaired surrogate.
    pub fn text(self) -> Option<Cow<'a, str>> {
        let inside = self.0.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        strings::text(inside)
    }

    /// Returns the value as an identifier: a string's content, or the digits of an integer as written. A number that
    /// can be written in several ways (`1e3`, `7.0`, `-0`) gives `None`.
    pub fn name(self) -> Option<Cow<'a, str>> {
        let Some(number) = self.number() else {
            return self.text();
        };
        let digits = number.strip_prefix('-').unwrap_or(number);
        let is_whole = digits.bytes().all(|byte| byte.is_ascii_digit()) && number != "-0";
        is_whole.then_some(Cow::Borrowed(number))
    }

    /// Returns whether the value is a string with this content.
    pub fn is_text(self, text: &str) -> bool {
        let inside = self.0.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
        inside.is_some_and(|inside| Decoded::new(inside).eq(text.bytes()))
    }

    /// Returns whether every string in the value decodes to Unicode text, without unpaired surrogates (RFC 8259 section
    /// 8.2).
    pub fn is_unicode(self) -> bool {
        strings::are_texts(self.0)
    }

    /// Nesting depth of arrays and objects.
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

    /// Elements of an array. Empty for any other value.
    pub fn elements(self) -> impl Iterator<Item = Self> {
        let mut cursor = self.within(Kind::Array);
        std::iter::from_fn(move || {
            let cursor = cursor.as_mut()?;
            cursor.element().then(|| cursor.skip())
        })
    }

    /// Members of an object. Empty for any other value.
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

    /// Follows member names and array indexes to a nested value.
    pub fn descend<'s>(self, steps: impl IntoIterator<Item = &'s str>) -> Option<Self> {
        steps.into_iter().try_fold(self, |value, step| match value.kind() {
            Kind::Object => value.get(step),
            Kind::Array => value.elements().nth(index(step)?),
            _ => None,
        })
    }

    /// Returns the value at a JSON pointer (RFC 6901).
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
    /// Wraps the text between the quotes of a checked string.
    pub const fn from_checked(raw: &'a [u8]) -> Self {
        Self(raw)
    }

    /// Text of the name as written, without its quotes.
    pub const fn raw(self) -> &'a [u8] {
        self.0
    }

    /// Returns whether the decoded name equals `name`.
    pub fn is(self, name: &str) -> bool {
        if self.0 == name.as_bytes() {
            // A backslash in the raw text starts an escape, so the decoded name differs from the raw text.
            !name.contains('\\')
        } else {
            self.has_escapes() && Decoded::new(self.0).eq(name.bytes())
        }
    }

    /// Decoded name. Names with an unpaired surrogate have already been refused.
    pub fn text(self) -> Cow<'a, str> {
        strings::text(self.0).unwrap_or_default()
    }

    fn has_escapes(self) -> bool {
        self.0.contains(&b'\\')
    }
}

/// Orders names by their decoded bytes.
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
    /// Places the cursor at the start of `value`.
    pub const fn new(value: Value<'a>) -> Self {
        Self { text: value.0, at: 0 }
    }

    /// Kind of the value at the cursor.
    pub fn kind(&self) -> Kind {
        Kind::begun_by(self.text.get(self.at).copied())
    }

    /// Offset in bytes from the start of the text.
    pub const fn at(&self) -> usize {
        self.at
    }

    /// Enters the array or object at the cursor.
    pub fn enter(&mut self) {
        self.at += 1;
    }

    /// Returns the name of the next member and moves to its value. At the end of the object, leaves it and returns
    /// `None`.
    pub fn name(&mut self) -> Option<Name<'a>> {
        if !self.next() {
            return None;
        }
        let start = self.at + 1;
        let end = strings::end(self.text, start);
        self.at = end + 1;
        // Skips the colon and the whitespace around it.
        self.space();
        self.at += 1;
        self.space();
        Some(Name(self.text.get(start..end)?))
    }

    /// Moves to the next element of an array. At the end of the array, leaves it and returns false.
    pub fn element(&mut self) -> bool {
        self.next()
    }

    /// Skips the value at the cursor and returns it.
    pub fn skip(&mut self) -> Value<'a> {
        let start = self.at;
        self.at = match self.kind() {
            Kind::String => strings::end(self.text, start + 1) + 1,
            Kind::Array | Kind::Object => nested_end(self.text, start),
            _ => scalar_end(self.text, start),
        };
        Value(self.text.get(start..self.at).unwrap_or_default())
    }

    /// Skips a comma, or the closing bracket of the array or object. Returns whether another entry follows.
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

/// Returns the end of the array or object that starts at `start`.
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

/// Parses a step as an array index: digits without leading zeros, so that different steps never mean the same index.
pub(super) fn index(step: &str) -> Option<usize> {
    let is_plain = step == "0" || !step.starts_with(['0', '+']);
    step.parse().ok().filter(|_| is_plain)
}
