//! Table of the character sets of HTTP.

const TOKEN: u8 = 1;
const TARGET: u8 = 2;
const VALUE: u8 = 4;
/// Beside those of a target, the characters that pass within its query.
const QUERY: u8 = 8;

/// The lowest bit of each byte of a word.
const EACH: u64 = 0x0101_0101_0101_0101;

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
    // Pieces without an early exit, so that the compiler compares all bytes of one at once.
    let (pieces, _) = bytes.as_chunks::<16>();
    let is_piece = |piece: &&[u8; 16]| piece.iter().fold(true, |good, &byte| good & is_value_byte(byte));
    let mut at = pieces.iter().take_while(is_piece).count() * 16;
    while let Some(word) = bytes[at..].first_chunk() {
        let controls = controls(u64::from_le_bytes(*word));
        if controls == 0 {
            at += 8;
            continue;
        }
        at += controls.trailing_zeros() as usize / 8;
        if bytes[at] != b'\t' {
            return at;
        }
        at += 1;
    }
    let rest = &bytes[at..];
    let end = rest.iter().position(|&byte| !is_value_byte(byte));
    at + end.unwrap_or(rest.len())
}

/// Marks control bytes, a tab among them, by their highest bit. Only the lowest mark is sure to be right.
const fn controls(word: u64) -> u64 {
    let below_space = word.wrapping_sub(0x20 * EACH) & !word;
    let of_delete = word ^ (0x7f * EACH);
    (below_space | of_delete.wrapping_sub(EACH) & !of_delete) & (0x80 * EACH)
}

/// Returns the number of bytes before the first colon; `None` if there is none.
pub(super) fn before_colon(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(word) = bytes[at..].first_chunk() {
        let others = u64::from_le_bytes(*word) ^ (u64::from(b':') * EACH);
        // Of these marks, too, only the lowest is sure to be right.
        let colons = others.wrapping_sub(EACH) & !others & (0x80 * EACH);
        if colons != 0 {
            return Some(at + colons.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    let rest = bytes[at..].iter().position(|&byte| byte == b':');
    rest.map(|rest| at + rest)
}

/// Whether a name is `lower`, which has the same length and no capital letters, but for the case of its letters.
pub(super) fn is_spelling(name: &[u8], lower: &[u8]) -> bool {
    // Letters have the bit 0x40, and those in lower case the bit below it as well.
    let differs = |name: u64, lower: u64| (name | ((lower >> 1) & (0x20 * EACH))) ^ lower;
    let differ = |name: &[u8; 8], lower: &[u8; 8]| differs(u64::from_le_bytes(*name), u64::from_le_bytes(*lower));
    let mut all = 0;
    if let (Some(last), Some(lower_last)) = (name.last_chunk(), lower.last_chunk()) {
        all |= differ(last, lower_last);
        for (word, lower) in name.as_chunks().0.iter().zip(lower.as_chunks().0) {
            all |= differ(word, lower);
        }
    } else {
        for (byte, lower) in name.iter().zip(lower) {
            all |= differs((*byte).into(), (*lower).into());
        }
    }
    all == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(cases::counted())]

        #[test]
        fn words_are_read_as_bytes_are(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), 0x1f..0x22_u8, Just(b'\t'), 0x7e..0x82_u8], 0..60),
        ) {
            let end = bytes.iter().position(|&byte| !is_value_byte(byte));
            prop_assert_eq!(value_length(&bytes), end.unwrap_or(bytes.len()));
            prop_assert_eq!(before_colon(&bytes), bytes.iter().position(|&byte| byte == b':'));
            // All but letters and colons are left as they are.
            let text: Vec<u8> = bytes.iter().map(|byte| byte & 0x7f).collect();
            let with_colon = [&text[..], b":", &text].concat();
            prop_assert_eq!(before_colon(&with_colon), with_colon.iter().position(|&byte| byte == b':'));
        }
    }
}
