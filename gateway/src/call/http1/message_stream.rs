//! Writes requests to a connection and reads the answers, one exchange at a time.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::BytesMut;
use http::{Method, StatusCode};
use http_body::Body as _;
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::time::{Sleep, sleep};

use super::head::AttemptHead;
use crate::call::replay::{Outbound, UploadFault};
use crate::call::transport::Transport;
use crate::wire::http1::{Asked, BodyEncoder, BodyLength, Cut, Event, Head, Limits, Reader, Refusal};
use crate::wire::interim::InterimAnswers;
use crate::wire::switched_stream::SwitchedStream;
use crate::wire::write_queue::WriteQueue;

/// Least and largest size in bytes of the room for one read. It grows while reads fill it.
const LEAST_ROOM: usize = 8 * 1024;
const MOST_ROOM: usize = 256 * 1024;

/// Connection to an endpoint, as a stream of messages.
pub(crate) struct MessageStream {
    socket: Transport,
    reader: Reader,
    /// Bytes that have come and are not read as a message yet.
    received: BytesMut,
    /// Event after the last one that was handed over.
    ahead: Option<Event>,
    /// Size of the room for the next read.
    room: usize,
    step: Step,
    body: Outbound,
    encoder: BodyEncoder,
    output: WriteQueue,
    /// Whether anything of the current request was written.
    has_written: bool,
}

/// Time that a backend has to say whether it wants the body. Not every one does.
const SILENCE: Duration = Duration::from_secs(1);

/// Step of sending a request.
#[derive(Debug)]
enum Step {
    /// The body is held until the backend wants it, or has been silent for as long as it may.
    Expecting(Pin<Box<Sleep>>),
    /// More of the body is to come.
    Body,
    /// All that is left is written and flushed.
    Rest,
    Sent,
    /// The request cannot be sent any further. The reason is told if no answer comes either.
    Failed(Option<ExchangeError>),
}

/// Reason why an exchange ended early.
#[derive(Debug)]
pub enum ExchangeError {
    /// The bytes that came are not an answer.
    Refused(Refusal),
    /// The endpoint closed the connection too early.
    Cut(Cut),
    Io(io::Error),
    /// The request's own body failed.
    Upload(UploadFault),
    /// The request's own body has another length than was announced.
    Length,
}

impl MessageStream {
    pub(crate) fn new(socket: Transport) -> Self {
        Self {
            socket,
            reader: Reader::answers(Limits::of_answers(0)),
            received: BytesMut::new(),
            ahead: None,
            room: LEAST_ROOM,
            step: Step::Sent,
            body: Outbound::Empty,
            encoder: BodyEncoder::new(None),
            output: WriteQueue::default(),
            has_written: false,
        }
    }

    /// Begins an exchange. `fields` is the maximum number of fields of its answer.
    pub(crate) fn begin(&mut self, head: &AttemptHead<'_>, body: Outbound, fields: usize) {
        let length = head.length_of(&body);
        self.output.clear();
        head.write(self.output.buffer(), length);
        self.encoder = BodyEncoder::new(length);
        self.body = body;
        let is_empty = matches!(length, None | Some(BodyLength::Exact(0)));
        self.step = if head.expects && !is_empty {
            Step::Expecting(Box::pin(sleep(SILENCE)))
        } else {
            Step::Body
        };
        self.has_written = false;
        self.reader.set_limits(Limits::of_answers(fields));
        self.reader.expect(match *head.method {
            Method::HEAD => Asked::Head,
            _ => Asked::Other,
        });
    }

