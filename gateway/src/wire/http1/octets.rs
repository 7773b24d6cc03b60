//! Table of the character sets of HTTP.

const TOKEN: u8 = 1;
const TARGET: u8 = 2;
const VALUE: u8 = 4;
/// Beside those of a target, the characters that pass within its query.
const QUERY: u8 = 8;

const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < classes.len() {
        if is_value_byte(byte as u8) {
            classes[byte] |= VALUE;
        }
        byte += 1;
    }
    let mut byte = 0x21;
    while byte < 0x7f {
        if matches!(byte as u8, b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z')
            || matches!(byte as u8, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+')
            || matches!(byte as u8, b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
        {
            classes[byte] |= TOKEN;
        }
        if !matches!(byte as u8, b'"' | b'#' | b'<' | b'>' | b'`') {
            classes[byte] |= TARGET;
        }
        byte += 1;
    }
    classes[b'`' as usize] |= QUERY;
    classes
};

/// Whether a byte is a `tchar` (RFC 9110 section 5.6.2).
pub(crate) const fn is_token_byte(byte: u8) -> bool {
    CLASSES[byte as usize] & TOKEN != 0
}

pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is_token_byte(byte))
}

/// Whether all bytes may occur in a request target: printable ASCII without `#`, which begins a fragment and never
/// occurs in a target (RFC 9112 section 3.2), and without the characters that every browser encodes. Unlike RFC 3986 it
/// admits `[`, `]`, `{`, `|`, `}`, `\` and `^`, which many clients send unencoded and every reader reads the same way,
/// and a backtick in the query, which browsers do not encode there.
pub(crate) fn is_target(bytes: &[u8]) -> bool {
    let mut admitted = TARGET;
    bytes.iter().all(|&byte| {
        if byte == b'?' {
            admitted = TARGET | QUERY;
        }
        CLASSES[byte as usize] & admitted != 0
    })
}

/// Whether a byte is `field-vchar`, SP or HTAB (RFC 9110 section 5.5), and so no control byte.
pub(crate) const fn is_value_byte(byte: u8) -> bool {
    byte >= 0x20 && byte != 0x7f || byte == b'\t'
}

pub(crate) fn is_value(bytes: &[u8]) -> bool {
    value_length(bytes) == bytes.len()
}

/// Returns the number of bytes before the first one that does not belong to a value.
pub(super) fn value_length(bytes: &[u8]) -> usize {
    // Pieces without an early exit, so that the compiler compares all bytes of one at once. The table is faster for the
    // rest, and most values are short.
    let (pieces, _) = bytes.as_chunks::<16>();
    let is_piece = |piece: &&[u8; 16]| piece.iter().fold(true, |good, &byte| good & is_value_byte(byte));
    let begun = pieces.iter().take_while(is_piece).count() * 16;
    let rest = &bytes[begun..];
    let end = rest.iter().position(|&byte| CLASSES[byte as usize] & VALUE == 0);
    begun + end.unwrap_or(rest.len())
}
