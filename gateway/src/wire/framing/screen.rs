//! One direction of a connection: message after message, and what is held back until it has been judged.

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

/// Read at a time while a head comes in pieces, in bytes.
const PIECE: usize = 4096;

/// Interim answers (1xx) to one request: nobody needs as many, and each costs as much as an answer.
const MOST_INTERIM: u32 = 100;

const CLOSED_WITHIN_HEAD: Read = Read::NoHead(Refusal::Malformed("the sender closed within a head"));

/// What stands between a socket and the reader of its messages.
#[derive(Debug)]
pub struct Screen {
    side: Side,
    limits: Limits,
    at: At,
    /// A head that has come in part, or what was read together with its end.
    held: Vec<u8>,
    /// So many bytes of `held` have been judged good.
    ready: usize,
    verdict: Option<Read>,
    /// Interim answers that have come to the request under way.
    interim: u32,
}

#[derive(Debug)]
enum Side {
    Requests,
    Answers(Arc<Awaited>),
}

#[derive(Debug)]
enum At {
    /// Between messages.
    Start,
    Head(Head),
    Body {
        body: Body,
        last: bool,
    },
    /// The last message has come; what follows belongs to none.
    Over,
    /// Another protocol is spoken.
    Switched,
}

/// What has become of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// Good bytes have been handed over, or the other side has closed.
    Passed,
    /// What comes next is not the head of a message. It is in [`Screen::held`].
    NoHead(Refusal),
    /// The body of the message under way is broken.
    NoBody(Refusal),
    /// Bytes have come after the last message.
    Over,
}

/// Which answer a backend owes; set before a request is sent to it.
#[derive(Debug, Default)]
pub struct Awaited(AtomicU8);

impl Awaited {
    const NOTHING: u8 = 0;
    const ANSWER: u8 = 1;
    const ANSWER_TO_HEAD: u8 = 2;

    /// A request is about to be sent; `to_head` if it is HEAD, whose answer has no body.
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
    /// For what a caller sends.
    pub const fn requests(limits: Limits) -> Self {
        Self::new(Side::Requests, limits)
    }

    /// For what a backend sends.
    pub const fn answers(awaited: Arc<Awaited>) -> Self {
        let limits = Limits {
            target: usize::MAX / 2,
            head: 256 * 1024,
            // What hyper takes.
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

    /// The head that is being judged, or was refused; as far as it has come.
    pub fn held(&self) -> &[u8] {
        &self.held[self.ready..]
    }

    /// Whether more of a message's body must come.
    pub const fn is_within_body(&self) -> bool {
        matches!(self.at, At::Body { .. })
    }

    /// Whether everything that has come is part of a whole message and has been handed over.
    pub const fn is_between_messages(&self) -> bool {
        matches!(self.at, At::Start) && self.held.is_empty() && self.verdict.is_none()
    }

    /// The connection has been switched to another protocol: everything passes.
    pub fn switch_off(&mut self) {
        self.at = At::Switched;
        self.verdict = None;
        self.ready = self.held.len();
    }

    /// Reads good bytes into `buf`. Anything else than [`Read::Passed`] is final.
    ///
    /// # Errors
    /// The socket's.
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
                // A caller may still read why; of a backend it is known that it broke off.
                if let Side::Answers(_) = self.side {
                    return Poll::Ready(Ok(Read::Passed));
                }
                self.verdict = Some(CLOSED_WITHIN_HEAD);
            }
        }
    }

    /// What [`Self::poll_read`] would say, once it can say anything; nothing is handed over. `None` if the other side
    /// has closed between two messages.
    ///
    /// # Errors
    /// The socket's.
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

    /// Reads what there is into `held`, and judges all of that; false if the other side has closed.
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

    /// How many of `bytes` are good, from the first; the rest is a head in part, or what `verdict` is about. A head in
    /// part is given again, with more, the next time.
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
