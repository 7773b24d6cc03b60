//! Finds numbers and texts at given paths in JSON while it passes, in pieces of any size.
//!
//! A text may be several values one after the other, such as lines of JSON. What is not JSON is skipped to its end. The
//! reader checks what it needs to keep its place, and not the whole grammar.
//!
//! Invariant: what is found does not depend on how the text is cut into pieces, and no text makes the reader grow.

use super::path::{LONGEST_NAME, MOST_STEPS, Paths, Wanted};

/// Deepest nesting of arrays and objects.
const MAX_DEPTH: u32 = u128::BITS;

/// Takes what a reader finds.
pub(super) trait Findings {
    /// A whole number of at least 0, the summand of this index.
    fn number(&mut self, summand: usize, value: u64);
    /// So many bytes of text; 0 at its begin.
    fn text(&mut self, bytes: u64);
    /// The end of a value that is not within another one.
    fn end_value(&mut self);
}

/// Reader of one text.
#[derive(Debug)]
pub(super) struct JsonReader {
    state: State,
    /// Number of open arrays and objects.
    depth: u32,
    /// One bit for each of them, the innermost lowest. Set for an object.
    objects: u128,
    /// Paths that have led into the array or object at this depth, from 1.
    open: [u64; MOST_STEPS + 1],
    /// Paths that have led to the value that is read or to come.
    here: u64,
    name: Name,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a value.
    Value,
    /// After `[`: before a value or `]`.
    FirstValue,
    /// After `{`: before a name or `}`.
    FirstName,
    /// Before a name.
    NextName,
    InName(Escape),
    Colon,
    Text {
        escape: Escape,
        is_wanted: bool,
    },
    Number(Digits),
    /// Within `true`, `false` or `null`, with the letters that are to come.
    Word(&'static [u8]),
    /// After a value.
    After,
    /// Not JSON.
    Broken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escape {
    None,
    /// After a backslash.
    Begun,
    /// So many digits of `\uXXXX` are to come.
    Digits(u8, u16),
}

/// A number that is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Digits {
    /// Digits alone, and their value.
    Whole(u64),
    /// Not a whole number of at least 0, or one beyond 64 bits.
    Other,
}

/// A name that is being read; a longer one than [`LONGEST_NAME`] equals none.
#[derive(Debug)]
struct Name {
    bytes: [u8; LONGEST_NAME],
    length: usize,
}

impl Name {
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte;
        }
        self.length = self.length.saturating_add(1);
    }

    fn push_char(&mut self, code: u16) {
        // Half of a surrogate pair becomes a character that no path has.
        let letter = char::from_u32(code.into()).unwrap_or(char::REPLACEMENT_CHARACTER);
        let mut buffer = [0; 4];
        for byte in letter.encode_utf8(&mut buffer).bytes() {
            self.push(byte);
        }
    }

    fn get(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or(b"\"")
    }
}

impl JsonReader {
    pub(super) fn new(paths: &Paths) -> Self {
        Self {
            state: State::Value,
            depth: 0,
            objects: 0,
            open: [0; MOST_STEPS + 1],
            here: paths.top(),
            name: Name {
                bytes: [0; LONGEST_NAME],
                length: 0,
            },
        }
    }

    /// Begins another text. Returns whether the last one was JSON as far as it came.
    pub(super) fn restart(&mut self, paths: &Paths) -> bool {
        let was_json = self.state != State::Broken;
        (self.state, self.depth, self.objects, self.here) = (State::Value, 0, 0, paths.top());
        was_json
    }

    /// Reads a number that ends with the text.
    pub(super) fn finish(&mut self, paths: &Paths, found: &mut impl Findings) {
        if let State::Number(_) = self.state {
            self.read(b" ", paths, found);
        }
    }

