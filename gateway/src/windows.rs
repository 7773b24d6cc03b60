//! What the other side of an HTTP/2 connection may send before it is read (RFC 9113 section 6.9).
//!
//! Fixed, so that memory is bounded by what is written here; windows that adapt are measured with pings, for which some
//! peers close a connection.

/// In bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    pub stream: u32,
    pub connection: u32,
}

/// Of one stream, if there are not too many.
const STREAM: u32 = 256 << 10;
/// The least for all streams of a connection. Larger than a few need: the library allows for small frames by it, and
/// ends the connection, neighbours and all, where one slow reader lets too many tiny messages pile up.
const CONNECTION: u32 = 16 << 20;
/// The most that a window may be (RFC 9113 section 6.9.1).
const MOST: u32 = (1 << 31) - 1;

impl Windows {
    /// For a connection of so many streams: none that waits to be read takes away what another needs.
    pub fn of(streams: u32) -> Self {
        let connection = streams.saturating_mul(STREAM).clamp(CONNECTION, MOST);
        Self {
            stream: STREAM.min(connection / streams.max(1)),
            connection,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_streams_together_have_what_each_has() {
        let check = |streams, stream, connection| {
            assert_eq!(Windows::of(streams), Windows { stream, connection }, "{streams}");
        };
        check(1, STREAM, CONNECTION);
        check(64, STREAM, CONNECTION);
        check(100, STREAM, 100 * STREAM);
        check(10_000, MOST / 10_000, MOST);
    }
}
