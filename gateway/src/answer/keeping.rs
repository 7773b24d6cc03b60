//! An answer on its way to the caller that is kept for when its backend gives none.
//!
//! Invariant: only a whole answer is kept: one that breaks off, that nobody takes to its end, or that is too long is
//! forgotten, and passes undisturbed.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use policies::Moment;

use crate::call::reply::{Broken, ReplyBody};
use crate::stale::{BODY_LIMIT, Kept, Key, Store, Terms};

pub struct Keeping {
    reply: ReplyBody,
    gathered: BytesMut,
    /// Gone once it is kept or forgotten.
    into: Option<Place>,
}

/// Where an answer is to be kept; its body is still to come.
pub struct Place {
    pub store: Arc<Store>,
    pub key: Key,
    pub kept: Kept,
    pub terms: Terms,
}

impl Keeping {
    pub fn new(reply: ReplyBody, place: Place) -> Self {
        let mut keeping = Self {
            reply,
            gathered: BytesMut::new(),
            into: Some(place),
        };
        if keeping.reply.size_hint().lower() > BODY_LIMIT as u64 {
            keeping.into = None;
        }
        keeping.keep_if_over();
        keeping
    }

    pub fn is_over(&self) -> bool {
        self.reply.is_end_stream()
    }

    pub fn ends_by(&self) -> Option<Moment> {
        self.reply.ends_by()
    }

    pub fn size_hint(&self) -> SizeHint {
        self.reply.size_hint()
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let polled = std::task::ready!(Pin::new(&mut self.reply).poll_frame(cx));
        match &polled {
            Some(Ok(frame)) => match frame.data_ref() {
                Some(data) if self.gathered.len() + data.len() <= BODY_LIMIT => {
                    if self.into.is_some() {
                        self.gathered.extend_from_slice(data);
                    }
                    self.keep_if_over();
                }
                // Too long, or with trailers, which an answer that is kept cannot have.
                _ => self.into = None,
            },
            Some(Err(_)) => self.into = None,
            None => self.keep(),
        }
        Poll::Ready(polled)
    }

    /// Nobody asks for more than there is.
    fn keep_if_over(&mut self) {
        if self.is_over() {
            self.keep();
        }
    }

    fn keep(&mut self) {
        if let Some(place) = self.into.take() {
            let body = self.gathered.split().freeze();
            place.store.keep(place.key, Kept { body, ..place.kept }, place.terms);
        }
    }
}
