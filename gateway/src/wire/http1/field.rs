//! Splits a field line into name and value, and refuses lines that another reader could read differently.

use std::ops::Range;

use memchr::memchr;

use crate::wire::http1::kind::FieldKind;
use crate::wire::http1::octets::{before_colon, is_token, is_token_byte, is_value, value_length};
use crate::wire::http1::{Result, malformed};

/// Number of bytes in which the colon after a usual name stands.
const USUAL_NAME: usize = 64;

/// Returns the length of the name, and where the trimmed value lies in a line without its CRLF (RFC 9112 section 5).
///
/// # Errors
/// Returns a [`Refusal`](crate::wire::http1::Refusal) for a folded line, for white space around the name, and for
/// bytes outside the grammar.
pub(crate) fn split(line: &[u8]) -> Result<(usize, Range<usize>)> {
    let name = line.iter().position(|&byte| !is_token_byte(byte)).unwrap_or(line.len());
    if name == 0 || line.get(name) != Some(&b':') {
        return malformed(fault_before_value(line));
    }
    let value = trim(line, name + 1..line.len());
    // The white space around the value is text as well, so the value alone needs a look.
    if !is_value(&line[value.clone()]) {
        return malformed("a field value holds a control character");
    }
    Ok((name, value))
}

/// Field line that is complete and within the grammar.
pub(super) struct Line {
    /// Length of the line with its CRLF.
    pub(super) length: usize,
    pub(super) name_length: usize,
    pub(super) kind: FieldKind,
    pub(super) value: Range<usize>,
}

/// Reads the line at the front of `bytes` in one pass over them. Returns `None` for a line that is not complete, and for
/// one that [`split`] may refuse, and for a name that is longer than any usual one.
pub(super) fn good_line(bytes: &[u8]) -> Option<Line> {
    if bytes.first() == Some(&b'\r') {
        return None;
    }
    let name_length = before_colon(&bytes[..bytes.len().min(USUAL_NAME)])?;
    let name = &bytes[..name_length];
    let kind = FieldKind::of(name);
    if kind == FieldKind::Other && !is_token(name) {
        return None;
    }
    let start = name_length + 1;
    let end = start + value_length(&bytes[start..]);
    matches!(bytes.get(end..end + 2), Some(b"\r\n")).then(|| Line {
        length: end + 2,
        name_length,
        kind,
        value: trim(bytes, start..end),
    })
}

/// Says why a line does not begin with a token and a colon.
fn fault_before_value(line: &[u8]) -> &'static str {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return "a field line begins with white space (obsolete folding)";
    }
    let Some(colon) = memchr(b':', line) else {
        return "a field line has no colon";
    };
    match line[..colon].last() {
        Some(b' ' | b'\t') => "there is white space before the colon of a field",
        _ => "a field name is not a token",
    }
}

/// Leaves out optional white space at both ends, which is only SP and HTAB (RFC 9110 section 5.6.3).
fn trim(line: &[u8], Range { mut start, mut end }: Range<usize>) -> Range<usize> {
    let is_space = |byte| matches!(byte, b' ' | b'\t');
    while start < end && is_space(line[start]) {
        start += 1;
    }
    while start < end && is_space(line[end - 1]) {
        end -= 1;
    }
    start..end
}
