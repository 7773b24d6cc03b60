//! Sends server-sent events to a caller, and ends them when the process shuts down.
//!
//! Such a stream has no end of its own, so a drain cannot wait for it. The stream is ended in order, so that a
//! browser reconnects and reports the last event it has received. It is ended between two events, because a client
//! discards an incomplete event (WHATWG HTML section 9.2.6).

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use policies::Moment;

use crate::call::reply::{Broken, ReplyBody};
use crate::response::leaving::Leaving;

/// Stream that may be ended between two events.
pub struct Events {
    /// Body of the answer. `None` once the stream has ended, so slot and connection are free.
    body: Option<Box<ReplyBody>>,
    /// Shutdown signal. `None` once it was received.
    leaving: Option<Leaving>,
    last: Last,
}

impl Events {
    pub(crate) fn new(body: Box<ReplyBody>, leaving: Leaving) -> Self {
        Self {
            body: Some(body),
            leaving: Some(leaving),
            last: Last::default(),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    /// Returns the body; `None` once the stream has ended.
    pub(super) fn body(&mut self) -> Option<&mut ReplyBody> {
        self.body.as_deref_mut()
    }

    pub(crate) fn ends_by(&self) -> Option<Moment> {
        self.body.as_ref()?.ends_by()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(leaving) = &mut self.leaving
            && leaving.as_mut().poll(cx).is_ready()
        {
            self.leaving = None;
        }
        if self.leaving.is_none() && self.last.ends_an_event() {
            self.body = None;
        }
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(body).poll_frame(cx);
        if let Poll::Ready(Some(Err(Broken::Over))) = &polled
            && self.last.ends_an_event()
        {
            // The client reconnects and reports the last event it has received.
            self.body = None;
            return Poll::Ready(None);
        }
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.last.pass(data);
        }
        polled
    }
}

/// Last four bytes sent. An event ends with an empty line, in any of three line endings.
#[derive(Default)]
struct Last {
    bytes: [u8; 4],
    any: bool,
}

impl Last {
    fn pass(&mut self, data: &[u8]) {
        for &byte in &data[data.len().saturating_sub(4)..] {
            self.bytes.rotate_left(1);
            self.bytes[3] = byte;
            self.any = true;
        }
    }

    /// Whether the stream stands between two events. True before the first byte.
    fn ends_an_event(&self) -> bool {
        !self.any
            || [&b"\n\n"[..], b"\r\r", b"\r\n\r\n"]
                .iter()
                .any(|end| self.bytes.ends_with(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_ends_with_an_empty_line() {
        let check = |pieces: &[&str], expected: bool| {
            let mut last = Last::default();
            pieces.iter().for_each(|piece| last.pass(piece.as_bytes()));
            assert_eq!(last.ends_an_event(), expected, "{pieces:?}");
        };
        check(&[], true);
        check(&["data: a\n\n"], true);
        check(&["data: a\r\n\r\n"], true);
        check(&["data: a\r\r"], true);
        check(&["data: a\n", "\n"], true);
        check(&["data: a\r", "\n", "\r", "\n"], true);
        check(&["data: a\n\ndata: b"], false);
        check(&["data: a\n"], false);
        check(&["data: a\r\n"], false);
        check(&["\n"], false);
    }
}
