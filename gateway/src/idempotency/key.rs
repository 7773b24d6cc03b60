//! Reads the field `Idempotency-Key`.
//!
//! The draft defines a string of structured fields (RFC 9651 section 3.3.3), in quotes. Clients of older APIs send the
//! value bare, such as a UUID. Both are taken, and both name the same key.

use crate::message::FieldMap;

/// Key as its caller means it, without quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(Box<str>);

/// Longest key in bytes.
const LONGEST: usize = 255;

/// Shortest key of a caller without credentials. Several such callers can share an address, so a key must not be
/// guessed.
const SHORTEST_ANONYMOUS: usize = 16;

const NAME: &str = "idempotency-key";

impl IdempotencyKey {
    /// Reads the key; `None` if there is none.
    ///
    /// # Errors
    /// What the caller has to correct.
    pub fn read(headers: &FieldMap, is_anonymous: bool) -> Result<Option<Self>, &'static str> {
        let mut fields = headers.get_all(NAME);
        let Some(field) = fields.next() else {
            return Ok(None);
        };
        if fields.next().is_some() {
            return Err("the field is there twice");
        }
        let text = field.as_bytes().trim_ascii();
        let key = match text.strip_prefix(b"\"") {
            Some(quoted) => unquote(quoted)?,
            None => bare(text)?,
        };
        match key.len() {
            0 => Err("the key is empty"),
            length if length > LONGEST => Err("the key is longer than 255 characters"),
            length if is_anonymous && length < SHORTEST_ANONYMOUS => {
                Err("without a credential, a key has at least 16 characters, chosen at random")
            }
            _ => Ok(Some(Self(key.into()))),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Reads a string without its opening quote. Parameters after it have no meaning.
fn unquote(quoted: &[u8]) -> Result<String, &'static str> {
    let mut key = String::with_capacity(quoted.len().min(LONGEST + 1));
    let mut rest = quoted.iter();
    loop {
        match rest.next() {
            None => return Err("the closing quote is missing"),
            Some(b'"') => break,
            Some(b'\\') => match rest.next() {
                Some(escaped @ (b'"' | b'\\')) => key.push(char::from(*escaped)),
                _ => return Err("only a quote or a backslash can follow a backslash"),
            },
            Some(letter @ b' '..=b'~') => key.push(char::from(*letter)),
            Some(_) => return Err("it has a character that is not ASCII"),
        }
    }
    match rest.as_slice().trim_ascii_start() {
        [] | [b';', ..] => Ok(key),
        _ => Err("something follows the closing quote"),
    }
}

fn bare(text: &[u8]) -> Result<String, &'static str> {
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b',' | b';');
    if !text.iter().all(is_plain) {
        return Err("without quotes, it has no spaces, commas, semicolons, quotes or backslashes");
    }
    Ok(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read(fields: &[&[u8]], is_anonymous: bool) -> Result<Option<String>, &'static str> {
        let mut headers = FieldMap::new();
        for field in fields {
            headers.append(NAME, HeaderValue::from_bytes(field).expect("a value"));
        }
        IdempotencyKey::read(&headers, is_anonymous).map(|key| key.map(|key| key.0.into()))
    }

    #[test]
    fn a_key_is_a_string_or_a_bare_token() {
        let check = |field: &[u8], expected: Option<&str>| {
            let found = read(&[field], false).ok().flatten();
            assert_eq!(found.as_deref(), expected, "{:?}", String::from_utf8_lossy(field));
        };
        let uuid = "8e03978e-40d5-43e8-bc93-6894a57f9324";
        check(uuid.as_bytes(), Some(uuid));
        check(format!("\"{uuid}\"").as_bytes(), Some(uuid));
        check(b"\"a b\"", Some("a b"));
        check(br#""a\"b\\c""#, Some("a\"b\\c"));
        check(br#""k";v=1"#, Some("k"));
        check(br#""k" ;v=1"#, Some("k"));
        check(b"order:7/a+b==", Some("order:7/a+b=="));
        for wrong in [
            &b""[..],
            b"\"\"",
            b"\"a",
            b"\"a\\",
            b"\"a\\n\"",
            b"\"a\"b",
            b"\"a\", \"b\"",
            b"a, b",
            b"a b",
            b"a;b",
            b"\"\xc3\xa9\"",
            b"\xc3\xa9",
            b"\"a\tb\"",
            &[b'k'; 256],
        ] {
            check(wrong, None);
            assert!(read(&[wrong], false).is_err());
        }
        let longest = [b'k'; 255];
        assert!(matches!(read(&[&longest], false), Ok(Some(_))));
        assert_eq!(read(&[], false), Ok(None));
        assert!(read(&[b"a", b"a"], false).is_err());
    }

    #[test]
    fn a_key_of_nobody_cannot_be_guessed() {
        assert!(read(&[b"123456789012345"], true).is_err());
        assert!(read(&[b"1234567890123456"], true).is_ok());
    }
}
