//! Closes a connection in stages (RFC 9112 section 9.6): the last answer, then the end of our direction, and only then
//! the rest.
//!
//! Closing a socket with unread bytes resets the connection, and the caller could lose the answer with it. So the caller
//! may send for a moment longer. The reaper limits the time.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::caller_stream::FIRST;
use crate::server::reaper::ConnectionActivity;

/// Bytes that are read and discarded after the last answer.
pub(super) const LEFT_OF_HEAD: usize = 256 * 1024;

/// The same while the caller is still sending the body of a well-formed request, which more callers do in good faith.
/// A caller that sends more than this without reading the answer may lose it.
pub(super) const LEFT_OF_BODY: usize = 16 * 1024 * 1024;

/// What a caller may still send after the last answer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Left {
    /// Number of bytes.
    pub(super) bytes: usize,
    /// Whether more is known to come.
    pub(super) still_sends: bool,
}

/// Closes a connection after all has been written.
///
/// # Errors
/// Fails if the caller is gone, which needs no good order.
pub(super) async fn close<S>(socket: &mut S, activity: &ConnectionActivity, left: Left) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    poll_fn(|cx| Pin::new(&mut *socket).poll_shutdown(cx)).await?;
    if left.still_sends {
        activity.start_discarding();
    } else {
        activity.start_closing();
    }
    let mut bytes = left.bytes;
    while bytes > 0 {
        let count = poll_fn(|cx| poll_drop(socket, cx)).await?;
        if count == 0 {
            break;
        }
        activity.start_discarding();
        bytes = bytes.saturating_sub(count);
    }
    Ok(())
}

/// Reads and drops what comes. Returns the number of bytes, 0 at the end of the stream.
fn poll_drop<S: AsyncRead + Unpin>(socket: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    let mut piece = [MaybeUninit::uninit(); FIRST];
    let mut piece = ReadBuf::uninit(&mut piece);
    ready!(Pin::new(socket).poll_read(cx, &mut piece))?;
    Poll::Ready(Ok(piece.filled().len()))
}
