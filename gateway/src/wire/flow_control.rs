//! Sets the flow control windows of HTTP/2: how much a peer may send before it is read (RFC 9113 section 6.9).
//!
//! The sizes are fixed. Adaptive windows are measured with PINGs, for which some peers close the connection.
//!
//! Invariant: a connection's window is at least the sum of its streams' windows, so that a stream that is not read does
//! not block another.

/// Window sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowControlWindows {
    /// Window of a stream that is not yet read.
    pub unread: u32,
    /// Window of a stream that is read.
    pub stream: u32,
    pub connection: u32,
}

/// Window of a backend's stream. Its answer is always awaited.
const BACKEND: u32 = 256 << 10;
/// Window of a caller's stream that is not yet read.
const UNREAD: u32 = 64 << 10;
/// Window of a caller's stream that is read. The h2 library returns space once a third of this was read, so [`UNREAD`]
/// must be more than a third.
const READ: u32 = 160 << 10;
/// Minimum window of a connection. It is larger than a few streams need, because the h2 library derives its allowance
/// for small frames from it, and closes the whole connection if one slow reader lets too many small frames accumulate.
const CONNECTION: u32 = 16 << 20;
/// Maximum size of a window (RFC 9113 section 6.9.1).
const MOST: u32 = (1 << 31) - 1;

impl FlowControlWindows {
    /// Returns the windows of a connection to a backend with `streams` concurrent streams.
    pub fn of_backend(streams: u32) -> Self {
        Self::new(streams, BACKEND, BACKEND)
    }

    /// Returns the windows of a caller's connection with `streams` concurrent streams.
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
