//! The body of an answer that is still being received, with the connection that it comes on: an HTTP/1.1 connection for
//! itself, or a slot on a shared HTTP/2 connection.

use std::fmt;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use policies::Moment;

use super::http1::{BackendStream, EarlyAnswer, ExchangeError};
use super::http2::{self, AnswerStream, StreamFault};
use super::pool::{PoolSettings, PooledConnection};
use super::timer::Timer;
use crate::wire::http1::{Event, Refusal};
use crate::wire::http2_switched::SwitchedHttp2;

/// Body of an answer. Its connection is given back once, when the exchange is complete; an earlier drop aborts the
/// exchange.
pub(crate) enum AnswerBody {
    Own(PooledConnection),
    /// The request was still being sent when the answer began.
    Early(EarlyAnswer),
    Shared(Box<AnswerStream>, http2::StreamCheckout),
    /// Stream that has switched to another protocol.
    Switched(http2::StreamCheckout),
    /// The connection was given back, or the exchange was aborted.
    Over,
}

/// Reason why the body of an answer ended early.
#[derive(Debug)]
pub enum BodyFault {
    Own(ExchangeError),
    Shared(StreamFault),
}

/// Connection or stream to a backend that has switched to another protocol.
pub enum SwitchedBackend {
    /// HTTP/1.1 connection.
    Own(Box<BackendStream>),
    /// Stream of an HTTP/2 connection.
    Shared(Box<SwitchedHttp2>),
}

impl AnswerBody {
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        match self {
            Self::Own(lease) => {
                let stream = &mut lease.connection().stream;
                loop {
                    return Poll::Ready(match ready!(stream.poll_event(cx)) {
                        Ok(Event::Data(data)) => Some(Ok(Frame::data(data))),
                        Ok(Event::Trailers(fields)) => match fields.to_map() {
                            Ok(trailers) => Some(Ok(Frame::trailers(trailers.into()))),
                            Err(refusal) => Some(Err(BodyFault::Own(ExchangeError::Refused(refusal)))),
                        },
                        Ok(Event::End) => None,
                        Ok(Event::Head(_) | Event::Interim(_)) => continue,
                        Err(error) => Some(Err(BodyFault::Own(error))),
                    });
                }
            }
            Self::Early(answer) => answer
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(BodyFault::Own))),
            Self::Shared(answer, _) => answer
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(BodyFault::Shared))),
            Self::Switched(_) | Self::Over => Poll::Ready(None),
        }
    }

    /// Whether all of the answer has been handed over.
    pub(crate) fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(lease) => lease.stream().is_some_and(|stream| stream.is_complete()),
            Self::Early(answer) => answer.has_ended(),
            Self::Shared(answer, _) => answer.is_end_stream(),
            Self::Switched(_) | Self::Over => true,
        }
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        let remaining = match self {
            Self::Own(lease) => lease.stream().and_then(|stream| stream.remaining()),
            Self::Early(answer) => answer.remaining(),
            Self::Shared(answer, _) => return answer.size_hint(),
            Self::Switched(_) | Self::Over => Some(0),
        };
        remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    /// Returns the timer of this exchange.
    pub(crate) fn timer(&mut self) -> Option<&mut Timer> {
        match self {
            Self::Own(lease) => Some(&mut lease.connection().timer),
            Self::Early(answer) => Some(&mut answer.timer),
            Self::Shared(_, lease) | Self::Switched(lease) => Some(&mut lease.timer),
            Self::Over => None,
        }
    }

    /// Gives the connection back after the last byte of the answer.
    pub(crate) fn give_back(&mut self, settings: &PoolSettings, now: Moment) {
        match std::mem::replace(self, Self::Over) {
            Self::Own(lease) => lease.give_back(settings, now),
            // Its task gives it back once the request is sent.
            Self::Early(_) | Self::Over => {}
            Self::Shared(_, lease) | Self::Switched(lease) => lease.give_back(),
        }
    }

    /// Aborts the exchange, unless it is over.
    pub(crate) fn abort(&mut self) {
        *self = Self::Over;
    }

    /// Drops an answer that is not used. Keeps its connection if the rest of the body has already arrived.
    pub(crate) fn discard(mut self, settings: &PoolSettings, now: Moment) {
        // Aborts what another attempt needs: the body of the request, or its slot.
        if let Self::Own(_) = self {
            let mut cx = Context::from_waker(Waker::noop());
            while let Poll::Ready(Some(Ok(_))) = self.poll_frame(&mut cx) {}
            if self.is_end_stream() {
                self.give_back(settings, now);
            }
        }
    }

    /// Takes the connection or stream after a switch to another protocol. It stays counted.
    pub(crate) fn take_switched(&mut self) -> Option<SwitchedBackend> {
        if let Self::Own(lease) = self {
            return lease.take_switched().map(Box::new).map(SwitchedBackend::Own);
        }
        match std::mem::replace(self, Self::Over) {
            Self::Shared(answer, lease) => {
                *self = Self::Switched(lease);
                answer.into_switched().map(Box::new).map(SwitchedBackend::Shared)
            }
            other => {
                *self = other;
                None
            }
        }
    }
}

impl BodyFault {
    /// Returns why the bytes that came are not an answer, if that is the reason.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Own(ExchangeError::Refused(refusal)) => Some(*refusal),
            Self::Own(_) | Self::Shared(_) => None,
        }
    }
}

impl fmt::Display for BodyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(error) => error.fmt(f),
            Self::Shared(StreamFault::Broken(error)) => error.fmt(f),
            Self::Shared(StreamFault::CutShort) => f.write_str("the stream was reset before its end"),
        }
    }
}
