//! Checks one direction of a connection, message after message, and holds bytes back until they are judged.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use crate::wire::framing::body::Body;
use crate::wire::framing::head::{Follows, Good, Head, Kind};
use crate::wire::framing::{Limits, Refusal};

/// Size in bytes of one read while a head arrives in pieces.
const PIECE: usize = 4096;

/// Maximum number of interim answers (1xx) to one request. No client needs more, and each costs as much as an answer.
const MOST_INTERIM: u32 = 100;

const CLOSED_WITHIN_HEAD: Read = Read::NoHead(Refusal::Malformed("the sender closed within a head"));

/// Check between a socket and the reader of its messages.
#[derive(Debug)]
pub struct Screen {
    side: Side,
    limits: Limits,
    at: At,
    /// Incomplete head, or bytes that were read together with its end.
    held: Vec<u8>,
    /// Number of bytes of `held` that were judged valid.
    ready: usize,
    verdict: Option<Read>,
    /// Number of interim answers to the current request.
    interim: u32,
}

#[derive(Debug)]
enum Side {
    Requests,
    Answers(Arc<Awaited>),
}

#[derive(Debug)]
enum At {
    /// Position between two messages.
    Start,
    Head(Head),
    Body {
        body: Body,
        last: bool,
    },
    /// The last message is complete; later bytes belong to no message.
    Over,
    /// Another protocol is in use.
    Switched,
}

/// Result of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// Valid bytes were handed over, or the other side has closed.
    Passed,
    /// The next bytes are not a valid head. They are in [`Screen::held`].
    NoHead(Refusal),
    /// The body of the current message is malformed.
    NoBody(Refusal),
    /// Bytes arrived after the last message.
    Over,
}

/// Answer that a backend owes. It is set before a request is sent.
#[derive(Debug, Default)]
pub struct Awaited(AtomicU8);

impl Awaited {
    const NOTHING: u8 = 0;
    const ANSWER: u8 = 1;
    const ANSWER_TO_HEAD: u8 = 2;

    /// Records that a request is about to be sent. `to_head` marks a HEAD request, whose answer has no body.
    pub fn begin(&self, to_head: bool) {
        let owed = if to_head { Self::ANSWER_TO_HEAD } else { Self::ANSWER };
        self.0.store(owed, Relaxed);
    }

    fn end(&self) {
        self.0.store(Self::NOTHING, Relaxed);
    }

    fn kind(&self) -> Option<Kind> {
        match self.0.load(Relaxed) {
            Self::NOTHING => None,
            owed => Some(Kind::Answer {
                to_head: owed == Self::ANSWER_TO_HEAD,
            }),
        }
    }
}

impl Screen {
    /// Creates the check for a caller's requests.
    pub const fn requests(limits: Limits) -> Self {
        Self::new(Side::Requests, limits)
    }

    /// Creates the check for a backend's answers.
    pub const fn answers(awaited: Arc<Awaited>) -> Self {
        let limits = Limits {
            target: usize::MAX / 2,
            head: 256 * 1024,
            // hyper's limit.
            fields: 100,
        };
        Self::new(Side::Answers(awaited), limits)
    }

    const fn new(side: Side, limits: Limits) -> Self {
        Self {
            side,
            limits,
            at: At::Start,
            held: Vec::new(),
            ready: 0,
            verdict: None,
            interim: 0,
        }
    }

    /// Returns the head that is being judged or was refused, as far as it has arrived.
    pub fn held(&self) -> &[u8] {
        &self.held[self.ready..]
    }

    /// Whether more of a message's body must arrive.
    pub const fn is_within_body(&self) -> bool {
        matches!(self.at, At::Body { .. })
    }

    /// Whether everything that arrived was part of a complete message and has been handed over.
    pub const fn is_between_messages(&self) -> bool {
        matches!(self.at, At::Start) && self.held.is_empty() && self.verdict.is_none()
    }

    /// Passes everything from now on, after a switch to another protocol.
    pub fn switch_off(&mut self) {
        self.at = At::Switched;
        self.verdict = None;
        self.ready = self.held.len();
    }

