//! A caller's connection as a stream of messages: requests come out, and answers go in.

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use http::Version;
use http_body::Frame;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::headers;
use crate::pipeline::Peer;
use crate::server::connection_guard::ConnectionGuard;
use crate::server::early_refusal::{self, EarlyRefusal};
use crate::server::last_words::LastWords;
use crate::server::reaper::ConnectionActivity;
use crate::server::worker::Worker;
use crate::setting::Settings;
use crate::wire::caller_body::BodyError;
use crate::wire::http1::{Event, Head, Limits, Reader, Refusal, write_answer_head};
use crate::wire::interim::InterimAnswers;
use crate::wire::upload::{UploadWriter, Wanted};
use crate::wire::write_queue::WriteQueue;

/// Least and largest size in bytes of the room for one read. It grows while reads fill it. A slow head holds the least
/// one, and thousands of them may be sent at once.
const LEAST_ROOM: usize = 2 * 1024;
const MOST_ROOM: usize = 64 * 1024;
/// Size in bytes of a read without a buffer.
pub(super) const FIRST: usize = 4096;

/// Waits after which a caller that has closed its direction is asked whether it still waits for its answer, and after
/// which it is looked whether it has refused the question. The last wait is doubled each time, up to the longest.
const PROBE_WAITS: [Duration; 4] = [
    Duration::from_millis(10),
    Duration::from_millis(10),
    Duration::from_millis(100),
    Duration::from_millis(400),
];
const LONGEST_PROBE: Duration = Duration::from_secs(30);

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
const CLOSED_WITHIN_HEAD: Refusal = Refusal::Malformed("the sender closed within a head");

/// Waits for the first bytes of a conversation. Returns none of them at the end of the stream. Until they come, there is
/// no buffer.
pub(super) fn poll_first<S: AsyncRead + Unpin>(socket: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<BytesMut>> {
    let mut piece = [MaybeUninit::uninit(); FIRST];
    let mut piece = ReadBuf::uninit(&mut piece);
    ready!(Pin::new(socket).poll_read(cx, &mut piece))?;
    let mut received = BytesMut::new();
    if !piece.filled().is_empty() {
        received.reserve(LEAST_ROOM.max(piece.filled().len()));
        received.extend_from_slice(piece.filled());
    }
    Poll::Ready(Ok(received))
}

/// State of a conversation on a connection. An idle connection has none.
pub(super) struct CallerStream<'a, S: LastWords> {
    pub(super) socket: &'a mut S,
    reader: Reader,
    /// Bytes that have come and are not read as a message yet.
    received: BytesMut,
    /// Event after the last piece of a body that was handed over.
    ahead: Option<Event>,
    room: usize,
    pub(super) output: WriteQueue,
    upload: Upload,
    /// Whether the caller knows interim answers, as one of HTTP/1.1 does.
    takes_interim: bool,
    probe: Option<Probe>,
    interim: Option<Arc<InterimAnswers>>,
    /// Settings of the plan whose head limits hold in this conversation.
    settings: Arc<Settings>,
    worker: Arc<Worker>,
    pub(super) activity: Arc<ConnectionActivity>,
    address: SocketAddr,
}

/// Question to a caller that has closed its direction.
struct Probe {
    timer: Pin<Box<Sleep>>,
    /// Number of waits before this one.
    waits: usize,
    wait: Duration,
}

/// State of the body of the current request.
#[derive(Debug)]
pub(super) enum Upload {
    /// All of it was read from the connection.
    Complete,
    Underway {
        writer: UploadWriter,
        /// Whether the caller waits for `100 Continue`.
        awaits_continue: bool,
    },
    /// It is not used, and more of it is to come.
    Unread,
    /// It was cut or is malformed, so nothing after it can be read.
    Broken,
}

/// What comes between two requests.
pub(super) enum Next {
    Head(Head),
    /// The bytes are no head, or the caller has closed within one.
    Refused(Refusal),
    /// The caller has closed.
    Closed,
    /// Nothing, for a while.
    Rest,
}

