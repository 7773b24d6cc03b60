//! Checks the requests of a connection, one after another, and holds bytes back until they are judged.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use crate::wire::http1::{Body, BodyLength, Follows, Found, HeadReader, Kind, Limits, Refusal};

/// Size in bytes of one read while a head arrives in pieces.
const PIECE: usize = 4096;

const CLOSED_WITHIN_HEAD: Read = Read::NoHead(Refusal::Malformed("the sender closed within a head"));

/// Check between a socket and the reader of its messages.
#[derive(Debug)]
pub struct Screen {
    limits: Limits,
    at: At,
    /// Incomplete head, or bytes that were read together with its end.
    held: Vec<u8>,
    /// Number of bytes of `held` that were judged valid.
    ready: usize,
    verdict: Option<Read>,
}

#[derive(Debug)]
enum At {
    /// Position between two messages.
    Start,
    Head(HeadReader),
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

impl Screen {
    pub const fn new(limits: Limits) -> Self {
        Self {
            limits,
            at: At::Start,
            held: Vec::new(),
            ready: 0,
            verdict: None,
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
                // The caller may still read the reason.
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
                At::Start => self.at = At::Head(HeadReader::new(Kind::Request)),
                At::Head(head) => match head.read(&bytes[at..], &self.limits, None) {
                    Ok(None) => break,
                    Ok(Some(length)) => {
                        at += length;
                        let (follows, last) = head.follows();
                        match follows {
                            Follows::Body(BodyLength::Exact(0)) => self.end_of_message(last),
                            Follows::Body(length) => {
                                let body = Body::new(length);
                                self.at = At::Body { body, last };
                            }
                            // Only the answer to a request switches protocols.
                            Follows::Nothing | Follows::AnotherHead | Follows::Switch => self.end_of_message(last),
                        }
                    }
                    Err(refusal) => {
                        self.verdict = Some(Read::NoHead(refusal));
                        break;
                    }
                },
                At::Body { body, last } => {
                    let (framing, found) = body.read(&bytes[at..], &self.limits);
                    at += framing;
                    match found {
                        Ok(Found::More) => {}
                        Ok(Found::Content(length)) => {
                            at += length;
                            if body.has_all() {
                                let last = *last;
                                self.end_of_message(last);
                            }
                        }
                        Ok(Found::End) => {
                            let last = *last;
                            self.end_of_message(last);
                        }
                        Err(refusal) => {
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
        self.at = if last { At::Over } else { At::Start };
    }
}
