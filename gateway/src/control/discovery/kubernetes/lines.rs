//! Splits the answer to a watch into lines, each of which is an event.

use bytes::{Buf as _, Bytes, BytesMut};
use policies::Moment;
use reqwest::Response;

use super::api_error::ApiError;
use crate::clock;

/// Maximum length of a line in bytes.
pub(super) const MAX_LINE: usize = 1 << 20;

/// Lines of an answer as they arrive.
pub(super) struct Lines {
    answer: Response,
    received: BytesMut,
    /// Number of bytes of `received` that hold no line feed.
    searched: usize,
    /// Time at which the watch ends at the latest.
    ends: Moment,
}

impl Lines {
    pub(super) fn new(answer: Response, ends: Moment) -> Self {
        Self {
            answer,
            received: BytesMut::new(),
            searched: 0,
            ends,
        }
    }

    /// Returns the next complete line that has been received, without its end. Empty lines are skipped.
    ///
    /// # Errors
    /// Returns an error if a line is longer than [`MAX_LINE`].
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            let found = memchr::memchr(b'\n', &self.received[self.searched..]);
            let length = found.map_or(self.received.len(), |at| self.searched + at);
            if length > MAX_LINE {
                let why = format!("an event of the watch is longer than {MAX_LINE} bytes");
                return Err(ApiError::Unreadable(why));
            }
            if found.is_none() {
                self.searched = length;
                return Ok(None);
            }
            let line = self.received.split_to(length).freeze();
            self.received.advance(1);
            self.searched = 0;
            if !line.trim_ascii().is_empty() {
                return Ok(Some(line));
            }
        }
    }

    /// Waits for more bytes. Returns false at the end of the watch, in order or not.
    pub(super) async fn read_more(&mut self) -> bool {
        tokio::select! {
            chunk = self.answer.chunk() => match chunk {
                Ok(Some(chunk)) => {
                    self.received.extend_from_slice(&chunk);
                    true
                }
                Ok(None) => false,
                Err(error) => {
                    tracing::debug!(%error, "a watch was cut");
                    false
                }
            },
            () = clock::wait_until(self.ends) => false,
        }
    }
}
