//! Detects the protocol of a plain-text connection from its first bytes.
//!
//! Invariant: every byte that was examined can still be read. Usually one peek is enough, and the bytes stay in the
//! socket. A preface that comes in pieces is taken out, because a second peek at the same bytes would not wait for
//! more.

use std::io;

use super::guarded_io::GuardedIo;

/// Connection preface of HTTP/2 (RFC 9113 section 3.4).
const HTTP2: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Preface {
    Http2,
    /// Anything else, which must be HTTP/1.1.
    Other,
}

/// Waits for as many bytes as needed to decide. The reaper limits the time.
///
/// # Errors
/// Returns the socket's error, also if the caller closes without having sent a byte.
pub(super) async fn read(io: &mut GuardedIo) -> io::Result<Preface> {
    loop {
        let mut piece = [0; HTTP2.len()];
        let ahead = io.ahead().len();
        let rest = &HTTP2[ahead..];
        let count = io.peek(&mut piece[..rest.len()]).await?;
        if count == 0 {
            return match ahead {
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                _ => Ok(Preface::Other),
            };
        }
        if piece[..count] != rest[..count] {
            return Ok(Preface::Other);
        }
        if count == rest.len() {
            return Ok(Preface::Http2);
        }
        io.take_ahead(count).await?;
    }
}