impl<'a, S: LastWords> CallerStream<'a, S> {
    /// Begins a conversation after its first bytes.
    pub(super) fn new(socket: &'a mut S, received: BytesMut, peer: &Peer, guard: &ConnectionGuard) -> Self {
        let worker = Arc::clone(guard.worker());
        let (limits, settings) = {
            let plan = worker.live.load();
            let edge = &plan.edge;
            let limits = Limits::of_heads(edge.uri_limit, edge.head_limit, edge.header_limit);
            (limits, Arc::clone(&plan.settings))
        };
        Self {
            socket,
            reader: Reader::requests(limits),
            received,
            ahead: None,
            room: LEAST_ROOM,
            output: WriteQueue::default(),
            upload: Upload::Complete,
            takes_interim: false,
            probe: None,
            interim: peer.interim.clone(),
            settings,
            worker,
            activity: Arc::clone(guard.activity()),
            address: peer.address,
        }
    }

    /// Gives back the memory of a head that is not needed any more.
    pub(super) fn recycle(&mut self, head: Head) {
        self.reader.recycle(head.fields);
    }

    /// Writes the refusal of bytes that are no request.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        let answer = self.refusal(EarlyRefusal::Refused(refusal));
        self.output.buffer().extend_from_slice(&answer);
    }

    fn refusal(&self, unread: EarlyRefusal) -> bytes::Bytes {
        let settings = match unread {
            // The time limit of a head may change during the connection, so the settings in force are used.
            EarlyRefusal::TooSlow => None,
            _ => Some(&self.settings),
        };
        early_refusal::answer(&self.worker, self.address, &self.received, unread, settings)
    }

    /// Begins an exchange, and to hand over the request's body if it has one.
    pub(super) fn begin(&mut self, writer: Option<UploadWriter>, takes_interim: bool, awaits_continue: bool) {
        self.takes_interim = takes_interim;
        if let Some(interim) = &self.interim {
            interim.begin(takes_interim);
        }
        self.probe = None;
        self.upload = match writer {
            Some(writer) => Upload::Underway {
                writer,
                awaits_continue,
            },
            None => Upload::Complete,
        };
    }

    /// Returns the state of the body, after it has discarded what has come of a body that is not used.
    pub(super) fn settle_upload(&mut self) -> &Upload {
        if let Upload::Underway { writer, .. } = &self.upload
            && writer.is_abandoned()
        {
            self.abandon_upload();
        }
        &self.upload
    }

    fn abandon_upload(&mut self) {
        self.upload = Upload::Unread;
        self.discard_received();
    }

    /// Discards what has come of a body that is not used.
    fn discard_received(&mut self) {
        while let Upload::Unread = self.upload {
            let event = match self.ahead.take() {
                Some(event) => Ok(Some(event)),
                None => self.reader.read(&mut self.received),
            };
            self.upload = match event {
                Ok(Some(Event::Data(_) | Event::Trailers(_))) => Upload::Unread,
                Ok(Some(Event::End | Event::Head(_) | Event::Interim(_))) => Upload::Complete,
                Ok(None) => return,
                Err(_) => Upload::Broken,
            };
        }
    }

    /// Takes what has come and is not read.
    pub(super) fn take_received(&mut self) -> BytesMut {
        mem::take(&mut self.received)
    }

    /// Whether more than the current request has come.
    pub(super) fn has_more(&self) -> bool {
        !self.received.is_empty()
    }
}

