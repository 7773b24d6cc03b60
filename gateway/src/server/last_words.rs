//! A stream that accepts a few last bytes without waiting.

/// A stream that accepts a few last bytes without waiting.
pub(crate) trait LastWords {
    fn say(&mut self, bytes: &[u8]);
}
