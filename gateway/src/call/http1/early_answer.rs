//! Carries on an exchange whose answer began before its request ended.
//!
//! A caller may read nothing before it has sent everything, so the request is sent on although the answer is not read.
//! A task of its own does this, until the answer is complete; then it sends the rest of the request, by the deadline.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;
use policies::Moment;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::message_stream::ExchangeError;
use crate::call::pool::{PoolSettings, PooledConnection};
use crate::call::timer::Timer;
use crate::clock;
use crate::wire::http1::Event;

/// Number of pieces of the answer that are read ahead of the caller.
const AHEAD: usize = 1;

/// Body of an answer that began before its request ended. Dropping it before its end closes the connection.
pub(crate) struct EarlyAnswer {
    pieces: mpsc::Receiver<Piece>,
    /// Number of bytes of content that must still come, if the answer states it.
    remaining: Option<u64>,
    has_ended: bool,
    task: AbortHandle,
    pub(crate) timer: Timer,
}

/// Piece of the answer; `None` in it is the end.
struct Piece {
    frame: Result<Option<Frame<Bytes>>, ExchangeError>,
    is_last: bool,
}

impl EarlyAnswer {
    /// Begins after the head of the answer. What is left of the request after the answer is sent until `until`.
    pub(crate) fn begin(mut lease: PooledConnection, settings: PoolSettings, until: Moment) -> Self {
        let stream = &lease.connection().stream;
        let (remaining, has_ended) = (stream.remaining(), stream.is_complete());
        let (to_caller, pieces) = mpsc::channel(AHEAD);
        let task = tokio::spawn(async move {
            if (has_ended || carry(&mut lease, &to_caller).await.is_some()) && finish(&mut lease, until).await {
                lease.give_back(&settings, clock::now());
            }
        });
        Self {
            pieces,
            remaining,
            has_ended,
            task: task.abort_handle(),
            timer: Timer::default(),
        }
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ExchangeError>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let Some(piece) = std::task::ready!(self.pieces.poll_recv(cx)) else {
            // The task ended without a word, which only a panic can do.
            let broken = std::io::ErrorKind::BrokenPipe.into();
            return Poll::Ready(Some(Err(ExchangeError::Io(broken))));
        };
        self.has_ended = piece.is_last;
        if let (Ok(Some(frame)), Some(remaining)) = (&piece.frame, &mut self.remaining) {
            *remaining -= frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        Poll::Ready(piece.frame.transpose())
    }

    pub(crate) const fn has_ended(&self) -> bool {
        self.has_ended
    }

    pub(crate) const fn remaining(&self) -> Option<u64> {
        self.remaining
    }
}

impl Drop for EarlyAnswer {
    fn drop(&mut self) {
        if !self.has_ended {
            self.task.abort();
        }
    }
}

/// Hands the answer over, piece by piece, and sends the request. Returns `None` if the exchange ended early.
async fn carry(lease: &mut PooledConnection, to_caller: &mpsc::Sender<Piece>) -> Option<()> {
    loop {
        let stream = &mut lease.connection().stream;
        let mut room = pin!(to_caller.reserve());
        let waited = poll_fn(|cx| {
            if let Poll::Ready(room) = room.as_mut().poll(cx) {
                return Poll::Ready(Ok(room));
            }
            match stream.poll_send(cx) {
                Poll::Ready(Err(fault)) => Poll::Ready(Err(fault)),
                Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
            }
        });
        let event = match waited.await {
            Err(fault) => Err((fault, None)),
            Ok(room) => {
                let room = room.ok()?;
                match poll_fn(|cx| stream.poll_exchange(cx)).await {
                    Ok(event) => Ok((event, room)),
                    Err(error) => Err((error, Some(room))),
                }
            }
        };
        let (event, room) = match event {
            Ok(read) => read,
            Err((error, room)) => {
                let piece = Piece {
                    frame: Err(error),
                    is_last: true,
                };
                match room {
                    Some(room) => room.send(piece),
                    // The caller may be gone.
                    None => drop(to_caller.send(piece).await),
                }
                return None;
            }
        };
        let is_last = stream.is_complete();
        let frame = match event {
            Event::Data(data) => Some(Frame::data(data)),
            Event::Trailers(fields) => fields.to_map().ok().map(|fields| Frame::trailers(fields.into())),
            Event::End => None,
            Event::Head(_) | Event::Interim(_) => continue,
        };
        room.send(Piece {
            frame: Ok(frame),
            is_last,
        });
        if is_last {
            return Some(());
        }
    }
}

/// Sends the rest of the request. Returns whether all of it was sent in time.
async fn finish(lease: &mut PooledConnection, until: Moment) -> bool {
    let stream = &mut lease.connection().stream;
    let sent = poll_fn(|cx| stream.poll_send(cx));
    matches!(tokio::time::timeout_at(clock::instant(until), sent).await, Ok(Ok(())))
}