impl<S: AsyncRead + AsyncWrite + LastWords + Unpin> CallerStream<'_, S> {
    /// Reads what has come. Returns the number of bytes, 0 at the end of the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.received.capacity() - self.received.len() < LEAST_ROOM / 4 {
            self.received.reserve(self.room);
        }
        let room = self.received.capacity() - self.received.len();
        let count = ready!(pin!(self.socket.read_buf(&mut self.received)).poll(cx))?;
        if count == room {
            self.room = (self.room * 2).min(MOST_ROOM);
        }
        Poll::Ready(Ok(count))
    }

    /// Reads the head of the next request. Writes what is left of earlier answers while there is none.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Next>> {
        if !self.received.is_empty() {
            // A head that began to come during the answer has the same time limit as any other head.
            self.activity.note_read();
        }
        loop {
            if !self.output.has_room() {
                ready!(self.poll_output(cx))?;
            }
            match self.reader.read(&mut self.received) {
                Ok(Some(Event::Head(head))) => return Poll::Ready(Ok(Next::Head(head))),
                // The end of the request before.
                Ok(Some(_)) => continue,
                Ok(None) => {}
                Err(refusal) => return Poll::Ready(Ok(Next::Refused(refusal))),
            }
            match self.poll_fill(cx)? {
                Poll::Ready(0) => {
                    return Poll::Ready(Ok(match self.received.is_empty() {
                        true => Next::Closed,
                        false => Next::Refused(CLOSED_WITHIN_HEAD),
                    }));
                }
                Poll::Ready(_) => {}
                Poll::Pending => {
                    ready!(self.poll_output(cx))?;
                    self.activity.set_task(cx.waker());
                    self.activity.set_at_rest(self.received.is_empty());
                    if self.activity.may_rest() {
                        self.activity.set_at_rest(false);
                        return Poll::Ready(Ok(Next::Rest));
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Runs the pipeline, and hands it what it wants of the body.
    ///
    /// # Errors
    /// Fails if the caller has left.
    pub(super) fn poll_serve<F: Future>(
        &mut self,
        mut service: Pin<&mut F>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<F::Output>> {
        loop {
            let polled = service.as_mut().poll(cx);
            self.write_interim();
            if let Poll::Ready(answer) = polled {
                return Poll::Ready(Ok(answer));
            }
            if !self.hand_over(cx) {
                break;
            }
        }
        self.poll_absence(cx).map(Err)
    }

    /// Writes the interim answers that have come.
    fn write_interim(&mut self) {
        let answers = self.interim.as_ref().map(|interim| interim.take()).unwrap_or_default();
        if answers.is_empty() {
            return;
        }
        let plan = self.worker.live.load();
        for (status, mut fields) in answers {
            let is_clean = headers::clean_response(&mut fields, Version::HTTP_11, &plan.via).is_ok();
            if is_clean && self.output.has_room() {
                let start = (Version::HTTP_11, status, None);
                write_answer_head(self.output.buffer(), start, fields.iter(), None);
            }
        }
    }

    /// Asks a caller that has closed its direction whether it still waits for its answer.
    ///
    /// One that has gone closes its direction too, and nothing else tells the two apart: only bytes that it gets are
    /// refused. `100 Continue` may be sent to any request, and a client passes over it (RFC 9110 section 15.2.1).
    ///
    /// Is ready when the caller has left.
    fn poll_absence(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            if let Poll::Ready(Err(error)) = self.poll_output(cx) {
                return Poll::Ready(error);
            }
            if !self.activity.is_half_closed() {
                return Poll::Pending;
            }
            let probe = self.probe.get_or_insert_with(|| Probe {
                timer: Box::pin(sleep(PROBE_WAITS[0])),
                waits: 0,
                wait: PROBE_WAITS[0],
            });
            ready!(probe.timer.as_mut().poll(cx));
            let asks = probe.waits == 0 || probe.waits >= PROBE_WAITS.len() - 1;
            probe.waits += 1;
            probe.wait = match PROBE_WAITS.get(probe.waits) {
                Some(wait) => *wait,
                None => (probe.wait * 2).min(LONGEST_PROBE),
            };
            probe.timer = Box::pin(sleep(probe.wait));
            if asks && self.takes_interim && self.output.is_empty() {
                self.output.buffer().extend_from_slice(CONTINUE);
            }
        }
    }

    /// Hands over the next piece of the body if it is wanted and there. Returns whether its reader has something new.
    pub(super) fn hand_over(&mut self, cx: &mut Context<'_>) -> bool {
        let Upload::Underway {
            writer,
            awaits_continue,
        } = &mut self.upload
        else {
            return false;
        };
        match writer.poll_wanted(cx) {
            Poll::Pending => return false,
            Poll::Ready(Wanted::Nothing) => {
                self.abandon_upload();
                return false;
            }
            Poll::Ready(Wanted::Piece) => {}
        }
        if mem::take(awaits_continue) && self.received.is_empty() {
            self.output.buffer().extend_from_slice(CONTINUE);
        }
        let event = loop {
            let read = match self.ahead.take() {
                Some(event) => Ok(Some(event)),
                None => self.reader.read(&mut self.received),
            };
            match read {
                Ok(Some(event)) => break Ok(event),
                Ok(None) => match self.poll_fill(cx) {
                    Poll::Pending => return false,
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(Ok(0) | Err(_)) => break Err(BodyError::Broken),
                },
                Err(refusal) => break Err(BodyError::Malformed(refusal.why())),
            }
        };
        let (frame, is_last) = match event {
            Ok(Event::Data(data)) => {
                // Whether this was the last piece can already be known. A refusal comes back at the next read.
                self.ahead = self.reader.read(&mut self.received).unwrap_or_default();
                (Some(Ok(Frame::data(data))), self.ahead == Some(Event::End))
            }
            Ok(Event::Trailers(fields)) => match fields.to_map() {
                Ok(trailers) => {
                    self.ahead = self.reader.read(&mut self.received).unwrap_or_default();
                    (Some(Ok(Frame::trailers(trailers.into()))), true)
                }
                Err(refusal) => (Some(Err(BodyError::Malformed(refusal.why()))), true),
            },
            Ok(Event::End | Event::Head(_) | Event::Interim(_)) => (None, true),
            Err(error) => (Some(Err(error)), true),
        };
        let Upload::Underway { writer, .. } = &self.upload else {
            return false;
        };
        let mut is_broken = false;
        match frame {
            Some(Ok(frame)) => writer.give(frame, is_last, cx),
            Some(Err(error)) => {
                is_broken = true;
                writer.end(Err(error), cx);
            }
            None => writer.end(Ok(()), cx),
        }
        if is_last {
            self.ahead = None;
            self.upload = if is_broken { Upload::Broken } else { Upload::Complete };
        }
        true
    }

    /// Hands over the rest of the body while its reader wants it. Ready when the reader is gone or has all of it.
    ///
    /// # Errors
    /// Fails if the caller has left.
    pub(super) fn poll_rest_of_upload(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.hand_over(cx) {}
        if !matches!(self.upload, Upload::Underway { .. }) {
            return Poll::Ready(Ok(()));
        }
        match self.poll_output(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }

    /// Reads the rest of a body that is not used, of which at most `left` bytes may still come. Ready with whether all
    /// of it was read.
    ///
    /// # Errors
    /// Fails if the caller has left.
    pub(super) fn poll_discard(&mut self, left: &mut usize, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        ready!(self.poll_output(cx))?;
        loop {
            self.discard_received();
            match self.upload {
                Upload::Complete => return Poll::Ready(Ok(true)),
                Upload::Unread => {}
                Upload::Underway { .. } | Upload::Broken => return Poll::Ready(Ok(false)),
            }
            let count = ready!(self.poll_fill(cx))?;
            *left = match left.checked_sub(count) {
                Some(left) if count > 0 => left,
                _ => return Poll::Ready(Ok(false)),
            };
        }
    }

    /// Writes all that waits to be written.
    ///
    /// # Errors
    /// Fails if the caller has left.
    pub(super) fn poll_output(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            ready!(self.output.poll_write(&mut *self.socket, cx))?;
        }
        Pin::new(&mut *self.socket).poll_flush(cx)
    }
}

impl<S: LastWords> Drop for CallerStream<'_, S> {
    fn drop(&mut self) {
        if self.activity.is_late() && self.output.is_empty() && !self.received.is_empty() {
            let answer = self.refusal(EarlyRefusal::TooSlow);
            self.socket.say(&answer);
        }
    }
}
