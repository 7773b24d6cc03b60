//! Which protocol a caller begins to speak in plain text, told by its first bytes.
//!
//! Invariant: what was looked at is still there to be read. Nearly always one look tells, at bytes that stay in the
//! socket; only a preface that comes in pieces is taken out, since a look at the same bytes again would not wait for more.

use std::io;

use super::guarded_io::GuardedIo;

/// RFC 9113 section 3.4.
const HTTP2: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Preface {
    Http2,
    /// Whatever else it is, it has to be HTTP/1.1.
    Other,
}

/// Waits for as many bytes as it takes to tell; the watch bounds the time.
///
/// # Errors
/// The socket's, also if the caller closes without having sent anything.
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
