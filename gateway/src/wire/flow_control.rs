//! What the other side of an HTTP/2 connection may send before it is read (RFC 9113 section 6.9).
//!
//! Bounded by what is written here. Windows that adapt to the network are measured with pings, for which some peers
//! close a connection.
//!
//! Invariant: a connection's window is as large as those of all its streams: none that waits to be read takes away what
//! another needs.

/// In bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowControlWindows {
    /// Of a stream that nobody has read yet.
    pub unread: u32,
    /// Of a stream that is read.
    pub stream: u32,
    pub connection: u32,
}

/// Of one stream of a backend: somebody waits for its answer.
const BACKEND: u32 = 256 << 10;
/// Of a caller's stream that nobody has read yet.
const UNREAD: u32 = 64 << 10;
/// Of one that is read. The library gives back what was read once it is a third of this, so [`UNREAD`] must be more.
const READ: u32 = 160 << 10;
/// The least for all streams of a connection. Larger than a few need: the library allows for small frames by it, and
/// ends the connection, neighbours and all, where one slow reader lets too many tiny messages pile up.
const CONNECTION: u32 = 16 << 20;
/// The most that a window may be (RFC 9113 section 6.9.1).
const MOST: u32 = (1 << 31) - 1;

impl FlowControlWindows {
    /// For a connection to a backend, of so many streams.
    pub fn of_backend(streams: u32) -> Self {
        Self::new(streams, BACKEND, BACKEND)
    }

    /// For a connection of a caller, of so many streams.
    pub fn of_caller(streams: u32) -> Self {
        Self::new(streams, UNREAD, READ)
    }

    fn new(streams: u32, unread: u32, stream: u32) -> Self {
        let connection = streams.saturating_mul(stream).clamp(CONNECTION, MOST);
        let stream = stream.min(connection / streams.max(1));
        Self {
            unread: unread.min(stream),
            stream,
            connection,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_streams_together_have_what_each_has() {
        let check = |windows, unread, stream, connection| {
            let expected = FlowControlWindows {
                unread,
                stream,
                connection,
            };
            assert_eq!(windows, expected);
        };
        check(FlowControlWindows::of_backend(1), BACKEND, BACKEND, CONNECTION);
        check(FlowControlWindows::of_backend(64), BACKEND, BACKEND, CONNECTION);
        check(FlowControlWindows::of_backend(100), BACKEND, BACKEND, 100 * BACKEND);
        check(
            FlowControlWindows::of_backend(10_000),
            MOST / 10_000,
            MOST / 10_000,
            MOST,
        );
        check(FlowControlWindows::of_caller(100), UNREAD, READ, CONNECTION);
        check(FlowControlWindows::of_caller(10_000), UNREAD, READ, 10_000 * READ);
    }

    #[test]
    fn what_a_stream_may_send_unread_suffices_for_the_library_to_give_back() {
        for streams in [1, 100, 1000, 10_000] {
            let FlowControlWindows { unread, stream, .. } = FlowControlWindows::of_caller(streams);
            assert!(unread > (stream - unread) / 2, "{streams}");
        }
    }
}
