//! Checks whether bytes are one JSON value (RFC 8259), in one pass and without recursion. Stores only the names of open
//! objects.

use std::ops::Range;

use super::names::{MAX_TEXT, Names};
use super::refusal::Refusal;
use super::strings;

/// Deepest nesting of arrays and objects.
pub const MAX_DEPTH: u32 = u128::BITS;

/// Number of values that any document may have, however short its limit is.
const FEW_VALUES: usize = 10_000;

/// Bytes of the limit per allowed value, for documents with a long limit.
const BYTES_PER_VALUE: usize = 4;

/// Returns the range of the value in `text`, without whitespace around it. `limit` is the most bytes of the text; it
/// also limits the number of values.
pub(super) fn check(text: &[u8], limit: usize) -> Result<Range<usize>, Refusal> {
    if text.len() > limit.min(MAX_TEXT - 1) {
        return Err(Refusal::TooLarge);
    }
    std::str::from_utf8(text).map_err(|_| Refusal::NotJson)?;
    Reader::new(text, limit).document()
}

/// Offset in bytes, from 0, at which [`check`] refuses a text.
pub(super) fn refused_at(text: &[u8], limit: usize) -> usize {
    if let Err(error) = std::str::from_utf8(text) {
        return error.valid_up_to();
    }
    let mut reader = Reader::new(text, limit);
    let _ = reader.document();
    reader.at
}

/// Returns whether `text` is a JSON number and nothing else.
pub(super) fn is_number(text: &str) -> bool {
    text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) && check(text.as_bytes(), text.len()).is_ok()
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    /// Number of values that may still follow.
    values: usize,
    /// Number of open arrays and objects.
    depth: u32,
    /// One bit for each open array or object, the innermost lowest. Set for an object.
    objects: u128,
    names: Names,
}

impl<'a> Reader<'a> {
    fn new(text: &'a [u8], limit: usize) -> Self {
        Self {
            text,
            at: 0,
            values: (limit / BYTES_PER_VALUE).max(FEW_VALUES),
            depth: 0,
            objects: 0,
            names: Names::default(),
        }
    }

    fn document(&mut self) -> Result<Range<usize>, Refusal> {
        self.space();
        let start = self.at;
        loop {
            self.values = self.values.checked_sub(1).ok_or(Refusal::TooLarge)?;
            let is_open = match self.byte() {
                b'"' => self.string()?,
                b'{' => self.open_object()?,
                b'[' => self.open_array()?,
                b'-' | b'0'..=b'9' => self.number()?,
                b't' => self.word(b"true")?,
                b'f' => self.word(b"false")?,
                b'n' => self.word(b"null")?,
                _ => return Err(Refusal::NotJson),
            };
            if is_open {
                continue;
            }
            if self.after_value()? {
                let end = self.at;
                self.space();
                return if self.at == self.text.len() {
                    Ok(start..end)
                } else {
                    Err(Refusal::NotJson)
                };
            }
        }
    }

    /// Moves from the end of a value to the start of the next and closes the arrays and objects that end between them.
    /// Returns whether the document has ended.
    fn after_value(&mut self) -> Result<bool, Refusal> {
        while self.depth > 0 {
            self.space();
            let in_object = self.objects & 1 == 1;
            match self.byte() {
                b',' => {
                    self.at += 1;
                    self.space();
                    if in_object {
                        self.name()?;
                    }
                    return Ok(false);
                }
                b'}' if in_object => self.names.close(self.text)?,
                b']' if !in_object => {}
                _ => return Err(Refusal::NotJson),
            }
            self.at += 1;
            self.depth -= 1;
            self.objects >>= 1;
        }
        Ok(true)
    }

    /// Byte at the current position. At the end of the text 0, which is invalid everywhere.
    fn byte(&self) -> u8 {
        self.text.get(self.at).copied().unwrap_or(0)
    }

    fn space(&mut self) {
        while matches!(self.byte(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
    }

    /// Opens an array. Returns whether it has elements.
    fn open_array(&mut self) -> Result<bool, Refusal> {
        self.deepen()?;
        if self.byte() == b']' {
            self.at += 1;
            self.depth -= 1;
            return Ok(false);
        }
        self.objects <<= 1;
        Ok(true)
    }

    /// Opens an object. Returns whether it has members; if so, the first name has been read.
    fn open_object(&mut self) -> Result<bool, Refusal> {
        self.deepen()?;
        if self.byte() == b'}' {
            self.at += 1;
            self.depth -= 1;
            return Ok(false);
        }
        self.objects = self.objects << 1 | 1;
        self.names.open();
        self.name()?;
        Ok(true)
    }

    fn deepen(&mut self) -> Result<(), Refusal> {
        if self.depth == MAX_DEPTH {
            return Err(Refusal::TooDeep);
        }
        self.depth += 1;
        self.at += 1;
        self.space();
        Ok(())
    }

    /// Reads a name, the colon, and the whitespace around the colon.
    fn name(&mut self) -> Result<(), Refusal> {
        if self.byte() != b'"' {
            return Err(Refusal::NotJson);
        }
        let start = self.at + 1;
        let end = strings::check(self.text, start).ok_or(Refusal::NotJson)?;
        self.names.add(self.text, start, end.at, end.has_escapes)?;
        self.at = end.at + 1;
        self.space();
        if self.byte() != b':' {
            return Err(Refusal::NotJson);
        }
        self.at += 1;
        self.space();
        Ok(())
    }

    fn string(&mut self) -> Result<bool, Refusal> {
        self.at = strings::check(self.text, self.at + 1).ok_or(Refusal::NotJson)?.at + 1;
        Ok(false)
    }

    fn word(&mut self, word: &[u8]) -> Result<bool, Refusal> {
        if self.text[self.at..].starts_with(word) {
            self.at += word.len();
            return Ok(false);
        }
        Err(Refusal::NotJson)
    }

    /// Reads a number (RFC 8259 section 6). The caller checks what follows it.
    fn number(&mut self) -> Result<bool, Refusal> {
        if self.byte() == b'-' {
            self.at += 1;
        }
        if self.byte() == b'0' {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.byte() == b'.' {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.byte(), b'e' | b'E') {
            self.at += 1;
            if matches!(self.byte(), b'+' | b'-') {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(false)
    }

    /// Reads at least one digit.
    fn digits(&mut self) -> Result<(), Refusal> {
        let start = self.at;
        while self.byte().is_ascii_digit() {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(Refusal::NotJson) }
    }
}
