//! Limits the frames that a backend may send without being asked.
//!
//! Pings, settings, window updates, interim answers, empty frames: each is legal, and the h2 library reads or answers
//! each. A backend that sends only these keeps a worker busy without end, on a used or an idle connection
//! (CVE-2019-9512 to 9518). Hence each such frame uses up an allowance, which grows with time and with the bytes of
//! requests sent. Requests count because a backend must update windows for uploads, and may answer, reset and ping for
//! each request. Frames that h2 sends in reply (PONG, an acknowledgement) add nothing.
//!
//! Reads only frame headers and does not check the grammar; h2 does.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use policies::Moment;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::link::Peer;
use crate::clock;
use crate::wire::http2_frames::{Head, Met, Scan};

/// Maximum allowance, in frames.
const MOST: u64 = 20_000;
/// Frames added to the allowance each millisecond.
const PER_MILLISECOND: u64 = 1;
/// Bytes of sent requests that add one frame. A request has at least 80.
const BYTES_PER_FRAME: u64 = 8;

/// Size of the client's connection preface in bytes (RFC 9113 section 3.4).
const PREFACE: u32 = 24;
const FRAME_HEADER: u64 = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const PADDED: u8 = 8;
/// Size in bytes up to which a frame may be nothing but padding.
const PADDING: u32 = 256;

const TOO_MANY: &str = "the backend sends too many frames that nobody has asked for";

pub(super) struct Metered<S> {
    socket: S,
    allowance: Allowance,
    /// Name of the endpoint, for the log.
    endpoint: Arc<str>,
    peer: Arc<Peer>,
}

/// Number of frames that may arrive without any data of an answer's body.
#[derive(Debug)]
struct Allowance {
    comes: Scan,
    goes: Scan,
    frames: u64,
    /// Time up to which the allowance has grown.
    since: Moment,
    /// Bytes of sent requests that have not yet added to the allowance.
    asked: u64,
}

/// The allowance is used up.
#[derive(Debug, PartialEq, Eq)]
struct Exhausted;

impl Allowance {
    const fn begin(now: Moment) -> Self {
        Self {
            comes: Scan::begin(0),
            goes: Scan::begin(PREFACE),
            frames: MOST,
            since: now,
            asked: 0,
        }
    }

    fn note_sent(&mut self, mut bytes: &[u8]) {
        while let Some(met) = self.goes.next(&mut bytes) {
            if let Met::Begin(head) = met
                && matches!(head.kind, DATA | HEADERS | CONTINUATION)
            {
                self.asked = self.asked.saturating_add(FRAME_HEADER + u64::from(head.length));
            }
        }
    }

    fn pass(&mut self, mut bytes: &[u8], now: Moment) -> Result<(), Exhausted> {
        self.replenish(now);
        while let Some(met) = self.comes.next(&mut bytes) {
            if let Met::Begin(head) = met
                && is_paid_for(head)
            {
                self.frames = self.frames.checked_sub(1).ok_or(Exhausted)?;
            }
        }
        Ok(())
    }

    fn replenish(&mut self, now: Moment) {
        let milliseconds = u64::try_from(now.since(self.since).as_millis()).unwrap_or(u64::MAX);
        if milliseconds > 0 {
            self.since = now;
        }
        let bought = self.asked / BYTES_PER_FRAME;
        self.asked %= BYTES_PER_FRAME;
        let more = milliseconds.saturating_mul(PER_MILLISECOND).saturating_add(bought);
        self.frames = self.frames.saturating_add(more).min(MOST);
    }
}

/// Whether a frame uses up the allowance. A piece of a body is limited by flow control; all other frames only by this.
const fn is_paid_for(head: Head) -> bool {
    let may_be_padding = head.flags & PADDED != 0 && head.length <= PADDING;
    head.kind != DATA || (head.length == 0 || may_be_padding) && head.flags & END_STREAM == 0
}

impl<S> Metered<S> {
    pub(super) fn new(socket: S, endpoint: &Arc<str>, peer: Arc<Peer>) -> Self {
        Self {
            socket,
            allowance: Allowance::begin(clock::now()),
            endpoint: Arc::clone(endpoint),
            peer,
        }
    }

