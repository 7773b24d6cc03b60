//! Announces a small window for each upload, and widens it once the gateway reads the upload.
//!
//! The library has one window size for all streams, and believes that the large one is announced. Its SETTINGS frame is
//! changed to announce the small one. The first WINDOW_UPDATE of a stream shows that some of it was read, and is
//! changed to add the difference. So a caller can never send more than the library accepts (RFC 9113 section 6.9.2).

use std::io::IoSlice;

use super::frames::{SETTINGS, WINDOW_UPDATE};
use super::uploads::Uploads;
use crate::wire::flow_control::FlowControlWindows;
use crate::wire::http2_frames::{Head, Met, Scan};

/// Length of a frame header, in bytes.
const HEADER: usize = 9;
const ACK: u8 = 1;
/// Length of one setting, in bytes: its identifier and its value.
const SETTING: usize = 6;
const INITIAL_WINDOW_SIZE: [u8; 2] = [0, 4];

pub(super) struct Widening {
    windows: FlowControlWindows,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The SETTINGS frame is not written yet.
    Unannounced,
    /// The caller has not yet acknowledged the small window.
    Announced,
    Acknowledged,
    /// All windows have the size that the library believes.
    Off,
}

/// Span of an outgoing frame that must be changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FrameSpan {
    /// Index of the piece that holds the frame.
    pub(super) piece: usize,
    pub(super) offset: usize,
    pub(super) length: usize,
}

impl Widening {
    pub(super) fn new(windows: FlowControlWindows) -> Self {
        let is_useful = windows.unread < windows.stream;
        Self {
            windows,
            stage: if is_useful { Stage::Unannounced } else { Stage::Off },
        }
    }

    /// Records a frame from the caller.
    pub(super) fn meets(&mut self, met: Met) {
        if let Met::End(head) = met
            && head.kind == SETTINGS
            && head.flags & ACK != 0
            && self.stage == Stage::Announced
        {
            self.stage = Stage::Acknowledged;
        }
    }

