//! Reads a backend's answer to its end before it is sent, so that it can be stored, and shared with requests that wait
//! for it. Then no slow caller holds up the others.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use policies::Moment;

use crate::cache::PendingBody;
use crate::call::reply::{Broken, ReplyBody};

/// What came of reading an answer.
pub enum Gathered {
    Whole(Bytes),
    /// The answer is too long, there is no room for it, or it has trailers. It can still be sent.
    TooMuch(Box<Resumed>),
    Broken(Broken),
}

/// Answer of which a part was read ahead.
pub struct Resumed {
    /// Frames that were read, the next one last.
    read: Vec<Frame<Bytes>>,
    reply: Box<ReplyBody>,
}

/// Reads a whole answer, as far as it may be stored.
pub async fn gather(mut reply: Box<ReplyBody>, mut pending: PendingBody) -> Gathered {
    if pending.is_too_long(reply.size_hint().lower()) {
        return Gathered::TooMuch(Box::new(Resumed {
            read: Vec::new(),
            reply,
        }));
    }
    loop {
        if reply.is_end_stream() {
            return Gathered::Whole(pending.whole());
        }
        match std::future::poll_fn(|cx| Pin::new(&mut reply).poll_frame(cx)).await {
            None => return Gathered::Whole(pending.whole()),
            Some(Err(broken)) => return Gathered::Broken(broken),
            Some(Ok(frame)) => {
                if !frame.data_ref().is_some_and(|data| pending.add(data)) {
                    let before = pending.whole();
                    let mut read = vec![frame];
                    if !before.is_empty() {
                        read.push(Frame::data(before));
                    }
                    return Gathered::TooMuch(Box::new(Resumed { read, reply }));
                }
            }
        }
    }
}

impl Resumed {
    pub fn is_over(&self) -> bool {
        self.read.is_empty() && self.reply.is_end_stream()
    }

    pub fn ends_by(&self) -> Option<Moment> {
        self.reply.ends_by()
    }

    pub fn size_hint(&self) -> SizeHint {
        let read = self
            .read
            .iter()
            .filter_map(Frame::data_ref)
            .map(|data| data.len() as u64);
        let read: u64 = read.sum();
        let rest = self.reply.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + read);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + read);
        }
        hint
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(frame) = self.read.pop() {
            return Poll::Ready(Some(Ok(frame)));
        }
        if self.reply.is_end_stream() {
            return Poll::Ready(None);
        }
        Poll::Ready(ready!(Pin::new(&mut self.reply).poll_frame(cx)))
    }
}
