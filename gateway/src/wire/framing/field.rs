//! Splits a field line into name and value, and refuses lines that another reader could read differently.

use memchr::memchr;

use crate::wire::framing::octets::{is_token_byte, is_value};
use crate::wire::framing::{Result, malformed};

/// Returns the name and the trimmed value of a line without its CRLF (RFC 9112 section 5).
///
/// # Errors
/// Returns a [`Refusal`](crate::wire::framing::Refusal) for a folded line, for white space around the name, and for
/// bytes outside the grammar.
pub(crate) fn split(line: &[u8]) -> Result<(&[u8], &[u8])> {
    let end = line.iter().position(|&byte| !is_token_byte(byte));
    let (name, value) = match end.map(|end| line.split_at(end)) {
        Some((name, [b':', value @ ..])) if !name.is_empty() => (name, value),
        _ => return malformed(fault_before_value(line)),
    };
    if !is_value(value) {
        return malformed("a field value holds a control character");
    }
    Ok((name, trim(value)))
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

/// Removes optional white space at both ends, which is only SP and HTAB (RFC 9110 section 5.6.3).
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}