    /// Reads valid bytes into `buf`. Any result but [`Read::Passed`] is final.
    ///
    /// # Errors
    /// Returns the socket's error.
    pub fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        socket: &mut S,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<Read>> {
        loop {
            if self.ready > 0 {
                self.hand_over(buf);
                return Poll::Ready(Ok(Read::Passed));
            }
            if let Some(verdict) = self.verdict {
                return Poll::Ready(Ok(verdict));
            }
            if self.held.is_empty() {
                let before = buf.filled().len();
                ready!(Pin::new(&mut *socket).poll_read(cx, buf))?;
                let bytes = &buf.filled()[before..];
                if bytes.is_empty() {
                    return Poll::Ready(Ok(Read::Passed));
                }
                let good = self.judge(bytes);
                self.held.extend_from_slice(&bytes[good..]);
                buf.set_filled(before + good);
                if good > 0 {
                    return Poll::Ready(Ok(Read::Passed));
                }
            } else if !ready!(self.poll_piece(socket, cx))? {
                // A caller may still read the reason. A backend is simply reported as having broken off.
                if let Side::Answers(_) = self.side {
                    return Poll::Ready(Ok(Read::Passed));
                }
                self.verdict = Some(CLOSED_WITHIN_HEAD);
            }
        }
    }

    /// Waits until [`Self::poll_read`] has a result, and returns that result without handing bytes over. Returns `None`
    /// if the other side closed between two messages.
    ///
    /// # Errors
    /// Returns the socket's error.
    pub fn poll_head<S: AsyncRead + Unpin>(
        &mut self,
        socket: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Read>>> {
        loop {
            if self.ready > 0 {
                return Poll::Ready(Ok(Some(Read::Passed)));
            }
            if let Some(verdict) = self.verdict {
                return Poll::Ready(Ok(Some(verdict)));
            }
            if !ready!(self.poll_piece(socket, cx))? {
                if self.held.is_empty() {
                    return Poll::Ready(Ok(None));
                }
                self.verdict = Some(CLOSED_WITHIN_HEAD);
            }
        }
    }

    /// Reads available bytes into `held` and judges all of `held`. Returns `false` if the other side has closed.
    fn poll_piece<S: AsyncRead + Unpin>(&mut self, socket: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut piece = [MaybeUninit::uninit(); PIECE];
        let mut piece = ReadBuf::uninit(&mut piece);
        ready!(Pin::new(&mut *socket).poll_read(cx, &mut piece))?;
        if piece.filled().is_empty() {
            return Poll::Ready(Ok(false));
        }
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(piece.filled());
        self.ready = self.judge(&held);
        self.held = held;
        Poll::Ready(Ok(true))
    }

    fn hand_over(&mut self, buf: &mut ReadBuf<'_>) {
        let count = self.ready.min(buf.remaining());
        buf.put_slice(&self.held[..count]);
        self.ready -= count;
        if count == self.held.len() {
            self.held = Vec::new();
        } else {
            self.held.drain(..count);
        }
    }

    /// Returns how many of the first `bytes` are valid. The rest is an incomplete head, or belongs to `verdict`. An
    /// incomplete head is passed in again, with more bytes, the next time.
    fn judge(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            match &mut self.at {
                At::Start => {
                    let kind = match &self.side {
                        Side::Requests => Some(Kind::Request),
                        Side::Answers(awaited) => awaited.kind(),
                    };
                    let Some(kind) = kind else {
                        self.verdict = Some(Read::NoHead(Refusal::Malformed("nothing was asked")));
                        break;
                    };
                    self.at = At::Head(Head::new(kind));
                }
                At::Head(head) => match head.read(&bytes[at..], &self.limits) {
                    Ok(None) => break,
                    Ok(Some(Good {
                        follows: Follows::AnotherHead,
                        ..
                    })) if self.interim == MOST_INTERIM => {
                        let refusal = Refusal::Malformed("there are too many interim answers");
                        self.verdict = Some(Read::NoHead(refusal));
                        break;
                    }
                    Ok(Some(good)) => {
                        at += good.length;
                        match good.follows {
                            Follows::Nothing => self.end_of_message(good.last),
                            Follows::AnotherHead => {
                                self.interim += 1;
                                self.at = At::Start;
                            }
                            Follows::Switch => self.at = At::Switched,
                            Follows::Body(body) => self.at = At::Body { body, last: good.last },
                        }
                    }
                    Err(refusal) => {
                        self.verdict = Some(Read::NoHead(refusal));
                        break;
                    }
                },
                At::Body { body, last } => {
                    let (passed, ended) = body.pass(&bytes[at..]);
                    at += passed;
                    match ended {
                        None => {}
                        Some(Ok(())) => {
                            let last = *last;
                            self.end_of_message(last);
                        }
                        Some(Err(refusal)) => {
                            self.verdict = Some(Read::NoBody(refusal));
                            break;
                        }
                    }
                }
                At::Over => {
                    self.verdict = Some(Read::Over);
                    break;
                }
                At::Switched => at = bytes.len(),
            }
        }
        at
    }

    fn end_of_message(&mut self, last: bool) {
        if let Side::Answers(awaited) = &self.side {
            awaited.end();
        }
        self.interim = 0;
        self.at = if last { At::Over } else { At::Start };
    }
}