    /// Finds the next frame to change in `pieces`. `scan` is the position before the first of them.
    pub(super) fn find(&mut self, mut scan: Scan, pieces: &[IoSlice<'_>], uploads: &Uploads) -> Option<FrameSpan> {
        match self.stage {
            Stage::Unannounced => {}
            Stage::Acknowledged if uploads.has_narrow() => {}
            _ => return None,
        }
        for (piece, bytes) in pieces.iter().enumerate() {
            let mut rest = &**bytes;
            while let Some(met) = scan.next(&mut rest) {
                let Met::Begin(head) = met else { continue };
                if !self.changes(head, uploads) {
                    continue;
                }
                let length = HEADER + head.length as usize;
                let offset = (bytes.len() - rest.len()).checked_sub(HEADER);
                if let Some(offset) = offset.filter(|offset| offset + length <= bytes.len()) {
                    return Some(FrameSpan { piece, offset, length });
                }
                // A frame that is split over pieces is not changed: one window stays small, or all are wide from the
                // start.
                if head.kind == SETTINGS {
                    self.stage = Stage::Off;
                    return None;
                }
            }
        }
        None
    }

    fn changes(&self, head: Head, uploads: &Uploads) -> bool {
        match self.stage {
            Stage::Unannounced => head.kind == SETTINGS && head.flags & ACK == 0,
            _ => head.kind == WINDOW_UPDATE && head.length == 4 && uploads.is_narrow(head.stream),
        }
    }

    /// Changes a frame that [`Self::find`] has found.
    pub(super) fn change(&mut self, frame: &mut [u8], uploads: &mut Uploads) {
        let payload = &mut frame[HEADER..];
        if self.stage == Stage::Unannounced {
            self.stage = Stage::Off;
            for setting in payload.chunks_exact_mut(SETTING) {
                if setting[..2] == INITIAL_WINDOW_SIZE && setting[2..] == self.windows.stream.to_be_bytes() {
                    setting[2..].copy_from_slice(&self.windows.unread.to_be_bytes());
                    self.stage = Stage::Announced;
                }
            }
            return;
        }
        if let Ok(increment) = <[u8; 4]>::try_from(&*payload) {
            let more = self.windows.stream - self.windows.unread;
            payload.copy_from_slice(&(u32::from_be_bytes(increment) + more).to_be_bytes());
        }
        let [.., a, b, c, d] = frame[..HEADER] else { return };
        uploads.widen(u32::from_be_bytes([a, b, c, d]));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::frames::{HEADERS, frame};
    use super::super::uploads::NewUploads;
    use super::*;
    use crate::wire::parked::ParkedOfConnection;

    const WINDOWS: FlowControlWindows = FlowControlWindows {
        unread: 100,
        stream: 250,
        connection: 1000,
    };

    struct Setup {
        widening: Widening,
        uploads: Uploads,
        scan: Scan,
    }

    impl Setup {
        fn new() -> Self {
            let parked = Arc::new(ParkedOfConnection::new(Arc::default()));
            Self {
                widening: Widening::new(WINDOWS),
                uploads: Uploads::new(parked, NewUploads::default(), WINDOWS),
                scan: Scan::begin(0),
            }
        }

        fn comes(&mut self, kind: u8, flags: u8) {
            let head = Head {
                length: 0,
                kind,
                flags,
                stream: 1,
            };
            for met in [Met::Begin(head), Met::End(head)] {
                self.widening.meets(met);
                self.uploads.meets(met);
            }
        }

        /// Returns the bytes that are written for these pieces.
        fn goes(&mut self, pieces: &[&[u8]]) -> Vec<u8> {
            let mut slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
            let mut slices = &mut slices[..];
            let mut gone = Vec::new();
            loop {
                let whole: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
                let found = self.widening.find(self.scan, slices, &self.uploads);
                let (before, length) = found.map_or((whole.len(), 0), |place| {
                    let before: usize = slices[..place.piece].iter().map(|slice| slice.len()).sum();
                    (before + place.offset, place.length)
                });
                let mut frame = whole[before..before + length].to_vec();
                gone.extend(&whole[..before]);
                if length == 0 {
                    return gone;
                }
                self.widening.change(&mut frame, &mut self.uploads);
                gone.extend(frame);
                let mut passed = &whole[..before + length];
                while self.scan.next(&mut passed).is_some() {}
                IoSlice::advance_slices(&mut slices, before + length);
            }
        }
    }

    fn settings(window: u32) -> Vec<u8> {
        let window = [&[0, 4], &window.to_be_bytes()[..]].concat();
        frame(
            SETTINGS,
            0,
            &[&[0, 3, 0, 0, 0, 100], &window[..], &[0, 8, 0, 0, 0, 1]].concat(),
        )
    }

    fn update(increment: u32) -> Vec<u8> {
        frame(WINDOW_UPDATE, 0, &increment.to_be_bytes())
    }

    #[test]
    fn a_window_is_small_until_something_was_read() {
        let mut setup = Setup::new();
        assert_eq!(
            setup.goes(&[&settings(250), &settings(250)]),
            [settings(100), settings(250)].concat()
        );
        setup.comes(HEADERS, 0);
        assert_eq!(
            setup.goes(&[&update(60)]),
            update(60),
            "it is not known to the caller yet"
        );
        setup.comes(SETTINGS, ACK);
        let data = frame(0, 0, &[8; 30]);
        let pieces = [&data[..], &[], &[update(60), update(70)].concat(), &data];
        let expected = [data.clone(), update(210), update(70), data.clone()].concat();
        assert_eq!(setup.goes(&pieces), expected, "once");
        assert_eq!(setup.goes(&[&update(60)]), update(60));
    }

    #[test]
    fn a_stream_without_an_upload_is_left_alone() {
        let mut setup = Setup::new();
        setup.goes(&[&settings(250)]);
        setup.comes(SETTINGS, ACK);
        assert_eq!(setup.goes(&[&update(60)]), update(60));
        setup.comes(HEADERS, 0);
        setup.comes(HEADERS, 1);
        assert_eq!(setup.goes(&[&update(60)]), update(60));
    }

    #[test]
    fn a_frame_in_pieces_goes_as_it_is() {
        let whole = settings(250);
        let (head, tail) = whole.split_at(12);
        let mut setup = Setup::new();
        assert_eq!(setup.goes(&[head, tail]), whole);
        setup.comes(SETTINGS, ACK);
        setup.comes(HEADERS, 0);
        assert_eq!(
            setup.goes(&[&update(60)]),
            update(60),
            "the caller knows the wide window"
        );
    }
}
