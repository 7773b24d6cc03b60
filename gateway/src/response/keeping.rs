//! Caches an answer on its way to the caller, for use when its backend fails later.
//!
//! Invariant: only a complete answer is kept. An answer that breaks off, is not read to its end, is too long, or finds
//! no room in the cache is not kept. Its way to the caller is not affected.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use policies::Moment;

use crate::cache::{AnswerStore, BODY_LIMIT, CachedAnswer, Key, PendingBody, Terms};
use crate::call::reply::{Broken, ReplyBody};

pub struct Keeping {
    reply: Box<ReplyBody>,
    /// Bytes gathered so far. `None` after they are kept or discarded.
    kept: Option<(PendingBody, CachePlacement)>,
}

/// Key and terms of an answer in the cache, while its body is still being received.
pub struct CachePlacement {
    pub store: Arc<AnswerStore>,
    pub key: Key,
    pub kept: CachedAnswer,
    pub terms: Terms,
}

impl Keeping {
    pub fn new(reply: Box<ReplyBody>, place: CachePlacement) -> Self {
        let gathering = PendingBody::begin(Arc::clone(&place.store));
        let is_too_long = reply.size_hint().lower() > BODY_LIMIT as u64;
        let mut keeping = Self {
            reply,
            kept: (!is_too_long).then_some((gathering, place)),
        };
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
            Some(Ok(frame)) => {
                // An answer with trailers cannot be kept.
                let data = frame.data_ref();
                let fits =
                    |(gathering, _): &mut (PendingBody, CachePlacement)| data.is_some_and(|data| gathering.add(data));
                self.kept = self.kept.take_if(fits);
                self.keep_if_over();
            }
            Some(Err(_)) => self.kept = None,
            None => self.keep(),
        }
        Poll::Ready(polled)
    }

    /// Keeps the answer at its last byte, because a body may not be polled again after that.
    fn keep_if_over(&mut self) {
        if self.is_over() {
            self.keep();
        }
    }

    fn keep(&mut self) {
        if let Some((gathering, CachePlacement { key, kept, terms, .. })) = self.kept.take() {
            gathering.keep(key, kept, terms);
        }
    }
}
