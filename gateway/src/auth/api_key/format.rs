//! Format of the API keys that the gateway issues: `gw_<id>_<secret><checksum>`.
//!
//! Modelled on GitHub's tokens. Secret scanners can find the prefix, and people can read the id. A double click selects
//! the whole key, unless its id has hyphens. The checksum distinguishes a mistyped key from one that was never issued.
//! Scanners match `gw_[0-9A-Za-z-]{1,64}_[0-9A-Za-z]{36}` and verify the checksum.
//!
//! Invariant: the format decides nothing. Every presented key is looked up by its digest, so imported keys may have any
//! form.

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;

/// Prefix of every key.
pub const PREFIX: &str = "gw_";
/// Maximum length of the id in a key, in characters.
pub const MAX_ID: usize = 64;
/// Length of the secret in characters: 178 bits.
const SECRET: usize = 30;
/// Length of the checksum in characters: 62^6 is more than 2^32.
const CHECKSUM: usize = 6;
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Form of a presented text, before any lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// The text does not have the gateway's prefix.
    Foreign,
    /// The text has the prefix but is not a valid key: it is mistyped, truncated, or invented.
    Damaged,
    Whole,
}

/// Creates a key with this id and a random secret.
///
/// # Errors
/// If the system provides no randomness.
///
/// # Panics
/// If the id is invalid, see [`is_id`].
pub fn issue(id: &str) -> Result<String, Unspecified> {
    assert!(is_id(id), "an id that was checked");
    let mut key = format!("{PREFIX}{id}_{}", random_text(SECRET)?);
    let sum = crc32(key.as_bytes());
    key.push_str(&base62(sum));
    Ok(key)
}

/// Makes an id from the readable part of the tenant's name and a few random characters.
///
/// # Errors
/// If the system provides no randomness.
pub fn make_id(tenant: &str) -> Result<String, Unspecified> {
    let name: String = tenant
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(MAX_ID - 7)
        .collect();
    Ok(format!("{name}-{}", random_text(6)?))
}

/// Returns `length` random characters of `0-9A-Za-z`.
///
/// # Errors
/// If the system provides no randomness.
pub fn random_text(length: usize) -> Result<String, Unspecified> {
    // The remainder of a byte is uniform only below the largest multiple of 62.
    const FAIR: u8 = 62 * 4;
    let mut text = String::with_capacity(length);
    let mut bytes = [0; 64];
    while text.len() < length {
        rand::fill(&mut bytes)?;
        let digits = bytes.iter().filter(|byte| **byte < FAIR);
        text.extend(
            digits
                .map(|byte| char::from(DIGITS[usize::from(byte % 62)]))
                .take(length - text.len()),
        );
    }
    Ok(text)
}

/// Whether a key may have this id: 1 to [`MAX_ID`] letters, digits and hyphens.
pub fn is_id(id: &str) -> bool {
    (1..=MAX_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Returns the form of a presented text. Stops at once if it has no `gw_` prefix.
pub fn shape(presented: &[u8]) -> Shape {
    let Some(rest) = presented.strip_prefix(PREFIX.as_bytes()) else {
        return Shape::Foreign;
    };
    let whole = || {
        if rest.len() > MAX_ID + 1 + SECRET + CHECKSUM {
            return None;
        }
        let (id, secret) = std::str::from_utf8(rest).ok()?.split_once('_')?;
        let (signed, sum) = presented.split_at(presented.len().checked_sub(CHECKSUM)?);
        let fits = is_id(id)
            && secret.len() == SECRET + CHECKSUM
            && secret.bytes().all(|byte| byte.is_ascii_alphanumeric())
            && base62(crc32(signed)).as_bytes() == sum;
        fits.then_some(())
    };
    whole().map_or(Shape::Damaged, |()| Shape::Whole)
}

/// Writes the most significant digit first, padded with zeros.
fn base62(mut number: u32) -> String {
    let mut text = [b'0'; CHECKSUM];
    for digit in text.iter_mut().rev() {
        *digit = DIGITS[(number % 62) as usize];
        number /= 62;
    }
    text.map(char::from).iter().collect()
}

/// Computes CRC-32 as in IEEE 802.3, zip and PNG (RFC 1952 section 8).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xEDB8_8320 & (sum & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "gw_acme-1_0123456789ABCDEFGHIJabcdefghij";

    #[test]
    fn the_checksum_is_the_one_everybody_knows() {
        // Check value of CRC-32/ISO-HDLC.
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(base62(0), "000000");
        assert_eq!(base62(61), "00000z");
        assert_eq!(base62(u32::MAX), "4gfFC3");
    }

    #[test]
    fn a_key_is_told_by_its_looks() {
        let whole = format!("{KEY}{}", base62(crc32(KEY.as_bytes())));
        let check = |text: &str, expected| assert_eq!(shape(text.as_bytes()), expected, "{text}");
        check(&whole, Shape::Whole);
        check("", Shape::Foreign);
        check("key-acme", Shape::Foreign);
        check("GW_acme", Shape::Foreign);
        check(&format!(" {whole}"), Shape::Foreign);
        check("gw_", Shape::Damaged);
        check(KEY, Shape::Damaged);
        check(&whole[..whole.len() - 1], Shape::Damaged);
        check(&format!("{whole}0"), Shape::Damaged);
        check(&whole.replace("acme-1", "acme-2"), Shape::Damaged);
        check(&whole.replace("acme-1", "acme_1"), Shape::Damaged);
        check(&whole.replace("acme-1", ""), Shape::Damaged);
        check(&whole.to_uppercase().replace("GW_", "gw_"), Shape::Damaged);
        check(&whole.replace('0', "\u{e9}"), Shape::Damaged);
        check(&format!("gw_{}", "x".repeat(100_000)), Shape::Damaged);
    }

    #[test]
    fn every_single_mistyped_character_is_found() {
        let whole = format!("{KEY}{}", base62(crc32(KEY.as_bytes())));
        for at in PREFIX.len()..whole.len() {
            let mut mistyped = whole.clone().into_bytes();
            mistyped[at] = if mistyped[at] == b'x' { b'y' } else { b'x' };
            assert_eq!(shape(&mistyped), Shape::Damaged, "at {at}");
        }
        for at in PREFIX.len()..whole.len() - 1 {
            let mut swapped = whole.clone().into_bytes();
            swapped.swap(at, at + 1);
            let same = swapped == whole.as_bytes();
            assert_eq!(shape(&swapped) == Shape::Whole, same, "at {at}");
        }
    }

    #[test]
    fn issued_keys_are_whole_and_differ() {
        let one = issue("acme-1").unwrap();
        assert_eq!(shape(one.as_bytes()), Shape::Whole, "{one}");
        assert!(one.starts_with("gw_acme-1_"), "{one}");
        assert_eq!(one.len(), "gw_acme-1_".len() + 36);
        assert_ne!(one, issue("acme-1").unwrap());
        assert!(!is_id("") && !is_id("a_b") && !is_id("a.b") && !is_id(&"x".repeat(65)));
    }

    #[test]
    fn random_text_uses_every_digit_about_equally() {
        let text = random_text(62 * 1000).unwrap();
        for digit in DIGITS {
            let count = text.bytes().filter(|byte| byte == digit).count();
            // Ten standard deviations around the mean of 1000.
            assert!((690..=1310).contains(&count), "{}: {count}", char::from(*digit));
        }
    }
}
