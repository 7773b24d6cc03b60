//! Limits frames of an HTTP/2 caller that cost work and ask for nothing.
//!
//! Pings, settings, resets and empty frames are legal, and the library answers each. A caller that sends nothing else
//! can keep a core busy from one connection (CVE-2019-9512 to 9518, CVE-2023-44487, CVE-2024-27316). So each such frame
//! is charged to an allowance. The allowance grows with time and with the bytes sent to the caller, because a caller
//! that reads large answers must update windows, and gRPC clients measure their bandwidth at every message. A cancelled
//! request costs more than a ping.
//!
//! This file reads only frame headers. The library checks the rest of the protocol.

use crate::observe::FrameKind;
use crate::wire::http2_frames::{Head, Met, Scan};

/// Length of the client's connection preface, in bytes (RFC 9113 section 3.4).
const PREFACE: u32 = 24;
/// Largest allowance; unused allowance does not grow beyond it.
const MOST: u32 = 2000;
const PER_TICK: u32 = 100;
const BYTES_PER_FRAME: usize = 256;
/// Allowance earned by each piece of an answer; the caller's windows may cut a piece into several frames.
const PER_PIECE: u32 = 4;
/// Price of a cancelled request. A browser cancels many at once when its user leaves a page.
const RESET: u32 = 10;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
const PING: u8 = 6;
pub(super) const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
pub(super) const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
/// Length up to which a padded frame may hold nothing but padding, in bytes.
const PADDING: u32 = 256;

/// Number of bytes that [`Frames::pass`] has examined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Passed {
    /// All bytes, or those up to the end of the head of a request that has a body.
    pub(super) bytes: usize,
    pub(super) ends_with_upload: bool,
}

/// The caller has used up its allowance, with a last frame of this kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flood(pub(super) FrameKind);

#[derive(Debug)]
pub(super) struct Frames {
    scan: Scan,
    in_headers: bool,
    /// Whether the current head belongs to a request that has a body.
    of_upload: bool,
    allowance: u32,
    tick: u32,
    /// Bytes sent to the caller and not yet turned into allowance.
    sent: usize,
}

impl Frames {
    pub(super) const fn begin(tick: u32) -> Self {
        Self {
            scan: Scan::begin(PREFACE),
            in_headers: false,
            of_upload: false,
            allowance: MOST,
            tick,
            sent: 0,
        }
    }

    /// Returns whether a head is incomplete: within a frame of any kind, or between the frames of one head.
    pub(super) const fn is_within_head(&self) -> bool {
        self.in_headers || self.scan.is_within()
    }

    pub(super) fn note_sent(&mut self, count: usize) {
        self.sent = self.sent.saturating_add(count);
    }

    /// Examines the bytes that have come by `tick`, after `pieces` pieces of answers were handed over. Stops after a
    /// head that a body follows. Calls `meets` for every frame.
    ///
    /// # Errors
    /// [`Flood`] if the allowance is used up; the connection must not be read further.
    pub(super) fn pass(
        &mut self,
        come: &[u8],
        tick: u32,
        pieces: u32,
        mut meets: impl FnMut(Met),
    ) -> Result<Passed, Flood> {
        self.replenish(tick, pieces);
        let mut bytes = come;
        while let Some(met) = self.scan.next(&mut bytes) {
            if let Met::Begin(head) = met {
                self.pay(head)?;
            }
            meets(met);
            if let Met::End(head) = met
                && matches!(head.kind, HEADERS | CONTINUATION)
                && head.flags & END_HEADERS != 0
            {
                self.in_headers = false;
                if std::mem::take(&mut self.of_upload) {
                    return Ok(Passed {
                        bytes: come.len() - bytes.len(),
                        ends_with_upload: true,
                    });
                }
            }
        }
        Ok(Passed {
            bytes: come.len(),
            ends_with_upload: false,
        })
    }

    fn replenish(&mut self, tick: u32, pieces: u32) {
        let ticks = tick.wrapping_sub(self.tick);
        self.tick = tick;
        let bought = u32::try_from(self.sent / BYTES_PER_FRAME).unwrap_or(MOST);
        self.sent %= BYTES_PER_FRAME;
        let more = ticks
            .saturating_mul(PER_TICK)
            .saturating_add(bought)
            .saturating_add(pieces.saturating_mul(PER_PIECE));
        self.allowance = self.allowance.saturating_add(more).min(MOST);
    }

