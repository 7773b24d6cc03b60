//! Finds the end of JSON strings and decodes their contents (RFC 8259 section 7).

use std::borrow::Cow;

const ONES: u64 = u64::from_ne_bytes([1; 8]);
const HIGH: u64 = ONES << 7;

/// Position of a string's closing quote, and whether the string has escapes.
pub(super) struct End {
    pub(super) at: usize,
    pub(super) has_escapes: bool,
}

/// Checks the string whose content begins at `from`, after the opening quote. Unpaired surrogates are accepted, because
/// the grammar allows them.
pub(super) fn check(text: &[u8], from: usize) -> Option<End> {
    let (mut at, mut has_escapes) = (from, false);
    loop {
        at = stop(text, at)?;
        match text[at] {
            b'"' => return Some(End { at, has_escapes }),
            b'\\' => {
                has_escapes = true;
                at += match text.get(at + 1)? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
                    b'u' if text.get(at + 2..at + 6)?.iter().all(u8::is_ascii_hexdigit) => 6,
                    _ => return None,
                };
            }
            _ => return None,
        }
    }
}

/// Position of the closing quote of a checked string whose content begins at `from`.
pub(super) fn end(text: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(stop) = stop(text, at) {
        if text[stop] == b'"' {
            return stop;
        }
        at = stop + 2;
    }
    text.len()
}

/// Position of the first quote, backslash or control character. Most strings are short, so eight bytes are read at a time
/// at first, and 32 in long strings.
fn stop(text: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    if let Some(found) = stop_in_eights(text, &mut at, from + 16) {
        return Some(found);
    }
    while let Some(block) = text.get(at..).and_then(<[u8]>::first_chunk::<32>) {
        // Without a branch, so that the compiler compares many bytes at once.
        if block.iter().fold(false, |has_stop, byte| has_stop | is_stop(*byte)) {
            break;
        }
        at += block.len();
    }
    if let Some(found) = stop_in_eights(text, &mut at, text.len()) {
        return Some(found);
    }
    let rest = text.get(at..)?;
    rest.iter().position(|byte| is_stop(*byte)).map(|more| at + more)
}

/// Position of the first of these bytes in the groups of eight that begin before `until`. Without one, `at` is moved
/// behind them.
fn stop_in_eights(text: &[u8], at: &mut usize, until: usize) -> Option<usize> {
    while *at < until
        && let Some(eight) = text.get(*at..).and_then(<[u8]>::first_chunk)
    {
        let found = stops(u64::from_le_bytes(*eight));
        if found != 0 {
            return Some(*at + found.trailing_zeros() as usize / 8);
        }
        *at += 8;
    }
    None
}

const fn is_stop(byte: u8) -> bool {
    (byte == b'"') | (byte == b'\\') | (byte < 0x20)
}

/// Sets the high bit of each byte that is a quote, a backslash or below 0x20. The lowest set bit is always correct.
/// Higher bits may be wrong, because the subtraction borrows from them.
const fn stops(eight: u64) -> u64 {
    let quote = eight ^ (ONES * b'"' as u64);
    let backslash = eight ^ (ONES * b'\\' as u64);
    let is_quote = quote.wrapping_sub(ONES) & !quote;
    let is_backslash = backslash.wrapping_sub(ONES) & !backslash;
    let is_control = eight.wrapping_sub(ONES * 0x20) & !eight;
    (is_quote | is_backslash | is_control) & HIGH
}

/// Appends the decoded content of a checked string. Fails on an unpaired surrogate, which no text can represent.
pub(super) fn decode(raw: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut rest = raw;
    while let Some(backslash) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..backslash]);
        let escape = *rest.get(backslash + 1)?;
        rest = &rest[backslash + 2..];
        let plain = match escape {
            b'b' => 0x08,
            b'f' => 0x0C,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let (char, after) = unicode(rest)?;
                out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
                rest = after;
                continue;
            }
            itself => itself,
        };
        out.push(plain);
    }
    out.extend_from_slice(rest);
    Some(())
}

/// Returns whether every string in a checked text can be decoded.
pub(super) fn are_texts(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some(backslash) = memchr::memchr(b'\\', rest) {
        let escape = &rest[backslash + 1..];
        rest = match escape.strip_prefix(b"u").map(unicode) {
            Some(Some((_, rest))) => rest,
            Some(None) => return false,
            None => escape.get(1..).unwrap_or_default(),
        };
    }
    true
}

