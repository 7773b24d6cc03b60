//! A stored answer, as one piece of memory that holds nothing of what it came in.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderName, HeaderValue, StatusCode};

use crate::message::FieldMap;

/// Answer to a request, whole: status, header fields and body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAnswer(Bytes);

/// Version of the form. A replica of another version may have written it.
const VERSION: u8 = 1;

impl StoredAnswer {
    /// Copies an answer; `None` if it is longer than `most` bytes.
    pub fn of(status: StatusCode, headers: &FieldMap, body: &[u8], most: usize) -> Option<Self> {
        let lines: usize = headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len())
            .sum();
        if lines + body.len() > most {
            return None;
        }
        let mut bytes = BytesMut::with_capacity(5 + lines + headers.len() * 6 + body.len());
        bytes.put_u8(VERSION);
        bytes.put_u16(status.as_u16());
        bytes.put_u16(u16::try_from(headers.len()).ok()?);
        for (name, value) in headers {
            bytes.put_u16(u16::try_from(name.as_str().len()).ok()?);
            bytes.put_slice(name.as_str().as_bytes());
            bytes.put_u32(u32::try_from(value.len()).ok()?);
            bytes.put_slice(value.as_bytes());
        }
        bytes.put_slice(body);
        Some(Self(bytes.freeze()))
    }

    /// Takes bytes that were stored.
    pub const fn of_bytes(bytes: Bytes) -> Self {
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns status, header fields and body; `None` if the bytes are not those of an answer.
    pub fn read(&self) -> Option<(StatusCode, FieldMap, Bytes)> {
        let mut rest = self.0.clone();
        if take(&mut rest, 1)?[0] != VERSION {
            return None;
        }
        let status = StatusCode::from_u16(number(&mut rest, 2)?.try_into().ok()?).ok()?;
        let lines = number(&mut rest, 2)?;
        let mut headers = FieldMap::new();
        for _ in 0..lines {
            let length = number(&mut rest, 2)?;
            let name = HeaderName::from_bytes(&take(&mut rest, length)?).ok()?;
            let length = number(&mut rest, 4)?;
            let value = HeaderValue::from_maybe_shared(take(&mut rest, length)?).ok()?;
            headers.append(name, value);
        }
        Some((status, headers, rest))
    }
}

fn take(bytes: &mut Bytes, length: usize) -> Option<Bytes> {
    (length <= bytes.len()).then(|| bytes.split_to(length))
}

/// Reads a number of so many bytes, the highest first.
fn number(bytes: &mut Bytes, length: usize) -> Option<usize> {
    let digits = take(bytes, length)?;
    Some(digits.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_fits_is_stored() {
        let mut headers = FieldMap::new();
        headers.insert("a", HeaderValue::from_static("bc"));
        let of = |most| StoredAnswer::of(StatusCode::CREATED, &headers, b"1234", most);
        assert!(of(6).is_none());
        let (status, stored, body) = of(7).and_then(|answer| answer.read()).expect("it is one");
        assert_eq!((status, stored, &*body), (StatusCode::CREATED, headers, &b"1234"[..]));
    }

    proptest! {
        #![proptest_config(cases::counted())]

        #[test]
        fn an_answer_is_read_as_it_was_written(
            status in 100_u16..1000,
            lines in prop::collection::vec(("[a-z][a-z0-9-]{0,20}", "[ -~]{0,40}"), 0..8),
            body in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut headers = FieldMap::new();
            for (name, value) in &lines {
                headers.append(
                    HeaderName::from_bytes(name.as_bytes()).expect("a name"),
                    HeaderValue::from_str(value).expect("a value"),
                );
            }
            let status = StatusCode::from_u16(status).expect("a status");
            let answer = StoredAnswer::of(status, &headers, &body, usize::MAX).expect("it fits");
            let (read_status, read_headers, read_body) = answer.read().expect("it is one");
            prop_assert_eq!(read_status, status);
            prop_assert_eq!(read_headers, headers);
            prop_assert_eq!(&*read_body, &body[..]);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = StoredAnswer::of_bytes(Bytes::from(bytes)).read();
        }

        #[test]
        fn a_cut_answer_never_gains_anything(at in 0_usize..40) {
            let mut headers = FieldMap::new();
            headers.insert("x-one", HeaderValue::from_static("two"));
            let whole = StoredAnswer::of(StatusCode::OK, &headers, b"body", usize::MAX).expect("it fits");
            let at = at.min(whole.as_bytes().len());
            let cut = StoredAnswer::of_bytes(Bytes::copy_from_slice(&whole.as_bytes()[..at]));
            if let Some((status, read, body)) = cut.read() {
                prop_assert_eq!((status, read), (StatusCode::OK, headers));
                prop_assert!(b"body".starts_with(&body));
            }
        }
    }
}
