//! Text of the field values that the gateway writes for one request. All of them share one allocation.

use bytes::{Bytes, BytesMut};
use http::HeaderValue;

/// Bytes that the fields of a request usually need: an id, the caller, a trace, and an address with a host.
const USUAL: usize = 640;

/// Text of field values, written one after the other.
#[derive(Debug, Default)]
pub struct ValueText(BytesMut);

impl ValueText {
    /// Appends to the value that is being written.
    pub(super) fn put(&mut self, text: &[u8]) {
        if self.0.capacity() == 0 {
            self.0.reserve(USUAL);
        }
        self.0.extend_from_slice(text);
    }

    /// Ends the value that is being written.
    pub(super) fn take(&mut self) -> Bytes {
        self.0.split().freeze()
    }

    /// Returns a value of printable ASCII.
    pub(super) fn value(&mut self, text: &[u8]) -> HeaderValue {
        self.put(text);
        HeaderValue::from_maybe_shared(self.take()).expect("the value is printable ASCII")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_do_not_run_into_each_other() {
        let mut text = ValueText::default();
        let first = text.value(b"first");
        text.put(b"sec");
        text.put(b"ond");
        let second = text.take();
        // More than there is room for.
        let long = "x".repeat(2 * USUAL);
        let third = text.value(long.as_bytes());
        assert_eq!((first.as_bytes(), &*second), (&b"first"[..], &b"second"[..]));
        assert_eq!(third, long);
        assert!(text.take().is_empty());
    }
}