    /// Counts the bytes of `bufs` that were written.
    fn sent<'b>(
        &mut self,
        polled: Poll<io::Result<usize>>,
        bufs: impl Iterator<Item = &'b [u8]>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = &polled {
            let mut left = *count;
            for buf in bufs {
                let gone = left.min(buf.len());
                self.allowance.note_sent(&buf[..gone]);
                left -= gone;
            }
        }
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.socket).poll_read(cx, buf))?;
        let come = &buf.filled()[before..];
        this.peer.note_heard();
        if this.allowance.pass(come, clock::now()) == Err(Exhausted) {
            tracing::warn!(endpoint = %this.endpoint, "{TOO_MANY}: the connection is closed");
            return Poll::Ready(Err(io::Error::new(ErrorKind::InvalidData, TOO_MANY)));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.socket).poll_write(cx, buf);
        this.sent(polled, std::iter::once(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.socket).poll_write_vectored(cx, bufs);
        this.sent(polled, bufs.iter().map(|buf| &**buf))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const END_HEADERS: u8 = 4;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// Builds a request of this many bytes.
    fn request(bytes: usize) -> Vec<u8> {
        frame(HEADERS, END_HEADERS, &vec![0; bytes - 9])
    }

    fn begun(now: Moment) -> Allowance {
        let mut allowance = Allowance::begin(now);
        allowance.note_sent(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        allowance
    }

    fn at(milliseconds: u64) -> Moment {
        Moment::ZERO + Duration::from_millis(milliseconds)
    }

    /// Counts how many of 100,000 equal frames pass at once.
    fn passed(frame: &[u8]) -> u64 {
        let mut allowance = begun(at(0));
        (0..100_000)
            .take_while(|_| allowance.pass(frame, at(0)).is_ok())
            .count() as u64
    }

    #[test]
    fn what_nobody_has_asked_for_is_bounded_and_bodies_are_not() {
        for (name, kind, flags, payload) in [
            (
                "interim answers",
                HEADERS,
                END_HEADERS,
                &[0x08, 0x03, b'1', b'0', b'3'][..],
            ),
            ("priorities", 2, 0, &[0; 5]),
            ("resets", 3, 0, &[0; 4]),
            ("settings", 4, 0, &[]),
            ("acknowledged settings", 4, 1, &[]),
            ("promises", 5, END_HEADERS, &[0; 4]),
            ("pings", 6, 0, &[0; 8]),
            ("pongs", 6, 1, &[0; 8]),
            ("farewells", 7, 0, &[0; 8]),
            ("window updates", 8, 0, &[0, 0, 0, 1]),
            ("continuations", 9, 0, &[]),
            ("frames of no known kind", 0x2a, 0, &[]),
            ("empty pieces", DATA, 0, &[]),
            ("pieces of padding", DATA, PADDED, &[255; 256]),
        ] {
            assert_eq!(passed(&frame(kind, flags, payload)), MOST, "{name}");
        }
        assert_eq!(passed(&frame(DATA, 0, b"x")), 100_000);
        assert_eq!(passed(&frame(DATA, END_STREAM, &[])), 100_000);
        assert_eq!(passed(&frame(DATA, PADDED, &[9; 1000])), 100_000);
    }

    #[test]
    fn time_and_what_is_sent_give_frames_back() {
        let ping = frame(6, 0, &[0; 8]);
        let count = |allowance: &mut Allowance, now| (0..).take_while(|_| allowance.pass(&ping, now).is_ok()).count();
        let mut allowance = begun(at(1_000));
        assert_eq!(count(&mut allowance, at(1_000)), 20_000);
        // The refused frame has already begun. In real use the connection then closes; here its rest is skipped.
        let mut check = |sent: &[u8], now, expected| {
            allowance.comes = Scan::begin(0);
            allowance.note_sent(sent);
            assert_eq!(
                count(&mut allowance, at(now)),
                expected,
                "{} bytes, at {now}",
                sent.len()
            );
        };
        check(&[], 1_000, 0);
        check(&[], 1_250, 250);
        check(&request(80), 1_250, 10);
        check(&request(12), 1_250, 1);
        check(&request(12), 1_250, 2);
        check(&request(80).repeat(5_000), 1_250, 20_000);
        // Replies to received frames add nothing.
        for kind in [3, 4, 6, 8] {
            check(&frame(kind, 1, &[0; 8]).repeat(10), 1_250, 0);
        }
        // Time that goes backwards adds nothing.
        check(&[], 0, 0);
        check(&[], 3_600_000, 20_000);
    }

    /// Sends 20,000 of the smallest requests at once, each with all the frames that a good backend may send for it.
    #[test]
    fn a_busy_backend_is_no_flood() {
        let mut allowance = begun(at(0));
        let about_one = [
            frame(8, 0, &[0, 0, 0, 1]),
            frame(8, 0, &[0, 0, 0, 1]),
            frame(HEADERS, END_HEADERS, &[0x88]),
            frame(DATA, 0, b"{}"),
            frame(HEADERS, END_HEADERS | END_STREAM, &[0x88]),
            frame(3, 0, &[0; 4]),
            frame(6, 0, &[0; 8]),
        ]
        .concat();
        for _ in 0..20_000 {
            allowance.note_sent(&request(80));
            // The network may cut the bytes anywhere.
            for piece in about_one.chunks(5) {
                assert_eq!(allowance.pass(piece, at(0)), Ok(()));
            }
        }
    }
}
