//! Closes a connection in stages (RFC 9112 section 9.6): the last answer, then the end of our direction, and only then
//! the rest.
//!
//! Closing a socket with unread bytes resets the connection, and the caller could lose the answer with it. So the caller
//! may send for a moment longer. The reaper limits the time.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

use super::caller_stream::CallerStream;
use crate::server::last_words::LastWords;

/// Bytes that are read and discarded after the last answer.
pub(super) const LEFT_OF_HEAD: usize = 256 * 1024;

/// The same while the caller is still sending the body of a well-formed request, which more callers do in good faith.
/// A caller that sends more than this without reading the answer may lose it.
pub(super) const LEFT_OF_BODY: usize = 16 * 1024 * 1024;

impl<S: AsyncRead + AsyncWrite + LastWords + Unpin> CallerStream<S> {
    /// Closes the connection. `left` is the number of bytes that the caller may still send.
    pub(super) async fn close(&mut self, left: usize) {
        // A caller that is gone needs no good order.
        let _ = self.close_in_stages(left).await;
    }

    async fn close_in_stages(&mut self, mut left: usize) -> io::Result<()> {
        poll_fn(|cx| self.poll_output(cx)).await?;
        let still_sends = self.has_more() || left > LEFT_OF_HEAD;
        self.release();
        poll_fn(|cx| Pin::new(&mut self.socket).poll_shutdown(cx)).await?;
        if still_sends {
            self.activity.start_discarding();
        } else {
            self.activity.start_closing();
        }
        while left > 0 {
            let count = poll_fn(|cx| self.poll_drop(cx)).await?;
            if count == 0 {
                return Ok(());
            }
            self.activity.start_discarding();
            left = left.saturating_sub(count);
        }
        Ok(())
    }
}
