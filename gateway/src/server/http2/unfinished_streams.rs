//! Tracks the streams whose answers are not completely sent.
//!
//! The library takes the last piece of an answer before the caller's window has room for it, so a piece that was handed
//! over may still wait in the library. Only the frames that are written show that no answer is due any more.

use super::frames::{DATA, END_STREAM, HEADERS, RST_STREAM};
use crate::wire::http2_frames::{Head, Met, Scan};

/// Largest number of streams that are tracked; no connection may have as many at once.
const MOST: usize = 4096;

#[derive(Debug)]
pub(super) struct UnfinishedStreams {
    /// Position in the bytes sent to the caller.
    scan: Scan,
    streams: Vec<u32>,
    newest: u32,
}

impl UnfinishedStreams {
    pub(super) const fn begin() -> Self {
        Self {
            scan: Scan::begin(0),
            streams: Vec::new(),
            newest: 0,
        }
    }

    pub(super) const fn is_nothing(&self) -> bool {
        self.streams.is_empty()
    }

    /// Records a frame from the caller.
    pub(super) fn comes(&mut self, head: Head) {
        match head.kind {
            // A later HEADERS frame of a stream carries its trailers.
            HEADERS if head.stream > self.newest => {
                self.newest = head.stream;
                if self.streams.len() < MOST {
                    self.streams.push(head.stream);
                }
            }
            RST_STREAM => self.ends(head.stream),
            _ => {}
        }
    }

    /// Records bytes sent to the caller. Calls `ends` for each stream that ends in them.
    pub(super) fn goes(&mut self, mut bytes: &[u8], mut ends: impl FnMut(u32)) {
        while let Some(met) = self.scan.next(&mut bytes) {
            if let Met::End(head) = met
                && (head.kind == RST_STREAM || matches!(head.kind, DATA | HEADERS) && head.flags & END_STREAM != 0)
            {
                self.ends(head.stream);
                ends(head.stream);
            }
        }
    }

    /// Returns the position in the bytes sent to the caller.
    pub(super) const fn scan(&self) -> Scan {
        self.scan
    }

    fn ends(&mut self, stream: u32) {
        if let Some(place) = self.streams.iter().position(|other| *other == stream) {
            self.streams.swap_remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::frames::frame;
    use super::*;

    fn comes(owed: &mut UnfinishedStreams, kind: u8, stream: u32) {
        let head = Head {
            length: 0,
            kind,
            flags: 0,
            stream,
        };
        owed.comes(head);
    }

    #[test]
    fn an_answer_is_owed_until_its_last_byte_has_gone() {
        let mut owed = UnfinishedStreams::begin();
        assert!(owed.is_nothing());
        comes(&mut owed, HEADERS, 1);
        let answer = [
            frame(HEADERS, 0, &[0x88]),
            frame(DATA, 0, &[0; 10]),
            frame(DATA, END_STREAM, &[0; 10]),
        ];
        for byte in answer.concat() {
            assert!(!owed.is_nothing());
            owed.goes(&[byte], |_| {});
        }
        assert!(owed.is_nothing());
        comes(&mut owed, HEADERS, 1);
        assert!(owed.is_nothing(), "trailers are no request");
    }

    #[test]
    fn whoever_resets_a_stream_is_owed_nothing_on_it() {
        let mut owed = UnfinishedStreams::begin();
        comes(&mut owed, HEADERS, 1);
        comes(&mut owed, HEADERS, 3);
        comes(&mut owed, RST_STREAM, 3);
        comes(&mut owed, RST_STREAM, 3);
        assert!(!owed.is_nothing());
        let mut ended = None;
        owed.goes(&frame(RST_STREAM, 0, &[0; 4]), |stream| ended = Some(stream));
        assert_eq!(ended, Some(1));
        assert!(owed.is_nothing());
    }

    #[test]
    fn a_caller_cannot_have_us_remember_any_number() {
        let mut owed = UnfinishedStreams::begin();
        (0..100_000).for_each(|number| comes(&mut owed, HEADERS, 2 * number + 1));
        assert_eq!(owed.streams.len(), MOST);
    }
}
