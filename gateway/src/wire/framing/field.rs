//! Splits a field line into name and value, and refuses lines that another reader could read differently.

use memchr::memchr;

use crate::wire::framing::octets::{is_token, is_value};
use crate::wire::framing::{Result, malformed};

/// Returns the name and the trimmed value of a line without its CRLF (RFC 9112 section 5).
///
/// # Errors
/// Returns a [`Refusal`](crate::wire::framing::Refusal) for a folded line, for white space around the name, and for
/// bytes outside the grammar.
pub(crate) fn split(line: &[u8]) -> Result<(&[u8], &[u8])> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return malformed("a field line begins with white space (obsolete folding)");
    }
    let Some(colon) = memchr(b':', line) else {
        return malformed("a field line has no colon");
    };
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if !is_token(name) {
        return malformed(match name.last() {
            Some(b' ' | b'\t') => "there is white space before the colon of a field",
            _ => "a field name is not a token",
        });
    }
    if !is_value(value) {
        return malformed("a field value holds a control character");
    }
    Ok((name, trim(value)))
}

/// Removes optional white space at both ends, which is only SP and HTAB (RFC 9110 section 5.6.3).
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}