/// Decodes the four digits after `\u` at the start of `text`, or a whole surrogate pair. Returns the character and the
/// rest.
fn unicode(text: &[u8]) -> Option<(char, &[u8])> {
    let unit = |text: &[u8]| u32::from_str_radix(std::str::from_utf8(text.get(..4)?).ok()?, 16).ok();
    let (first, rest) = (unit(text)?, &text[4..]);
    if !(0xD800..0xDC00).contains(&first) {
        return Some((char::from_u32(first)?, rest));
    }
    let digits = rest.strip_prefix(b"\\u")?;
    let second = unit(digits).filter(|second| (0xDC00..0xE000).contains(second))?;
    let char = char::from_u32(0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00))?;
    Some((char, &digits[4..]))
}

/// Iterator over the bytes of a checked string's decoded content. Where [`decode`] would fail, the last byte is one
/// that UTF-8 never contains.
pub(super) struct Decoded<'a> {
    rest: &'a [u8],
    /// Bytes of the current character that have not been returned yet, in reverse order.
    pending: [u8; 4],
    count: usize,
}

impl<'a> Decoded<'a> {
    pub(super) const fn new(raw: &'a [u8]) -> Self {
        Self {
            rest: raw,
            pending: [0; 4],
            count: 0,
        }
    }

    fn escape(&mut self) -> Option<u8> {
        let (escape, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(match escape {
            b'b' => 0x08,
            b'f' => 0x0C,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let Some((char, rest)) = unicode(rest) else {
                    self.rest = &[];
                    return Some(0xFF);
                };
                self.rest = rest;
                self.count = char.len_utf8();
                char.encode_utf8(&mut self.pending);
                // Reversed, because bytes are taken from the end.
                self.pending[..self.count].reverse();
                return self.next();
            }
            itself => *itself,
        })
    }
}

impl Iterator for Decoded<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        if self.count > 0 {
            self.count -= 1;
            return Some(self.pending[self.count]);
        }
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        match byte {
            b'\\' => self.escape(),
            plain => Some(*plain),
        }
    }
}

/// Returns the decoded content of a checked string, or `None` if it has an unpaired surrogate (see [`decode`]).
pub(super) fn text(raw: &[u8]) -> Option<Cow<'_, str>> {
    if memchr::memchr(b'\\', raw).is_none() {
        return std::str::from_utf8(raw).ok().map(Cow::Borrowed);
    }
    let mut out = Vec::with_capacity(raw.len());
    decode(raw, &mut out)?;
    String::from_utf8(out).ok().map(Cow::Owned)
}

/// Appends `text` as a JSON string with its quotes.
pub(super) fn write(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("any text can be written as JSON, and a Vec takes it all");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_ends_at_its_quote() {
        let check = |inside: &str, valid: bool| {
            for padding in 0..80 {
                let inside = "x".repeat(padding) + inside;
                let text = format!("\"{inside}\" and \"more\"");
                let found = super::check(text.as_bytes(), 1).map(|end| end.at);
                assert_eq!(found, valid.then_some(inside.len() + 1), "{text}");
                if valid {
                    assert_eq!(end(text.as_bytes(), 1), inside.len() + 1, "{text}");
                }
            }
        };
        for inside in [
            "",
            "plain",
            "sm\u{f6}rg\u{e5}s \u{1F600}",
            r#"\""#,
            r"\\",
            r"\\\\\/\b\f\n\r\t",
            r"\u00e9\uD83D\ude00",
            r"\ud800",
            "\u{7f}\u{80}",
            "!#[]^_{}\u{a0}",
        ] {
            check(inside, true);
        }
        for inside in [r"\x", r"\u12", r"\u12g4", "a\nb", "\u{0}", "\u{1f}"] {
            check(inside, false);
        }
        assert!(super::check(b"\"open", 1).is_none());
        assert!(super::check(b"\"open and more of it\\", 1).is_none());
    }

    #[test]
    fn escapes_say_what_they_stand_for() {
        let check = |raw: &str, expected: Option<&str>| {
            assert_eq!(text(raw.as_bytes()).as_deref(), expected, "{raw}");
            assert_eq!(are_texts(raw.as_bytes()), expected.is_some(), "{raw}");
            if let Some(expected) = expected {
                let bytes: Vec<u8> = Decoded::new(raw.as_bytes()).collect();
                assert_eq!(bytes, expected.as_bytes(), "{raw}");
            }
        };
        check("plain", Some("plain"));
        check(
            r#"\"\\\/\b\f\n\r\t|\u0041\u00e9"#,
            Some("\"\\/\u{8}\u{c}\n\r\t|A\u{e9}"),
        );
        check(r"\ud83d\ude00\u0000", Some("\u{1F600}\0"));
        for lone in [
            r"\ud800",
            r"\udc00",
            r"\ud800x",
            r"\ud800\n",
            r"\ud800\ud800",
            r"\udc00\ud800",
        ] {
            check(lone, None);
        }
    }
}