    /// Sends the request and returns the head of its final answer. Interim answers go to `interim`.
    pub(crate) fn poll_head(
        &mut self,
        interim: Option<&InterimAnswers>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Head, ExchangeError>> {
        loop {
            match ready!(self.poll_exchange(cx)) {
                Ok(Event::Interim(head)) => {
                    if let (Step::Expecting(_), Some(StatusCode::CONTINUE)) = (&self.step, head.status()) {
                        self.step = Step::Body;
                    }
                    if let Some(interim) = interim {
                        interim.add_head(&head);
                    }
                    self.recycle(head);
                }
                Ok(Event::Head(head)) => {
                    if let Step::Expecting(_) = self.step {
                        // The backend does without the body, so it is not sent.
                        self.stop(None);
                    }
                    return Poll::Ready(Ok(head));
                }
                Ok(Event::Data(_) | Event::Trailers(_) | Event::End) => {
                    return Poll::Ready(Err(ExchangeError::Cut(Cut::BeforeHead)));
                }
                Err(error @ (ExchangeError::Cut(_) | ExchangeError::Io(_))) => {
                    // What came first explains the other.
                    let failed = match &mut self.step {
                        Step::Failed(failed) => failed.take(),
                        Step::Expecting(_) | Step::Body | Step::Rest | Step::Sent => None,
                    };
                    return Poll::Ready(Err(failed.unwrap_or(error)));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Returns the next event of the answer, and sends the request until there is one.
    ///
    /// The answer is looked at first: a task may do only so much at once, and an endless upload would use all of it. What
    /// has come before the request is no answer to it.
    pub(crate) fn poll_exchange(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, ExchangeError>> {
        let read = self.poll_event(cx);
        if !self.has_written && (!self.received.is_empty() || matches!(read, Poll::Ready(Ok(_)))) {
            const UNASKED: Refusal = Refusal::Malformed("something came before the request was sent");
            return Poll::Ready(Err(ExchangeError::Refused(UNASKED)));
        }
        if let Poll::Ready(event) = read {
            return Poll::Ready(event);
        }
        match self.poll_send(cx) {
            Poll::Ready(Err(fault)) => Poll::Ready(Err(fault)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }

    /// Sends what can be sent of the request. Ready once nothing more is to be sent, or can be: the endpoint may have
    /// answered before it closed.
    ///
    /// # Errors
    /// Returns the fault of the request's own body.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ExchangeError>> {
        loop {
            match &mut self.step {
                Step::Sent | Step::Failed(_) => return Poll::Ready(Ok(())),
                Step::Expecting(silence) => {
                    if silence.as_mut().poll(cx).is_ready() {
                        self.step = Step::Body;
                    }
                }
                Step::Body | Step::Rest => {}
            }
            if let Err(fault) = self.gather(cx) {
                self.stop(None);
                return Poll::Ready(Err(fault));
            }
            let written = if !self.output.is_empty() {
                ready!(self.poll_write(cx))
            } else {
                let flushed = ready!(Pin::new(&mut self.socket).poll_flush(cx));
                match (&flushed, &self.step) {
                    (Ok(()), Step::Body | Step::Expecting(_)) => return Poll::Pending,
                    (Ok(()), _) => self.step = Step::Sent,
                    (Err(_), _) => {}
                }
                flushed
            };
            if let Err(error) = written {
                self.stop(Some(ExchangeError::Io(error)));
            }
        }
    }

    /// Reads the body until there is enough to write, or no more of it.
    fn gather(&mut self, cx: &mut Context<'_>) -> Result<(), ExchangeError> {
        while matches!(self.step, Step::Body) && self.output.has_room() {
            if self.encoder.has_ended() {
                self.end_body();
                continue;
            }
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                break;
            };
            let trailers = match frame {
                Some(Err(fault)) => return Err(ExchangeError::Upload(fault)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let added = self.output.add(&mut self.encoder, data);
                        added.map_err(|_| ExchangeError::Length)?;
                        continue;
                    }
                    Err(frame) => frame.into_trailers().ok(),
                },
                None => None,
            };
            let ended = self.encoder.end(trailers.as_ref(), self.output.buffer());
            ended.map_err(|_| ExchangeError::Length)?;
            self.end_body();
        }
        Ok(())
    }

    fn end_body(&mut self) {
        self.step = Step::Rest;
        self.body = Outbound::Empty;
    }

    /// Sends nothing more of the request.
    fn stop(&mut self, why: Option<ExchangeError>) {
        self.step = Step::Failed(why);
        self.body = Outbound::Empty;
        self.output.discard();
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.output.poll_write(&mut self.socket, cx))?;
        self.has_written = true;
        Poll::Ready(Ok(()))
    }

    /// Reads the next event of the answer.
    pub(crate) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, ExchangeError>> {
        if let Some(event) = self.ahead.take() {
            return Poll::Ready(Ok(event));
        }
        loop {
            match self.reader.read(&mut self.received) {
                Ok(Some(event)) => {
                    if let (Event::Data(_), false) = (&event, self.received.is_empty()) {
                        // Whether this was the last piece can already be known. A refusal comes back at the next read.
                        self.ahead = self.reader.read(&mut self.received).unwrap_or_default();
                    }
                    return Poll::Ready(Ok(event));
                }
                Ok(None) => {}
                Err(refusal) => return Poll::Ready(Err(ExchangeError::Refused(refusal))),
            }
            match ready!(self.poll_fill(cx)) {
                Err(error) => return Poll::Ready(Err(ExchangeError::Io(error))),
                Ok(0) => {
                    return Poll::Ready(match self.reader.close() {
                        Ok(Some(event)) => Ok(event),
                        Ok(None) => Err(ExchangeError::Cut(Cut::BeforeHead)),
                        Err(cut) => Err(ExchangeError::Cut(cut)),
                    });
                }
                Ok(_) => {}
            }
        }
    }

    /// Reads what has come into `received`. Returns the number of bytes, 0 at the end of the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let spare = self.received.capacity() - self.received.len();
        if spare < LEAST_ROOM / 4 {
            self.received.reserve(self.room);
        }
        let room = self.received.capacity() - self.received.len();
        let count = ready!(pin!(self.socket.read_buf(&mut self.received)).poll(cx))?;
        if count == room {
            self.room = (self.room * 2).min(MOST_ROOM);
        }
        Poll::Ready(Ok(count))
    }

    /// Gives back the memory of a head that is not needed any more.
    pub(crate) fn recycle(&mut self, head: Head) {
        self.reader.recycle(head.fields);
    }

    /// Whether anything of the current request was written.
    pub(crate) const fn has_written(&self) -> bool {
        self.has_written
    }

    /// Whether something of the request is still to be sent.
    pub(crate) const fn is_sending(&self) -> bool {
        matches!(self.step, Step::Expecting(_) | Step::Body | Step::Rest)
    }

    /// Whether all of the answer has been handed over.
    pub(crate) fn is_complete(&self) -> bool {
        match &self.ahead {
            Some(event) => *event == Event::End,
            None => self.reader.is_complete(),
        }
    }

    /// Returns the number of bytes of content that have not been handed over, if the answer states it.
    pub(crate) const fn remaining(&self) -> Option<u64> {
        self.reader.remaining()
    }

    /// Whether the exchange is complete in both directions and nothing else has come, so that the connection can carry
    /// another exchange.
    pub(crate) fn is_reusable(&mut self) -> bool {
        let is_told = match self.ahead.take() {
            Some(event) => event == Event::End,
            None => matches!(self.reader.read(&mut self.received), Ok(Some(Event::End) | None)),
        };
        is_told
            && matches!(self.step, Step::Sent)
            && self.reader.is_between_messages()
            && self.reader.is_complete()
            && self.received.is_empty()
    }

    /// Whether an idle connection is still open and nothing has come that was not asked for, as far as is known without
    /// a wait.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.received.is_empty() && self.poll_fill(&mut cx).is_pending()
    }

    /// Whether an idle connection was closed by the endpoint. May be asked from any thread.
    pub(crate) fn is_closed(&self) -> bool {
        self.socket.is_closed()
    }

    /// Returns memory that an idle connection does not need.
    pub(crate) fn rest(&mut self) {
        if self.room > LEAST_ROOM {
            self.room = LEAST_ROOM;
            self.received = BytesMut::new();
        }
    }

    /// Returns the connection after a switch to another protocol, with what has already come.
    pub(crate) fn into_switched(self) -> SwitchedStream<Transport> {
        SwitchedStream::new(self.socket, self.received)
    }
}

impl std::fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Cut(Cut::BeforeHead) => f.write_str("closed before it answered"),
            Self::Cut(Cut::WithinHead) => f.write_str("closed within the head of its answer"),
            Self::Cut(Cut::WithinBody) => f.write_str("closed within the body of its answer"),
            Self::Io(error) => error.fmt(f),
            Self::Upload(fault) => fault.fmt(f),
            Self::Length => f.write_str("the request body has not the length that was announced"),
        }
    }
}

impl std::error::Error for ExchangeError {}