    /// Reads the next piece.
    pub(super) fn read(&mut self, piece: &[u8], paths: &Paths, found: &mut impl Findings) {
        let mut at = 0;
        while let Some(&byte) = piece.get(at) {
            match self.state {
                State::Broken => return,
                State::Text {
                    escape: Escape::None,
                    is_wanted,
                } => {
                    let rest = &piece[at..];
                    let length = memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
                    if is_wanted && length > 0 {
                        found.text(length as u64);
                    }
                    at += length;
                    if at < piece.len() {
                        self.step(piece[at], paths, found);
                        at += 1;
                    }
                    continue;
                }
                State::Number(_) if !matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E') => {
                    self.end_number(paths, found);
                    // The byte after it is read as what follows.
                    continue;
                }
                _ => self.step(byte, paths, found),
            }
            at += 1;
        }
    }

    fn step(&mut self, byte: u8, paths: &Paths, found: &mut impl Findings) {
        let is_space = matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
        self.state = match self.state {
            State::Value | State::FirstValue | State::FirstName | State::NextName | State::Colon | State::After
                if is_space =>
            {
                return;
            }
            State::FirstValue if byte == b']' => return self.close(found),
            State::Value | State::FirstValue => return self.begin_value(byte, paths, found),
            State::FirstName if byte == b'}' => return self.close(found),
            State::FirstName | State::NextName if byte == b'"' => {
                self.name.length = 0;
                State::InName(Escape::None)
            }
            State::InName(escape) => return self.in_name(escape, byte),
            State::Colon if byte == b':' => {
                self.lead_to_member(paths);
                State::Value
            }
            State::Text { escape, is_wanted } => return self.in_text(escape, is_wanted, byte, found),
            State::Number(digits) => State::Number(digits.and(byte)),
            State::Word([next, rest @ ..]) if *next == byte => match rest {
                [] => return self.end_value(found),
                _ => State::Word(rest),
            },
            State::After if self.depth == 0 => {
                self.here = paths.top();
                return self.begin_value(byte, paths, found);
            }
            State::After => return self.after_value(byte, paths, found),
            State::FirstName | State::NextName | State::Colon | State::Word(_) | State::Broken => State::Broken,
        };
    }

    fn in_object(&self) -> bool {
        self.objects & 1 == 1
    }

    /// Returns the number of steps that lead to the value at hand.
    const fn steps(&self) -> usize {
        self.depth as usize
    }

    fn begin_value(&mut self, byte: u8, paths: &Paths, found: &mut impl Findings) {
        self.state = match byte {
            b'{' | b'[' if self.depth == MAX_DEPTH => State::Broken,
            b'{' | b'[' => {
                let is_object = byte == b'{';
                self.depth += 1;
                self.objects = self.objects << 1 | u128::from(is_object);
                if let Some(open) = self.open.get_mut(self.depth as usize) {
                    *open = self.here;
                }
                if is_object {
                    State::FirstName
                } else {
                    self.lead_to_element(paths);
                    State::FirstValue
                }
            }
            b'"' => {
                let is_wanted =
                    self.here != 0 && paths.ends(self.here, self.steps()).any(|wanted| wanted == Wanted::Text);
                if is_wanted {
                    found.text(0);
                }
                State::Text {
                    escape: Escape::None,
                    is_wanted,
                }
            }
            b'0'..=b'9' => State::Number(Digits::Whole((byte - b'0').into())),
            b'-' => State::Number(Digits::Other),
            b't' => State::Word(b"rue"),
            b'f' => State::Word(b"alse"),
            b'n' => State::Word(b"ull"),
            _ => State::Broken,
        };
    }

    /// Returns the paths that have led into the innermost array or object.
    fn led_into(&self) -> u64 {
        self.open.get(self.depth as usize).copied().unwrap_or(0)
    }

    fn lead_to_element(&mut self, paths: &Paths) {
        self.here = paths.step(self.led_into(), self.steps() - 1, None);
    }

    fn lead_to_member(&mut self, paths: &Paths) {
        self.here = paths.step(self.led_into(), self.steps() - 1, Some(self.name.get()));
    }

    fn in_name(&mut self, escape: Escape, byte: u8) {
        self.state = match (escape, byte) {
            (Escape::None, b'"') => State::Colon,
            (Escape::None, b'\\') => State::InName(Escape::Begun),
            (Escape::None, _) => {
                self.name.push(byte);
                State::InName(Escape::None)
            }
            (Escape::Begun, b'u') => State::InName(Escape::Digits(4, 0)),
            (Escape::Begun, _) => {
                let Some(meant) = meant_by_escape(byte) else {
                    self.state = State::Broken;
                    return;
                };
                self.name.push(meant);
                State::InName(Escape::None)
            }
            (Escape::Digits(left, code), _) => match with_digit(left, code, byte) {
                None => State::Broken,
                Some(Escape::Digits(0, code)) => {
                    self.name.push_char(code);
                    State::InName(Escape::None)
                }
                Some(more) => State::InName(more),
            },
        };
    }

    fn in_text(&mut self, escape: Escape, is_wanted: bool, byte: u8, found: &mut impl Findings) {
        let mut count = |bytes| {
            if is_wanted {
                found.text(bytes);
            }
        };
        let escape = match (escape, byte) {
            (Escape::None, b'"') => return self.end_value(found),
            (Escape::None, b'\\') => Escape::Begun,
            (Escape::None, _) => {
                count(1);
                Escape::None
            }
            (Escape::Begun, b'u') => Escape::Digits(4, 0),
            (Escape::Begun, _) if meant_by_escape(byte).is_none() => {
                self.state = State::Broken;
                return;
            }
            (Escape::Begun, _) => {
                count(1);
                Escape::None
            }
            (Escape::Digits(left, code), _) => match with_digit(left, code, byte) {
                None => {
                    self.state = State::Broken;
                    return;
                }
                Some(Escape::Digits(0, code)) => {
                    count(length_of(code));
                    Escape::None
                }
                Some(more) => more,
            },
        };
        self.state = State::Text { escape, is_wanted };
    }

    fn end_number(&mut self, paths: &Paths, found: &mut impl Findings) {
        if let State::Number(Digits::Whole(value)) = self.state
            && self.here != 0
        {
            for wanted in paths.ends(self.here, self.steps()) {
                if let Wanted::Number(summand) = wanted {
                    found.number(summand, value);
                }
            }
        }
        self.end_value(found);
    }

    fn end_value(&mut self, found: &mut impl Findings) {
        self.state = State::After;
        if self.depth == 0 {
            found.end_value();
        }
    }

    fn after_value(&mut self, byte: u8, paths: &Paths, found: &mut impl Findings) {
        match (byte, self.in_object()) {
            (b',', true) => self.state = State::NextName,
            (b',', false) => {
                self.lead_to_element(paths);
                self.state = State::Value;
            }
            (b'}', true) | (b']', false) => self.close(found),
            _ => self.state = State::Broken,
        }
    }

    fn close(&mut self, found: &mut impl Findings) {
        self.depth -= 1;
        self.objects >>= 1;
        self.end_value(found);
    }
}

impl Digits {
    fn and(self, byte: u8) -> Self {
        match self {
            Self::Whole(value) if byte.is_ascii_digit() => {
                let digit = u64::from(byte - b'0');
                let longer = value.checked_mul(10).and_then(|value| value.checked_add(digit));
                longer.map_or(Self::Other, Self::Whole)
            }
            _ => Self::Other,
        }
    }
}

/// Returns what a letter after a backslash means; `None` if it means nothing.
const fn meant_by_escape(byte: u8) -> Option<u8> {
    Some(match byte {
        b'"' | b'\\' | b'/' => byte,
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        _ => return None,
    })
}

/// Adds a digit to the code of an escape of which `left` digits are to come.
fn with_digit(left: u8, code: u16, byte: u8) -> Option<Escape> {
    let digit = char::from(byte).to_digit(16)?;
    Some(Escape::Digits(left - 1, code << 4 | digit as u16))
}

/// Returns the length of an escaped character in UTF-8. The two halves of a surrogate pair have four bytes together.
const fn length_of(code: u16) -> u64 {
    match code {
        0..=0x7f => 1,
        0x80..=0x7ff => 2,
        0xd800..=0xdfff => 2,
        _ => 3,
    }
}