    fn pay(
        &mut self,
        Head {
            length, kind, flags, ..
        }: Head,
    ) -> Result<(), Flood> {
        let (price, kind) = match kind {
            HEADERS => {
                self.in_headers = true;
                self.of_upload = flags & END_STREAM == 0;
                (0, FrameKind::Other)
            }
            DATA if length == 0 && flags & END_STREAM == 0 => (1, FrameKind::EmptyData),
            DATA if length <= PADDING && flags & (PADDED | END_STREAM) == PADDED => (1, FrameKind::EmptyData),
            DATA => (0, FrameKind::Other),
            RST_STREAM => (RESET, FrameKind::RstStream),
            PRIORITY => (1, FrameKind::Priority),
            SETTINGS => (1, FrameKind::Settings),
            PING => (1, FrameKind::Ping),
            WINDOW_UPDATE => (1, FrameKind::WindowUpdate),
            CONTINUATION => (1, FrameKind::Continuation),
            _ => (1, FrameKind::Other),
        };
        self.allowance = self.allowance.checked_sub(price).ok_or(Flood(kind))?;
        Ok(())
    }
}

/// Encodes a frame of stream 1.
#[cfg(test)]
pub(super) fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pass(frames: &mut Frames, mut bytes: &[u8], tick: u32) -> Result<(), Flood> {
        loop {
            let passed = frames.pass(bytes, tick, 0, |_| {})?;
            bytes = &bytes[passed.bytes..];
            if !passed.ends_with_upload {
                return Ok(());
            }
        }
    }

    fn begun() -> Frames {
        let mut frames = Frames::begin(1);
        assert_eq!(pass(&mut frames, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 1), Ok(()));
        frames
    }

    /// Returns how many of a frame are accepted within one tick, and the kind of the flood that the next one causes.
    fn taken(frame: &[u8]) -> (u32, Option<FrameKind>) {
        let mut frames = begun();
        for count in 0..100_000 {
            if let Err(Flood(kind)) = pass(&mut frames, frame, 1) {
                return (count, Some(kind));
            }
        }
        (100_000, None)
    }

    #[test]
    fn what_asks_for_nothing_is_bounded() {
        assert_eq!(taken(&frame(PING, 0, &[0; 8])), (2000, Some(FrameKind::Ping)));
        assert_eq!(taken(&frame(SETTINGS, 0, &[])), (2000, Some(FrameKind::Settings)));
        assert_eq!(taken(&frame(DATA, 0, &[])), (2000, Some(FrameKind::EmptyData)));
        assert_eq!(
            taken(&frame(CONTINUATION, 0, &[0])),
            (2000, Some(FrameKind::Continuation))
        );
        assert_eq!(
            taken(&frame(WINDOW_UPDATE, 0, &[0; 4])),
            (2000, Some(FrameKind::WindowUpdate))
        );
        let padding = frame(DATA, PADDED, &[200; 201]);
        assert_eq!(taken(&padding), (2000, Some(FrameKind::EmptyData)));
        assert_eq!(taken(&frame(PRIORITY, 0, &[0; 5])), (2000, Some(FrameKind::Priority)));
        assert_eq!(taken(&frame(0x2a, 0, &[])), (2000, Some(FrameKind::Other)));
        let cancelled = [
            frame(HEADERS, END_STREAM | END_HEADERS, &[0x82]),
            frame(RST_STREAM, 0, &[0; 4]),
        ];
        assert_eq!(taken(&cancelled.concat()), (200, Some(FrameKind::RstStream)));
    }

    #[test]
    fn what_asks_for_something_is_not() {
        assert_eq!(
            taken(&frame(HEADERS, END_STREAM | END_HEADERS, &[0x82])),
            (100_000, None)
        );
        assert_eq!(taken(&frame(DATA, 0, &[1])), (100_000, None));
        assert_eq!(taken(&frame(DATA, END_STREAM, &[])), (100_000, None));
        assert_eq!(taken(&frame(DATA, END_STREAM | PADDED, &[0])), (100_000, None));
        assert_eq!(taken(&frame(DATA, PADDED, &[1; 300])), (100_000, None));
    }

    #[test]
    fn time_and_what_is_sent_pay() {
        let (ping, mut frames) = (frame(PING, 0, &[0; 8]), begun());
        let pings = |frames: &mut Frames, tick| (0..10_000).take_while(|_| pass(frames, &ping, tick).is_ok()).count();
        assert_eq!(pings(&mut frames, 1), 2000);
        frames = begun();
        frames.allowance = 0;
        frames.note_sent(256 * 10 + 255);
        assert_eq!(pass(&mut frames, &[], 2), Ok(()));
        assert_eq!(frames.allowance, 110);
        frames.note_sent(1);
        assert_eq!(pass(&mut frames, &[], 2), Ok(()));
        assert_eq!(frames.allowance, 111, "nothing that was sent is forgotten");
        assert_eq!(pass(&mut frames, &[], 1000), Ok(()));
        assert_eq!(frames.allowance, MOST);
        frames.allowance = 0;
        assert!(frames.pass(&[], 1000, 3, |_| {}).is_ok());
        assert_eq!(
            frames.allowance, 12,
            "and a piece of an answer pays for more than its bytes"
        );
        // A tick counter that wraps around must not end a connection.
        assert_eq!(pass(&mut Frames::begin(u32::MAX), &[], 0), Ok(()));
    }

    #[test]
    fn a_head_is_known_to_be_incomplete() {
        let mut frames = begun();
        let (headers, rest) = (frame(HEADERS, 0, &[1, 2, 3]), frame(CONTINUATION, END_HEADERS, &[4]));
        for byte in [headers, rest[..rest.len() - 1].to_vec()].concat() {
            assert_eq!(pass(&mut frames, &[byte], 1), Ok(()));
            assert!(frames.is_within_head());
        }
        assert_eq!(pass(&mut frames, &rest[rest.len() - 1..], 1), Ok(()));
        assert!(!frames.is_within_head());
    }

    #[test]
    fn what_follows_the_head_of_an_upload_is_for_another_look() {
        let (get, rest) = (
            frame(HEADERS, END_STREAM | END_HEADERS, &[0x82]),
            frame(DATA, 0, &[1; 5]),
        );
        let check = |head: &[Vec<u8>]| {
            let head = [std::slice::from_ref(&get), head].concat().concat();
            let bytes = [head.clone(), rest.clone()].concat();
            let mut frames = begun();
            let passed = |bytes, ends_with_upload| {
                Ok(Passed {
                    bytes,
                    ends_with_upload,
                })
            };
            assert_eq!(frames.pass(&bytes, 1, 0, |_| {}), passed(head.len(), true));
            assert_eq!(
                frames.pass(&bytes[head.len()..], 1, 0, |_| {}),
                passed(rest.len(), false)
            );
        };
        check(&[frame(HEADERS, END_HEADERS, &[0x83])]);
        check(&[frame(HEADERS, 0, &[0x83]), frame(CONTINUATION, END_HEADERS, &[])]);
    }

    proptest! {
        #![proptest_config(cases::counted())]

        /// The network may cut the bytes anywhere.
        #[test]
        fn the_verdict_does_not_depend_on_where_bytes_are_cut(
            kinds in prop::collection::vec((0..12u8, any::<u8>(), 0..20usize), 0..50),
            cuts in prop::collection::vec(1..30usize, 1..20),
        ) {
            let bytes: Vec<u8> = kinds.iter().flat_map(|(kind, flags, length)| frame(*kind, *flags, &vec![0; *length])).collect();
            let (mut whole, mut cut) = (begun(), begun());
            whole.allowance = 30;
            cut.allowance = 30;
            let verdict = pass(&mut whole, &bytes, 1);
            let mut rest = &bytes[..];
            let mut by = cuts.iter().cycle();
            let mut piecewise = Ok(());
            while !rest.is_empty() && piecewise.is_ok() {
                let (piece, left) = rest.split_at(rest.len().min(*by.next().expect("a cycle")));
                piecewise = pass(&mut cut, piece, 1);
                rest = left;
            }
            prop_assert_eq!(verdict, piecewise);
            prop_assert_eq!(whole.allowance, cut.allowance);
            prop_assert_eq!(whole.in_headers, cut.in_headers);
        }
    }
}
